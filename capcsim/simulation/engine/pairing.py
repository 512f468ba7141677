"""Pairing heaps in an array: anything can be taken out of the middle, and nothing is allocated.

A heap is the place of its root, NONE where it is empty (Fredman, Sedgewick, Sleator and Tarjan, The pairing heap,
Algorithmica 1, 1986).
"""

from typing import Any

from capcsim.simulation.engine.kernel import kernel
from capcsim.simulation.engine.records import NONE


@kernel
def put(heap: Any, root: int, node: int, key: float) -> int:
    """The root of a heap with one node more."""
    heap[node]["key"] = key
    heap[node]["child"] = heap[node]["next"] = heap[node]["before"] = NONE
    return _meld(heap, root, node)


@kernel
def take(heap: Any, root: int, node: int) -> int:
    """The root of a heap without one of its nodes."""
    below = _merged(heap, heap[node]["child"])
    heap[node]["child"] = NONE
    if node == root:
        return below
    before, after = heap[node]["before"], heap[node]["next"]
    if heap[before]["child"] == node:
        heap[before]["child"] = after
    else:
        heap[before]["next"] = after
    if after >= 0:
        heap[after]["before"] = before
    return _meld(heap, root, below)


@kernel
def _meld(heap: Any, a: int, b: int) -> int:
    if a < 0:
        return b
    if b < 0:
        return a
    if heap[b]["key"] < heap[a]["key"]:
        a, b = b, a
    first = heap[a]["child"]
    heap[b]["before"], heap[b]["next"] = a, first
    if first >= 0:
        heap[first]["before"] = b
    heap[a]["child"] = b
    return a


@kernel
def _merged(heap: Any, first: int) -> int:
    """One heap of a row of siblings: two by two, then from the last to the first."""
    pairs = NONE
    while first >= 0:
        a, b = first, heap[first]["next"]
        first = heap[b]["next"] if b >= 0 else NONE
        pair = _meld(heap, a, b)
        heap[pair]["next"] = pairs
        pairs = pair
    root = NONE
    while pairs >= 0:
        pair, pairs = pairs, heap[pairs]["next"]
        heap[pair]["next"] = heap[pair]["before"] = NONE
        root = _meld(heap, root, pair)
    return root
