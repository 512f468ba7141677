"""Every number of `run --json` for the outcome made by hand, each worked out on paper."""

from collections.abc import Callable
from dataclasses import replace
from math import comb, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.learning.metrics import Quality, average, quality
from capcsim.scenario import Scenario
from capcsim.simulation.world import QueryRow
from capcsim.study.metrics import View
from capcsim.study.summing_up import epsilon_curve, figures, result_of
from capcsim.study.walk import Walked
from tests.figures_by_hand.outcome import BUDGET, DELTA, SIGMA, gaussian_epsilon, hand_made, leaves

Build = Callable[..., Scenario]
# The discretised privacy loss of discrete noise against the closed form for continuous noise.
EPSILON = {"rel": 5e-4}


STAGES = {"trained": 1, "asked": 2, "priced": 3, "simulated": 4, "judged": 5}


@pytest.fixture
def walked(scenario: Build, tmp_path: Path) -> Walked:
    return hand_made(scenario, tmp_path)


def told(walked: Walked) -> dict[str, Any]:
    return result_of(walked, "folder", STAGES, None).model_dump(mode="json")


@pytest.fixture
def summary(walked: Walked) -> dict[str, Any]:
    return told(walked)


def epsilon(labels: int) -> Any:
    return pytest.approx(gaussian_epsilon(labels), **EPSILON)


QUERIER_0 = {
    "querier": 0,
    "labels_bought": 4,
    "labels_wanted": 6,
    "charges": 5,
    "charges_without_label": 1,
    "labels": [0, 1, 0, 0, -1],
    "label_accuracy": 3 / 4,
    "vote_agreement": 3 / 4,  # the fourth label is not the plurality; of two classes with as many votes the lowest is
    "accuracy_before": (0.5 + 0.75 + 0.625) / 3,
    "accuracy_after": (0.75 + 0.9375 + 0.84375) / 3,
    "balanced_before": (0.375 + 0.625 + 0.5) / 3,
    "balanced_after": (0.625 + 0.5 + 0.5625) / 3,
    "gain": 0.84375 - 0.625,
    "gain_deviation": 0.03125,  # of the gains 0.21875 and that much more and less
    "class_accuracy_before": [0.5, 0.5, None],
    "class_accuracy_after": [0.75, 0.375, None],
    "queries_per_class": [2, 2, 1],
    "fairness_before": {"equal_opportunity": 0.25, "equalized_odds": 0.375},
    "fairness_after": {"equal_opportunity": 0.125, "equalized_odds": 0.25},
    "epsilon": epsilon(5),
    "simulated_s": 95.0,
    "latency_median_s": 3.5,  # of 2, 3, 4, 7
    "latency_max_s": 7.0,
    "bytes": 500_000_000,
    "unanswered": 0,
}
QUERIER_1 = {
    "querier": 1,
    "labels_bought": 3,
    "labels_wanted": 6,
    "charges": 3,
    "charges_without_label": 0,
    "labels": [2, 1, 0, -1, -1, -1],
    "label_accuracy": 1 / 3,
    "vote_agreement": 1.0,
    "accuracy_before": 0.375,
    "accuracy_after": 0.3125,
    "balanced_before": 0.375,
    "balanced_after": 0.25,
    "gain": -0.0625,
    "gain_deviation": 0.0625,  # of the gains -0.0625 and that much more and less
    "class_accuracy_before": [0.375, 0.5, 0.25],
    "class_accuracy_after": [0.3125, 0.375, 0.3125],
    "queries_per_class": [3, 1, 2],
    "fairness_before": None,
    "fairness_after": None,
    "epsilon": epsilon(3),
    "simulated_s": 140.0,
    "latency_median_s": 11.0,  # of 10, 11, 30
    "latency_max_s": 30.0,
    "bytes": 1_500_000_000,
    "unanswered": 2,
}
METRICS = {
    "labels": 7,
    "label_accuracy": 4 / 7,
    "label_accuracy_expected": None,  # there are data
    "vote_agreement": 6 / 7,
    "accuracy_before": (0.625 + 0.375) / 2,
    "accuracy_after": (0.84375 + 0.3125) / 2,
    "gain": (0.21875 - 0.0625) / 2,
    "balanced_before": (0.5 + 0.375) / 2,
    "balanced_after": (0.5625 + 0.25) / 2,
    "epsilon": epsilon(5),  # of the party with five charges, not three or eight
    "makespan_s": 140.0,
    # Of 2, 3, 4, 7, 10, 11, 30: the places 3, 5.7 and 5.94, counted from 0, and the last.
    "latency_p50_s": 7.0,
    "latency_p95_s": 11 + 0.7 * 19,
    "latency_p99_s": 11 + 0.94 * 19,
    "latency_max_s": 30.0,
    "labels_per_hour": 7 * 3600 / 140,
    "bytes": 2_000_000_000,
    "cpu_s": 9000.0,
    "price": 2.5 * 0.5 + 2 * 0.25,
}
SUMMARY: dict[str, Any] = {
    "metrics": {name: {"value": value, "low": None, "high": None} for name, value in METRICS.items()},
    "stages": STAGES,
    "seed": 7,
    "parties": 4,
    "voters": 8,
    "classes": 3,
    "critical": [
        {"kind": "cores", "name": "party 1", "seconds": 80.0},
        {"kind": "line", "name": "party 0 up", "seconds": 60.0},
    ],
    "execution": {
        "pairs": 10 * 6,  # ten batches, each answered by all votes but the two of the party that asks
        "pairs_executed": 3,
        "pairs_executed_earlier": 5,
        "strata": 2,
        "strata_reused": 1,
        "spread": [{"size": 3, "samples": 3, "cpu_s": {"answerer": {"low": 1.0, "median": 2.0, "high": 6.0}}}],
        "votes_compared": 80,
        "saturation": 0.0625,
        "votes_disagreeing": 3,
        "disagreement_upper_bound_95": pytest.approx(0.09407, abs=5e-6),
        "exact": True,
    },
    "privacy": {
        "noise_votes": SIGMA,
        "threshold": None,
        "threshold_noise_votes": None,
        "moved_votes": 2,
        "epsilon_budget": BUDGET,
        "delta": DELTA,
        "corrupted_parties": 1,
        "releasable": False,
        "labels_affordable_data_independent": 5,
        "charges_without_label": 1,
        "charges_cut_short": 0,
        "book": None,
        "epsilon_if_queriers_collude": epsilon(8),
        "epsilon_of_most_exposed_party": epsilon(7),
    },
    "queriers": [QUERIER_0, QUERIER_1],
    "mean": {
        "label_accuracy": 4 / 7,  # of all labels
        "accuracy_before": (0.625 + 0.375) / 2,
        "accuracy_after": (0.84375 + 0.3125) / 2,
        "balanced_before": (0.5 + 0.375) / 2,
        "balanced_after": (0.5625 + 0.25) / 2,
        "gain": (0.21875 - 0.0625) / 2,
    },
    "fairness": None,  # the data have no protected attribute
    "retrainings": 3,
    "classes_fallen": 3 / 5,  # party 0's class 1, party 1's classes 0 and 1
    "baselines": {
        "pooling": {"accuracy": 1.8 / 3, "balanced": 1.5 / 3, "bytes": None},
        "fedavg": {"accuracy": 0.5, "balanced": 0.35, "bytes": 4242},
    },
    "makespan_s": 140.0,
    "bytes": 2_000_000_000,
    "busiest": {"core_utilisation": 0.75, "link_utilisation": 0.375},
    "waiting": {
        "batches": 10,
        "batches_incomplete": 4,
        "votes_asked": 60,
        "votes_declined": 6,
        "votes_missing": 4 + 1 + 1 + 1,
    },
    "cost": {"core_h": 2.5, "sent_gb": 2.0, "price": 2.5 * 0.5 + 2 * 0.25},
}


