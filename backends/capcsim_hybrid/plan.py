"""What both sides of a pair know before they begin: the public network, the parameters, and how layers are packed."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

from capcsim.crypto.interpreters import TABLE_BYTES
from capcsim.errors import InputError, PeerFailed, UnsupportedModel
from capcsim.fixed_point.layers import LOCAL, NONLINEAR, WEIGHTED, Conv2d, Linear, Nonlinear
from capcsim.fixed_point.network import Network, PublicNetwork
from capcsim.twoparty.channels import MOST_PAYLOAD_BYTES
from capcsim_hybrid import parameters
from capcsim_hybrid.linear import noises
from capcsim_hybrid.nonlinear import circuit_of, units
from capcsim_hybrid.packing import Layout, arrange_weights, choose_layout, form_of
from capcsim_hybrid.parameters import Parameters

MOST_LAYER_BYTES = 512 << 20
"""Transformed weights of one layer; a batch is packed less densely rather than pass this."""
MOST_BATCH = 4096
"""The largest batch that layouts are chosen for."""
_HEAD = struct.Struct("<IB")
"""The polynomial degree, and which of its level's prime chains."""

Weighted: TypeAlias = Linear | Conv2d


@dataclass(frozen=True, slots=True)
class Plan:
    """One pair's public agreement; both sides derive everything else from it."""

    network: PublicNetwork
    parameters: Parameters

    @classmethod
    def of(cls, network: Network, degree: int) -> tuple["Plan", float]:
        """The parameters of a security level that hide these weights, and with how many bits.

        Raises UnsupportedModel.
        """
        _check_order(network.public)
        noises = tuple(_worst_noises(network, degree))
        try:
            chosen = parameters.choose(degree, network.public.ring_bits, noises)
        except InputError as error:
            raise UnsupportedModel("model", str(error)) from error
        return cls(network.public, chosen), parameters.margin_bits(chosen, noises)

    def layouts(self, batch: int) -> dict[int, Layout]:
        """How each weighted layer is packed: as for the next power of two, for which the flood is proven."""
        size = 1 << (min(batch, MOST_BATCH) - 1).bit_length()
        return {i: _layout(self.network, i, self.parameters, size) for i, _ in weighted(self.network)}

    def ahead_bytes(self, queries: int) -> int:
        """What the answering party keeps of so many queries between the two phases."""
        ring_bits, total = self.network.ring_bits, 0
        for _, node in nonlinear(self.network):
            circuit = circuit_of(node, ring_bits)
            total += units(node) * (TABLE_BYTES * circuit.ands + 17 * circuit.evaluator_inputs)
        total += sum(8 * prod(node.shape) for _, node in weighted(self.network))
        return queries * total

    def most_queries(self, room_bytes: int) -> int:
        """How many queries may lie ready in so much room; raises InputError when it is none."""
        one = max(1, self.ahead_bytes(1))
        if one > room_bytes:
            why = f"one query needs {one} bytes between the phases, and {room_bytes} are left of the pool"
            raise InputError(f"{why}; raise pool_bytes, or take order = 'online'")
        return min(self.most_batch, room_bytes // one)

    @property
    def most_batch(self) -> int:
        """Queries that may run together: what the layouts are chosen for, and one message carries."""
        return max(1, min(MOST_BATCH, MOST_PAYLOAD_BYTES // (8 * prod(self.network.input_shape))))

    def weight_bytes(self, batch: int) -> int:
        """Memory of the transformed weights for a batch of this size."""
        levels = len(self.parameters.prime_bits) - 1
        return sum(
            8 * levels * layout.in_blocks * layout.out_blocks * (layout.degree // layout.images)
            for layout in self.layouts(batch).values()
        )

    def to_bytes(self) -> bytes:
        """What the answering party tells first."""
        degree = self.parameters.degree
        choice = parameters.LEVELS[degree].index(self.parameters.prime_bits)
        return _HEAD.pack(degree, choice) + self.network.to_bytes()

    @classmethod
    def from_bytes(cls, payload: bytes) -> "Plan":
        """What a peer told; raises PeerFailed for anything unsound."""
        head, rest = payload[: _HEAD.size], payload[_HEAD.size :]
        try:
            degree, choice = _HEAD.unpack(head)
            network = PublicNetwork.from_bytes(rest)
            _check_order(network)
            plan = cls(network, Parameters(degree, parameters.LEVELS[degree][choice], network.ring_bits))
            plan.layouts(1)
        except (InputError, UnsupportedModel, LookupError, struct.error) as error:
            raise PeerFailed(f"the answering party sent no plan of a model: {error}") from None
        return plan


def weighted(network: PublicNetwork) -> Iterator[tuple[int, Weighted]]:
    """Positions and nodes that need the owner's weights, in order."""
    return ((i, node) for i, node in enumerate(network.nodes) if isinstance(node, WEIGHTED))


def nonlinear(network: PublicNetwork) -> Iterator[tuple[int, Nonlinear]]:
    """Positions and nodes that need a circuit, in order."""
    return ((i, node) for i, node in enumerate(network.nodes) if isinstance(node, NONLINEAR))


@lru_cache(maxsize=4096)
def _layout(network: PublicNetwork, position: int, chosen: Parameters, batch: int) -> Layout:
    node: Any = network.nodes[position]
    form = form_of(node, network.nodes[node.sources[0]].shape)
    levels = len(chosen.prime_bits) - 1
    return choose_layout(form, chosen.degree, batch, MOST_LAYER_BYTES // (8 * levels))


def _worst_noises(network: Network, degree: int) -> Iterator[tuple[int, float]]:
    """For each weighted layer the replies of its noisiest layout, over all batch sizes.

    Fewer levels allow more weight words, so the layouts of one level cover those of all.
    """
    for i, node in weighted(network.public):
        weight = arrange_weights(node, network.weights[i].weight)
        candidates, batch = [], 1
        while batch <= MOST_BATCH:
            for levels in (2, 3):
                prime_bits = (60,) * levels + (20,)
                layout = _layout(network.public, i, Parameters(degree, prime_bits, network.public.ring_bits), batch)
                candidates.append(tuple(noises(layout, weight)))
            batch *= 2
        yield from max(candidates, key=lambda found: sum(count * norm for count, norm in found))


def _check_order(network: PublicNetwork) -> None:
    """Uploads go first: a weighted layer must not take another one's accumulators."""
    fresh = {0}
    for i, node in enumerate(network.nodes):
        if isinstance(node, NONLINEAR) or (isinstance(node, LOCAL) and fresh.issuperset(node.sources)):
            fresh.add(i)
        if isinstance(node, WEIGHTED) and node.sources[0] not in fresh:
            raise UnsupportedModel(str(node), "takes accumulators of another layer; put a ReLU between them")
