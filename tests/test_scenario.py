import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capcsim.errors import ScenarioError
from capcsim.scenario import Scenario, load_scenario, shipped_scenarios

Build = Callable[..., Scenario]
CONFIDENT = {"privacy.mechanism": "confident-gnmax", "privacy.threshold": 5, "privacy.sigma1": 3.0}
LAPLACE = {"privacy.mechanism": "lnmax", "privacy.sigma": None, "privacy.scale": 3.0}


def test_the_shipped_scenarios_are_valid() -> None:
    assert set(shipped_scenarios()) >= {"digits", "hospitals", "smoke"}
    for name in shipped_scenarios():
        assert load_scenario(name).title


def test_digits_is_as_documented() -> None:
    digits = load_scenario("digits")
    assert (digits.parties.count, digits.parties.queriers, digits.data.train_per_party) == (50, 3, 24)
    assert (digits.privacy.sigma, digits.privacy.delta, digits.privacy.epsilon) == (7.0, 1e-5, 6.0)
    assert (digits.queries.per_querier, digits.queries.selection) == (40, "entropy")


def test_overrides_take_toml_values_and_bare_words() -> None:
    changed = load_scenario(
        "digits",
        ["privacy.sigma=9", "queries.selection=random", "models.kinds=['mlp', 'logistic']", "network.party.up_bps=1e6"],
        seed=5,
        backend="other",
    )
    assert (changed.privacy.sigma, changed.queries.selection, changed.seed) == (9.0, "random", 5)
    assert changed.models.kinds == ("mlp", "logistic")
    assert changed.network.party.up_bps == 1e6
    assert changed.network.party.down_bps == load_scenario("digits").network.party.down_bps
    assert changed.protocol.backend == "other"


def test_a_scenario_cannot_be_changed(scenario: Build) -> None:
    with pytest.raises(ValueError, match="frozen"):
        scenario().privacy.sigma = 1.0


TABLE = {"data.source": "csv", "data.path": "mine.csv", "data.site": "ward", "data.drop": ["id"]}
BY_SITE = {"data.source": "heart", "data.partition": "site", "data.missing": "median", "data.train_per_party": None}
KINDS = [{}, LAPLACE, CONFIDENT, {"data.source": "mnist"}, {"data.source": "npz", "data.path": "x.npz"}, TABLE, BY_SITE]


@pytest.mark.parametrize("changes", KINDS)
def test_what_a_record_keeps_is_the_scenario(scenario: Build, changes: dict[str, Any]) -> None:
    """Each kind's own keys, and no other kind's."""
    found = scenario(changes)
    told = json.loads(json.dumps(found.model_dump(mode="json")))
    assert Scenario.model_validate(told) == found
    for key, value in changes.items():
        section, name = key.split(".")
        assert told[section].get(name) == value
    assert ("scale" in told["privacy"]) == (changes is LAPLACE)
    assert ("drop" in told["data"]) == (changes is TABLE)


@pytest.mark.parametrize("name", ["digits", "hospitals"])
def test_a_folder_for_what_lies_in_none_is_refused(name: str) -> None:
    with pytest.raises(ScenarioError, match=r"^--data 'sets': leave it out: data\.source = '\w+' is no set"):
        load_scenario(name, folder=Path("sets"))


def test_a_kind_is_changed_by_overrides() -> None:
    found = load_scenario("digits", ["privacy.mechanism=lnmax", "privacy.sigma=", "privacy.scale=4"], seed=1).privacy
    assert (found.mechanism, found.parameters, found.epsilon) == ("lnmax", {"scale": 4.0}, 6.0)


def test_a_data_path_is_meant_from_the_scenarios_folder(tmp_path: Path) -> None:
    text = shipped_scenarios()["smoke"].read_text().replace('"digits"', '"npz"\npath = "sets/mine.npz"', 1)
    (tmp_path / "mine.toml").write_text(text)
    assert load_scenario(str(tmp_path / "mine.toml")).data.path == tmp_path / "sets" / "mine.npz"


def test_models_may_be_a_users_own(scenario: Build) -> None:
    kinds = ["mlp", "mine:make", "a.b_1.C:make_2", "python:net"]
    assert scenario({"models.kinds": kinds}).models.kinds == tuple(kinds)
    items = Scenario.model_json_schema()["$defs"]["Models"]["properties"]["kinds"]["items"]["anyOf"]
    assert "mlp" in items[0]["enum"]
    assert all(re.search(items[1]["pattern"], kind) for kind in kinds[1:])


