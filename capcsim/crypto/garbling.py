"""Garbling and evaluating circuits: half gates, free XOR, point-and-permute, many instances at once.

Half gates: Zahur, Rosulek, Evans, ePrint 2014/756. Free XOR: Kolesnikov, Schneider 2008. A wire's two labels
differ by the garbler's offset Delta, whose lowest bit is 1, so that a label's lowest bit permutes the rows.

The hash of a label x is E(k, s(x) ^ t) ^ s(x) ^ t, with AES-128 keys k = start ^ 2 gate, start ^ (2 gate + 1) that
are new for every gate (MiTCCRH: Guo, Katz, Wang, Weng, Yu, ePrint 2019/1168). The orthomorphism s(high, low) =
(high ^ low, high) makes it circular correlation robust. Without it the Delta that half gates add to H(x ^ Delta)
cancels the one that is fed forward, AES is inverted under the public key, and Delta is found from a single AND:
`tests/twoparty/test_yao_security.py` mounts that attack. Instances run side by side as lanes:

* `lanes`: up to 2,048 lanes of a gate share its two keys; the tweak t is the lane's number. Without t, a label
  that occurred in two lanes under one key would give Delta away. An attacker who guesses under one key can hit
  any of the 2,048 unknown labels hashed under it, 11 bits, and Delta has 127 unknown bits: about 116 remain.
* `mitccrh`: every gate of every lane has keys of its own and t is 0: nothing is shared, at about a tenth of the speed.

Gate numbers never repeat within a session: `GateKeys` hands them out. Delta, labels and gate numbers belong to
one session, that is to one pair of parties in one direction.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numba import int64
from numpy.typing import NDArray

from capcsim.compiled import compiled
from capcsim.crypto import aes, portable
from capcsim.crypto.circuits import Circuit, Op
from capcsim.crypto.randomness import random_bytes
from capcsim.crypto.shares import uniform
from capcsim.errors import InputError

Labels = NDArray[np.uint64]
"""uint64[wires, N, 2]: 16 bytes for each wire and instance."""

LANES_PER_KEY = 2048
LANES_AT_ONCE = 64
MOST_TABLE_BYTES = 16 << 20
XOR, AND, INV, LOAD = (int(op) for op in (Op.XOR, Op.AND, Op.INV, Op.LOAD))


class Hash(StrEnum):
    """How many lanes share a gate's keys; both sides of a session must use the same."""

    LANES = "lanes"
    MITCCRH = "mitccrh"


@dataclass
class GateKeys:
    """Keys for gates, each handed out once in a session; both sides count alike."""

    start: tuple[int, int]
    next_gate: int = 0

    @classmethod
    def fresh(cls) -> "GateKeys":
        """A new start point; the garbler sends it to the evaluator."""
        return cls.from_bytes(random_bytes(16))

    @classmethod
    def from_bytes(cls, start: bytes) -> "GateKeys":
        """The evaluator's copy."""
        low, high = np.frombuffer(start, np.int64)
        return cls((int(low), int(high)))

    def to_bytes(self) -> bytes:
        """The start point."""
        return np.array(self.start, np.int64).tobytes()

    def take(self, gates: int) -> "KeyRange":
        """The keys of the next gates."""
        first, self.next_gate = self.next_gate, self.next_gate + gates
        return KeyRange(*self.start, first, gates)


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys of `count` gates from number `first` on: start ^ 2 gate and start ^ (2 gate + 1), low word changed."""

    low: int
    high: int
    first: int
    count: int

    def keys(self) -> NDArray[np.int64]:
        """int64[count, 2, 2]: two keys a gate, each (low, high)."""
        numbers = 2 * (self.first + np.arange(self.count))[:, None] + np.arange(2)
        return np.stack([numbers ^ self.low, np.full_like(numbers, self.high)], axis=-1)


def lanes_per_key(circuit: Circuit, hash_: Hash) -> int:
    """How many instances share one set of keys and one message of tables, 16 MiB unless one alone is larger."""
    if hash_ is Hash.MITCCRH:
        return 1
    return max(1, min(LANES_PER_KEY, MOST_TABLE_BYTES // (32 * max(1, circuit.ands))))


def random_labels(wires: int, instances: int) -> Labels:
    """Fresh zero labels uint64[wires, N, 2]."""
    return uniform((wires, instances, 2), 64)


def random_delta() -> NDArray[np.uint64]:
    """A fresh offset uint64[2] whose lowest bit is 1."""
    delta = uniform((2,), 64)
    delta[0] |= np.uint64(1)
    return delta


def garble(
    circuit: Circuit, zero_labels: Labels, delta: NDArray[np.uint64], keys: KeyRange
) -> tuple[NDArray[np.uint64], Labels]:
    """Tables uint64[ands, 2, N, 2] and the outputs' zero labels, for N lanes under one set of keys."""
    instances = _check(circuit, zero_labels, keys)
    tables = np.empty((circuit.ands, 2, instances, 2), np.uint64)
    outputs = np.empty((circuit.outputs, instances, 2), np.uint64)
    if aes.blocks_per_vector():
        _garble(
            circuit.code,
            circuit.slots,
            zero_labels,
            delta,
            expand_keys(keys.low, keys.high, keys.first, keys.count),
            tables,
            outputs,
        )
    else:
        portable.garble(circuit, zero_labels, delta, keys.keys(), tables, outputs)
    return tables, outputs