def test_every_number_of_the_summary_is_as_on_paper(summary: dict[str, Any]) -> None:
    found, expected = leaves(summary), leaves(SUMMARY)
    assert found.keys() == expected.keys(), "a figure without a value by hand, or one that is gone"
    for place, value in expected.items():
        assert found[place] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), place


def test_one_querying_party_has_its_own_work_labels_and_price(walked: Walked) -> None:
    found = [figures(View(walked, (querier,))) for querier in (0, 1)]
    for name, values in {
        "cpu_s": (6000.0, 3000.0),
        "bytes": (500_000_000, 1_500_000_000),
        "labels_per_hour": (4 * 3600 / 95, 3 * 3600 / 140),
        "price": (6000 / 3600 * 0.5 + 0.5 * 0.25, 3000 / 3600 * 0.5 + 1.5 * 0.25),
    }.items():
        assert [each[name].value for each in found] == pytest.approx(values), name


def test_the_closed_form_is_that_of_others() -> None:
    assert gaussian_epsilon(550, 40.0, 1, 1e-6) == pytest.approx(3.953282367, rel=1e-9)
    assert gaussian_epsilon(5) < BUDGET < gaussian_epsilon(6)


def test_three_of_eighty_votes_bound_the_rate_of_disagreement(summary: dict[str, Any]) -> None:
    """Clopper and Pearson: at the bound, three or fewer of eighty come out with probability 5 %."""
    rate = summary["execution"]["disagreement_upper_bound_95"]
    few = sum(comb(80, k) * rate**k * (1 - rate) ** (80 - k) for k in range(4))
    assert few == pytest.approx(0.05, rel=1e-9)


