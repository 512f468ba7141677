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
def log_q(counts: Any, beaten: Any, out: Any) -> None:
    """out[Q]: log of the union bound on another label than the plurality's, for rows of counts int64[Q, C].

    `beaten` float64[2, G] has, for each gap, the logarithm of the probability that a class with so many votes less
    wins: row 0 where it must get ahead, row 1 where a tie is enough, as for classes of lower index.
    """
    classes = counts.shape[1]
    logs = np.empty(classes)
    for query in range(counts.shape[0]):
        top = counts[query].argmax()
        highest = -math.inf
        for j in range(classes):
            if j != top:
                logs[j] = beaten[int(j < top), counts[query, top] - counts[query, j]]
                highest = max(highest, logs[j])
        total = 0.0
        for j in range(classes):
            if j != top:
                total += math.exp(logs[j] - highest)
        out[query] = highest + math.log(total)


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
