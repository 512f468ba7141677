"""Publishing a data-dependent epsilon: smooth sensitivity of Theorem 6 (Papernot et al. 2018, Appendix B).

The sum of Theorem 6 over the queries is itself a function of private votes. Noise in proportion to a smooth bound on
its local sensitivity (Nissim, Raskhodnikova, Smith 2007) makes it publishable, at a cost of its own, which can exceed
what the data-dependent analysis gained. The bound rests on two conditions on the curve of Theorem 6, C5 and C6, that
are checked here numerically, and that fail for some streams. Order, beta and the noise must be chosen without
looking at the votes: chosen on them, the result is for exploring and may not be published.

Theorem 6 bounds one direction only (`capcsim.privacy.theorem6`), which no sanitising mends.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, log1p, sqrt
from random import SystemRandom
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri_exp

from capcsim.errors import InputError
from capcsim.privacy.conversions import check_delta
from capcsim.privacy.mechanisms import Adjacency, GNMax
from capcsim.privacy.theorem6 import log_q
from capcsim.privacy.votes import Counts, check_counts

Floats: TypeAlias = NDArray[np.float64]
BETAS = np.arange(0.3, 0.495, 0.01)
"""Tried in units of 1/order; beyond 1/2 the mechanism has no finite Renyi divergence."""
GRID = 4000


@dataclass(frozen=True, slots=True)
class Sanitised:
    """A data-dependent epsilon with what it costs to publish it.

    `epsilon` is the mean of what would be published, `standard_deviation` its noise. `c5` and `c6` are the conditions.
    """

    order: float
    beta: float
    smooth_sensitivity: float
    sigma: float
    epsilon_before: float
    cost: float
    c5: bool
    c6: bool
    chosen_on_votes: bool

    @property
    def epsilon(self) -> float:
        """Theorem 6 with Mironov's conversion, and the cost of publishing it."""
        return self.epsilon_before + self.cost

    @property
    def standard_deviation(self) -> float:
        """Of the noise in what is published."""
        return self.smooth_sensitivity * self.sigma

    @property
    def releasable(self) -> bool:
        """Whether a draw may be published."""
        return self.c5 and self.c6 and not self.chosen_on_votes

    def publish(self) -> float:
        """One noisy epsilon, from the operating system's generator; raises InputError where it may not be published."""
        if not self.releasable:
            reason = "its parameters were chosen on the votes" if self.chosen_on_votes else "C5 or C6 does not hold"
            raise InputError(f"this epsilon may not be published: {reason}")
        return self.epsilon + self.standard_deviation * SystemRandom().gauss(0, 1)


def sanitise(
    counts: ArrayLike,
    mechanism: GNMax,
    delta: float,
    order: float,
    *,
    beta: float | None = None,
    sigma: float | None = None,
) -> Sanitised:
    """Theorem 6's epsilon over queries with counts int64[Q, C] at one Renyi order, made publishable.

    Without `beta` and `sigma` the best are chosen on the votes. Raises InputError for parameters out of range.
    """
    check_delta(delta)
    rows = check_counts(counts)
    if mechanism.moved_votes != 1 or mechanism.adjacency is not Adjacency.REPLACE:
        raise InputError("smooth sensitivity is worked out for units of one vote that change it")
    if not order > 1 or (beta is None) is not (sigma is None):
        raise InputError(f"order = {order}: above 1, and beta together with sigma or neither")
    curve = _Curve(mechanism.sigma, order, rows.shape[1])
    logs = log_q(rows, mechanism)
    rdp = float(curve.rdp(logs).sum())
    local = curve.local_sensitivities(rows, mechanism)
    chosen = beta is None or sigma is None
    if beta is None or sigma is None:
        tries = [_with_best_sigma(float(found), local, order) for found in BETAS / order]
        # The mean of what is published and two of its standard deviations.
        totals = [_cost(found, noise, order) + 2 * _smooth(found, local) * noise for found, noise in tries]
        beta, sigma = tries[int(np.argmin(totals))]
    c5, c6 = curve.conditions(float(log_q([[int(rows.sum(axis=1).max())] + [0] * (rows.shape[1] - 1)], mechanism)[0]))
    before = rdp - log(delta) / (order - 1)
    return Sanitised(order, beta, _smooth(beta, local), sigma, before, _cost(beta, sigma, order), c5, c6, chosen)


def _with_best_sigma(beta: float, local: Floats, order: float) -> tuple[float, float]:
    """(beta, sigma) that minimises the cost's first term plus two standard deviations."""
    return beta, (order * exp(2 * beta) / _smooth(beta, local)) ** (1 / 3)


def _smooth(beta: float, local: Floats) -> float:
    """The largest local sensitivity, each discounted by its distance."""
    return float((local * np.exp(-beta * np.arange(local.size))).max())


