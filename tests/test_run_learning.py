"""Runs in which parties learn: rounds, retraining, declining parties, trees, sites with gaps."""

import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.errors import ScenarioError
from capcsim.record import Record
from capcsim.report.tables import notes
from capcsim.scenario import load_scenario
from capcsim.study.books import scratch_books
from capcsim.study.means import Means
from capcsim.study.result import read_result
from capcsim.study.run import run_scenario
from capcsim.study.trained import deal_out, train
from capcsim.study.walk import load_backend, walk
from tests.killing import run_until_killed
from tests.test_run import Build, substance

QUIET = {"privacy.sigma": 8.0, "models.kinds": ["logistic"]}
ROUNDS = {
    **QUIET,
    "privacy.budget_scope": "coalition",
    "queries.rounds": 3,
    "queries.per_querier": 10,
    "data.train_per_party": 20,
}
SHORT_ROUNDS = (
    "queries.rounds=2",
    "queries.per_querier=4",
    "models.kinds=['logistic']",
    "privacy.sigma=8.0",
    "privacy.budget_scope=coalition",
)


def test_a_round_begins_when_the_one_before_is_over_not_at_a_deadline_that_nobody_waits_for(
    scenario: Build, tmp_path: Path
) -> None:
    changes = {"queries.rounds": 2, "parties.queriers": 1}
    waits, never = (
        run_scenario(scenario({**changes, **deadline}), tmp_path / str(len(deadline))).manifest["summary"]
        for deadline in ({"protocol.deadline_s": 600.0}, {})
    )
    assert waits["makespan_s"] == never["makespan_s"] < 10
    assert waits["busiest"] == never["busiest"]


def test_rounds_retrain_in_between_and_ask_nothing_twice(scenario: Build, tmp_path: Path) -> None:
    one, three = (run_scenario(scenario(ROUNDS | {"queries.rounds": n}), tmp_path / str(n)) for n in (1, 3))
    for record in (one, three):
        assert [row["labels_bought"] for row in record.manifest["summary"]["queriers"]] == [10, 10]
    queries = three.read_table("queries").to_pylist()
    asked = [[row["sample"] for row in queries if row["querier"] == querier] for querier in (0, 1)]
    assert all(len(set(samples)) == 10 for samples in asked)
    assert [row["query"] for row in queries if row["querier"] == 1] == list(range(10))
    first = [row["sample"] for row in one.read_table("queries").to_pylist() if row["querier"] == 0]
    assert asked[0][:3] == first[:3], "the first round asks what one round would have asked first"
    assert asked[0] != first, "later ones ask what the retrained model is unsure of"


def test_a_retrained_party_answers_a_later_round(scenario: Build, tmp_path: Path) -> None:
    """With votes executed for real, every vote is that of the model that its party then had."""
    record = run_scenario(scenario(ROUNDS | {"protocol.execute": "all", "parties.count": 4}), tmp_path / "all")
    execution = record.manifest["summary"]["execution"]
    assert execution["pairs_executed"] == execution["pairs"] == 2 * 3 * (2 + 1 + 1)
    assert execution["votes_disagreeing"] == 0
    sampled = run_scenario(scenario(ROUNDS | {"parties.count": 4}), tmp_path / "sample")
    assert substance(sampled)[0][:2] == substance(record)[0][:2]


def test_in_a_later_round_the_retrained_model_is_the_one_that_votes(scenario: Build, tmp_path: Path) -> None:
    changes = {**ROUNDS, "queries.rounds": 2, "queries.per_querier": 28, "models.epochs": 5}
    wanted, means = scenario(changes), Means()
    with closing(load_backend(wanted)) as backend, scratch_books(wanted) as books:
        walked = walk(deal_out(wanted, [backend], means), backend, books, means)
    ensemble, asked = walked.trained.ensemble, walked.asked
    first = train(ensemble, means).models.voters[0]
    votes, x = asked.ballots[1][0], ensemble.samples(1, asked.rows[1])
    second = walked.trained.models.own[0]
    assert (votes[:14] == first.predict(x[:14])).all()
    assert (votes[14:] == second.predict(x[14:])).mean() > 0.9
    assert (votes[14:] != first.predict(x[14:])).any(), "labels have taught the party something"


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Record:
    return run_scenario(load_scenario("smoke", SHORT_ROUNDS), tmp_path_factory.mktemp("runs") / "rounds")


