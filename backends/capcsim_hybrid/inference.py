"""Steps 1a and 1b as two-party programs, after Delphi (Mishra et al., USENIX Security 2020), for the roles of CaPC.

Every value is shared mod 2^k: the querying party's share of an input or activation is a fresh r, which does not
depend on the input; the answering party's is x - r. Ahead, for each weighted layer: the querying party sends Enc(r),
and gets back Enc(W r - s). For each nonlinear layer it garbles a circuit that knows its shares W r - s and the
next r. Online it sends x - r once; the answering party computes W (x - r) + s + bias, never a cleartext activation,
and evaluates the circuits, one round trip a layer, to x' - r'. Decode bits go to the evaluator only, who returns
nothing. The order "online" is the paper's own: no phase ahead, the first share is x itself, and every layer
is encrypted, answered, garbled and evaluated in turn.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import Phase
from capcsim.crypto.programs import Mark, Recv, Send, Steps
from capcsim.crypto.shares import ring_mask, uniform
from capcsim.crypto.yao import (
    EvaluatorSession,
    Garbled,
    GarblerSession,
    Received,
    evaluator_online,
    garble_ahead,
    garbler_online,
    receive_ahead,
    stream_evaluator,
    stream_garbler,
)
from capcsim.errors import InputError, PeerFailed
from capcsim.fixed_point.layers import LOCAL, NONLINEAR, WEIGHTED, apply_local
from capcsim.fixed_point.network import PublicNetwork, encode
from capcsim_hybrid.linear import PublicKey, SecretKeys, receive, respond, upload
from capcsim_hybrid.model import HybridModel
from capcsim_hybrid.nonlinear import circuit_of, input_bits, known_bits, output_share, units
from capcsim_hybrid.parameters import Parameters, context
from capcsim_hybrid.plan import MOST_BATCH, Plan, nonlinear, weighted
from capcsim_hybrid.pool import Pool

Words = NDArray[np.uint64]
ORDERS = ("ahead", "online")
_SETTINGS = struct.Struct("<BQ")
"""The order, and how much the answering party keeps between the phases."""
_CHUNK = struct.Struct("<QQ??")
"""Announces a batch: serial number, queries, whether its material lies ready, whether it is the last."""
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
    order, wanted_bytes = _SETTINGS.unpack(_exactly((yield Recv()), _SETTINGS.size))
    if order >= len(ORDERS):
        raise PeerFailed(f"the querying party asks for order {order}; install the same capcsim on both sides")
    if wanted_bytes > pool_bytes:
        raise PeerFailed(
            f"the querying party wants {wanted_bytes} bytes kept between the phases; {pool_bytes} are here"
        )
    key = PublicKey(context(model.plan.parameters), (yield Recv()))
    return AnswererState(model, ORDERS[order], wanted_bytes, key, evaluator)


def infer_querier(state: QuerierState, x: NDArray[np.float32]) -> Steps:
    """Both phases for x float32[B, *input_shape]; returns the share of the logits uint64[B, C].

    What lies ready is used first. Raises InputError for a bad `x`, before anything is sent.
    """
    encode(x, state.plan.network)
    chunks = _chunks(state, len(x))
    state.garbler.begin()
    shares = []
    for number, (serial, rows, ready) in enumerate(chunks):
        yield Mark(Phase.ONLINE if ready or state.order == "online" else Phase.OFFLINE)
        yield Send(_CHUNK.pack(serial, rows.stop - rows.start, ready, rows.stop == len(x)))
        progress = _Progress(state.plan.network, number / len(chunks), 1 / len(chunks), ahead=not ready)
        if state.order == "online":
            shares.append((yield from _online_order_querier(state, x[rows], progress)))
        else:
            if not ready:
                yield from _ahead_querier(state, serial, rows.stop - rows.start, progress)
            shares.append((yield from _online_querier(state, serial, x[rows], progress)))
    state.garbler.end()
    return np.concatenate(shares)


def infer_answerer(state: AnswererState) -> Steps:
    """The other side of `infer_querier`; returns its share of the logits uint64[B, C]."""
    state.evaluator.begin()
    shares: list[Words] = []
    last = False
    while not last:
        serial, batch, ready, last = _CHUNK.unpack(_exactly((yield Recv()), _CHUNK.size))
        if state.order == "online":
            shares.append((yield from _online_order_answerer(state, batch)))
        else:
            if not ready:
                yield from _ahead_answerer(state, serial, batch)
            shares.append((yield from _online_answerer(state, serial, batch)))
    state.evaluator.end()
    return np.concatenate(shares)


def fill_querier(state: QuerierState, queries: int) -> Steps:
    """Only the phase ahead, for so many queries in one batch; raises InputError when the pool has no room."""
    if state.order == "online":
        raise InputError("order = 'online' has no phase ahead; take order = 'ahead' to fill a pool")
    room = state.plan.most_queries(state.pool_bytes - _reserved(state))
    if not 1 <= queries <= room:
        raise InputError(f"{queries} queries do not fit the offline pool: 1 to {room} do; raise pool_bytes")
    state.garbler.begin()
    serial = state.pool.next_serial
    yield Mark(Phase.OFFLINE)
    yield Send(_CHUNK.pack(serial, queries, False, True))
    yield from _ahead_querier(state, serial, queries, _Progress(state.plan.network, 0, 1, ahead=True))
    state.garbler.end()
    return serial


def fill_answerer(state: AnswererState) -> Steps:
    """The other side of `fill_querier`."""
    state.evaluator.begin()
    serial, batch, _, _ = _CHUNK.unpack(_exactly((yield Recv()), _CHUNK.size))
    yield from _ahead_answerer(state, serial, batch)
    state.evaluator.end()


def _chunks(state: QuerierState, queries: int) -> list[tuple[int, slice, bool]]:
    """Batches in the order in which they run: what lies ready, then as many at once as the pool has room for.

    Each has its serial number, its rows and whether it lies ready. Raises InputError when the pool has no room.
    """
    chunks: list[tuple[int, slice, bool]] = []
    first = 0
    for serial, batch in state.pool.fitting(queries):
        chunks.append((serial, slice(first, first + batch), True))
        first += batch
    room = MOST_BATCH
    if state.order == "ahead" and first < queries:
        room = state.plan.most_queries(state.pool_bytes - _reserved(state) + state.plan.ahead_bytes(first))
    for serial, start in enumerate(range(first, queries, room), state.pool.next_serial):
        chunks.append((serial, slice(start, min(start + room, queries)), False))
    return chunks


def _reserved(state: QuerierState) -> int:
    """Room in the answering party's pool that waiting material takes."""
    return state.plan.ahead_bytes(state.pool.queries)


