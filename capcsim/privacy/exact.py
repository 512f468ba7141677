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
* Where votes stand far apart against the noise, nothing is shared between moves (`exact_far_kernels`).
* Rounding. Each term carries a bound on its relative error, computed from its own arguments; library functions are
  taken to be right within 8 units in the last place (glibc documents at most 5 for erfc, 2 for the others used).
* Divergence. With x_j = p_j/p'_j - 1, exp((a - 1) D_a) = 1 + sum p'_j ((1 + x_j)^a - 1 - a x_j), because the p'_j x_j
  add up to 0: a sum of terms that are never negative and do not cancel. Each is taken at the end of its interval
  that makes it largest.

With discrete Gaussian noise (Canonne, Kamath, Steinke 2020) p_j is a sum over the integers, log-concave as well, in
which a class must strictly beat those of lower index and may tie with the others, as in the release circuit. Its
distribution function, sum over m >= 0 of phi(z - m), is as smooth for real z, and |it| grows by at most the same factor
for complex ones. So the sum over every integer and that over every g-th, times g, both differ from the integral by the
quadrature's error at most, and much noise needs no more terms than little.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import ceil, comb, erfc, exp, expm1, log, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
LARGEST_CHANGE = 90.0
"""Of the logarithm of a probability by one vote, about (largest less smallest count) / sigma^2, for shared sums."""
FARTHEST = 100.0
"""Sigmas between the largest and the smallest count, likewise."""
LARGEST_QUOTIENT = 1e140
"""Votes in sigmas whose squares doubles hold."""
TIED = 1e3
HOPELESS = 80.0
TALLEST = 1e12
"""Sigmas that no count outreaches."""
WIDEST_DISCRETE = 3e4
"""A sigma beyond which tables of discrete noise would be too long."""


def exact_rdp(
    counts: ArrayLike, mechanism: GNMax, orders: ArrayLike, noise: NoiseKind = NoiseKind.CONTINUOUS
) -> Floats:
    """Bounds on the Renyi divergences float64[Q, 2, O] of rows of counts int64[Q, C] at each order.

    Index 0 of the middle axis is D(M(n) || M(n')), index 1 the reverse, each the largest over all neighbours n' that
    differ in one vote, in the sense of the mechanism's adjacency. None is above the data-independent bound. Raises
    InputError for bad counts or orders, or where a unit casts several votes: its neighbours are too many.
    """
    return exact_bounds(counts, mechanism, orders, noise)[0]


def exact_bounds(
    counts: ArrayLike, mechanism: GNMax, orders: ArrayLike, noise: NoiseKind = NoiseKind.CONTINUOUS
) -> tuple[Floats, NDArray[np.bool_]]:
    """What `exact_rdp` gives, and for which rows, bool[Q], the data-independent bound stands in.

    That is where doubles cannot hold votes in units of the noise, where tables of discrete noise grow too long, and
    where many classes stand many sigmas apart.
    """
    rows, orders = check_counts(counts), check_orders(orders)
    _check_single_vote(mechanism.moved_votes)
    if noise is NoiseKind.CONTINUOUS:
        rows = -np.sort(-rows, axis=1)
    distinct, places = np.unique(rows, axis=0, return_inverse=True)
    widest, places = np.ptp(distinct, axis=1), places.reshape(-1)
    found = np.full((len(distinct), 2, orders.size), np.inf)
    near = (widest + 2) < np.minimum(LARGEST_CHANGE * mechanism.sigma, FARTHEST) * mechanism.sigma
    for group, run in ((near, _near), (~near, _far)):
        if group.any():
            found[group] = run(np.ascontiguousarray(distinct[group]), mechanism, orders, noise)
    lacking = near & ~np.isfinite(found).all(axis=(1, 2))
    if lacking.any():
        found[lacking] = _far(distinct[lacking], mechanism, orders, noise)
    stands_in = ~np.isfinite(found).all(axis=(1, 2))
    bounded: Floats = np.minimum(found, mechanism.rdp(orders))
    return bounded[places], stands_in[places]


def exact_test_rdp(
    counts: ArrayLike, mechanism: ConfidentGNMax, orders: ArrayLike, noise: NoiseKind = NoiseKind.CONTINUOUS
) -> Floats:
    """The same bounds float64[Q, 2, O] for the threshold test alone, whose outcomes are answered and unanswered."""
    return exact_test_bounds(counts, mechanism, orders, noise)[0]


