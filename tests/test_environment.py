"""The command line as a process on a host that refuses things: one line, the right exit code, nothing lost."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.disks import mount, mounted, tmpfs
from tests.environment import importing_from

ROOT = Path(__file__).parents[1]
QUICK = ("--set", "queries.per_querier=2", "--set", "models.epochs=5", "--set", "parties.count=3")
SMOKE = ("run", "smoke", *QUICK)
AGAIN = "give the same command again"
LONG = "x" * 300


def start(*arguments: str, folder: Path | None = None, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process, and a group of processes, of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    environment = {**importing_from(ROOT), **pipes.pop("env", {})}
    command = [sys.executable, "-m", "capcsim", *arguments]
    return subprocess.Popen(command, text=True, cwd=folder, env=environment, process_group=0, **pipes)


def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    process = start(*arguments, **options)
    printed, told = (text or "" for text in process.communicate(timeout=300))
    assert "Traceback" not in told, told
    assert "a fault of capcsim" not in told
    return process.returncode, printed, told


def last_line(told: str) -> str:
    return told.rstrip("\n").rpartition("\n")[2]


def refused(found: tuple[int, str, str], says: str) -> None:
    """One line, of this pattern, and the exit code of what the user has to mend."""
    code, _, told = found
    assert re.search(f"^capcsim: {says}", last_line(told)), told
    assert code == 2


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that is complete."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    assert run(*SMOKE, "-o", str(folder))[0] == 0
    return folder


def results(folder: Path) -> Any:
    """What does not depend on measured seconds."""
    rows = json.loads((folder / "manifest.json").read_text())["summary"]["queriers"]
    return [{key: row[key] for key in ("labels", "label_accuracy", "accuracy_after", "epsilon")} for row in rows]


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing(tmp_path: Path, ended: Path) -> None:
    with mounted(tmp_path / "disk", *tmpfs("8k")) as disk:
        folder = disk / "run"
        for larger, full in (("300k", "votes.parquet"), ("9m", r"(figures/\w+.png|trace.json)")):
            refused(run(*SMOKE, "-o", str(folder)), rf"{folder}/{full}: .*No space left on device; make room.*{AGAIN}$")
            assert not [path.name for path in folder.rglob(".*")], "no part of a file stays"
            mount(disk, "-o", f"remount,size={larger}")
        assert run(*SMOKE, "-o", str(folder))[0] == 0
        assert results(folder) == results(ended)
        assert (folder / "report.html").exists()


def test_a_record_that_can_only_be_read(tmp_path: Path, ended: Path) -> None:
    with mounted(tmp_path / "record", "--bind", str(ended)) as folder:
        mount(folder, "-o", "remount,ro,bind")
        refused(run("report", str(folder)), f"{folder}/figures/.*.png: Read-only file system; make it accessible .*")
        assert run("account", str(folder), "--json")[0] == 0, "what writes nothing works"


@pytest.mark.parametrize(
    "arguments",
    [(*SMOKE, "-o", LONG), ("report", LONG), ("account", f"{LONG}.csv", "--mechanism", "lnmax", "--scale", "2")],
)
def test_a_name_that_is_too_long(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused(run(*arguments, folder=tmp_path), f".*{LONG}.*File name too long")
    assert not list(tmp_path.iterdir())


def test_a_comparison_is_refused_before_any_work(tmp_path: Path) -> None:
    found = run("compare", "smoke", "--backends", "plaintext", "-o", f"{tmp_path}/{LONG}")
    refused(found, f"{tmp_path}/{LONG}: File name too long; choose a shorter name$")
    assert "training" not in found[2]


def closed(number: int) -> Callable[[], None]:
    return lambda: os.close(number)


@pytest.mark.slow
def test_an_output_that_is_full_closed_or_not_read(ended: Path) -> None:
    show = ("run", "smoke", *QUICK, "-o", str(ended))
    with Path("/dev/full").open("w") as full:
        refused(run("backends", stdout=full), f"standard output: No space left on device; make room and {AGAIN}$")
        refused(run(*show, "--json", stdout=full), f"standard output: No space left on device; make room and {AGAIN}$")
    refused(
        run("backends", preexec_fn=closed(1)), "standard output: is closed; open it, or send it to a file or to /dev"
    )
    with start("scenario-schema") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        told = process.stderr.read()
    refused((process.returncode, "", told), f"standard output: Broken pipe; .*{AGAIN}$")


def test_an_error_stream_that_fails_ends_no_work(ended: Path) -> None:
    """And no file of ours gets the number of a closed stream, into which a library might write."""
    with Path("/dev/full").open("w") as full:
        code, shown, _ = run("report", str(ended), stderr=full)
    assert (code, f"Report: {ended}/report.html" in shown) == (0, True)
    assert run("report", str(ended), stderr=None, preexec_fn=closed(2))[:2] == (0, shown)


def until(stream: IO[str], begins: str) -> None:
    """Read up to a line that begins so."""
    for line in stream:
        if line.startswith(begins):
            return
    pytest.fail(f"the process ended before it said {begins!r}")


@contextlib.contextmanager
def running(*arguments: str, says: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command line when it has told so much."""
    process = start(*arguments, **options)
    try:
        assert process.stderr
        until(process.stderr, says)
        yield process
    finally:
        process.kill()
        process.communicate()


