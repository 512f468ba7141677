"""The simulated world: it lets the flow's commands take simulated time on machines and links.

Answering parties work in parallel; the querying parties' and the guardian's cores and links are contended.
At simulated step 2 the guardian fixes the counted set, and only then is the label computed: who is late or
missing changes labels as it would in life.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import simpy
from numpy.typing import NDArray

from capcsim.backend import Role, Step, Transcript
from capcsim.errors import RecordError
from capcsim.protocol.flow import (
    Ask,
    Batch,
    Collected,
    Command,
    End,
    Event,
    Flow,
    Lane,
    Open,
    Opened,
    Ready,
    Settle,
    SetUp,
)
from capcsim.protocol.flow import Stop as StopAsking
from capcsim.protocol.steps import Voter
from capcsim.scenario import Scenario
from capcsim.seeds import Seeds
from capcsim.simulation.faults import Absences
from capcsim.simulation.hosts import Hosts
from capcsim.simulation.network import Network
from capcsim.simulation.replay import MEASURE_AGAIN, Ends, Log, Place, Replayer, Shared

Process: TypeAlias = Generator[simpy.Event, Any, None]


class Costs(Protocol):
    """Where the world gets transcripts from."""

    def transcript(self, step: Step, voter: Voter | None, querier: int, batch: int = -1, size: int = 0) -> Transcript:
        """One step of a querying party with a voter, or (None) with the guardian; of a batch of so many queries."""

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

    Utilisation, by link and by core up to a machine's highest that worked, is a share of the time until all work has
    ended, late answers included.
    """

    queries: list[QueryRow]
    log: Log
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


@dataclass(slots=True)
class _Travelling:
    """A batch under way: since when, and when each role of each pair is through."""

    submitted_s: float
    pairs: dict[int, Ends]


