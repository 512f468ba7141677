"""The exact Renyi divergence of the noisy argmax between a histogram and its neighbours, rounded upward.

The published analyses bound the divergence of a whole noisy histogram (Papernot et al. 2018, arXiv 1802.08908,
Prop. 8), or of one label against all others and in one direction (Theorem 6). What is released is one of C labels,
so their probabilities p_j can be computed, and the divergences with them: over all moves of one vote, both ways.

Why the results are upper bounds. With Gaussian noise p_j is the integral of f_j(z) = phi(z - n_j) prod Phi(z - n_i)
over the other classes i, in units of sigma.

* Quadrature. For real x, y: |phi(x + iy)| = phi(x) exp(y^2/2), and |Phi(x + iy)| <= Phi(x) exp(y^2/2) since Phi(z) is
  the integral of phi(z - t) over t > 0. So |f_j(x + iy)| <= f_j(x) exp(C y^2/2), and the trapezoidal rule of step h
  over the whole line has a relative error of at most 2 exp(C a^2/2) / (exp(2 pi a/h) - 1) for every a > 0 (Trefethen
  and Weideman 2014, SIAM Review 56(3), Theorem 5.1). It is the same for all classes and all neighbours.
* Truncation. -C <= (log f_j)'' <= -1, so beyond w from its mode z*, f_j is below f_j(z*) exp(-w^2/2), and its integral
  is at least f_j(z*) sqrt(2 pi/C). The inverse Mills ratio L(t) = phi(t)/Phi(t) falls and exceeds -t; with the largest
  count at 0 it follows from z* - n_j = sum L(z* - n_i) that n_j/2 <= z*, and that z* is at most the root of
  z = (C - 1) L(z). One vote moves z* by at most one vote. The lattice covers w = 9 beyond all that.
* Rounding. Each term carries a bound on its relative error, computed from its own arguments; library functions are
  taken to be right within 8 units in the last place (glibc documents at most 5 for erfc, 2 for the others used).
* Divergence. With x_j = p_j/p'_j - 1, exp((a - 1) D_a) = 1 + sum p'_j ((1 + x_j)^a - 1 - a x_j), because the p'_j x_j
  add up to 0: a sum of terms that are never negative and do not cancel. Each is taken at the end of its interval
  that makes it largest.

Discrete Gaussian noise (Canonne, Kamath, Steinke 2020) needs no quadrature: sums over the integers, log-concave as
well, in which a class must strictly beat those of lower index and may tie with the others, as in the release circuit.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import comb, exp, expm1, log, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import erfcx

from capcsim.errors import InputError
from capcsim.privacy.conversions import check_orders
from capcsim.privacy.mechanisms import Adjacency, ConfidentGNMax, GNMax, NoiseKind
from capcsim.privacy.votes import Counts, check_counts

Floats = NDArray[np.float64]

QUADRATURE_ERROR = 1e-15
HALF_WIDTH = 9.0
"""Scales beyond a mode that a lattice covers: exp(-81/2) is 2.6e-18."""
TRUNCATION_ERROR = 1e-17
UNIT = 2.0**-53
MOST_HISTOGRAMS = 200_000


def exact_rdp(
    counts: ArrayLike, mechanism: GNMax, orders: ArrayLike, noise: NoiseKind = NoiseKind.CONTINUOUS
) -> Floats:
    """Bounds on the Renyi divergences float64[Q, 2, O] of rows of counts int64[Q, C] at each order.

    Index 0 of the middle axis is D(M(n) || M(n')), index 1 the reverse, each the largest over all neighbours n' that
    differ in one vote, in the sense of the mechanism's adjacency. None is above the data-independent bound, which
    also stands in where the noise is too small against the votes for double precision. Raises InputError for bad
    counts or orders, or where a unit casts several votes: its neighbours are too many.
    """
    rows, orders = check_counts(counts), check_orders(orders)
    _check_single_vote(mechanism.moved_votes)
    if noise is NoiseKind.CONTINUOUS:
        rows = -np.sort(-rows, axis=1)
    distinct, places = np.unique(rows, axis=0, return_inverse=True)
    found = np.empty((len(distinct), 2, orders.size))
    run = _continuous if noise is NoiseKind.CONTINUOUS else _discrete
    run(np.ascontiguousarray(distinct), mechanism, orders, found)
    bounded: Floats = np.minimum(found, mechanism.rdp(orders))
    return bounded[places.reshape(-1)]


def exact_test_rdp(
    counts: ArrayLike, mechanism: ConfidentGNMax, orders: ArrayLike, noise: NoiseKind = NoiseKind.CONTINUOUS
) -> Floats:
    """The same bounds float64[Q, 2, O] for the threshold test alone, whose outcomes are answered and unanswered."""
    from capcsim.privacy import exact_kernels as kernels

    tops, orders = check_counts(counts).max(axis=1), check_orders(orders)
    _check_single_vote(mechanism.moved_votes)
    distinct, places = np.unique(tops, return_inverse=True)
    above = distinct[:, None] + np.arange(-1, 2) - mechanism.threshold
    logs = log_test_probabilities(above, mechanism.sigma1, noise)
    # 64 units in the last place for the argument's rounding, whose effect grows like its square, and the functions.
    loose = 64 * UNIT * (2 + (np.abs(above).max(axis=1) / mechanism.sigma1) ** 2)
    if noise is NoiseKind.DISCRETE:
        loose += 16 * UNIT * (10 + 1.3 * mechanism.sigma1)
    found = np.empty((len(distinct), 2, orders.size))
    kernels.test_divergences(logs, loose, orders, found)
    bounded: Floats = np.minimum(found, mechanism.rho_test * orders)
    return bounded[places]


def log_test_probabilities(above: Counts, sigma1: float, noise: NoiseKind) -> Floats:
    """Logarithms float64[..., 2] of passing and of failing a test by a count that is so far `above` its threshold."""
    from capcsim.privacy import exact_kernels as kernels

    if noise is NoiseKind.DISCRETE:
        reach = int(np.abs(above).max()) + int(HALF_WIDTH * sigma1) + 2
        _, cdf = _log_tables(sigma1, reach)
        # It passes where the noise is at least -above: by symmetry where it is at most above.
        return np.stack([cdf[reach + above], cdf[reach - above - 1]], axis=-1)
    found = np.empty((2, above.size))
    for row, sign in enumerate((1, -1)):
        kernels.log_normal_cdfs(sign * above.reshape(-1) / sigma1, found[row])
    return np.moveaxis(found.reshape(2, *above.shape), 0, -1).copy()


def exact_curve(curves: Floats) -> Floats:
    """The curve float64[O] of queries asked together, from float64[Q, 2, O]: the larger of the directions' sums."""
    total: Floats = curves.sum(axis=0).max(axis=0)
    return total * (1 + len(curves) * UNIT)


def label_probabilities(counts: ArrayLike, mechanism: GNMax, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Floats:
    """How likely each label is, float64[Q, C], to about 12 digits."""
    from capcsim.privacy import exact_kernels as kernels

    rows = check_counts(counts)
    distinct, places = np.unique(rows, axis=0, return_inverse=True)
    found = np.empty(distinct.shape)
    if noise is NoiseKind.CONTINUOUS:
        lattice, _ = _lattice(distinct.shape[1], mechanism.sigma)
        kernels.continuous_probabilities(distinct, mechanism.sigma, lattice, found)
    else:
        log_mass, log_cdf, _, below, above = _tables(
            mechanism.sigma, distinct.shape[1], int(np.ptp(distinct, axis=1).max())
        )
        kernels.discrete_probabilities(distinct, log_mass, log_cdf, below, above, found)
    return found[places.reshape(-1)]


def worst_case_rdp(
    voters: int, classes: int, mechanism: GNMax, orders: ArrayLike, noise: NoiseKind = NoiseKind.CONTINUOUS
) -> Floats:
    """A data-independent bound float64[O] on one label of so many voters, certified by trying every histogram.

    It is the largest of `exact_rdp` over them all, both ways, so it looks at no vote and may be published; the number
    of counted voters is public. Raises InputError beyond 200,000 histograms. For small orders it is about 2/pi of
    order / sigma^2.

    Without trying every histogram nothing below order / sigma^2 is proved. The evidence: for 250 voters and sigma 40,
    two and three classes, and for 50 voters and sigma 7, two to ten classes, the worst at order 2 is [K/2 + 1, K/2 - 1]
    or [K/2 + 1, K/2 - 2, 1] with 0.637 to 0.638 of order / sigma^2, at order 8 a gap of about ten votes between two
    classes with 0.64 to 0.66; unanimity becomes the worst at high orders. So a third class adds little, but it adds:
    two classes alone are not a bound for more.
    """
    number = _number_of_histograms(voters, classes, noise)
    if voters < 1 or classes < 2 or number > MOST_HISTOGRAMS:
        raise InputError(f"{voters} voters, {classes} classes: {number} histograms, more than {MOST_HISTOGRAMS} to try")
    rows = np.array(list(_histograms(voters, classes, voters if noise is NoiseKind.CONTINUOUS else None)), np.int64)
    worst = np.zeros(check_orders(orders).size)
    for start in range(0, len(rows), 1000):
        found = exact_rdp(rows[start : start + 1000], mechanism, orders, noise)
        worst = np.maximum(worst, found.max(axis=(0, 1)))
    return worst


def _check_single_vote(moved_votes: int) -> None:
    if moved_votes != 1:
        raise InputError("the exact analysis is of one vote: a unit that casts several has too many neighbours")


def _number_of_histograms(voters: int, classes: int, noise: NoiseKind) -> int:
    """How many `_histograms` gives: partitions of the voters into at most `classes` parts, or all arrangements."""
    if noise is NoiseKind.DISCRETE:
        return comb(voters + classes - 1, classes - 1)
    ways = [1] + [0] * voters
    for part in range(1, classes + 1):
        for total in range(part, voters + 1):
            ways[total] += ways[total - part]
    return ways[voters]


def _histograms(voters: int, classes: int, largest: int | None) -> Iterator[list[int]]:
    """All counts that add up to `voters`; where `largest` is given, from the largest down, none above it."""
    if classes == 1:
        if largest is None or voters <= largest:
            yield [voters]
        return
    for first in range(voters if largest is None else min(voters, largest), -1, -1):
        if largest is not None and first * classes < voters:
            return
        for rest in _histograms(voters - first, classes - 1, None if largest is None else first):
            yield [first, *rest]


def _continuous(rows: Counts, mechanism: GNMax, orders: Floats, found: Floats) -> None:
    from capcsim.privacy import exact_kernels as kernels

    lattice, error = _lattice(rows.shape[1], mechanism.sigma)
    replace = mechanism.adjacency is Adjacency.REPLACE
    kernels.continuous_divergences(rows, mechanism.sigma, replace, lattice, error, orders, found)


def _discrete(rows: Counts, mechanism: GNMax, orders: Floats, found: Floats) -> None:
    from capcsim.privacy import exact_kernels as kernels

    classes, widest = rows.shape[1], int(np.ptp(rows, axis=1).max())
    log_mass, log_cdf, table_error, below, above = _tables(mechanism.sigma, classes, widest)
    replace, error = mechanism.adjacency is Adjacency.REPLACE, TRUNCATION_ERROR * (1 + mechanism.sigma)
    kernels.discrete_divergences(rows, replace, log_mass, log_cdf, table_error, below, above, error, orders, found)


@lru_cache(maxsize=64)
def _lattice(classes: int, sigma: float) -> tuple[Floats, float]:
    """(step, margin below, margin above) in units of sigma, and the relative error of quadrature and truncation."""
    step = pi * sqrt(2 / (classes * log(2 / QUADRATURE_ERROR)))
    # The best half-width of the strip.
    strip = 2 * pi / (step * classes)
    quadrature = 2 * exp(classes * strip**2 / 2) / expm1(2 * pi * strip / step)
    margin = HALF_WIDTH + 1 / sigma
    highest_mode = brentq(lambda z: z - (classes - 1) * _inverse_mills(z), 0, classes)
    return np.array([step, margin, highest_mode + margin]), quadrature + TRUNCATION_ERROR * sqrt(classes)


def _inverse_mills(t: float) -> float:
    """phi(t) / Phi(t)."""
    return sqrt(2 / pi) / float(erfcx(-t / sqrt(2)))


@lru_cache(maxsize=64)
def _tables(sigma: float, classes: int, widest: int) -> tuple[Floats, Floats, float, int, int]:
    """Logarithms of mass and distribution function, a bound on their error, and the lattice's margins.

    `widest` is the largest gap between two counts of a histogram.
    """
    margin = int(HALF_WIDTH * sigma) + 6
    reach = widest + 2 * margin + int(sigma * sqrt(2 * log(classes))) + 10
    mass, cdf = _log_tables(sigma, reach)
    # The mode is where the mass falls faster than the other classes' distribution functions rise.
    x = np.arange(reach - 1)
    rises = (classes - 1) * np.log1p(np.exp(mass[reach + x] - cdf[reach + x - 1]))
    highest_mode = int(np.argmax(rises <= (2 * x + 1) / (2 * sigma**2))) + 2
    reach_needed = widest + highest_mode + margin + 4
    if reach_needed > reach:
        mass, cdf = _log_tables(sigma, reach_needed)
    # The recursion's errors are at most those of as many steps as matter, about sigma.
    error = 8 * UNIT * (10 + 1.3 * sigma)
    return mass, cdf, error, margin, highest_mode + margin


def _log_tables(sigma: float, reach: int) -> tuple[Floats, Floats]:
    """Log Pr[Z = k] and log Pr[Z <= k] of the discrete Gaussian for k from -reach to reach."""
    k = np.arange(-reach, 1)
    weights = -(k.astype(np.float64) ** 2) / (2 * sigma**2)
    # Sums from below, each divided by its last weight: s[k] = 1 + s[k-1] exp(-(1 - 2 k) / (2 sigma^2)).
    shrink = np.exp(-(1 - 2 * k) / (2 * sigma**2))
    below = np.empty(reach + 1)
    below[0] = 1 / (1 - shrink[0])
    for place in range(1, reach + 1):
        below[place] = 1 + below[place - 1] * shrink[place]
    whole = log(2 * below[-1] - 1)
    lower = weights + np.log(below) - whole
    # Above 0 by symmetry: Pr[Z <= k] = 1 - Pr[Z <= -k - 1]; at the end of the table it is 1.
    mass = np.concatenate([weights, weights[-2::-1]]) - whole
    return mass, np.concatenate([lower, np.log1p(-np.exp(lower[-3::-1])), [0.0]])
