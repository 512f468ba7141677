"""Runs of `digits` that are killed, find their disk full, or are copied: no charge is lost, no label changes."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capcsim.journal import TORN, Entry, read_journal
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.mechanisms import GNMax

pytestmark = pytest.mark.slow

LABELS = 40
"""That each of the three querying parties wants; epsilon 6 pays for 42."""
AFFORDABLE = Accountant(GNMax(7.0), 1e-5).affordable(6.0, at_most=100)
RANDOM_MOMENTS = 20

# The command line, but for one thing: something happens right after the n-th line of a journal.
AT_A_LINE = """
import os, signal, sys
from pathlib import Path
name, line, act, where = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
from capcsim.cli import main
from capcsim.journal import Journal
append = Journal._append

def appending(self, entry, *rest, **more):
    append(self, entry, *rest, **more)
    if self.path.name == name and self.mark.count == line:
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        with open(where, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"0" * 512)
            except OSError:
                pass

Journal._append = appending
sys.argv = ["capcsim", *sys.argv[5:]]
main()
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> float:
    """How long a whole run takes when models and transcripts are in the cache, in seconds."""
    folder = tmp_path_factory.mktemp("warm")
    assert command(folder / "first").returncode == 0
    started_s = time.monotonic()
    assert command(folder / "second").returncode == 0
    return time.monotonic() - started_s


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPCSIM_STATE", str(tmp_path / "state"))


def arguments(folder: Path) -> list[str]:
    return ["run", "digits", "-o", str(folder)]


