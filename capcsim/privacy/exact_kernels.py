"""The sums behind `capcsim.privacy.exact`, compiled; why they bound from above is argued there.

A label's probability is a sum of positive terms over a lattice. A vote that moves from class a to class b
multiplies the terms of every other class by two ratios that do not depend on that class, so all moves of a
histogram share their logarithms and exponentials. Beside each sum runs one of the rounding errors in its terms.

Loops are written out where numpy has words for them: those take longer to compile than the rest together.
"""

import math
from typing import Any

import numpy as np

from capcsim.compiled import compiled

UNIT = 2.0**-53
LARGEST_EXPONENT = 600.0
LARGEST_LOG = 700.0
SMALLEST_SUM = math.exp(-100.0)
NOBODY = -1
"""Stands for a class in a move that only adds or only takes a vote."""


@compiled()
def log_normal_cdf(t: float) -> float:
    """Logarithm of the standard normal distribution function."""
    if t > -30.0:
        return math.log(0.5 * math.erfc(-t * math.sqrt(0.5)))
    # Abramowitz and Stegun 26.2.12; from 30 on the first term left out is below 2^-53.
    i = 1.0 / (t * t)
    series = -i * (1 - 3 * i * (1 - 5 * i * (1 - 7 * i * (1 - 9 * i * (1 - 11 * i)))))
    return -0.5 * t * t - math.log(-t * math.sqrt(2 * math.pi)) + math.log1p(series)


@compiled()
def fill_continuous(gaps: Any, sigma: float, low: float, step: float, density: Any, cdf: Any, error: Any) -> None:
    """Gaussian noise on the lattice low + k step, in units of sigma and from the largest count.

    `gaps` int64[C] are counts less the largest. density[s, i, k] and cdf[s, 0, i, k] are logarithms for class i
    with s - 1 more votes; error[k] bounds the relative error of a term but for its additions.
    """
    for k in range(error.size):
        z = low + k * step
        steepest, total = 0.0, 0.0
        for i in range(gaps.size):
            for s in range(3):
                centre = (gaps[i] + s - 1) / sigma
                t = z - centre
                value = log_normal_cdf(t)
                density[s, i, k] = -0.5 * t * t
                cdf[s, 0, i, k] = value
                # t is off by a few units of what it was computed from; log Phi is flatter than 1 + max(-t, 0).
                off = UNIT * (3 * (abs(z) + abs(centre)) + 2 * abs(t))
                total += (max(-t, 0.0) + 1.0) * off + 10 * UNIT + 2 * UNIT * abs(value)
                steepest = max(steepest, abs(t) * off)
        error[k] = total + 2 * steepest


@compiled()
def fill_discrete(
    gaps: Any,
    low: int,
    stride: int,
    log_mass: Any,
    log_cdf: Any,
    table_error: float,
    density: Any,
    cdf: Any,
    error: Any,
) -> None:
    """The same for discrete noise, on low + k stride: cdf[s, 1] is for classes that must be beaten strictly.

    `log_mass` and `log_cdf` are tables of equal odd length, centred at 0; beyond it the distribution function is 1.
    """
    reach = log_mass.size // 2
    for i in range(gaps.size):
        for s in range(3):
            for k in range(error.size):
                at = low + k * stride - (gaps[i] + s - 1) + reach
                density[s, i, k] = log_mass[at]
                cdf[s, 0, i, k] = log_cdf[at]
                cdf[s, 1, i, k] = log_cdf[at - 1]
    for k in range(error.size):
        error[k] = 3 * (gaps.size + 1) * table_error


@compiled()
def weigh(density: Any, cdf: Any, error: Any, weights: Any, peaks: Any) -> None:
    """weights[s, j, k]: the terms of class j with s - 1 more votes, divided by exp(peaks[j]). Completes `error`."""
    classes, nodes = density.shape[1], density.shape[2]
    strict = cdf.shape[1] - 1
    for k in range(nodes):
        total = 0.0
        for i in range(classes):
            total -= min(cdf[0, strict, i, k], cdf[2, strict, i, k])
        largest = 0.0
        for j in range(classes):
            for s in range(3):
                largest = max(largest, abs(density[s, j, k]))
        error[k] += UNIT * ((classes + 12) * (largest + total) + 20)
    for j in range(classes):
        peaks[j] = -math.inf
        for k in range(nodes):
            logs = 0.0
            for i in range(classes):
                if i != j:
                    logs += cdf[1, strict if i < j else 0, i, k]
            weights[1, j, k] = logs
            peaks[j] = max(peaks[j], logs + density[1, j, k])
        for k in range(nodes):
            logs = weights[1, j, k]
            for s in range(3):
                weights[s, j, k] = math.exp(density[s, j, k] + logs - peaks[j])


