"""Flows: connections while they carry something, on the links of their routes.

A link is watched while it could be full: of the others nobody needs to know more than how many flows they have.
"""

from typing import Any

from capcsim.simulation.engine.groups import join, leave
from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.records import NONE, ROUTE

_INFINITE = float("inf")


@kernel
def begin(s: Any, number: int, bits: float) -> None:
    """A connection carries something from now on."""
    flow = s.connections[number]
    for k in range(ROUTE):
        if flow["links"][k] < 0:
            continue
        link = s.links[flow["links"][k]]
        first = link["first"]
        flow["next"][k], flow["before"][k] = first, NONE
        if first >= 0:
            s.connections[first // ROUTE]["before"][first % ROUTE] = ROUTE * number + k
        link["first"] = ROUTE * number + k
        link["flows"] += 1
        if link["flows"] == 2:
            _tune(s, first // ROUTE)
    flow["own_bps"] = _own_bps(s, number)
    join(s, number, bits)


@kernel
def end(s: Any, number: int) -> None:
    """It carries nothing any more."""
    leave(s, number)
    flow = s.connections[number]
    for k in range(ROUTE):
        place = flow["links"][k]
        if place < 0:
            continue
        link, after, before = s.links[place], flow["next"][k], flow["before"][k]
        if before >= 0:
            s.connections[before // ROUTE]["next"][before % ROUTE] = after
        else:
            link["first"] = after
        if after >= 0:
            s.connections[after // ROUTE]["before"][after % ROUTE] = before
        link["flows"] -= 1
        if link["flows"] <= 1 and link["watched"]:
            unwatch(s, place)
        if link["flows"] == 1:
            _tune(s, link["first"] // ROUTE)


@kernel
def _own_bps(s: Any, number: int) -> float:
    """The rate that a flow could have if nobody else were there: its window's, and that of links that it has alone."""
    flow = s.connections[number]
    own_bps = flow["cap_bps"]
    for k in range(ROUTE):
        link = flow["links"][k]
        if link >= 0 and s.links[link]["flows"] == 1:
            own_bps = min(own_bps, s.links[link]["bps"])
    return float(own_bps)


@kernel
def _tune(s: Any, number: int) -> None:
    """A flow's own rate may be another."""
    own_bps = _own_bps(s, number)
    flow = s.connections[number]
    if own_bps == flow["own_bps"]:
        return
    if flow["group"] < 0:
        flow["own_bps"] = own_bps
        return
    bits = leave(s, number)
    flow["own_bps"] = own_bps
    join(s, number, bits)


@kernel
def narrowest(s: Any, number: int) -> int:
    """The link that holds a flow up: one that is full, or that it has for itself; NONE where its window does."""
    flow = s.connections[number]
    found, least_bps = NONE, flow["cap_bps"]
    for k in range(ROUTE):
        place = flow["links"][k]
        if place < 0:
            continue
        link = s.links[place]
        level_bps = _INFINITE
        if link["watched"]:
            level_bps = link["level_bps"]
        elif link["flows"] == 1:
            level_bps = link["bps"]
        if level_bps < least_bps:
            found, least_bps = place, level_bps
    return int(found)


@kernel
def set_window(s: Any, number: int, bps: float) -> None:
    """Another cap for a connection, which need not carry anything."""
    s.connections[number]["cap_bps"] = bps
    if s.connections[number]["group"] >= 0:
        _tune(s, number)


@kernel
def set_capacity(s: Any, number: int, bps: float) -> None:
    """Another capacity for a link; with 0 nothing passes."""
    link = s.links[number]
    link["bps"] = bps
    s.clock["dirty"] = 1
    if link["flows"] == 1:
        _tune(s, link["first"] // ROUTE)
    at = link["first"]
    while at >= 0:
        flow = s.connections[at // ROUTE]
        s.groups[flow["group"]]["bound_bps"] = 0.0
        at = flow["next"][at % ROUTE]


@kernel
def watch(s: Any, number: int) -> None:
    """A link could be full."""
    s.links[number]["place"] = s.clock["watched"]
    s.watched[s.clock["watched"]] = number
    s.clock["watched"] += 1
    _set_watched(s, number, 1)


@kernel
def unwatch(s: Any, number: int) -> None:
    """It cannot be full."""
    s.clock["watched"] -= 1
    moved = s.watched[s.clock["watched"]]
    s.watched[s.links[number]["place"]] = moved
    s.links[moved]["place"] = s.links[number]["place"]
    _set_watched(s, number, 0)


@kernel
def _set_watched(s: Any, number: int, watched: int) -> None:
    """Its flows are in other groups from now on."""
    link = s.links[number]
    link["watched"] = watched
    at = link["first"]
    while at >= 0:
        flow = at // ROUTE
        at = s.connections[flow]["next"][at % ROUTE]
        if s.connections[flow]["group"] >= 0:
            join(s, flow, leave(s, flow))
