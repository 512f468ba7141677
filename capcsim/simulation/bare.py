"""The bare engine on a bare world: outside checks, and users with transcripts of their own."""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import permutations
from typing import Any

import numpy as np

from capcsim.backend import Role
from capcsim.simulation.bare_world import BareWorld, Session, Work, checked
from capcsim.simulation.engine.engine import Engine, Node, Rows
from capcsim.simulation.engine.graphs import MESSAGE, WORK
from capcsim.simulation.topology import ROLE_NUMBERS, Topology

Json = dict[str, list[dict[str, float | int]]]


def replay(world: Mapping[str, Any], source: str = "world", *, compile_: bool | None = None) -> Json:
    """When each batch begins and ends, and each message is sent and has arrived, in a world that JSON describes.

    Returns `batches` (session, batch, start_s, end_s) and `messages` (session, batch, pair, node, sent_s, arrived_s).
    docs/simulation.md says what stands in a world and what happens. Raises ScenarioError for one that cannot be.
    """
    return _Replay(checked(world, source), compile_).run()


class _Replay:
    """One world on its engine. `latches` of a session: all pairs are over, the closing graph is."""

    def __init__(self, world: BareWorld, compile_: bool | None) -> None:
        self._rows: list[Rows] = []
        self._engine = Engine(self._rows.append, compile_=compile_)
        self._sessions = world.sessions
        self._templates = {name: self._engine.template(_nodes(found)) for name, found in world.transcripts.items()}
        self._is_message = {
            self._templates[name]: np.array([not isinstance(node, Work) for node in found] or [False])
            for name, found in world.transcripts.items()
        }
        topology = _topology(self._engine, world)
        self._places = [_places(topology, world, number) for number in range(len(world.sessions))]
        self._latches = [self._engine.latches(2) for _ in world.sessions]
        self._waiting = [(s.arrivals_s[0], number, 0) for number, s in enumerate(world.sessions) if s.arrivals_s]
        heapify(self._waiting)
        self._under_way: dict[int, tuple[int, float]] = {}
        self._batches: list[dict[str, float | int]] = []

    def run(self) -> Json:
        """Until all batches are over."""
        of_latch = {first + k: (session, k) for session, first in enumerate(self._latches) for k in range(2)}
        while True:
            told = self._engine.run(self._waiting[0][0] if self._waiting else float("inf"))
            for session, closing in sorted(of_latch[latch] for latch in told):
                self._close(session) if not closing else self._end(session)
            if told:
                continue
            if not self._waiting:
                break
            while self._waiting and self._waiting[0][0] <= self._engine.now_s:
                _, session, batch = heappop(self._waiting)
                self._begin(session, batch)
        self._engine.flush()
        return {"batches": self._batches, "messages": self._messages()}

    def _begin(self, number: int, batch: int) -> None:
        session, first, engine = self._sessions[number], self._latches[number], self._engine
        self._under_way[number] = batch, engine.now_s
        pairs = [
            (pair, place)
            for pair, place in zip(session.pairs, self._places[number], strict=False)
            if self._nodes_of(pair.transcript)
        ]
        if not pairs:
            self._close(number)
            return
        engine.set_latches(first, left=len(pairs), tell=True)
        for pair, place in pairs:
            engine.start(self._templates[pair.transcript], place, batch, done=first)

    def _nodes_of(self, transcript: str) -> int:
        return int(self._engine.state.templates[self._templates[transcript]]["count"])

    def _close(self, number: int) -> None:
        """All pairs have ended."""
        closing, engine = self._sessions[number].closing, self._engine
        if closing is None or not self._nodes_of(closing):
            self._end(number)
            return
        engine.set_latches(self._latches[number] + 1, tell=True)
        batch, _ = self._under_way[number]
        engine.start(self._templates[closing], self._places[number][-1], batch, done=self._latches[number] + 1)

    def _end(self, number: int) -> None:
        batch, start_s = self._under_way.pop(number)
        now_s, arrivals_s = self._engine.now_s, self._sessions[number].arrivals_s
        self._batches.append({"session": number, "batch": batch, "start_s": start_s, "end_s": now_s})
        if batch + 1 < len(arrivals_s):
            heappush(self._waiting, (max(arrivals_s[batch + 1], now_s), number, batch + 1))

    def _messages(self) -> list[dict[str, float | int]]:
        found = []
        places = self._engine.state.places
        for row in (row for rows in self._rows for row in rows):
            if self._is_message[int(row["template"])][int(row["node"])]:
                place = places[int(row["place"])]
                found.append(
                    {
                        "session": int(place["session"]),
                        "batch": int(row["batch"]),
                        "pair": int(place["pair"]),
                        "node": int(row["node"]),
                        "sent_s": float(row["ready_s"]),
                        "arrived_s": float(row["end_s"]),
                    }
                )
        return found


def _topology(engine: Engine, world: BareWorld) -> Topology:
    topology = Topology(engine, lambda a, b: world.latency_s[a][b])
    for name, site in world.sites.items():
        topology.add_site(name, site.up_bps, site.down_bps)
    for name, machine in world.machines.items():
        pool = engine.pool(machine.cores)
        topology.add_machine(name, machine.site, pool, machine.speed, machine.up_bps, machine.down_bps)
    return topology


def _places(topology: Topology, world: BareWorld, number: int) -> list[int]:
    """A session's places: of each pair, then of the closing graph."""
    session: Session = world.sessions[number]
    at = {Role.QUERIER: world.parties[session.querier].machine, Role.GUARDIAN: world.parties[session.guardian].machine}
    pairs = [{**at, Role.ANSWERER: world.parties[pair.answerer].machine} for pair in session.pairs]
    places = []
    for pair, machines in enumerate([*pairs, at]):
        places.append(topology.place(number, pair, machines))
        for direction in permutations(machines, 2):
            topology.connect(places[-1], machines, direction)
    return places


def _nodes(found: Any) -> list[Node]:
    def number(role: str) -> int:
        return ROLE_NUMBERS[Role(role)]

    return [
        Node(WORK, number(node.role), amount=node.seconds, after=node.after)
        if isinstance(node, Work)
        else Node(MESSAGE, number(node.from_), number(node.to), node.bytes, node.after)
        for node in found
    ]
