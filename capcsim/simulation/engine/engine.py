"""The engine as Python sees it: what there is, what begins, and how time passes up to the next milestone."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.simulation.engine import loop
from capcsim.simulation.engine.kernel import Run, compiled, is_loaded, kept
from capcsim.simulation.engine.records import NONE, ROLES, ROUTE
from capcsim.simulation.engine.state import State

Rows: TypeAlias = NDArray[np.void]
"""Rows of records.LOG."""

_LOADING_S, _COMPILING_S = 0.5, 5.0
"""How long plain Python works before machine code is loaded, if it is on disk, and before it is made."""
_PLAIN_ROWS, _COMPILED_ROWS = 1 << 10, 1 << 16
"""Rows after which the kernel gives control back."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a template: work of a role, a message from it to another, or a gate, by graphs.WORK and the like.

    `amount` are seconds or bytes, `after` earlier nodes that it waits for; where it is `held`, it waits for a latch
    besides. As it ends it counts down the instance's latch number `latch`.
    """

    kind: int
    role: int = 0
    to: int = 0
    amount: float = 0.0
    after: Sequence[int] = ()
    latch: int = NONE
    held: bool = False


class Engine:
    """Machines, lines, graphs and time. Everything is named by the number that it was given.

    `log` is given the rows of nodes that have ended, now and then. Nothing is drawn at random: the same calls give the
    same times, to the last bit, whether the kernel is compiled (True), plain Python (False) or, by how much there is to
    do, either.
    """

    def __init__(self, log: Callable[[Rows], None] = lambda _: None, *, compile_: bool | None = None) -> None:
        self.state = State(_PLAIN_ROWS)
        self._log, self._counts = log, dict.fromkeys(("links", "connections", "machines", "pools", "cores"), 0)
        self._counts |= dict.fromkeys(("places", "templates", "nodes", "successors", "latches"), 0)
        self._free_latches: dict[int, list[int]] = {}
        self._started = self._slots = 0
        self._run: Run = loop.run
        self._plain_s = 0.0
        self._limits_s = (0.0, 0.0) if compile_ else (_LOADING_S, _COMPILING_S)
        self._settled = compile_ is False

    @property
    def now_s(self) -> float:
        """The time up to which everything has happened."""
        return float(self.state.clock["now_s"])

    @property
    def busy(self) -> bool:
        """Whether a graph is under way, or anything was asked for that is not done."""
        return bool(self.state.clock["live"] or self.state.clock["commands"])

    # -- what there is ------------------------------------------------------------------------------------------------

    def link(self, bps: float) -> int:
        """A line, one way."""
        number = self._new("links")
        self.state.links[number]["bps"] = bps
        return number

    def pool(self, cores: int) -> int:
        """So many cores."""
        number, first = self._new("pools"), self._new("cores", cores)
        pool = self.state.pools[number]
        pool["core"], pool["cores"], pool["idle"] = first, cores, cores
        self.state.idle[first : first + cores] = np.arange(first, first + cores)
        self.state.cores["pool"][first : first + cores] = number
        return number

    def machine(self, pool: int, speed: float) -> int:
        """What works on a pool's cores, `speed` seconds of work a second."""
        number = self._new("machines")
        self.state.machines[number]["pool"], self.state.machines[number]["speed"] = pool, speed
        return number

    def connection(self, links: Sequence[int], latency_s: float) -> int:
        """One direction of a session between two machines, over at most ROUTE links."""
        assert len(links) <= ROUTE
        number = self._new("connections")
        connection = self.state.connections[number]
        connection["links"][: len(links)] = links
        connection["latency_s"] = latency_s
        return number

    def place(self, session: int, pair: int, machines: Mapping[int, int]) -> int:
        """Where a pair of a session runs: a machine for each role. What unconnected roles send is there at once.

        What is ready at one instant begins in the order of session, batch, pair and node.
        """
        number = self._new("places")
        place = self.state.places[number]
        place["session"], place["pair"] = session, pair
        for role, machine in machines.items():
            place["machines"][role] = machine
        return number

    def connect(self, place: int, sender: int, receiver: int, connection: int) -> None:
        """What a role sends to another at a place goes over a connection."""
        self.state.places[place]["connections"][ROLES * sender + receiver] = connection

    def template(self, nodes: Sequence[Node]) -> int:
        """A graph, which may be run in many places."""
        successors: list[list[int]] = [[] for _ in nodes]
        for index, node in enumerate(nodes):
            for before in node.after:
                successors[before].append(index)
        number, first = self._new("templates"), self._new("nodes", len(nodes))
        at = self._new("successors", sum(map(len, successors)))
        for index, node in enumerate(nodes):
            end, waits = at + len(successors[index]), len(node.after) + node.held
            self.state.nodes[first + index] = (node.kind, node.role, node.to, waits, at, end, node.latch, node.amount)
            self.state.successors[at:end] = successors[index]
            at = end
        self.state.templates[number] = first, len(nodes), (len(nodes) - 1).bit_length()
        return number

    def latches(self, count: int) -> int:
        """The first of so many latches, which can be taken back."""
        free = self._free_latches.get(count)
        return free.pop() if free else self._new("latches", count)

    def set_latches(self, first: int, count: int = 1, *, left: int = 1, next_: int = NONE, tell: bool = False) -> None:
        """Each opens when `left` nodes or latches have counted it down, and then counts down `next_`."""
        fresh = self.state.latches[first : first + count]
        fresh["left"], fresh["next"], fresh["tell"], fresh["row"] = left, next_, tell, NONE

    def tell(self, number: int) -> None:
        """Tell of a latch when it opens."""
        self.state.latches[number]["tell"] = True

    def row_of(self, latch: int) -> int:
        """The row that opened a latch, or NONE."""
        return int(self.state.latches[latch]["row"])

    def add_to_latch(self, number: int) -> None:
        """One more that a latch waits for."""
        self.state.latches[number]["left"] += 1

    def are_open(self, latches: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which latches have nothing left to wait for."""
        return np.asarray(self.state.latches["left"][latches] <= 0)

    def chain(self, latches: NDArray[np.int64], next_: int) -> int:
        """Let those latches that are not open count down another as they open; how many these are."""
        closed = latches[self.state.latches["left"][latches] > 0]
        self.state.latches["next"][closed] = next_
        return len(closed)

    def free_latches(self, first: int, count: int) -> None:
        """Take latches back, which nothing counts down any more."""
        self._free_latches.setdefault(count, []).append(first)

    # -- what happens -------------------------------------------------------------------------------------------------

    def start(
        self,
        template: int,
        place: int,
        batch: int,
        *,
        latches: int = NONE,
        done: int = NONE,
        waits: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Begin a graph now: its nodes count down latches from `latches` on, and all of it `done`.

        `waits` are its gates, each with the latch that it waits for.
        """
        self._command(loop.START, template, place, batch, latches, done)
        for node, latch in waits:
            self._command(loop.WAIT, node, latch)
        self._expect(1, 1 << int(self.state.templates[template]["size"]))

    def start_all(
        self, templates: Sequence[int], places: Sequence[int], batch: int, *, latches: Sequence[int], done: int
    ) -> None:
        """Begin a graph without gates in each of some places, as `start` does."""
        count, first = len(templates), int(self.state.clock["commands"])
        self.state.grow("commands", first + count)
        fresh = self.state.commands[first : first + count]
        fresh["kind"], fresh["a"], fresh["b"], fresh["c"] = loop.START, templates, places, batch
        fresh["d"], fresh["e"] = latches, done
        self.state.clock["commands"] += count
        self._expect(count, int((1 << self.state.templates["size"][np.asarray(templates, np.int64)]).sum()))

    def count_down(self, latch: int) -> None:
        """Count a latch down, as a node that ends does."""
        self._command(loop.COUNT, latch)

    def abort(self, place: int, batch: int = NONE) -> None:
        """Break off a batch at a place, or all of them: work, messages, and what waits."""
        self._command(loop.ABORT, place, batch)

    def set_capacity(self, link: int, bps: float) -> None:
        """Another capacity from now on; 0 cuts the line."""
        self._command(loop.CAPACITY, link, value=bps)

    def set_window(self, connection: int, bps: float) -> None:
        """A rate that a connection does not exceed."""
        self._command(loop.WINDOW, connection, value=bps)

    def set_speed(self, machine: int, speed: float) -> None:
        """Another speed from now on; with 0 the machine stands."""
        self._command(loop.SPEED, machine, value=speed)

    def run(self, until_s: float) -> list[int]:
        """Let time pass until latches open that are to be told: these, or none when `until_s` is reached.

        With an infinite `until_s` none means that nothing more will happen.
        """
        clock = self.state.clock
        while True:
            self._make_room()
            reason = self._some(until_s)
            if reason == loop.FULL:
                self.flush()
                continue
            self._started = self._slots = 0
            told = [int(latch) for latch in self.state.told[: clock["told"]]]
            clock["told"] = 0
            return told

    def flush(self) -> None:
        """Hand on the rows that are in the log."""
        rows = int(self.state.clock["rows"])
        if rows:
            self._log(self.state.log[:rows].copy())
            self.state.clock["rows"] = 0

    def _some(self, until_s: float) -> int:
        """Let the kernel run, as plain Python as long as little was to do, which gives the same times."""
        if self._settled:
            return int(self._run(self.state, until_s))
        loading_s, compiling_s = self._limits_s
        if self._plain_s >= compiling_s:
            self._take(compiled(loop.run))
        elif self._plain_s >= loading_s or is_loaded(loop.run):
            # Asked once: it does not appear by waiting.
            self._limits_s = compiling_s, compiling_s
            self._take(kept(loop.run))
        began_s = time.process_time()
        reason = int(self._run(self.state, until_s))
        self._plain_s += time.process_time() - began_s
        return reason

    def _take(self, machine_code: Run | None) -> None:
        if machine_code is not None:
            self._run, self._settled = machine_code, True
            self.state.grow("log", _COMPILED_ROWS)

    def _make_room(self) -> None:
        """As much as one instant may need."""
        state = self.state
        most = self._counts["connections"] + self._counts["cores"] + 2
        # A core, a connection and a slot have one event each that holds, and half of them may be those that do not.
        state.grow("events", 2 * (most + len(state.slots)))
        if int(state.clock["rows"]) + 2 * most > len(state.log):
            self.flush()
            state.grow("log", 4 * most)

    def _expect(self, instances: int, slots: int) -> None:
        """Make room for what will be started."""
        self._started, self._slots = self._started + instances, self._slots + slots
        self.state.grow("instances", int(self.state.clock["live"]) + self._started)
        self.state.grow("slots", int(self.state.clock["slots"]) + self._slots)
        self.state.grow("ready", len(self.state.slots))

    def _new(self, name: str, count: int = 1) -> int:
        first = self._counts[name]
        self._counts[name] += count
        self.state.grow(name, self._counts[name])
        return first

    def _command(self, kind: int, *operands: int, value: float = 0.0) -> None:
        clock = self.state.clock
        number = int(clock["commands"])
        self.state.grow("commands", number + 1)
        self.state.commands[number] = (kind, *operands, *(5 - len(operands)) * (0,), value)
        clock["commands"] += 1
