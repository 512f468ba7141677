"""The simulated world: it lets the flow's commands take simulated time on machines and links.

Answering parties work in parallel; the querying parties' and the guardian's cores and links are contended.
At simulated step 2 the guardian fixes the counted set, and only then is the label computed: who is late or
missing changes labels as it would in life.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import simpy
from numpy.typing import NDArray

from capcsim.backend import Role, Step
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
    Lapse,
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
from capcsim.simulation.arrivals import Times
from capcsim.simulation.clock import Clock
from capcsim.simulation.coming import Arrivals, Openings
from capcsim.simulation.critical_path import DEADLINE, QUERIES, Cause, Path, Resource
from capcsim.simulation.critical_path import Begun as Asked
from capcsim.simulation.engine.engine import Engine
from capcsim.simulation.faults import Absences
from capcsim.simulation.hosts import Hosts, built
from capcsim.simulation.log import Log
from capcsim.simulation.pair_graphs import MEASURE_AGAIN
from capcsim.simulation.sessions import Begun, Costs, Pair, Sessions

Process: TypeAlias = Generator[simpy.Event, Any, None]
Answer: TypeAlias = Generator[simpy.Event, Any, tuple[Event, Cause]]
NOBODY: Mapping[int, Times] = MappingProxyType({})
LAPSED = "lapsed: it was not sent in time, and its querying party does not want it any more"


@dataclass(frozen=True, slots=True)
class QueryRow:
    """What became of one query; `label` is -1 where none was released, and `why` then says why.

    One that came by itself was submitted then, others when their batch was sent; one that lapsed has batch -1.

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
    ended, late answers included. `critical_s` is what the last label waited for.
    """

    queries: list[QueryRow]
    log: Log
    core_utilisation: dict[str, float]
    link_utilisation: dict[str, float]
    sent_bytes: dict[str, int]
    core_s: float
    stopped: dict[int, str]
    critical_s: dict[Resource, float]

    def bought(self, querier: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of a querying party's labelled queries, and their labels; both int64[n]."""
        rows = [row for row in self.queries if row.querier == querier and row.label >= 0]
        queries, labels = [row.query for row in rows], [row.label for row in rows]
        return np.array(queries, np.int64), np.array(labels, np.int64)


