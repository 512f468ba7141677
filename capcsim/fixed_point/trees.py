"""Decision trees, forests and AdaBoost over trees: comparisons, path bits, votes.

A tree is a linear layer that takes a feature from each threshold, the path bits of those signs, and a linear
layer of leaf votes. Each tree is padded to the deepest one's depth, so that neither the number of its nodes
nor its form shows; which features are compared is in the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.layers import FRACTION_BITS, Array, Input, Linear, Node, Reshape, Shape, TreePaths, Weights
from capcsim.fixed_point.network import Encoding, Network
from capcsim.fixed_point.structure import MAX_TREE_DEPTH, MAX_WEIGHTS

FEATURE_BITS = 16
"""Fraction bits of features and thresholds."""
FEATURE_RANGE = (-16.0, 16.0)
"""What a feature may be where the estimator has no attribute `feature_ranges`; values outside saturate."""
_LEAF = -1


@dataclass(frozen=True)
class Ensemble:
    """Fitted scikit-learn trees, and the votes [nodes, C] that each gives at each of its nodes."""

    trees: Sequence[Any]
    votes: Sequence[Array]


def compile_ensemble(name: str, ensemble: Ensemble, input_shape: Shape, ranges: Any) -> Network:
    """The integer network whose logits are the sum of the votes; raises UnsupportedModel.

    `ranges` are (low, high) for each feature, row-major, or None for [-16, 16] throughout.
    """
    features, trees = int(np.prod(input_shape)), len(ensemble.trees)
    depth = max(1, *(int(tree.max_depth) for tree in ensemble.trees))
    if depth > MAX_TREE_DEPTH:
        raise UnsupportedModel(name, f"a tree of depth {depth}; train with max_depth at most {MAX_TREE_DEPTH}")
    inner, classes = trees * ((1 << depth) - 1), ensemble.votes[0].shape[1]
    if inner * features > MAX_WEIGHTS:
        why = f"{trees} trees of depth {depth} on {features} features are too many; train fewer or shallower trees"
        raise UnsupportedModel(name, why)
    encoding = _encoding(name, ranges, features)
    placed = [_place(tree, depth) for tree in ensemble.trees]
    nodes: list[Node] = [Input(input_shape)]
    if len(input_shape) > 1:
        nodes.append(Reshape((0,), (features,)))
    first = len(nodes)
    nodes += [
        Linear((first - 1,), (inner,), features),
        TreePaths((first,), (trees << depth,), trees, depth),
        Linear((first + 1,), (classes,), trees << depth),
    ]
    vote_bits = FRACTION_BITS + (trees - 1).bit_length()
    weights = {
        first: _comparisons(name, ensemble.trees, placed, encoding, features),
        first + 2: _leaf_votes(ensemble, placed, depth, vote_bits),
    }
    return Network.of(tuple(nodes), weights, encoding, fraction_bits=vote_bits)


def _encoding(name: str, ranges: Any, features: int) -> Encoding:
    """Features floored to 16 fraction bits, each saturated to its public range."""
    limit = 2.0 ** (31 - FEATURE_BITS)
    given = np.array([FEATURE_RANGE] if ranges is None else ranges, np.float64)
    if ranges is not None and given.shape != (features, 2):
        why = f"feature_ranges have shape {given.shape}; give (low, high) for each of {features} features"
        raise UnsupportedModel(name, why)
    if not ((given[:, 0] < given[:, 1]) & (np.abs(given) < limit).all(axis=1)).all():
        why = f"feature_ranges must have low < high, within {limit:g}; scale the features"
        raise UnsupportedModel(name, why)
    low, high = np.floor(given * (1 << FEATURE_BITS)).astype(int).T.tolist()
    return Encoding(FEATURE_BITS, "floor", tuple(low), tuple(high))


def _place(tree: Any, depth: int) -> NDArray[np.int64]:
    """int64[2^(depth+1) - 1]: the node of the tree at each place of the full heap.

    Below a leaf that ends early, every place holds that leaf again.
    """
    places = np.zeros((2 << depth) - 1, np.int64)
    for place in range(len(places) // 2):
        node = places[place]
        leaf = tree.children_left[node] == _LEAF
        places[2 * place + 1] = node if leaf else tree.children_left[node]
        places[2 * place + 2] = node if leaf else tree.children_right[node]
    return places


def _comparisons(
    name: str, trees: Sequence[Any], placed: Sequence[NDArray[np.int64]], encoding: Encoding, features: int
) -> Weights:
    """Z = threshold - feature at each inner place, in integers; z = 0, which goes left, below an early leaf."""
    inner = len(placed[0]) // 2
    weight, bias = np.zeros((len(trees) * inner, features)), np.zeros(len(trees) * inner)
    for index, (tree, places) in enumerate(zip(trees, placed, strict=True)):
        nodes = places[:inner]
        split = np.flatnonzero(tree.children_left[nodes] != _LEAF)
        chosen, thresholds = tree.feature[nodes[split]], tree.threshold[nodes[split]]
        _check_thresholds(name, chosen, thresholds, encoding, features)
        weight[index * inner + split, chosen] = -1
        bias[index * inner + split] = np.floor(thresholds * (1 << FEATURE_BITS))
    return Weights(weight, bias)


def _check_thresholds(
    name: str, chosen: NDArray[np.int64], thresholds: Array, encoding: Encoding, features: int
) -> None:
    """A feature that saturates has to stay on its side of every threshold."""
    low, high = (np.broadcast_to(limits, features) for limits in (encoding.low, encoding.high))
    integers = np.floor(thresholds * (1 << FEATURE_BITS))
    outside = np.flatnonzero((integers < low[chosen]) | (integers >= high[chosen]))
    if len(outside):
        feature, threshold = int(chosen[outside[0]]), float(thresholds[outside[0]])
        ends = tuple(float(limits[feature]) / (1 << FEATURE_BITS) for limits in (low, high))
        why = f"feature {feature} is compared with {threshold:g}, outside its range [{ends[0]:g}, {ends[1]:g})"
        raise UnsupportedModel(name, f"{why}; set the attribute feature_ranges to (low, high) for each feature")


def _leaf_votes(ensemble: Ensemble, placed: Sequence[NDArray[np.int64]], depth: int, vote_bits: int) -> Weights:
    """[C, trees * 2^depth], leaves from left to right."""
    leaves = [votes[places[-(1 << depth) :]] for votes, places in zip(ensemble.votes, placed, strict=True)]
    weight = np.rint(np.concatenate(leaves).T * (1 << vote_bits))
    return Weights(np.ascontiguousarray(weight), np.zeros(len(weight)))
