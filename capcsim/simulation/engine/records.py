"""What the kernel's arrays hold, a record each. Things are named by their place in an array; NONE is no thing."""

from typing import Any

import numpy as np

NONE = -1
ROUTE = 4
"""Most links of a route: out of a machine, out of its site, into another site, into a machine."""
ROLES = 4
"""As many as `capcsim.backend.Role` has."""


def _record(*fields: tuple[str, Any] | tuple[str, Any, tuple[int, ...]]) -> np.dtype[np.void]:
    return np.dtype(list(fields))


def _numbers(*names: str) -> list[tuple[str, str]]:
    return [(name, "i8") for name in names]


def _reals(*names: str) -> list[tuple[str, str]]:
    return [(name, "f8") for name in names]


CLOCK = _record(
    *_reals("now_s", "flow_s"),
    *_numbers("events", "ready", "told", "commands", "obeyed", "rows", "row", "dirty"),
    *_numbers("groups", "free_group", "watched", "slots", "free_instance", "live", "started", "starts"),
)
"""Now, the end of the next message that goes at its group's rate, and how many of each thing there are.

`rows` are in the log at present, `row` is the number of the next one; `dirty` says that rates must be shared out anew;
`slots` are in use or free again; `started` is the instance that was started last, of `starts`.
"""

COMMAND = _record(*_numbers("kind", "a", "b", "c", "d", "e"), ("value", "f8"))
"""What Python asks for, done before time goes on; `commands` says what a to e and the value are."""

EVENT = _record(("at_s", "f8"), *_numbers("kind", "number", "stamp"))
"""Something that will happen; it does not, where its thing has another stamp by then."""

READY = _record(*_numbers("high", "low", "slot"))
"""A node that can begin, and its place among those of one instant: session and batch, pair and node."""

NODE = _record(*_numbers("kind", "role", "to", "after", "first", "last", "out"), ("amount", "f8"))
"""One node of a template: a role's work of `amount` seconds, a message of `amount` bytes to a role, or a gate.

It waits for `after` others; its successors stand at first to last - 1 of `successors`; as it ends it counts down latch
`out` of its instance's.
"""
TEMPLATE = _record(*_numbers("first", "count", "size"))
"""A graph: `count` nodes from `first` on; an instance has 2^size slots."""

PLACE = _record(*_numbers("session", "pair"), ("machines", "i8", (ROLES,)), ("connections", "i8", (ROLES * ROLES,)))
"""Where graphs run: the machine of each role, and the connection from role i to role j at ROLES * i + j."""

INSTANCE = _record(*_numbers("template", "place", "batch", "base", "left", "latches", "done", "stamp", "live", "over"))
"""A graph under way: node n is in slot base + n; `left` nodes have not ended. Its nodes count down
latches from `latches` on, it counts down `done`.

`left` is the next free instance where this one is not live.
"""
SLOT = _record(*_numbers("instance", "node", "left", "row", "next", "machine", "waited"), *_reals("ready_s", "start_s"))
"""A node under way: it waits for `left` others, the last of which is in `row`.

`next` waits behind it, for a core, a connection or a latch; `waited` is the row of what it waited for, once ready.
"""
LATCH = _record(*_numbers("left", "row", "next", "first", "last", "tell"))
"""Opens when it is counted down to none: the gates from `first` on, then it counts down `next`, then it may be told."""

MACHINE = _record(*_numbers("pool", "first", "last"), ("speed", "f8"))
"""It works on the cores of a pool; while its speed is 0 its work waits, in the list from `first` on."""
POOL = _record(*_numbers("core", "cores", "idle", "first", "last"))
"""`cores` cores from `core` on, and the work that waits for one; its idle ones are a heap from there on in `idle`."""
CORE = _record(*_numbers("slot", "pool", "stamp", "row"), *_reals("since_s", "end_s", "spent_s", "busy_s"))
"""What runs on it until when, its last row, and how long it has worked, in all before that.

It has spent `spent_s` on it up to `since_s`. While its machine stands, `end_s` is the work that is left.
"""

LINK = _record(
    *_reals("bps", "bits", "left_bps", "level_bps", "fastest_bps"),
    *_numbers("flows", "first", "watched", "place", "sharing", "full"),
)
"""One direction of a line: how many flows use it, and the list of them (a flow and the place of the link in its route).

It is watched while it can be full. It fills at the rate `level_bps`.
"""
CONNECTION = _record(
    ("links", "i8", (ROUTE,)),
    ("next", "i8", (ROUTE,)),
    ("before", "i8", (ROUTE,)),
    *_reals("latency_s", "cap_bps", "own_bps", "left_bits", "since_s", "sent_bits"),
    *_numbers("group", "capped", "later", "earlier", "stamp", "first", "last", "row", "held"),
)
"""Messages from `first` on go in order over `links`, at most at `cap_bps`. While it carries something it is a flow.

`own_bps` is what it could have if nobody else were there. A flow that is capped goes at that rate and has `left_bits`
to go at `since_s`; the others have their group's. `held` is the link that holds a message up that passes now.
"""
GROUP = _record(
    ("links", "i8", (ROUTE,)),
    *_reals("rate_bps", "capped_bps", "level_bps", "bound_bps", "clock_bits", "since_s"),
    *_numbers("flows", "uncapped", "first", "ends", "slowest", "fastest", "place", "alike"),
)
"""Flows over the same watched links: those that are not capped have one rate, and a clock: what each
has carried, `clock_bits` at `since_s`.

`bound_bps` is a rate up to which no link that is not watched can be full.
"""
HEAP = _record(("key", "f8"), *_numbers("child", "next", "before"))

LOG = _record(
    *[(name, "i4") for name in ("place", "batch", "template", "node", "core", "cut", "link")],
    *_numbers("by", "waited"),
    *_reals("ready_s", "start_s", "end_s", "busy_s"),
)
"""A node that has ended, or (cut) that was broken off: released by the row `by`, then it waited for the row `waited`.

A core worked on it, or a connection carried it, for `busy_s`; `link` is what held a message up as its last bit passed.
"""
