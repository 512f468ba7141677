"""The kernel's state: arrays of records, made and grown by Python, and changed by the kernel, compiled or not."""

from typing import Any

import numpy as np

from capcsim.simulation.engine.records import (
    CLOCK,
    COMMAND,
    CONNECTION,
    CORE,
    EVENT,
    GROUP,
    HEAP,
    INSTANCE,
    LATCH,
    LINK,
    LOG,
    MACHINE,
    NODE,
    NONE,
    PLACE,
    POOL,
    READY,
    SLOT,
    TEMPLATE,
)

NUMBER = np.dtype("i8")
FIELDS: dict[str, np.dtype[Any]] = {
    "clock": CLOCK,
    "commands": COMMAND,
    "events": EVENT,
    "ready": READY,
    "told": NUMBER,
    "nodes": NODE,
    "successors": NUMBER,
    "templates": TEMPLATE,
    "places": PLACE,
    "instances": INSTANCE,
    "slots": SLOT,
    "free": NUMBER,
    "latches": LATCH,
    "machines": MACHINE,
    "pools": POOL,
    "cores": CORE,
    "idle": NUMBER,
    "links": LINK,
    "connections": CONNECTION,
    "groups": GROUP,
    "alike": NUMBER,
    "active": NUMBER,
    "watched": NUMBER,
    "ending": NUMBER,
    "ends": HEAP,
    "slowest": HEAP,
    "fastest": HEAP,
    "log": LOG,
}
"""`free` are the first free slots of each size; `alike` are the groups by a hash of their links, `active` those that
exist, `watched` links, `ending` flows that end now; `ends`, `slowest` and `fastest` are heaps of flows, a group's each:
by end, by own rate, by own rate downwards."""
_BUCKETS, _EVENTS, _LOG, _SIZES = 1024, 1 << 10, 1 << 14, 40
_FOR_EACH = {
    "connections": ("ending", "ends", "slowest", "fastest"),
    "instances": (),
    "latches": ("told",),
    "links": ("watched",),
    "cores": ("idle",),
}


class State:
    """An attribute for each of FIELDS; `address` is that of a table of their addresses and lengths.

    `clock` is the one record itself.
    """

    def __init__(self, log_rows: int = _LOG) -> None:
        self._table = np.zeros((len(FIELDS), 2), np.int64)
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        for name, dtype in FIELDS.items():
            self._set(name, np.zeros(0, dtype))
        self.grow("clock", 1)
        self.grow("events", _EVENTS)
        self.grow("log", log_rows)
        self.grow("groups", 2)
        self.grow("alike", _BUCKETS)
        self.grow("free", _SIZES)
        clock = self.clock
        clock["flow_s"], clock["free_instance"], clock["free_group"] = np.inf, NONE, 0
        clock["started"] = NONE

    @property
    def address(self) -> int:
        """Of the table, for compiled code."""
        return int(self._table.ctypes.data)

    def grow(self, name: str, size: int) -> None:
        """Make room for `size` of something, and for what there is one of for each."""
        array = self._arrays[name]
        if size <= len(array):
            return
        # Twice the room, so that growing one at a time stays cheap.
        grown = np.zeros(max(size, 2 * len(array)), array.dtype)
        grown[: len(array)] = array
        self._fill(name, grown[len(array) :], len(array))
        self._set(name, grown)
        for other in _FOR_EACH.get(name, ()):
            self.grow(other, len(grown))
        if name == "connections":
            # One group a flow, and one that is about to be left.
            self.grow("groups", len(grown) + 2)

    def _fill(self, name: str, fresh: Any, first: int) -> None:
        """What new records are before anything happens."""
        match name:
            case "links":
                fresh["bps"], fresh["first"] = np.inf, NONE
            case "connections":
                fresh["cap_bps"] = np.inf
                for field in ("links", "group", "first", "last", "row"):
                    fresh[field] = NONE
            case "groups":
                # A list of those that are free; the last points to what will be made next.
                fresh["alike"] = np.arange(first + 1, first + 1 + len(fresh))
                self.grow("active", first + len(fresh))
            case "alike" | "free":
                fresh[:] = NONE
            case "instances":
                # A list of those that are free, from the newest on.
                fresh["left"] = np.arange(first + 1, first + 1 + len(fresh))
                fresh["left"][-1] = self.clock["free_instance"]
                self.clock["free_instance"] = first
            case "places":
                fresh["machines"] = fresh["connections"] = NONE
            case "machines":
                fresh["speed"] = 1.0
                fresh["first"] = fresh["last"] = NONE
            case "pools":
                fresh["first"] = fresh["last"] = NONE
            case "cores":
                fresh["slot"] = fresh["row"] = NONE
            case "latches":
                for field in ("row", "next", "first", "last"):
                    fresh[field] = NONE

    def _set(self, name: str, array: "np.ndarray[Any, Any]") -> None:
        self._arrays[name] = array
        setattr(self, name, array[0] if name == "clock" and len(array) else array)
        self._table[list(FIELDS).index(name)] = array.ctypes.data, len(array)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
