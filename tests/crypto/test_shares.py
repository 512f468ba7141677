import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from capcsim.crypto.shares import reconstruct, ring_mask, share, signed, uniform
from capcsim.errors import InputError


@st.composite
def ring_values(draw: st.DrawFn) -> tuple[int, list[int]]:
    bits = draw(st.integers(1, 64))
    half = 1 << (bits - 1)
    return bits, draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=9))


@given(ring_values())
def test_shares_add_up_to_the_value(case: tuple[int, list[int]]) -> None:
    bits, values = case
    array = np.array(values, np.int64)
    shares = share(array, bits)
    assert shares.dtype == np.uint64
    assert int(shares.max()) <= int(ring_mask(bits))
    assert np.array_equal(reconstruct(shares, bits), array)


@given(ring_values(), ring_values())
def test_sums_of_shares_are_shares_of_sums(first: tuple[int, list[int]], second: tuple[int, list[int]]) -> None:
    bits = first[0]
    a, b = np.array(first[1][:1]), np.array([value % (1 << min(bits - 1, 62)) for value in second[1][:1]])
    total = reconstruct(share(a, bits) + share(b, bits), bits)
    expected = (int(a[0]) + int(b[0]) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
    assert int(total[0]) == expected


@given(st.integers(1, 64), st.integers(0, (1 << 64) - 1))
def test_signed_is_twos_complement(bits: int, element: int) -> None:
    reduced = element % (1 << bits)
    expected = reduced - (1 << bits) if reduced >= 1 << (bits - 1) else reduced
    assert int(signed(np.array([element], np.uint64), bits)[0]) == expected


@pytest.mark.parametrize("side", [0, 1])
def test_one_share_of_a_constant_is_uniform(side: int) -> None:
    shares = share(np.full(200_000, 123456), 37)[side]
    for shift in (0, 14, 29):
        bins = np.bincount((shares >> np.uint64(shift)).astype(np.int64) & 255, minlength=256)
        assert chisquare(bins).pvalue > 1e-6


def test_masks_never_repeat() -> None:
    assert len(np.unique(uniform((4096,), 64))) == 4096
    assert not np.array_equal(uniform((8,), 32), uniform((8,), 32))


@pytest.mark.parametrize("bits", [0, 65, -3])
def test_a_ring_needs_1_to_64_bits(bits: int) -> None:
    with pytest.raises(InputError, match="1 <= k <= 64"):
        uniform((1,), bits)
