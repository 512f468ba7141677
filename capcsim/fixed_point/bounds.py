"""The largest values that a network can reach, and the ring in which none of them wraps.

Interval analysis: each node's values lie in [low, high] whatever the input. The ReLUs' saturation keeps the
intervals small however deep the network is.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeAlias

import numpy as np

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.layers import (
    NONLINEAR,
    RELU_LIMIT,
    Add,
    Array,
    Conv2d,
    Input,
    Linear,
    Node,
    Relu,
    Reshape,
    Shift,
    Step,
    SumPool,
    TreePaths,
    Truncate,
    Weighted,
    Weights,
)

RING_SIZES_BITS = (24, 37, 41, 46)
"""The public ring sizes; a model gets the smallest in which nothing that is opened can wrap."""
EXACT_BITS = 53
"""Sums of products run on float64, which holds integers up to 2^53."""

Interval: TypeAlias = tuple[float, float]


def ring_bits(nodes: Sequence[Node], weights: Mapping[int, Weights], inputs: Interval, fraction_bits: int = 0) -> int:
    """The smallest public ring for the input, all that a circuit opens, and the logits.

    `inputs` bounds the encoded input, `fraction_bits` are the logits'. Raises UnsupportedModel, naming the
    layer, when the largest ring is too small, or when float64 could not hold a sum of products exactly.
    """
    bounds = intervals(nodes, weights, inputs)
    opened = {0, len(nodes) - 1} | {node.sources[0] for node in nodes if isinstance(node, NONLINEAR)}
    widest, position = max((_magnitude(bounds[opened_at]), opened_at) for opened_at in opened)
    # However small the weights are, a ring holds the fraction bits, a shift, and more than a layer drops.
    least = max(fraction_bits + 1, *(_least_bits(node) for node in nodes))
    for bits in RING_SIZES_BITS:
        if widest < 1 << (bits - 1) and least <= bits:
            return bits
    raise UnsupportedModel(str(nodes[position]), f"its output could reach {widest:.3g}; scale the weights down")


def _least_bits(node: Node) -> int:
    match node:
        case Relu() | Truncate():
            return node.drop_bits + 2
        case Shift():
            return node.bits + 1
        case _:
            return 0


def intervals(nodes: Sequence[Node], weights: Mapping[int, Weights], inputs: Interval) -> list[Interval]:
    """[low, high] of every node's values, in its own integer units; raises UnsupportedModel past 2^53."""
    found: list[Interval] = []
    for position, node in enumerate(nodes):
        if isinstance(node, Input):
            bound = inputs
        elif isinstance(node, Linear | Conv2d):
            source = node.sources[0]
            bound = _weighted(node, nodes[source], weights[position], found[source])
        else:
            bound = _bound(node, [found[source] for source in node.sources])
        if not _magnitude(bound) < 1 << EXACT_BITS:
            why = f"its output could reach {_magnitude(bound):.3g}; scale the weights down"
            raise UnsupportedModel(str(node), why)
        found.append(bound)
    return found


def _weighted(node: Weighted, source: Node, owned: Weights, x: Interval) -> Interval:
    """Positive and negative weights apart; of a tree's leaves exactly one is 1."""
    rows = owned.weight.reshape(len(owned.weight), -1)
    if isinstance(source, TreePaths):
        leaves = rows.reshape(len(rows), source.trees, -1)
        lows, highs = leaves.min(axis=2).sum(axis=1), leaves.max(axis=2).sum(axis=1)
    else:
        low, high = _with_padding(x) if isinstance(node, Conv2d) else x
        positive, negative = np.maximum(rows, 0).sum(axis=1), np.minimum(rows, 0).sum(axis=1)
        lows, highs = positive * low + negative * high, positive * high + negative * low
        _check_exact(node, rows, owned.bias, max(-low, high))
    return float((lows + owned.bias).min()), float((highs + owned.bias).max())


def _check_exact(node: Node, rows: Array, bias: Array, limit: float) -> None:
    """A partial sum may pass the interval of the whole sum, so bound the sum of magnitudes."""
    largest = float((np.abs(rows).sum(axis=1) * limit + np.abs(bias)).max())
    if not largest < 1 << EXACT_BITS:
        raise UnsupportedModel(str(node), f"an accumulator could reach {largest:.3g}; scale the weights down")


def _bound(node: Node, sources: Sequence[Interval]) -> Interval:
    low, high = sources[0]
    match node:
        case SumPool():
            low, high = _with_padding((low, high)) if node.padding != (0, 0) else (low, high)
            return low * prod(node.kernel), high * prod(node.kernel)
        case Shift():
            return low * (1 << node.bits), high * (1 << node.bits)
        case Add():
            return low + sources[1][0], high + sources[1][1]
        case Relu():
            return 0.0, float(min(max(high // (1 << node.drop_bits), 0), RELU_LIMIT - 1))
        case Truncate():
            return low // (1 << node.drop_bits), high // (1 << node.drop_bits)
        case TreePaths() | Step():
            return 0.0, 1.0
        case Reshape():
            return low, high
    raise TypeError(node)


def _with_padding(x: Interval) -> Interval:
    return min(x[0], 0.0), max(x[1], 0.0)


def _magnitude(x: Interval) -> float:
    return max(-x[0], x[1])
