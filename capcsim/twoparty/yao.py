"""Yao's protocol as two-party programs: the garbler garbles, the evaluator alone learns the output.

Ahead, before late inputs are known: correlated transfers on random choices, the garbled tables, and the labels of
those inputs of the garbler that are known already. Then: the evaluator sends a correction bit for each of its
inputs, the garbler answers with labels and decode bits; one round trip. An input of the evaluator with value b
= c ^ d (c its random choice, d the correction) has zero label q ^ e: q from the transfer, e the garbler's own, of
which it sends e ^ d Delta. Labels of inputs that are known ahead are the key stream of a seed, which is sent when
their bits are fixed: the active labels are then uniform, as they would be. Everything is taken from its session
before it is sent, and is never used again; what lies ready is used once.

Limits. Both parties must be semi-honest: nothing checks the extension's message, and one party that cheats can
learn bits of the other's secrets. Tables go out before the evaluator chooses its inputs; decode bits do not, but the
proof of half gates is for inputs that are fixed first. Python does not erase secrets from memory.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import Phase
from capcsim.crypto.circuits import Circuit
from capcsim.crypto.correlated_ot import COLUMNS, CotReceiver, CotSender
from capcsim.crypto.garbling import (
    GateKeys,
    Hash,
    KeyRange,
    Labels,
    encode,
    evaluate,
    garble,
    lanes_per_key,
    random_delta,
    random_labels,
    select_bits,
)
from capcsim.crypto.interpreters import TABLE_BYTES
from capcsim.crypto.randomness import keystream, random_bytes
from capcsim.errors import PeerFailed
from capcsim.twoparty.oblivious_transfer import base_ot_receiver, base_ot_sender, refill_receiver, refill_sender
from capcsim.twoparty.programs import Mark, Recv, Send, Steps

Bits = NDArray[np.uint8]
SEED_BYTES = 16
MOST_STREAMED_BYTES = 64 << 20
"""Tables that are under way at once where nothing lies ready; more instances follow in further chunks."""


@dataclass
class _Session:
    """What both sides have. A run that was aborted leaves the two sides out of step: the session is then dead.

    `begin` and `end` stand around whatever uses the session.
    """

    keys: GateKeys
    hash: Hash
    running: bool = field(default=False, init=False, kw_only=True)
    owner: int = field(default_factory=os.getpid, init=False, kw_only=True)

    def begin(self) -> None:
        """Raises PeerFailed after an aborted run, and in a forked copy, which would use the same labels again."""
        if self.owner != os.getpid():
            raise PeerFailed("this session belongs to the process that this one was forked from", "set up a new one")
        if self.running:
            raise PeerFailed("this session was aborted in the middle of a circuit", "set up a new one")
        self.running = True

    def end(self) -> None:
        """The two sides are in step again."""
        self.running = False


@dataclass
class GarblerSession(_Session):
    """One pair, one direction: Delta, gate numbers and transfers belong to it and to nothing else."""

    delta: NDArray[np.uint64] = field(repr=False)
    transfers: CotSender = field(repr=False)


@dataclass
class EvaluatorSession(_Session):
    """The evaluator's side of a pair."""

    transfers: CotReceiver = field(repr=False)


@dataclass
class _Ready:
    """N instances of a circuit that lie ready at one side, for one use."""

    circuit: Circuit
    instances: int
    used: bool = field(default=False, init=False, kw_only=True)

    def use(self) -> None:
        """Raises PeerFailed the second time: the same labels for other inputs would open both."""
        if self.used:
            raise PeerFailed(f"{self.circuit.name}: these garbled circuits were used already", "garble new ones")
        self.used = True


@dataclass
class Garbled(_Ready):
    """The garbler's side: zero labels of its late inputs, what blinds the evaluator's, and the decode bits."""

    late: Labels = field(repr=False)
    blinds: Labels = field(repr=False)
    decode: list[tuple[slice, Bits]] = field(repr=False)

    @property
    def stored_bytes(self) -> int:
        """What lies here until it is used."""
        return self.late.nbytes + self.blinds.nbytes + sum(bits.nbytes for _, bits in self.decode)


@dataclass
class Received(_Ready):
    """The evaluator's side: its choices and their labels, and for each group of lanes tables, seed and keys."""

    late_inputs: int
    choices: Bits = field(repr=False)
    labels: Labels = field(repr=False)
    groups: list[tuple[slice, bytes, bytes, KeyRange]] = field(repr=False)

    @property
    def stored_bytes(self) -> int:
        """What lies here until it is used."""
        return self.choices.nbytes + self.labels.nbytes + sum(len(tables) for _, tables, _, _ in self.groups)


