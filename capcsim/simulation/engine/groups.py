"""Groups of flows over the same watched links: who is in which, and who goes at a rate of its own.

All that are not capped have one rate and one virtual clock, the bits that each of them has carried since the clock
began: a message ends when the clock has come to where it stood, plus its bits. So a new rate costs a group and not its
flows. A flow whose own rate is lower is capped: it keeps that rate, and its message has an end of its own.
"""

from typing import Any

from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.pairing import put, take
from capcsim.simulation.engine.queues import FLOW_ENDS, push_event
from capcsim.simulation.engine.records import NONE, ROUTE

_FEW = 8
"""Flows on a link of which each group's bound is lowered; with more of them, that of all groups."""
_INFINITE = float("inf")


@kernel
def join(s: Any, number: int, bits: float) -> None:
    """A flow with so many bits to go comes into the group of its watched links."""
    place = _group_of(s, number)
    flow, group = s.connections[number], s.groups[place]
    advance(s, place)
    flow["group"], flow["later"], flow["earlier"] = place, group["first"], NONE
    if group["first"] >= 0:
        s.connections[group["first"]]["earlier"] = number
    group["first"] = number
    group["flows"] += 1
    for k in range(ROUTE):
        link = flow["links"][k]
        if link >= 0 and not s.links[link]["watched"] and s.links[link]["flows"] > 1:
            _lower_bounds(s, link)
    if flow["own_bps"] < group["rate_bps"]:
        cap(s, number, bits)
    else:
        uncap(s, number, bits)
    s.clock["dirty"] = 1


@kernel
def leave(s: Any, number: int) -> float:
    """A flow goes out of its group; its bits to go."""
    flow = s.connections[number]
    place = flow["group"]
    group = s.groups[place]
    bits = unlimited(s, number)
    if flow["earlier"] >= 0:
        s.connections[flow["earlier"]]["later"] = flow["later"]
    else:
        group["first"] = flow["later"]
    if flow["later"] >= 0:
        s.connections[flow["later"]]["earlier"] = flow["earlier"]
    group["flows"] -= 1
    flow["group"] = NONE
    s.clock["dirty"] = 1
    if group["flows"] == 0:
        _forget(s, place)
    return bits


@kernel
def go_on(s: Any, number: int, bits: float) -> None:
    """The next message of a flow follows the last one: no rate changes."""
    flow = s.connections[number]
    group = s.groups[flow["group"]]
    if flow["capped"]:
        _end_alone(s, number, bits)
    else:
        advance(s, flow["group"])
        group["ends"] = put(s.ends, take(s.ends, group["ends"], number), number, group["clock_bits"] + bits)
        if group["rate_bps"] > 0.0:
            s.clock["flow_s"] = min(s.clock["flow_s"], s.clock["now_s"] + bits / group["rate_bps"])


@kernel
def left_bits(s: Any, number: int) -> float:
    """What a flow's message has to go."""
    flow = s.connections[number]
    if flow["capped"]:
        left = flow["left_bits"] - flow["own_bps"] * (s.clock["now_s"] - flow["since_s"])
    else:
        advance(s, flow["group"])
        left = s.ends[number]["key"] - s.groups[flow["group"]]["clock_bits"]
    return float(max(left, 0.0))


@kernel
def cap(s: Any, number: int, bits: float) -> None:
    """A flow goes at its own rate, which is below its group's."""
    flow = s.connections[number]
    group = s.groups[flow["group"]]
    flow["capped"] = 1
    group["capped_bps"] += flow["own_bps"]
    group["fastest"] = put(s.fastest, group["fastest"], number, -flow["own_bps"])
    _end_alone(s, number, bits)


@kernel
def _end_alone(s: Any, number: int, bits: float) -> None:
    flow, now_s = s.connections[number], s.clock["now_s"]
    flow["left_bits"], flow["since_s"] = bits, now_s
    flow["stamp"] += 1
    if flow["own_bps"] > 0.0:
        push_event(s, now_s + bits / flow["own_bps"], FLOW_ENDS, number, flow["stamp"])


@kernel
def uncap(s: Any, number: int, bits: float) -> None:
    """A flow goes at its group's rate."""
    flow = s.connections[number]
    group = s.groups[flow["group"]]
    flow["capped"] = 0
    if group["uncapped"] == 0:
        group["clock_bits"] = 0.0
    group["uncapped"] += 1
    group["ends"] = put(s.ends, group["ends"], number, group["clock_bits"] + bits)
    if flow["own_bps"] < _INFINITE:
        group["slowest"] = put(s.slowest, group["slowest"], number, flow["own_bps"])


