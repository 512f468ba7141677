"""Rates: max-min fair shares of the links by progressive filling (Bertsekas and Gallager, Data Networks, 6.5.2).

All links fill evenly; the flows of a link that is full keep what they have, and the others share what is left. Between
groups that is exact as long as no link that is not watched is overfull, and capped flows are those whose own rate is
below their group's: what is found to be otherwise is put right, until nothing is.
"""

from typing import Any

from capcsim.simulation.engine.flows import unwatch, watch
from capcsim.simulation.engine.groups import advance, cap, uncap, unlimited
from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.records import NONE, ROUTE

_SLACK = 1e-12
"""Rates that are so close, relatively, are equal."""
_FAR = 0.5
"""A link is watched no more when its flows cannot fill this part of it."""
_INFINITE = float("inf")


@kernel
def share_out(s: Any) -> None:
    """New rates at this instant."""
    for i in range(s.clock["groups"]):
        advance(s, s.active[i])
    while True:
        _fill(s)
        if not (_move_caps(s) or _watch_more(s) or _watch_less(s)):
            break
    s.clock["dirty"] = 0
    next_end(s)


@kernel
def _fill(s: Any) -> None:
    """The rate of each group: the lowest level at which one of its links is full."""
    left = _empty_links(s)
    while left > 0:
        level_bps = _mark_full(s)
        if level_bps == _INFINITE:
            break
        for i in range(s.clock["groups"]):
            group = s.groups[s.active[i]]
            if group["uncapped"] > 0 and group["level_bps"] == _INFINITE and _on_a_full_link(s, group):
                group["level_bps"] = level_bps
                left -= 1
                for k in range(ROUTE):
                    if group["links"][k] >= 0:
                        link = s.links[group["links"][k]]
                        link["left_bps"] -= level_bps * group["uncapped"]
                        link["sharing"] -= group["uncapped"]
    _set_rates(s)


@kernel
def _empty_links(s: Any) -> int:
    """Nobody has anything but those that are capped; how many groups have others."""
    found = 0
    for i in range(s.clock["watched"]):
        link = s.links[s.watched[i]]
        link["left_bps"], link["sharing"], link["level_bps"] = link["bps"], 0, _INFINITE
    for i in range(s.clock["groups"]):
        group = s.groups[s.active[i]]
        group["level_bps"] = _INFINITE
        if group["uncapped"] > 0:
            found += 1
        for k in range(ROUTE):
            if group["links"][k] >= 0:
                link = s.links[group["links"][k]]
                link["left_bps"] -= group["capped_bps"]
                link["sharing"] += group["uncapped"]
    return found


@kernel
def _mark_full(s: Any) -> float:
    """The next level at which a link is full; those that are then are marked."""
    level_bps = _INFINITE
    for i in range(s.clock["watched"]):
        link = s.links[s.watched[i]]
        if link["sharing"] > 0:
            level_bps = min(level_bps, max(link["left_bps"], 0.0) / link["sharing"])
    for i in range(s.clock["watched"]):
        link = s.links[s.watched[i]]
        link["full"] = 0
        if link["sharing"] > 0 and max(link["left_bps"], 0.0) / link["sharing"] <= level_bps:
            link["full"], link["level_bps"] = 1, level_bps
    return level_bps


@kernel
def _on_a_full_link(s: Any, group: Any) -> bool:
    # Not any(): numba compiles no generator expression.
    for k in range(ROUTE):  # noqa: SIM110
        if group["links"][k] >= 0 and s.links[group["links"][k]]["full"]:
            return True
    return False


@kernel
def _set_rates(s: Any) -> None:
    for i in range(s.clock["watched"]):
        link = s.links[s.watched[i]]
        if link["level_bps"] == _INFINITE and link["left_bps"] < -_SLACK * link["bps"]:
            link["level_bps"] = 0.0  # the own rates of its flows are too much together
    for i in range(s.clock["groups"]):
        group = s.groups[s.active[i]]
        if group["uncapped"] == 0:
            for k in range(ROUTE):
                if group["links"][k] >= 0:
                    group["level_bps"] = min(group["level_bps"], s.links[group["links"][k]]["level_bps"])
        group["rate_bps"] = group["level_bps"]


