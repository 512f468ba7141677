"""Lists of slots: whatever has `first` and `last` keeps them in the order in which they came."""

from typing import Any

from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.records import NONE


@kernel
def append(s: Any, queue: Any, slot: int) -> None:
    """A slot comes last."""
    s.slots[slot]["next"] = NONE
    if queue["last"] >= 0:
        s.slots[queue["last"]]["next"] = slot
    else:
        queue["first"] = slot
    queue["last"] = slot


@kernel
def pop(s: Any, queue: Any) -> int:
    """The first slot, which is no longer in the list; there is one."""
    slot = queue["first"]
    queue["first"] = s.slots[slot]["next"]
    if queue["first"] < 0:
        queue["last"] = NONE
    return int(slot)


@kernel
def drop(s: Any, queue: Any) -> None:
    """Without the slots of instances that are over."""
    slot = queue["first"]
    queue["first"] = queue["last"] = NONE
    while slot >= 0:
        following = s.slots[slot]["next"]
        if not s.instances[s.slots[slot]["instance"]]["over"]:
            append(s, queue, slot)
        slot = following
