"""The parties' processes in trouble, and what they leave behind."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capcsim.backend import Role, Step
from capcsim.errors import InputError, PeerFailed
from capcsim.learning.models import build_model
from capcsim.twoparty.programs import RoleLog
from capcsim_crypten import CryptenBackend
from capcsim_crypten.parties import Parties
from capcsim_crypten.party import Party

ROOT = Path(__file__).parents[2]
BOTH = (Role.ANSWERER, Role.QUERIER)


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    made = Parties("first-party", timeout_s=60.0)
    yield made
    made.close()


def pid(_: Party) -> tuple[int, RoleLog]:
    return os.getpid(), []


def meet_after(own: Party, seconds: float) -> tuple[None, RoleLog]:
    time.sleep(seconds)
    own.communicator.all_reduce(torch.zeros(10, dtype=torch.long))
    return None, []


def fail_or_meet(own: Party) -> tuple[None, RoleLog]:
    if own.rank == 0:
        raise ZeroDivisionError("in a party")
    return meet_after(own, 0.0)


def large(_: Party) -> tuple[Any, RoleLog]:
    return np.ones(5_000_000), []


def pids(parties: Parties) -> dict[Role, int]:
    found, _ = parties.run(Step.INFER, dict.fromkeys(parties.roles, (pid, ())))
    return found


def gone(process: int) -> bool:
    """Ended: not there, or not yet waited for by whoever adopted it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until_gone(processes: list[int], timeout_s: float = 10.0) -> None:
    ends_s = time.monotonic() + timeout_s
    while not all(map(gone, processes)):
        assert time.monotonic() < ends_s, processes
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("victim", "name", "provider"),
    [
        (Role.ANSWERER, "answering party", "first-party"),
        pytest.param(Role.QUERIER, "querying party", "first-party", marks=pytest.mark.slow),
        pytest.param(Role.DEALER, "dealer", "third-party", marks=pytest.mark.slow),
    ],
)
def test_a_party_killed_in_the_middle_is_named_and_all_end(victim: Role, name: str, provider: str) -> None:
    """In the middle of an inference, not between two."""
    backend = CryptenBackend(provider=provider)
    session, _ = backend.open(0, backend.prepare(build_model("lenet", (1, 28, 28), 10, (), seed=0).eval(), seed=0))
    processes = backend.processes()
    killed_s: list[float] = []

    def kill() -> None:
        killed_s.append(time.monotonic())
        os.kill(processes[victim], signal.SIGKILL)

    timer = threading.Timer(0.3, kill)
    timer.start()
    with pytest.raises(PeerFailed, match=f"the process of the {name} was killed by SIGKILL"):
        backend.infer(session, np.zeros((100, 1, 28, 28), np.float32))
    assert time.monotonic() - killed_s[0] < 10.0
    wait_until_gone(list(processes.values()))
    backend.close()


@pytest.mark.slow
def test_after_a_death_sessions_have_to_be_opened_again(backend: CryptenBackend) -> None:
    model = build_model("logistic", (4,), 3, (), seed=0).eval()
    session, _ = backend.open(0, backend.prepare(model, seed=0))
    x = np.zeros((2, 4), np.float32)
    os.kill(backend.processes()[Role.ANSWERER], signal.SIGKILL)
    time.sleep(0.1)
    with pytest.raises(PeerFailed, match=r"the process of the answering party has ended.*open the session again"):
        backend.infer(session, x)
    again, _ = backend.open(0, session.prepared)
    backend.infer(again, x)


@pytest.mark.slow
def test_an_exception_in_a_party_comes_with_its_traceback(parties: Parties) -> None:
    with pytest.raises(
        PeerFailed, match=r"answering party: an error in its process\n(?s:.)*ZeroDivisionError: in a party"
    ):
        parties.run(Step.INFER, dict.fromkeys(BOTH, (fail_or_meet, ())))
    assert len(set(pids(parties).values())) == 2, "the next call starts others"


def test_a_silent_party_is_named_when_the_time_is_up() -> None:
    parties = Parties("first-party", timeout_s=1.0)
    calls = {Role.ANSWERER: (meet_after, (0.0,)), Role.QUERIER: (meet_after, (30.0,))}
    processes = list(pids(parties).values())
    with pytest.raises(PeerFailed, match="step infer: answering party and querying party gave no answer within 1 s"):
        parties.run(Step.INFER, calls)
    wait_until_gone(processes)


def test_large_outputs_come_back_and_one_call_runs_at_a_time(parties: Parties) -> None:
    outputs, _ = parties.run(Step.INFER, dict.fromkeys(BOTH, (large, ())))
    assert all(array.sum() == 5_000_000 for array in outputs.values())
    errors: list[Exception] = []

    def other() -> None:
        try:
            parties.run(Step.INFER, dict.fromkeys(BOTH, (pid, ())))
        except InputError as error:
            errors.append(error)

    timer = threading.Timer(0.1, other)
    timer.start()
    parties.run(Step.INFER, dict.fromkeys(BOTH, (meet_after, (0.4,))))
    timer.join()
    assert "one call at a time" in str(errors[0])


@pytest.mark.slow
def test_they_are_warm_between_calls_and_end_when_closed_or_forgotten(parties: Parties) -> None:
    first = pids(parties)
    assert pids(parties) == first
    parties.close()
    parties.close()
    wait_until_gone(list(first.values()))
    second = list(pids(parties).values())
    forgotten = Parties("first-party", timeout_s=60.0)
    third = list(pids(forgotten).values())
    del forgotten
    gc.collect()
    wait_until_gone(third)
    assert not any(map(gone, second))


PARENT = """
import sys, time
from capcsim_crypten.parties import Parties
from tests.crypten.test_parties import pids
parties = Parties("first-party", timeout_s=60.0)
print(*pids(parties).values(), flush=True)
time.sleep(60)
"""


def test_they_end_when_their_parent_dies() -> None:
    """Also in an interpreter whose __main__ no child could import."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    processes = [int(word) for word in parent.stdout.readline().split()]
    assert len(processes) == 2
    parent.kill()
    parent.communicate()
    wait_until_gone(processes)


def rss_bytes(process: int | str) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(process: int | str) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def children() -> int:
    return sum(len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children"))


@pytest.mark.parametrize("number", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_calls_leak_nothing(number: int) -> None:
    """Sessions that are opened and dropped, inferences, votes: no process, no file, less than 50 MB in any process."""
    files, processes_before = open_files("self"), children()
    backend = CryptenBackend()
    prepared = backend.prepare(build_model("mlp", (1, 28, 28), 10, (16,), seed=0).eval(), seed=0)
    x = np.zeros((5, 1, 28, 28), np.float32)

    def call(times: int) -> None:
        for _ in range(times // 4):
            session, _ = backend.open(0, prepared)
            logits, _ = backend.infer(session, x)
            backend.infer(session, x)
            backend.argmax(session, logits)

    call(number)
    everybody: list[int | str] = ["self", *pids(backend._parties).values()]
    before = [(rss_bytes(process), open_files(process)) for process in everybody]
    call(number)
    after = [(rss_bytes(process), open_files(process)) for process in everybody]
    growth = [new[0] - old[0] for old, new in zip(before, after, strict=True)]
    sys.stderr.write(f"growth after {number} calls, bytes: ourselves and the parties {growth}\n")
    assert max(growth) < 50e6
    assert [files for _, files in after] == [files for _, files in before]
    assert children() == processes_before + 2
    backend.close()
    gc.collect()
    assert children() == processes_before
    assert open_files("self") == files
