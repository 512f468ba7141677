"""The processes of roles: what happens when one is killed or forgotten, or its parent ends; what they leave behind."""

# ruff: noqa: F401, F811 (fixtures)

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from capcsim.errors import PeerFailed
from capcsim.twoparty.programs import Send, Steps
from capcsim.twoparty.runners import ProcessRunner
from tests.environment import importing_from
from tests.twoparty.test_runners import (
    ROOT,
    Numbered,
    answers,
    ask,
    asks,
    go,
    hears_twice,
    idle,
    number_of,
    own_pid,
    raises,
    runner,
    shared,
    waits,
)


def dies() -> Steps:
    yield Send(b"I begin")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("near", [hears_twice, waits], ids=["while waited for", "after the last message"])
def test_a_process_killed_in_a_run_is_named_and_replaced(runner: ProcessRunner, near: Callable[..., Steps]) -> None:
    before, far = ask(runner, own_pid), runner.place(1)
    started_s = time.monotonic()
    with pytest.raises(PeerFailed, match="process of the answering party was killed by SIGKILL"):
        go(runner, near, dies)
    assert time.monotonic() - started_s < 3
    assert ask(runner, own_pid) != before
    with pytest.raises(PeerFailed, match="has ended; open the session again"):
        ask(runner, number_of, far)
    assert ask(runner, number_of, runner.place(Numbered(2))) == 2


def test_a_process_killed_between_runs_is_replaced(runner: ProcessRunner) -> None:
    before, far = ask(runner, own_pid), runner.place(1)
    os.kill(before, signal.SIGKILL)
    assert until(lambda: not alive(before))
    with pytest.raises(PeerFailed, match="open the session again"):
        ask(runner, number_of, far)
    assert ask(runner, own_pid) != before


def alive(pid: int) -> bool:
    """Not gone, and no zombie either."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], bool], patience_s: float = 5.0) -> bool:
    ends_s = time.monotonic() + patience_s
    while not (result := true()) and time.monotonic() < ends_s:
        time.sleep(0.01)
    return result


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def far_handles() -> Steps:
    return handles()
    yield


def test_nothing_leaks(runner: ProcessRunner) -> None:
    free = handles()
    pid = ask(runner, own_pid)
    here, there = handles(), ask(runner, far_handles)
    for number in range(50):
        go(runner, asks, answers, number)
        with pytest.raises(PeerFailed):
            go(runner, hears_twice, raises, 5)
        with pytest.raises(PeerFailed):
            go(runner, idle, waits)
    assert (handles(), ask(runner, far_handles)) == (here, there)
    runner.close()
    runner.close()
    assert handles() == free
    assert not Path(f"/proc/{pid}").exists()
    assert ask(runner, own_pid) != pid


def test_a_forgotten_runner_ends_its_process() -> None:
    runner = ProcessRunner()
    pid = ask(runner, own_pid)
    far = runner.place(1)
    del runner
    gc.collect()
    assert not alive(pid)
    del far


def far_threads() -> Steps:
    import scipy.linalg
    from threadpoolctl import threadpool_info

    return [pool["num_threads"] for pool in threadpool_info()]
    yield


def test_the_far_libraries_use_one_thread(shared: ProcessRunner) -> None:
    assert set(ask(shared, far_threads)) == {1}


PARENT = """
import os, signal, sys, time
sys.path[:0] = [{root!r}]
from tests.twoparty import test_role_processes, test_runners as t
from capcsim.twoparty.runners import ProcessRunner
runner = ProcessRunner()
pid = t.ask(runner, t.own_pid)
far = runner.place(1)
print(pid, flush=True)
{then}
"""
ENDS = {
    "returns": "",
    "raises": "raise SystemExit(0)",
    "leaves without a word": "os._exit(0)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "is killed in a run": (
        "from threading import Timer\nTimer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()\n"
        "t.go(runner, t.hears_twice, t.works_long, 60.0)"
    ),
    "is killed and leaves a fork": (
        "if os.fork():\n    os.kill(os.getpid(), signal.SIGKILL)\nos.closerange(0, 3)\ntime.sleep(5)"
    ),
    "closes and leaves a fork": (
        "if os.fork():\n"
        "    runner.close()\n"
        "    assert not test_role_processes.alive(pid)\n"
        "    os._exit(0)\n"
        "os.closerange(0, 3)\n"
        "time.sleep(1)"
    ),
    "forks": (
        "if child := os.fork():\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    assert t.ask(runner, t.own_pid) == pid\n"
        "else:\n"
        "    assert t.ask(runner, t.own_pid) != pid"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_process_ends_with_its_parent(end: str) -> None:
    code = PARENT.format(root=str(ROOT), then=ENDS[end])
    # The pipes close only when the helper has ended too: it has the parent's stderr.
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == (-signal.SIGKILL if "killed" in end else 0), done.stderr
    assert done.stderr == ""
    assert until(lambda: not alive(int(done.stdout)))


MAIN = """
from tests.twoparty import test_role_processes, test_runners as t
from capcsim.twoparty.runners import ProcessRunner
print("once")
def far():
    yield
t.ask(ProcessRunner(), far)
"""


def test_a_program_in_main_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(MAIN)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=importing_from(ROOT))
    assert done.stdout == "once\n"
    assert "InputError" in done.stderr
    assert "defined in __main__" in done.stderr
