"""PATE's data-dependent bounds: Theorem 6 of Papernot et al. 2018 (arXiv 1802.08908), Theorem 3 of 2017.

They depend on the votes through q alone, a bound on the probability that another label than the plurality's comes
out. Two things to know. They bound one direction, D(M(n) || M(n')): with two classes, votes [37, 14], sigma 4 and
order 3.5 Theorem 6 gives 7.41e-4, but the reverse divergence is 1.445e-3 (`capcsim.privacy.exact` bounds both). And
what they give depends on private votes, so it may not be published as it is (`capcsim.privacy.smooth`).
"""

from functools import lru_cache
from math import exp, expm1, log, log1p, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capcsim.errors import InputError
from capcsim.privacy.conversions import check_orders
from capcsim.privacy.exact import log_test_probabilities
from capcsim.privacy.mechanisms import Argmax, ConfidentGNMax, Family, NoiseKind
from capcsim.privacy.votes import Counts, check_counts

Floats = NDArray[np.float64]

LARGEST_TABLE = 1 << 16
"""Gaps between votes that are worked out for all; wider ones for those that occur."""
LARGEST_GAP = 1e150
"""In units of the noise: its square is still a double."""
LOWEST = -1e300
"""Of a logarithm of a probability: it is a bound of smaller ones."""
SMOOTH = 1000.0
"""A sigma from which sums over the integers are bounded by integrals, at a relative cost of about 1 / sigma."""


def log_q(counts: ArrayLike, mechanism: Argmax, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Floats:
    """Log of the union bound on another label than the plurality's, float64[Q], for counts int64[Q, C].

    Papernot et al. 2018, Prop. 7; 2017, Lemma 4. With discrete noise a lower class wins a tie.
    """
    from capcsim.privacy import theorem6_kernels as kernels

    rows = check_counts(counts)
    tops = rows.argmax(axis=1)
    gaps = rows[np.arange(len(rows)), tops][:, None] - rows
    widest, found = int(gaps.max()), np.empty(len(rows))
    if widest < LARGEST_TABLE:
        beaten = _beaten(mechanism, noise, widest)
    else:
        distinct, gaps = np.unique(gaps, return_inverse=True)
        beaten, gaps = _log_beaten(mechanism, noise, distinct), gaps.reshape(rows.shape)
    kernels.log_q(gaps, tops, beaten, found)
    # Continuous noise favours nobody, so that the plurality is at least as likely as any other.
    return np.minimum(found, log(1 - 1 / rows.shape[1]) if noise is NoiseKind.CONTINUOUS else -1e-12)


def log_answered(counts: ArrayLike, mechanism: ConfidentGNMax, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Floats:
    """Logarithms float64[Q, 2] of passing and of failing the threshold test."""
    tops = check_counts(counts).max(axis=1)
    return log_test_probabilities(tops - mechanism.threshold, mechanism.sigma1, noise)


def theorem6(log_qs: ArrayLike, mechanism: Argmax, orders: ArrayLike, weights: ArrayLike = 1.0) -> Floats:
    """The bound's curve float64[O] for queries of these log q together, each times its weight.

    Where the theorem's conditions do not hold, or it gives more, the data-independent bound stands. For Laplace noise
    it is Theorem 3 of 2017 in Renyi form. Raises InputError unless every log q is below 0.
    """
    if mechanism.family is Family.LAPLACE:
        return _summed("pure", log_qs, mechanism.pure_epsilon, orders, weights)
    return _gaussian(log_qs, mechanism.rho, orders, weights)


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
    distinct, places = np.unique(np.maximum(logs, LOWEST), return_inverse=True)
    times = np.bincount(places, np.broadcast_to(np.asarray(weights, np.float64), logs.shape), distinct.size)
    found = np.zeros(orders.size)
    getattr(kernels, kernel)(distinct, times, parameter, orders, found)
    return found


@lru_cache(maxsize=64)
def _beaten(mechanism: Argmax, noise: NoiseKind, widest: int) -> Floats:
    """What `_log_beaten` gives for every gap up to `widest`."""
    return _log_beaten(mechanism, noise, np.arange(widest + 1))


def _log_beaten(mechanism: Argmax, noise: NoiseKind, gaps: Counts) -> Floats:
    """float64[2, G]: log of the probability to get ahead of a class with so many votes more, or to tie."""
    if noise is NoiseKind.DISCRETE:
        return np.maximum([_log_at_least(mechanism, gaps + 1), _log_at_least(mechanism, gaps)], LOWEST)
    logs = _LOG_ABOVE[mechanism.family](_scaled(gaps, mechanism.scale))
    return np.maximum([logs, logs], LOWEST)


def _log_at_least(mechanism: Argmax, gaps: Counts) -> Floats:
    """A bound on the log of the probability that two discrete variables differ by at least so much, 0 or more."""
    if mechanism.family is Family.GAUSSIAN and mechanism.scale >= SMOOTH:
        return _smooth_at_least(gaps, mechanism.scale)
    above = np.maximum(gaps, 1)
    logs = _LOG_AT_LEAST[mechanism.family](above, mechanism.scale)
    # By symmetry it is at least 0 unless it is at least 1 the other way round.
    return np.where(gaps > 0, logs, log1p(-exp(logs[np.argmin(above)])))


def _gaussian_above(scaled: Floats) -> Floats:
    """Log of the probability that two continuous variables differ by more, in units of the noise."""
    from scipy.special import log_ndtr

    found: Floats = log_ndtr(-scaled / sqrt(2))
    return found


def _laplace_above(scaled: Floats) -> Floats:
    """The same: the difference of two Laplace variables exceeds g with probability (2 + g/b) exp(-g/b) / 4."""
    return np.log((2 + scaled) / 4) - scaled


def _smooth_at_least(gaps: Counts, sigma: float) -> Floats:
    """What `_log_at_least` gives for much Gaussian noise.

    A sum of falling terms is at most the first and the integral; both normalising sums are at least integrals.
    """
    scaled = _scaled(gaps, sigma)
    first = -(scaled**2) / 4 - log(2 * sqrt(pi)) - log(sigma)
    bound: Floats = np.logaddexp(first, _gaussian_above(scaled))
    return bound


def _gaussian_at_least(above: Counts, sigma: float) -> Floats:
    """Log of the probability that two discrete variables differ by at least so much, 1 or more."""
    from capcsim.privacy import theorem6_kernels as kernels

    logs = np.empty(above.size)
    kernels.log_at_least(above, sigma, logs)
    return logs


def _laplace_at_least(above: Counts, b: float) -> Floats:
    """The same: with p = exp(-1/b) d has probability (1 - p)^2 / (1 + p)^2 (d + (1 + p^2) / (1 - p^2)) p^d."""
    p, left = exp(-1 / b), -expm1(-1 / b)
    found: Floats = np.log(above * left + (1 + p * p) / (1 + p) + p) - 2 * log1p(p) - _scaled(above, b)
    return found


_LOG_ABOVE = {Family.GAUSSIAN: _gaussian_above, Family.LAPLACE: _laplace_above}
_LOG_AT_LEAST = {Family.GAUSSIAN: _gaussian_at_least, Family.LAPLACE: _laplace_at_least}


def _scaled(gaps: Counts, scale: float) -> Floats:
    """Gaps in units of the noise."""
    with np.errstate(over="ignore"):
        return np.minimum(gaps / scale, LARGEST_GAP)
