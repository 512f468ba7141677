"""The sums behind `capcsim.privacy.exact_far`, compiled.

Each probability is a sum around a mode of its own, in logarithms, with a bound on the error of its logarithm. A mode is
found within a known distance, since a term's logarithm is concave with a second derivative of at most -1, in units of
sigma. Where positions are too large for a lattice the same concavity bounds the sum by its largest term alone: with C
classes it lies between sqrt(1/C) and 1 of what one Gaussian factor would give.
"""

import math
from typing import Any

import numpy as np

from capcsim.compiled import compiled
from capcsim.privacy.exact_kernels import LARGEST_LOG, UNIT, log_normal_cdf

HALF_WIDTH = 9.0
LARGEST_POSITION = 1e6
"""In sigmas: beyond, a lattice's positions are rounded too much for its step."""
ROUNDED = 1e-12
"""Of a position: more than it is rounded by."""
CLEAR = 9.5
"""Sigmas by which a class is beaten with a probability of 1 - 1e-21."""
MOST_TERMS = 200
TURN = 30.0


@compiled()
def inverse_mills(t: float) -> float:
    """phi(t) / Phi(t)."""
    if t > -TURN:
        return math.exp(-0.5 * t * t - log_normal_cdf(t)) / math.sqrt(2 * math.pi)
    i = 1.0 / (t * t)
    return -t / (1 - i * (1 - 3 * i * (1 - 5 * i * (1 - 7 * i * (1 - 9 * i * (1 - 11 * i))))))


@compiled()
def slope(leads: Any, j: int, y: float) -> Any:
    """The first two derivatives of the logarithm of label j's term at y, which is `leads`[i] ahead of class i."""
    first, second = -y, -1.0
    for i in range(leads.size):
        if i != j:
            mills = inverse_mills(y + leads[i])
            first += mills
            second -= mills * (mills + y + leads[i])
    return first, min(second, -1.0)


@compiled()
def mode(leads: Any, j: int, highest: float) -> Any:
    """(y, slope there) near the largest term; `highest` is the mode where nobody has more votes."""
    high = 0.0
    for lead in leads:
        high = max(high, -lead)
    low, high = 0.0, high + highest + 1.0
    y = high / 2
    first, second = slope(leads, j, y)
    for _ in range(200):
        if abs(first) < 1e-6 or not low < y < high:
            break
        if first > 0:
            low = y
        else:
            high = y
        y -= first / second
        if not low < y < high:
            y = (low + high) / 2
        first, second = slope(leads, j, y)
    return y, abs(first)


@compiled()
def term(leads: Any, j: int, y: float) -> Any:
    """(logarithm, bound on its error) of label j's term at y."""
    total, size, off = -0.5 * y * y, 0.5 * y * y, 0.0
    for i in range(leads.size):
        if i != j:
            t = y + leads[i]
            if t < CLEAR:
                value = log_normal_cdf(t)
                total += value
                size -= value
                off += (max(-t, 0.0) + 1.0) * 4 * UNIT * (abs(y) + abs(leads[i])) + 10 * UNIT
    return total, off + UNIT * ((leads.size + 12) * size + 20) + 4 * UNIT * y * y


@compiled()
def weighed(exponent: float, off: float) -> float:
    """A bound on what an error in the exponent adds to exp(exponent)."""
    return math.exp(exponent) * math.expm1(off) if off < 1 else math.exp(min(exponent + off, LARGEST_LOG))


@compiled()
def continuous_label(votes: Any, j: int, sigma: float, step: float, highest: float, found: Any) -> None:
    """found: logarithm of label j's probability, a bound on its error, the least noise on class j that matters to it.

    `step` is the lattice's and `highest` the mode where nobody has more votes; positions are in sigmas from the class's
    own votes.
    """
    leads = np.empty(votes.size)
    for i in range(votes.size):
        leads[i] = (votes[j] - votes[i]) / sigma
    y, rise = mode(leads, j, highest)
    peak, off = term(leads, j, y)
    if y > LARGEST_POSITION:
        quarter = math.log(leads.size) / 4
        found[0], found[1] = peak - quarter + rise * rise / 4, quarter + rise * rise / 4 + off
        found[2] = y * (1 - ROUNDED) - rise - 2 * HALF_WIDTH
        return
    nodes = int((HALF_WIDTH + rise) / step) + 2
    total, wrong, worst = 0.0, 0.0, 0.0
    for k in range(-nodes, nodes + 1):
        value, off = term(leads, j, y + k * step)
        total += math.exp(value - peak)
        wrong += weighed(value - peak, off)
        worst = max(worst, off)
    found[0] = peak + math.log(total) + math.log(step / math.sqrt(2 * math.pi))
    found[1] = (-math.log1p(-wrong / total) if 2 * wrong < total else worst) + UNIT * (2 * nodes + 20 + 4 * abs(peak))
    found[2] = y - nodes * step


