"""Two-party programs: each role is a generator, written once and run anywhere.

A role yields `Send(payload)`, `Recv()` and `Mark(...)`, and returns its output. It does no input or output
of its own (the thought of the sans-I/O libraries). A `RoleDriver` steps one role and notes what it did; `merge`
makes the transcript that the simulation replays out of two such logs. `run_local` steps both roles in one process,
`capcsim.twoparty.channels.run_socket` steps one of them.
"""

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from capcsim.backend import Compute, Message, Phase, Progress, Role, Scope, Step, Tap, Transcript
from capcsim.errors import PeerFailed

MOST_IN_FLIGHT_BYTES = 64 << 20
"""What a role of `run_local` may send ahead of the other: a garbler must not pile up all its tables in memory."""


@dataclass(frozen=True, slots=True)
class Send:
    """Hand one payload to the other role."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Recv:
    """Wait for the other role's next payload; the yield returns its bytes."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What this role does from here on; None leaves a label as it is.

    `done` is the share of this role's work that lies behind it, 0 to 1, for whoever shows progress; it changes
    no label, and a mark without labels leaves no trace in the transcript.
    """

    phase: Phase | None = None
    scope: Scope | None = None
    done: float | None = None


Steps: TypeAlias = Generator[Send | Recv | Mark, Any, Any]
"""The type of a role. `Any`, because a Recv is answered with bytes and the rest with None."""


@dataclass(frozen=True, slots=True)
class Work:
    """A stretch of work, in CPU seconds of the role's thread."""

    seconds: float
    phase: Phase
    scope: Scope


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of so many bytes left; `receiver` says to whom, where there are more than two roles.

    One that is `granted` leaves when the receiver's next Grant has come, while its sender goes on.
    """

    nbytes: int
    phase: Phase
    receiver: Role | None = None
    granted: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """A message left that says "I am ready for yours", as libraries with a rendezvous send it."""

    nbytes: int
    phase: Phase
    receiver: Role | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """The next message was taken; `sender` says whose, where there are more than two roles.

    With `grant` it was the next Grant, for which this role waited.
    """

    sender: Role | None = None
    grant: bool = False


RoleLog: TypeAlias = list[Work | Sent | Grant | Received]
"""What one role did, in order. The n-th Received of a role from another is that one's n-th Sent to it; and so are
grants, counted by themselves.
"""


class RoleDriver:
    """Steps one role and writes its log; whoever owns it moves the messages.

    Seconds are CPU time of the calling thread between yields: a program's kernels must not use other threads.
    """

    def __init__(
        self, program: Steps, phase: Phase = Phase.ONLINE, log: RoleLog | None = None, progress: Progress | None = None
    ) -> None:
        self.log: RoleLog = [] if log is None else log
        self.ended = False
        self.output: Any = None
        self._program, self._progress = program, progress
        self._phase, self._scope = phase, Scope.PAIR
        self._answer: bytes | None = None
        self._started = False
        self._seconds = 0.0

    def resume(self) -> Send | Recv | None:
        """Let the role work until it sends or waits, and say which; None when it ended. Marks are honoured here."""
        while isinstance(request := self._step(), Mark):
            self._mark(request)
        self._note_work()
        self._started = True
        if isinstance(request, Send):
            self.log.append(Sent(len(request.payload), self._phase))
        return request

    def take(self, payload: bytes) -> None:
        """Answer the Recv that `resume` returned."""
        self._answer = payload
        self.log.append(Received())

    def _step(self) -> Send | Recv | Mark | None:
        answer, self._answer = self._answer, None
        request: Send | Recv | Mark | None = None
        started_s = time.thread_time()
        try:
            request = self._program.send(answer)
        except StopIteration as end:
            self.ended, self.output = True, end.value
        self._seconds += time.thread_time() - started_s
        return request

    def _mark(self, mark: Mark) -> None:
        if mark.phase is not None or mark.scope is not None:
            # The first mark labels the start too, so that work shared by all pairs waits for no pair's.
            if self._started:
                self._note_work()
            self._started = True
            self._phase, self._scope = mark.phase or self._phase, mark.scope or self._scope
        if mark.done is not None and self._progress:
            self._progress(mark.done)

    def _note_work(self) -> None:
        self.log.append(Work(self._seconds, self._phase, self._scope))
        self._seconds = 0.0


class _Seat:
    """One role of `run_local` while it runs: its inbox, and how many bytes it sent that the other has not taken."""

    def __init__(self, role: Role, driver: RoleDriver) -> None:
        self.role, self.driver = role, driver
        self.inbox: deque[bytes] = deque()
        self.in_flight_bytes = 0
        self.waiting = False


def run_local(
    roles: tuple[Role, Role],
    programs: tuple[Steps, Steps],
    *,
    step: Step,
    phase: Phase = Phase.ONLINE,
    tap: Tap | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[Any, Any], Transcript]:
    """Run two roles in turns; returns their outputs and the transcript.

    Seconds are CPU time of this thread between yields: a program's kernels must not use other threads.
    Work marked Scope.QUERY is the same for every pair of a query. A role that is MOST_IN_FLIGHT_BYTES ahead pauses
    until the other has taken them, or can do nothing else. `progress` gets the larger of both roles' shares, each
    time that it grows. Raises PeerFailed when both roles wait, or when one ends without reading what it was sent.
    """
    report = _furthest(progress) if progress else None
    drivers = [RoleDriver(program, phase, progress=report) for program in programs]
    first, second = (_Seat(role, driver) for role, driver in zip(roles, drivers, strict=True))
    while not (first.driver.ended and second.driver.ended):
        # Forced only when neither moves: both are far ahead of each other, or one is and the other has ended.
        if not any(_advance_both(first, second, tap, forced=forced) for forced in (False, True)):
            waiting = " and ".join(seat.role for seat in (first, second) if not seat.driver.ended)
            raise PeerFailed(f"step {step}: {waiting} wait for a message that nobody will send")
    transcript = merge(roles, (first.driver.log, second.driver.log), step)
    return (first.driver.output, second.driver.output), transcript


def _furthest(progress: Progress) -> Progress:
    """Passes on only what is more than before."""
    most = -1.0

    def report(done: float) -> None:
        nonlocal most
        if done > most:
            most = done
            progress(done)

    return report


def _advance_both(first: _Seat, second: _Seat, tap: Tap | None, *, forced: bool) -> bool:
    moved = _advance(first, second, tap, forced=forced)
    return _advance(second, first, tap, forced=forced) or moved


def _advance(seat: _Seat, peer: _Seat, tap: Tap | None, *, forced: bool) -> bool:
    """Run one role until it waits, is too far ahead (forced: goes one step all the same) or ends; did it move?"""
    moved = False
    while not seat.driver.ended:
        if seat.waiting:
            if not seat.inbox:
                break
            payload = seat.inbox.popleft()
            peer.in_flight_bytes -= len(payload)
            seat.driver.take(payload)
            seat.waiting = False
        elif seat.in_flight_bytes > MOST_IN_FLIGHT_BYTES and not forced:
            break
        request = seat.driver.resume()
        moved, forced = True, False
        if isinstance(request, Send):
            seat.in_flight_bytes += len(request.payload)
            peer.inbox.append(request.payload)
            if tap:
                tap(seat.role, peer.role, request.payload)
        seat.waiting = isinstance(request, Recv)
    return moved


class _Line:
    """One role's log while it is laid out as nodes: how far it is, and what its next node waits for.

    `messages` and `grants` are the nodes of what it has sent and not been taken yet, by the other role.
    """

    def __init__(self, role: Role, others: Sequence[Role], log: RoleLog) -> None:
        self.role, self.log, self.next = role, log, 0
        self.only_peer = others[0]
        self.messages: dict[Role, deque[int]] = {other: deque() for other in others}
        self.grants: dict[Role, deque[int]] = {other: deque() for other in others}
        self.after: tuple[int, ...] = ()


def merge(roles: Sequence[Role], logs: Sequence[RoleLog], step: Step) -> Transcript:
    """The transcript of the logs of two roles or more; the same whoever ran them, and where.

    A role's work waits for its previous work and for what it received since; so does what it sends, and for a Grant
    if it is granted. Raises PeerFailed for a message that was not read, or logs that do not belong together.
    """
    lines = {
        role: _Line(role, [other for other in roles if other is not role], log)
        for role, log in zip(roles, logs, strict=True)
    }
    nodes: list[Compute | Message] = []
    while any(line.next < len(line.log) for line in lines.values()):
        before = sum(line.next for line in lines.values())
        for line in lines.values():
            _lay(line, lines, nodes, step)
        if sum(line.next for line in lines.values()) == before:
            raise PeerFailed(f"step {step}: the logs of {' and '.join(roles)} do not belong together")
    for line in lines.values():
        peers = [peer for peer in lines.values() if peer is not line]
        if unread := sum(len(peer.messages[line.role]) + len(peer.grants[line.role]) for peer in peers):
            raise PeerFailed(f"step {step}: {line.role} ended with {unread} message(s) unread")
    return tuple(nodes)


def _lay(line: _Line, lines: Mapping[Role, _Line], nodes: list[Compute | Message], step: Step) -> None:
    """Append one role's nodes, up to a message that another has yet to send."""
    while line.next < len(line.log):
        match line.log[line.next]:
            case Work(seconds, phase, scope):
                nodes.append(Compute(line.role, seconds, step, phase, scope, line.after))
                line.after = (len(nodes) - 1,)
            case Sent(nbytes, phase, receiver, granted):
                peer = receiver or line.only_peer
                grants = lines[peer].grants[line.role]
                if granted and not grants:
                    return
                after = (*line.after, grants.popleft()) if granted else line.after
                line.messages[peer].append(len(nodes))
                nodes.append(Message(line.role, peer, nbytes, step, phase, Scope.PAIR, after))
            case Grant(nbytes, phase, receiver):
                peer = receiver or line.only_peer
                line.grants[peer].append(len(nodes))
                nodes.append(Message(line.role, peer, nbytes, step, phase, Scope.PAIR, line.after))
            case Received(sender, grant):
                other = lines[sender or line.only_peer]
                there = (other.grants if grant else other.messages)[line.role]
                if not there:
                    return
                line.after += (there.popleft(),)
        line.next += 1


def chained(*transcripts: Transcript) -> Transcript:
    """One transcript of several that ran one after the other: each role's first node waits for its last one before."""
    nodes: list[Compute | Message] = []
    for transcript in transcripts:
        first = len(nodes)
        last = {_doer(node): i for i, node in enumerate(nodes)}
        for node in transcript:
            after = tuple(first + i for i in node.after)
            if not after and _doer(node) in last:
                after = (last[_doer(node)],)
            nodes.append(replace(node, after=after))
    return tuple(nodes)


def _doer(node: Compute | Message) -> Role:
    return node.role if isinstance(node, Compute) else node.sender
