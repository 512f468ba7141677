"""The answering party's model: its weights, transformed for ciphertexts and as they are for shares."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.crypto.shares import ring_mask
from capcsim.fixed_point.layers import add_bias, apply_weights
from capcsim.fixed_point.network import Network
from capcsim_hybrid.linear import EncodedWeights, encode_weights
from capcsim_hybrid.packing import Layout, arrange_weights
from capcsim_hybrid.parameters import context
from capcsim_hybrid.plan import Plan

Words = NDArray[np.uint64]
MOST_ENCODED_BYTES = 2 << 30
_EXACT_BITS = 53
_MOST_LIMB_BITS = 16
_ROWS_AT_ONCE = 64


class _EncodedWeights:
    """Transformed weights of all models in this process, the longest unused dropped beyond a limit."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int, Layout], EncodedWeights] = OrderedDict()

    def get(self, model: "HybridModel", position: int, layout: Layout) -> EncodedWeights:
        key = (id(model), position, layout)
        if key not in self._kept:
            node: Any = model.network.public.nodes[position]
            weight = arrange_weights(node, model.network.weights[position].weight).astype(np.int64)
            self._kept[key] = encode_weights(context(model.plan.parameters), layout, weight)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self.bytes > MOST_ENCODED_BYTES:
            self._kept.popitem(last=False)
        return self._kept[key]

    def drop(self, model: int) -> None:
        for key in [key for key in self._kept if key[0] == model]:
            del self._kept[key]

    @property
    def bytes(self) -> int:
        return sum(weights.transforms.nbytes for weights in self._kept.values())


_encoded = _EncodedWeights()


@dataclass(eq=False)
class HybridModel:
    """A compiled network with the plan under which it is evaluated."""

    network: Network = field(repr=False)
    plan: Plan
    margin_bits: float

    def encoded(self, position: int, layout: Layout) -> EncodedWeights:
        """A layer's weights for one packing, transformed once."""
        return _encoded.get(self, position, layout)

    def apply(self, position: int, share: Words, mask: Words) -> Words:
        """W share + mask + bias mod 2^k, uint64[B, *shape], on the answering party's share."""
        node: Any = self.network.public.nodes[position]
        owned, ring_bits = self.network.weights[position], self.network.public.ring_bits
        total, limb_bits = mask.copy(), _limb_bits(owned.weight)
        for first in range(0, len(share), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            for shift in range(0, ring_bits, limb_bits):
                limb = (share[rows] >> np.uint64(shift)) & ring_mask(limb_bits)
                product = apply_weights(node, owned.weight, limb.astype(np.float64))
                total[rows] += product.astype(np.int64).astype(np.uint64) << np.uint64(shift)
        bias = owned.bias.astype(np.int64).astype(np.uint64)
        return add_bias(node, bias, total) & ring_mask(ring_bits)

    def __del__(self) -> None:
        _encoded.drop(id(self))


def _limb_bits(weight: NDArray[np.float64]) -> int:
    """In how many bits at once a share may meet these weights, so that float64 holds every sum exactly."""
    largest = np.abs(weight).reshape(len(weight), -1).sum(axis=1).max()
    return int(max(1, min(_MOST_LIMB_BITS, _EXACT_BITS - np.ceil(np.log2(max(1.0, largest))))))