def _check_room(state: AnswererState, batch: int) -> None:
    """The querying party must not make us hold more than was agreed."""
    needed = state.pool.stored_bytes + state.model.plan.ahead_bytes(batch)
    if not batch > 0 or needed > state.pool_bytes:
        raise PeerFailed(f"the querying party asks for {batch} queries at once: beyond the pool that was agreed on")


def _ahead_querier(state: QuerierState, serial: int, batch: int, progress: "_Progress") -> Steps:
    """Random shares, their products with the weights, garbled circuits; leaves them in the pool."""
    yield Mark(Phase.OFFLINE)
    network, ring_bits, layouts = state.plan.network, state.plan.network.ring_bits, state.plan.layouts(batch)
    shares = {i: uniform((batch, *network.nodes[i].shape), ring_bits) for i in (0, *dict(nonlinear(network)))}
    mask = shares[0]
    _share_local(network, shares, ring_bits)
    for i, node in weighted(network):
        yield from upload(state.keys, node, layouts[i], shares[node.sources[0]])
        yield progress.step()
    for i, node in weighted(network):
        shares[i] = yield from receive(state.keys, node, layouts[i], batch)
        yield progress.step()
    _share_local(network, shares, ring_bits)
    garbled = {}
    for i, layer in nonlinear(network):
        bits = known_bits(layer, ring_bits, shares[layer.sources[0]], shares[i])
        garbled[i] = yield from garble_ahead(state.garbler, circuit_of(layer, ring_bits), bits)
        yield progress.step()
    state.pool.add(serial, QuerierMaterial(batch, mask, garbled, shares[len(network.nodes) - 1]))


def _ahead_answerer(state: AnswererState, serial: int, batch: int) -> Steps:
    yield Mark(Phase.OFFLINE)
    _check_room(state, batch)
    plan = state.model.plan
    masks, received = {}, {}
    for i, node in weighted(plan.network):
        encoded = state.model.encoded(i, plan.layouts(batch)[i])
        masks[i] = yield from respond(state.key, node, encoded, batch)
    for i, layer in nonlinear(plan.network):
        circuit = circuit_of(layer, plan.network.ring_bits)
        received[i] = yield from receive_ahead(state.evaluator, circuit, 0, batch * units(layer))
    state.pool.add(serial, AnswererMaterial(batch, masks, received))


def _online_querier(state: QuerierState, serial: int, x: NDArray[np.float32], progress: "_Progress") -> Steps:
    """Send the masked input, answer one message a nonlinear layer; returns the share of the logits."""
    yield Mark(Phase.ONLINE)
    material = state.pool.take(serial, len(x))
    encoded = encode(x, state.plan.network).astype(np.int64).astype(np.uint64)
    yield Send(((encoded - material.mask) & ring_mask(state.plan.network.ring_bits)).tobytes())
    for ready in material.garbled.values():
        yield from garbler_online(state.garbler, ready, np.empty((0, ready.instances), np.uint8))
        yield progress.step()
    return material.logits