@kernel
def _move_caps(s: Any) -> bool:
    """Let flows keep to their own rates where these are below their group's, and only there; whether any did not."""
    moved = False
    for i in range(s.clock["groups"]):
        group = s.groups[s.active[i]]
        while group["slowest"] >= 0:
            flow = group["slowest"]
            if not s.connections[flow]["own_bps"] < group["rate_bps"] * (1 - _SLACK):
                break
            cap(s, flow, unlimited(s, flow))
            moved = True
        while group["fastest"] >= 0:
            flow = group["fastest"]
            if not s.connections[flow]["own_bps"] > group["rate_bps"] * (1 + _SLACK):
                break
            uncap(s, flow, unlimited(s, flow))
            moved = True
    return moved


@kernel
def _watch_more(s: Any) -> bool:
    """Watch links on which a flow has more than an equal share: they could be overfull; whether there was one."""
    found = False
    i = 0
    while i < s.clock["groups"]:
        place = s.active[i]
        i += 1
        if _highest_bps(s, s.groups[place]) <= s.groups[place]["bound_bps"] * (1 + _SLACK):
            continue
        link = _overfull(s, place)
        if link >= 0:
            watch(s, link)
            found = True
            i = 0  # the groups are others now
    return found


@kernel
def _highest_bps(s: Any, group: Any) -> float:
    """The highest rate in a group."""
    return float(group["rate_bps"] if group["uncapped"] > 0 else s.connections[group["fastest"]]["own_bps"])


@kernel
def _overfull(s: Any, place: int) -> int:
    """A link, not watched, on which a flow of a group has more than an equal share; or NONE, and a bound."""
    group = s.groups[place]
    bound_bps = _INFINITE
    number = group["first"]
    while number >= 0:
        flow = s.connections[number]
        rate_bps = flow["own_bps"] if flow["capped"] else group["rate_bps"]
        for k in range(ROUTE):
            link = flow["links"][k]
            if link < 0 or s.links[link]["watched"] or s.links[link]["flows"] < 2:
                continue
            share_bps = s.links[link]["bps"] / s.links[link]["flows"]
            if rate_bps > share_bps * (1 + _SLACK):
                return int(link)
            bound_bps = min(bound_bps, share_bps)
        number = flow["later"]
    group["bound_bps"] = bound_bps
    return NONE


@kernel
def _watch_less(s: Any) -> bool:
    """Watch no more what is far from full, whoever is on it; whether there was any."""
    for i in range(s.clock["watched"]):
        s.links[s.watched[i]]["fastest_bps"] = 0.0
    for i in range(s.clock["groups"]):
        group = s.groups[s.active[i]]
        highest_bps = _highest_bps(s, group)
        for k in range(ROUTE):
            if group["links"][k] >= 0:
                link = s.links[group["links"][k]]
                link["fastest_bps"] = max(link["fastest_bps"], highest_bps)
    i, found = 0, False
    while i < s.clock["watched"]:
        link = s.links[s.watched[i]]
        if link["fastest_bps"] * link["flows"] < _FAR * link["bps"]:
            unwatch(s, s.watched[i])
            found = True
        else:
            i += 1
    return found


@kernel
def next_end(s: Any) -> None:
    """When the next message passes that goes at its group's rate."""
    first_s = _INFINITE
    for i in range(s.clock["groups"]):
        group = s.groups[s.active[i]]
        if group["uncapped"] > 0 and group["rate_bps"] > 0.0:
            left_bits = s.ends[group["ends"]]["key"] - group["clock_bits"]
            first_s = min(first_s, group["since_s"] + max(left_bits, 0.0) / group["rate_bps"])
    s.clock["flow_s"] = first_s


@kernel
def collect_ends(s: Any) -> int:
    """Write into `ending` the flows whose group's clock has come to the end of their message; how many."""
    now_s, count = s.clock["now_s"], 0
    for i in range(s.clock["groups"]):
        group = s.groups[s.active[i]]
        if group["uncapped"] == 0 or group["rate_bps"] == 0.0:
            continue
        key = s.ends[group["ends"]]["key"]
        if group["since_s"] + max(key - group["clock_bits"], 0.0) / group["rate_bps"] <= now_s:
            group["clock_bits"], group["since_s"] = key, now_s
            count = _collect(s, group["ends"], key, count)
    return count


@kernel
def _collect(s: Any, root: int, key: float, count: int) -> int:
    """All of a heap that end at `key`; none is taken out yet."""
    at = count
    s.ending[count] = root
    count += 1
    while at < count:
        child = s.ends[s.ending[at]]["child"]
        at += 1
        while child >= 0:
            if s.ends[child]["key"] <= key:
                s.ending[count] = child
                count += 1
            child = s.ends[child]["next"]
    return count