TRAINS_LONG = ("run", "smoke", "--set", "models.epochs=20000", "--set", "models.hidden=[300]")


def test_a_run_that_is_ended_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(*TRAINS_LONG, "-o", str(folder), says="training") as process:
        process.terminate()
        _, told = process.communicate()
    keeps = f"capcsim: interrupted; the same command with -o {folder} keeps its labels and charges"
    assert (process.returncode, last_line(told)) == (130, keeps), told
    assert "Traceback" not in told
    assert (folder / "manifest.json").exists()


@pytest.mark.parametrize(("options", "number"), [(("-o", "run"), signal.SIGHUP), ((), signal.SIGTERM)])
def test_before_there_is_a_run_nothing_is_promised(
    tmp_path: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    with running(*SMOKE, *options, says="run's directory", folder=tmp_path) as process:
        process.send_signal(number)
        _, told = process.communicate()
    assert (process.returncode, last_line(told)) == (130, "capcsim: interrupted")
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir()), "no empty directory stays"


def test_a_folder_of_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("mine")
    with running(*SMOKE, "-o", str(tmp_path), says="run's directory") as process:
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


def children(process: subprocess.Popen[str], whose: str, patience_s: float = 30.0) -> list[int]:
    """The processes that it started, and whose command has this word; waits for one."""
    ends_s = time.monotonic() + patience_s
    while time.monotonic() < ends_s:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == process.pid and whose in (path / "cmdline").read_text():
                    found.append(int(path.name))
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"it started no process with {whose}")


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@linux
def test_ctrl_c_in_a_terminal_reaches_no_worker(tmp_path: Path) -> None:
    """A terminal sends it to all processes of the group, also to those that are just starting."""
    with running(*TRAINS_LONG, "-o", str(tmp_path / "run"), "--workers", "2", says="training") as process:
        workers = children(process, "LokyProcess")
        for _ in range(5):  # a user who does not want to wait
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.1)
        _, told = process.communicate()
    assert process.returncode == 130
    assert re.fullmatch(r"(training .*\n)*capcsim: interrupted; .*\n", told), told
    assert not [worker for worker in workers if _alive(worker)]


def _alive(number: int) -> bool:
    """Not gone, and no zombie that waits for init."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@linux
@pytest.mark.parametrize(
    ("arguments", "stage", "whose", "says"),
    [
        ((*TRAINS_LONG, "--workers", "2"), "training", "LokyProcess", "a process that trained models ended early"),
        (
            (*SMOKE, "--backend", "hybrid", "--measure"),
            "measuring pairs",
            "role_process",
            "the process of the answering",
        ),
    ],
)
def test_a_process_that_is_killed_is_nobodys_mistake(
    tmp_path: Path, arguments: tuple[str, ...], stage: str, whose: str, says: str
) -> None:
    with running(*arguments, says=stage, folder=tmp_path) as process:
        os.kill(children(process, whose)[0], signal.SIGKILL)
        _, told = process.communicate()
    assert process.returncode == 1
    assert re.search(f"^capcsim: {says}.*SIGKILL.*; {AGAIN}$", last_line(told)), told
    assert "open the session again" not in told
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"capcsim: the same command with -o runs/{folder.name} keeps its labels and charges\n" in told


@pytest.mark.slow
def test_a_cache_without_room_is_told_once_and_a_byte_order_mark_is_read(tmp_path: Path, ended: Path) -> None:
    """The mark as some editors write it."""
    text = (ROOT / "scenarios" / "smoke.toml").read_bytes()
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + text)
    (tmp_path / "wide.toml").write_bytes(text.decode().encode("utf-16"))
    refused(run("run", "wide.toml", folder=tmp_path), ".*UTF-8")
    with mounted(tmp_path / "cache", *tmpfs("8k")) as cache:
        code, _, told = run("run", "mine.toml", *QUICK, "-o", "run", folder=tmp_path, env={"CAPCSIM_CACHE": str(cache)})
        assert code == 0
        assert (
            told.count("capcsim: warning: ") == told.count(f"{cache}: No space left on device; what is measured") == 1
        )
        assert not list(cache.rglob(".*"))
    assert results(tmp_path / "run") == results(ended)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    refused(run("backends", folder=gone, preexec_fn=gone.rmdir), "current folder: No such file or directory; go to one")


@pytest.mark.slow
def test_an_install_that_can_only_be_read_and_no_home(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("7,2,1\n3,3,4\n10,0,0\n")
    nowhere = dict.fromkeys(("HOME", "CAPCSIM_CACHE", "CAPCSIM_STATE", "XDG_CACHE_HOME"), "/proc/nowhere")
    account = ("account", "votes.csv", "--mechanism", "gnmax", "--sigma", "3", "--delta", "1e-5", "--json")
    with mounted(tmp_path / "site", "--bind", str(ROOT)) as site:
        mount(site, "-o", "remount,ro,bind")
        environment = {**importing_from(site, site / "backends"), **nowhere}
        command = [sys.executable, "-m", "capcsim", *account]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["queries"] == 3
    assert done.stderr.count("\n") == done.stderr.count("capcsim: warning: /proc/nowhere: ") == 1, done.stderr
