"""The simulated world: parties, guardian, machines and links, and the run of the protocol over them.

Answering parties work in parallel; the querying parties' and the guardian's cores and links are contended.
At simulated step 2 the guardian fixes the counted set, and only then is the label computed: who is late or
missing changes labels as it would in life.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from capcsim.backend import Role, Step, Transcript
from capcsim.protocol import Collaboration, Voter
from capcsim.scenario import Access, Scenario
from capcsim.scenario import Machine as MachineSize
from capcsim.seeds import Seeds
from capcsim.simulation.machines import Machine
from capcsim.simulation.network import Link, Network
from capcsim.simulation.replay import Host, Log, Replayer, Shared


class Costs(Protocol):
    """Where the world gets transcripts from; each call may be answered by another measured sample."""

    def setup(self, querier: int, voter: Voter | None) -> Transcript:
        """Keys and base transfers of one pair; None is the guardian."""

    def pair(self, step: Step, querier: int, batch: int, voter: Voter) -> Transcript:
        """Infer, argmax or (step 2) the handing in of a share, of one pair and batch."""

    def count(self, querier: int, batch: int) -> Transcript:
        """Step 2 between the guardian and the querying party."""

    def release(self, querier: int, batch: int) -> Transcript:
        """Step 3."""

    def group(self, voter: Voter) -> str:
        """Voters of one group share the work of scope QUERY."""


@dataclass(frozen=True, slots=True)
class QueryRow:
    """What became of one query; `label` is -1 where none was released, and `why` then says why."""

    querier: int
    query: int
    batch: int
    label: int
    counted: tuple[int, ...]
    submitted_s: float
    labelled_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Simulated:
    """All that came out of the world. Utilisation is a share of the makespan, by core and by link."""

    queries: list[QueryRow]
    log: Log
    makespan_s: float
    core_utilisation: dict[str, float]
    link_utilisation: dict[str, float]
    sent_bytes: dict[str, int]
    core_s: float
    stopped: dict[int, str]

    def bought(self, querier: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of a querying party's labelled queries, and their labels; both int64[n]."""
        rows = [row for row in self.queries if row.querier == querier and row.label >= 0]
        queries, labels = [row.query for row in rows], [row.label for row in rows]
        return np.array(queries, np.int64), np.array(labels, np.int64)


