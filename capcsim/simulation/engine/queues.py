"""What comes next: events by time, nodes that are ready at one instant, and the idle cores of a pool. Binary heaps."""

from typing import Any

from capcsim.simulation.engine.kernel import kernel

WORK_ENDS, FLOW_ENDS, ARRIVES = 0, 1, 2
"""Kinds of events, in the order in which they happen at one instant; their numbers are a core, a connection, a slot."""


@kernel
def holds(s: Any, event: Any) -> bool:
    """Whether an event still happens."""
    kind, number, stamp = event["kind"], event["number"], event["stamp"]
    if kind == WORK_ENDS:
        return bool(s.cores[number]["stamp"] == stamp)
    if kind == FLOW_ENDS:
        return bool(s.connections[number]["stamp"] == stamp)
    return bool(s.instances[s.slots[number]["instance"]]["stamp"] == stamp)


@kernel
def _sweep(s: Any) -> None:
    """Without the events that do not happen any more; what is left is fewer than there are things that can happen."""
    count = s.clock["events"]
    s.clock["events"] = 0
    for k in range(count):
        event = s.events[k]
        if holds(s, event):
            _put_event(s, event["at_s"], event["kind"], event["number"], event["stamp"])


@kernel
def push_event(s: Any, at_s: float, kind: int, number: int, stamp: int) -> None:
    """Something that will happen."""
    if s.clock["events"] == len(s.events):
        _sweep(s)
    _put_event(s, at_s, kind, number, stamp)


@kernel
def _put_event(s: Any, at_s: float, kind: int, number: int, stamp: int) -> None:
    at = s.clock["events"]
    s.clock["events"] = at + 1
    while at > 0:
        above = s.events[(at - 1) >> 1]
        if not _sooner(at_s, kind, number, above):
            break
        s.events[at] = above
        at = (at - 1) >> 1
    event = s.events[at]
    event["at_s"], event["kind"], event["number"], event["stamp"] = at_s, kind, number, stamp


@kernel
def _sooner(at_s: float, kind: int, number: int, than: Any) -> bool:
    """Whether something happens before another event."""
    if at_s != than["at_s"]:
        return bool(at_s < than["at_s"])
    if kind != than["kind"]:
        return bool(kind < than["kind"])
    return bool(number < than["number"])


@kernel
def drop_event(s: Any) -> None:
    """Forget the first event."""
    last = s.clock["events"] - 1
    s.clock["events"] = last
    moved = s.events[last]
    at_s, kind, number, stamp = moved["at_s"], moved["kind"], moved["number"], moved["stamp"]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= last:
            break
        right = s.events[below + 1]
        if below + 1 < last and _sooner(right["at_s"], right["kind"], right["number"], s.events[below]):
            below += 1
        if not _sooner(s.events[below]["at_s"], s.events[below]["kind"], s.events[below]["number"], moved):
            break
        s.events[at] = s.events[below]
        at = below
    event = s.events[at]
    event["at_s"], event["kind"], event["number"], event["stamp"] = at_s, kind, number, stamp


@kernel
def push_ready(s: Any, slot: int) -> None:
    """A node has nothing to wait for any more."""
    instance = s.instances[s.slots[slot]["instance"]]
    place = s.places[instance["place"]]
    # From -1 on: set-ups have no batch, and work that pairs share none of them.
    high = (place["session"] << 32) + instance["batch"] + 1
    low = ((place["pair"] + 1) << 32) + slot - instance["base"]
    at = s.clock["ready"]
    s.clock["ready"] = at + 1
    while at > 0:
        above = s.ready[(at - 1) >> 1]
        if above["high"] < high or (above["high"] == high and above["low"] <= low):
            break
        s.ready[at] = above
        at = (at - 1) >> 1
    node = s.ready[at]
    node["high"], node["low"], node["slot"] = high, low, slot


@kernel
def pop_ready(s: Any) -> int:
    """The slot of the node that begins first."""
    first = s.ready[0]["slot"]
    last = s.clock["ready"] - 1
    s.clock["ready"] = last
    moved = s.ready[last]
    high, low, slot = moved["high"], moved["low"], moved["slot"]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= last:
            break
        if below + 1 < last and _before(s.ready[below + 1], s.ready[below]["high"], s.ready[below]["low"]):
            below += 1
        if not _before(s.ready[below], high, low):
            break
        s.ready[at] = s.ready[below]
        at = below
    node = s.ready[at]
    node["high"], node["low"], node["slot"] = high, low, slot
    return int(first)


@kernel
def _before(node: Any, high: int, low: int) -> bool:
    return bool(node["high"] < high or (node["high"] == high and node["low"] < low))


@kernel
def take_core(s: Any, pool: int) -> int:
    """The lowest core of a pool that is idle; there is one."""
    base = s.pools[pool]["core"]
    core = s.idle[base]
    last = s.pools[pool]["idle"] - 1
    s.pools[pool]["idle"] = last
    moved = s.idle[base + last]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= last:
            break
        if below + 1 < last and s.idle[base + below + 1] < s.idle[base + below]:
            below += 1
        if s.idle[base + below] >= moved:
            break
        s.idle[base + at] = s.idle[base + below]
        at = below
    s.idle[base + at] = moved
    return int(core)


@kernel
def give_core(s: Any, pool: int, core: int) -> None:
    """A core is idle again."""
    base, at = s.pools[pool]["core"], s.pools[pool]["idle"]
    s.pools[pool]["idle"] = at + 1
    while at > 0:
        above = (at - 1) >> 1
        if s.idle[base + above] <= core:
            break
        s.idle[base + at] = s.idle[base + above]
        at = above
    s.idle[base + at] = core