@compiled()
def ratios(cdf: Any, out: Any) -> bool:
    """out[0 or 1, strict, i, k]: by what class i with a vote less or more changes a term; False if too large."""
    for side in range(2):
        for strict in range(cdf.shape[1]):
            for i in range(cdf.shape[2]):
                for k in range(cdf.shape[3]):
                    exponent = cdf[2 * side, strict, i, k] - cdf[1, strict, i, k]
                    if not abs(exponent) <= LARGEST_EXPONENT:
                        return False
                    out[side, strict, i, k] = math.exp(exponent)
    return True


@compiled(fastmath={"reassoc", "contract"})
def weighted_sums(weights: Any, error: Any, factors: Any) -> Any:
    """The sums over a lattice of weights x factors, and of the errors in these products."""
    total, errors = 0.0, 0.0
    for k in range(weights.size):
        product = weights[k] * factors[k]
        total += product
        errors += product * error[k]
    return total, errors


@compiled()
def moved_sums(a: int, b: int, weights: Any, error: Any, ratio: Any, factors: Any, sums: Any, wrong: Any) -> bool:
    """Every class's sum after a vote went from class a to class b, and its relative error.

    `error` is that of the terms, `factors` a buffer. False where doubles cannot hold a sum.
    """
    strict = ratio.shape[1] - 1
    known_first, known_second = NOBODY - 1, NOBODY - 1
    for j in range(sums.size):
        shift = 0 if j == a else 2 if j == b else 1
        # Which tables the factors come from; the same for most classes in a row.
        first = NOBODY if a == NOBODY or j == a else (strict if a < j else 0)
        second = NOBODY if b == NOBODY or j == b else (strict if b < j else 0)
        if first != known_first or second != known_second:
            for k in range(factors.size):
                factor = 1.0
                if first != NOBODY:
                    factor = ratio[0, first, a, k]
                if second != NOBODY:
                    factor *= ratio[1, second, b, k]
                factors[k] = factor
            known_first, known_second = first, second
        total, errors = weighted_sums(weights[shift, j], error, factors)
        if not SMALLEST_SUM < total < math.inf:
            return False
        sums[j], wrong[j] = total, errors / total + UNIT * (factors.size + 4)
    return True


@compiled()
def log_ratio_bounds(log_p: Any, log_q: Any, loose: Any, upper_q: Any, extreme: Any) -> None:
    """Bounds for a divergence of p from q: upper_q[j] on log q_j, and extreme[j], the log p_j / q_j farthest from 0.

    `loose`[j] bounds the error of both logarithms together. A label with most of the mass gets its ratio from the
    others', which then has an error relative to their mass.
    """
    most = 0
    for j in range(log_q.size):
        if log_q[j] > log_q[most]:
            most = j
    lost, lost_error = 0.0, 0.0
    for j in range(log_q.size):
        upper_q[j] = log_q[j] + loose[j]
        ratio = log_p[j] - log_q[j]
        off = loose[j] + 2 * UNIT * (abs(log_p[j]) + abs(log_q[j]))
        extreme[j] = ratio - off if ratio <= -off else max(ratio, -ratio) + off
        if j != most and (abs(ratio) > LARGEST_EXPONENT or off > 0.5):
            # Too far apart, or too little known of them, for products.
            lost_error += math.exp(min(max(log_p[j], log_q[j]) + off, 0.0))
        elif j != most:
            q, change = math.exp(log_q[j]), math.expm1(ratio)
            lost += q * change
            wrong = math.exp(ratio) * math.expm1(2 * off) + (2 * loose[j] + 8 * UNIT) * abs(change)
            lost_error += q * wrong
    if log_q[most] - loose[most] > -0.7:
        rest = math.exp(log_q[most] - loose[most])
        change, off = -lost / rest, (lost_error + 2 * loose[most] * abs(lost)) / rest
        low, high = change - off, change + off
        if low > -0.5:
            farthest = math.log1p(low) if high <= 0 else math.log1p(max(high, -low))
            extreme[most] = farthest * (1 + 8 * UNIT)


@compiled()
def raise_divergence(orders: Any, upper_q: Any, extreme: Any, out: Any) -> None:
    """Raise out[o] to a bound on the Renyi divergence of order orders[o] between the laws that the bounds describe.

    The sum of q F(log p/q) with F(l) = exp(a l) - 1 - a (exp(l) - 1), which is never negative, falls up to 0 and
    then rises; F(l) >= F(-l). It needs no cancellation between labels.
    """
    mass, change = np.empty(upper_q.size), np.empty(upper_q.size)
    for j in range(upper_q.size):
        mass[j], change[j] = math.exp(upper_q[j]), math.expm1(extreme[j])
    for o in range(orders.size):
        order = orders[o]
        total, highest = 0.0, -math.inf
        for j in range(upper_q.size):
            exponent = order * extreme[j]
            if exponent > LARGEST_EXPONENT or upper_q[j] < -LARGEST_EXPONENT:
                exponent = large_exponent(order, extreme[j], upper_q[j])
                highest = max(highest, exponent)
                total += math.exp(min(exponent, LARGEST_LOG))
            else:
                gained, owed = math.expm1(exponent), order * change[j]
                rounding = 8 * UNIT * (abs(gained) + abs(owed) + abs(exponent) * math.exp(exponent))
                total += mass[j] * (1 + 8 * UNIT) * (gained - owed + rounding)
        divergence = math.log1p(total) / (order - 1)
        if highest >= LARGEST_LOG:
            divergence = log_of_sum(order, upper_q, extreme, highest) / (order - 1)
        out[o] = max(out[o], divergence * (1 + 16 * UNIT * upper_q.size))