def test_the_schema_names_every_section() -> None:
    schema = Scenario.model_json_schema()
    sections = {
        "data",
        "parties",
        "models",
        "queries",
        "privacy",
        "protocol",
        "network",
        "machines",
        "faults",
        "prices",
    }
    assert sections <= set(schema["properties"])
    assert json.loads(json.dumps(schema)) == schema


def numbers(schema: dict[str, Any], node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number of a JSON schema, with its dotted key."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    for kind in node.get("oneOf", ()):
        yield from numbers(schema, kind, path)
    for kind in node.get("anyOf", [node]):
        if kind.get("type") in ("integer", "number") and path:
            yield path, kind
        for key, child in kind.get("properties", {}).items():
            yield from numbers(schema, child, f"{path}.{key}".lstrip("."))
        if "items" in kind:
            yield from numbers(schema, kind["items"], f"{path}.0")
        names = [kind["additionalProperties"]] if isinstance(kind.get("additionalProperties"), dict) else []
        for child in [*names, *kind.get("patternProperties", {}).values()]:
            yield from numbers(schema, child, f"{path}.here")


NUMBERS = dict(numbers(Scenario.model_json_schema(), Scenario.model_json_schema()))
NUMBERS.pop("protocol.options.here")  # it is the backend's
BOTH_SIGNS = "sites.here.utc_offset_h"
PHYSICAL = ["network.latency_s", "network.party.up_bps", "machines.party.cores", "machines.guardian.speed",
            "parties.count", "protocol.deadline_s", "prices.per_gb_sent", "privacy.sigma", "models.epochs",
            "queries.batch", "data.evaluation"]  # fmt: skip


def test_every_number_has_a_range() -> None:
    assert set(PHYSICAL) <= set(NUMBERS)
    for key, node in NUMBERS.items():
        assert {"minimum", "exclusiveMinimum"} & set(node), key
        assert {"maximum", "exclusiveMaximum"} & set(node), key


@pytest.mark.parametrize("value", [1e308, 1e16, float("inf"), 10**400, -(10**400), -1e-9, True, "1"])
@pytest.mark.parametrize("key", NUMBERS)
def test_what_no_machine_or_line_can_be_is_refused_with_the_range(scenario: Build, key: str, value: Any) -> None:
    kind = {"privacy.scale": LAPLACE, "privacy.threshold": CONFIDENT, "privacy.sigma1": CONFIDENT}.get(key, {})
    if key in ("data.agreement", "data.classes", "data.input_shape.0"):
        kind = {"data": {"source": "none", "classes": 2, "agreement": 0.5}}
    if key.endswith("workload.per_hour"):
        kind = {key.replace("per_hour", "arrivals"): "poisson"}
    with pytest.raises(ScenarioError) as caught:
        scenario({**kind, **({key[:-2]: [value]} if key.endswith(".0") else {key: value})})
    told = str(caught.value)
    if key == BOTH_SIGNS and value == -1e-9:
        return
    assert f"{key} = " in told
    assert any(word in told for word in (" from ", " above ", " of at least "))
    assert len(told) < 400


@pytest.mark.parametrize(
    ("key", "value", "range_"),
    [
        ("network.latency_s", 1e308, "a number from 0 to 3600, in seconds"),
        ("network.party.up_bps", 1e-300, r"a number from 1 to 1e\+15, in bits per second"),
        ("network.guardian.down_bps", 1e16, r"a number from 1 to 1e\+15, in bits per second"),
        ("machines.party.cores", 1_000_000, "a whole number from 1 to 4096"),
        ("machines.party.cores", 10**9, "a whole number from 1 to 4096"),
        ("machines.guardian.speed", 1e-9, "a number from 0.001 to 1000"),
        ("parties.count", 10**12, "a whole number from 2 to 1000000"),
        ("protocol.deadline_s", 1e300, r"a number above 0 and at most 1e\+09, in seconds"),
        ("prices.per_core_hour", 1e300, r"a number from 0 to 1e\+09"),
        ("models.hidden", [10**7], "a whole number from 1 to 65536"),
        ("models.learning_rate", 1e-300, "a number from 1e-09 to 100"),
        ("privacy.sigma", 1e-300, "a number from 0.001 to 100000"),
        ("privacy.epsilon", 1e300, r"a number above 0 and at most 1e\+12"),
        ("queries.rounds", 10**9, "a whole number from 1 to 1000000"),
    ],
)
def test_ranges_are_told(scenario: Build, key: str, value: Any, range_: str) -> None:
    with pytest.raises(ScenarioError, match=f"{re.escape(key)}.* = .*: {range_}"):
        scenario({key: value})


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + shipped_scenarios()["smoke"].read_bytes())
    assert load_scenario(str(tmp_path / "mine.toml")) == load_scenario("smoke")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"title = ", "a file in TOML; Invalid value"),
        (b"title = 'x'\nseed == 7", "a file in TOML; Invalid value in line 2: 'seed == 7'"),
        (b'path = "C:\\Users\\me"', "a backslash between .* is written twice"),
        (b"\xff\xfe\x00", "a file in TOML; this is no text in UTF-8"),
        (b"a = " + 5000 * b"[", "nested too deeply"),
        (b".".join([b"a"] * 3000) + b" = 1", "nested too deeply"),
        (b"a = 1" + 5000 * b"0", "a number with too many digits"),
        (b"", "title, data, parties, queries, privacy, network and machines are missing"),
        (None, r"a readable file \(Is a directory\)"),
    ],
    ids=["no value", "two signs", "backslashes", "no text", "deep", "deep keys", "digits", "empty", "a folder"],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "bad.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ScenarioError, match=says) as caught:
        load_scenario(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "nowhere/x.toml", "pyproject.toml/x"])