class World:
    """One simulation; `run` it once for every round of queries. Work of phase OFFLINE runs with its batch."""

    def __init__(self, scenario: Scenario) -> None:
        self._log, self._hosts = Log(), Hosts.of(scenario)
        engine = Engine(self._log.write)
        self._clock = Clock(engine)
        self._topology = built(engine, self._log, scenario, self._hosts)
        self._sessions = Sessions(engine, self._topology, self._hosts, self._log)
        self._absences = Absences(scenario.faults, scenario.parties.count, Seeds(scenario.seed))
        self._arrivals = Arrivals(self._clock, scenario.queries)
        self._hours = Openings(self._clock, scenario)
        self._rows: list[QueryRow] = []
        self._stopped: dict[int, str] = {}
        self._causes: dict[Asked, Cause] = {}
        self._last_label = Cause(0.0)

    def run(
        self,
        flow: Flow,
        voters: Sequence[Voter],
        costs: Costs,
        labelled: Callable[[int], None] = lambda _: None,
        coming: Mapping[int, Times] = NOBODY,
    ) -> Simulated:
        """Drive a round of queries to its end, and on until what was late has ended too.

        Times, queries and work are those of all rounds so far: a round begins when all of the one before has ended, and
        retraining takes no simulated time. `labelled` is called with each batch's number of opened queries. `coming`
        says when a querying party's queries come, from its query 0 on, where they are not there from the beginning.
        """
        round_ = _Round(self._clock, self._sessions, self._absences, self._hours, voters, costs)
        inbox: simpy.Store = simpy.Store(self._clock)
        self._coming = coming
        for querier, times_s in coming.items():
            self._arrivals.begin(querier, times_s, inbox)
        commands, cause = next(flow), Cause(self._clock.now)
        while True:
            for command in commands:
                self._carry_out(command, round_, inbox, labelled, cause)
            if End() in commands:
                break
            event, cause = self._next(inbox)
            commands = flow.send(event)
        # Not until nothing is left to happen: a deadline that nobody waits for any more would be waited for.
        self._clock.run_out()
        self._clock.engine.flush()
        return self._result()

    def _next(self, inbox: simpy.Store) -> tuple[Event, Cause]:
        """The next event, and what it came from."""
        item: Any = self._clock.run(inbox.get())
        event, cause = item if isinstance(item, tuple) else (item, Cause(self._clock.now, why=QUERIES))
        if isinstance(event, Opened):
            self._last_label = cause
        return event, cause

    def _carry_out(
        self,
        command: Command,
        round_: "_Round",
        inbox: simpy.Store,
        labelled: Callable[[int], None],
        cause: Cause,
    ) -> None:
        """Begin what takes time, note what takes none."""
        match command:
            case SetUp(lane):
                self._causes[lane, -1, False] = cause
            case Ask(batch) | Open(batch):
                self._causes[batch.lane, batch.number, isinstance(command, Open)] = cause
        match command:
            case Settle():
                self._note(command, round_.settled(command.batch))
                labelled(command.opened)
            case Lapse(querier, queries):
                for query in queries:
                    came_s = float(self._coming[querier][query])
                    self._rows.append(QueryRow(querier, query, -1, -1, (), came_s, self._clock.now, LAPSED, 0))
                labelled(len(queries))
            case StopAsking(querier, why):
                self._stopped[querier] = why
            case SetUp() | Ask() | Open():
                self._clock.process(_answered(round_.begin(command), inbox))

    def _note(self, settled: Settle, submitted_s: float) -> None:
        batch, coming = settled.batch, self._coming.get(settled.batch.querier)
        for query, label, why in zip(batch.queries, settled.labels, settled.whys, strict=True):
            since_s = submitted_s if coming is None else float(coming[query])
            row = (batch.querier, query, batch.number, label, settled.counted, since_s, self._clock.now)
            self._rows.append(QueryRow(*row, why, settled.declined))

    def _result(self) -> Simulated:
        log = self._log
        used = self._hosts.used(dealer=log.works(Role.DEALER))
        machines = list(dict.fromkeys(host.machine for host in used))
        span_s = max([log.last_s, *(row.labelled_s for row in self._rows)], default=0.0) or 1.0
        return Simulated(
            queries=sorted(self._rows, key=lambda row: (row.querier, row.query)),
            log=log,
            core_utilisation={
                f"{name}, core {core}": worked_s / span_s
                for name in machines
                for core, worked_s in enumerate(self._topology.busy_s(name))
            },
            link_utilisation={
                f"{name} {way}": share
                for name in machines
                for way, share in self._topology.utilisation(name, span_s).items()
            },
            sent_bytes=log.sent_bytes([host.name for host in used]),
            core_s=float(log.busy_s.sum()),
            stopped=self._stopped,
            critical_s=self._critical_s(),
        )

    def _critical_s(self) -> dict[Resource, float]:
        names, lanes = self._topology.link_names(), self._sessions.lanes

        def begun(place: int, batch: int) -> Asked:
            lane, guardian = lanes[place]
            return lane, batch, guardian and batch >= 0

        path = Path(self._log, self._causes, begun, names.__getitem__, self._topology.latency_name)
        return path.seconds(self._last_label.row)


def _answered(work: Answer, inbox: simpy.Store) -> Process:
    answer = yield from work
    inbox.put(answer)


@dataclass(frozen=True, slots=True)
class _Travelling:
    """A batch under way: since when, and its pairs."""

    submitted_s: float
    begun: Begun


