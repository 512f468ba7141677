"""Messages on connections: one after another, each arrives a latency after its last bit has passed."""

from typing import Any

from capcsim.simulation.engine.flows import begin, end
from capcsim.simulation.engine.graphs import instance_of, log, node_of
from capcsim.simulation.engine.groups import go_on, left_bits
from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.lists import append, drop, pop
from capcsim.simulation.engine.queues import ARRIVES, push_event
from capcsim.simulation.engine.records import NONE, ROUTE


@kernel
def send(s: Any, slot: int, number: int) -> None:
    """A message is ready; without a byte it passes all that wait."""
    connection, now_s = s.connections[number], s.clock["now_s"]
    if node_of(s, slot)["amount"] == 0.0:
        _under_way(s, slot, number, 0)
        return
    append(s, connection, slot)
    if connection["first"] != slot:
        return
    s.slots[slot]["start_s"] = now_s
    begin(s, number, _bits(s, slot))


@kernel
def _bits(s: Any, slot: int) -> float:
    return 8.0 * float(node_of(s, slot)["amount"])


@kernel
def passed(s: Any, number: int, held: int) -> None:
    """The last bit of the first message of a connection has passed, which link `held` up; the next one follows."""
    connection = s.connections[number]
    slot = pop(s, connection)
    _carry(s, number, _bits(s, slot))
    connection["row"] = _under_way(s, slot, number, 0)
    s.log[s.clock["rows"] - 1]["link"] = held
    _follow(s, number)


@kernel
def _follow(s: Any, number: int) -> None:
    """The next message of a connection, or none."""
    connection = s.connections[number]
    slot = connection["first"]
    if slot < 0:
        end(s, number)
        return
    s.slots[slot]["start_s"], s.slots[slot]["waited"] = s.clock["now_s"], connection["row"]
    go_on(s, number, _bits(s, slot))


@kernel
def _under_way(s: Any, slot: int, number: int, cut: int) -> int:
    """Nothing holds it any more: it will arrive, and is written down already; its row."""
    now_s = s.clock["now_s"]
    arrives_s = now_s + s.connections[number]["latency_s"]
    row = log(s, slot, NONE, arrives_s, now_s - s.slots[slot]["start_s"], cut)
    s.slots[slot]["row"] = row
    push_event(s, arrives_s, ARRIVES, slot, instance_of(s, slot)["stamp"])
    return row


@kernel
def _carry(s: Any, number: int, bits: float) -> None:
    for k in range(ROUTE):
        link = s.connections[number]["links"][k]
        if link >= 0:
            s.links[link]["bits"] += bits


@kernel
def break_off(s: Any, number: int) -> None:
    """A connection drops messages of instances that are over; what has passed of the first has passed in vain."""
    connection, now_s = s.connections[number], s.clock["now_s"]
    slot = connection["first"]
    broken = slot >= 0 and instance_of(s, slot)["over"] != 0
    if broken:
        _carry(s, number, _bits(s, slot) - left_bits(s, number))
        connection["row"] = log(s, slot, NONE, now_s, now_s - s.slots[slot]["start_s"], 1)
    drop(s, connection)
    if broken:
        _follow(s, number)
