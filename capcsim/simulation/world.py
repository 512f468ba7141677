"""The simulated world: parties, guardian, machines and links, and the run of the protocol over them.

Answering parties work in parallel; the querying parties' and the guardian's cores and links are contended.
At simulated step 2 the guardian fixes the counted set, and only then is the label computed: who is late or
missing changes labels as it would in life.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from capcsim.backend import Role, Step, Transcript
from capcsim.errors import RecordError
from capcsim.protocol import Collaboration, Voter
from capcsim.scenario import Access, Scenario
from capcsim.scenario import Machine as MachineSize
from capcsim.seeds import Seeds
from capcsim.simulation.machines import Machine
from capcsim.simulation.network import Link, Network
from capcsim.simulation.replay import MEASURE_AGAIN, Ends, Host, Log, Place, Replayer, Shared

UNANSWERED = "unanswered: its largest count with noise stayed below the threshold"


class Costs(Protocol):
    """Where the world gets transcripts from, by querying party, batch number and batch size."""

    def setup(self, querier: int, voter: Voter | None) -> Transcript:
        """Keys and base transfers of one pair; None is the guardian."""

    def pair(self, step: Step, querier: int, batch: int, size: int, voter: Voter) -> Transcript:
        """Infer, argmax or (step 2) the handing in of a share, of one pair."""

    def count(self, querier: int, batch: int, size: int) -> Transcript:
        """Step 2 between the guardian and the querying party."""

    def release(self, querier: int, batch: int, size: int) -> Transcript:
        """Step 3."""

    def group(self, voter: Voter | None) -> str:
        """Pairs of one group share the work of scopes QUERIER and QUERY; None is the guardian."""


@dataclass(frozen=True, slots=True)
class QueryRow:
    """What became of one query; `label` is -1 where none was released, and `why` then says why.

    `declined` is the number of voters whose parties declined it.
    """

    querier: int
    query: int
    batch: int
    label: int
    counted: tuple[int, ...]
    submitted_s: float
    labelled_s: float
    why: str
    declined: int


@dataclass(frozen=True, slots=True)
class Simulated:
    """All that came out of the world.

    The makespan ends with the last label. Utilisation, by link and by core up to a machine's highest that worked, is a
    share of the time until all work has ended, late answers included.
    """

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


@dataclass(frozen=True, slots=True)
class _Batch:
    """Queries of one querying party that travel together, and the voters whose shares came in."""

    querier: int
    number: int
    queries: range
    submitted_s: float
    counted: tuple[int, ...] = ()


class World:
    """One simulation; `run` it once for every round of queries.

    `queries[q]` is how many queries querying party q wants to ask in all rounds so far. It sends a batch only when
    its account can pay for every label in it besides those under way, so that nobody works for a label that would be
    refused. Work of phase OFFLINE runs with its batch. `labelled` is called with each batch's number of opened queries.
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
        self._parties, self._services = _hosts(self._env, scenario)
        self._once: list[Shared] = [{} for _ in queries]
        self._asked, self._sent = [0] * len(queries), [0] * len(queries)
        self._changed: set[int] | None = None
        self._under_way: Counter[str] = Counter()
        self._ended: dict[str, simpy.Event] = {}
        self._rows: list[QueryRow] = []
        self._stopped: dict[int, str] = {}

    def run(self) -> Simulated:
        """Run until every querying party has asked all it may, and until what was late has ended too.

        Times, queries and work are those of all rounds so far.
        """
        self._env.run(self._env.all_of([self._env.process(self._ask(q)) for q in range(len(self._queries))]))
        makespan_s = float(self._env.now)
        self._env.run()
        return self._result(makespan_s)

    def next_round(self, costs: Costs, queries: list[int], changed: Iterable[int]) -> None:
        """What the next `run` costs and asks; the voters that `changed` their models are set up again.

        A round begins when all of the one before has ended, late answers too; retraining takes no simulated time.
        """
        self._costs, self._queries, self._changed = costs, queries, set(changed)

    def _ask(self, querier: int) -> Generator[simpy.Event, Any, None]:
        """A querying party: set up, then send its batches with a bounded number under way."""
        window = simpy.Resource(self._env, capacity=self._scenario.queries.in_flight)
        if self._asked[querier] < self._queries[querier]:
            yield self._set_up(querier)
        sent: list[simpy.Event] = []
        while self._asked[querier] < self._queries[querier]:
            turn = window.request()
            yield turn
            asked = self._asked[querier]
            size = yield from self._affordable_batch(querier, self._queries[querier] - asked)
            if size == 0:
                break
            batch = _Batch(querier, self._sent[querier], range(asked, asked + size), self._env.now)
            sent.append(self._env.process(self._run_batch(batch, window, turn)))
            self._sent[querier] += 1
            self._asked[querier] += size
        yield self._env.all_of(sent)

    def _affordable_batch(self, querier: int, left: int) -> Generator[simpy.Event, Any, int]:
        """The size of the next batch; 0 when the budget is spent.

        Where labels under way could still go without a charge, for lack of a quorum, it waits for them.
        """
        account = self._collaboration.ledger.account(querier)
        wanted = min(left, self._scenario.queries.batch)
        while True:
            under_way = self._under_way[account]
            size = min(wanted, self._collaboration.affordable(querier, under_way + wanted) - under_way)
            if size > 0:
                self._under_way[account] += size
                return size
            if not under_way:
                self._stopped[querier] = self._collaboration.refusal(querier)
                return 0
            yield self._ended.setdefault(account, self._env.event())

    def _set_up(self, querier: int) -> simpy.Event:
        """Keys and base transfers with everybody, the guardian too; the event that all of it is done.

        In a later round, where a session belongs to a model, only with those whose model has changed.
        """
        everybody: list[Voter | None] = [None, *self._collaboration.answering(querier)]
        if self._changed is not None and self._sent[querier]:
            everybody = [voter for voter in everybody if voter is not None and voter.index in self._changed]
        ends = [
            self._replayer.replay(
                self._costs.setup(querier, voter),
                self._hosts_of(querier, voter),
                Place(querier, -1, self._costs.group(voter), self._once[querier]),
            )
            for voter in everybody
        ]
        return self._env.all_of([event for roles in ends for event in roles.values()])

    def _run_batch(self, batch: _Batch, window: simpy.Resource, turn: Any) -> Generator[simpy.Event, Any, None]:
        """Steps 1a to 3 for one batch."""
        pairs = self._start_pairs(batch)
        counted = yield from self._wait_for_shares(batch, pairs)
        batch = replace(batch, counted=counted)
        answering = len(self._agreeing(batch))
        account = self._collaboration.ledger.account(batch.querier)
        # From here on each label is either settled or lost, in this same instant: it must not count twice.
        self._under_way[account] -= len(batch.queries)
        # A billionth less, so that 0.56 of 25 is 14 votes in floating point too.
        if len(counted) < max(1, ceil(self._scenario.protocol.quorum * answering - 1e-9)):
            why = f"{len(counted)} of {answering} votes had arrived by the deadline: no quorum"
            self._note(batch, [-1] * len(batch.queries), [why] * len(batch.queries))
        else:
            yield from self._open_label(batch, [pairs[voter] for voter in counted])
        window.release(turn)
        if account in self._ended:
            self._ended.pop(account).succeed()

    def _start_pairs(self, batch: _Batch) -> dict[int, Ends]:
        """Let every party that is there answer: infer, argmax, hand the share in. By voter, when each role ends."""
        dropped, per_batch = self._lost(batch, "drop", self._scenario.faults.drop_probability), Shared()
        pairs: dict[int, Ends] = {}
        for voter in self._agreeing(batch):
            if voter.party in dropped:
                continue
            ends, hosts, group = Ends(), self._hosts_of(batch.querier, voter), self._costs.group(voter)
            place = Place(batch.querier, batch.number, group, self._once[batch.querier], per_batch)
            for step in (Step.INFER, Step.ARGMAX, Step.AGGREGATE):
                transcript = self._costs.pair(step, batch.querier, batch.number, len(batch.queries), voter)
                ends = self._replayer.replay(transcript, hosts, place, ends)
            if Role.GUARDIAN not in ends:
                raise RecordError(f"the transcripts of voter {voter.index} hand the guardian no share; {MEASURE_AGAIN}")
            pairs[voter.index] = ends
        return pairs

    def _wait_for_shares(self, batch: _Batch, pairs: dict[int, Ends]) -> Generator[simpy.Event, Any, tuple[int, ...]]:
        """The guardian's part of step 2: the voters whose shares it has when it stops waiting."""
        everybody = self._env.all_of([ends[Role.GUARDIAN] for ends in pairs.values()])
        deadline_s = self._scenario.protocol.deadline_s
        if deadline_s is None:
            yield everybody
        else:
            timer = self._env.timeout(deadline_s)
            # It cannot know that a silent party is gone: it waits until the time is up.
            complete = len(pairs) == len(self._agreeing(batch))
            yield self._env.any_of([everybody, timer]) if complete else timer
        return tuple(sorted(voter for voter, ends in pairs.items() if ends[Role.GUARDIAN].triggered))

    def _open_label(self, batch: _Batch, before: list[Ends]) -> Generator[simpy.Event, Any, None]:
        """Step 2 for the counted set, then step 3; `before` is what both sides must have finished."""
        querier, number, size = batch.querier, batch.number, len(batch.queries)
        aggregate = self._collaboration.aggregate(querier, batch.queries, batch.counted)
        if aggregate.opened.any():
            hosts = self._hosts_of(querier, None)
            place = Place(querier, number, self._costs.group(None), self._once[querier])
            # A party that had no part in a pair has nothing to finish.
            ready = {
                role: self._env.all_of([ends[role] for ends in before if role in ends])
                for role in (Role.QUERIER, Role.GUARDIAN)
            }
            ends = self._replayer.replay(self._costs.count(querier, number, size), hosts, place, ready)
            ends = self._replayer.replay(self._costs.release(querier, number, size), hosts, place, ends)
            yield ends[Role.QUERIER]
        labels = [int(label) for label in aggregate.labels]
        self._note(batch, labels, [UNANSWERED if opened else aggregate.refusal for opened in aggregate.opened])
        self._labelled(int(aggregate.opened.sum()))

    def _note(self, batch: _Batch, labels: list[int], whys: list[str]) -> None:
        declined = len(self._collaboration.answering(batch.querier)) - len(self._agreeing(batch))
        for query, label, why in zip(batch.queries, labels, whys, strict=True):
            row = (batch.querier, query, batch.number, label, batch.counted, batch.submitted_s, self._env.now)
            self._rows.append(QueryRow(*row, why if label < 0 else "", declined))

    def _agreeing(self, batch: _Batch) -> list[Voter]:
        """The voters that nobody has to wait for in vain: a party that declines a batch leaves the counted set."""
        declining = self._lost(batch, "decline", self._scenario.faults.decline_probability)
        return [voter for voter in self._collaboration.answering(batch.querier) if voter.party not in declining]

    def _lost(self, batch: _Batch, fault: str, probability: float) -> set[int]:
        """The parties that this fault befalls in this batch."""
        generator = self._seeds.generator(fault, batch.querier, batch.number)
        lost = generator.random(self._scenario.parties.count) < probability
        return {int(party) for party in np.flatnonzero(lost)}

    def _hosts_of(self, querier: int, voter: Voter | None) -> dict[Role, Host]:
        hosts = {Role.QUERIER: self._parties[querier], **self._services}
        if voter is not None:
            hosts[Role.ANSWERER] = self._parties[voter.party]
        return hosts

    def _result(self, makespan_s: float) -> Simulated:
        log = self._replayer.log
        dealt = any(row.role is Role.DEALER for row in log.compute)
        services = [host for role, host in self._services.items() if role is not Role.DEALER or dealt]
        hosts = [*self._parties, *services]
        machines = {host.machine.name: host.machine for host in hosts}
        links = {link.name: link for host in hosts for link in (host.up, host.down)}
        sent: dict[str, int] = dict.fromkeys((host.name for host in hosts), 0)
        for message in log.messages:
            sent[message.sender] += message.nbytes * message.network
        last_s = max((row.end_s for row in log.compute), default=0.0)
        last_s = max([makespan_s, last_s, *(row.received_s for row in log.messages)])
        span_s = last_s or 1.0
        return Simulated(
            queries=sorted(self._rows, key=lambda row: (row.querier, row.query)),
            log=log,
            makespan_s=makespan_s,
            core_utilisation={
                f"{name}, core {core}": busy_s / span_s
                for name, machine in machines.items()
                for core, busy_s in enumerate(machine.busy_s)
            },
            link_utilisation={name: 8 * link.carried_bytes / (link.bps * span_s) for name, link in links.items()},
            sent_bytes=sent,
            core_s=sum(sum(machine.busy_s) for machine in machines.values()),
            stopped=self._stopped,
        )


