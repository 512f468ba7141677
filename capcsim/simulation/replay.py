"""Replays a transcript on simulated machines and links: every second and byte in it was measured."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import simpy

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.simulation.machines import Machine
from capcsim.simulation.network import Link, Network


@dataclass(frozen=True, slots=True)
class Host:
    """Where one participant runs: its machine, and that machine's access links."""

    name: str
    machine: Machine
    up: Link
    down: Link


Shared: TypeAlias = dict[tuple[Scope, int], simpy.Event]
"""Work that several pairs wait for and that runs once, by scope and its ordinal in the transcript."""


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
    """One simulated message."""

    querier: int
    batch: int
    sender: str
    receiver: str
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

    Nodes of one pair run as soon as those in their `after` have ended. A node of scope QUERIER or QUERY
    runs once among all the transcripts replayed with the same `shared`; the first one gives its duration.
    """

    def __init__(self, env: simpy.Environment, network: Network) -> None:
        self.env, self.network, self.log = env, network, Log()

    def replay(
        self,
        transcript: Transcript,
        hosts: Mapping[Role, Host],
        *,
        querier: int = 0,
        batch: int = 0,
        shared: Shared | None = None,
    ) -> simpy.Event:
        """Start a transcript now; the event comes when its last node has ended."""
        shared = {} if shared is None else shared
        ordinals = dict.fromkeys(Scope, 0)
        events: list[simpy.Event] = []
        for node in transcript:
            key = (node.scope, ordinals[node.scope])
            ordinals[node.scope] += 1
            if node.scope is not Scope.PAIR and key in shared:
                events.append(shared[key])
                continue
            after = [events[index] for index in node.after]
            event: simpy.Event = self.env.process(self._run(node, after, hosts, querier, batch))
            events.append(event)
            if node.scope is not Scope.PAIR:
                shared[key] = event
        return self.env.all_of(events)

    def _run(
        self,
        node: Compute | Message,
        after: list[simpy.Event],
        hosts: Mapping[Role, Host],
        querier: int,
        batch: int,
    ) -> Generator[simpy.Event, Any, None]:
        yield from after
        ready_s = self.env.now
        if isinstance(node, Compute):
            host = hosts[node.role]
            core, start_s = yield from host.machine.work(node.seconds)
            work = (node.role, node.step, node.phase, ready_s, start_s, self.env.now)
            self.log.compute.append(ComputeRow(querier, batch, host.name, host.machine.name, core, *work))
            return
        sender, receiver = hosts[node.sender], hosts[node.receiver]
        # Two participants on one machine need no network.
        if sender.machine is not receiver.machine:
            yield from self.network.send(sender.up, receiver.down, node.nbytes)
        row = (node.step, node.phase, node.nbytes, ready_s, self.env.now)
        self.log.messages.append(MessageRow(querier, batch, sender.name, receiver.name, *row))