class World:
    """One simulation; `run` it once for every round of queries. Work of phase OFFLINE runs with its batch."""

    def __init__(self, scenario: Scenario) -> None:
        env = self._env = simpy.Environment()
        self._replayer = Replayer(env, Network(env, scenario.network.latency_s))
        self._hosts = Hosts.of(env, scenario)
        self._absences = Absences(scenario.faults, scenario.parties.count, Seeds(scenario.seed))
        self._once: list[Shared] = [{} for _ in range(scenario.parties.queriers)]
        self._rows: list[QueryRow] = []
        self._stopped: dict[int, str] = {}

    def run(
        self, flow: Flow, voters: Sequence[Voter], costs: Costs, labelled: Callable[[int], None] = lambda _: None
    ) -> Simulated:
        """Drive a round of queries to its end, and on until what was late has ended too.

        Times, queries and work are those of all rounds so far: a round begins when all of the one before has ended, and
        retraining takes no simulated time. `labelled` is called with each batch's number of opened queries.
        """
        round_ = _Round(self._env, self._replayer, self._hosts, self._absences, self._once, voters, costs)
        inbox: simpy.Store = simpy.Store(self._env)
        commands = next(flow)
        while True:
            for command in commands:
                self._carry_out(command, round_, inbox, labelled)
            if End() in commands:
                break
            event: Any = self._env.run(inbox.get())
            commands = flow.send(event)
        # Not until nothing is left to happen: a deadline that nobody waits for any more would be waited for.
        self._env.run(self._env.all_of(self._replayer.begun))
        self._replayer.begun.clear()
        return self._result()

    def _carry_out(
        self, command: Command, round_: "_Round", inbox: simpy.Store, labelled: Callable[[int], None]
    ) -> None:
        """Begin what takes time, note what takes none."""
        match command:
            case Settle():
                self._note(command, round_.submitted_s(command.batch))
                labelled(command.opened)
            case StopAsking(querier, why):
                self._stopped[querier] = why
            case SetUp() | Ask() | Open():
                self._env.process(_answered(round_.begin(command), inbox))

    def _note(self, settled: Settle, submitted_s: float) -> None:
        batch = settled.batch
        for query, label, why in zip(batch.queries, settled.labels, settled.whys, strict=True):
            row = (batch.querier, query, batch.number, label, settled.counted, submitted_s, self._env.now)
            self._rows.append(QueryRow(*row, why, settled.declined))

    def _result(self) -> Simulated:
        log = self._replayer.log
        hosts = self._hosts.used(dealer=any(row.role is Role.DEALER for row in log.compute))
        machines = {host.machine.name: host.machine for host in hosts}
        links = {link.name: link for host in hosts for link in (host.up, host.down)}
        sent: dict[str, int] = dict.fromkeys((host.name for host in hosts), 0)
        for message in log.messages:
            sent[message.sender] += message.nbytes * message.network
        ends_s = [row.end_s for row in log.compute] + [row.received_s for row in log.messages]
        span_s = max([*ends_s, *(row.labelled_s for row in self._rows)], default=0.0) or 1.0
        return Simulated(
            queries=sorted(self._rows, key=lambda row: (row.querier, row.query)),
            log=log,
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


def _answered(work: Generator[simpy.Event, Any, Event], inbox: simpy.Store) -> Process:
    event = yield from work
    inbox.put(event)


class _Round:
    """How each command of one round takes its time."""

    def __init__(
        self,
        env: simpy.Environment,
        replayer: Replayer,
        hosts: Hosts,
        absences: Absences,
        once: Sequence[Shared],
        voters: Sequence[Voter],
        costs: Costs,
    ) -> None:
        self._env, self._replayer, self._hosts, self._absences = env, replayer, hosts, absences
        self._once, self._voters, self._costs = once, voters, costs
        self._travelling: dict[Batch, _Travelling] = {}

    def submitted_s(self, batch: Batch) -> float:
        """When a batch was sent; it is forgotten."""
        return self._travelling.pop(batch).submitted_s

    def begin(self, command: SetUp | Ask | Open) -> Generator[simpy.Event, Any, Event]:
        """Let a command happen; its event."""
        match command:
            case SetUp():
                return self._set_up(command)
            case Ask():
                return self._ask(command)
            case Open():
                return self._open(command)

    def _set_up(self, command: SetUp) -> Generator[simpy.Event, Any, Event]:
        """Keys and base transfers with all partners at once."""
        ends = [
            self._play(command.steps, command.lane, None if number is None else self._voters[number], {}, Shared())
            for number in command.partners
        ]
        yield self._env.all_of([event for roles in ends for event in roles.values()])
        return Ready(command.lane)

    def _ask(self, command: Ask) -> Generator[simpy.Event, Any, Event]:
        """Let every party that is there answer, and the guardian wait for the shares."""
        batch, per_batch = command.batch, Shared()
        silent, declining = (
            absent(batch.querier, batch.number) for absent in (self._absences.silent, self._absences.declining)
        )
        asked = [self._voters[number] for number in batch.answering]
        declined = tuple(voter.index for voter in asked if voter.party in declining)
        pairs = {
            voter.index: self._play(command.steps, batch.lane, voter, {}, per_batch, batch)
            for voter in asked
            if voter.party not in declining | silent
        }
        for number, ends in pairs.items():
            if Role.GUARDIAN not in ends:
                raise RecordError(f"the transcripts of voter {number} hand the guardian no share; {MEASURE_AGAIN}")
        self._travelling[batch] = _Travelling(self._env.now, pairs)
        # It cannot know that a silent party is gone: it waits until the time is up.
        complete = len(pairs) == len(asked) - len(declined)
        shares = [ends[Role.GUARDIAN] for ends in pairs.values()]
        yield self._collected(shares, command.deadline_s, complete=complete)
        present = tuple(number for number, ends in pairs.items() if ends[Role.GUARDIAN].triggered)
        return Collected(batch, present, declined)

    def _collected(self, shares: list[simpy.Event], deadline_s: float | None, *, complete: bool) -> simpy.Event:
        """When the guardian waits no longer."""
        everybody = self._env.all_of(shares)
        if deadline_s is None:
            return everybody
        timer = self._env.timeout(deadline_s)
        return self._env.any_of([everybody, timer]) if complete else timer

    def _open(self, command: Open) -> Generator[simpy.Event, Any, Event]:
        """Both sides begin when they have finished with every pair that is counted."""
        batch = command.batch
        before = [self._travelling[batch].pairs[number] for number in command.counted]
        # A party that had no part in a pair has nothing to finish.
        ready = {
            role: self._env.all_of([ends[role] for ends in before if role in ends])
            for role in (Role.QUERIER, Role.GUARDIAN)
        }
        ends = self._play(command.steps, batch.lane, None, ready, Shared(), batch)
        yield ends[Role.QUERIER]
        return Opened(batch)

    def _play(
        self,
        steps: Sequence[Step],
        lane: Lane,
        voter: Voter | None,
        ends: Mapping[Role, simpy.Event],
        per_batch: Shared,
        batch: Batch | None = None,
    ) -> Ends:
        """Steps one after the other for each role: when each is through."""
        number, size = (-1, 0) if batch is None else (batch.number, len(batch.queries))
        querier, index = lane.querier, -1 if voter is None else voter.index
        hosts = self._hosts.at(querier, None if voter is None else voter.party)
        session = (querier, lane.number, index)
        place = Place(querier, number, self._costs.group(voter), session, self._once[querier], per_batch)
        for step in steps:
            transcript = self._costs.transcript(step, voter, querier, number, size)
            ends = self._replayer.replay(transcript, hosts, place, ends)
        return dict(ends)
