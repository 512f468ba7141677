"""Sums along a law of privacy losses, compiled; `capcsim.privacy.losses` says what they are for."""

import math
from typing import Any

import numpy as np

from capcsim.compiled import compiled


@compiled()
def tails(law: Any, unit: float, tilt: float, above: Any, beyond: Any) -> None:
    """beyond[k] is the sum over i >= k of law[i] exp(-(tilt + 1) unit (i - k)).

    above[k] is that of law[i] exp(-tilt unit (i - k)) (1 - exp(-unit (i - k))); no terms are subtracted.
    """
    shrink, faster = math.exp(-tilt * unit), math.exp(-(tilt + 1) * unit)
    grown, rest, further = -math.expm1(-unit), 0.0, 0.0
    for k in range(law.size - 1, -1, -1):
        rest = shrink * (rest + grown * further)
        further = law[k] + faster * further
        above[k], beyond[k] = rest, further


@compiled()
def delta(
    outer_losses: Any, outer: Any, lowest: float, unit: float, tilt: float, above: Any, beyond: Any, epsilon: float
) -> float:
    """E[exp(-tilt (loss - epsilon)) (1 - exp(epsilon - loss))+] of a sum of two losses.

    The outer one has its losses and law, the inner one lowest + k unit and the sums along its law.
    """
    total = 0.0
    for place in range(outer.size):
        wanted = epsilon - outer_losses[place]
        k = max(np.floor((wanted - lowest) / unit) + 1, 0.0)
        if k < above.size:
            gap = max(lowest + k * unit - wanted, 0.0)
            total += outer[place] * math.exp(-tilt * gap) * (above[int(k)] - math.expm1(-gap) * beyond[int(k)])
    return total