def set_up_garbler(hash_: Hash = Hash.LANES) -> Steps:
    """Base transfers with Delta's bits as choices, and the start point of the gate keys; returns the session."""
    delta, keys = random_delta(), GateKeys.fresh()
    chosen = yield from base_ot_receiver(np.unpackbits(delta.view(np.uint8), bitorder="little"))
    yield Send(keys.to_bytes())
    return GarblerSession(keys, hash_, delta, CotSender(delta, chosen))


def set_up_evaluator(hash_: Hash = Hash.LANES) -> Steps:
    """The other side of `set_up_garbler`."""
    pairs = yield from base_ot_sender(COLUMNS)
    keys = GateKeys.from_bytes(_sized((yield Recv()), SEED_BYTES))
    return EvaluatorSession(keys, hash_, CotReceiver(pairs))


def garble_ahead(session: GarblerSession, circuit: Circuit, early: Bits) -> Steps:
    """Garble N instances for later; returns `Garbled`. Its caller has called `session.begin`.

    `early` uint8[k, N] are the garbler's last k inputs; those before them are late, given to `garbler_online`.
    """
    instances, late_inputs = early.shape[1], circuit.garbler_inputs - len(early)
    needed = circuit.evaluator_inputs * instances
    yield from refill_sender(session.transfers, needed)
    transferred = session.transfers.take(needed).reshape(circuit.evaluator_inputs, instances, 2)
    late = random_labels(late_inputs, instances)
    blinds = random_labels(circuit.evaluator_inputs, instances)
    theirs = transferred ^ blinds
    decode: list[tuple[slice, Bits]] = []
    for lanes in _groups(circuit, instances, session.hash):
        seed, keys = random_bytes(SEED_BYTES), session.keys.take(circuit.ands)
        # The label that the evaluator will hold is the seed's; the zero label follows from it and the bit.
        known = encode(_seeded_labels(seed, len(early), lanes), session.delta, early[:, lanes])
        zero_labels = np.concatenate([late[:, lanes], known, theirs[:, lanes]])
        tables, outputs = garble(circuit, zero_labels, session.delta, keys)
        decode.append((lanes, select_bits(outputs)))
        yield Send(tables.tobytes())
        yield Send(seed)
    return Garbled(circuit, instances, late, blinds, decode)


def receive_ahead(session: EvaluatorSession, circuit: Circuit, late_inputs: int, instances: int) -> Steps:
    """The evaluator's side of `garble_ahead`; returns `Received`."""
    needed = circuit.evaluator_inputs * instances
    yield from refill_receiver(session.transfers, needed)
    choices, labels = session.transfers.take(needed)
    groups: list[tuple[slice, bytes, bytes, KeyRange]] = []
    for lanes in _groups(circuit, instances, session.hash):
        keys = session.keys.take(circuit.ands)
        tables = _sized((yield Recv()), TABLE_BYTES * circuit.ands * (lanes.stop - lanes.start))
        groups.append((lanes, tables, _sized((yield Recv()), SEED_BYTES), keys))
    shape = (circuit.evaluator_inputs, instances)
    return Received(circuit, instances, late_inputs, choices.reshape(shape), labels.reshape(*shape, 2), groups)


def garbler_online(session: GarblerSession, ready: Garbled, late: Bits) -> Steps:
    """Answer the evaluator's corrections; `late` uint8[k, N] are the garbler's first k inputs. No output."""
    ready.use()
    corrections = _unpacked((yield Recv()), ready.blinds.shape[:2])
    for lanes, bits in ready.decode:
        yield Send(np.packbits(bits).tobytes())
        mine = encode(ready.late[:, lanes], session.delta, late[:, lanes])
        theirs = encode(ready.blinds[:, lanes], session.delta, corrections[:, lanes])
        yield Send(np.concatenate([mine, theirs]).tobytes())


