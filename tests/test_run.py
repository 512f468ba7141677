"""The main job on real data: what repeats, what resumes, what a killed run must not lose."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import capcsim
from capcsim.errors import RecordError
from capcsim.journal import Journal, read_journal
from capcsim.protocol.noise import mechanism_of
from capcsim.record import Record
from capcsim.report.tables import notes
from capcsim.scenario import Scenario, load_scenario
from capcsim.study.means import Means
from capcsim.study.result import read_result
from capcsim.study.run import run_scenario
from tests.killing import run_until_killed

Build = Callable[..., Scenario]
SUBSTANCE = ("labels", "epsilon", "simulated_s", "latency_median_s", "bytes", "accuracy_before", "accuracy_after")


def substance(record: Record) -> list[list[Any]]:
    """Labels, epsilon, simulated times and what follows from them, for each querying party."""
    return [[row[key] for key in SUBSTANCE] for row in record.manifest["summary"]["queriers"]]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Record:
    return run_scenario(load_scenario("smoke"), tmp_path_factory.mktemp("runs") / "smoke")


def test_a_run_leaves_a_whole_record(smoke: Record) -> None:
    assert smoke.complete
    for name in ("queries", "votes", "messages", "compute", "metrics"):
        assert smoke.read_table(name).num_rows > 0
    for name in ("manifest.json", "ledger.jsonl", "releases.jsonl", "transcripts.json"):
        assert (smoke.folder / name).stat().st_size > 0
    assert {"cpu", "cores"} <= set(smoke.manifest["host"])
    assert "torch" in smoke.manifest["versions"]
    assert smoke.manifest["summary"]["execution"]["saturation"] == 0.0


def test_the_same_seed_gives_the_same_labels_epsilon_and_times(smoke: Record, tmp_path: Path) -> None:
    again = run_scenario(load_scenario("smoke"), tmp_path / "again")
    assert substance(again) == substance(smoke)
    for table in ("queries", "votes", "messages", "compute", "metrics"):
        assert again.read_table(table).equals(smoke.read_table(table))


def test_two_workers_change_nothing(smoke: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capcsim.study.means.Checkpoints", lambda: None)
    assert substance(run_scenario(load_scenario("smoke"), tmp_path / "two", means=Means(workers=2))) == substance(smoke)


def test_another_seed_gives_another_run(smoke: Record, tmp_path: Path) -> None:
    assert substance(run_scenario(load_scenario("smoke", seed=8), tmp_path / "other")) != substance(smoke)


def test_executing_every_pair_gives_the_sampled_runs_labels(smoke: Record, tmp_path: Path) -> None:
    everything = run_scenario(load_scenario("smoke", ["protocol.execute=all"]), tmp_path / "all")
    execution = everything.manifest["summary"]["execution"]
    assert execution["pairs_executed"] == execution["pairs"] == 42
    assert [row[0] for row in substance(everything)] == [row[0] for row in substance(smoke)]


def test_fresh_measurements_change_times_but_no_label(
    smoke: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPCSIM_CACHE", str(tmp_path / "cache"))
    fresh = run_scenario(load_scenario("smoke"), tmp_path / "fresh", means=Means(measure=True))
    assert fresh.manifest["summary"]["execution"]["pairs_executed"] > 0
    assert [row[:2] for row in substance(fresh)] == [row[:2] for row in substance(smoke)]
    assert fresh.read_transcripts() != smoke.read_transcripts()


def test_real_noise_does_not_repeat(scenario: Build, tmp_path: Path) -> None:
    noisy = scenario({"privacy.noise": "real", "privacy.sigma": 30.0, "queries.per_querier": 30})
    labels = [[row[0] for row in substance(run_scenario(noisy, tmp_path / str(i)))] for i in range(2)]
    assert labels[0] != labels[1]


def test_labels_are_the_noisy_plurality_of_the_recorded_votes(scenario: Build, tmp_path: Path) -> None:
    quiet = run_scenario(scenario({"privacy.sigma": 0.05, "privacy.epsilon": 1e9}), tmp_path / "quiet")
    votes = quiet.read_table("votes").to_pylist()
    for row in quiet.read_table("queries").to_pylist():
        asked = (row["querier"], row["query"])
        cast = [vote["vote"] for vote in votes if (vote["querier"], vote["query"]) == asked]
        assert len(cast) == len(row["counted"]) == 7
        assert row["label"] == np.bincount(cast, minlength=10).argmax()


def test_nobody_votes_on_its_own_query(scenario: Build, tmp_path: Path) -> None:
    record = run_scenario(scenario({"parties.virtual_per_party": 2}), tmp_path / "virtual")
    votes = record.read_table("votes").to_pylist()
    assert {row["party"] for row in votes if row["querier"] == 0} == set(range(1, 8))
    assert all(row["voter"] // 2 == row["party"] for row in votes)
    assert record.manifest["summary"]["privacy"]["moved_votes"] == 2


def test_the_budget_ends_the_run_normally_and_says_why(scenario: Build, tmp_path: Path) -> None:
    record = run_scenario(scenario({"privacy.sigma": 7.0, "privacy.epsilon": 1.4}), tmp_path / "budget")
    for row in record.manifest["summary"]["queriers"]:
        assert row["labels_bought"] == 3
        assert row["epsilon"] <= 1.4
        expected = f"privacy budget of querier {row['querier']}: label 4 would take epsilon to 1.5"
        assert row["stopped"].startswith(expected)


@pytest.mark.parametrize("changes", [{"privacy.epsilon": 0.1}, {"privacy.epsilon": 0.1, "protocol.execute": "all"}])
def test_a_budget_for_no_label_at_all_changes_no_model(scenario: Build, tmp_path: Path, changes: Any) -> None:
    record = run_scenario(scenario(changes), tmp_path / "nothing")
    for row in record.manifest["summary"]["queriers"]:
        assert (row["labels_bought"], row["label_accuracy"], row["epsilon"]) == (0, None, 0)
        assert row["accuracy_after"] == row["accuracy_before"]
        assert "label 1 would take epsilon" in row["stopped"]


def test_a_shared_budget_is_kept(scenario: Build, tmp_path: Path) -> None:
    changes = {"privacy.budget_scope": "coalition", "privacy.sigma": 7.0, "privacy.epsilon": 2.7}
    summary = run_scenario(scenario(changes), tmp_path / "shared").manifest["summary"]
    assert sum(row["labels_bought"] for row in summary["queriers"]) == 10
    assert all("privacy budget of coalition: label 11" in row["stopped"] for row in summary["queriers"])
    assert summary["privacy"]["epsilon_if_queriers_collude"] == summary["queriers"][0]["epsilon"] <= 2.7


@pytest.mark.parametrize(
    "changes",
    [
        {"models.kinds": ["cryptonet-relu"]},
        {"privacy.mechanism": "lnmax", "privacy.sigma": None, "privacy.scale": 1.5},
        {"faults.drop_probability": 0.3, "protocol.deadline_s": 5.0, "protocol.quorum": 0.5},
        {"machines.parties_per_machine": 4, "prices.per_core_hour": 1.0, "prices.per_gb_sent": 1.0},
        {"queries.selection": "random", "data.source": "breast_cancer", "models.kinds": ["mlp"]},
    ],
    ids=["images", "laplace", "faults", "shared machines", "two classes"],
)
def test_other_scenarios_run_too(scenario: Build, tmp_path: Path, changes: dict[str, Any]) -> None:
    sizes = {"data.train_per_party": 30, "data.evaluation": 100, "queries.per_querier": 4, "models.epochs": 20}
    summary = run_scenario(scenario({**sizes, **changes}), tmp_path / "run").manifest["summary"]
    assert all(0 < row["labels_bought"] <= 4 for row in summary["queriers"])
    json.dumps(summary, allow_nan=False)


CONFIDENT = {"privacy.mechanism": "confident-gnmax", "privacy.threshold": 5, "privacy.sigma1": 2.0}


def test_a_run_leaves_some_queries_unanswered_and_can_be_accounted_for(scenario: Build, tmp_path: Path) -> None:
    from capcsim.accounting import account_of, released_votes

    chosen = scenario({**CONFIDENT, "queries.per_querier": 20, "privacy.epsilon": 30.0})
    record = run_scenario(chosen, tmp_path / "confident")
    summary = record.manifest["summary"]
    rows = record.read_table("queries").to_pylist()
    assert summary["privacy"]["threshold"] == 5
    for querier in summary["queriers"]:
        silent = [row for row in rows if row["querier"] == querier["querier"] and "unanswered" in row["why"]]
        assert 0 < len(silent) == querier["unanswered"] < 20
        assert querier["labels_bought"] == sum(label >= 0 for label in querier["labels"])
        assert "stayed unanswered, below the threshold" in querier["stopped"] or "would take" in querier["stopped"]
        assert querier["epsilon"] <= 30.0
    refunds = sum(entry["kind"] == "refund" for entry in read_journal(record.ledger_path))
    assert refunds == sum(querier["unanswered"] for querier in summary["queriers"])
    votes = released_votes(record)
    assert votes.counts.shape == (len(rows), 10)
    assert (votes.counts.sum(axis=1) == 7).all()
    assert votes.answered is not None
    assert votes.answered.sum() == len(rows) - refunds
    assert votes.lost == 0
    found = account_of(record.folder, mechanism_of(chosen), None).account
    # The run's own figure is the improved conversion over both queriers together.
    assert found.epsilon["data_independent"]["rdp"] == pytest.approx(summary["privacy"]["epsilon_if_queriers_collude"])


def test_the_papers_analysis_buys_more_labels_and_says_what_it_is(scenario: Build, tmp_path: Path) -> None:
    changes = {"privacy.sigma": 1.5, "privacy.epsilon": 30.0, "privacy.noise": "real", "queries.per_querier": 30}
    paper = run_scenario(scenario({**changes, "privacy.analysis": "theorem6-mironov"}), tmp_path / "paper")
    found = paper.manifest["summary"]["privacy"]
    bought = [row["labels_bought"] for row in paper.manifest["summary"]["queriers"]]
    assert min(bought) > found["labels_affordable_data_independent"] > 0
    assert not found["releasable"]
    text = "\n".join(notes(read_result(paper)))
    assert "NOT RELEASABLE" in text
    assert f"pays for {found['labels_affordable_data_independent']} labels" in text


def test_corrupted_parties_are_a_group(scenario: Build, tmp_path: Path) -> None:
    changes = {"privacy.corrupted_parties": 3, "parties.virtual_per_party": 2, "queries.per_querier": 2}
    record = run_scenario(scenario({**changes, "privacy.epsilon": 1e3}), tmp_path / "group")
    assert record.manifest["summary"]["privacy"]["moved_votes"] == 6
    assert "epsilon protects 3 parties together" in "\n".join(notes(read_result(record)))


def test_each_answering_party_has_a_budget(scenario: Build, tmp_path: Path) -> None:
    changes = {"privacy.budget_scope": "party", "privacy.sigma": 7.0, "privacy.epsilon": 1.4}
    summary = run_scenario(scenario(changes), tmp_path / "party").manifest["summary"]
    assert sum(row["labels_bought"] for row in summary["queriers"]) == 3
    assert summary["privacy"]["epsilon_of_most_exposed_party"] <= 1.4
    assert all("privacy budget of party" in row["stopped"] for row in summary["queriers"])


def test_a_second_run_trains_nothing(smoke: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capcsim.learning.training.train", lambda *_: pytest.fail("it trained again"))
    assert substance(run_scenario(load_scenario("smoke"), tmp_path / "again")) == substance(smoke)


def test_a_run_on_measured_transcripts_loads_no_compiled_cryptography(smoke: Record, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from capcsim.study.run import run_scenario;"
        "from capcsim.scenario import load_scenario; run_scenario(load_scenario('smoke'), Path(sys.argv[1]));"
        "print([name for name in ('aes', 'garbling', 'transpose') if f'capcsim.crypto.{name}' in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Writes in order: manifest, ledger (folder, header), releases (folder), transcripts, then two for each label.
@pytest.mark.parametrize("fatal", [1, 3, 5, 6, 9, 14, 26, 34])
def test_a_killed_run_resumes_to_the_same_result(smoke: Record, tmp_path: Path, fatal: int) -> None:
    folder = tmp_path / "killed"
    assert run_until_killed(folder, fatal) == -signal.SIGKILL
    resumed = run_scenario(load_scenario("smoke"), folder)
    assert substance(resumed) == substance(smoke)
    assert resumed.read_table("queries").equals(smoke.read_table("queries"))


def test_a_killed_run_with_real_noise_keeps_its_labels_and_its_charges(tmp_path: Path) -> None:
    folder, overrides = tmp_path / "killed", ("privacy.noise=real",)
    assert run_until_killed(folder, 16, *overrides) == -signal.SIGKILL
    released = {(entry["querier"], entry["query"]): entry["label"] for entry in read_journal(folder / "releases.jsonl")}
    charged = sum(entry["kind"] == "reserve" for entry in read_journal(folder / "ledger.jsonl"))
    assert charged > len(released) > 0, "the kill should fall between a charge and its label"
    record = run_scenario(load_scenario("smoke", overrides), folder)
    labels = {(row["querier"], row["query"]): row["label"] for row in record.read_table("queries").to_pylist()}
    assert released.items() <= labels.items()
    charges = sum(entry["kind"] == "reserve" for entry in read_journal(folder / "ledger.jsonl"))
    assert charges == 14 + charged - len(released)


def test_a_complete_run_is_left_as_it_is(smoke: Record) -> None:
    before = {path: path.read_bytes() for path in smoke.folder.iterdir() if path.is_file()}
    assert run_scenario(load_scenario("smoke"), smoke.folder).manifest == smoke.manifest
    assert {path: path.read_bytes() for path in smoke.folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", ["ledger.jsonl", "releases.jsonl"])
@pytest.mark.parametrize("kept", [None, 0, 5])
def test_a_complete_run_whose_journal_is_gone_or_cut_is_refused(
    smoke: Record, tmp_path: Path, name: str, kept: int | None
) -> None:
    shutil.copytree(smoke.folder, tmp_path / "run")
    path = tmp_path / "run" / name
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink() if kept is None else path.write_bytes(b"".join(lines[:kept]))
    with pytest.raises(RecordError, match=rf"{name}: is (gone|not what it was): .* stays spent"):
        run_scenario(load_scenario("smoke"), tmp_path / "run")


def test_faults_lose_queries_and_the_budget_buys_others(scenario: Build, tmp_path: Path) -> None:
    changes = {"privacy.sigma": 7.0, "privacy.epsilon": 1.4, "queries.batch": 1, "queries.per_querier": 20}
    faults = {"faults.drop_probability": 0.15, "protocol.deadline_s": 1.0}
    record = run_scenario(scenario({**changes, **faults}), tmp_path / "faults")
    for row in record.manifest["summary"]["queriers"]:
        assert row["labels_bought"] == 3
        assert len(row["labels"]) > 3
        assert "lack of a quorum" in row["stopped"]


def test_a_run_is_not_resumed_on_other_data(tmp_path: Path) -> None:
    data, folder = tmp_path / "mine.npz", tmp_path / "killed"
    generator = np.random.default_rng(0)
    x, y = generator.random((700, 5)), np.arange(700) % 3
    np.savez(data, x=x, y=y)
    overrides = ("data.source=npz", f"data.path={data}")
    assert run_until_killed(folder, 9, *overrides) == -signal.SIGKILL
    np.savez(data, x=x[::-1], y=y)
    with pytest.raises(RecordError, match=r"other inputs \(it differs in data\)"):
        run_scenario(load_scenario("smoke", overrides), folder)


def test_a_run_that_is_complete_is_not_shown_for_other_data(tmp_path: Path) -> None:
    y = np.arange(700) % 3
    x = np.eye(3)[y]
    shared = {"set": {"data.train_per_party": 40, "data.evaluation": 50}, "output": tmp_path / "run"}
    capcsim.run("smoke", data=(x, y), **shared)
    capcsim.run("smoke", data=(x, y), **shared)
    with pytest.raises(RecordError, match=r"other inputs \(it differs in data\)"):
        capcsim.run("smoke", data=(x, y[::-1]), **shared)


def test_a_run_is_not_resumed_with_another_model_of_the_same_name(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    capcsim.run("smoke", models=[LogisticRegression(C=1e-4)], output=folder)
    with pytest.raises(RecordError, match=r"other inputs \(it differs in python:LogisticRegression\)"):
        capcsim.run("smoke", models=[LogisticRegression(C=1e4)], output=folder)


def test_a_run_is_not_resumed_with_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "killed"
    assert run_until_killed(folder, 9) == -signal.SIGKILL
    monkeypatch.setattr("capcsim.study.run.versions", lambda: {"numpy": "1.0"})
    with pytest.raises(RecordError, match=r"other versions \(it differs in .*numpy"):
        run_scenario(load_scenario("smoke"), folder)


def test_a_killed_run_is_not_resumed_as_another_scenario(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    assert run_until_killed(folder, 9) == -signal.SIGKILL
    with pytest.raises(RecordError, match=r"another scenario \(it differs in privacy, seed\)"):
        run_scenario(load_scenario("smoke", ["privacy.sigma=2"], seed=9), folder)


def test_a_run_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:

    folder = tmp_path / "killed"
    assert run_until_killed(folder, 9) == -signal.SIGKILL
    with Journal(folder / "ledger.jsonl"), pytest.raises(RecordError, match="another process is writing it"):
        run_scenario(load_scenario("smoke"), folder)
