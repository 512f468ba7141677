"""Epsilon of many labels from the law of their privacy loss, rounded upward.

With discrete Gaussian noise the loss of one count is offset + unit x for an integer x (Canonne, Kamath, Steinke 2020,
arXiv 2004.00010). With Laplace noise it is so in the pessimistic approximation that connects the dots of its privacy
profile (Doroshenko et al. 2022, arXiv 2207.04380), which for discrete Laplace noise is the loss itself. So the loss of
n counts is an affine function of a sum of n integers, whose law is one Fourier transform away, and no loss is rounded
to a grid.

A transform is right up to a small part of its largest value, which bounds nothing where delta is small. So the law is
tilted first, by exp(t loss) with t about where Chernoff's bound is best: delta(epsilon) is

    E[exp(t loss)] exp(-t epsilon) E_t[exp(-t (loss - epsilon)) (1 - exp(epsilon - loss))+],

in which only the middle of the tilted law matters. What its window leaves out is bounded by Bernstein's inequality,
what the transform errs by Parseval's identity; both are added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, expm1, floor, log, log1p, log2, pi, sqrt, tanh
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.privacy.conversions import ORDERS, UNIT, epsilon_gaussian, epsilon_improved, log_delta_gaussian
from capcsim.privacy.mechanisms import Argmax, Family, NoiseKind, moved_counts

Floats: TypeAlias = NDArray[np.float64]
Part: TypeAlias = tuple[Argmax, int]
"""A noisy histogram, and how many of it."""

INTERVAL = 1e-4
"""Of the grid of a continuous Gaussian's profile, in standard deviations; epsilon is off by its square."""
MOST_CELLS = 1 << 13
"""Of the grid of a Laplace profile."""
SMALL_WINDOW, LARGE_WINDOW = 1 << 18, 1 << 21
"""Losses that a law may have: what takes a tenth of a second, and what takes one."""
LEFT_OUT = 50.0
"""Minus the logarithm of the mass that a window leaves out."""
HALF_WIDTH = 12.0
SMALLEST, LARGEST = 1e-9, 1e290
"""Epsilons outside need no law of losses, or have none in doubles."""
TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class Count:
    """The loss of one count: offset + unit x, x from `first` on, with these log probabilities.

    `subgaussian` is the standard deviation of a Gaussian whose tails are no thinner; 0 where none is known.
    """

    offset: float
    unit: float
    first: int
    logs: Floats
    subgaussian: float = 0.0


@dataclass(frozen=True, eq=False)
class Law:
    """Losses lowest + unit k with probabilities tilted[k], from above; `log_moment` is log E[exp(t loss)]."""

    lowest: float
    unit: float
    tilted: Floats
    log_moment: float


def epsilon_connected(mu: float, delta: float) -> float:
    """Epsilon of a mu-GDP release by the pessimistic law of losses that connects the dots of its privacy profile.

    Between two points of its grid the profile is linear in exp(epsilon).
    """
    exact, step = epsilon_gaussian(mu, delta), INTERVAL * mu
    if not 0 < exact < LARGEST:
        return exact
    below = step * (ceil(exact / step) - 1)
    high, low = (exp(min(log_delta_gaussian(mu, at) - log(delta), 700.0)) for at in (below, below + step))
    share = min(max(high - 1, 0.0) / max(high - low, UNIT), 1.0)
    within = step if step > 700 else log1p(share * expm1(step))
    return max(exact, below + within)


def epsilon_of_losses(parts: Sequence[Part], delta: float, noise: NoiseKind) -> float | None:
    """A bound on the epsilon of all parts together; None where doubles or a window cannot hold their law.

    For Gaussian noise it has to be discrete: continuous noise of several scales is one Gaussian mechanism.
    """
    parts = [part for part in parts if part[1]]
    if not parts:
        return 0.0
    curve = sum((number * mechanism.rdp(ORDERS, noise) for mechanism, number in parts), np.zeros(ORDERS.size))
    highest, order = epsilon_improved(ORDERS, curve, delta)
    highest = min(highest, sum(number * mechanism.pure_epsilon for mechanism, number in parts))
    if highest <= SMALLEST:
        return highest
    if highest >= LARGEST:
        return None
    gaussian = [(mechanism, number) for mechanism, number in parts if mechanism.family is Family.GAUSSIAN]
    mu = sqrt(sum(2 * number * mechanism.rho for mechanism, number in gaussian))
    tilt = sqrt(-2 * log(delta)) / mu if gaussian else order - 1
    windows = [SMALL_WINDOW, LARGE_WINDOW]
    if len(gaussian) == len(parts) and all(_is_smooth(mechanism.scale, delta) for mechanism, _ in gaussian):
        del windows[1]
    for window in windows:
        laws = [law for part in parts if (law := _law(*part, noise, tilt, window)) is not None]
        if len(laws) == len(parts):
            return _epsilon(laws, tilt, delta, highest)
    if len(windows) == 2:
        return None
    # A discrete Gaussian is stochastically below the continuous one plus 1.
    shift = sum(mechanism.moved_votes / mechanism.scale / mechanism.scale for mechanism, _ in gaussian)
    return min(epsilon_gaussian(mu, delta) + shift, highest)


