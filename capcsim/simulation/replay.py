"""Replays a transcript on simulated machines and links: every second and byte in it was measured."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import simpy

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.errors import RecordError
from capcsim.simulation.machines import Machine
from capcsim.simulation.network import Link, Network

MEASURE_AGAIN = "its costs were not measured so: begin another run, with --measure"


@dataclass(frozen=True, slots=True)
class Host:
    """Where one participant runs: its machine, and that machine's access links."""

    name: str
    machine: Machine
    up: Link
    down: Link


Shared: TypeAlias = dict[tuple[str, Step, int], simpy.Event]
"""Work that runs once and for which several pairs wait: by group, step, and ordinal in the transcript."""

Ends: TypeAlias = dict[Role, simpy.Event]
"""When each role is through with a transcript: the earliest moment at which it can begin the next one."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a replay belongs to: a querying party's batch, the group of pairs that share work, and the pair's session.

    `once` and `per_batch` hold the work of scope QUERIER and QUERY that has been started already.
    """

    querier: int = 0
    batch: int = 0
    group: str = ""
    session: tuple[int, ...] = ()
    once: Shared = field(default_factory=dict)
    per_batch: Shared = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ComputeRow:
    """One stretch of simulated work."""

    querier: int
    batch: int
    host: str
    machine: str
    core: int
    role: Role
    step: Step
    phase: Phase
    ready_s: float
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One simulated message; `network` is false between two participants on one machine."""

    querier: int
    batch: int
    sender: str
    receiver: str
    network: bool
    step: Step
    phase: Phase
    nbytes: int
    sent_s: float
    received_s: float


@dataclass
class Log:
    """What has happened so far, in the order in which it ended."""

    compute: list[ComputeRow] = field(default_factory=list)
    messages: list[MessageRow] = field(default_factory=list)


class Replayer:
    """Turns transcripts into simulated work and messages, and logs them.

    A node runs as soon as those in its `after` have ended. Each role goes from one transcript to the next
    on its own, as it would in life: it does not wait for the other to be through. A node of scope QUERIER
    or QUERY runs once; the first pair that comes to it gives its duration. `begun` are all nodes that were started.
    """

    def __init__(self, env: simpy.Environment, network: Network) -> None:
        self.env, self.network, self.log = env, network, Log()
        self.begun: list[simpy.Event] = []

    def replay(
        self,
        transcript: Transcript,
        hosts: Mapping[Role, Host],
        place: Place,
        start: Mapping[Role, simpy.Event] | None = None,
    ) -> Ends:
        """Start a transcript; `start` says what each role has to finish first.

        Raises RecordError for a node of a role that has no host here.
        """
        start = start or {}
        for node in transcript:
            for role in (node.role,) if isinstance(node, Compute) else (node.sender, node.receiver):
                if role not in hosts:
                    raise RecordError(f"a transcript of step {node.step} has a node of the {role}; {MEASURE_AGAIN}")
        ordinals = dict.fromkeys(Scope, 0)
        events: list[simpy.Event] = []
        for node in transcript:
            known = {Scope.QUERIER: place.once, Scope.QUERY: place.per_batch, Scope.PAIR: {}}[node.scope]
            key = (place.group, node.step, ordinals[node.scope])
            ordinals[node.scope] += 1
            if key not in known:
                after = [events[index] for index in node.after]
                actor = _actor(node)
                first = all(_actor(transcript[index]) is not actor for index in node.after)
                if node.scope is Scope.PAIR and first and actor in start:
                    after.append(start[actor])
                known[key] = self.env.process(self._run(node, after, hosts, place))
                self.begun.append(known[key])
            events.append(known[key])
        return self._ends(transcript, events, start)

    def _ends(self, transcript: Transcript, events: list[simpy.Event], start: Mapping[Role, simpy.Event]) -> Ends:
        """A role is through when its work is done and what it was sent has come; sent messages are on their way."""
        own: dict[Role, list[simpy.Event]] = {role: [event] for role, event in start.items()}
        for node, event in zip(transcript, events, strict=True):
            own.setdefault(node.role if isinstance(node, Compute) else node.receiver, []).append(event)
        return {role: self.env.all_of(waits) for role, waits in own.items()}

    def _run(
        self, node: Compute | Message, after: list[simpy.Event], hosts: Mapping[Role, Host], place: Place
    ) -> Generator[simpy.Event, Any, None]:
        # Not "yield from": SimPy sends each event's value back in, which a list's iterator does not take.
        for event in after:  # noqa: UP028
            yield event
        ready_s = self.env.now
        if isinstance(node, Compute):
            host = hosts[node.role]
            core, start_s = yield from host.machine.work(node.seconds)
            where = (place.querier, place.batch, host.name, host.machine.name, core, node.role)
            self.log.compute.append(ComputeRow(*where, node.step, node.phase, ready_s, start_s, self.env.now))
            return
        sender, receiver = hosts[node.sender], hosts[node.receiver]
        apart = sender.machine is not receiver.machine
        if apart:
            connection = (place.session, node.sender, node.receiver)
            yield from self.network.send(sender.up, receiver.down, node.nbytes, connection)
        ends = (place.querier, place.batch, sender.name, receiver.name, apart)
        self.log.messages.append(MessageRow(*ends, node.step, node.phase, node.nbytes, ready_s, self.env.now))


def _actor(node: Compute | Message) -> Role:
    """Who does it: the one that computes, or sends."""
    return node.role if isinstance(node, Compute) else node.sender