@kernel
def unlimited(s: Any, number: int) -> float:
    """A flow is neither capped nor not, for a moment; its bits to go."""
    flow = s.connections[number]
    bits = left_bits(s, number)
    group = s.groups[flow["group"]]
    if flow["capped"]:
        group["fastest"] = take(s.fastest, group["fastest"], number)
        # What rounding has left must not outlive the last of them.
        group["capped_bps"] = group["capped_bps"] - flow["own_bps"] if group["fastest"] >= 0 else 0.0
        flow["stamp"] += 1
        return bits
    group["ends"] = take(s.ends, group["ends"], number)
    if flow["own_bps"] < _INFINITE:
        group["slowest"] = take(s.slowest, group["slowest"], number)
    group["uncapped"] -= 1
    return bits


@kernel
def advance(s: Any, place: int) -> None:
    """A group's clock is at now."""
    group, now_s = s.groups[place], s.clock["now_s"]
    if now_s > group["since_s"]:
        if group["uncapped"] > 0:
            group["clock_bits"] += group["rate_bps"] * (now_s - group["since_s"])
        group["since_s"] = now_s


@kernel
def _lower_bounds(s: Any, number: int) -> None:
    """One flow more shares a link that is not watched: who has more than an equal share is to be looked at."""
    link = s.links[number]
    share_bps = link["bps"] / link["flows"]
    if link["flows"] > _FEW:
        for i in range(s.clock["groups"]):
            group = s.groups[s.active[i]]
            group["bound_bps"] = min(group["bound_bps"], share_bps)
        return
    at = link["first"]
    while at >= 0:
        flow = s.connections[at // ROUTE]
        if flow["group"] >= 0:
            group = s.groups[flow["group"]]
            group["bound_bps"] = min(group["bound_bps"], share_bps)
        at = flow["next"][at % ROUTE]


# -- which groups there are --------------------------------------------------------------------------------------------


@kernel
def _group_of(s: Any, number: int) -> int:
    """The group of a flow's watched links, which may be new."""
    links = _watched_links(s, number)
    bucket = _bucket(s, links)
    place = s.alike[bucket]
    while place >= 0:
        known = s.groups[place]["links"]
        if known[0] == links[0] and known[1] == links[1] and known[2] == links[2] and known[3] == links[3]:
            return int(place)
        place = s.groups[place]["alike"]
    place = s.clock["free_group"]
    group = s.groups[place]
    s.clock["free_group"] = group["alike"]
    for k in range(ROUTE):
        group["links"][k] = links[k]
    group["alike"] = s.alike[bucket]
    s.alike[bucket] = place
    group["flows"] = group["uncapped"] = 0
    group["capped_bps"] = group["clock_bits"] = 0.0
    group["since_s"] = s.clock["now_s"]
    group["rate_bps"] = group["bound_bps"] = _INFINITE
    group["first"] = group["ends"] = group["slowest"] = group["fastest"] = NONE
    group["place"] = s.clock["groups"]
    s.active[group["place"]] = place
    s.clock["groups"] += 1
    return int(place)


@kernel
def _forget(s: Any, place: int) -> None:
    """A group without a flow is none."""
    group = s.groups[place]
    bucket = _bucket(s, group["links"])
    if s.alike[bucket] == place:
        s.alike[bucket] = group["alike"]
    else:
        other = s.alike[bucket]
        while s.groups[other]["alike"] != place:
            other = s.groups[other]["alike"]
        s.groups[other]["alike"] = group["alike"]
    s.clock["groups"] -= 1
    moved = s.active[s.clock["groups"]]
    s.active[group["place"]] = moved
    s.groups[moved]["place"] = group["place"]
    group["alike"] = s.clock["free_group"]
    s.clock["free_group"] = place


@kernel
def _bucket(s: Any, links: Any) -> int:
    found = 0
    for k in range(ROUTE):
        found = (found * 1_000_003 + int(links[k]) + 1) & 0x7FFFFFFF
    return found % len(s.alike)


@kernel
def _watched_links(s: Any, number: int) -> tuple[int, int, int, int]:
    """The watched links of a flow's route, ascending, then NONE."""
    most = 1 << 62
    a = b = c = d = most
    for k in range(ROUTE):
        link = int(s.connections[number]["links"][k])
        if link < 0 or not s.links[link]["watched"]:
            continue
        if link < a:
            a, b, c, d = link, a, b, c
        elif link < b:
            b, c, d = link, b, c
        elif link < c:
            c, d = link, c
        else:
            d = link
    return a if a < most else NONE, b if b < most else NONE, c if c < most else NONE, d if d < most else NONE