def exact_test_bounds(
    counts: ArrayLike, mechanism: ConfidentGNMax, orders: ArrayLike, noise: NoiseKind = NoiseKind.CONTINUOUS
) -> tuple[Floats, NDArray[np.bool_]]:
    """What `exact_test_rdp` gives, and for which rows, bool[Q], the data-independent bound stands in."""
    from capcsim.privacy import exact_kernels as kernels

    tops, orders = check_counts(counts).max(axis=1), check_orders(orders)
    _check_single_vote(mechanism.moved_votes)
    distinct, places = np.unique(tops, return_inverse=True)
    above = distinct[:, None] + np.arange(-1, 2) - mechanism.threshold
    found = np.full((len(distinct), 2, orders.size), np.inf)
    farthest = int(np.abs(above).max())
    if farthest < mechanism.sigma1 * LARGEST_QUOTIENT and not _too_wide(mechanism.sigma1, noise):
        logs = log_test_probabilities(above, mechanism.sigma1, noise)
        # 64 units in the last place for the argument's rounding, whose effect grows like its square, and the functions.
        loose = 64 * UNIT * (2 + 2 * np.abs(logs).max(axis=1))
        if noise is NoiseKind.DISCRETE:
            loose += 16 * UNIT * (10 + 1.3 * mechanism.sigma1)
        found[:] = 0
        for row, off, out in zip(logs, loose, found, strict=True):
            for moved in row[0], row[2]:
                kernels.raise_between(row[1], moved, off, orders, out)
    stands_in = ~np.isfinite(found).all(axis=(1, 2))
    bounded: Floats = np.minimum(found, mechanism.rho_test * orders)
    return bounded[places], stands_in[places]


def log_test_probabilities(above: Counts, sigma1: float, noise: NoiseKind) -> Floats:
    """Logarithms float64[..., 2] of passing and of failing a test by a count that is so far `above` its threshold.

    Bounds from above where a table of discrete noise would be too long; at least -1e300.
    """
    from capcsim.privacy import exact_far_kernels, exact_kernels

    found = np.empty((2, above.size))
    with np.errstate(over="ignore"):
        scaled = np.clip(above.reshape(-1) / sigma1, -LARGEST_QUOTIENT, LARGEST_QUOTIENT)
    if noise is NoiseKind.CONTINUOUS:
        exact_kernels.log_normal_cdfs(scaled, found[0])
        exact_kernels.log_normal_cdfs(-scaled, found[1])
    elif _too_wide(sigma1, noise):
        # A discrete Gaussian is stochastically within 1 of the continuous one.
        exact_kernels.log_normal_cdfs(scaled + 1 / sigma1, found[0])
        exact_kernels.log_normal_cdfs(-scaled, found[1])
    else:
        lower = np.empty(ceil(13 * sigma1) + 2)
        whole = exact_far_kernels.fill_lower(sigma1, lower)
        # It passes where the noise is at least -above: by symmetry where it is at most above.
        exact_far_kernels.log_cdfs(above.reshape(-1), sigma1, lower, whole, found[0])
        exact_far_kernels.log_cdfs(-above.reshape(-1) - 1, sigma1, lower, whole, found[1])
    return np.moveaxis(found.reshape(2, *above.shape), 0, -1).copy()


def exact_curve(curves: Floats) -> Floats:
    """The curve float64[O] of queries asked together, from float64[Q, 2, O]: the larger of the directions' sums."""
    total: Floats = curves.sum(axis=0).max(axis=0)
    return total * (1 + len(curves) * UNIT)