# Writes in order: manifest, ledger, releases, transcripts, two for each label; then transcripts and labels again.
@pytest.mark.parametrize("fatal", [9, 14, 16, 20])
def test_a_run_killed_in_any_round_resumes_to_the_same_result(rounds: Record, tmp_path: Path, fatal: int) -> None:
    assert run_until_killed(tmp_path / "killed", fatal, *SHORT_ROUNDS) == -signal.SIGKILL
    resumed = run_scenario(load_scenario("smoke", SHORT_ROUNDS), tmp_path / "killed")
    assert substance(resumed) == substance(rounds)
    for table in ("queries", "votes"):
        assert resumed.read_table(table).equals(rounds.read_table(table))


def test_declined_votes_are_told(scenario: Build, tmp_path: Path) -> None:
    record = run_scenario(scenario({**QUIET, "faults.decline_probability": 0.4}), tmp_path / "run")
    waiting = record.manifest["summary"]["waiting"]
    assert 0 < waiting["votes_declined"] < waiting["votes_asked"]
    assert (waiting["votes_missing"], waiting["batches_incomplete"]) == (0, 0)
    counted = [len(row["counted"]) for row in record.read_table("queries").to_pylist()]
    assert min(counted) < 7
    assert all(row["labels_bought"] == 7 for row in record.manifest["summary"]["queriers"])


def test_seeds_of_retraining_give_a_mean_and_a_deviation(scenario: Build, tmp_path: Path) -> None:
    changes = {"models.retrainings": 3, "models.kinds": ["mlp"], "models.epochs": 20}
    record = run_scenario(scenario(changes), tmp_path / "run")
    metrics = record.read_table("metrics").to_pylist()
    for row in record.manifest["summary"]["queriers"]:
        gains = []
        for seed in range(3):
            of = {
                metric["moment"]: metric["value"]
                for metric in metrics
                if (metric["querier"], metric["metric"]) == (row["querier"], f"accuracy, seed {seed}")
            }
            gains.append(of["after"] - of["before"])
        assert row["gain"] == pytest.approx(np.mean(gains))
        assert row["gain_deviation"] == pytest.approx(np.std(gains, ddof=1))
        assert sum(row["queries_per_class"]) == 7
    fallen = [
        new < old
        for row in record.manifest["summary"]["queriers"]
        for old, new in zip(row["class_accuracy_before"], row["class_accuracy_after"], strict=True)
    ]
    assert record.manifest["summary"]["classes_fallen"] == pytest.approx(np.mean(fallen))


def test_trees_answer_and_learn(scenario: Build, tmp_path: Path) -> None:
    changes = {"models.kinds": ["adaboost", "random-forest"], "models.baselines": ["pooling", "fedavg"]}
    summary = run_scenario(scenario({**changes, "parties.count": 4}), tmp_path / "run").manifest["summary"]
    assert summary["execution"]["votes_disagreeing"] == 0
    assert summary["baselines"]["pooling"]["accuracy"] > summary["mean"]["accuracy_before"]
    assert summary["baselines"]["fedavg"]["accuracy"] is None


def test_sites_with_gaps_and_a_protected_attribute(scenario: Build, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.random((600, 4)).round(3)
    rows = ["a,b,c,d,sex,ward,ill"]
    for number, values in enumerate(x):
        cells = ["?" if generator.random() < 0.2 else str(value) for value in values]
        label = "yes" if values[0] + values[1] > 1 else "no"
        rows.append(",".join([*cells, "fm"[number % 2], f"ward {number % 3}", label]))
    (tmp_path / "wards.csv").write_text("\n".join(rows))
    data = {"source": "csv", "path": tmp_path / "wards.csv", "label": "ill", "site": "ward", "protected": "sex"}
    parts = {"partition": "site", "missing": "median", "train_per_party": None, "evaluation": 80}
    changes: dict[str, Any] = {f"data.{key}": value for key, value in {**data, **parts}.items()}
    changes |= {
        **QUIET,
        "privacy.unit": "record",
        "parties.count": 3,
        "parties.virtual_per_party": 3,
        "queries.rounds": 2,
    }
    record = run_scenario(scenario(changes), tmp_path / "run")
    assert record.manifest["summary"]["names"] == {
        "classes": ["no", "yes"],
        "sites": ["ward 0", "ward 1", "ward 2"],
        "protected": ["f", "m"],
    }
    assert "Sites: 0 is ward 0, 1 is ward 1, 2 is ward 2." in notes(read_result(record))
    with pytest.raises(ScenarioError, match=r"data\.evaluation = 190: at most \d+: site 'ward 0' has"):
        run_scenario(scenario(changes | {"data.evaluation": 190}), tmp_path / "large")
    for row in record.manifest["summary"]["queriers"]:
        assert row["accuracy_before"] > 0.7
        assert 0 <= row["fairness_after"]["equal_opportunity"] <= row["fairness_after"]["equalized_odds"] <= 1
