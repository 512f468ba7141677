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

from capcsim.privacy.mechanisms import Argmax, Family, Mechanism

TAIL_SCALES = 40
"""Beyond this many scales neither noise is ever seen (2^-57 for Laplace, less for Gauss)."""
MEASUREMENTS = {Family.GAUSSIAN: ("make_gaussian", "l2_distance"), Family.LAPLACE: ("make_laplace", "l1_distance")}
"""opendp's, with the distance that it is for."""
WEIGHTS: dict[Family, Callable[[NDArray[np.int64], float], NDArray[np.float64]]] = {
    Family.GAUSSIAN: lambda votes, scale: np.exp(-(votes**2) / (2 * scale**2)),
    Family.LAPLACE: lambda votes, scale: np.exp(-np.abs(votes) / scale),
}
"""Probabilities but for a factor."""


@dataclass(frozen=True, eq=False)
class Draw:
    """The guardian's noise for some queries: `votes` int64[Q, C]; `top` int64[Q] for a threshold test, else None."""

    votes: NDArray[np.int64]
    top: NDArray[np.int64] | None = None


def real_draw(mechanism: Mechanism, queries: int, classes: int) -> Draw:
    """A fresh draw of all the noise that a mechanism adds, from the operating system's generator."""
    test = mechanism.test_noise
    votes = real_noise(mechanism.argmax, (queries, classes))
    return Draw(votes, None if test is None else real_noise(test, (queries,)))


def simulated_draw(mechanism: Mechanism, queries: int, classes: int, generator: np.random.Generator) -> Draw:
    """The same law from a seeded generator."""
    test = mechanism.test_noise
    votes = simulated_noise(mechanism.argmax, (queries, classes), generator)
    return Draw(votes, None if test is None else simulated_noise(test, (queries,), generator))


def real_noise(mechanism: Argmax, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Independent discrete noise, int64[shape], from the operating system's generator."""
    count = int(np.prod(shape))
    return np.array(_opendp_measurement(mechanism)([0] * count), np.int64).reshape(shape)


def simulated_noise(mechanism: Argmax, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.int64]:
    """Noise of the same law from a seeded generator, int64[shape]: it repeats and protects nobody."""
    support, cumulative = _distribution(mechanism)
    return support[np.searchsorted(cumulative, generator.random(shape), side="right")]


def largest_noise(mechanism: Mechanism) -> int:
    """The magnitude that the ring must have room for besides the counts, in votes; a threshold's included."""
    largest = ceil(TAIL_SCALES * mechanism.scale)
    if mechanism.threshold is None:
        return largest
    return max(largest, abs(mechanism.threshold) + ceil(TAIL_SCALES * mechanism.test_noise.scale))


@lru_cache(maxsize=64)
def _opendp_measurement(mechanism: Argmax) -> Callable[[list[int]], Any]:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    make, distance = MEASUREMENTS[mechanism.family]
    made: Callable[[list[int]], Any] = getattr(dp.m, make)(
        domain, getattr(dp, distance)(T="i64"), scale=mechanism.scale
    )
    return made


@lru_cache(maxsize=64)
def _distribution(mechanism: Argmax) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The support within the tail and the cumulative probabilities of all but its last point."""
    reach = largest_noise(mechanism)
    support = np.arange(-reach, reach + 1)
    weights = WEIGHTS[mechanism.family](support, mechanism.scale)
    return support, (np.cumsum(weights) / weights.sum())[:-1]
