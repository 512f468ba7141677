"""Both runners give the same; and what happens to a helper process in every kind of trouble."""

import _thread
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.backend import VOTE_RING_BITS, Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.conformance.transcripts import check_transcript
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import (
    BackendNotFound,
    CapcsimError,
    InputError,
    PeerFailed,
    PrivacyBudgetExceeded,
    ScenarioError,
    UnsupportedModel,
)
from capcsim.twoparty.programs import Mark, Recv, Send, Steps
from capcsim.twoparty.runners import Far, LocalRunner, ProcessRunner, Runner
from capcsim.twoparty.voting import argmax_programs, set_up_programs

ROLES = (Role.QUERIER, Role.ANSWERER)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shared() -> Iterator[ProcessRunner]:
    """For runs that leave the process alive."""
    runner = ProcessRunner()
    yield runner
    runner.close()


@pytest.fixture
def runner() -> Iterator[ProcessRunner]:
    runner = ProcessRunner()
    yield runner
    runner.close()


def go(runner: Runner, near: Callable[..., Steps], far: Callable[..., Steps], *arguments: Any, **options: Any) -> Any:
    """Run two programs, the far one with arguments."""
    return runner.run(ROLES, (near, ()), (far, arguments), step=Step.INFER, **options)


def ask(runner: Runner, far: Callable[..., Steps], *arguments: Any, **options: Any) -> Any:
    """The far output, with nothing to do here."""
    return go(runner, idle, far, *arguments, **options)[0][1]


def idle() -> Steps:
    return
    yield


def waits() -> Steps:
    return (yield Recv())


def asks() -> Steps:
    """With marks, several messages in a row, an empty one, and one that is larger than any buffer."""
    yield Mark(Phase.OFFLINE, Scope.QUERY, done=0.0)
    sum(range(1000))
    yield Mark(Phase.ONLINE, Scope.PAIR, done=0.25)
    yield Send(b"")
    yield Send(b"x" * 3_000_000)
    yield Mark(done=0.5)
    first = yield Recv()
    yield Send(first[:17])
    yield Mark(done=1.0)
    return first + (yield Recv())


def answers(number: int) -> Steps:
    yield Mark(Phase.OFFLINE)
    nothing, much = (yield Recv()), (yield Recv())
    yield Mark(Phase.ONLINE)
    yield Send(bytes([number]) * 20)
    back = yield Recv()
    yield Send(b"the end")
    return len(nothing), len(much), back


def shape(transcript: Transcript) -> list[Any]:
    """All but the seconds."""
    return [
        (node.role, node.phase, node.scope, node.after)
        if isinstance(node, Compute)
        else (node.sender, node.receiver, node.nbytes, node.phase, node.scope, node.after)
        for node in transcript
    ]


def test_a_process_gives_the_same_outputs_and_the_same_transcript(shared: ProcessRunner) -> None:
    seen: dict[bool, list[Any]] = {True: [], False: []}
    done: dict[bool, list[float]] = {True: [], False: []}

    def both(runner: Runner) -> Any:
        local = isinstance(runner, LocalRunner)
        return go(runner, asks, answers, 7, tap=lambda *m: seen[local].append(m), progress=done[local].append)

    (here, mine), (there, theirs) = both(LocalRunner()), both(shared)
    assert here == there == (b"\7" * 20 + b"the end", (0, 3_000_000, b"\7" * 17))
    assert shape(mine) == shape(theirs)
    assert seen[True] == seen[False]
    assert done[True] == done[False] == [0, 0.25, 0.5, 1]
    check_transcript(Step.INFER, theirs, frozenset(ROLES))


