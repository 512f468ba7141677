"""Yao's protocol as a two-party program: the garbler garbles, the evaluator alone learns the output.

Offline, before inputs are known: correlated transfers on random choices, the garbled tables, and the labels of
those inputs of the garbler that are known already (masks). Online: the evaluator sends a correction bit for each of
its inputs, the garbler answers with labels and decode bits; one round trip. An input of the evaluator with value b
= c ^ d (c its random choice, d the correction) has zero label q ^ e: q from the transfer, e the garbler's own, of
which it sends e ^ d Delta. Everything is taken from its session before it is sent, and is never used again.

Limits. Both parties must be semi-honest: nothing checks the extension's message, and one party that cheats can
learn bits of the other's secrets. Tables go out before the evaluator chooses its inputs; decode bits do not, but the
proof of half gates is for inputs that are fixed first. The two phases are one program, so that work cannot yet be
done hours ahead. Python does not erase secrets from memory.
"""

import os
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import Phase
from capcsim.crypto.base_ot import base_ot_receiver, base_ot_sender
from capcsim.crypto.circuits import Circuit
from capcsim.crypto.correlated_ot import COLUMNS, CotReceiver, CotSender, refill_receiver, refill_sender
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
from capcsim.crypto.programs import Mark, Recv, Send, Steps
from capcsim.errors import PeerFailed

Bits = NDArray[np.uint8]


@dataclass
class _Session:
    """What both sides have. A run that was aborted leaves the two sides out of step: the session is then dead."""

    keys: GateKeys
    hash: Hash
    running: bool = field(default=False, init=False, kw_only=True)
    owner: int = field(default_factory=os.getpid, init=False, kw_only=True)

    def begin(self) -> None:
        """Raises PeerFailed after an aborted run, and in a forked copy, which would use the same labels again."""
        if self.owner != os.getpid():
            raise PeerFailed("this session belongs to the process that this one was forked from; set up a new one")
        if self.running:
            raise PeerFailed("this session was aborted in the middle of a circuit; set up a new one")
        self.running = True


@dataclass
class GarblerSession(_Session):
    """One pair, one direction: Delta, gate numbers and transfers belong to it and to nothing else."""

    delta: NDArray[np.uint64] = field(repr=False)
    transfers: CotSender = field(repr=False)


@dataclass
class EvaluatorSession(_Session):
    """The evaluator's side of a pair."""

    transfers: CotReceiver = field(repr=False)


def set_up_garbler(hash_: Hash = Hash.LANES) -> Steps:
    """Base transfers with Delta's bits as choices, and the start point of the gate keys; returns the session."""
    delta, keys = random_delta(), GateKeys.fresh()
    chosen = yield from base_ot_receiver(np.unpackbits(delta.view(np.uint8), bitorder="little"))
    yield Send(keys.to_bytes())
    return GarblerSession(keys, hash_, delta, CotSender(delta, chosen))


def set_up_evaluator(hash_: Hash = Hash.LANES) -> Steps:
    """The other side of `set_up_garbler`."""
    pairs = yield from base_ot_sender(COLUMNS)
    keys = GateKeys.from_bytes((yield Recv()))
    return EvaluatorSession(keys, hash_, CotReceiver(pairs))