def batches(queries: int, size: int) -> list[range]:
    """The numbers of the queries in each batch; the last may be smaller."""
    return [range(start, min(start + size, queries)) for start in range(0, queries, size)]


def _hosts(env: simpy.Environment, scenario: Scenario) -> tuple[list[Host], dict[Role, Host]]:
    """The parties, several on a machine if the scenario says so; the guardian, and a dealer for who needs one."""
    together, machines, network = scenario.machines.parties_per_machine, scenario.machines, scenario.network
    parties: list[Host] = []
    for first in range(0, scenario.parties.count, together):
        names = [f"party {party}" for party in range(first, min(first + together, scenario.parties.count))]
        label = names[0] if together == 1 else f"machine {first // together}"
        parties += _machine_with(env, label, names, machines.party, network.party)
    return parties, {
        role: _machine_with(env, role, [role], machines.guardian, network.guardian)[0]
        for role in (Role.GUARDIAN, Role.DEALER)
    }


def _machine_with(
    env: simpy.Environment, label: str, participants: list[str], size: MachineSize, access: Access
) -> list[Host]:
    """One machine with its access links, and the participants on it."""
    machine = Machine(env, label, size.cores, size.speed)
    up, down = Link(f"{label} up", access.up_bps), Link(f"{label} down", access.down_bps)
    return [Host(name, machine, up, down) for name in participants]
