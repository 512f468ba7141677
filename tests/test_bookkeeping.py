"""Runs whose ledger was emptied, overtaken or moved, and what all runs together took from the training records."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from capcsim.bookkeeping import book_account, told
from capcsim.errors import RecordError, ScenarioError
from capcsim.journal import read_journal
from capcsim.paths import state_folder
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.book import Book
from capcsim.privacy.mechanisms import GNMax
from capcsim.record import Record
from capcsim.report.tables import notes
from capcsim.scenario import load_scenario
from capcsim.study.means import Means
from capcsim.study.result import read_result
from capcsim.study.run import run_scenario
from tests.killing import run_until_killed

REAL = ("privacy.noise=real", "privacy.sigma=7", "privacy.epsilon=6", "parties.queriers=1", "queries.batch=2")
AFTER_TWO_BATCHES = 20
"""Writes: manifest, releases, ledger (2), transcripts, then for two labels 2 charges, the manifest, 2 releases."""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPCSIM_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def run(folder: Path, *more: str, seed: int | None = None, **options: Any) -> Record:
    return run_scenario(load_scenario("smoke", (*REAL, *more), seed=seed), folder, **options)


def killed(folder: Path, *more: str, fatal: int = AFTER_TWO_BATCHES) -> Path:
    assert run_until_killed(folder, fatal, *REAL, *more) == -signal.SIGKILL
    return folder


def charges(folder: Path) -> int:
    return sum(entry["kind"] == "reserve" for entry in read_journal(folder / "ledger.jsonl"))


class Heard:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, title: str, total: int) -> Any:
        return lambda _: None

    def note(self, text: str) -> None:
        self.notes.append(text)


EMPTIED = {
    "both gone": lambda folder: [path.unlink() for path in folder.glob("*s.jsonl")] + [(folder / LEDGER).unlink()],
    "ledger gone": lambda folder: (folder / LEDGER).unlink(),
    "releases gone": lambda folder: (folder / "releases.jsonl").unlink(),
    "ledger empty": lambda folder: (folder / LEDGER).write_bytes(b""),
    "ledger of its header": lambda folder: shorten(folder / LEDGER, 1),
    "ledger of three lines": lambda folder: shorten(folder / LEDGER, 3),
}
LEDGER = "ledger.jsonl"


def shorten(path: Path, lines: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Path:
    """A killed run and the book that knows it."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPCSIM_STATE", str(folder / "state"))
        killed(folder / "run")
    return folder


@pytest.fixture
def interrupted(template: Path, tmp_path: Path, own_state: Path) -> Path:
    """A run that was killed after some labels, in a place of its own, with its book."""
    shutil.copytree(template / "state", own_state)
    shutil.copytree(template / "run", tmp_path / "run")
    assert charges(tmp_path / "run") >= 4
    return tmp_path / "run"


@pytest.mark.parametrize("with_book", [True, False])
@pytest.mark.parametrize("empty", EMPTIED.values(), ids=EMPTIED.keys())
def test_an_emptied_ledger_is_refused(interrupted: Path, own_state: Path, empty: Any, with_book: bool) -> None:
    if not with_book:
        shutil.rmtree(own_state)
    empty(interrupted)
    before = {path.name: path.read_bytes() for path in interrupted.iterdir() if path.is_file()}
    with pytest.raises(RecordError, match=r"(ledger|releases)\.jsonl: is (gone|not what it was): .* stays spent"):
        run(interrupted)
    assert {path.name: path.read_bytes() for path in interrupted.iterdir() if path.is_file()} == before


def test_an_emptied_ledger_is_refused_with_a_manifest_to_fit(interrupted: Path) -> None:
    """Who empties the manifest's memory too meets the book's."""
    manifest = json.loads((interrupted / "manifest.json").read_text())
    del manifest["journals"]
    (interrupted / "manifest.json").write_text(json.dumps(manifest))
    for name in (LEDGER, "releases.jsonl"):
        (interrupted / name).unlink()
    with pytest.raises(
        RecordError, match=r"behind: .* has seen .* a copy of the run has gone on, or the ledger was cut"
    ):
        run(interrupted)
    assert not (interrupted / LEDGER).exists()


@pytest.mark.parametrize("fatal", [1, 3, 5, 6])
def test_a_run_that_was_killed_before_its_first_charge_resumes(tmp_path: Path, fatal: int) -> None:
    folder = killed(tmp_path / "run", fatal=fatal)
    record = run(folder)
    assert record.complete
    assert record.manifest["summary"]["queriers"][0]["labels_bought"] == 7


