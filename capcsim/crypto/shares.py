"""Additive secret sharing in Z_2^k (paper, section 3.2), with masks from a cryptographic generator."""

import numpy as np
from numpy.typing import NDArray

from capcsim.crypto.randomness import random_bytes
from capcsim.errors import InputError


def uniform(shape: tuple[int, ...], ring_bits: int) -> NDArray[np.uint64]:
    """Independent uniform elements of Z_2^ring_bits, uint64[shape], never to be reproduced."""
    mask = ring_mask(ring_bits)
    count = int(np.prod(shape))
    elements: NDArray[np.uint64] = np.frombuffer(random_bytes(8 * count), np.uint64).reshape(shape) & mask
    return elements


def share(values: NDArray[np.int64], ring_bits: int) -> NDArray[np.uint64]:
    """Split int64[...] into uint64[2, ...]: the second share is uniform, the first is value minus it."""
    other = uniform(values.shape, ring_bits)
    return np.stack([(values.astype(np.uint64) - other) & ring_mask(ring_bits), other])


def reconstruct(shares: NDArray[np.uint64], ring_bits: int) -> NDArray[np.int64]:
    """The signed values, int64[...], of shares uint64[2, ...]."""
    return signed(shares[0] + shares[1], ring_bits)


def signed(elements: NDArray[np.uint64], ring_bits: int) -> NDArray[np.int64]:
    """Ring elements read as two's complement numbers in [-2^(k-1), 2^(k-1))."""
    shift = np.uint64(64 - ring_bits)
    return ((elements & ring_mask(ring_bits)) << shift).view(np.int64) >> np.int64(shift)


def ring_mask(ring_bits: int) -> np.uint64:
    """2^ring_bits - 1; raises InputError unless 1 <= ring_bits <= 64."""
    if not 1 <= ring_bits <= 64:
        raise InputError(f"ring_bits = {ring_bits}: a ring Z_2^k needs 1 <= k <= 64")
    return np.uint64((1 << ring_bits) - 1)