def test_a_name_that_is_no_file(name: str) -> None:
    with pytest.raises(ScenarioError, match=r"^SCENARIO '.*: (no such|a readable) file"):
        load_scenario(name)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"alliance, digits, heart, hospitals, mnist, smoke; did you mean digits\?"):
        load_scenario("dgits")


@pytest.mark.parametrize(
    "override", ["sigma", "=3", "privacy.=3", "title.x=1", "", ".=1", "models.kinds=[mlp]", 'privacy.sigma="3']
)
def test_a_bad_override_is_shown(override: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario("digits", [override])
    assert str(caught.value).startswith(f"--set {override!r}: ")


def test_an_override_changes_one_key_only() -> None:
    with pytest.raises(ScenarioError, match=r"privacy\.sigma = '1\\nseed = 9': a number"):
        load_scenario("digits", ["privacy.sigma=1\nseed = 9"])


def test_a_section_that_is_a_value_is_told_beside_options_too(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("data = 3\nprotocol = 4")
    with pytest.raises(ScenarioError, match=r"data = 3: a section with .*; also protocol = 4: a section"):
        load_scenario(str(tmp_path / "mine.toml"), backend="hybrid", folder=tmp_path)


@pytest.mark.parametrize(
    ("overrides", "title"),
    [
        ([], "Handwritten digits"),
        (
            ["parties.count=25", "privacy.sigma=8"],
            "Handwritten digits (changed: parties.count = 25, privacy.sigma = 8)",
        ),
        (["parties.count=50", "queries.selection=entropy"], "Handwritten digits"),
        (["queries.in_flight="], "Handwritten digits (changed: queries.in_flight removed)"),
        (
            ["network.party={up_bps=1e6, down_bps=1e9}"],
            "Handwritten digits (changed: network.party.up_bps = 1000000.0)",
        ),
        (["title=Mine", "seed=3"], "Mine (changed: seed = 3)"),
        (
            [f"models.kinds={['mlp'] * 9}"],
            'Handwritten digits (changed: models.kinds = ["mlp", "mlp", "mlp", "mlp", "mlp", "...)',
        ),
        (["title='a\tb'"], "a b"),
        (['title="a\\u001b[31mb"'], "a [31mb"),
    ],
)
def test_a_title_says_what_was_changed(overrides: list[str], title: str) -> None:
    found = load_scenario("digits", overrides)
    assert found.title_as_run == title
    assert found.model_copy().title_as_run == title


def test_a_cut_of_mnist_does_not_claim_250_parties() -> None:
    title = load_scenario("mnist", ["parties.count=25"], folder=Path("nowhere")).title_as_run
    assert title == "MNIST (changed: parties.count = 25)"


def test_the_titles_of_shipped_scenarios_hold_no_number_that_a_key_has() -> None:
    for name in shipped_scenarios():
        assert not re.search(r"\d", load_scenario(name).title), name