def _cost(beta: float, sigma: float, order: float) -> float:
    """Renyi divergence of Gaussian noise scaled by a beta-smooth bound: Papernot et al. 2018, Theorem 23."""
    if not (beta > 0 and 1 < order < 1 / (2 * beta) and sigma > 0):
        raise InputError(f"beta = {beta}, sigma = {sigma}, order = {order}: needed are 1 < order < 1 / (2 beta)")
    return order * exp(2 * beta) / sigma**2 + (-0.5 * log1p(-2 * order * beta) + beta * order) / (order - 1)


@lru_cache(maxsize=64)
def _log_q0(sigma: float, order: float) -> float:
    """Where the data-dependent bound starts to be below the data-independent one."""

    def excess(logq: float) -> float:
        return float(_dependent(np.array(logq), sigma, order)) - order / sigma**2

    highest = min(-((1 + 1 / sigma) ** 2), -(((order - 0.99) / sigma) ** 2), -1 / sigma**2)
    if excess(highest) < 0:
        return highest
    lowest = 2 * highest
    while excess(lowest) > 0:
        if lowest < -1e4:
            raise InputError(f"sigma = {sigma}, order = {order}: Theorem 6 never helps")
        lowest *= 1.5
    return float(brentq(excess, lowest, highest))


def _dependent(logq: Floats, sigma: float, order: float) -> Floats:
    """Theorem 6 with Proposition 10's orders, its conditions left to the caller."""
    second = sigma * np.sqrt(-logq)
    first = second + 1
    log_p = np.log1p(-np.exp(logq))
    a = log_p - np.log1p(-np.exp((logq + second / sigma**2) * (1 - 1 / second)))
    b = first / sigma**2 - logq / (first - 1)
    found: Floats = np.logaddexp(log_p + (order - 1) * a, logq + (order - 1) * b) / (order - 1)
    return found


class _Curve:
    """Theorem 6 as a function of log q at one order."""

    def __init__(self, sigma: float, order: float, classes: int) -> None:
        self.sigma, self.order, self.classes = sigma, order, classes
        self.log_q0 = _log_q0(sigma, order)
        self.log_q1 = float(self._shifted(np.array(self.log_q0), -1))

    def rdp(self, logq: Floats) -> Floats:
        """The bound that applies."""
        safe = np.minimum(logq, self.log_q0)
        return np.where(logq >= self.log_q0, self.order / self.sigma**2, _dependent(safe, self.sigma, self.order))

    def local_sensitivities(self, rows: Counts, mechanism: GNMax) -> Floats:
        """By distance, a bound on the local sensitivity of the sum over queries: Algorithms 4 and 5."""
        votes = -np.sort(-rows, axis=1)
        logs = log_q(votes, mechanism)
        most = int(rows.sum(axis=1).max())
        plateau = float(self._sensitivity(np.array([self.log_q1]))[0])
        total = np.full(most, plateau * len(rows))
        moving = (logs < self.log_q1) | (logs > self.log_q0)
        leftward = logs > self.log_q0
        total[0] += float((self._sensitivity(logs[moving]) - plateau).sum())
        for distance in range(1, most):
            # Towards the plateau: up to it where q is small, down to it where q is large.
            moving &= np.where(leftward, (logs > self.log_q0) & (votes[:, 1] > 0), logs < self.log_q1)
            if not moving.any():
                break
            step = np.where(leftward, 1, -1)[moving]
            votes[moving, 0] += step
            votes[moving, 1] -= step
            votes[moving] = -np.sort(-votes[moving], axis=1)
            logs[moving] = log_q(votes[moving], mechanism)
            total[distance] += float((self._sensitivity(logs[moving]) - plateau).sum())
        return total

    def conditions(self, lowest: float) -> tuple[bool, bool]:
        """C5: the bound does not fall with q; C6: nor does what one vote adds to it; for q from `lowest` on."""
        bounds = self._grid(lowest, self.log_q0)
        c5 = bool((np.diff(_dependent(bounds, self.sigma, self.order)) >= 0).all())
        logs = self._grid(lowest, self.log_q1)
        added = _dependent(self._shifted(logs, 1), self.sigma, self.order) - _dependent(logs, self.sigma, self.order)
        return c5, c5 and bool((np.diff(added) >= -1e-15).all())

    def _grid(self, lowest: float, highest: float) -> Floats:
        return np.linspace(min(lowest, highest - 1), highest, GRID)

    def _sensitivity(self, logq: Floats) -> Floats:
        """Algorithm 3 (Proposition 13)."""
        logq = np.where((logq >= self.log_q1) & (logq <= self.log_q0), self.log_q1, logq)
        here = self.rdp(logq)
        up, down = self.rdp(self._shifted(logq, 1)), self.rdp(self._shifted(logq, -1))
        return np.maximum(up - here, here - down)

    def _shifted(self, logq: Floats, direction: int) -> Floats:
        """Log of the largest (1) or smallest (-1) q of a neighbour."""
        others = log(self.classes - 1)
        moved = others + log_ndtr(ndtri_exp(np.minimum(logq - others, -1e-300)) + direction * sqrt(2) / self.sigma)
        found: Floats = np.minimum(moved, 0.0)
        return found