def test_the_texts_name_what_the_numbers_belong_to(summary: dict[str, Any]) -> None:
    found = summary
    assert (found["busiest"]["core"], found["busiest"]["link"]) == ("party 1, core 0", "guardian down")
    assert (found["backend"], found["security"], found["privacy"]["mechanism"]) == ("plaintext", "none", "gnmax")
    assert (found["privacy"]["unit"], found["privacy"]["budget_scope"]) == ("party", "querier")
    stopped = [row["stopped"] for row in found["queriers"]]
    assert stopped[0].startswith("its budget is spent; 1 stayed without a label for lack of a quorum")
    assert stopped[1].startswith(
        "asked all 6 queries; 1 stayed without a label for lack of a quorum; 2 stayed unanswered"
    )


def test_the_figures_get_the_curve_of_epsilon_up_to_the_account_with_most_charges(walked: Walked) -> None:
    curve = epsilon_curve(walked)
    assert curve.labels == (0, 1, 2, 3, 4, 5)
    on_paper = [0.0, *map(gaussian_epsilon, range(1, 6))]
    assert curve.epsilon == pytest.approx(on_paper, **EPSILON)
    assert curve.analytic == pytest.approx(on_paper, rel=1e-9)


def with_rows(walked: Walked, keep: Callable[[QueryRow], bool]) -> Walked:
    simulated = replace(walked.simulated, queries=[row for row in walked.simulated.queries if keep(row)])
    return replace(walked, happened=replace(walked.happened, simulated=simulated))


def test_without_a_label_there_is_no_accuracy_and_no_latency(walked: Walked) -> None:
    found = told(with_rows(walked, lambda row: row.label < 0))
    for row, simulated_s in zip(found["queriers"], (95.0, 140.0), strict=True):
        assert (row["labels_bought"], row["simulated_s"]) == (0, simulated_s)
        names = ("label_accuracy", "vote_agreement", "latency_median_s", "latency_max_s")
        assert [row[key] for key in names] == [None] * 4
    assert found["mean"]["label_accuracy"] is None
    assert found["metrics"]["label_accuracy"]["value"] is None


def test_one_party_without_a_label_leaves_the_mean_to_the_others(walked: Walked) -> None:
    found = told(with_rows(walked, lambda row: row.querier == 0 or row.label < 0))
    assert found["mean"]["label_accuracy"] == 3 / 4


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"privacy.noise": "real"}, "releasable", True),
        ({"privacy.noise": "simulation"}, "releasable", False),
        ({"privacy.mechanism": "confident-gnmax", "privacy.threshold": 5, "privacy.sigma1": 3.0}, "threshold", 5),
        (
            {"privacy.mechanism": "confident-gnmax", "privacy.threshold": 5, "privacy.sigma1": 3.0},
            "threshold_noise_votes",
            3.0,
        ),
        ({"privacy.corrupted_parties": 2}, "corrupted_parties", 2),
    ],
)
def test_what_the_scenario_says_of_privacy_is_told(
    scenario: Build, tmp_path: Path, changes: dict[str, Any], key: str, value: Any
) -> None:
    assert told(hand_made(scenario, tmp_path, changes))["privacy"][key] == value


# Six samples: the classes 0, 0, 0, 1, 1, 2 of which 0 is predicted twice, 1 once and 2 never rightly.
PREDICTED, ACTUAL = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 1, 2])


def test_the_accuracies_of_predictions() -> None:
    found = quality(PREDICTED, ACTUAL, 3)
    assert found.accuracy == 3 / 6
    assert found.per_class == pytest.approx((2 / 3, 1 / 2, 0))
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 3)
    absent = quality(PREDICTED[:5], ACTUAL[:5], 3)
    assert np.array_equal(absent.per_class, (2 / 3, 1 / 2, nan), equal_nan=True)
    assert absent.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2), "a class without a sample does not count"


def test_a_mean_over_seeds_has_each_measure() -> None:
    found = average([Quality(0.1, (0.0, 0.2), 0.3), Quality(0.2, (0.4, 0.8), 0.7), Quality(0.6, (0.8, 0.8), 0.8)])
    assert found.accuracy == pytest.approx(0.3)
    assert found.per_class == pytest.approx((0.4, 0.6))
    assert found.balanced_accuracy == pytest.approx(0.6)
    assert (found.equal_opportunity, found.equalized_odds) == (None, None)
