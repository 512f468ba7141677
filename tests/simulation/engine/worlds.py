"""Random worlds of the engine: what there is, and when what is asked of it, as calls of an Engine's methods."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

from capcsim.simulation.engine.engine import Engine, Node
from capcsim.simulation.engine.graphs import GATE, MESSAGE, WORK
from capcsim.simulation.engine.records import NONE, ROUTE
from tests.simulation.engine.reference import Reference

ALL, SOONER, LATER = 0, 1, 2
"""Latches: one that many graphs count down as they end, and two that are counted down at a time of their own."""
KINDS = (WORK, WORK, WORK, MESSAGE, MESSAGE, MESSAGE, GATE)


class Call(NamedTuple):
    """Of a method."""

    name: str
    args: Sequence[Any]
    options: Mapping[str, Any] = MappingProxyType({})


@dataclass
class World:
    """Calls that make what there is, and those that are made at one of some instants.

    `choose` finds a number between two, inclusive. Amounts are from `random`, so that no two ends coincide.
    """

    choose: Callable[[int, int], int] = field(repr=False)
    random: Random = field(repr=False)
    made: list[Call] = field(default_factory=list)
    instants: list[float] = field(default_factory=list)
    asked: list[tuple[int, Call]] = field(default_factory=list)
    links: int = 0
    connections: int = 0
    machines: int = 0
    roles: list[int] = field(default_factory=list)  # of each place
    begun: list[int] = field(default_factory=list)  # graphs at each place

    def make(self, name: str, *args: Any, **options: Any) -> None:
        self.made.append(Call(name, args, options))

    def ask(self, instant: int, name: str, *args: Any, **options: Any) -> None:
        self.asked.append((instant, Call(name, args, options)))

    def happens(self, rarely: int) -> bool:
        """Once in so many times."""
        return self.choose(1, rarely) == rarely

    def bps(self) -> float:
        return float(10 ** self.random.uniform(5.0, 6.3))


def play(simulated: Engine | Reference, world: World) -> list[tuple[float, list[int]]]:
    """Let a world happen; when which latches were told."""
    told = []
    for call in world.made:
        getattr(simulated, call.name)(*call.args, **call.options)
    calls = [(world.instants[instant], call) for instant, call in sorted(world.asked, key=lambda asked: asked[0])]
    for at_s, call in [*calls, (inf, None)]:
        while at_s > simulated.now_s and (opened := simulated.run(at_s)):
            told.append((simulated.now_s, sorted(opened)))
        if call:
            getattr(simulated, call.name)(*call.args, **call.options)
    return told


def sessions(choose: Callable[[int, int], int], random: Random) -> World:
    """A few machines and lines, sessions between them, graphs of all kinds, and disturbances."""
    world = World(choose, random)
    _make_machines(world)
    for session in range(choose(1, 3)):
        _make_session(world, session)
    world.instants = [0.0, *sorted(random.uniform(0.0, 4.0) for _ in range(choose(3, 9))), 5.0]
    _ask_for_graphs(world)
    _ask_for_disturbances(world, choose(0, 9))
    return world


def lines(choose: Callable[[int, int], int], random: Random) -> World:
    """Many connections over some lines, and messages in rows only."""
    world = World(choose, random)
    world.make("pool", 1)
    world.make("machine", 0, 1.0)
    world.machines, world.links = 1, choose(1, 8)
    for _ in range(world.links):
        world.make("link", world.bps())
    for number in range(choose(1, 10)):
        links = [link for link in range(world.links) if world.happens(3)] or [number % world.links]
        _make_connection(world, links[:ROUTE])
    for session in range(world.connections + choose(0, 5)):
        _make_place(world, session, 0, [0, 0])
        world.make("connect", session, 0, 1, session % world.connections)
    world.instants = [0.0, *sorted(random.uniform(0.0, 4.0) for _ in range(8)), 5.0]
    for number in range(choose(1, 25)):
        after = ([], *([k] for k in range(3)))
        nodes = [Node(MESSAGE, 0, 1, 10 ** random.uniform(3.0, 5.3), after[k]) for k in range(choose(1, 4))]
        world.make("template", nodes)
        _ask_for_graph(world, number, choose(0, len(world.roles) - 1))
    _ask_for_disturbances(world, choose(0, 9))
    for _ in range(choose(0, 4)):
        _ask_for_abort(world)
    return world


def _make_machines(world: World) -> None:
    """Links 2 n and 2 n + 1 are machine n's, out and in; the others are those between sites."""
    pools = world.choose(1, 3)
    for _ in range(pools):
        world.make("pool", world.choose(1, 3))
    world.machines = world.choose(1, 4)
    for _ in range(world.machines):
        world.make("machine", world.choose(0, pools - 1), world.random.uniform(0.5, 2.0))
    world.links = 2 * world.machines + world.choose(1, 2)
    for _ in range(world.links):
        world.make("link", world.bps())