def evaluate(circuit: Circuit, labels: Labels, tables: NDArray[np.uint64], keys: KeyRange) -> Labels:
    """The outputs' active labels uint64[outputs, N, 2], from the inputs' active labels and the tables."""
    instances = _check(circuit, labels, keys)
    if tables.shape != (circuit.ands, 2, instances, 2):
        raise InputError(f"{circuit.name}: tables of shape {tables.shape} do not fit {instances} instances")
    outputs = np.empty((circuit.outputs, instances, 2), np.uint64)
    if aes.blocks_per_vector():
        _evaluate(
            circuit.code,
            circuit.slots,
            labels,
            expand_keys(keys.low, keys.high, keys.first, keys.count),
            tables,
            outputs,
        )
    else:
        portable.evaluate(circuit, labels, keys.keys(), tables, outputs)
    return outputs


def encode(zero_labels: Labels, delta: NDArray[np.uint64], bits: NDArray[np.uint8]) -> Labels:
    """Active labels of bits uint8[wires, N]: the zero label, plus Delta where the bit is 1."""
    active: Labels = np.empty(zero_labels.shape, np.uint64)
    _encode(np.ascontiguousarray(zero_labels), delta, np.ascontiguousarray(bits), active)
    return active


def select_bits(labels: Labels) -> NDArray[np.uint8]:
    """The lowest bit of each label, uint8[wires, N]. XOR of the two sides' is the wire's value."""
    return (labels[..., 0] & np.uint64(1)).astype(np.uint8)


def _check(circuit: Circuit, labels: Labels, keys: KeyRange) -> int:
    if len(labels) != circuit.inputs or keys.count != circuit.ands:
        raise InputError(
            f"{circuit.name} takes {circuit.inputs} labels and {circuit.ands} keys, not {len(labels)} and {keys.count}"
        )
    return int(labels.shape[1])


@compiled(nogil=True)
def expand_keys(low: Any, high: Any, first: Any, count: Any) -> Any:
    """Expanded keys uint64[count, 2, 11, 2] of a range."""
    expanded = np.empty((count, 2, aes.ROUNDS + 1, 2), np.uint64)
    address = int64(expanded.ctypes.data)
    for number in range(2 * first, 2 * (first + count)):
        aes.expand_key(address, low ^ number, high)
        address += 16 * (aes.ROUNDS + 1)
    return expanded


@compiled(nogil=True)
def _encode(zero_labels: Any, delta: Any, bits: Any, active: Any) -> None:
    for wire in range(zero_labels.shape[0]):
        for lane in range(zero_labels.shape[1]):
            # Masked, not selected: no memory access depends on a bit.
            mask = np.uint64(0) - np.uint64(bits[wire, lane])
            for word in range(2):
                active[wire, lane, word] = zero_labels[wire, lane, word] ^ (delta[word] & mask)


