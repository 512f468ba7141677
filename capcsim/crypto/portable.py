"""The same garbling without AES instructions of our own: AES from `cryptography`, the rest in numba.

Same keys, same tweaks, same tables, bit for bit; for processors that numba's intrinsics do not cover. All lanes
of a gate are encrypted in one buffer, so that a key is set up once a gate. Between two ANDs one compiled call
finishes the gate before, runs the free gates, and lays out the labels of the gate that comes.
"""

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from capcsim.compiled import compiled
from capcsim.crypto.circuits import Circuit, Op

Array = NDArray[np.uint64]
_ECB = modes.ECB()  # noqa: S305 (AES as a permutation of blocks that never repeat under a key)
_SLACK = 2
"""cryptography wants room for one block, two words, more than it writes."""
XOR, AND, INV, LOAD = (int(op) for op in (Op.XOR, Op.AND, Op.INV, Op.LOAD))


def garble(
    circuit: Circuit, zero_labels: Array, delta: Array, keys: NDArray[np.int64], tables: Array, outputs: Array
) -> None:
    """Fill tables and outputs; arguments as for `capcsim.crypto.garbling.garble`."""
    _run(circuit, zero_labels, delta, keys, tables, outputs, garbling=True)


def evaluate(circuit: Circuit, labels: Array, keys: NDArray[np.int64], tables: Array, outputs: Array) -> None:
    """Fill outputs; arguments as for `capcsim.crypto.garbling.evaluate`."""
    _run(circuit, labels, np.zeros(2, np.uint64), keys, tables, outputs, garbling=False)


def _run(
    circuit: Circuit,
    inputs: Array,
    delta: Array,
    keys: NDArray[np.int64],
    tables: Array,
    outputs: Array,
    *,
    garbling: bool,
) -> None:
    lanes = inputs.shape[1]
    words = 2 * lanes * (2 if garbling else 1)
    work = np.empty((circuit.slots, 2 * lanes), np.uint64)
    plain, hashed = np.empty((2, words), np.uint64), np.empty((2, words + _SLACK), np.uint64)
    inputs, outputs = inputs.reshape(len(inputs), -1), outputs.reshape(len(outputs), -1)
    tables = tables.reshape(len(tables), 2, -1)
    advance = _advance_garbling if garbling else _advance_evaluating
    raw = [
        (memoryview(plain[half].view(np.uint8).data), memoryview(hashed[half].view(np.uint8).data)) for half in (0, 1)
    ]
    secrets = [(keys[gate, 0].tobytes(), keys[gate, 1].tobytes()) for gate in range(len(keys))]
    place = advance(circuit.code, -1, 0, work, inputs, delta, plain, hashed, tables, outputs)
    for gate, pair in enumerate(secrets, start=1):
        for key, (source, target) in zip(pair, raw, strict=True):
            Cipher(algorithms.AES(key), _ECB).encryptor().update_into(source, target)
        place = advance(circuit.code, place, gate, work, inputs, delta, plain, hashed, tables, outputs)


@compiled()
def _free(code: Any, number: Any, work: Any, inputs: Any, delta: Any, outputs: Any) -> None:
    """One gate that costs no hash."""
    op, a, b, out = code[number]
    if op == XOR:
        for word in range(work.shape[1]):
            work[out, word] = work[a, word] ^ work[b, word]
    elif op == INV:
        for lane in range(work.shape[1] // 2):
            work[out, 2 * lane] = work[a, 2 * lane] ^ delta[0]
            work[out, 2 * lane + 1] = work[a, 2 * lane + 1] ^ delta[1]
    elif op == LOAD:
        for word in range(work.shape[1]):
            work[out, word] = inputs[a, word]
    else:
        for word in range(work.shape[1]):
            outputs[out, word] = work[a, word]


@compiled()
def _advance_garbling(
    code: Any,
    place: Any,
    gate: Any,
    work: Any,
    inputs: Any,
    delta: Any,
    plain: Any,
    hashed: Any,
    tables: Any,
    outputs: Any,
) -> Any:
    """Finish the AND at `place` (-1: none yet) from its hashes, go on to the next; returns its place."""
    lanes = work.shape[1] // 2
    if place >= 0:
        left, right, out = work[code[place, 1]], work[code[place, 2]], work[code[place, 3]]
        table_g, table_e = tables[gate - 1, 0], tables[gate - 1, 1]
        for lane in range(lanes):
            select_left = np.uint64(0) - (left[2 * lane] & np.uint64(1))
            select_right = np.uint64(0) - (right[2 * lane] & np.uint64(1))
            for half in range(2):
                word = 2 * lane + half
                other = 2 * lanes + word
                label, left_0 = left[word], hashed[0, word] ^ plain[0, word]
                right_0 = hashed[1, word] ^ plain[1, word]
                from_g = left_0 ^ hashed[0, other] ^ plain[0, other] ^ (select_right & delta[half])
                from_e = right_0 ^ hashed[1, other] ^ plain[1, other] ^ label
                table_g[word], table_e[word] = from_g, from_e
                out[word] = left_0 ^ (select_left & from_g) ^ right_0 ^ (select_right & (from_e ^ label))
    for number in range(place + 1, len(code)):
        if code[number, 0] == AND:
            for side in range(2):
                label, block = work[code[number, 1 + side]], plain[side]
                for lane in range(lanes):
                    low = label[2 * lane + 1]
                    high = label[2 * lane] ^ label[2 * lane + 1] ^ np.uint64(lane)
                    block[2 * lane], block[2 * lane + 1] = low, high
                    block[2 * (lanes + lane)] = low ^ delta[1]
                    block[2 * (lanes + lane) + 1] = high ^ delta[0] ^ delta[1]
            return number
        _free(code, number, work, inputs, delta, outputs)
    return len(code)


@compiled()
def _advance_evaluating(
    code: Any,
    place: Any,
    gate: Any,
    work: Any,
    inputs: Any,
    delta: Any,
    plain: Any,
    hashed: Any,
    tables: Any,
    outputs: Any,
) -> Any:
    """The evaluator's `_advance_garbling`; delta is zero, so that an INV copies."""
    lanes = work.shape[1] // 2
    if place >= 0:
        left, right, out = work[code[place, 1]], work[code[place, 2]], work[code[place, 3]]
        table_g, table_e = tables[gate - 1, 0], tables[gate - 1, 1]
        for lane in range(lanes):
            select_left = np.uint64(0) - (left[2 * lane] & np.uint64(1))
            select_right = np.uint64(0) - (right[2 * lane] & np.uint64(1))
            for half in range(2):
                word = 2 * lane + half
                from_g = hashed[0, word] ^ plain[0, word] ^ (select_left & table_g[word])
                from_e = hashed[1, word] ^ plain[1, word] ^ (select_right & (table_e[word] ^ left[word]))
                out[word] = from_g ^ from_e
    for number in range(place + 1, len(code)):
        if code[number, 0] == AND:
            for side in range(2):
                label, block = work[code[number, 1 + side]], plain[side]
                for lane in range(lanes):
                    block[2 * lane] = label[2 * lane + 1]
                    block[2 * lane + 1] = label[2 * lane] ^ label[2 * lane + 1] ^ np.uint64(lane)
            return number
        _free(code, number, work, inputs, delta, outputs)
    return len(code)
