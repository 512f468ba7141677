"""PATE's data-dependent bounds: Theorem 6 of Papernot et al. 2018 (arXiv 1802.08908), Theorem 3 of 2017.

They depend on the votes through q alone, a bound on the probability that another label than the plurality's comes
out. Two things to know. They bound one direction, D(M(n) || M(n')): with two classes, votes [37, 14], sigma 4 and
order 3.5 Theorem 6 gives 7.41e-4, but the reverse divergence is 1.445e-3 (`capcsim.privacy.exact` bounds both). And
what they give depends on private votes, so it may not be published as it is (`capcsim.privacy.smooth`).
"""

from functools import lru_cache
from math import log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capcsim.errors import InputError
from capcsim.privacy.conversions import check_orders
from capcsim.privacy.exact import log_test_probabilities
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, LNMax, NoiseKind
from capcsim.privacy.votes import Counts, check_counts

Floats = NDArray[np.float64]


def log_q(counts: ArrayLike, mechanism: GNMax | LNMax, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Floats:
    """Log of the union bound on another label than the plurality's, float64[Q], for counts int64[Q, C].

    Papernot et al. 2018, Prop. 7; 2017, Lemma 4. With discrete noise a lower class wins a tie.
    """
    from capcsim.privacy import theorem6_kernels as kernels

    rows = check_counts(counts)
    found = np.empty(len(rows))
    kernels.log_q(rows, _beaten(mechanism, noise, int(np.ptp(rows, axis=1).max())), found)
    # Continuous noise favours nobody, so that the plurality is at least as likely as any other.
    return np.minimum(found, log(1 - 1 / rows.shape[1]) if noise is NoiseKind.CONTINUOUS else -1e-12)


def log_answered(counts: ArrayLike, mechanism: ConfidentGNMax, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Floats:
    """Logarithms float64[Q, 2] of passing and of failing the threshold test."""
    tops = check_counts(counts).max(axis=1)
    return log_test_probabilities(tops - mechanism.threshold, mechanism.sigma1, noise)


def theorem6(log_qs: ArrayLike, mechanism: GNMax | LNMax, orders: ArrayLike, weights: ArrayLike = 1.0) -> Floats:
    """The bound's curve float64[O] for queries of these log q together, each times its weight.

    Where the theorem's conditions do not hold, or it gives more, the data-independent bound stands. For Laplace noise
    it is Theorem 3 of 2017 in Renyi form. Raises InputError unless every log q is below 0.
    """
    if isinstance(mechanism, GNMax):
        return _gaussian(log_qs, mechanism.rho, orders, weights)
    return _summed("pure", log_qs, mechanism.pure_epsilon, orders, weights)


def theorem6_test(logs: ArrayLike, mechanism: ConfidentGNMax, orders: ArrayLike) -> Floats:
    """The same for threshold tests, from what `log_answered` gives: the rarer outcome has probability q."""
    return _gaussian(np.asarray(logs, np.float64).min(axis=1), mechanism.rho_test, orders, 1.0)


def _gaussian(log_qs: ArrayLike, rho: float, orders: ArrayLike, weights: ArrayLike) -> Floats:
    return _summed("gaussian", log_qs, rho, orders, weights)


def _summed(kernel: str, log_qs: ArrayLike, parameter: float, orders: ArrayLike, weights: ArrayLike) -> Floats:
    from capcsim.privacy import theorem6_kernels as kernels

    orders = check_orders(orders)
    logs = np.atleast_1d(np.asarray(log_qs, np.float64))
    if not (logs < 0).all():
        raise InputError("log q: logarithms of probabilities below 1")
    # A stream repeats itself: unanimous votes, and gaps that are whole numbers.
    distinct, places = np.unique(np.maximum(logs, -1e300), return_inverse=True)
    times = np.bincount(places, np.broadcast_to(np.asarray(weights, np.float64), logs.shape), distinct.size)
    found = np.zeros(orders.size)
    getattr(kernels, kernel)(distinct, times, parameter, orders, found)
    return found


@lru_cache(maxsize=64)
def _beaten(mechanism: GNMax | LNMax, noise: NoiseKind, widest: int) -> Floats:
    """float64[2, widest + 1]: log of the probability to get ahead of a class with so many votes more, or to tie."""
    gaps = np.arange(widest + 1)
    if noise is NoiseKind.DISCRETE:
        return _beaten_discrete(mechanism, gaps)
    if isinstance(mechanism, GNMax):
        from scipy.special import log_ndtr

        logs = log_ndtr(-gaps / (sqrt(2) * mechanism.sigma))
    else:
        # The difference of two Laplace variables exceeds g with probability (2 + g/b) exp(-g/b) / 4.
        logs = np.log((2 + gaps / mechanism.b) / 4) - gaps / mechanism.b
    return np.stack([logs, logs])


def _beaten_discrete(mechanism: GNMax | LNMax, gaps: Counts) -> Floats:
    """Sums over the law of the difference of two discrete variables; beyond its table the last value is a bound."""
    from scipy.signal import convolve

    reach = int(38 * mechanism.scale) + 2
    k = np.arange(-reach, reach + 1) / mechanism.scale
    mass = np.exp(-(k**2) / 2 if isinstance(mechanism, GNMax) else -np.abs(k))
    mass /= mass.sum()
    difference = convolve(mass, mass, method="direct")
    at_least = np.cumsum(difference[::-1])[::-1]
    centre = 2 * reach
    with np.errstate(divide="ignore"):
        logs = np.log(at_least)
    lowest = logs[np.isfinite(logs)].min()
    logs = np.maximum(logs, lowest)
    strictly, ties = (np.minimum(centre + gaps + more, logs.size - 1) for more in (1, 0))
    return np.stack([logs[strictly], logs[ties]])
