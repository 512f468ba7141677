"""From Renyi differential privacy to (epsilon, delta), and composition without it."""

from math import expm1, inf, log, pi, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capcsim.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

ORDERS: Floats = np.concatenate(
    [np.arange(1.05, 2, 0.05), np.arange(2, 32, 0.5), np.arange(32, 64, 1.0), np.geomspace(64, 1024, 17)]
)
"""The Renyi orders that are tried; below 2 for the large epsilons, where starting at 2 costs several."""

LARGEST_EXPONENT = 700.0
LARGEST_ARGUMENT = 1e100
SMALLEST = 5e-324
UNIT = 2.0**-53


def epsilon_improved(orders: Floats, rdp: Floats, delta: float) -> tuple[float, float]:
    """(epsilon, order): Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), Prop. 12; infinite where every `rdp` is.

    It is 0 where a divergence is so small that the total variation is at most delta (Bretagnolle and Huber 1979).
    """
    check_delta(delta)
    # What came out as 0 is too small for a double.
    curve = np.maximum(rdp, SMALLEST)
    negligible = np.log(-np.expm1(-curve)) <= 2 * log(delta)
    bounds = curve + np.log1p(-1 / orders) - (log(delta) + np.log(orders)) / (orders - 1)
    epsilons = np.maximum(np.where(negligible, 0.0, bounds), 0.0)
    best = int(np.argmin(epsilons))
    return float(epsilons[best]), float(orders[best])


def epsilon_mironov(orders: Floats, rdp: Floats, delta: float) -> tuple[float, float]:
    """(epsilon, order): Mironov 2017 (arXiv 1702.07476), Prop. 3, Theorem 2 of the CaPC paper."""
    check_delta(delta)
    epsilons = rdp - log(delta) / (orders - 1)
    best = int(np.argmin(epsilons))
    return float(epsilons[best]), float(orders[best])


def epsilon_gaussian(mu: float, delta: float) -> float:
    """Analytic Gaussian of a mu-GDP release, rounded upward: Balle and Wang 2018 (arXiv 1805.06530), Theorem 8."""
    check_delta(delta)
    target = log(delta)
    if mu <= 0 or log_delta_gaussian(mu, 0.0) <= target:
        return 0.0
    low, high = 0.0, 1.0
    while high < inf and log_delta_gaussian(mu, high) > target:
        low, high = high, 2 * high
    middle = (low + high) / 2
    while low < middle < high:
        low, high = (low, middle) if log_delta_gaussian(mu, middle) <= target else (middle, high)
        middle = (low + high) / 2
    return high


def log_delta_gaussian(mu: float, epsilon: float) -> float:
    """A bound from above on log delta of a mu-GDP release at an epsilon of at least 0, tight but for rounding.

    With a = epsilon/mu - mu/2 and b = epsilon/mu + mu/2 delta is Phi(-a) - exp(epsilon) Phi(-b). Since exp(epsilon)
    phi(b) = phi(a) that is phi(a) (M(a) - M(b)), M(x) = Phi(-x) / phi(x), in which nothing is large. For a > 0 the
    difference is at most (b - a) / (1 + a^2), because -M'(x) = 1 - x M(x) falls and stays below 1 / (1 + x^2). Delta
    falls with a and rises with b, so that both are rounded that way.
    """
    from scipy.special import erfcx

    half, quotient = mu / 2, epsilon / mu
    if half < quotient / 2 > LARGEST_ARGUMENT:
        return -inf
    off = 4 * UNIT * (half + quotient)
    a, b = quotient - half - off, quotient + half + off
    if not a > -8:
        # All but exp(-32) of the mass; also where doubles end.
        return 0.0
    difference = sqrt(pi / 2) * float(erfcx(a / sqrt(2)) * (1 + 16 * UNIT) - erfcx(b / sqrt(2)) * (1 - 16 * UNIT))
    if a > 0:
        difference = min(difference, (b - a) / (1 + a * a))
    return -a * a / 2 * (1 - 4 * UNIT) - log(2 * pi) / 2 + log(max(difference, SMALLEST))


def advanced_composition(epsilon: float, queries: int, delta: float) -> float:
    """Epsilon of `queries` releases of pure `epsilon` (Dwork, Rothblum, Vadhan 2010; Theorem 1 of the CaPC paper)."""
    check_delta(delta)
    if epsilon < 0 or queries < 0:
        raise InputError(f"epsilon = {epsilon}, queries = {queries}: neither can be negative")
    if epsilon > LARGEST_EXPONENT:
        return inf
    return epsilon * sqrt(-2 * queries * log(delta)) + queries * epsilon * expm1(epsilon)


def check_delta(delta: float) -> None:
    """Raises InputError unless 0 < delta < 1."""
    if not 0 < delta < 1:
        raise InputError(f"delta = {delta}: it must lie strictly between 0 and 1")


def check_orders(orders: ArrayLike) -> Floats:
    """Renyi orders as float64[O]; raises InputError unless each is finite and above 1."""
    found = np.atleast_1d(np.asarray(orders, np.float64))
    if found.ndim != 1 or not found.size or not (np.isfinite(found) & (found > 1)).all():
        raise InputError("orders: a list of finite numbers above 1")
    return found
