"""One pair's two sides: what each keeps, and how they are set up.

The querying party has the secret key and no weight, the answering party the weights and the public key.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import PeerFailed
from capcsim.twoparty.programs import Recv, Send, Steps
from capcsim.twoparty.yao import EvaluatorSession, Garbled, GarblerSession, Received
from capcsim_hybrid.linear import PublicKey, SecretKeys
from capcsim_hybrid.model import HybridModel
from capcsim_hybrid.options import ORDERS
from capcsim_hybrid.parameters import Parameters, context
from capcsim_hybrid.plan import Plan
from capcsim_hybrid.pool import Pool

Words = NDArray[np.uint64]
_SETTINGS = struct.Struct("<BQ")
"""The order, and how much the answering party keeps between the phases."""
_MOST_PLAN_BYTES = 1 << 24


@dataclass
class QuerierMaterial:
    """What the querying party keeps of one batch: its input mask, its garbled layers, its share of the logits."""

    batch: int
    mask: Words = field(repr=False)
    garbled: dict[int, Garbled] = field(repr=False)
    logits: Words = field(repr=False)

    @property
    def stored_bytes(self) -> int:
        """While it waits."""
        return self.mask.nbytes + self.logits.nbytes + sum(ready.stored_bytes for ready in self.garbled.values())


@dataclass
class AnswererMaterial:
    """What the answering party keeps of one batch: its masks of linear layers, and the garbled tables."""

    batch: int
    masks: dict[int, Words] = field(repr=False)
    received: dict[int, Received] = field(repr=False)

    @property
    def stored_bytes(self) -> int:
        """While it waits."""
        masks = sum(mask.nbytes for mask in self.masks.values())
        return masks + sum(ready.stored_bytes for ready in self.received.values())


@dataclass
class QuerierState:
    """One pair, the querying party's side: it has the secret key and no weight."""

    plan: Plan
    order: str
    pool_bytes: int
    keys: SecretKeys = field(repr=False)
    garbler: GarblerSession = field(repr=False)
    pool: Pool[QuerierMaterial] = field(default_factory=Pool, repr=False)


@dataclass
class AnswererState:
    """One pair, the answering party's side: it has the weights and the public key."""

    model: HybridModel = field(repr=False)
    order: str
    pool_bytes: int
    key: PublicKey = field(repr=False)
    evaluator: EvaluatorSession = field(repr=False)
    pool: Pool[AnswererMaterial] = field(default_factory=Pool, repr=False)


def set_up_querier(
    keys: Callable[[Parameters], SecretKeys], degree: int, order: str, pool_bytes: int, garbler: GarblerSession
) -> Steps:
    """Learn the model's plan, hand out the public key; returns `QuerierState`. Raises PeerFailed."""
    payload = yield Recv()
    if len(payload) > _MOST_PLAN_BYTES:
        raise PeerFailed(
            f"the answering party sent a plan of {len(payload)} bytes; at most {_MOST_PLAN_BYTES} are read"
        )
    plan = Plan.from_bytes(payload)
    if plan.parameters.degree != degree:
        raise PeerFailed(f"the answering party proposes N = {plan.parameters.degree}; {degree} was wanted")
    own = keys(plan.parameters)
    yield Send(_SETTINGS.pack(ORDERS.index(order), pool_bytes))
    yield Send(own.public)
    return QuerierState(plan, order, pool_bytes, own, garbler)


def set_up_answerer(model: HybridModel, pool_bytes: int, evaluator: EvaluatorSession) -> Steps:
    """Tell the plan, take the public key; returns `AnswererState`.

    `pool_bytes` is the most that this party keeps; raises PeerFailed when the other one wants more.
    """
    yield Send(model.plan.to_bytes())
    order, wanted_bytes = _SETTINGS.unpack(exactly((yield Recv()), _SETTINGS.size))
    if order >= len(ORDERS):
        raise PeerFailed(f"the querying party asks for order {order}; install the same capcsim on both sides")
    if wanted_bytes > pool_bytes:
        raise PeerFailed(
            f"the querying party wants {wanted_bytes} bytes kept between the phases; {pool_bytes} are here"
        )
    key = PublicKey(context(model.plan.parameters), (yield Recv()))
    return AnswererState(model, ORDERS[order], wanted_bytes, key, evaluator)


def exactly(payload: bytes, expected: int) -> bytes:
    """A payload of a known size; raises PeerFailed."""
    if len(payload) != expected:
        raise PeerFailed(f"hybrid inference: {len(payload)} bytes came instead of {expected}")
    return payload