def run_garbler(session: GarblerSession, circuit: Circuit, early: Bits, late: Bits) -> Steps:
    """Garble N instances. `late` uint8[k, N] are the first inputs, known online; `early` the rest; no output."""
    instances = late.shape[1]
    session.begin()
    yield Mark(Phase.OFFLINE)
    needed = circuit.evaluator_inputs * instances
    yield from refill_sender(session.transfers, needed)
    transferred = session.transfers.take(needed).reshape(circuit.evaluator_inputs, instances, 2)
    own = random_labels(circuit.garbler_inputs, instances)
    blinds = random_labels(circuit.evaluator_inputs, instances)
    zero_labels = np.concatenate([own, transferred ^ blinds])
    decode: list[Bits] = []
    groups = _groups(circuit, instances, session.hash)
    for lanes in groups:
        keys = session.keys.take(circuit.ands)
        tables, outputs = garble(circuit, np.ascontiguousarray(zero_labels[:, lanes]), session.delta, keys)
        decode.append(select_bits(outputs))
        yield Send(tables.tobytes())
        yield Send(encode(own[len(late) :, lanes], session.delta, early[:, lanes]).tobytes())
    yield Mark(Phase.ONLINE)
    corrections = _unpacked((yield Recv()), blinds.shape[:2])
    for lanes, bits in zip(groups, decode, strict=True):
        yield Send(np.packbits(bits).tobytes())
        mine = encode(own[: len(late), lanes], session.delta, late[:, lanes])
        theirs = encode(blinds[:, lanes], session.delta, corrections[:, lanes])
        yield Send(np.concatenate([mine, theirs]).tobytes())
    session.running = False


def run_evaluator(session: EvaluatorSession, circuit: Circuit, late_inputs: int, bits: Bits) -> Steps:
    """Evaluate N instances on own bits uint8[k, N]; returns the output bits uint8[outputs, N].

    `late_inputs` is how many of the garbler's inputs come online.
    """
    instances = bits.shape[1]
    session.begin()
    yield Mark(Phase.OFFLINE)
    yield from refill_receiver(session.transfers, bits.size)
    choices, transferred = session.transfers.take(bits.size)
    groups = _groups(circuit, instances, session.hash)
    garbled: list[tuple[NDArray[np.uint64], Labels, KeyRange]] = []
    for lanes in groups:
        keys, count = session.keys.take(circuit.ands), lanes.stop - lanes.start
        tables = _blocks((yield Recv()), (circuit.ands, 2, count))
        garbled.append((tables, _blocks((yield Recv()), (circuit.garbler_inputs - late_inputs, count)), keys))
    yield Mark(Phase.ONLINE)
    yield Send(np.packbits(bits ^ choices.reshape(bits.shape)).tobytes())
    own = transferred.reshape(*bits.shape, 2)
    outputs = np.empty((circuit.outputs, instances), np.uint8)
    for lanes, (tables, early, keys) in zip(groups, garbled, strict=True):
        count = lanes.stop - lanes.start
        decode = _unpacked((yield Recv()), (circuit.outputs, count))
        answers = _blocks((yield Recv()), (late_inputs + len(bits), count))
        labels = np.concatenate([answers[:late_inputs], early, answers[late_inputs:] ^ own[:, lanes]])
        outputs[:, lanes] = select_bits(evaluate(circuit, labels, tables, keys)) ^ decode
    session.running = False
    return outputs


def _groups(circuit: Circuit, instances: int, hash_: Hash) -> list[slice]:
    """The lanes that are garbled under one set of keys and travel together."""
    step = lanes_per_key(circuit, hash_)
    return [slice(first, min(first + step, instances)) for first in range(0, instances, step)]


def _blocks(payload: bytes, shape: tuple[int, ...]) -> Labels:
    """A payload as uint64[*shape, 2]; raises PeerFailed for another size."""
    expected = 16 * int(np.prod(shape))
    if len(payload) != expected:
        raise PeerFailed(f"Yao: {len(payload)} bytes came instead of {expected}")
    return np.frombuffer(payload, np.uint64).reshape(*shape, 2)


def _unpacked(payload: bytes, shape: tuple[int, ...]) -> Bits:
    """A payload of bits as uint8[*shape]; raises PeerFailed for another size."""
    count = int(np.prod(shape))
    if len(payload) != -(-count // 8):
        raise PeerFailed(f"Yao: {len(payload)} bytes came instead of {-(-count // 8)}")
    return np.unpackbits(np.frombuffer(payload, np.uint8), count=count).reshape(shape)
