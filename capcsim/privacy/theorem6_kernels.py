"""The data-dependent bounds of `capcsim.privacy.theorem6`, compiled."""

import math
from typing import Any

import numpy as np

from capcsim.compiled import compiled


@compiled()
def log1mexp(x: float) -> float:
    """log(1 - exp(x)) for x < 0."""
    return math.log1p(-math.exp(x)) if x < -1 else math.log(-math.expm1(x))


@compiled()
def log_q(gaps: Any, tops: Any, beaten: Any, out: Any) -> None:
    """out[Q]: log of the union bound on another label than the plurality's, `tops` int64[Q].

    `gaps` int64[Q, C] says which column of `beaten` float64[2, G] is about a class: the logarithm of the probability
    that it wins, in row 0 where it must get ahead, in row 1 where a tie is enough, as for classes of lower index.
    """
    classes = gaps.shape[1]
    logs = np.empty(classes)
    for query in range(gaps.shape[0]):
        top = tops[query]
        highest = -math.inf
        for j in range(classes):
            if j != top:
                logs[j] = beaten[int(j < top), gaps[query, j]]
                highest = max(highest, logs[j])
        total = 0.0
        for j in range(classes):
            if j != top:
                total += math.exp(logs[j] - highest)
        out[query] = highest + math.log(total)


@compiled()
def log_at_least(gaps: Any, sigma: float, out: Any) -> None:
    """out[G]: log of the probability that two discrete Gaussians differ by at least gaps[G] > 0, which rise.

    A difference d has a probability in proportion to exp(-d^2 / (4 sigma^2)) times one of two sums, for even d and
    odd; the odd one has a factor exp(-1 / (4 sigma^2)).
    """
    sums, whole = np.zeros(2), 0.0
    for parity in range(2):
        for k in range(-int(7 * sigma) - 2, int(7 * sigma) + 3):
            sums[parity] += math.exp(-(k / sigma) * ((k - parity) / sigma))
    for d in range(-int(14 * sigma) - 2, int(14 * sigma) + 3):
        whole += math.exp(-0.25 * (d * d + (d & 1)) / sigma / sigma) * sums[d & 1]
    total = 0.0
    for place in range(gaps.size - 1, -1, -1):
        gap = gaps[place]
        if place < gaps.size - 1 and gaps[place + 1] == gap + 1:
            total = sums[gap & 1] + total * math.exp(-0.5 * (gap + 1 - (gap & 1)) / sigma / sigma)
        else:
            total, d, factor = 0.0, gap, 1.0
            while factor > 1e-18:
                total += factor * sums[d & 1]
                factor *= math.exp(-0.5 * (d + 1 - (d & 1)) / sigma / sigma)
                d += 1
        out[place] = math.log(total / whole) - 0.25 * (float(gap) * gap + (gap & 1)) / sigma / sigma


@compiled()
def gaussian(log_qs: Any, weights: Any, rho: float, orders: Any, out: Any) -> None:
    """Add to out[O] the weighted sum over queries of Theorem 6 of Papernot et al. 2018, for RDP rho x order."""
    for query in range(log_qs.size):
        logq = log_qs[query]
        weight = weights[query]
        # Proposition 10's choice of the two higher orders.
        second = math.sqrt(-logq / rho)
        first = second + 1
        applies = second > 1 and -logq > rho * second
        if applies:
            factor = math.log1p(1 / (first - 1)) + math.log1p(1 / (second - 1))
            applies = logq <= (second - 1) * rho * second - second * factor
        if not applies:
            out += weight * rho * orders
            continue
        log_p = log1mexp(logq)
        log_a = log_p - log1mexp((logq + rho * second) * (1 - 1 / second))
        log_b = rho * first - logq / (first - 1)
        for o in range(orders.size):
            order = orders[o]
            bound = rho * order
            if order < first:
                plurality, others = log_p + (order - 1) * log_a, logq + (order - 1) * log_b
                higher, lower = max(plurality, others), min(plurality, others)
                bound = min(bound, (higher + math.log1p(math.exp(lower - higher))) / (order - 1))
            out[o] += weight * bound


@compiled()
def pure(log_qs: Any, weights: Any, epsilon: float, orders: Any, out: Any) -> None:
    """The same for a mechanism of pure epsilon: Theorem 3 of Papernot et al. 2017, in Renyi form."""
    for query in range(log_qs.size):
        logq, weight = log_qs[query], weights[query]
        applies = logq <= -math.log1p(math.exp(epsilon)) and logq + epsilon < 0
        log_p = log1mexp(logq)
        log_a = log_p - log1mexp(epsilon + logq) if applies else 0.0
        for o in range(orders.size):
            order = orders[o]
            bound = min(epsilon * epsilon * order / 2, epsilon)
            if applies:
                plurality, others = log_p + (order - 1) * log_a, logq + (order - 1) * epsilon
                higher, lower = max(plurality, others), min(plurality, others)
                bound = min(bound, (higher + math.log1p(math.exp(lower - higher))) / (order - 1))
            out[o] += weight * bound
