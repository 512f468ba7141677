"""Kernels on residues modulo SEAL's primes, which are below 2^61."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from capcsim.compiled import compiled

Words = NDArray[np.uint64]
_TILE = 1024
_PRODUCTS_AT_ONCE = 64
"""Products below 2^122 that fit an accumulator of 128 bits."""


def _multiply_high(_, a, b):  # type: ignore[no-untyped-def]  # noqa: ARG001 (numba's signature)
    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in values))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


multiply_high: Any = intrinsic(_multiply_high)
"""The upper 64 bits of the product of two words."""


def constants(primes: Sequence[int]) -> Words:
    """What the kernels need of each prime p, uint64[L, 4]: p, floor(2^64 / p), c = 2^64 mod p, floor(c 2^64 / p)."""
    rows = [(p, (1 << 64) // p, (1 << 64) % p, ((1 << 64) % p << 64) // p) for p in primes]
    return np.array(rows, np.uint64)


@compiled(nogil=True, inline="always")
def _reduced(word: Any, prime: Any) -> Any:
    """Word mod p (Barrett)."""
    rest = word - multiply_high(word, prime[1]) * prime[0]
    return rest - prime[0] if rest >= prime[0] else rest


@compiled(nogil=True, inline="always")
def _shifted(word: Any, prime: Any) -> Any:
    """Word 2^64 mod p (Shoup)."""
    rest = word * prime[2] - multiply_high(word, prime[3]) * prime[0]
    return rest - prime[0] if rest >= prime[0] else rest


@compiled(nogil=True)
def multiply_accumulate(x: Any, weights: Any, primes: Any, shift: Any, out: Any) -> None:
    """out[poly, l] = sum over i of x[i, poly, l] weights[i, l] mod p_l, each weight used for 2^shift neighbours.

    x uint64[I, 2, L, N], weights uint64[I, L, N >> shift], primes as of `constants`, out uint64[2, L, N].
    """
    count = x.shape[3]
    low, high = np.empty(_TILE, np.uint64), np.empty(_TILE, np.uint64)
    for level in range(len(primes)):
        prime = primes[level]
        for poly in range(2):
            for first in range(0, count, _TILE):
                tile = min(_TILE, count - first)
                low[:], high[:] = 0, 0
                for i in range(len(x)):
                    for k in range(tile):
                        a, b = x[i, poly, level, first + k], weights[i, level, (first + k) >> shift]
                        product = a * b
                        low[k] += product
                        high[k] += multiply_high(a, b) + np.uint64(low[k] < product)
                    if i % _PRODUCTS_AT_ONCE == _PRODUCTS_AT_ONCE - 1:
                        for k in range(tile):
                            high[k] = _reduced(high[k], prime)
                for k in range(tile):
                    total = _shifted(high[k], prime) + _reduced(low[k], prime)
                    out[poly, level, first + k] = total - prime[0] if total >= prime[0] else total


@compiled(nogil=True)
def add_wide(residues: Any, words: Any, minus: Any, primes: Any) -> None:
    """residues[l, n] += the number in words[n] - minus, mod p_l.

    residues uint64[L, N]; words uint64[N, W], the least significant first; minus uint64[L] already reduced.
    """
    for level in range(len(primes)):
        prime = primes[level]
        for n in range(residues.shape[1]):
            value = np.uint64(0)
            for place in range(words.shape[1] - 1, -1, -1):
                value = _shifted(value, prime) + _reduced(words[n, place], prime)
                value = value - prime[0] if value >= prime[0] else value
            value += prime[0] - minus[level]
            value = value - prime[0] if value >= prime[0] else value
            total = residues[level, n] + value
            residues[level, n] = total - prime[0] if total >= prime[0] else total
