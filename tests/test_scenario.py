import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capcsim.errors import ScenarioError
from capcsim.scenario import Scenario
from capcsim.scenario_files import load_scenario, shipped_scenarios

Build = Callable[..., Scenario]


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


def test_a_data_path_is_meant_from_the_scenarios_folder(tmp_path: Path) -> None:
    text = shipped_scenarios()["smoke"].read_text().replace('"digits"', '"npz"\npath = "sets/mine.npz"', 1)
    (tmp_path / "mine.toml").write_text(text)
    assert load_scenario(str(tmp_path / "mine.toml")).data.path == tmp_path / "sets" / "mine.npz"


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


# What is wrong, the changes, and what the error must say; the command line is tried with the same in test_cli.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("unknown section", {"privat": {}}, r"privat = \{\}: no such key; did you mean privacy\?"),
    ("unknown key", {"privacy.sigmar": 1.0}, r"privacy\.sigmar = 1\.0: no such key; did you mean privacy\.sigma\?"),
    ("missing unit", {"network.latency": 0.1}, r"did you mean network\.latency_s\?"),
    ("wrong unit", {"network.latency_s": "20 ms"}, r"network\.latency_s = '20 ms': a number, in seconds"),
    ("wrong unit of a rate", {"network.party.up_bps": "1 Gbit"}, r"a number, in bits per second"),
    ("wrong type", {"parties.count": "many"}, r"parties\.count = 'many': a whole number"),
    ("a truth value", {"privacy.epsilon": True}, r"privacy\.epsilon = True: a number"),
    ("half a party", {"parties.count": 2.5}, r"parties\.count = 2\.5: a whole number"),
    ("a section that is a value", {"models": 3}, r"models = 3: "),
    ("one party", {"parties.count": 1}, r"parties\.count = 1: must be greater than or equal to 2"),
    ("no querier", {"parties.queriers": 0}, r"parties\.queriers = 0: must be greater"),
    ("more queriers than parties", {"parties.queriers": 9}, r"parties\.queriers = 9: at most parties\.count = 8"),
    (
        "negative latency",
        {"network.latency_s": -0.1},
        r"network\.latency_s = -0\.1: must be greater than or equal to 0",
    ),
    ("no bandwidth", {"network.party.down_bps": 0}, r"network\.party\.down_bps = 0: must be greater than 0"),
    ("no noise", {"privacy.sigma": 0}, r"privacy\.sigma = 0: must be greater than 0"),
    ("noise that is no number", {"privacy.sigma": float("nan")}, r"privacy\.sigma = nan: must be a finite number"),
    ("too much noise", {"privacy.sigma": 1e6}, r"privacy\.sigma = 1000000\.0: must be less than or equal to 100000"),
    ("votes that wrap", {"parties.count": 1 << 31}, r"parties\.count = 2147483648: fewer than 2147483608: .*2\^32"),
    ("delta of one", {"privacy.delta": 1.0}, r"privacy\.delta = 1\.0: must be less than 1"),
    ("no budget", {"privacy.epsilon": 0.0}, r"privacy\.epsilon = 0\.0: must be greater than 0"),
    ("unknown mechanism", {"privacy.mechanism": "exponential"}, r"must be 'gnmax', 'lnmax' or 'confident-gnmax'"),
    ("Laplace without a scale", {"privacy.mechanism": "lnmax"}, r"privacy\.scale is missing: .*for lnmax"),
    ("both noises", {"privacy.scale": 3.0}, r"privacy\.scale = 3\.0: remove it: gnmax takes privacy\.sigma"),
    (
        "Confident without a threshold",
        {"privacy.mechanism": "confident-gnmax"},
        r"privacy\.threshold is missing: .*for confi",
    ),
    (
        "a threshold for nothing",
        {"privacy.threshold": 5},
        r"privacy\.threshold = 5: remove it: gnmax takes privacy\.sigma",
    ),
    ("half a vote", {"privacy.threshold": 2.5}, r"privacy\.threshold = 2\.5: a whole number"),
    ("a group of all", {"privacy.corrupted_parties": 8}, r"corrupted_parties = 8: fewer than parties\.count = 8"),
    (
        "a budget that rounds leak past",
        {"queries.rounds": 2},
        r"budget_scope = 'querier': 'coalition' or 'party': in a l",
    ),
    ("a weak class twice", {"data.weak_classes": [1, 1]}, r"data\.weak_classes = \[1, 1\]: each class once"),
    (
        "unknown scope",
        {"privacy.budget_scope": "world"},
        r"budget_scope = 'world': must be 'querier', 'coalition' or 'party'",
    ),
    ("unknown analysis", {"privacy.analysis": "theorem6"}, r"privacy\.analysis = 'theorem6': must be"),
    ("unknown model", {"models.kinds": ["vgg-77"]}, r"models\.kinds\.0 = 'vgg-77': must be 'logistic'"),
    ("no model", {"models.kinds": []}, r"models\.kinds = \[\]: .*at least 1 item"),
    ("more queries than samples", {"queries.per_querier": 31}, r"at most data\.pool_per_querier = 30"),
    ("empty batches", {"queries.batch": 0}, r"queries\.batch = 0: must be greater than or equal to 1"),
    ("too few samples a shard", {"parties.virtual_per_party": 41}, r"at most data\.train_per_party = 40"),
    ("npz without a path", {"data.source": "npz"}, r"data\.path is missing: a file for data\.source = 'npz'"),
    ("a path without npz", {"data.path": "x.npz"}, r"data\.path = 'x\.npz': a file for .* only for it"),
    ("estimates", {"protocol.execute": "none"}, r"protocol\.execute = 'none': .*do not exist yet"),
    ("four samples", {"protocol.samples": 4}, r"protocol\.samples = 4: must be greater than or equal to 5"),
    ("waiting for ever", {"faults.drop_probability": 0.1}, r"protocol\.deadline_s is missing: .*wait for ever"),
    ("quorum without a deadline", {"protocol.quorum": 0.5}, r"protocol\.deadline_s is missing: .*when time is up"),
    ("certain loss", {"faults.drop_probability": 1.0}, r"faults\.drop_probability = 1\.0: must be less than 1"),
    ("a machine without cores", {"machines.party": {}}, r"machines\.party\.cores is missing: required"),
    ("negative price", {"prices.per_core_hour": -1.0}, r"prices\.per_core_hour = -1\.0: must be greater"),
    ("negative seed", {"seed": -1}, r"seed = -1: must be greater than or equal to 0"),
]


@pytest.mark.parametrize(("changes", "says"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_wrong_is_said_in_one_line(scenario: Build, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as caught:
        scenario(changes)
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_counted(scenario: Build) -> None:
    with pytest.raises(ScenarioError, match=r"\(and 1 more\)"):
        scenario({"privacy.sigma": 0, "parties.count": 0})


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"title = ", "a file in TOML"), (b"\xff\xfe\x00", "a file in TOML"), (None, "a readable file")],
    ids=["no TOML", "no text", "a folder"],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "bad.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ScenarioError, match=says):
        load_scenario(str(path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"digits, heart, hospitals, mnist, smoke; did you mean digits\?"):
        load_scenario("dgits")


@pytest.mark.parametrize("override", ["sigma", "=3", "privacy.=3", "title.x=1"])
def test_a_bad_override_is_shown(override: str) -> None:
    with pytest.raises(ScenarioError, match="--set"):
        load_scenario("digits", [override])
