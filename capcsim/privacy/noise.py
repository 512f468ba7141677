"""Discrete noise for the vote counts: real, from opendp, or seeded for simulations that must repeat.

Noise inside a ring must be discrete. Rounding a floating-point Gaussian is no proof of anything; opendp
samples the discrete Gaussian and Laplace exactly (Canonne, Kamath, Steinke 2020) from the operating
system's generator. The seeded sampler has the same law to within double precision and no security.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, LNMax, Mechanism

TAIL_SCALES = 40
"""Beyond this many scales neither noise is ever seen (2^-57 for Laplace, less for Gauss)."""


@dataclass(frozen=True, eq=False)
class Draw:
    """The guardian's noise for some queries: `votes` int64[Q, C]; `top` int64[Q] for a threshold test, else None."""

    votes: NDArray[np.int64]
    top: NDArray[np.int64] | None = None


def real_draw(mechanism: Mechanism, queries: int, classes: int) -> Draw:
    """A fresh draw of all the noise that a mechanism adds, from the operating system's generator."""
    if isinstance(mechanism, ConfidentGNMax):
        votes = real_noise(mechanism.argmax, (queries, classes))
        return Draw(votes, real_noise(mechanism.test_noise, (queries,)))
    return Draw(real_noise(mechanism, (queries, classes)))


def simulated_draw(mechanism: Mechanism, queries: int, classes: int, generator: np.random.Generator) -> Draw:
    """The same law from a seeded generator."""
    if isinstance(mechanism, ConfidentGNMax):
        votes = simulated_noise(mechanism.argmax, (queries, classes), generator)
        return Draw(votes, simulated_noise(mechanism.test_noise, (queries,), generator))
    return Draw(simulated_noise(mechanism, (queries, classes), generator))


def real_noise(mechanism: GNMax | LNMax, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Independent discrete noise, int64[shape], from the operating system's generator."""
    count = int(np.prod(shape))
    return np.array(_opendp_measurement(mechanism)([0] * count), np.int64).reshape(shape)


def simulated_noise(
    mechanism: GNMax | LNMax, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Noise of the same law from a seeded generator, int64[shape]: it repeats and protects nobody."""
    support, cumulative = _distribution(mechanism)
    return support[np.searchsorted(cumulative, generator.random(shape), side="right")]


def largest_noise(mechanism: Mechanism) -> int:
    """The magnitude that the ring must have room for besides the counts, in votes; a threshold's included."""
    largest = ceil(TAIL_SCALES * mechanism.scale)
    if isinstance(mechanism, ConfidentGNMax):
        return max(largest, abs(mechanism.threshold) + ceil(TAIL_SCALES * mechanism.sigma1))
    return largest


@lru_cache(maxsize=64)
def _opendp_measurement(mechanism: GNMax | LNMax) -> Callable[[list[int]], Any]:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    if isinstance(mechanism, GNMax):
        return dp.m.make_gaussian(domain, dp.l2_distance(T="i64"), scale=mechanism.scale)
    return dp.m.make_laplace(domain, dp.l1_distance(T="i64"), scale=mechanism.scale)


@lru_cache(maxsize=64)
def _distribution(mechanism: GNMax | LNMax) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The support within the tail and the cumulative probabilities of all but its last point."""
    reach = largest_noise(mechanism)
    support = np.arange(-reach, reach + 1)
    if isinstance(mechanism, GNMax):
        weights = np.exp(-(support**2) / (2 * mechanism.scale**2))
    else:
        weights = np.exp(-np.abs(support) / mechanism.scale)
    return support, (np.cumsum(weights) / weights.sum())[:-1]
