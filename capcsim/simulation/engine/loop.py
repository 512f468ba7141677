"""Time passes: the one function of the kernel that Python calls, and the commands that it obeys first."""

from typing import Any

from capcsim.simulation.engine.cores import break_off as break_off_work
from capcsim.simulation.engine.cores import drop_waiting, queue_work, set_speed, work_ends
from capcsim.simulation.engine.flows import narrowest, set_capacity, set_window
from capcsim.simulation.engine.graphs import (
    GATE,
    WORK,
    close,
    count_down,
    ended,
    instance_of,
    log,
    node_of,
    start,
    wait_for,
)
from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.lists import drop
from capcsim.simulation.engine.messages import break_off as break_off_message
from capcsim.simulation.engine.messages import passed, send
from capcsim.simulation.engine.queues import FLOW_ENDS, WORK_ENDS, drop_event, holds, pop_ready, push_ready
from capcsim.simulation.engine.rates import collect_ends, next_end, share_out
from capcsim.simulation.engine.records import NONE, ROLES

DONE, TOLD, FULL = 0, 1, 2
"""Why the kernel gives control back: the time is reached, a latch is to be told, or log or events have no room."""
START, WAIT, COUNT, CAPACITY, WINDOW, SPEED, ABORT = range(7)
"""Commands: start template a at place b as batch c with latches from d on, counting down e as it ends; let node a of
what was started last wait for latch b; count latch a down; link a has capacity `value`; connection a has window
`value`, in bits/s; machine a has speed `value`; break off batch b (all where it is NONE) at place a."""
_INFINITE = float("inf")


@kernel
def run(s: Any, until_s: float) -> int:
    """Let everything happen up to and at a time, or until something is to be told at this instant."""
    clock = s.clock
    while True:
        while clock["obeyed"] < clock["commands"]:
            if not _has_room(s, len(s.cores) + len(s.connections)):
                return FULL
            _obey(s, s.commands[clock["obeyed"]])
            clock["obeyed"] += 1
        clock["commands"] = clock["obeyed"] = 0
        while clock["ready"] > 0:
            if not _has_room(s, 2):
                return FULL
            _begin(s, pop_ready(s))
        if clock["dirty"]:
            share_out(s)
        if clock["told"] > 0:
            return TOLD
        while clock["events"] > 0 and not holds(s, s.events[0]):
            drop_event(s)
        next_s = clock["flow_s"]
        if clock["events"] > 0 and s.events[0]["at_s"] < next_s:
            next_s = s.events[0]["at_s"]
        if next_s > until_s or next_s == _INFINITE:
            if until_s < _INFINITE and until_s > clock["now_s"]:
                clock["now_s"] = until_s
            return DONE
        if not _has_room(s, len(s.cores) + len(s.connections)):
            return FULL
        clock["now_s"] = next_s
        while clock["events"] > 0 and s.events[0]["at_s"] <= next_s:
            if not _has_room(s, 2):
                return FULL
            _happen(s)
        if clock["flow_s"] <= next_s:
            _flows_end(s)


@kernel
def _has_room(s: Any, rows: int) -> bool:
    """Whether so many rows more have room, at least."""
    return bool(s.clock["rows"] + rows < len(s.log))


@kernel
def _begin(s: Any, slot: int) -> None:
    """A node that is ready begins, or queues."""
    instance, node = instance_of(s, slot), node_of(s, slot)
    waiting, now_s = s.slots[slot], s.clock["now_s"]
    waiting["ready_s"] = waiting["start_s"] = now_s
    waiting["waited"] = NONE
    place = s.places[instance["place"]]
    if node["kind"] == GATE:
        ended(s, slot, waiting["row"])
    elif node["kind"] == WORK:
        if node["amount"] == 0.0:
            ended(s, slot, log(s, slot, NONE, now_s, 0.0, 0))
        else:
            queue_work(s, slot, place["machines"][node["role"]])
    else:
        connection = place["connections"][ROLES * node["role"] + node["to"]]
        if connection < 0:
            ended(s, slot, log(s, slot, NONE, now_s, 0.0, 0))
        else:
            send(s, slot, connection)


@kernel
def _happen(s: Any) -> None:
    """The first event."""
    event = s.events[0]
    kind, number, happens = event["kind"], event["number"], holds(s, event)
    drop_event(s)
    if not happens:
        return
    if kind == WORK_ENDS:
        work_ends(s, number)
    elif kind == FLOW_ENDS:
        passed(s, number, narrowest(s, number))
    else:
        ended(s, number, s.slots[number]["row"])


@kernel
def _flows_end(s: Any) -> None:
    """All messages that pass now at their group's rate."""
    count = collect_ends(s)
    # Before any of them ends: then there are fewer on its links.
    for i in range(count):
        s.connections[s.ending[i]]["held"] = narrowest(s, s.ending[i])
    for i in range(count):
        passed(s, s.ending[i], s.connections[s.ending[i]]["held"])
    if not s.clock["dirty"]:
        next_end(s)


@kernel
def _obey(s: Any, command: Any) -> None:
    kind, a, b = command["kind"], command["a"], command["b"]
    if kind == START:
        start(s, a, b, command["c"], command["d"], command["e"])
    elif kind == WAIT:
        wait_for(s, s.instances[s.clock["started"]]["base"] + a, b)
    elif kind == COUNT:
        count_down(s, a, NONE)
    elif kind == CAPACITY:
        set_capacity(s, a, command["value"])
    elif kind == WINDOW:
        set_window(s, a, command["value"])
    elif kind == SPEED:
        set_speed(s, a, command["value"])
    else:
        _abort(s, a, b)


@kernel
def _abort(s: Any, number: int, batch: int) -> None:
    """Nothing of a batch at a place goes on; whoever waits for all of a graph is told that it is over."""
    for k in range(len(s.instances)):
        instance = s.instances[k]
        meant = instance["place"] == number and (instance["batch"] == batch or batch < 0)
        instance["over"] = instance["live"] and meant
    place = s.places[number]
    for role in range(ROLES):
        if place["machines"][role] >= 0:
            drop_waiting(s, place["machines"][role])
    for core in range(len(s.cores)):
        if s.cores[core]["slot"] >= 0 and instance_of(s, s.cores[core]["slot"])["over"]:
            break_off_work(s, core)
    for k in range(ROLES * ROLES):
        if place["connections"][k] >= 0:
            break_off_message(s, place["connections"][k])
    _forget_ready(s)
    for k in range(len(s.latches)):
        if s.latches[k]["first"] >= 0:
            drop(s, s.latches[k])
    for k in range(len(s.instances)):
        if s.instances[k]["over"]:
            s.instances[k]["over"] = 0
            close(s, k, NONE)


@kernel
def _forget_ready(s: Any) -> None:
    """What is ready at this instant and over does not begin."""
    kept = s.clock["ready"]
    s.clock["ready"] = 0
    for k in range(kept):
        slot = s.ready[k]["slot"]
        if not instance_of(s, slot)["over"]:
            push_ready(s, slot)