def test_a_resumed_run_says_so_and_tells_what_its_lost_charges_bought(interrupted: Path) -> None:
    entries = read_journal(interrupted / "releases.jsonl")
    reserved, labels = charges(interrupted), sum(entry["kind"] == "release" for entry in entries)
    heard = Heard()
    record = run(interrupted, means=Means(heard))
    assert f"resuming: going on with {labels} labels and {reserved} charges" in heard.notes
    summary = record.manifest["summary"]
    row = summary["queriers"][0]
    lost = reserved - labels
    assert lost > 0, "the kill should fall between a charge and its label"
    assert row["charges_without_label"] == summary["privacy"]["charges_without_label"] == lost
    assert row["charges"] == row["labels_bought"] + lost == charges(interrupted)
    assert row["epsilon"] == pytest.approx(Accountant(GNMax(7.0), 1e-5).epsilon(row["charges"]))
    assert any(f"{lost} charge" in line and "bought no label (party 0: " in line for line in notes(read_result(record)))
    assert told(summary["privacy"]["book"]).startswith("In the book of runs on this host: this run alone, which took")


def test_a_charge_that_was_cut_short_is_told(interrupted: Path) -> None:
    path = interrupted / LEDGER
    with path.open("ab") as file:
        file.write(b"0123456789abcdef {")
    record = run(interrupted)
    assert record.manifest["summary"]["privacy"]["charges_cut_short"] == 1
    assert any("1 line of the ledger was cut short" in line for line in notes(read_result(record)))


