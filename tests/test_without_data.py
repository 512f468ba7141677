"""Scenarios without data: costs are measured, votes are drawn, and what depends on learning is null."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.errors import ScenarioError
from capcsim.learning.assumed import assumed_votes
from capcsim.record import Record
from capcsim.report.whole import write_report
from capcsim.scenario import NoData, Scenario
from capcsim.seeds import Seeds
from capcsim.study.result import read_result
from capcsim.study.run import run_scenario

Make = Callable[..., Scenario]
NONE = {"data": {"source": "none", "classes": 10, "agreement": 0.8}, "queries.selection": "random"}
LEARNED = ("accuracy_before", "accuracy_after", "gain", "balanced_before", "balanced_after", "label_accuracy")


@pytest.fixture(scope="module")
def record(smoke_tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Record:
    from capcsim.scenario import parse_scenario

    tree = json.loads(json.dumps(smoke_tree))
    tree["data"], tree["queries"]["selection"] = dict(NONE["data"]), "random"  # type: ignore[call-overload]
    return run_scenario(parse_scenario(tree), tmp_path_factory.mktemp("none") / "run")


def test_what_depends_on_learning_is_null_and_the_rest_is_told(record: Record) -> None:
    told = read_result(record)
    for name in (*LEARNED, "vote_agreement"):
        assert told.metrics[name].value is None, name
    expected = told.metrics["label_accuracy_expected"]
    assert (expected.basis, expected.unit) == ("assumed", "share")
    assert 0 <= expected.value <= 1  # type: ignore[operator]
    assert told.classes == 10
    assert told.metrics["labels"].value == 14
    assert told.metrics["epsilon"].value > 0  # type: ignore[operator]
    assert told.metrics["bytes"].value > 0  # type: ignore[operator]
    assert told.execution.votes_disagreeing == 0
    assert told.execution.saturation is None
    assert told.classes_fallen is None
    assert told.data == "none"
    assert "assumed; real models err together" in told.data_notes[0]
    json.dumps(told.model_dump(mode="json"), allow_nan=False)


def test_its_report_draws_what_there_is(record: Record) -> None:
    page = write_report(record).read_text()
    assert {path.stem for path in (record.folder / "figures").iterdir()} == {"epsilon", "timeline", "utilisation"}
    assert "would be right, if votes were so (assumed)" in page


@pytest.mark.parametrize(("agreement", "right"), [(1.0, 1.0), pytest.param(0.0, 0.0, marks=pytest.mark.slow)])
def test_labels_are_right_where_all_votes_are(scenario: Make, tmp_path: Path, agreement: float, right: float) -> None:
    certain = scenario({**NONE, "data": {"source": "none", "classes": 2, "agreement": agreement}, "privacy.sigma": 0.01,
                        "privacy.epsilon": 1e6})  # fmt: skip
    told = read_result(run_scenario(certain, tmp_path / "run"))
    assert told.metrics["label_accuracy_expected"].value == right


def test_votes_agree_with_the_truth_as_often_as_the_scenario_says() -> None:
    data, truth = NoData(source="none", classes=5, agreement=0.7), np.arange(20_000) % 5
    votes = assumed_votes(data, truth, 7, 0, Seeds(1))
    right = votes == truth
    # 140,000 votes: four deviations are 0.005. Wrong ones are each of the other four classes alike.
    assert right.mean() == pytest.approx(0.7, abs=0.005)
    wrong = (votes - truth)[~right] % 5
    assert np.bincount(wrong, minlength=5)[1:] / len(wrong) == pytest.approx([0.25] * 4, abs=0.01)
    assert np.corrcoef(right[0], right[1])[0, 1] == pytest.approx(0.0, abs=0.03), "independent"
    assert not np.array_equal(votes, assumed_votes(data, truth, 7, 1, Seeds(1)))
    assert np.array_equal(votes, assumed_votes(data, truth, 7, 0, Seeds(1)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"queries.rounds": 2, "privacy.budget_scope": "coalition"}, r"queries\.rounds = 2: 1 where data\.source"),
        ({"queries.selection": "margin"}, r"queries\.selection = 'margin': 'random'"),
        ({"models.baselines": ["fedavg"]}, r"models\.baselines = \['fedavg'\]: none"),
        ({"privacy.noise": "real"}, r"privacy\.noise = 'real': 'simulation' where"),
        ({"data.classes": 1}, r"data\.classes = 1"),
        ({"data.agreement": -0.1}, r"data\.agreement = -0\.1"),
        ({"data.train_per_party": 3}, r"data\.train_per_party"),
        ({"data.agreement": None}, r"data\.agreement is missing"),
    ],
)
def test_what_needs_data_is_refused(scenario: Make, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        scenario(json.loads(json.dumps({**NONE, **changes})))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models.kinds": ["logistic", "random-forest"]}, r"models\.kinds = 'random-forest': a network"),
        ({"models.kinds": ["tests.learning.factories:nothing"]}, r"data\.input_shape is missing: .* \[1, 28, 28\]"),
    ],
)
def test_models_without_data_are_networks_of_a_known_shape(
    scenario: Make, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ScenarioError, match=told):
        run_scenario(scenario({**NONE, **changes}), tmp_path / "run")