@compiled()
def large_exponent(order: float, extreme: float, upper_q: float) -> float:
    """A bound on log q F: F is at most exp(a l), or the order where the logarithm is below 0."""
    exponent = max(order * extreme, math.log(order)) + upper_q
    return exponent + 4 * UNIT * (2 + abs(exponent) + 2 * abs(upper_q))


@compiled()
def log_of_sum(order: float, upper_q: Any, extreme: Any, highest: float) -> float:
    """The logarithm of 1 plus a sum whose largest term is exp(highest), beyond the range of doubles."""
    total = math.exp(-highest)
    for j in range(upper_q.size):
        total += math.exp(large_exponent(order, extreme[j], upper_q[j]) - highest)
    return highest * (1 + 8 * UNIT) + math.log(total)


@compiled()
def raise_between(p: Any, q: Any, loose: Any, orders: Any, out: Any) -> None:
    """Raise out[2, O] to bounds on the divergences between two laws, both ways.

    p and q are the logarithms of their probabilities, loose[j] a bound on the error of both of label j's together.
    """
    upper, extreme = np.empty(p.size), np.empty(p.size)
    log_ratio_bounds(p, q, loose, upper, extreme)
    raise_divergence(orders, upper, extreme, out[0])
    log_ratio_bounds(q, p, loose, upper, extreme)
    raise_divergence(orders, upper, extreme, out[1])


@compiled()
def log_probabilities(sums: Any, peaks: Any, log_scale: float, out: Any) -> None:
    """Logarithms of the label probabilities out of their sums."""
    for j in range(sums.size):
        out[j] = math.log(sums[j]) + peaks[j] + log_scale


@compiled()
def repeats(a: int, gaps: Any) -> bool:
    """Whether an earlier class has as many votes; counts are sorted."""
    return a > 0 and gaps[a] == gaps[a - 1]


@compiled()
def is_needed(a: int, b: int, gaps: Any, smallest: int, replace: bool, symmetric: bool) -> bool:
    """Whether the move of a vote from a to b is possible, and not the same as another of equal classes."""
    if a == b or (replace and NOBODY in (a, b)) or (not replace and NOBODY not in (a, b)):
        return False
    if a != NOBODY and gaps[a] <= smallest:
        return False
    if not symmetric:
        return True
    if a != NOBODY and repeats(a, gaps):
        return False
    return b == NOBODY or not repeats(b, gaps) or (a != NOBODY and b == a + 1)


@compiled()
def raise_over_moves(
    gaps: Any,
    smallest: int,
    replace: bool,
    density: Any,
    cdf: Any,
    error: Any,
    log_scale: float,
    general_error: float,
    orders: Any,
    out: Any,
) -> bool:
    """out[0] and out[1]: both directions' bounds at each order, the largest over all one-vote moves.

    `smallest` is the gap of a class without votes. False where double precision cannot hold the sums.
    """
    classes, nodes = density.shape[1], density.shape[2]
    weights, peaks = np.empty_like(density), np.empty(classes)
    ratio = np.empty((2, cdf.shape[1], classes, nodes))
    weigh(density, cdf, error, weights, peaks)
    if not ratios(cdf, ratio):
        return False
    factors, buffers = np.empty(nodes), np.empty((6, classes))
    # By place, since numba takes what is unpacked for strided.
    sums, wrong, base_wrong = buffers[0], buffers[1], buffers[2]
    loose, here, there = buffers[3], buffers[4], buffers[5]
    for a in range(NOBODY, classes):
        for b in range(NOBODY, classes):
            unmoved = a == NOBODY and b == NOBODY
            if not unmoved and not is_needed(a, b, gaps, smallest, replace, cdf.shape[1] == 1):
                continue
            if not moved_sums(a, b, weights, error, ratio, factors, sums, wrong):
                return False
            if unmoved:
                log_probabilities(sums, peaks, log_scale, here)
                for j in range(classes):
                    base_wrong[j] = wrong[j]
                continue
            log_probabilities(sums, peaks, log_scale, there)
            for j in range(classes):
                # A relative error e moves a logarithm by less than 2 e as long as e < 1/2.
                loose[j] = 2 * (wrong[j] + base_wrong[j] + 2 * general_error) + 8 * UNIT * (2 + abs(peaks[j]))
            raise_between(here, there, loose, orders, out)
    return True


@compiled()
def log_normal_cdfs(t: Any, out: Any) -> None:
    """out[n] = log Phi(t[n])."""
    for n in range(t.size):
        out[n] = log_normal_cdf(t[n])
