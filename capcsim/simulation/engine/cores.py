"""Work on cores: first ready, first served, on the lowest core of its machine's pool that is idle; not preempted.

A machine that stands (its speed is 0) keeps the cores that its work has, and begins nothing.
"""

from typing import Any

from capcsim.simulation.engine.graphs import ended, log, node_of
from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.lists import append, drop, pop
from capcsim.simulation.engine.queues import WORK_ENDS, give_core, push_event, take_core
from capcsim.simulation.engine.records import NONE


@kernel
def queue_work(s: Any, slot: int, machine: int) -> None:
    """Work is ready."""
    s.slots[slot]["machine"] = machine
    number = s.machines[machine]["pool"]
    if s.machines[machine]["speed"] == 0.0:
        append(s, s.machines[machine], slot)
    elif s.pools[number]["idle"] > 0:
        _occupy(s, slot, number)
    else:
        append(s, s.pools[number], slot)


@kernel
def _occupy(s: Any, slot: int, pool: int) -> None:
    number = take_core(s, pool)
    core, node, now_s = s.cores[number], s.slots[slot], s.clock["now_s"]
    if now_s > node["ready_s"]:
        node["waited"] = core["row"]
    node["start_s"] = now_s
    core["slot"], core["since_s"], core["spent_s"] = slot, now_s, 0.0
    core["end_s"] = now_s + node_of(s, slot)["amount"] / s.machines[node["machine"]]["speed"]
    core["stamp"] += 1
    push_event(s, core["end_s"], WORK_ENDS, number, core["stamp"])


@kernel
def work_ends(s: Any, number: int) -> None:
    """A core is through with its work."""
    slot = s.cores[number]["slot"]
    row = _let_go(s, number, 0)
    ended(s, slot, row)


@kernel
def break_off(s: Any, number: int) -> None:
    """A core drops its work, for which it has worked in vain."""
    _let_go(s, number, 1)


@kernel
def _let_go(s: Any, number: int, cut: int) -> int:
    """A core is free for the next; the row of what it worked on."""
    core, now_s = s.cores[number], s.clock["now_s"]
    slot = core["slot"]
    if s.machines[s.slots[slot]["machine"]]["speed"] > 0.0:
        core["spent_s"] += now_s - core["since_s"]
    core["busy_s"] += core["spent_s"]
    row = log(s, slot, number, now_s, core["spent_s"], cut)
    core["row"], core["slot"] = row, NONE
    core["stamp"] += 1
    give_core(s, core["pool"], number)
    serve(s, core["pool"])
    return row


@kernel
def serve(s: Any, number: int) -> None:
    """Idle cores take what waits."""
    pool = s.pools[number]
    while pool["first"] >= 0 and pool["idle"] > 0:
        _occupy(s, pop(s, pool), number)


@kernel
def set_speed(s: Any, number: int, speed: float) -> None:
    """A machine goes on faster or slower, or (0) stands, or goes on again."""
    machine, now_s = s.machines[number], s.clock["now_s"]
    pool, before = s.pools[machine["pool"]], machine["speed"]
    machine["speed"] = speed
    for k in range(pool["core"], pool["core"] + pool["cores"]):
        core = s.cores[k]
        if core["slot"] < 0 or s.slots[core["slot"]]["machine"] != number:
            continue
        left = core["end_s"] if before == 0.0 else (core["end_s"] - now_s) * before
        if before > 0.0:
            core["spent_s"] += now_s - core["since_s"]
        core["since_s"] = now_s
        core["stamp"] += 1
        if speed == 0.0:
            core["end_s"] = left
        else:
            core["end_s"] = now_s + left / speed
            push_event(s, core["end_s"], WORK_ENDS, k, core["stamp"])
    if speed == 0.0:
        _set_aside(s, number)
    else:
        while machine["first"] >= 0:
            append(s, pool, pop(s, machine))
        serve(s, machine["pool"])


@kernel
def _set_aside(s: Any, number: int) -> None:
    """What waits for a core of a machine that stands waits in the machine's list."""
    pool = s.pools[s.machines[number]["pool"]]
    slot = pool["first"]
    pool["first"] = pool["last"] = NONE
    while slot >= 0:
        following = s.slots[slot]["next"]
        if s.slots[slot]["machine"] == number:
            append(s, s.machines[number], slot)
        else:
            append(s, pool, slot)
        slot = following


@kernel
def drop_waiting(s: Any, machine: int) -> None:
    """Work of instances that are over waits no longer for a core of a machine."""
    drop(s, s.machines[machine])
    drop(s, s.pools[s.machines[machine]["pool"]])
