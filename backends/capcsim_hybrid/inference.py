"""Steps 1a and 1b as two-party programs, after Delphi (Mishra et al., USENIX Security 2020), for the roles of CaPC.

Every value is shared mod 2^k: the querying party's share of an input or activation is a fresh r, which does not
depend on the input; the answering party's is x - r. Ahead, for each weighted layer: the querying party sends Enc(r),
and gets back Enc(W r - s). For each nonlinear layer it garbles a circuit that knows its shares W r - s and the
next r. Online it sends x - r once; the answering party computes W (x - r) + s + bias, never a cleartext activation,
and evaluates the circuits, one round trip a layer, to x' - r'. Decode bits go to the evaluator only, who returns
nothing. The order "online" is the paper's own: no phase ahead, the first share is x itself, and every layer
is encrypted, answered, garbled and evaluated in turn.

Limits. Both parties must be semi-honest: a querying party that sent a public key or an upload of its own design could
read weights. The flood's margin is one query's; n queries of one model leave log2 n bits less. That tables are sent
before the answering party's inputs exist is harmless: these follow from x, r, s and W, not from the tables.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import Phase
from capcsim.crypto.shares import ring_mask, uniform
from capcsim.errors import InputError, PeerFailed
from capcsim.fixed_point.layers import LOCAL, NONLINEAR, WEIGHTED, Local, apply_local
from capcsim.fixed_point.network import PublicNetwork, encode
from capcsim.twoparty.programs import Mark, Recv, Send, Steps
from capcsim.twoparty.yao import (
    evaluator_online,
    garble_ahead,
    garbler_online,
    receive_ahead,
    stream_evaluator,
    stream_garbler,
)
from capcsim_hybrid.linear import receive, respond, upload
from capcsim_hybrid.nonlinear import circuit_of, input_bits, known_bits, output_share, units
from capcsim_hybrid.packing import Layout
from capcsim_hybrid.plan import nonlinear, weighted
from capcsim_hybrid.sessions import AnswererMaterial, AnswererState, QuerierMaterial, QuerierState, exactly

Words = NDArray[np.uint64]
_CHUNK = struct.Struct("<QQ??")
"""Announces a batch: serial number, queries, whether its material lies ready, whether it is the last."""


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
    announced = yield Recv()
    # Only now: a querying party whose input is refused has sent nothing, and nothing is out of step.
    state.evaluator.begin()
    shares: list[Words] = []
    while announced is not None:
        serial, batch, ready, last = _announcement(state, announced)
        if state.order == "online":
            shares.append((yield from _online_order_answerer(state, batch)))
        else:
            if not ready:
                yield from _ahead_answerer(state, serial, batch)
            shares.append((yield from _online_answerer(state, serial, batch)))
        announced = None if last else (yield Recv())
    state.evaluator.end()
    return np.concatenate(shares)


def fill_querier(state: QuerierState, queries: int) -> Steps:
    """Only the phase ahead, for so many queries in one batch; raises InputError when the pool has no room."""
    if state.order == "online":
        raise InputError("order = 'online' has no phase ahead; take order = 'ahead' to fill a pool")
    room = state.plan.most_queries(state.pool_bytes - _reserved(state))
    if not 1 <= queries <= room:
        raise InputError(f"{queries} queries do not fit the offline pool: 1 to {room} do now; raise pool_bytes")
    state.garbler.begin()
    serial = state.pool.next_serial
    yield Mark(Phase.OFFLINE)
    yield Send(_CHUNK.pack(serial, queries, False, True))
    yield from _ahead_querier(state, serial, queries, _Progress(state.plan.network, 0, 1, ahead=True))
    state.garbler.end()
    return serial


def fill_answerer(state: AnswererState) -> Steps:
    """The other side of `fill_querier`."""
    serial, batch, _, _ = _announcement(state, (yield Recv()))
    state.evaluator.begin()
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
    room = state.plan.most_batch
    if state.order == "ahead" and first < queries:
        room = state.plan.most_queries(state.pool_bytes - _reserved(state) + state.plan.ahead_bytes(first))
    for serial, start in enumerate(range(first, queries, room), state.pool.next_serial):
        chunks.append((serial, slice(start, min(start + room, queries)), False))
    return chunks


def _reserved(state: QuerierState) -> int:
    """Room in the answering party's pool that waiting material takes."""
    return state.plan.ahead_bytes(state.pool.queries)


