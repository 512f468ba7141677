"""Interpreters of circuits that need no cryptography: plaintext, and counting."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capcsim.crypto.circuits import Circuit, Op
from capcsim.errors import InputError

Bits = NDArray[np.uint8]
TABLE_BYTES = 32
"""Half gates: two ciphertexts of 16 bytes for each AND (Zahur, Rosulek, Evans, ePrint 2014/756)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a circuit costs; `depth` counts ANDs on the longest path."""

    ands: int
    xors: int
    inversions: int
    depth: int
    table_bytes: int


def run_plain(circuit: Circuit, garbler: Bits, evaluator: Bits) -> Bits:
    """Outputs uint8[outputs, N] of N instances, from input bits uint8[inputs, N] of each side."""
    inputs = check_inputs(circuit, garbler, evaluator)
    slots = np.zeros((circuit.slots, inputs.shape[1]), np.uint8)
    outputs = np.zeros((circuit.outputs, inputs.shape[1]), np.uint8)
    for op, a, b, out in circuit.code:
        match op:
            case Op.XOR:
                slots[out] = slots[a] ^ slots[b]
            case Op.AND:
                slots[out] = slots[a] & slots[b]
            case Op.INV:
                slots[out] = slots[a] ^ 1
            case Op.LOAD:
                slots[out] = inputs[a]
            case Op.STORE:
                outputs[out] = slots[a]
    return outputs


def count(circuit: Circuit) -> Cost:
    """Gates by kind, depth in ANDs, bytes of garbled tables for one instance."""
    depths = np.zeros(circuit.slots, np.int64)
    deepest = 0
    for op, a, b, out in circuit.code:
        if op == Op.STORE:
            deepest = max(deepest, int(depths[a]))
        else:
            sources = 0 if op == Op.LOAD else max(depths[a], depths[b])
            depths[out] = sources + (op == Op.AND)
    kinds = np.bincount(circuit.code[:, 0], minlength=len(Op))
    ands = int(kinds[Op.AND])
    return Cost(ands, int(kinds[Op.XOR]), int(kinds[Op.INV]), deepest, TABLE_BYTES * ands)


def check_inputs(circuit: Circuit, garbler: Bits, evaluator: Bits) -> Bits:
    """Both sides' bits below each other, uint8[inputs, N]; raises InputError."""
    expected = (circuit.garbler_inputs, circuit.evaluator_inputs)
    if (len(garbler), len(evaluator)) != expected or garbler.shape[1:] != evaluator.shape[1:]:
        raise InputError(f"{circuit.name} takes {expected} input bits, not {len(garbler)} and {len(evaluator)}")
    return np.concatenate([garbler, evaluator])


def to_bits(values: NDArray[np.uint64], bits: int) -> Bits:
    """The low bits of values uint64[...], as uint8[bits, ...], the least significant first."""
    octets = np.ascontiguousarray(values)[..., None].view(np.uint8)
    return np.moveaxis(np.unpackbits(octets, axis=-1, count=bits, bitorder="little"), -1, 0)


def from_bits(bits: Bits) -> NDArray[np.uint64]:
    """Values uint64[...] of bits uint8[k, ...], k at most 64."""
    octets = np.zeros((*bits.shape[1:], 8), np.uint8)
    packed = np.packbits(np.moveaxis(bits, 0, -1), axis=-1, bitorder="little")
    octets[..., : packed.shape[-1]] = packed
    values: NDArray[np.uint64] = octets.view(np.uint64)[..., 0]
    return values


def words_to_inputs(words: NDArray[np.uint64], bits: int) -> Bits:
    """The low bits of words uint64[N, w] as a circuit's inputs uint8[w * bits, N], word by word."""
    return np.ascontiguousarray(to_bits(words, bits).transpose(2, 0, 1).reshape(-1, len(words)))


def outputs_to_words(outputs: Bits, words: int) -> NDArray[np.uint64]:
    """Words uint64[N, w] of a circuit's outputs uint8[w * k, N]."""
    return np.ascontiguousarray(from_bits(outputs.reshape(words, -1, outputs.shape[1]).transpose(1, 2, 0)))
