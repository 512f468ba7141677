from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim_hybrid.modular import add_wide, constants, multiply_accumulate, multiply_high

PRIMES = (1152921504606748673, 1152921504606830593)
ROWS = constants(PRIMES)
words = st.integers(0, (1 << 64) - 1)


def residues(data: Any, shape: tuple[int, ...]) -> Any:
    """uint64[..., L, n], at the ends of each prime's range often enough."""
    seed = data.draw(st.integers(0, 1 << 30))
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.integers(0, prime, (*shape[:-2], shape[-1]), np.uint64) for prime in PRIMES], axis=-2)
    top = (ROWS[:, 0] - np.uint64(1))[:, None]
    return np.where(generator.random(drawn.shape) < 0.2, np.broadcast_to(top, drawn.shape), drawn)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(1, 150), st.integers(0, 3))
def test_multiply_accumulate_is_exact(data: Any, terms: int, shift: int) -> None:
    """Also for more terms than an accumulator holds unreduced."""
    count = 16
    x, w = residues(data, (terms, 2, 2, count)), residues(data, (terms, 2, count >> shift))
    out = np.empty((2, 2, count), np.uint64)
    multiply_accumulate(x, w, ROWS, shift, out)
    for level, prime in enumerate(PRIMES):
        for poly in range(2):
            for n in range(count):
                pairs = ((int(x[i, poly, level, n]), int(w[i, level, n >> shift])) for i in range(terms))
                assert int(out[poly, level, n]) == sum(a * b for a, b in pairs) % prime


@settings(deadline=None)
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=8), st.integers(0, 130), st.data())
def test_add_wide_is_exact(numbers: list[tuple[int, ...]], bits: int, data: Any) -> None:
    wide = np.array(numbers, np.uint64)
    before = residues(data, (2, len(numbers)))
    after = before.copy()
    minus = np.array([(1 << bits) % prime for prime in PRIMES], np.uint64)
    add_wide(after, wide, minus, ROWS)
    for level, prime in enumerate(PRIMES):
        for n, parts in enumerate(numbers):
            value = sum(part << (64 * place) for place, part in enumerate(parts)) - (1 << bits)
            assert int(after[level, n]) == (int(before[level, n]) + value) % prime


def test_the_upper_half_of_a_product() -> None:
    from numba import njit

    high = njit(lambda a, b: multiply_high(a, b))
    for a, b in ((0, 5), ((1 << 64) - 1, (1 << 64) - 1), (1 << 63, 6), (12345678901234567890, 9876543210987654321)):
        assert int(high(np.uint64(a), np.uint64(b))) == a * b >> 64