def _announcement(state: AnswererState, payload: bytes) -> tuple[int, int, bool, bool]:
    """Serial number, queries, whether their material lies ready, whether they are the last; raises PeerFailed."""
    serial, batch, ready, last = _CHUNK.unpack(exactly(payload, _CHUNK.size))
    if not 1 <= batch <= state.model.plan.most_batch:
        raise PeerFailed(f"the querying party announces {batch} queries; 1 to {state.model.plan.most_batch} may run")
    return serial, batch, ready, last


def _check_room(state: AnswererState, batch: int) -> None:
    """The querying party must not make us hold more than was agreed."""
    needed = state.pool.stored_bytes + state.model.plan.ahead_bytes(batch)
    if state.order == "online" or needed > state.pool_bytes:
        raise PeerFailed(f"the querying party asks for {batch} queries at once: beyond the pool that was agreed on")


def _ahead_querier(state: QuerierState, serial: int, batch: int, progress: "_Progress") -> Steps:
    """Random shares, their products with the weights, garbled circuits; leaves them in the pool."""
    yield Mark(Phase.OFFLINE)
    network, ring_bits, layouts = state.plan.network, state.plan.network.ring_bits, state.plan.layouts(batch)
    fresh = {i: uniform((batch, *network.nodes[i].shape), ring_bits) for i in (0, *dict(nonlinear(network)))}
    yield from _upload_all(state, layouts, fresh, progress)
    products = {}
    for i, node in weighted(network):
        products[i] = yield from receive(state.keys, node, layouts[i], batch)
        yield progress.step()
    garbled, shares = {}, _Shares(network)
    for i, layer in enumerate(network.nodes):
        if isinstance(layer, NONLINEAR):
            bits = known_bits(layer, ring_bits, shares.of(i)[0], fresh[i])
            garbled[i] = yield from garble_ahead(state.garbler, circuit_of(layer, ring_bits), bits)
            yield progress.step()
        if isinstance(layer, LOCAL):
            shares.put_local(i, layer)
        else:
            shares.put(i, fresh[i] if i in fresh else products.pop(i))
    state.pool.add(serial, QuerierMaterial(batch, fresh[0], garbled, shares.last))


def _upload_all(
    state: QuerierState, layouts: dict[int, Layout], fresh: dict[int, Words], progress: "_Progress"
) -> Steps:
    """The inputs of all weighted layers at once: they are made of fresh shares only, and the other side can begin."""
    network, shares = state.plan.network, _Shares(state.plan.network)
    for i, node in enumerate(network.nodes):
        if isinstance(node, WEIGHTED):
            yield from upload(state.keys, node, layouts[i], shares.of(i)[0])
            yield progress.step()
        elif i in fresh:
            shares.put(i, fresh[i])
        elif isinstance(node, LOCAL) and shares.known(i):
            shares.put_local(i, node)


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
    masked = exactly((yield Recv()), 8 * batch * int(np.prod(network.input_shape)))
    shares = _Shares(network)
    shares.put(0, np.frombuffer(masked, np.uint64).reshape(batch, *network.input_shape))
    for i, node in enumerate(network.nodes):
        if isinstance(node, WEIGHTED):
            shares.put(i, state.model.apply(i, shares.of(i)[0], material.masks[i]))
        elif isinstance(node, NONLINEAR):
            bits = input_bits(node, ring_bits, shares.of(i)[0])
            outputs = yield from evaluator_online(material.received[i], bits)
            shares.put(i, output_share(node, batch, outputs))
        elif isinstance(node, LOCAL):
            shares.put_local(i, node)
    return shares.last


