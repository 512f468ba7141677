"""From Renyi differential privacy to (epsilon, delta), and composition without it."""

from math import expm1, inf, log, sqrt
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


def epsilon_improved(orders: Floats, rdp: Floats, delta: float) -> tuple[float, float]:
    """(epsilon, order): Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), Prop. 12, by dp-accounting."""
    from dp_accounting.rdp import rdp_privacy_accountant

    check_delta(delta)
    epsilon, order = rdp_privacy_accountant.compute_epsilon(orders, rdp, delta)
    return float(epsilon), float(order)


def epsilon_mironov(orders: Floats, rdp: Floats, delta: float) -> tuple[float, float]:
    """(epsilon, order): Mironov 2017 (arXiv 1702.07476), Prop. 3, Theorem 2 of the CaPC paper."""
    check_delta(delta)
    epsilons = rdp - log(delta) / (orders - 1)
    best = int(np.argmin(epsilons))
    return float(epsilons[best]), float(orders[best])


def epsilon_gaussian(mu: float, delta: float) -> float:
    """Analytic Gaussian (Balle and Wang 2018, arXiv 1805.06530) of a mu-GDP release, by dp-accounting."""
    import dp_accounting

    check_delta(delta)
    return float(dp_accounting.get_epsilon_gaussian(1 / mu, delta)) if mu > 0 else 0.0


def advanced_composition(epsilon: float, queries: int, delta: float) -> float:
    """Epsilon of `queries` releases of pure `epsilon` (Dwork, Rothblum, Vadhan 2010; Theorem 1 of the CaPC paper)."""
    check_delta(delta)
    if epsilon < 0 or queries < 0:
        raise InputError(f"epsilon = {epsilon}, queries = {queries}: neither can be negative")
    if epsilon > LARGEST_EXPONENT:
        return inf
    return epsilon * sqrt(2 * queries * log(1 / delta)) + queries * epsilon * expm1(epsilon)


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
