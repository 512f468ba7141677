"""Sessions and what runs in them: places for a lane's pairs, graphs of their steps, work that they share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import Role, Scope, Step, Transcript
from capcsim.errors import RecordError
from capcsim.protocol.flow import Lane
from capcsim.protocol.steps import Voter
from capcsim.simulation.engine.engine import Engine
from capcsim.simulation.engine.records import NONE
from capcsim.simulation.hosts import Hosts
from capcsim.simulation.log import Location, Log
from capcsim.simulation.pair_graphs import ENDS, MEASURE_AGAIN, Graph, SharedNode, joined, shared_keys, shared_work
from capcsim.simulation.topology import Topology

Shared: TypeAlias = dict[tuple[str, SharedNode], int]
"""The latches of shared work that has begun, by the group of pairs that share it."""
Steps: TypeAlias = tuple[Transcript, ...]
_GUARDIAN_LAST = 1 << 30
"""The place of the guardian's own graphs among a lane's pairs, where several are ready at one instant."""


class Costs(Protocol):
    """Where the world gets transcripts from."""

    def transcripts(
        self, steps: Sequence[Step], voters: Sequence[Voter | None], querier: int, batch: int = -1, size: int = 0
    ) -> list[Steps]:
        """Of each voter, or (None) the guardian: one transcript a step, with a querying party, of so many queries."""

    def group(self, voter: Voter | None) -> str:
        """Pairs of one group share the work of scopes QUERIER and QUERY; None is the guardian."""


class Pair(NamedTuple):
    """A voter, or (None) the guardian alone, with the transcripts of its steps; and the group that shares work."""

    voter: Voter | None
    steps: Steps
    group: str

    @property
    def number(self) -> int | None:
        """The voter's."""
        return None if self.voter is None else self.voter.index


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pair's graphs run, by its number in the engine; the machines of its roles, and who is connected."""

    number: int
    machines: Mapping[Role, str]
    directions: set[tuple[Role, Role]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Begun:
    """Pairs that have begun together, at one moment, in a lane.

    Latches: `over` opens when all is over that was begun, `collected` when the guardian is through with all pairs;
    pair i has one for each role of ENDS, of those `ends[role] + i`. `blocks` are all of them.
    """

    lane: Lane
    batch: int
    pairs: Sequence[Pair]
    graphs: Sequence[Graph]
    over: int
    collected: int
    ends: Mapping[Role, int]
    shared: Shared
    blocks: list[tuple[int, int]]

    def latches(self, role: Role) -> NDArray[np.int64]:
        """Of a role, one for each pair."""
        return np.arange(self.ends[role], self.ends[role] + len(ENDS) * len(self.pairs), len(ENDS))

    def without(self, role: Role) -> list[Pair]:
        """The pairs in which a role has nothing to do."""
        return [pair for pair, graph in zip(self.pairs, self.graphs, strict=True) if role not in graph.ends]


class Sessions:
    """Everything that lasts longer than a batch: connections, templates, and work of scope QUERIER."""

    def __init__(self, engine: Engine, topology: Topology, hosts: Hosts, log: Log) -> None:
        self._engine, self._topology, self._hosts, self._log = engine, topology, hosts, log
        self.lanes: list[tuple[Lane, bool]] = []
        """By place: its lane, and whether the guardian is alone there with the querying party."""
        self._lanes: dict[Lane, int] = {}
        self._places: dict[Lane, dict[tuple[int | None, bool], Place]] = {}
        self._graphs: dict[tuple[object, ...], tuple[Graph, object]] = {}
        self._once: dict[int, Shared] = {}

    def begin(self, lane: Lane, batch: int, pairs: Sequence[Pair], begins: Sequence[Mapping[Role, int]] = ()) -> Begun:
        """Let pairs begin now, all of their steps; with `begins`, each pair's roles in them wait for a latch first.

        `over` waits to be counted down once more, by whoever needs the latches no longer.
        """
        begins = begins or [{}] * len(pairs)
        graphs = [self._joined(pair.steps, tuple(own)) for pair, own in zip(pairs, begins, strict=True)]
        begun = self._latches(lane, batch, pairs, graphs)
        places = [self._place(lane, pair, graph).number for pair, graph in zip(pairs, graphs, strict=True)]
        latches = [begun.ends[ENDS[0]] + len(ENDS) * number for number in range(len(pairs))]
        templates = [graph.template for graph in graphs]
        if not any(graph.shared or graph.begins for graph in graphs):
            self._engine.start_all(templates, places, batch, latches=latches, done=begun.over)
            return begun
        for pair, graph, place, first, own in zip(pairs, graphs, places, latches, begins, strict=True):
            waits = [*self._waits(graph, begun, pair), *((gate, own[role]) for gate, role in graph.begins)]
            self._engine.start(graph.template, place, batch, latches=first, done=begun.over, waits=waits)
        return begun

    def free(self, begun: Begun) -> None:
        """Take back the latches, once `over` has opened."""
        for first, count in begun.blocks:
            self._engine.free_latches(first, count)

    def _latches(self, lane: Lane, batch: int, pairs: Sequence[Pair], graphs: Sequence[Graph]) -> Begun:
        engine, count = self._engine, len(ENDS) * len(pairs)
        first = engine.latches(2 + count)
        over, collected, ends = first, first + 1, {role: first + 2 + number for number, role in enumerate(ENDS)}
        engine.set_latches(over, left=1 + len(pairs), tell=True)
        engine.set_latches(collected, left=len(pairs), tell=True)
        engine.set_latches(first + 2, count)
        for number, graph in enumerate(graphs):
            for role in frozenset(ENDS) - graph.ends:
                engine.set_latches(ends[role] + len(ENDS) * number, left=0)
        begun = Begun(lane, batch, pairs, graphs, over, collected, ends, {}, [(first, 2 + count)])
        engine.chain(begun.latches(Role.GUARDIAN), collected)
        return begun

    # -- where ---------------------------------------------------------------------------------------------------------

    def _place(self, lane: Lane, pair: Pair, graph: Graph, *, shared: bool = False) -> Place:
        """Where a lane's pair runs, connected as its graph needs it; what it shares with others has a place apart."""
        places, key = self._places.setdefault(lane, {}), (pair.number, shared)
        if key not in places:
            places[key] = self._new_place(lane, pair.voter, shared=shared)
        place = places[key]
        if not graph.directions <= place.directions or not graph.roles <= place.machines.keys():
            self._connect(place, graph)
        return place

    def _new_place(self, lane: Lane, voter: Voter | None, *, shared: bool) -> Place:
        hosts = self._hosts.at(lane.querier, None if voter is None else voter.party)
        machines = {role: host.machine for role, host in hosts.items()}
        pair = -1 if shared else _GUARDIAN_LAST if voter is None else voter.index
        number = self._topology.place(self._lanes.setdefault(lane, len(self._lanes)), pair, machines)
        self.lanes.append((lane, voter is None))
        self._log.locations.append(Location(lane.querier, {role: host.name for role, host in hosts.items()}, machines))
        return Place(number, machines)

    def _connect(self, place: Place, graph: Graph) -> None:
        for role in graph.roles - place.machines.keys():
            node = next(node for node, other in graph.parts() if other is role)
            raise RecordError(f"a transcript of step {node.step} has a node of the {role}; {MEASURE_AGAIN}")
        for direction in sorted(graph.directions - place.directions):
            self._topology.connect(place.number, place.machines, direction)
            place.directions.add(direction)

    # -- graphs --------------------------------------------------------------------------------------------------------

    def _joined(self, steps: Steps, begins: tuple[Role, ...]) -> Graph:
        key = begins, id(steps)
        if key not in self._graphs:
            self._keep(key, joined(self._engine, steps, begins), steps)
        return self._graphs[key][0]

    def _shared_graph(self, transcript: Transcript, scope: Scope) -> Graph:
        key = scope, id(transcript)
        if key not in self._graphs:
            self._keep(key, shared_work(self._engine, transcript, scope), transcript)
        return self._graphs[key][0]

    def _keep(self, key: tuple[object, ...], graph: Graph, source: object) -> None:
        # The source is kept, so that nothing else gets its identity.
        self._log.add_template(graph.nodes)
        self._graphs[key] = graph, source

    # -- shared work ---------------------------------------------------------------------------------------------------

    def _waits(self, graph: Graph, begun: Begun, pair: Pair) -> Iterator[tuple[int, int]]:
        """A graph's gates for shared work, with their latches; what has not begun begins now."""
        for gate, key in graph.shared:
            known = self._once.setdefault(begun.lane.querier, {}) if key[0] is Scope.QUERIER else begun.shared
            if (pair.group, key) not in known:
                self._begin_shared(key, begun, pair, known)
            yield gate, known[pair.group, key]

    def _begin_shared(self, key: SharedNode, begun: Begun, pair: Pair, known: Shared) -> None:
        scope, engine = key[0], self._engine
        transcript = next(each for each in pair.steps if key in shared_keys(each))
        graph = self._shared_graph(transcript, scope)
        own = [(pair.group, each) for each in shared_keys(transcript) if each and each[0] is scope]
        if any(each in known for each in own):
            raise RecordError(f"transcripts of step {key[1]} differ in the work that pairs share; {MEASURE_AGAIN}")
        first = engine.latches(len(own))
        engine.set_latches(first, len(own))
        known.update({each: first + latch for latch, each in enumerate(own)})
        place, done = self._place(begun.lane, pair, graph, shared=True), NONE
        if scope is Scope.QUERY:
            begun.blocks.append((first, len(own)))
            engine.add_to_latch(begun.over)
            done = begun.over
        waits = list(self._waits(graph, begun, pair))
        engine.start(graph.template, place.number, begun.batch, latches=first, done=done, waits=waits)
