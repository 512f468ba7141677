"""What runs in the processes of the parties and of the dealer. Each function returns its output and its log.

Rank 0 is the answering party: with a trusted first party, which makes the masks and so sees through them, that is the
one that would learn least. It would see the query, as it does without any cryptography; the querying party would see
the model, and all logits that the noise is there to hide.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import Phase, Role
from capcsim.fixed_point.layers import Add, Conv2d, Linear, Pool, Relu, Reshape, SumPool, Truncate
from capcsim.twoparty.programs import RoleLog
from capcsim_crypten import compat
from capcsim_crypten.meter import Meter
from capcsim_crypten.plan import Plan, RealWeights

RANKS = (Role.ANSWERER, Role.QUERIER, Role.DEALER)
QUERIER_RANK, ANSWERER_RANK = RANKS.index(Role.QUERIER), RANKS.index(Role.ANSWERER)
SEED_BYTES = 8
DONE = "done"

Words = NDArray[np.uint64]


@dataclass
class Party:
    """A process's place among the parties."""

    rank: int
    communicator: Any
    meter: Meter
    has_dealer: bool
    dealer: compat.Dealer | None = None

    def end(self) -> RoleLog:
        """The log since the meter began; the dealer hears that no request will come."""
        log = self.meter.end()
        if self.has_dealer and self.rank == 0:
            self.meter.tell(DONE, compat.DEALER_RANK, self.communicator.ttp_group)
        return log


@dataclass
class SharedModel:
    """A party's shares of the weights and biases, by position."""

    plan: Plan
    weights: dict[int, tuple[Any, Any]]


def start(rank: int, rendezvous: str, provider: compat.Provider) -> tuple[Party, RoleLog]:
    """Join the others; returns when all are there."""
    communicator = compat.join(rank, rendezvous, provider)
    dealer = compat.Dealer(communicator) if rank == compat.DEALER_RANK else None
    if dealer:
        dealer.seeds()
    has_dealer = provider == "third-party"
    meter = Meter(communicator, RANKS if has_dealer else RANKS[: compat.PARTIES])
    return Party(rank, communicator, meter, has_dealer, dealer), []


def open_pair(party: Party, plan: Plan, weights: dict[int, RealWeights]) -> tuple[SharedModel, RoleLog]:
    """Fresh seeds, and shares of the answering party's weights; the querying party gives zeros of their shape."""
    party.meter.begin(Phase.SETUP)
    compat.fresh_seeds()
    if party.has_dealer:
        party.meter.takes(compat.DEALER_RANK)
        party.meter.meets()
        compat.take_dealers_seed()
    model = SharedModel(plan, {})
    for position, owned in weights.items():
        tensors = [compat.shared(values, ANSWERER_RANK) for values in (owned.weight, owned.bias)]
        model.weights[position] = (tensors[0], tensors[1])
    return model, party.end()


def infer(party: Party, model: SharedModel, x: NDArray[np.float64]) -> tuple[Words, RoleLog]:
    """Steps 1a and 1b: this party's share mod 2^64 of the logits, uint64[B, C]; x counts on the querying side only."""
    party.meter.begin(Phase.ONLINE)
    nodes = model.plan.public.nodes
    values: dict[int, Any] = {0: compat.shared(x, QUERIER_RANK)}
    last_use = {source: position for position, node in enumerate(nodes) for source in node.sources}
    for position, node in enumerate(nodes[1:], 1):
        values[position] = _apply(model, position, node, [values[source] for source in node.sources])
        for source in node.sources:
            if last_use[source] == position:
                values.pop(source, None)
    return compat.words_of(values[len(nodes) - 1]), party.end()


def argmax(party: Party, logits: Words, ring_bits: int) -> tuple[Words, RoleLog]:
    """Step 1c: this party's share mod 2^64 of the one-hot votes, from its share of the logits, uint64[B, C]."""
    party.meter.begin(Phase.ONLINE)
    votes = compat.one_hot_argmax(logits, ring_bits, first=party.rank == 0)
    return votes, party.end()


def deal(party: Party, phase: Phase) -> tuple[None, RoleLog]:
    """The dealer's part of a step: seeds when a pair is opened, then triples until the first party is done."""
    assert party.dealer, "only the dealer's process is told to deal"
    party.meter.begin(phase)
    if phase is Phase.SETUP:
        for rank in range(compat.PARTIES):
            party.meter.gives(rank, SEED_BYTES)
        party.meter.meets()
        party.dealer.seeds()
    while (request := party.meter.listen(0, party.communicator.ttp_group)) != DONE:
        party.meter.takes_object(0)
        party.dealer.serve(request)
    return None, party.meter.end()


def _apply(model: SharedModel, position: int, node: Any, sources: list[Any]) -> Any:
    """One node on shared values; Shift and Truncate only change what their integers stand for."""
    x, bits = sources[0], model.plan.bits
    match node:
        case Linear():
            weight, bias = model.weights[position]
            return x.matmul(weight.t()) + bias
        case Conv2d():
            weight, bias = model.weights[position]
            return x.conv2d(weight, stride=node.stride, padding=node.padding) + bias.view(-1, 1, 1)
        case Relu():
            return _largest(node.pool, x).relu()
        case Truncate():
            return _largest(node.pool, x)
        case SumPool():
            summed = compat.sum_pool(x, node.kernel, node.stride, node.padding)
            return summed.div(int(np.prod(node.kernel))) if model.plan.averages(position) else summed
        case Reshape():
            return x.reshape(x.size(0), *node.shape)
        case Add():
            left, right = (
                value.mul(1 << (bits[source] - bits[position]))
                for value, source in zip(sources, node.sources, strict=True)
            )
            return left + right
    return x


def _largest(pool: Pool | None, x: Any) -> Any:
    return x if pool is None else x.max_pool2d(pool.kernel, stride=pool.stride, padding=pool.padding)