def command(folder: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "capcsim", *arguments(folder)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def at_a_line(folder: Path, journal: str, line: int, act: str, where: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", AT_A_LINE, journal, str(line), act, str(where), *arguments(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def entries(folder: Path, name: str, kind: str) -> list[Entry]:
    path = folder / f"{name}.jsonl"
    return [entry for entry in read_journal(path) if entry["kind"] == kind] if path.exists() else []


def say(row: str) -> None:
    """For who runs this with -s."""
    sys.stdout.write(f"\n{row}\n")


def check_resumed(folder: Path) -> dict[str, Any]:
    """Give the same command again, and hold what comes out to what there was; returns a row for the table."""
    labels = {(entry["querier"], entry["query"]): entry["label"] for entry in entries(folder, "releases", "release")}
    charges = entries(folder, "ledger", "reserve")
    torn = read_journal(folder / "ledger.jsonl").count(TORN) if charges else 0
    over = charges and json.loads((folder / "manifest.json").read_text())["state"] == "complete"
    done = command(folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if charges and not over:
        # A line that was cut short counts as a charge.
        assert f"resuming: going on with {len(labels)} labels and {len(charges) + torn} charges" in done.stderr
    return check_told(folder, done.stdout, labels, charges)


def check_told(folder: Path, stdout: str, labels: dict[Any, int], charges: list[Entry]) -> dict[str, Any]:
    summary = json.loads((folder / "manifest.json").read_text())["summary"]
    after = entries(folder, "ledger", "reserve")
    assert after[: len(charges)] == charges, "a charge was lost"
    torn = read_journal(folder / "ledger.jsonl").count(TORN)
    ends = {(entry["querier"], entry["query"]): entry["label"] for entry in entries(folder, "releases", "release")}
    assert labels.items() <= ends.items(), "a label was changed or bought twice"
    assert summary["privacy"]["charges_cut_short"] == torn
    charged = Counter(entry["querier"] for entry in after)
    lost = 0
    for row in summary["queriers"]:
        querier = row["querier"]
        bought = sum(key[0] == querier for key in ends)
        assert row["labels_bought"] == bought
        assert row["charges_without_label"] == charged[querier] - bought
        assert row["charges"] == charged[querier] + torn <= AFFORDABLE
        assert row["epsilon"] == pytest.approx(Accountant(GNMax(7.0), 1e-5).epsilon(row["charges"]))
        assert bought == min(LABELS, AFFORDABLE - row["charges_without_label"] - torn)
        if row["charges_without_label"]:
            assert f"(+{row['charges_without_label']} charged)" in stdout
        lost += row["charges_without_label"]
    assert ("bought no label" in stdout) == (lost > 0)
    return {"charges": len(charges), "labels": len(labels), "after": len(ends), "lost": lost, "torn": torn}


@pytest.mark.parametrize("line", range(10, 121, 10))
@pytest.mark.parametrize("journal", ["ledger.jsonl", "releases.jsonl"])
def test_kill_9_after_every_tenth_line(warm: float, tmp_path: Path, journal: str, line: int) -> None:
    folder = tmp_path / "run"
    assert at_a_line(folder, journal, line, "kill", folder).returncode == -signal.SIGKILL
    say(f"killed after line {line} of {journal}: {check_resumed(folder)}")


@pytest.mark.parametrize("moment", range(RANDOM_MOMENTS))
def test_kill_9_at_a_random_moment(warm: float, tmp_path: Path, moment: int) -> None:
    folder = tmp_path / "run"
    after_s = random.Random(moment).uniform(0, warm)
    process = subprocess.Popen(
        [sys.executable, "-m", "capcsim", *arguments(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    time.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.wait() == 0:
        pytest.skip("the run was over before the moment came")
    say(f"killed after {after_s:.1f} s of {warm:.1f}: {check_resumed(folder)}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of our own; takes root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a small disk of our own takes root, to mount a tmpfs")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("line", range(10, 121, 10))
@pytest.mark.parametrize("journal", ["ledger.jsonl", "releases.jsonl"])
def test_a_disk_that_is_full_after_every_tenth_line(warm: float, disk: Path, journal: str, line: int) -> None:
    folder, fill = disk / "run", disk / "fill"
    done = at_a_line(folder, journal, line, "fill", fill)
    if done.returncode == 0 and line > 100:
        pytest.skip("what was left to write found room in the files that there were")
    assert done.returncode == 2, done.stderr
    (error,) = [text for text in done.stderr.splitlines() if text.startswith("capcsim: ")]
    assert str(folder) in error
    assert "No space left on device" in error
    assert "make room" in error
    assert "Traceback" not in done.stderr
    again = command(folder)
    assert again.returncode == 2, "the disk is still full"
    fill.unlink()
    say(f"full after line {line} of {journal}: {check_resumed(folder)}; {error[-90:]}")


@pytest.mark.parametrize("line", [10, 60, 110])
def test_of_two_copies_of_a_folder_only_one_goes_on(warm: float, tmp_path: Path, line: int) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy"
    assert at_a_line(folder, "releases.jsonl", line, "kill", folder).returncode == -signal.SIGKILL
    shutil.copytree(folder, copy)
    row = check_resumed(copy)
    refused = command(folder)
    assert refused.returncode == 2
    assert "a copy of the run has gone on" in refused.stderr
    assert len(refused.stderr.strip().splitlines()[-1]) > 0
    say(f"copied after line {line}: {row}; the other: {refused.stderr.strip().splitlines()[-1]}")


def test_two_copies_at_the_same_time_release_each_label_once(warm: float, tmp_path: Path) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy"
    assert at_a_line(folder, "releases.jsonl", 10, "kill", folder).returncode == -signal.SIGKILL
    shutil.copytree(folder, copy)
    both = [
        subprocess.Popen([sys.executable, "-m", "capcsim", *arguments(each)], stderr=subprocess.PIPE, text=True)
        for each in (folder, copy)
    ]
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], errors
    assert "a copy of this run has gone on" in "".join(errors) or "a copy of the run has gone on" in "".join(errors)
    slower = (folder, copy)[[process.returncode for process in both].index(2)]
    assert len(entries(slower, "releases", "release")) <= 10 + 10