def label_probabilities(counts: ArrayLike, mechanism: GNMax, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Floats:
    """How likely each label is, float64[Q, C], to about 12 digits.

    Discrete noise of a sigma above 1,000 is taken for continuous: ties are rarer than 1 in 3 sigma.
    """
    from capcsim.privacy import exact_kernels as kernels

    if mechanism.sigma > TIED:
        noise = NoiseKind.CONTINUOUS
    rows = check_counts(counts)
    # Who is so far behind never wins, in doubles.
    gaps = np.maximum(rows - rows.max(axis=1, keepdims=True), -ceil(HOPELESS * min(mechanism.sigma, TALLEST)))
    distinct, places = np.unique(gaps, axis=0, return_inverse=True)
    found = np.empty(distinct.shape)
    fill, log_scale, _ = _filling(rows.shape[1], mechanism.sigma, noise, -int(distinct.min()))
    for row, out in zip(distinct, found, strict=True):
        density, cdf, error = fill(row)
        weights, peaks = np.empty_like(density), np.empty(row.size)
        kernels.weigh(density, cdf, error, weights, peaks)
        out[:] = weights[1].sum(axis=1) * np.exp(peaks + log_scale)
        out /= out.sum()
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


def _near(rows: Counts, mechanism: GNMax, orders: Floats, noise: NoiseKind) -> Floats:
    """The divergences of rows in which doubles hold what a move changes; infinite where they do not after all."""
    from capcsim.privacy import exact_kernels as kernels

    found = np.full((len(rows), 2, orders.size), np.inf)
    if _too_wide(mechanism.sigma, noise):
        return found
    replace, classes = mechanism.adjacency is Adjacency.REPLACE, rows.shape[1]
    fill, log_scale, error = _filling(classes, mechanism.sigma, noise, int(np.ptp(rows, axis=1).max()))
    for row, out in zip(rows, found, strict=True):
        gaps = row - row.max()
        out[:] = 0
        if not kernels.raise_over_moves(gaps, -row.max(), replace, *fill(gaps), log_scale, error, orders, out):
            out[:] = np.inf
    return found


def _filling(
    classes: int, sigma: float, noise: NoiseKind, widest: int
) -> tuple[Callable[[Counts], tuple[Floats, Floats, Floats]], float, float]:
    """What gives the tables of a row of gaps, the logarithm of the lattice's step, and its relative error.

    The tables are density float64[3, C, K], distribution function float64[3, 1 or 2, C, K] and error float64[K].
    """
    from capcsim.privacy import exact_kernels as kernels

    (step, below, above), error = _lattice(classes, sigma)
    if noise is NoiseKind.CONTINUOUS:

        def continuous(gaps: Counts) -> tuple[Floats, Floats, Floats]:
            low = gaps.min() / (2 * sigma) - below
            nodes = int((above - low) / step) + 2
            tables = np.empty((3, classes, nodes)), np.empty((3, 1, classes, nodes)), np.empty(nodes)
            kernels.fill_continuous(gaps, sigma, low, step, *tables)
            return tables

        return continuous, log(step / sqrt(2 * pi)), error
    stride, error = _stride(classes, sigma)
    log_mass, log_cdf, table_error, least, most = _tables(sigma, classes, widest)

    def discrete(gaps: Counts) -> tuple[Floats, Floats, Floats]:
        low = int(gaps.min()) // 2 - least
        nodes = (most - low) // stride + 2
        tables = np.empty((3, classes, nodes)), np.empty((3, 2, classes, nodes)), np.empty(nodes)
        kernels.fill_discrete(gaps, low, stride, log_mass, log_cdf, table_error, *tables)
        return tables

    return discrete, log(stride), error


def _far(rows: Counts, mechanism: GNMax, orders: Floats, noise: NoiseKind) -> Floats:
    """The same where probabilities are too small for doubles."""
    from capcsim.privacy import exact_far_kernels as kernels
    from capcsim.privacy.exact_far import far_divergences

    sigma, continuous = mechanism.sigma, noise is NoiseKind.CONTINUOUS
    if rows.max() > sigma * LARGEST_QUOTIENT or _too_wide(sigma, noise):
        return np.full((len(rows), 2, orders.size), np.inf)
    (step, margin, above), error = _lattice(rows.shape[1], sigma)
    if continuous:
        highest = above - margin

        def label(votes: Counts, j: int, found: Floats) -> None:
            kernels.continuous_label(votes, j, sigma, step, highest, found)
    else:
        lower, (stride, error) = np.empty(ceil(13 * sigma) + 2), _stride(rows.shape[1], sigma)
        whole = kernels.fill_lower(sigma, lower)

        def label(votes: Counts, j: int, found: Floats) -> None:
            kernels.discrete_label(votes, j, sigma, stride, lower, whole, found)

    replace = mechanism.adjacency is Adjacency.REPLACE
    return far_divergences(rows, sigma, orders, label, replace=replace, symmetric=continuous, general_error=error)


def _too_wide(sigma: float, noise: NoiseKind) -> bool:
    return noise is NoiseKind.DISCRETE and sigma > WIDEST_DISCRETE


def _stride(classes: int, sigma: float) -> tuple[int, float]:
    """The distance of the integers that are summed over, and the relative error of that and of truncation."""
    (step, _, _), error = _lattice(classes, sigma)
    stride = max(int(step * sigma), 1)
    return stride, 2 * error * (stride > 1) + TRUNCATION_ERROR * (1 + sigma / stride)


@lru_cache(maxsize=64)
def _lattice(classes: int, sigma: float) -> tuple[Floats, float]:
    """(step, margin below, margin above) in units of sigma, and the relative error of quadrature and truncation."""
    step = pi * sqrt(2 / (classes * log(2 / QUADRATURE_ERROR)))
    # The best half-width of the strip.
    strip = 2 * pi / (step * classes)
    quadrature = 2 * exp(classes * strip**2 / 2) / expm1(2 * pi * strip / step)
    margin = HALF_WIDTH + 1 / sigma
    low, highest_mode = 0.0, float(classes)
    for _ in range(60):
        middle = (low + highest_mode) / 2
        rises = (classes - 1) * _inverse_mills(middle) > middle
        low, highest_mode = (middle, highest_mode) if rises else (low, middle)
    return np.array([step, margin, highest_mode + margin]), quadrature + TRUNCATION_ERROR * sqrt(classes)


def _inverse_mills(t: float) -> float:
    """phi(t) / Phi(t)."""
    return sqrt(2 / pi) * exp(-t * t / 2) / erfc(-t / sqrt(2))


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
    from capcsim.privacy import exact_far_kernels as kernels

    sums = np.empty(reach + 1)
    whole = kernels.fill_lower(sigma, sums)
    lower = sums[::-1] - whole
    weights = -((np.arange(-reach, 1) / sigma) ** 2) / 2
    # Above 0 by symmetry: Pr[Z <= k] = 1 - Pr[Z <= -k - 1]; at the end of the table it is 1.
    mass = np.concatenate([weights, weights[-2::-1]]) - whole
    return mass, np.concatenate([lower, np.log1p(-np.exp(lower[-3::-1])), [0.0]])