def test_the_argmax_with_a_session_that_stays_there(shared: ProcessRunner) -> None:
    logits = np.array([[3, 8, -1], [7, 7, 2]])
    shares = share(logits, 37)
    shapes = []
    for runner in (LocalRunner(), shared):
        set_up, argmax = set_up_programs(), argmax_programs()
        (session, far), base = runner.run(
            ROLES, (set_up[0], ()), (set_up[1], ()), step=Step.SETUP, phase=Phase.SETUP, keep=True
        )
        assert isinstance(far, Far)
        outputs, transcript = runner.run(
            ROLES,
            (argmax[0], (session, shares[0], 37)),
            (argmax[1], (far, shares[1], 37)),
            step=Step.ARGMAX,
        )
        assert reconstruct(np.stack(outputs), VOTE_RING_BITS).tolist() == [[0, 1, 0], [1, 0, 0]]
        check_transcript(Step.SETUP, base, frozenset(ROLES))
        check_transcript(Step.ARGMAX, transcript, frozenset(ROLES))
        shapes.append(shape(base) + shape(transcript))
    assert shapes[0] == shapes[1]


class Numbered:
    """A value whose living copies in a process can be counted."""

    alive = 0

    def __init__(self, number: int) -> None:
        self.number = number
        Numbered.alive += 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        Numbered.alive += 1

    def __del__(self) -> None:
        Numbered.alive -= 1


def number_of(value: Numbered) -> Steps:
    return value.number
    yield


def makes(number: int) -> Steps:
    return Numbered(number)
    yield


def counts() -> Steps:
    return Numbered.alive
    yield


@pytest.mark.parametrize("kind", [LocalRunner, ProcessRunner])
def test_a_value_lives_there_while_somebody_here_has_it(kind: Callable[[], Runner]) -> None:
    runner = kind()
    with contextlib.closing(runner):
        before = ask(runner, counts)
        placed, kept = runner.place(Numbered(3)), ask(runner, makes, 4, keep=True)
        gc.collect()
        assert ask(runner, counts) == before + 2
        assert [ask(runner, number_of, far) for far in (placed, kept, placed)] == [3, 4, 3]
        released = threading.Thread(target=lambda held: held.clear(), args=([placed],))
        del placed
        released.start()
        released.join()
        del released
        assert ask(runner, counts) == before + 1
        del kept
        assert ask(runner, counts) == before


def test_a_kept_output_of_a_run_that_failed_here_is_dropped(shared: ProcessRunner) -> None:
    before = ask(shared, counts)

    def fails() -> Steps:
        yield Mark()
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            go(shared, fails, makes, 5, keep=True)
    assert ask(shared, counts) == before


def test_a_value_of_another_runner_is_refused(shared: ProcessRunner) -> None:
    local = LocalRunner()
    with pytest.raises(InputError, match="another runner"):
        ask(shared, number_of, local.place(1))
    with pytest.raises(InputError, match="another runner"):
        ask(local, number_of, shared.place(1))
    with contextlib.closing(ProcessRunner()) as other, pytest.raises(InputError, match="another runner"):
        ask(other, number_of, shared.place(1))