def evaluator_online(ready: Received, bits: Bits) -> Steps:
    """Evaluate on own bits uint8[k, N]; returns the output bits uint8[outputs, N]."""
    ready.use()
    circuit = ready.circuit
    yield Send(np.packbits(bits ^ ready.choices).tobytes())
    outputs = np.empty((circuit.outputs, ready.instances), np.uint8)
    for lanes, tables, seed, keys in ready.groups:
        count = lanes.stop - lanes.start
        decode = _unpacked((yield Recv()), (circuit.outputs, count))
        answers = _blocks((yield Recv()), (ready.late_inputs + len(bits), count))
        early = _seeded_labels(seed, circuit.garbler_inputs - ready.late_inputs, lanes)
        own = answers[ready.late_inputs :] ^ ready.labels[:, lanes]
        labels = np.concatenate([answers[: ready.late_inputs], early, own])
        outputs[:, lanes] = select_bits(evaluate(circuit, labels, _blocks(tables, (circuit.ands, 2, count)), keys))
        outputs[:, lanes] ^= decode
    ready.groups.clear()
    return outputs


def run_garbler(session: GarblerSession, circuit: Circuit, early: Bits, late: Bits) -> Steps:
    """Both phases of N instances; no output. `late` uint8[k, N] are the first inputs; `early` the rest."""
    session.begin()
    yield from stream_garbler(session, circuit, early, late, Phase.OFFLINE)
    session.end()


def run_evaluator(session: EvaluatorSession, circuit: Circuit, late_inputs: int, bits: Bits) -> Steps:
    """Evaluate N instances on own bits uint8[k, N]; returns the output bits uint8[outputs, N].

    `late_inputs` is how many of the garbler's inputs come online.
    """
    session.begin()
    outputs = yield from stream_evaluator(session, circuit, late_inputs, bits, Phase.OFFLINE)
    session.end()
    return outputs


def stream_garbler(session: GarblerSession, circuit: Circuit, early: Bits, late: Bits, ahead: Phase) -> Steps:
    """As `run_garbler`, in chunks whose tables fit `MOST_STREAMED_BYTES`; `ahead` labels what could lie ready.

    Its caller has called `session.begin`.
    """
    for lanes in _chunks(circuit, early.shape[1]):
        yield Mark(ahead)
        ready = yield from garble_ahead(session, circuit, early[:, lanes])
        yield Mark(Phase.ONLINE)
        yield from garbler_online(session, ready, late[:, lanes])


def stream_evaluator(session: EvaluatorSession, circuit: Circuit, late_inputs: int, bits: Bits, ahead: Phase) -> Steps:
    """The evaluator's side of `stream_garbler`; returns the output bits uint8[outputs, N]."""
    outputs = np.empty((circuit.outputs, bits.shape[1]), np.uint8)
    for lanes in _chunks(circuit, bits.shape[1]):
        yield Mark(ahead)
        ready = yield from receive_ahead(session, circuit, late_inputs, lanes.stop - lanes.start)
        yield Mark(Phase.ONLINE)
        outputs[:, lanes] = yield from evaluator_online(ready, bits[:, lanes])
    return outputs


def _chunks(circuit: Circuit, instances: int) -> Iterator[slice]:
    """Instances whose tables may lie at the evaluator together."""
    return _slices(instances, max(1, MOST_STREAMED_BYTES // (TABLE_BYTES * max(1, circuit.ands))))


def _groups(circuit: Circuit, instances: int, hash_: Hash) -> Iterator[slice]:
    """The lanes that are garbled under one set of keys and travel together."""
    return _slices(instances, lanes_per_key(circuit, hash_))


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(first, min(first + step, count)) for first in range(0, count, step))


def _seeded_labels(seed: bytes, wires: int, lanes: slice) -> Labels:
    """The active labels uint64[wires, lanes, 2] that a seed stands for."""
    count = lanes.stop - lanes.start
    return np.frombuffer(keystream(seed).update(bytes(16 * wires * count)), np.uint64).reshape(wires, count, 2)


def _sized(payload: bytes, expected: int) -> bytes:
    """A payload of a known size; raises PeerFailed for another one."""
    if len(payload) != expected:
        raise PeerFailed(f"Yao: {len(payload)} bytes came instead of {expected}")
    return payload


def _blocks(payload: bytes, shape: tuple[int, ...]) -> Labels:
    """A payload as uint64[*shape, 2]; raises PeerFailed for another size."""
    return np.frombuffer(_sized(payload, 16 * int(np.prod(shape))), np.uint64).reshape(*shape, 2)


def _unpacked(payload: bytes, shape: tuple[int, ...]) -> Bits:
    """A payload of bits as uint8[*shape]; raises PeerFailed for another size."""
    count = int(np.prod(shape))
    return np.unpackbits(np.frombuffer(_sized(payload, -(-count // 8)), np.uint8), count=count).reshape(shape)