def test_of_two_copies_one_goes_on(interrupted: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(interrupted, copy)
    assert run(copy).complete
    with pytest.raises(RecordError, match=r"/run: this run's ledger is behind: .*book\.sqlite has seen \d+ entries"):
        run(interrupted)
    before = charges(interrupted)
    assert run(copy).complete
    assert charges(interrupted) == before


def test_a_copy_that_lags_in_the_middle_is_refused_and_the_other_goes_on(interrupted: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(interrupted, copy)
    killed(copy, fatal=8)
    assert charges(copy) > charges(interrupted)
    with pytest.raises(RecordError, match="a copy of the run has gone on"):
        run(interrupted)
    assert run(copy).complete


def test_a_run_goes_on_elsewhere_only_where_it_is_adopted(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPCSIM_STATE", str(tmp_path / "another host"))
    with pytest.raises(RecordError, match=r"begun with another book of runs .* with --adopt"):
        run(interrupted)
    reserved = charges(interrupted)
    record = run(interrupted, adopt=True)
    assert record.complete
    assert Book(state_folder()).runs()[0].spent.labels == charges(interrupted) >= reserved


def test_an_adopted_run_is_known_from_then_on(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPCSIM_STATE", str(tmp_path / "another host"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capcsim.study.run.walk", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(interrupted, adopt=True)
    assert run(interrupted).complete


def test_runs_with_other_seeds_and_fewer_patients_add_up(tmp_path: Path) -> None:
    """Digits: 320 training records of 1,797; the three runs share some, and each of them pays for all it was in."""
    first = run(tmp_path / "1").manifest["summary"]
    second = run(tmp_path / "2", seed=99).manifest["summary"]
    third = run(tmp_path / "3", "data.train_per_party=39", "title='Another name'").manifest["summary"]
    spent = [summary["privacy"]["book"] for summary in (first, second, third)]
    assert [each["runs"] for each in spent] == [1, 2, 3]
    assert [each["labels"] for each in spent] == [7, 14, 21]
    accountant = Accountant(GNMax(7.0), 1e-5)
    assert [each["epsilon"] for each in spent] == [accountant.epsilon(labels) for labels in (7, 14, 21)]
    found = book_account(None, None)
    assert found["epsilon"]["largest"] == accountant.epsilon(21)
    assert [row["labels"] for row in found["runs"]] == [7, 7, 7]
    assert found["runs"][2]["title"].startswith("Another name (changed: data.train_per_party = 39")


def test_the_parties_of_a_run_are_told_apart(tmp_path: Path) -> None:
    run(tmp_path / "1")
    found = book_account(tmp_path / "1", 1e-5)
    assert [party["labels"] for party in found["parties"]] == [0, 7, 7, 7, 7, 7, 7, 7]
    assert {party["records"] for party in found["parties"]} == {40}
    run_scenario(load_scenario("smoke"), tmp_path / "seeded")
    with pytest.raises(RecordError, match="its noise was seeded"):
        book_account(tmp_path / "seeded", None)


def test_an_enforced_budget_is_one_over_all_runs(tmp_path: Path) -> None:
    """At sigma 7 and delta 1e-5, 12 labels cost 2.99: after 7 of another run there are 5 left, then none."""
    run(tmp_path / "1")
    enforced = ("privacy.book=enforce", "privacy.epsilon=3")
    second = run(tmp_path / "2", *enforced, seed=5).manifest["summary"]["queriers"][0]
    assert second["labels_bought"] == 5
    assert "over all runs: label 13 would take epsilon to 3." in second["stopped"]
    third = run(tmp_path / "3", *enforced, seed=6).manifest["summary"]
    assert third["queriers"][0]["labels_bought"] == 0
    assert third["privacy"]["book"]["labels"] == 12


def test_an_enforced_budget_holds_for_all_querying_parties_together(tmp_path: Path) -> None:
    more = ("privacy.book=enforce", "privacy.epsilon=3", "parties.queriers=3")
    summary = run(tmp_path / "1", *more).manifest["summary"]
    assert summary["privacy"]["book"]["labels"] == 12
    assert sum(row["labels_bought"] for row in summary["queriers"]) >= 12
    assert summary["privacy"]["epsilon_of_most_exposed_party"] <= 3


def test_what_another_run_takes_meanwhile_ends_an_enforced_one(tmp_path: Path) -> None:
    folder = killed(tmp_path / "1", "privacy.book=enforce", "privacy.epsilon=3")
    spent = charges(folder)
    assert 12 - 7 <= spent < 7
    run(tmp_path / "2", seed=3)
    row = run(folder, "privacy.book=enforce", "privacy.epsilon=3").manifest["summary"]["queriers"][0]
    assert charges(folder) == row["charges"] == spent
    assert "over all runs" in row["stopped"]


def test_a_book_that_cannot_be_written_is_a_warning_and_no_excuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAPCSIM_STATE", str(tmp_path / "file" / "state"))
    heard = Heard()
    record = run(tmp_path / "1", means=Means(heard))
    (warning,) = [note for note in heard.notes if note.startswith("warning")]
    assert "Not a directory" in warning
    assert "CAPCSIM_STATE" in warning
    assert record.manifest["summary"]["privacy"]["book"] is None
    with pytest.raises(ScenarioError, match=r"privacy\.book = 'enforce': a book of runs that can be written, but"):
        run(tmp_path / "2", "privacy.book=enforce")


def test_a_run_without_a_book_is_entered_when_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPCSIM_STATE", str(tmp_path / "file" / "state"))
        killed(tmp_path / "run")
    record = run(tmp_path / "run")
    assert record.manifest["summary"]["privacy"]["book"]["labels"] == charges(tmp_path / "run")


def test_seeded_noise_is_in_no_book_and_cannot_be_enforced(tmp_path: Path, own_state: Path) -> None:
    record = run_scenario(load_scenario("smoke"), tmp_path / "1")
    assert record.manifest["summary"]["privacy"]["book"] is None
    assert not own_state.exists()
    with pytest.raises(RecordError, match="its book is empty"):
        book_account(None, None)
    with pytest.raises(ScenarioError, match=r"privacy\.book = 'enforce': 'record': seeded noise protects nobody"):
        load_scenario("smoke", ["privacy.book=enforce"])


def fill_up(path: Path) -> None:
    """Take all room that there is on a disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk of our own takes root, for a small tmpfs")
def test_a_full_state_folder_is_a_warning_and_is_made_up_for(tmp_path: Path, own_state: Path) -> None:
    run(tmp_path / "warm")
    shutil.rmtree(own_state)
    own_state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(own_state)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        folder = killed(tmp_path / "run")
        fill = own_state / "fill"
        enforced = killed(tmp_path / "enforced", "privacy.book=enforce")
        fill_up(fill)
        heard = Heard()
        assert run(folder, means=Means(heard)).complete
        assert [note for note in heard.notes if "book.sqlite: cannot be read or written: " in note]
        with pytest.raises(RecordError, match=r"book\.sqlite: cannot be read or written: .*; make room"):
            run(enforced, "privacy.book=enforce")
        fill.unlink()
        assert run(enforced, "privacy.book=enforce").complete
    finally:
        subprocess.run(["umount", str(own_state)], check=True)
