"""Graphs under way: instances of templates, nodes that wait for others, latches that gates wait for, and the log."""

from typing import Any

from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.lists import append, pop
from capcsim.simulation.engine.queues import push_ready
from capcsim.simulation.engine.records import NONE

WORK, MESSAGE, GATE = 0, 1, 2
"""Kinds of nodes; a gate takes no time."""


@kernel
def start(s: Any, template: int, place: int, batch: int, latches: int, done: int) -> None:
    """A graph begins now."""
    number = s.clock["free_instance"]
    instance = s.instances[number]
    s.clock["free_instance"] = instance["left"]
    s.clock["started"] = number
    s.clock["live"] += 1
    s.clock["starts"] += 1
    instance["stamp"] = s.clock["starts"]
    instance["template"], instance["place"], instance["batch"] = template, place, batch
    instance["latches"], instance["done"], instance["live"] = latches, done, 1
    first, count = s.templates[template]["first"], s.templates[template]["count"]
    instance["left"] = count
    base = _take_slots(s, s.templates[template]["size"])
    instance["base"] = base
    for n in range(count):
        slot = s.slots[base + n]
        slot["instance"], slot["node"] = number, first + n
        slot["left"] = s.nodes[first + n]["after"]
        slot["row"] = NONE
    for n in range(count):
        if s.nodes[first + n]["after"] == 0:
            push_ready(s, base + n)


@kernel
def _take_slots(s: Any, size: int) -> int:
    """The first of 2^size slots; Python has seen to it that there are so many."""
    base = s.free[size]
    if base >= 0:
        s.free[size] = s.slots[base]["next"]
        return int(base)
    base = s.clock["slots"]
    s.clock["slots"] += 1 << size
    return int(base)


@kernel
def instance_of(s: Any, slot: int) -> Any:
    """The graph that a slot's node is of."""
    return s.instances[s.slots[slot]["instance"]]


@kernel
def node_of(s: Any, slot: int) -> Any:
    """What a slot's node is."""
    return s.nodes[s.slots[slot]["node"]]


@kernel
def release(s: Any, slot: int, row: int) -> None:
    """One of those that a node waits for has ended, in a row of the log."""
    waiting = s.slots[slot]
    waiting["left"] -= 1
    waiting["row"] = row
    if waiting["left"] == 0:
        push_ready(s, slot)


@kernel
def wait_for(s: Any, slot: int, number: int) -> None:
    """A gate waits for a latch, which may be open."""
    latch = s.latches[number]
    if latch["left"] <= 0:
        release(s, slot, latch["row"])
        return
    append(s, latch, slot)


@kernel
def count_down(s: Any, number: int, row: int) -> None:
    """One of those that a latch waits for has ended."""
    while number >= 0:
        latch = s.latches[number]
        latch["left"] -= 1
        latch["row"] = row
        if latch["left"] != 0:
            return
        while latch["first"] >= 0:
            release(s, pop(s, latch), row)
        if latch["tell"]:
            s.told[s.clock["told"]] = number
            s.clock["told"] += 1
        number = latch["next"]


@kernel
def ended(s: Any, slot: int, row: int) -> None:
    """A node has ended: those that wait for it are released."""
    number = s.slots[slot]["instance"]
    instance, node = s.instances[number], node_of(s, slot)
    for k in range(node["first"], node["last"]):
        release(s, instance["base"] + s.successors[k], row)
    if node["out"] >= 0 and instance["latches"] >= 0:
        count_down(s, instance["latches"] + node["out"], row)
    instance["left"] -= 1
    if instance["left"] == 0:
        close(s, number, row)


@kernel
def close(s: Any, number: int, row: int) -> None:
    """An instance is over, its number free."""
    instance = s.instances[number]
    instance["live"] = 0
    size = s.templates[instance["template"]]["size"]
    s.slots[instance["base"]]["next"] = s.free[size]
    s.free[size] = instance["base"]
    instance["stamp"] = NONE
    instance["left"] = s.clock["free_instance"]
    s.clock["free_instance"] = number
    s.clock["live"] -= 1
    count_down(s, instance["done"], row)


@kernel
def log(s: Any, slot: int, core: int, end_s: float, busy_s: float, cut: int) -> int:
    """Write a node down; its row."""
    instance, node = instance_of(s, slot), s.slots[slot]
    row = s.log[s.clock["rows"]]
    row["place"], row["batch"], row["template"] = instance["place"], instance["batch"], instance["template"]
    row["node"], row["core"], row["cut"], row["link"] = slot - instance["base"], core, cut, NONE
    row["by"], row["waited"] = node["row"], node["waited"]
    row["ready_s"], row["start_s"], row["end_s"] = node["ready_s"], node["start_s"], end_s
    row["busy_s"] = busy_s
    s.clock["rows"] += 1
    s.clock["row"] += 1
    return int(s.clock["row"] - 1)