class Unlucky(CapcsimError):
    """Of a class elsewhere, with an attribute that cannot travel."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        super().__init__("unlucky")


ERRORS: list[CapcsimError] = [
    ScenarioError("privacy.sigma", -1, "a positive number", source="mine.toml"),
    BackendNotFound("plaintex", ["plaintext"]),
    UnsupportedModel("Bilinear", "it is not one of ours"),
    PrivacyBudgetExceeded("party 1", 3, 2.25, 2.0),
    InputError("a shape"),
    PeerFailed("it stopped"),
]


def raises(which: int) -> Steps:
    yield Send(b"first")
    raise ERRORS[which]


def divides() -> Steps:
    yield Send(b"first")
    return 1 // 0


def is_unlucky() -> Steps:
    raise Unlucky
    yield


def leaves() -> Steps:
    sys.exit("I leave")
    yield


def hears_twice() -> Steps:
    yield Recv()
    yield Recv()


@pytest.mark.parametrize("which", range(len(ERRORS)), ids=[type(error).__name__ for error in ERRORS])
@pytest.mark.parametrize("near", [hears_twice, waits], ids=["both fail", "the far role fails last"])
def test_the_far_role_s_error_comes_out(shared: ProcessRunner, which: int, near: Callable[..., Steps]) -> None:
    with pytest.raises(CapcsimError) as caught:
        go(shared, near, raises, which)
    assert type(caught.value) is type(ERRORS[which])
    assert str(caught.value) == str(ERRORS[which])
    assert {**vars(caught.value), "__notes__": 0} == {**vars(ERRORS[which]), "__notes__": 0}
    assert "in raises" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("far", "says"), [(divides, "ZeroDivisionError"), (is_unlucky, "Unlucky"), (leaves, "SystemExit: I leave")]
)
def test_any_other_error_comes_out_with_its_traceback(
    shared: ProcessRunner, far: Callable[..., Steps], says: str
) -> None:
    with pytest.raises(PeerFailed, match=f"(?s)answering party.*in {far.__name__}\n.*{says}"):
        go(shared, hears_twice, far)
    assert ask(shared, counts) >= 0


def returns_a_lambda() -> Steps:
    return lambda: 0
    yield


def test_what_cannot_be_handed_over_is_said(shared: ProcessRunner) -> None:
    with pytest.raises(InputError, match="cannot be handed to the process of the answering party"):
        shared.place(lambda: 0)
    with pytest.raises(InputError, match="cannot be handed over, only kept there"):
        ask(shared, returns_a_lambda)
    assert isinstance(ask(shared, returns_a_lambda, keep=True), Far)


def test_one_run_at_a_time(shared: ProcessRunner) -> None:
    def nested() -> Steps:
        yield Mark()
        ask(shared, counts)

    with pytest.raises(InputError, match="one run at a time"):
        go(shared, nested, waits)


def sends(count: int) -> Steps:
    for _ in range(count):
        yield Send(b"a message")
    return "done"


def test_a_role_that_ends_too_early_is_named(shared: ProcessRunner) -> None:
    with pytest.raises(PeerFailed, match="querier ended while answerer still sent, or waited"):
        go(shared, idle, waits)
    with pytest.raises(PeerFailed, match="answerer ended while querier still sent, or waited"):
        go(shared, waits, sends, 0)
    with pytest.raises(PeerFailed, match=r"querier ended with 2 message\(s\) unread|querier ended while answerer"):
        go(shared, waits, sends, 3)
    assert go(shared, waits, sends, 1)[0] == (b"a message", "done")


def pours(count: int, nbytes: int) -> Steps:
    for _ in range(count):
        yield Send(bytes(nbytes))
    total = 0
    for _ in range(count):
        total += len((yield Recv()))
    return total


def test_both_roles_send_much_at_once(shared: ProcessRunner) -> None:
    outputs, transcript = shared.run(ROLES, (pours, (3, 50 << 20)), (pours, (3, 50 << 20)), step=Step.INFER)
    assert outputs == (150 << 20, 150 << 20)
    assert sum(node.nbytes for node in transcript if isinstance(node, Message)) == 300 << 20


def works_long(seconds: float) -> Steps:
    yield Send(b"I begin")
    time.sleep(seconds)
    yield Send(b"I have worked")


def own_pid() -> Steps:
    return os.getpid()
    yield


def test_an_error_here_is_raised_at_once_and_the_process_goes_on(shared: ProcessRunner) -> None:
    before = ask(shared, own_pid)

    def fails() -> Steps:
        yield Recv()
        raise ValueError("mine")

    started_s = time.monotonic()
    with pytest.raises(ValueError, match="mine"):
        go(shared, fails, works_long, 1.0)
    assert time.monotonic() - started_s < 0.8
    assert ask(shared, own_pid) == before


@pytest.mark.parametrize("near", [hears_twice, waits], ids=["in the role", "after it"])
def test_an_interruption_here_leaves_both_ready(shared: ProcessRunner, near: Callable[..., Steps]) -> None:
    before = ask(shared, own_pid)
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        go(shared, near, works_long, 0.7)
    assert ask(shared, own_pid) == before
    os.kill(before, signal.SIGINT)  # only the parent decides
    assert ask(shared, own_pid) == before


def test_a_far_role_that_hangs_is_given_up() -> None:
    with contextlib.closing(ProcessRunner("other side", silence_s=0.2)) as impatient:
        with pytest.raises(PeerFailed, match=r"other side was silent for 0\.2 s"):
            go(impatient, hears_twice, works_long, 0.6)
        assert ask(impatient, counts) == 0
