"""One scenario on several backends: rows that can be compared, and who wins where."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from capcsim.choices import NETWORKS, Choice, parse_choices, parse_networks
from capcsim.report.comparison import draw_comparison, table
from capcsim.scenario import parse_scenario
from capcsim.study.compare import compare
from capcsim.study.comparison import Comparison
from tests.environment import without
from tests.test_cli import QUICK, Call, call  # noqa: F401 (a fixture)

SMALL = {
    "parties.count": 3,
    "queries.per_querier": 3,
    "models.epochs": 5,
    "models.kinds": ["logistic"],
    "privacy.noise": "real",
}


@pytest.fixture(scope="module")
def compared(request: pytest.FixtureRequest) -> Comparison:
    if why := without("crypten"):
        pytest.skip(why)
    scenario = request.getfixturevalue("smoke_tree")
    tree = json.loads(json.dumps(scenario))
    for key, value in SMALL.items():
        section, name = key.split(".")
        tree[section][name] = value
    choices = parse_choices("plaintext,crypten,hybrid")
    return compare(parse_scenario(tree), choices, parse_networks("lan,far"), repeats=2)


@pytest.fixture(scope="module")
def found(compared: Comparison) -> dict[str, Any]:
    """As `capcsim compare --json` prints it."""
    return compared.model_dump(mode="json")


def test_a_row_has_security_costs_agreement_and_results(found: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in found["backends"]}
    assert {name: row["security"] for name, row in rows.items()} == {
        "plaintext": "none",
        "crypten": "trusted first party",
        "hybrid": "semi-honest",
    }
    for row in rows.values():
        for step in ("infer", "argmax", "release"):
            measured = row["steps"][step]
            assert measured["wall_s"] > 0
            assert min(measured["cpu_s"].values()) > 0
            assert sum(measured["bytes"].values()) > 0
            assert measured["rounds"] >= 1
        assert row["agreement"]["votes"] > 0
        assert row["agreement"]["disagreements"] == 0
        assert row["agreement"]["float32"] >= 0.8
        assert row["leaks"]
    assert rows["crypten"]["steps"]["argmax"]["rounds"] > 3 * rows["hybrid"]["steps"]["argmax"]["rounds"]
    assert rows["crypten"]["details"]["queries"] > 0


def test_rounds_go_their_own_way_on_each_backend_and_network(smoke_tree: dict[str, Any]) -> None:
    """Retrained models of one backend or network do not leak into the next: exact backends end alike everywhere."""
    tree = json.loads(json.dumps(smoke_tree))
    changes = {**SMALL, "queries.rounds": 2, "queries.per_querier": 6, "privacy.sigma": 8.0, "models.retrainings": 2}
    changes["privacy.budget_scope"] = "coalition"
    for key, value in changes.items():
        section, name = key.split(".")
        tree[section][name] = value
    choices, networks = parse_choices("plaintext,hybrid"), parse_networks("far")
    rows = compare(parse_scenario(tree), choices, networks, repeats=1).model_dump()["backends"]
    results = ("accuracy_before", "accuracy_after", "label_accuracy", "epsilon")
    assert [rows[0][key] for key in results] == [rows[1][key] for key in results]
    for row in rows:
        assert row["agreement"]["disagreements"] == 0
        assert {times["labels"] for times in row["networks"].values()} == {6 * tree["parties"]["queriers"]}


def test_trees_on_images_can_be_compared_and_a_round_asks_at_least_once(smoke_tree: dict[str, Any]) -> None:
    tree = json.loads(json.dumps(smoke_tree))
    changes = {**SMALL, "models.kinds": ["random-forest"], "queries.rounds": 2, "privacy.budget_scope": "coalition"}
    for key, value in changes.items():
        section, name = key.split(".")
        tree[section][name] = value
    tree["privacy"]["epsilon"] = 9.0
    found = compare(parse_scenario(tree), parse_choices("plaintext"), {}, repeats=1).model_dump()
    (row,) = found["backends"]
    assert 0 < row["networks"]["scenario"]["labels"] < 6
    assert row["agreement"]["float32"] > 0.5


def test_only_the_backend_differs(found: dict[str, Any]) -> None:
    """The same models, queries and noise, although the scenario asks for real noise."""
    assert found["noise"] == "simulation"
    for key in ("label_accuracy", "accuracy_before", "accuracy_after", "epsilon"):
        assert len({row[key] for row in found["backends"]}) == 1, key


def test_every_network_has_its_latency_and_its_winner(found: dict[str, Any]) -> None:
    assert list(found["networks"]) == ["scenario", "lan", "far"]
    assert found["networks"]["far"] == NETWORKS["far"].model_dump()
    for row in found["backends"]:
        lan, far = (row["networks"][name]["latency_median_s"] for name in ("lan", "far"))
        # At least as many latencies as rounds in a row: far away they decide.
        assert lan < far
        assert far > 0.1 * row["total"]["rounds"]
    rows = {row["name"]: row["networks"] for row in found["backends"]}
    assert found["fastest_protected"]["far"] == "hybrid"
    for network, winner in found["fastest_protected"].items():
        others = [rows[name][network]["latency_median_s"] for name in ("crypten", "hybrid")]
        assert rows[winner][network]["latency_median_s"] == min(others)


def test_the_figure_and_the_table_show_it(compared: Comparison, tmp_path: Path) -> None:
    from rich.console import Console

    draw_comparison(compared, tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(table(compared))
    text = console.export_text()
    for word in ("security", "trusted first party", "semi-honest", "far, 100 ms, 1 Gbit/s", "epsilon", "hybrid leaks:"):
        assert word in text
    assert text.count(" *") >= 3


def test_choices_have_options() -> None:
    choices = parse_choices("plaintext, crypten:provider=third-party:timeout_s=9,hybrid:processes=false")
    assert choices[1] == Choice("crypten", {"provider": "third-party", "timeout_s": 9})
    assert choices[2].options == {"processes": False}
    assert str(choices[1]) == "crypten:provider=third-party:timeout_s=9"


@pytest.mark.parametrize(
    ("backends", "networks", "says"),
    [
        ("plaintext,nonesuch", "lan", "no backend is called 'nonesuch'"),
        ("hybrid:order=HE", "lan", "order = 'HE': choose one of"),
        ("plaintext:x", "lan", "crypten:provider=third-party"),
        ("plaintext,plaintext", "lan", "each of them once"),
        ("plaintext", "moon", "some of lan, wan, far, slow"),
    ],
)
def test_mistakes_are_told_before_any_work(
    call: Call,  # noqa: F811
    tmp_path: Path,
    backends: str,
    networks: str,
    says: str,
) -> None:
    code, printed, errors = call("compare", "smoke", "--backends", backends, "--networks", networks)
    assert (code, printed) == (2, "")
    assert says in errors.replace("\n", " ")
    assert "training" not in errors


def test_the_command_prints_one_json_object_and_leaves_a_figure(call: Call, tmp_path: Path) -> None:  # noqa: F811
    where = ("-o", str(tmp_path / "c"))
    code, printed, errors = call(
        "compare", "smoke", "--backends", "plaintext", "--networks", "", "--repeats", "1", "--json", *where, *QUICK
    )
    assert (code, errors) == (0, "")
    assert json.loads(printed) == json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert (tmp_path / "c" / "comparison.png").exists()