# The free gates stand in both loops on purpose: as one function, called or inlined by numba, they cost half the
# speed (garbling 0.13 instead of 0.25, evaluating 0.17 instead of 0.36 of AES-ECB in one run of benchmarks/yao.py).


@compiled(nogil=True)
def _garble(code: Any, slots: Any, inputs: Any, delta: Any, keys: Any, tables: Any, outputs: Any) -> None:
    instances = inputs.shape[1]
    work = np.empty((slots, 2 * LANES_AT_ONCE), np.uint64)
    base, stride = int64(work.ctypes.data), int64(16 * LANES_AT_ONCE)
    for first in range(0, instances, LANES_AT_ONCE):
        lanes = min(LANES_AT_ONCE, instances - first)
        table, key = int64(tables.ctypes.data) + 16 * first, int64(keys.ctypes.data)
        for number in range(len(code)):
            op, a, b, out = code[number]
            if op == AND:
                aes.garble_and(
                    base + a * stride,
                    base + b * stride,
                    base + out * stride,
                    table,
                    table + 16 * instances,
                    key,
                    key + 16 * (aes.ROUNDS + 1),
                    int64(first),
                    int64(lanes),
                    aes.ROUNDS,
                    int64(delta.ctypes.data),
                )
                table += 32 * instances
                key += 32 * (aes.ROUNDS + 1)
            elif op == XOR:
                for word in range(2 * lanes):
                    work[out, word] = work[a, word] ^ work[b, word]
            elif op == INV:
                for lane in range(lanes):
                    work[out, 2 * lane] = work[a, 2 * lane] ^ delta[0]
                    work[out, 2 * lane + 1] = work[a, 2 * lane + 1] ^ delta[1]
            elif op == LOAD:
                for lane in range(lanes):
                    work[out, 2 * lane] = inputs[a, first + lane, 0]
                    work[out, 2 * lane + 1] = inputs[a, first + lane, 1]
            else:
                for lane in range(lanes):
                    outputs[out, first + lane, 0] = work[a, 2 * lane]
                    outputs[out, first + lane, 1] = work[a, 2 * lane + 1]


@compiled(nogil=True)
def _evaluate(code: Any, slots: Any, inputs: Any, keys: Any, tables: Any, outputs: Any) -> None:
    instances = inputs.shape[1]
    work = np.empty((slots, 2 * LANES_AT_ONCE), np.uint64)
    base, stride = int64(work.ctypes.data), int64(16 * LANES_AT_ONCE)
    for first in range(0, instances, LANES_AT_ONCE):
        lanes = min(LANES_AT_ONCE, instances - first)
        table, key = int64(tables.ctypes.data) + 16 * first, int64(keys.ctypes.data)
        for number in range(len(code)):
            op, a, b, out = code[number]
            if op == AND:
                aes.evaluate_and(
                    base + a * stride,
                    base + b * stride,
                    base + out * stride,
                    table,
                    table + 16 * instances,
                    key,
                    key + 16 * (aes.ROUNDS + 1),
                    int64(first),
                    int64(lanes),
                    aes.ROUNDS,
                )
                table += 32 * instances
                key += 32 * (aes.ROUNDS + 1)
            elif op == XOR:
                for word in range(2 * lanes):
                    work[out, word] = work[a, word] ^ work[b, word]
            elif op == INV:
                for word in range(2 * lanes):
                    work[out, word] = work[a, word]
            elif op == LOAD:
                for lane in range(lanes):
                    work[out, 2 * lane] = inputs[a, first + lane, 0]
                    work[out, 2 * lane + 1] = inputs[a, first + lane, 1]
            else:
                for lane in range(lanes):
                    outputs[out, first + lane, 0] = work[a, 2 * lane]
                    outputs[out, first + lane, 1] = work[a, 2 * lane + 1]
