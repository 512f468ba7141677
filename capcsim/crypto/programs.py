"""Two-party programs: each role is a generator, written once and run anywhere.

A role yields `Send(payload)`, `Recv()` and `Mark(...)`, and returns its output. It does no input or output
of its own (the thought of the sans-I/O libraries). `run_local` steps both roles in one process and
measures them; the transcript that it makes is what the simulation replays.
"""

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.errors import PeerFailed


@dataclass(frozen=True, slots=True)
class Send:
    """Hand one payload to the other role."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Recv:
    """Wait for the other role's next payload; the yield returns its bytes."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What this role does from here on; None leaves a label as it is."""

    phase: Phase | None = None
    scope: Scope | None = None


Steps: TypeAlias = Generator[Send | Recv | Mark, Any, Any]
"""The type of a role. `Any`, because a Recv is answered with bytes and the rest with None."""

Tap: TypeAlias = Callable[[Role, Role, bytes], None]
"""Called with (sender, receiver, payload) for each message: how tests and the walkthrough look inside."""


class _Seat:
    """One role while it runs: its generator, its inbox, and its labels for what it does next."""

    def __init__(self, role: Role, program: Steps, phase: Phase) -> None:
        self.role, self.program, self.phase = role, program, phase
        self.scope = Scope.PAIR
        self.inbox: deque[tuple[int, bytes]] = deque()
        self.waits_for: tuple[int, ...] = ()
        self.answer: bytes | None = None
        self.waiting = False
        self.done = False
        self.started = False
        self.carried_s = 0.0
        self.output: Any = None


def run_local(
    roles: tuple[Role, Role],
    programs: tuple[Steps, Steps],
    *,
    step: Step,
    phase: Phase = Phase.ONLINE,
    tap: Tap | None = None,
) -> tuple[tuple[Any, Any], Transcript]:
    """Run two roles in lock-step; returns their outputs and the transcript.

    Seconds are CPU time of this thread between yields: a program's kernels must not use other threads.
    Work marked Scope.QUERY is the same for every pair of a query. Raises PeerFailed when both roles wait,
    or when one ends without reading what it was sent.
    """
    seats = (_Seat(roles[0], programs[0], phase), _Seat(roles[1], programs[1], phase))
    nodes: list[Compute | Message] = []
    while not all(seat.done for seat in seats):
        moved = False
        for seat, peer in (seats, seats[::-1]):
            moved |= _advance(seat, peer, nodes, step, tap)
        if not moved:
            waiting = " and ".join(seat.role for seat in seats if not seat.done)
            raise PeerFailed(f"step {step}: {waiting} wait for a message that nobody will send")
    for seat in seats:
        if seat.inbox:
            raise PeerFailed(f"step {step}: {seat.role} ended with {len(seat.inbox)} message(s) unread")
    return (seats[0].output, seats[1].output), tuple(nodes)


def _advance(seat: _Seat, peer: _Seat, nodes: list[Compute | Message], step: Step, tap: Tap | None) -> bool:
    """Run one role until it waits or ends; says whether it moved."""
    if seat.done or (seat.waiting and not seat.inbox):
        return False
    if seat.waiting:
        index, seat.answer = seat.inbox.popleft()
        seat.waits_for += (index,)
        seat.waiting = False
    while not seat.waiting and not seat.done:
        request = _compute(seat, nodes, step)
        match request:
            case Send(payload):
                nodes.append(Message(seat.role, peer.role, len(payload), step, seat.phase, Scope.PAIR, seat.waits_for))
                peer.inbox.append((len(nodes) - 1, payload))
                if tap:
                    tap(seat.role, peer.role, payload)
            case Recv() if seat.inbox:
                index, seat.answer = seat.inbox.popleft()
                seat.waits_for += (index,)
            case Recv():
                seat.waiting = True
            case Mark(phase, scope):
                seat.phase, seat.scope = phase or seat.phase, scope or seat.scope
    return True


def _compute(seat: _Seat, nodes: list[Compute | Message], step: Step) -> Send | Recv | Mark | None:
    """Let a role work up to its next yield and note the CPU time as a node."""
    answer, seat.answer = seat.answer, None
    request: Send | Recv | Mark | None = None
    started_s = time.thread_time()
    try:
        request = seat.program.send(answer)
    except StopIteration as end:
        seat.done, seat.output = True, end.value
    seconds = time.thread_time() - started_s + seat.carried_s
    seat.carried_s = 0.0
    if isinstance(request, Mark) and not seat.started:
        # The first mark labels the start too, so that work shared by all pairs waits for no pair's.
        seat.started, seat.carried_s = True, seconds
        return request
    seat.started = True
    nodes.append(Compute(seat.role, seconds, step, seat.phase, seat.scope, seat.waits_for))
    seat.waits_for = (len(nodes) - 1,)
    return request