@compiled()
def tail_sum(m: float, sigma: float) -> Any:
    """Bounds, as (middle, relative error), on the sum over i >= 0 of exp(-(i^2 + 2 i m) / (2 sigma^2))."""
    rate = m / sigma / sigma
    if rate * MOST_TERMS > 40.0:
        total, i, more = 0.0, 0.0, 1.0
        while more > 1e-18 * total:
            total += more
            i += 1
            more = math.exp(-(0.5 * i / sigma + m / sigma) * (i / sigma))
        return total, UNIT * (20 + 2 * i)
    # 1 - x < exp(-x) < 1 - x + x^2/2, in sums of i^2 q^i and i^4 q^i.
    q, left = math.exp(-rate), -math.expm1(-rate)
    second = q * (1 + q) / left**3 / (2 * sigma * sigma)
    fourth = q * (1 + q * (11 + q * (11 + q))) / left**5 / (8 * sigma**4)
    low = 1 / left - second
    return low + fourth / 2, fourth / 2 / max(low, 0.5) + 40 * UNIT


@compiled()
def fill_lower(sigma: float, out: Any) -> float:
    """out[m]: logarithm of the sum over i >= 0 of exp(-(m + i)^2 / (2 sigma^2)); returns that over all integers."""
    total, i, more, last = 0.0, 0.0, 1.0, float(out.size - 1)
    while more > 1e-18 * total:
        total += more
        i += 1
        more = math.exp(-(0.5 * i / sigma + last / sigma) * (i / sigma))
    for m in range(out.size - 1, -1, -1):
        if m < out.size - 1:
            total = 1 + total * math.exp(-(0.5 + m) / sigma / sigma)
        out[m] = math.log(total) - 0.5 * (m / sigma) ** 2
    return math.log(2 * total - 1)


@compiled()
def log_cdf(k: int, sigma: float, lower: Any, whole: float) -> Any:
    """(logarithm of Pr[Z <= k], bound on its error) of the discrete Gaussian, with what `fill_lower` gave."""
    m = -k if k <= 0 else k + 1
    if m < lower.size:
        value, off = lower[m] - whole, 8 * UNIT * (10 + 1.3 * sigma) + 4 * UNIT * abs(lower[m])
    elif k > 0:
        return 0.0, UNIT
    else:
        total, off = tail_sum(float(m), sigma)
        value = math.log(total) - 0.5 * (m / sigma) ** 2 - whole
        off += 4 * UNIT * abs(value)
    return (value, off) if k <= 0 else (math.log1p(-math.exp(value)), off + 4 * UNIT)


@compiled()
def log_cdfs(k: Any, sigma: float, lower: Any, whole: float, out: Any) -> None:
    """out[n] = log Pr[Z <= k[n]]."""
    for n in range(k.size):
        out[n] = log_cdf(k[n], sigma, lower, whole)[0]


@compiled()
def discrete_term(votes: Any, j: int, k: int, sigma: float, lower: Any, whole: float) -> Any:
    """(logarithm, bound on its error) of label j's term where the noise on class j is k."""
    total = -0.5 * (k / sigma) ** 2 - whole
    error = UNIT * (8 * abs(total) + 20)
    for i in range(votes.size):
        lead = votes[j] - votes[i] - int(i < j)
        if i != j and (k + lead) / sigma < CLEAR:
            value, off = log_cdf(k + lead, sigma, lower, whole)
            total += value
            error += off + 2 * UNIT * abs(total)
    return total, error


@compiled()
def discrete_label(votes: Any, j: int, sigma: float, stride: int, lower: Any, whole: float, found: Any) -> None:
    """The same as `continuous_label` for discrete noise, in which a lower class wins a tie."""
    low, width, high = -1, int(2 * sigma) + 2, 0
    for i in range(votes.size):
        high = max(high, votes[i] - votes[j])
    high += width
    while rises(votes, j, high, sigma, lower, whole):
        high += width
        width *= 2
    # The largest term: they rise up to it, then they fall.
    while high - low > 1:
        middle = (low + high) // 2
        if rises(votes, j, middle, sigma, lower, whole):
            low = middle
        else:
            high = middle
    peak, off = discrete_term(votes, j, high, sigma, lower, whole)
    # Errors move it by so many, since a term's logarithm bends by at least 1 / sigma^2.
    slack = 1 + 4 * off * sigma * sigma
    if high > LARGEST_POSITION * sigma or slack > 4 * sigma + 40:
        half = math.log(1 + math.sqrt(2 * math.pi) * sigma) / 2 + 2 * off * slack
        found[0], found[1] = peak + half, half + off
        found[2] = high / sigma * (1 - ROUNDED) - slack / sigma - 2 * HALF_WIDTH
        return
    nodes = int((HALF_WIDTH * sigma + slack) / stride) + 2
    total, wrong, worst = 0.0, 0.0, 0.0
    for k in range(-nodes, nodes + 1):
        value, off = discrete_term(votes, j, high + k * stride, sigma, lower, whole)
        total += math.exp(value - peak)
        wrong += weighed(value - peak, off)
        worst = max(worst, off)
    found[0] = peak + math.log(total * stride)
    found[1] = (-math.log1p(-wrong / total) if 2 * wrong < total else worst) + UNIT * (2 * nodes + 20 + 4 * abs(peak))
    found[2] = (high - nodes * stride) / sigma


@compiled()
def rises(votes: Any, j: int, k: int, sigma: float, lower: Any, whole: float) -> bool:
    """Whether label j's term grows from k to k + 1."""
    change = -(k + 0.5) / sigma / sigma
    for i in range(votes.size):
        lead = votes[j] - votes[i] - int(i < j)
        if i != j and (k + lead) / sigma < CLEAR:
            after, before = log_cdf(k + 1 + lead, sigma, lower, whole), log_cdf(k + lead, sigma, lower, whole)
            change += after[0] - before[0]
    return change > 0
