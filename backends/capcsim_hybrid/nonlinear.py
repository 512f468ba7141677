"""Nonlinear layers as garbled circuits: one instance a unit, all units and queries of a layer side by side.

The querying party garbles and the answering party evaluates. The circuit adds the two shares up, computes, and
adds minus the querying party's next share, so that the answering party learns the other share and nothing else.
"""

from math import prod

import numpy as np
from numpy.typing import NDArray

from capcsim.crypto.circuits import Circuit
from capcsim.crypto.interpreters import outputs_to_words, words_to_inputs
from capcsim.crypto.library import relu_circuit, step_circuit, tree_paths_circuit, truncate_circuit
from capcsim.fixed_point.layers import RELU_BITS, Nonlinear, Relu, Step, TreePaths, Truncate, pool_windows

Words = NDArray[np.uint64]
Bits = NDArray[np.uint8]


def circuit_of(node: Nonlinear, ring_bits: int) -> Circuit:
    """The circuit of one unit."""
    match node:
        case Relu() | Truncate():
            inputs = prod(node.pool.kernel) if node.pool else 1
            if isinstance(node, Relu):
                return relu_circuit(inputs, ring_bits, node.drop_bits, RELU_BITS)
            return truncate_circuit(inputs, ring_bits, node.drop_bits)
        case TreePaths():
            return tree_paths_circuit(node.depth, ring_bits)
        case Step():
            return step_circuit(ring_bits)


def units(node: Nonlinear) -> int:
    """How many instances of its circuit one query needs."""
    return node.trees if isinstance(node, TreePaths) else prod(node.shape)


def known_bits(node: Nonlinear, ring_bits: int, share: Words, fresh: Words) -> Bits:
    """The garbler's inputs of all instances: its share of the inputs, and minus its share of the outputs."""
    taken = input_bits(node, ring_bits, share)
    given = (np.uint64(0) - fresh).reshape(taken.shape[1], -1)
    return np.concatenate([taken, words_to_inputs(given, ring_bits)])


def input_bits(node: Nonlinear, ring_bits: int, share: Words) -> Bits:
    """A share uint64[B, *input shape] as inputs of the instances, uint8[words * ring_bits, B * units]."""
    if isinstance(node, TreePaths):
        taken = share.reshape(len(share) * node.trees, -1)
    else:
        pool = node.pool if isinstance(node, Relu | Truncate) else None
        windows = pool_windows(pool, share)
        taken = windows.reshape(-1, windows.shape[-1])
    return words_to_inputs(taken, ring_bits)


def output_share(node: Nonlinear, batch: int, outputs: Bits) -> Words:
    """The evaluator's outputs as its share uint64[B, *output shape]."""
    words = 1 << node.depth if isinstance(node, TreePaths) else 1
    return outputs_to_words(outputs, words).reshape(batch, *node.shape)
