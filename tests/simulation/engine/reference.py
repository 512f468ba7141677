"""The engine's rules once more, slowly: at every event all rates and ends are computed anew from what is under way.

A Reference is driven by the same calls as an Engine; `rows` are those of its log.
"""

from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from math import inf

from capcsim.simulation.engine.engine import Node
from capcsim.simulation.engine.graphs import GATE, WORK
from capcsim.simulation.engine.records import LOG, NONE
from tests.simulation.engine.parts import Connection, Core, Graph, Latch, Machine, Place, Task, fair_rates

Row = namedtuple("Row", [name for name in LOG.names or () if name != "link"])
"""What held a message up has tests of its own."""
Waits = Sequence[tuple[int, int]]


class Reference:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.rows: list[Row] = []
        self.bps: list[float] = []
        self.bits: list[float] = []
        self.cores: list[Core] = []
        self.graphs: list[Graph] = []
        self._queues: list[list[Task]] = []  # of pools
        self._machines: list[Machine] = []
        self._connections: list[Connection] = []
        self._places: list[Place] = []
        self._templates: list[Sequence[Node]] = []
        self._latches: list[Latch] = []
        self._ready: list[Task] = []
        self._arriving: list[tuple[float, Task, int]] = []
        self._told: list[int] = []

    def link(self, bps: float) -> int:
        self.bits.append(0.0)
        return _add(self.bps, bps)

    def pool(self, cores: int) -> int:
        self.cores += [Core(len(self._queues)) for _ in range(cores)]
        return _add(self._queues, [])

    def machine(self, pool: int, speed: float) -> int:
        return _add(self._machines, Machine(pool, speed))

    def connection(self, links: Sequence[int], latency_s: float) -> int:
        return _add(self._connections, Connection(links, latency_s))

    def place(self, session: int, pair: int, machines: Mapping[int, int]) -> int:
        return _add(self._places, Place(session, pair, machines))

    def connect(self, place: int, sender: int, receiver: int, connection: int) -> None:
        self._places[place].connections[sender, receiver] = connection

    def template(self, nodes: Sequence[Node]) -> int:
        return _add(self._templates, nodes)

    def latches(self, count: int) -> int:
        self._latches += [Latch() for _ in range(count)]
        return len(self._latches) - count

    def set_latches(self, first: int, count: int = 1, *, left: int = 1, next_: int = NONE, tell: bool = False) -> None:
        self._latches[first : first + count] = [Latch(left, next_, tell) for _ in range(count)]

    def start(
        self, template: int, place: int, batch: int, *, latches: int = NONE, done: int = NONE, waits: Waits = ()
    ) -> None:
        nodes = self._templates[template]
        graph = Graph(template, place, batch, latches, done, [], len(nodes))
        graph.tasks = [Task(graph, number, node, len(node.after) + node.held) for number, node in enumerate(nodes)]
        self.graphs.append(graph)
        self._ready += [task for task in graph.tasks if task.waits == 0]
        for number, latch in waits:
            self._latches[latch].gates.append(graph.tasks[number])
            self._let_through(self._latches[latch])

    def count_down(self, latch: int, row: int = NONE) -> None:
        while latch != NONE:
            counted = self._latches[latch]
            counted.left, counted.row = counted.left - 1, row
            if counted.left != 0:
                return
            self._let_through(counted)
            self._told += [latch] if counted.tell else []
            latch = counted.next

    def set_capacity(self, link: int, bps: float) -> None:
        self.bps[link] = bps

    def set_window(self, connection: int, bps: float) -> None:
        self._connections[connection].window_bps = bps

    def set_speed(self, machine: int, speed: float) -> None:
        changed = self._machines[machine]
        changed.speed = speed
        waiting = self._queues[changed.pool] + changed.standing
        self._queues[changed.pool] = [task for task in waiting if self._machine(task).speed > 0.0]
        changed.standing = [task for task in waiting if self._machine(task).speed == 0.0]
        self._serve(changed.pool)

    def abort(self, place: int, batch: int = NONE) -> None:
        gone = [graph for graph in self.graphs if graph.place == place and batch in (NONE, graph.batch)]
        lists = [machine.standing for machine in self._machines] + [latch.gates for latch in self._latches]
        for tasks in [self._ready, *self._queues, *lists]:
            tasks[:] = [task for task in tasks if task.graph not in gone]
        self._arriving = [arriving for arriving in self._arriving if arriving[1].graph not in gone]
        for number, core in enumerate(self.cores):
            if core.task and core.task.graph in gone:
                self._let_go(number, cut=1)
        for connection in self._connections:
            first = connection.queue[:1]
            connection.queue = [task for task in connection.queue if task.graph not in gone]
            for task in (task for task in first if task.graph in gone):
                task.busy_s = self.now_s - task.start_s
                self._follow(connection, self._log(task, cut=1))
        for pool in range(len(self._queues)):
            self._serve(pool)
        for graph in gone:
            self._close(graph, NONE)

    def run(self, until_s: float) -> list[int]:
        while True:
            while self._ready:
                first = min(self._ready, key=self._order)
                self._ready.remove(first)
                self._begin(first)
            told, self._told = self._told, []
            if told or not self._step(until_s):
                return told

    def _step(self, until_s: float) -> bool:
        """What happens next, at its time; or else nothing, and it is `until_s`."""
        speeds = {k: self._machine(core.task).speed for k, core in enumerate(self.cores) if core.task}
        flows = {k: connection for k, connection in enumerate(self._connections) if connection.queue}
        rates = fair_rates(flows, self.bps)
        work = {k: self.now_s + self.cores[k].task.left / speed for k, speed in speeds.items() if speed > 0.0}
        messages = {k: self.now_s + flows[k].queue[0].left / rate for k, rate in rates.items() if rate > 0.0}
        next_s = min([*work.values(), *messages.values(), *(at_s for at_s, *_ in self._arriving)], default=inf)
        if next_s > until_s or next_s == inf:
            self._advance(until_s, speeds, rates)
            return False
        self._advance(next_s, speeds, rates)
        for number in _at(next_s, work.items()):
            self._work_ends(number)
        for number in _at(next_s, messages.items()):
            self._passed(flows[number])
        arrived = _at(next_s, ((arriving, arriving[0]) for arriving in self._arriving))
        for arriving in arrived:
            self._arriving.remove(arriving)
            self._ended(*arriving[1:])
        return True

    def _advance(self, to_s: float, speeds: Mapping[int, float], rates: Mapping[int, float]) -> None:
        """What is under way goes on until a time."""
        if to_s in (self.now_s, inf):
            return
        passed_s = to_s - self.now_s
        self.now_s = to_s
        for core, speed in ((self.cores[number], speed) for number, speed in speeds.items() if speed > 0.0):
            core.task.left -= speed * passed_s
            core.task.busy_s += passed_s
            core.busy_s += passed_s
        for connection, rate in ((self._connections[number], rate) for number, rate in rates.items()):
            connection.queue[0].left -= rate * passed_s
            for link in connection.links:
                self.bits[link] += rate * passed_s

    def _order(self, task: Task) -> tuple[int, int, int, int]:
        place = self._places[task.graph.place]
        return place.session, task.graph.batch, place.pair, task.number

    def _begin(self, task: Task) -> None:
        task.ready_s = task.start_s = self.now_s
        node, place = task.node, self._places[task.graph.place]
        if node.kind == GATE:
            self._ended(task, task.by)
        elif node.kind == WORK and node.amount > 0.0:
            task.left = node.amount
            machine = self._machine(task)
            (self._queues[machine.pool] if machine.speed > 0.0 else machine.standing).append(task)
            self._serve(machine.pool)
        elif node.kind == WORK or (node.role, node.to) not in place.connections:
            self._ended(task, self._log(task))
        else:
            task.left = 8.0 * node.amount
            connection = self._connections[place.connections[node.role, node.to]]
            if task.left > 0.0:
                connection.queue.append(task)
            else:
                self._travels(task, connection)

    def _release(self, task: Task, row: int) -> None:
        task.waits, task.by = task.waits - 1, row
        if task.waits == 0:
            self._ready.append(task)

    def _let_through(self, latch: Latch) -> None:
        """The gates of a latch that is open."""
        while latch.left <= 0 and latch.gates:
            self._release(latch.gates.pop(), latch.row)

    def _ended(self, task: Task, row: int) -> None:
        graph = task.graph
        for other in graph.tasks:
            for _ in range(list(other.node.after).count(task.number)):
                self._release(other, row)
        if NONE not in (task.node.latch, graph.latches):
            self.count_down(graph.latches + task.node.latch, row)
        graph.open -= 1
        if graph.open == 0:
            self._close(graph, row)

    def _close(self, graph: Graph, row: int) -> None:
        self.graphs.remove(graph)
        self.count_down(graph.done, row)

    def _log(self, task: Task, *, core: int = NONE, cut: int = 0, latency_s: float = 0.0) -> int:
        graph = task.graph
        name = graph.place, graph.batch, graph.template, task.number, core, cut, task.by, task.waited
        return _add(self.rows, Row(*name, task.ready_s, task.start_s, self.now_s + latency_s, task.busy_s))

    def _machine(self, task: Task) -> Machine:
        return self._machines[self._places[task.graph.place].machines[task.node.role]]

    def _serve(self, pool: int) -> None:
        for core in self.cores:
            if core.pool == pool and core.task is None and self._queues[pool]:
                core.task = self._queues[pool].pop(0)
                core.task.start_s = self.now_s
                core.task.waited = core.row if self.now_s > core.task.ready_s else NONE

    def _let_go(self, number: int, cut: int = 0) -> None:
        core = self.cores[number]
        core.row, core.task = self._log(core.task, core=number, cut=cut), None

    def _work_ends(self, number: int) -> None:
        core = self.cores[number]
        task = core.task
        self._let_go(number)
        row = core.row
        self._serve(core.pool)
        self._ended(task, row)

    def _passed(self, connection: Connection) -> None:
        task = connection.queue.pop(0)
        task.busy_s = self.now_s - task.start_s
        self._follow(connection, self._travels(task, connection))

    def _travels(self, task: Task, connection: Connection) -> int:
        """Nothing holds a message any more; its row."""
        row = self._log(task, latency_s=connection.latency_s)
        self._arriving.append((self.now_s + connection.latency_s, task, row))
        return row

    def _follow(self, connection: Connection, row: int) -> None:
        connection.row = row
        for task in connection.queue[:1]:
            task.start_s, task.waited = self.now_s, row


def _add(things: list, thing: object) -> int:
    things.append(thing)
    return len(things) - 1


def _at(now_s: float, times: Iterable[tuple]) -> list:
    return [thing for thing, at_s in times if at_s == now_s]
