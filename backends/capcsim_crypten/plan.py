"""From integer layers to CrypTen's real numbers: how many fraction bits each node's integers carry.

The compiled network has integers and no scales. Here each node's value is read as integer / 2^bits; a layer's weights
are its integer weights over 2^(its bits - its source's). Any choice gives the same logits in exact arithmetic, as long
as sums get equal scales. The one that the compiler had in mind keeps the numbers small, and is found from what each
ReLU drops.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log2, prod
from typing import Self

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point import FRACTION_BITS, LAYERS, Network, PublicNetwork
from capcsim.fixed_point.layers import Add, Conv2d, Input, Linear, Node, Relu, Reshape, Shift, SumPool, Truncate
from capcsim_crypten.compat import PRECISION_BITS

RING_BITS = 48
"""The ring in which logits are handed on, by dropping the high bits of CrypTen's 64.

A truncation that wraps is wrong by 2^64 / 2^16: mod 2^48 that of the last layer vanishes. Logits of a compiled model
stay below 2^45, so that their differences fit too. 16 bits are free for the tie-break of `compat.one_hot_argmax`.
"""
TREES = ("DecisionTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier", "AdaBoostClassifier")
CRYPTEN_LAYERS = tuple(layer for layer in LAYERS if layer not in TREES)
"""What `Plan.of` takes: all layers but the trees' paths and steps."""
KNOWN = (Input, Linear, Conv2d, SumPool, Reshape, Shift, Add, Relu, Truncate)

Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RealWeights:
    """A layer's weights as real numbers: weight [out, in] or [out, in, height, width], bias [out]."""

    weight: Real
    bias: Real


@dataclass(frozen=True, slots=True)
class Plan:
    """What both parties know: the public network, and the fraction bits of each node."""

    public: PublicNetwork
    bits: tuple[int, ...]

    @classmethod
    def of(cls, network: Network) -> Self:
        """Raises UnsupportedModel for a node that CrypTen's primitives cannot do."""
        nodes = network.public.nodes
        for node in nodes:
            if not isinstance(node, KNOWN):
                raise UnsupportedModel(str(node), "CrypTen's primitives do not evaluate trees; use hybrid or plaintext")
        bits = _fraction_bits(nodes, network.public.encoding.fraction_bits, network.public.fraction_bits)
        public = replace(network.public, ring_bits=RING_BITS, fraction_bits=max(bits[-1], PRECISION_BITS))
        return cls(public, bits)

    @property
    def crypten_shift_bits(self) -> int:
        """CrypTen's logits times 2^this have the public fraction bits."""
        return self.public.fraction_bits - PRECISION_BITS

    @property
    def reference_shift_bits(self) -> int:
        """The compiled network's logits times 2^this have the public fraction bits."""
        return self.public.fraction_bits - self.bits[-1]

    def real(self, values: NDArray[np.int32] | NDArray[np.int64], node: int) -> Real:
        """A node's integers as the real numbers that they stand for."""
        return values / 2.0 ** self.bits[node]

    def weights(self, network: Network) -> dict[int, RealWeights]:
        """The weights of a network with this plan, by position."""
        found = {}
        for position, owned in network.weights.items():
            source = network.public.nodes[position].sources[0]  # type: ignore[misc]
            bits = self.bits[position] - self.bits[source]
            found[position] = RealWeights(owned.weight / 2.0**bits, owned.bias / 2.0 ** self.bits[position])
        return found

    def averages(self, position: int) -> bool:
        """Whether a SumPool's result is read as the average: where that is a shift of the binary point."""
        node = self.public.nodes[position]
        return isinstance(node, SumPool) and _average_bits(node) > 0


def _average_bits(node: SumPool) -> int:
    """By how many bits the average is less than the sum, if that is a whole number."""
    values = prod(node.kernel)
    return 0 if values & (values - 1) else int(log2(values))


def _fraction_bits(nodes: Sequence[Node], input_bits: int, output_bits: int) -> tuple[int, ...]:
    """Fraction bits of each node's integers."""
    wanted = _wanted_bits(nodes, output_bits)
    bits: list[int] = []
    for position, node in enumerate(nodes):
        before = [bits[source] for source in node.sources]
        match node:
            case Linear() | Conv2d():
                bits.append(max(wanted.get(position, before[0] + FRACTION_BITS), before[0]))
            case Relu() | Truncate():
                bits.append(before[0] - node.drop_bits)
            case SumPool():
                bits.append(before[0] + _average_bits(node))
            case Shift():
                bits.append(before[0] + node.bits)
            case Add():
                bits.append(min(before))
            case _:
                bits.append(before[0] if before else input_bits)
    return tuple(bits)


def _wanted_bits(nodes: Sequence[Node], output_bits: int) -> dict[int, int]:
    """What the compiler had in mind, from the logits and from what each ReLU drops, back to the layers with weights."""
    wanted = {len(nodes) - 1: output_bits}
    for position in reversed(range(len(nodes))):
        node = nodes[position]
        if isinstance(node, Relu | Truncate):
            wanted.setdefault(node.sources[0], FRACTION_BITS + node.drop_bits)
        elif isinstance(node, SumPool | Reshape | Shift | Add) and position in wanted:
            gained = _average_bits(node) if isinstance(node, SumPool) else node.bits if isinstance(node, Shift) else 0
            for source in node.sources:
                wanted.setdefault(source, wanted[position] - gained)
    return wanted