def _make_session(world: World, session: int) -> None:
    """Pairs whose roles share machines and connections."""
    hosts = [world.choose(0, world.machines - 1) for _ in range(world.choose(2, 3))]
    between = range(2 * world.machines, world.links)
    known: dict[tuple[int, int], int] = {}
    for pair in range(world.choose(1, 2)):
        _make_place(world, session, pair, hosts)
        for sender, a in enumerate(hosts):
            for receiver, b in enumerate(hosts):
                if a == b or world.happens(10):
                    continue
                if (a, b) not in known:
                    known[a, b] = world.connections
                    _make_connection(world, [2 * a, *(link for link in between if world.happens(2)), 2 * b + 1])
                world.make("connect", len(world.roles) - 1, sender, receiver, known[a, b])


def _make_place(world: World, session: int, pair: int, hosts: Sequence[int]) -> None:
    world.make("place", session, pair, dict(enumerate(hosts)))
    world.roles.append(len(hosts))
    world.begun.append(0)


def _make_connection(world: World, links: Sequence[int]) -> None:
    world.make("connection", links, 0.0 if world.happens(5) else world.random.uniform(0.0, 0.2))
    if world.happens(3):
        world.make("set_window", world.connections, world.bps() / 3)
    world.connections += 1


def _ask_for_graphs(world: World) -> None:
    """Graph n has latches 3 n + 3 and on, the third of which it counts down as it ends; gates wait for any before."""
    count = world.choose(1, 12)
    world.make("latches", 3 * count + 3)
    waited_for = [SOONER, LATER]
    chained = 0
    for number in range(count):
        place, first = world.choose(0, len(world.roles) - 1), 3 * number + 3
        nodes = _nodes(world, world.roles[place])
        world.make("template", nodes)
        waits = [(k, waited_for[world.choose(0, len(waited_for) - 1)]) for k, node in enumerate(nodes) if node.held]
        _ask_for_graph(world, number, place, latches=first, done=first + 2, waits=waits)
        for k in range(2):
            counting = sum(node.latch == k for node in nodes)
            world.make("set_latches", first + k, left=max(counting, 1), tell=world.happens(5))
            waited_for += [first + k] if counting else []
        waited_for.append(first + 2)
        chain = world.happens(2)
        chained += chain
        world.make("set_latches", first + 2, next_=ALL if chain else NONE, tell=world.happens(5))
    world.make("set_latches", ALL, left=max(chained, 1), tell=True)
    world.make("set_latches", SOONER, 2, tell=True)
    for latch in (SOONER, LATER):
        world.ask(world.choose(0, len(world.instants) - 1), "count_down", latch)


def _ask_for_graph(world: World, template: int, place: int, **options: Any) -> None:
    """The batches of a place are counted."""
    world.ask(world.choose(0, len(world.instants) - 1), "start", template, place, world.begun[place], **options)
    world.begun[place] += 1


def _nodes(world: World, roles: int) -> list[Node]:
    nodes = []
    for number in range(world.choose(1, 8)):
        kind, role = KINDS[world.choose(0, len(KINDS) - 1)], world.choose(0, roles - 1)
        to = (role + world.choose(1, roles - 1)) % roles
        amount = 10 ** world.random.uniform(3.0, 5.0) if kind == MESSAGE else world.random.uniform(0.05, 1.0)
        after = [before for before in range(number) if world.happens(3)]
        latch, held = world.choose(NONE, 1), world.happens(8)
        nodes.append(Node(kind, role, to, 0.0 if world.happens(8) else amount, after, latch, held))
    return nodes


def _ask_for_disturbances(world: World, count: int) -> None:
    """What is cut or stands goes on at a later instant."""
    last = len(world.instants) - 1
    for _ in range(count):
        begins = world.choose(0, last - 1)
        ends = world.choose(begins + 1, last)
        match world.choose(0, 3):
            case 0:
                link = world.choose(0, world.links - 1)
                world.ask(begins, "set_capacity", link, (0.0, world.bps())[world.choose(0, 1)])
                world.ask(ends, "set_capacity", link, world.bps())
            case 1:
                machine = world.choose(0, world.machines - 1)
                world.ask(begins, "set_speed", machine, (0.0, 0.7)[world.choose(0, 1)])
                world.ask(ends, "set_speed", machine, world.random.uniform(0.5, 2.0))
            case 2 if world.connections:
                connection = world.choose(0, world.connections - 1)
                world.ask(begins, "set_window", connection, (0.0, inf, world.bps() / 3)[world.choose(0, 2)])
                world.ask(ends, "set_window", connection, world.bps() / 3)
            case 3:
                _ask_for_abort(world)


def _ask_for_abort(world: World) -> None:
    """Of a batch or of all at its place, as it starts or soon after."""
    starts = [(instant, call.args) for instant, call in world.asked if call.name == "start"]
    instant, (_, place, batch) = starts[world.choose(0, len(starts) - 1)]
    last = len(world.instants) - 1
    world.ask(min(instant + world.choose(0, 2), last), "abort", place, NONE if world.happens(4) else batch)