def _online_order_querier(state: QuerierState, x: NDArray[np.float32], progress: "_Progress") -> Steps:
    """The paper's order: every layer in turn; returns the share of the logits."""
    yield Mark(Phase.ONLINE)
    network, ring_bits, batch = state.plan.network, state.plan.network.ring_bits, len(x)
    encoded = encode(x, network).astype(np.int64).astype(np.uint64)
    layouts, shares = state.plan.layouts(batch), _Shares(network)
    shares.put(0, encoded & ring_mask(ring_bits))
    for i, node in enumerate(network.nodes):
        if isinstance(node, WEIGHTED):
            yield from upload(state.keys, node, layouts[i], shares.of(i)[0])
            yield progress.step()
            shares.put(i, (yield from receive(state.keys, node, layouts[i], batch)))
            yield progress.step()
        elif isinstance(node, NONLINEAR):
            fresh = uniform((batch, *node.shape), ring_bits)
            bits = known_bits(node, ring_bits, shares.of(i)[0], fresh)
            late = np.empty((0, bits.shape[1]), np.uint8)
            yield from stream_garbler(state.garbler, circuit_of(node, ring_bits), bits, late, Phase.ONLINE)
            shares.put(i, fresh)
            yield progress.step()
        elif isinstance(node, LOCAL):
            shares.put_local(i, node)
    return shares.last


def _online_order_answerer(state: AnswererState, batch: int) -> Steps:
    yield Mark(Phase.ONLINE)
    plan = state.model.plan
    network, ring_bits = plan.network, plan.network.ring_bits
    shares = _Shares(network)
    shares.put(0, np.zeros((batch, *network.input_shape), np.uint64))
    for i, node in enumerate(network.nodes):
        if isinstance(node, WEIGHTED):
            mask = yield from respond(state.key, node, state.model.encoded(i, plan.layouts(batch)[i]), batch)
            shares.put(i, state.model.apply(i, shares.of(i)[0], mask))
        elif isinstance(node, NONLINEAR):
            bits = input_bits(node, ring_bits, shares.of(i)[0])
            circuit = circuit_of(node, ring_bits)
            outputs = yield from stream_evaluator(state.evaluator, circuit, 0, bits, Phase.ONLINE)
            shares.put(i, output_share(node, batch, outputs))
        elif isinstance(node, LOCAL):
            shares.put_local(i, node)
    return shares.last


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


class _Shares:
    """One party's shares of a network's values, uint64[B, *shape]; each is dropped after its last use."""

    def __init__(self, network: PublicNetwork) -> None:
        self._nodes, self._mask = network.nodes, ring_mask(network.ring_bits)
        self._last_use = {source: i for i, node in enumerate(network.nodes) for source in node.sources}
        self._kept: dict[int, Words] = {}

    def known(self, position: int) -> bool:
        """Whether the sources of a node are here."""
        return all(source in self._kept for source in self._nodes[position].sources)

    def of(self, position: int) -> list[Words]:
        """The shares of a node's sources; the last user takes them away."""
        sources = self._nodes[position].sources
        found = [self._kept[source] for source in sources]
        for source in sources:
            if self._last_use[source] == position:
                self._kept.pop(source, None)
        return found

    def put(self, position: int, share: Words) -> None:
        """Keep a node's share if another node uses it, or it is the result."""
        if position in self._last_use or position == len(self._nodes) - 1:
            self._kept[position] = share

    def put_local(self, position: int, node: Local) -> None:
        """Compute a layer without weights on its sources' shares."""
        self.put(position, apply_local(node, *self.of(position)) & self._mask)

    @property
    def last(self) -> Words:
        """The share of the logits."""
        return self._kept[len(self._nodes) - 1]