def _online_answerer(state: AnswererState, serial: int, batch: int) -> Steps:
    yield Mark(Phase.ONLINE)
    material = state.pool.take(serial, batch)
    network, ring_bits = state.model.plan.network, state.model.plan.network.ring_bits
    masked = _exactly((yield Recv()), 8 * material.batch * int(np.prod(network.input_shape)))
    shares = {0: np.frombuffer(masked, np.uint64).reshape(material.batch, *network.input_shape)}
    for i, node in enumerate(network.nodes):
        if isinstance(node, WEIGHTED):
            shares[i] = state.model.apply(i, shares[node.sources[0]], material.masks[i])
        elif isinstance(node, NONLINEAR):
            bits = input_bits(node, ring_bits, shares[node.sources[0]])
            outputs = yield from evaluator_online(material.received[i], bits)
            shares[i] = output_share(node, material.batch, outputs)
        elif isinstance(node, LOCAL):
            shares[i] = apply_local(node, *(shares[source] for source in node.sources)) & ring_mask(ring_bits)
    return shares[len(network.nodes) - 1]


def _online_order_querier(state: QuerierState, x: NDArray[np.float32], progress: "_Progress") -> Steps:
    """The paper's order: every layer in turn; returns the share of the logits."""
    yield Mark(Phase.ONLINE)
    network, ring_bits, batch = state.plan.network, state.plan.network.ring_bits, len(x)
    encoded = encode(x, network).astype(np.int64).astype(np.uint64)
    layouts, shares = state.plan.layouts(batch), {0: encoded & ring_mask(ring_bits)}
    for i, node in enumerate(network.nodes):
        if isinstance(node, WEIGHTED):
            yield from upload(state.keys, node, layouts[i], shares[node.sources[0]])
            yield progress.step()
            shares[i] = yield from receive(state.keys, node, layouts[i], batch)
            yield progress.step()
        elif isinstance(node, NONLINEAR):
            shares[i] = uniform((batch, *node.shape), ring_bits)
            bits = known_bits(node, ring_bits, shares[node.sources[0]], shares[i])
            late = np.empty((0, bits.shape[1]), np.uint8)
            yield from stream_garbler(state.garbler, circuit_of(node, ring_bits), bits, late, Phase.ONLINE)
            yield progress.step()
        elif isinstance(node, LOCAL):
            shares[i] = apply_local(node, *(shares[source] for source in node.sources)) & ring_mask(ring_bits)
    return shares[len(network.nodes) - 1]


def _online_order_answerer(state: AnswererState, batch: int) -> Steps:
    yield Mark(Phase.ONLINE)
    plan = state.model.plan
    network, ring_bits = plan.network, plan.network.ring_bits
    shares = {0: np.zeros((batch, *network.input_shape), np.uint64)}
    for i, node in enumerate(network.nodes):
        if isinstance(node, WEIGHTED):
            mask = yield from respond(state.key, node, state.model.encoded(i, plan.layouts(batch)[i]), batch)
            shares[i] = state.model.apply(i, shares[node.sources[0]], mask)
        elif isinstance(node, NONLINEAR):
            bits = input_bits(node, ring_bits, shares[node.sources[0]])
            circuit = circuit_of(node, ring_bits)
            outputs = yield from stream_evaluator(state.evaluator, circuit, 0, bits, Phase.ONLINE)
            shares[i] = output_share(node, batch, outputs)
        elif isinstance(node, LOCAL):
            shares[i] = apply_local(node, *(shares[source] for source in node.sources)) & ring_mask(ring_bits)
    return shares[len(network.nodes) - 1]


class _Progress:
    """Counts what one batch goes through: two steps a weighted layer ahead, one a circuit in each phase."""

    def __init__(self, network: PublicNetwork, start: float, span: float, *, ahead: bool) -> None:
        circuits = len(dict(nonlinear(network)))
        total = (2 * len(dict(weighted(network))) + circuits if ahead else 0) + circuits
        self._done, self._each = start, span / max(1, total)

    def step(self) -> Mark:
        """One more is done."""
        self._done = min(1.0, self._done + self._each)
        return Mark(done=self._done)


def _share_local(network: Any, shares: dict[int, Words], ring_bits: int) -> None:
    """Fill in the local layers whose sources are known."""
    for i, node in enumerate(network.nodes):
        if isinstance(node, LOCAL) and i not in shares and all(source in shares for source in node.sources):
            shares[i] = apply_local(node, *(shares[source] for source in node.sources)) & ring_mask(ring_bits)


def _exactly(payload: bytes, expected: int) -> bytes:
    """A payload of a known size; raises PeerFailed."""
    if len(payload) != expected:
        raise PeerFailed(f"hybrid inference: {len(payload)} bytes came instead of {expected}")
    return payload