class World:
    """One simulation; `run` it once.

    `queries[q]` is how many queries querying party q asks. `labelled` is called with each batch's number of
    new labels.
    """

    def __init__(
        self,
        scenario: Scenario,
        collaboration: Collaboration,
        costs: Costs,
        queries: list[int],
        seeds: Seeds,
        labelled: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._scenario, self._collaboration, self._costs = scenario, collaboration, costs
        self._queries, self._seeds, self._labelled = queries, seeds, labelled
        self._env = simpy.Environment()
        self._replayer = Replayer(self._env, Network(self._env, scenario.network.latency_s))
        self._parties, self._guardian = _hosts(self._env, scenario)
        self._rows: list[QueryRow] = []
        self._stopped: dict[int, str] = {}

    def run(self) -> Simulated:
        """Run until every querying party has asked all it may."""
        self._env.run(self._env.all_of([self._env.process(self._ask(q)) for q in range(len(self._queries))]))
        return self._result()

    def _ask(self, querier: int) -> Generator[simpy.Event, Any, None]:
        """A querying party: set up, then send its batches with a bounded number under way."""
        if not self._queries[querier]:
            return
        yield self._set_up(querier)
        window = simpy.Resource(self._env, capacity=self._scenario.queries.in_flight)
        under_way = []
        for number, batch in enumerate(batches(self._queries[querier], self._scenario.queries.batch)):
            turn = window.request()
            yield turn
            if querier in self._stopped:
                break
            under_way.append(self._env.process(self._batch(querier, number, batch, window, turn)))
        yield self._env.all_of(under_way)

    def _set_up(self, querier: int) -> simpy.Event:
        shared: Shared = {}
        everybody: list[Voter | None] = [None, *self._collaboration.answering(querier)]
        return self._env.all_of(
            [
                self._replayer.replay(
                    self._costs.setup(querier, voter),
                    self._hosts_of(querier, voter),
                    querier=querier,
                    batch=-1,
                    shared=shared,
                )
                for voter in everybody
            ]
        )

    def _batch(
        self, querier: int, number: int, queries: range, window: simpy.Resource, turn: Any
    ) -> Generator[simpy.Event, Any, None]:
        """Steps 1a to 3 for one batch."""
        submitted_s = self._env.now
        arrived: list[int] = []
        pairs = self._start_pairs(querier, number, arrived)
        answering = self._collaboration.answering(querier)
        deadline_s = self._scenario.protocol.deadline_s
        everybody = self._env.all_of(pairs)
        if deadline_s is None:
            yield everybody
        else:
            complete = len(pairs) == len(answering)
            timer = self._env.timeout(deadline_s)
            # The guardian cannot know that a silent party is gone: it waits until its time is up.
            yield self._env.any_of([everybody, timer]) if complete else timer
        counted = tuple(sorted(arrived))
        if len(counted) < max(1, self._scenario.protocol.quorum * len(answering)):
            why = f"{len(counted)} of {len(answering)} votes had arrived after {deadline_s:g} s: no quorum"
            self._note(querier, queries, number, [-1] * len(queries), counted, submitted_s, why)
        else:
            yield from self._open_label(querier, number, queries, counted, submitted_s)
        window.release(turn)

    def _start_pairs(self, querier: int, number: int, arrived: list[int]) -> list[simpy.Event]:
        """Let every party that is there answer; `arrived` fills with the voters whose share came in."""
        dropped = self._dropped(querier, number)
        shared: dict[tuple[Step, str], Shared] = {}
        return [
            self._env.process(self._pair(querier, number, voter, shared, arrived))
            for voter in self._collaboration.answering(querier)
            if voter.party not in dropped
        ]

    def _pair(
        self,
        querier: int,
        number: int,
        voter: Voter,
        shared: dict[tuple[Step, str], Shared],
        arrived: list[int],
    ) -> Generator[simpy.Event, Any, None]:
        """Steps 1a to 2 of one pair: infer, argmax, hand the share in to the guardian."""
        hosts = self._hosts_of(querier, voter)
        for step in (Step.INFER, Step.ARGMAX, Step.AGGREGATE):
            yield self._replayer.replay(
                self._costs.pair(step, querier, number, voter),
                hosts,
                querier=querier,
                batch=number,
                shared=shared.setdefault((step, self._costs.group(voter)), {}),
            )
        arrived.append(voter.index)

    def _open_label(
        self, querier: int, number: int, queries: range, counted: tuple[int, ...], submitted_s: float
    ) -> Generator[simpy.Event, Any, None]:
        """Step 2 for the counted set, then step 3."""
        hosts = self._hosts_of(querier, None)
        aggregate = self._collaboration.aggregate(querier, queries, counted)
        if (aggregate.labels >= 0).any():
            yield self._replayer.replay(self._costs.count(querier, number), hosts, querier=querier, batch=number)
            yield self._replayer.replay(self._costs.release(querier, number), hosts, querier=querier, batch=number)
        if aggregate.refusal:
            self._stopped.setdefault(querier, aggregate.refusal)
        labels = [int(label) for label in aggregate.labels]
        self._note(querier, queries, number, labels, counted, submitted_s, aggregate.refusal)
        self._labelled(sum(label >= 0 for label in labels))

    def _note(
        self,
        querier: int,
        queries: range,
        batch: int,
        labels: list[int],
        counted: tuple[int, ...],
        submitted_s: float,
        why: str,
    ) -> None:
        for query, label in zip(queries, labels, strict=True):
            reason = why if label < 0 else ""
            self._rows.append(QueryRow(querier, query, batch, label, counted, submitted_s, self._env.now, reason))

    def _dropped(self, querier: int, number: int) -> set[int]:
        """The parties that do not answer this batch."""
        generator = self._seeds.generator("drop", querier, number)
        lost = generator.random(self._scenario.parties.count) < self._scenario.faults.drop_probability
        return {int(party) for party in np.flatnonzero(lost)}

    def _hosts_of(self, querier: int, voter: Voter | None) -> dict[Role, Host]:
        hosts = {Role.QUERIER: self._parties[querier], Role.GUARDIAN: self._guardian}
        if voter is not None:
            hosts[Role.ANSWERER] = self._parties[voter.party]
        return hosts

    def _result(self) -> Simulated:
        hosts = [*self._parties, self._guardian]
        machines = {host.machine.name: host.machine for host in hosts}
        links = {link.name: link for host in hosts for link in (host.up, host.down)}
        makespan_s = max(float(self._env.now), 1e-12)
        sent: dict[str, int] = dict.fromkeys((host.name for host in hosts), 0)
        for message in self._replayer.log.messages:
            sent[message.sender] += message.nbytes
        return Simulated(
            queries=sorted(self._rows, key=lambda row: (row.querier, row.query)),
            log=self._replayer.log,
            makespan_s=makespan_s,
            core_utilisation={
                f"{name}, core {core}": busy_s / makespan_s
                for name, machine in machines.items()
                for core, busy_s in enumerate(machine.busy_s)
            },
            link_utilisation={name: 8 * link.carried_bytes / (link.bps * makespan_s) for name, link in links.items()},
            sent_bytes=sent,
            core_s=sum(sum(machine.busy_s) for machine in machines.values()),
            stopped=self._stopped,
        )


def batches(queries: int, size: int) -> list[range]:
    """The numbers of the queries in each batch; the last may be smaller."""
    return [range(start, min(start + size, queries)) for start in range(0, queries, size)]


def _hosts(env: simpy.Environment, scenario: Scenario) -> tuple[list[Host], Host]:
    """The parties, several on a machine if the scenario says so, and the guardian on its own."""
    together = scenario.machines.parties_per_machine
    parties: list[Host] = []
    for first in range(0, scenario.parties.count, together):
        names = [f"party {party}" for party in range(first, min(first + together, scenario.parties.count))]
        label = names[0] if together == 1 else f"machine {first // together}"
        parties += _machine_with(env, label, names, scenario.machines.party, scenario.network.party)
    machine, access = scenario.machines.guardian, scenario.network.guardian
    return parties, _machine_with(env, "guardian", ["guardian"], machine, access)[0]


def _machine_with(
    env: simpy.Environment, label: str, participants: list[str], size: MachineSize, access: Access
) -> list[Host]:
    """One machine with its access links, and the participants on it."""
    machine = Machine(env, label, size.cores, size.speed)
    up, down = Link(f"{label} up", access.up_bps), Link(f"{label} down", access.down_bps)
    return [Host(name, machine, up, down) for name in participants]