def _is_smooth(sigma: float, delta: float) -> bool:
    """Whether a sum of discrete Gaussians is one, up to a mass that is nothing beside delta.

    Its characteristic function differs from that of one by at most 2 exp(-pi^2 sigma^2 / 2) for each of them.
    """
    return sigma > sqrt(2 * (150 - log(delta))) / pi


def _epsilon(laws: Sequence[Law], tilt: float, delta: float, highest: float) -> float:
    """The smallest epsilon at which the bound on delta is small enough, or `highest`, which is known to do."""
    from capcsim.privacy import loss_kernels as kernels

    *rest, inner = sorted(laws, key=lambda law: law.tilted.size)
    outer = rest[0] if rest else Law(0.0, 1.0, np.ones(1), 0.0)
    above, beyond = np.empty(inner.tilted.size), np.empty(inner.tilted.size)
    kernels.tails(inner.tilted, inner.unit, tilt, above, beyond)
    losses = outer.lowest + outer.unit * np.arange(outer.tilted.size)
    moment = inner.log_moment + outer.log_moment

    def fits(epsilon: float) -> bool:
        found = kernels.delta(losses, outer.tilted, inner.lowest, inner.unit, tilt, above, beyond, epsilon)
        rounding = 16 * UNIT * (abs(moment) + tilt * epsilon + 1e3)
        return moment - tilt * epsilon + log(found + 2 * len(laws) * exp(-LEFT_OUT)) + rounding <= log(delta)

    if fits(0.0):
        return 0.0
    low, high = 0.0, highest
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return min(high * (1 + TOLERANCE), highest)


def _law(mechanism: Argmax, number: int, noise: NoiseKind, tilt: float, window: int) -> Law | None:
    """The law of the losses of so many noisy histograms; None where a window of so many losses cannot hold it."""
    counts = number * moved_counts(mechanism.adjacency)
    one = _COUNTS[mechanism.family](mechanism, noise, tilt, counts, window)
    if one is None:
        return None
    unit, first, logs = one.unit, one.first, one.logs
    x = first + np.arange(logs.size)
    exponents = logs + tilt * unit * x
    weights = np.exp(exponents - exponents.max())
    moment = float(exponents.max()) + log(weights.sum()) + tilt * one.offset
    weights /= weights.sum()
    mean = float(weights @ x)
    reach = sqrt(2 * counts * float(weights @ (x - mean) ** 2) * LEFT_OUT) + logs.size * LEFT_OUT / 3
    if one.subgaussian:
        # But for a share of less than 1e-8.
        reach = one.subgaussian * sqrt(2 * counts * (LEFT_OUT + 1e-7 * counts)) + 1e-7 * counts + 1
    low = max(counts * first, floor(counts * mean - reach))
    high = min(counts * (first + logs.size - 1), ceil(counts * mean + reach))
    size = 1 << max(high - low, logs.size - 1, 1).bit_length()
    if size > window:
        return None
    law = np.fft.irfft(np.fft.rfft(weights, size) ** counts, size)
    # What lay below the window was added to its other end, which is to the safe side.
    law = np.roll(law, -((low - counts * first) % size))[: high - low + 1]
    error = 16 * counts * log2(size) * UNIT * float(np.sqrt(law @ law))
    return Law(counts * one.offset + unit * low, unit, np.maximum(law, 0) + error, counts * moment)


def _cells(counts: int, window: int) -> int:
    """How many cells the grid of a Laplace profile may have, so that a window holds so many of its losses."""
    return min(MOST_CELLS, max(int(window / (20 * sqrt(counts) + 70)), 1))


def _gaussian_count(mechanism: Argmax, noise: NoiseKind, tilt: float, counts: int, window: int) -> Count | None:  # noqa: ARG001
    """Of discrete Gaussian noise, around where the tilt moves it; None where that is wider than a window."""
    sigma, moved = mechanism.scale, mechanism.moved_votes
    if sigma * HALF_WIDTH > window:
        return None
    centre = tilt * moved
    middle, reach = round(centre), ceil(HALF_WIDTH * sigma) + 1
    k = np.arange(-reach, reach + 1)
    whole = log(np.exp(-((k / sigma) ** 2) / 2).sum())
    logs = -(((middle + k) / sigma) ** 2) / 2 - whole
    # One of sigma 1 and more is subgaussian, but for exp(-2 pi^2 sigma^2).
    subgaussian = sigma if sigma >= 1 else 0.0
    return Count((moved / sigma) ** 2 / 2, moved / sigma**2, middle - reach, logs, subgaussian)


def _laplace_count(mechanism: Argmax, noise: NoiseKind, tilt: float, counts: int, window: int) -> Count:  # noqa: ARG001
    """Of Laplace noise, by a grid of cells; discrete noise has one for each moved vote."""
    moved: float = mechanism.moved_votes
    cells = most = _cells(counts, window)
    if noise is NoiseKind.DISCRETE:
        # A unit of more votes loses more.
        cells = mechanism.moved_votes if moved <= most else most
        moved = cells * ceil(moved / cells)
    pure = moved / mechanism.scale
    half = pure / cells
    logs = half * np.arange(-cells, 1, dtype=np.float64) + log(tanh(half / 2))
    logs[-1] = -log1p(exp(-half))
    logs[0] = -pure + logs[-1]
    return Count(pure, 2 * half, -cells, logs)


_COUNTS = {Family.GAUSSIAN: _gaussian_count, Family.LAPLACE: _laplace_count}
