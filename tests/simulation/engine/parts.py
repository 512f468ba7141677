"""What a Reference consists of, and how flows share links."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from capcsim.simulation.engine.engine import Node
from capcsim.simulation.engine.records import NONE

_SLACK = 1e-12


@dataclass(eq=False)
class Task:
    """A node of a graph under way; once it has begun it has `left` seconds of work or bits to go."""

    graph: "Graph"
    number: int
    node: Node
    waits: int
    by: int = NONE
    waited: int = NONE
    ready_s: float = 0.0
    start_s: float = 0.0
    busy_s: float = 0.0
    left: float = 0.0


@dataclass(eq=False)
class Graph:
    template: int
    place: int
    batch: int
    latches: int
    done: int
    tasks: list[Task]
    open: int


@dataclass(eq=False)
class Place:
    session: int
    pair: int
    machines: Mapping[int, int]
    connections: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass(eq=False)
class Machine:
    pool: int
    speed: float
    standing: list[Task] = field(default_factory=list)


@dataclass(eq=False)
class Core:
    pool: int
    task: Task | None = None
    row: int = NONE
    busy_s: float = 0.0


@dataclass(eq=False)
class Connection:
    """The first of its queue is the message that it carries."""

    links: Sequence[int]
    latency_s: float
    window_bps: float = inf
    queue: list[Task] = field(default_factory=list)
    row: int = NONE


@dataclass(eq=False)
class Latch:
    left: int = 0
    next: int = NONE
    tell: bool = False
    row: int = NONE
    gates: list[Task] = field(default_factory=list)


def fair_rates(flows: Mapping[int, Connection], bps: Sequence[float]) -> dict[int, float]:
    """All rates grow evenly, each until it is its window or one of its links is full."""
    rates, left, growing = dict.fromkeys(flows, 0.0), list(bps), set(flows)
    while growing:
        users = Counter(link for number in growing for link in flows[number].links)
        shares = [left[link] / count for link, count in users.items()]
        step = max(min(shares + [flows[number].window_bps - rates[number] for number in growing]), 0.0)
        for number in growing:
            rates[number] += step
        for link, count in users.items():
            left[link] -= count * step
        full = {link for link in users if left[link] <= _SLACK * bps[link]}
        done = {number for number in growing if rates[number] >= flows[number].window_bps * (1 - _SLACK)}
        growing = {number for number in growing - done if full.isdisjoint(flows[number].links)}
    return rates