class _Round:
    """How each command of one round takes its time."""

    def __init__(
        self,
        clock: Clock,
        sessions: Sessions,
        absences: Absences,
        hours: Openings,
        voters: Sequence[Voter],
        costs: Costs,
    ) -> None:
        self._clock, self._sessions, self._absences, self._hours = clock, sessions, absences, hours
        self._voters, self._costs = voters, costs
        self._travelling: dict[Batch, _Travelling] = {}

    def settled(self, batch: Batch) -> float:
        """When a batch was sent; it is forgotten."""
        travelling = self._travelling.pop(batch)
        self._clock.engine.count_down(travelling.begun.over)
        return travelling.submitted_s

    def begin(self, command: SetUp | Ask | Open) -> Answer:
        """Let a command happen; its event, and what it came from."""
        match command:
            case SetUp():
                return self._set_up(command)
            case Ask():
                return self._ask(command)
            case Open():
                return self._open(command)

    def _set_up(self, command: SetUp) -> Answer:
        """Keys and base transfers with all partners at once."""
        partners = [None if number is None else self._voters[number] for number in command.partners]
        begun = self._begin(command.lane, partners, command.steps)
        self._clock.engine.count_down(begun.over)
        yield self._clock.opened(begun.over)
        return Ready(command.lane), Cause(self._clock.now, self._clock.engine.row_of(begun.over))

    def _ask(self, command: Ask) -> Answer:
        """Let every party that is there answer, and the guardian wait for the shares."""
        batch = command.batch
        silent, declining = (
            absent(batch.querier, batch.number) for absent in (self._absences.silent, self._absences.declining)
        )
        asked = [self._voters[number] for number in batch.answering]
        declined = tuple(voter.index for voter in asked if voter.party in declining)
        there = [voter for voter in asked if voter.party not in declining | silent]
        begun = self._begin(batch.lane, there, command.steps, batch)
        for pair in begun.without(Role.GUARDIAN):
            raise RecordError(f"the transcripts of voter {pair.number} hand the guardian no share; {MEASURE_AGAIN}")
        self._travelling[batch] = _Travelling(self._clock.now, begun)
        # It cannot know that a silent party is gone: it waits until the time is up.
        complete = len(there) == len(asked) - len(declined)
        yield self._collected(begun, command.deadline_s, complete=complete)
        present = np.flatnonzero(self._clock.engine.are_open(begun.latches(Role.GUARDIAN)))
        cause = Cause(self._clock.now, why=DEADLINE, since=(batch.lane, batch.number, False))
        if complete and len(present) == len(there):
            cause = Cause(self._clock.now, self._clock.engine.row_of(begun.collected))
        return Collected(batch, tuple(there[number].index for number in present), declined), cause

    def _collected(self, begun: Begun, deadline_s: float | None, *, complete: bool) -> simpy.Event:
        """When the guardian waits no longer."""
        if not begun.pairs and complete:
            return self._clock.timeout(0.0)
        everybody = self._clock.opened(begun.collected)
        if deadline_s is None:
            return everybody
        timer = self._clock.timeout(deadline_s)
        return self._clock.any_of([everybody, timer]) if complete else timer

    def _open(self, command: Open) -> Answer:
        """Both sides begin when they have finished with every pair that is counted; the guardian has."""
        batch, engine = command.batch, self._clock.engine
        asked = self._travelling[batch].begun
        counted = np.isin([-1 if pair.number is None else pair.number for pair in asked.pairs], command.counted)
        may_begin = engine.latches(1)
        left = engine.chain(asked.latches(Role.QUERIER)[counted], may_begin)
        engine.set_latches(may_begin, left=left)
        begun = self._begin(batch.lane, [None], command.steps, batch, [{Role.QUERIER: may_begin}])
        opened = begun.ends[Role.QUERIER]
        engine.tell(opened)
        yield self._clock.opened(opened)
        engine.count_down(begun.over)
        engine.free_latches(may_begin, 1)
        return Opened(batch), Cause(self._clock.now, engine.row_of(opened))

    def _begin(
        self,
        lane: Lane,
        voters: Sequence[Voter | None],
        steps: Sequence[Step],
        batch: Batch | None = None,
        begins: Sequence[Mapping[Role, int]] = (),
    ) -> Begun:
        """Steps one after the other for each role, with each voter, from when it is open on."""
        number, size = (-1, 0) if batch is None else (batch.number, len(batch.queries))
        found = self._costs.transcripts(steps, voters, lane.querier, number, size)
        pairs = [Pair(voter, each, self._costs.group(voter)) for voter, each in zip(voters, found, strict=True)]
        begun = self._sessions.begin(lane, number, pairs, begins or self._hours.wait(voters))
        self._clock.process(self._free(begun))
        return begun

    def _free(self, begun: Begun) -> Process:
        yield self._clock.opened(begun.over)
        self._sessions.free(begun)
