"""How far CrypTen's logits may lie from the integer reference, and what it means when they lie farther.

Both compute the same network, but the reference floors activations to 12 fraction bits where CrypTen keeps 16, cut at
random by up to two units. `tolerance` bounds what that can do, layer by layer. A logit beyond it is therefore a
truncation that wrapped, unless the query drives a ReLU past 16, where the reference saturates and CrypTen does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from capcsim.fixed_point import Network
from capcsim.fixed_point.bounds import intervals
from capcsim.fixed_point.layers import Add, Conv2d, Linear, Relu, SumPool, Truncate
from capcsim_crypten.compat import PRECISION_BITS, decode, encoded
from capcsim_crypten.plan import Plan

CUT = 2.0 * 2.0**-PRECISION_BITS
"""Both parties cut their shares: less than two units together."""


@dataclass
class Deviations:
    """Counts over all queries so far.

    `wrapped` logits lie beyond the tolerance, in `wrapped_queries`; `mended` of these vanish mod 2^48.
    `saturated_queries` lie beyond it too, because a ReLU saturates in the reference. `largest_error` is of the rest.
    """

    queries: int = 0
    wrapped: int = 0
    mended: int = 0
    wrapped_queries: int = 0
    saturated_queries: int = 0
    largest_error: float = 0.0

    def note(
        self, network: Network, plan: Plan, limit: float, x: NDArray[np.float32], words: NDArray[np.int64]
    ) -> None:
        """Compare the opened words int64[B, C] of CrypTen's logits of `x` with the reference."""
        error = logit_errors(network, plan, x, words)
        beyond = error > limit
        saturated = np.array([rows.any() and network.saturation(x[i : i + 1]) > 0 for i, rows in enumerate(beyond)])
        wrapped = beyond & ~saturated[:, None]
        self.queries += len(x)
        self.saturated_queries += int(saturated.sum())
        self.wrapped += int(wrapped.sum())
        self.wrapped_queries += int(wrapped.any(axis=1).sum())
        period = 2.0 ** (plan.public.ring_bits - plan.public.fraction_bits)
        self.mended += int((wrapped & (np.abs(error - period * np.rint(error / period)) <= limit)).sum())
        self.largest_error = max(self.largest_error, float(error[~beyond].max(initial=0.0)))


def logit_errors(network: Network, plan: Plan, x: NDArray[np.float32], words: NDArray[np.int64]) -> NDArray[np.float64]:
    """|CrypTen's logit - the reference's|, float64[B, C], as real numbers."""
    reference = network.evaluate(network.encode(x)) / 2.0 ** plan.bits[-1]
    return np.abs(decode(words) - reference)


def explain(
    reference: NDArray[np.int64], found: NDArray[np.int64], limit: float, saturated: NDArray[np.bool_] | None = None
) -> list[str]:
    """Why each query's vote differs: "" where it does not, else "near tie", "wrap" or "saturation".

    Logits int64[B, C] in the units of `limit`; `saturated` bool[B] are queries that the reference clamps. A vote that
    differs although no logit is off by more than the limit means that the reference's best two lie within twice the
    limit; "unexplained" would be an error of ours.
    """
    same = reference.argmax(axis=1) == found.argmax(axis=1)
    off = np.abs(reference - found).max(axis=1) > limit
    clamped = np.zeros(len(same), np.bool_) if saturated is None else saturated
    ordered = np.sort(reference, axis=1)
    near = ordered[:, -1] - ordered[:, -2] <= 2 * limit
    causes = [same, off & clamped, off, near]
    kinds = np.select(causes, ["", "saturation", "wrap", "near tie"], "unexplained")
    return [str(kind) for kind in kinds]


def tolerance(network: Network, plan: Plan) -> float:
    """What a logit can be off by, as a real number, when nothing wraps or saturates."""
    nodes, bits, weights = network.public.nodes, plan.bits, plan.weights(network)
    encoding = network.public.encoding
    bounds = intervals(nodes, network.weights, (min(encoding.low), max(encoding.high)))
    largest = [max(-low, high) / 2.0**places for (low, high), places in zip(bounds, bits, strict=True)]
    off: list[float] = []
    for position, node in enumerate(nodes):
        before = [off[source] for source in node.sources]
        match node:
            case Linear() | Conv2d():
                owned = weights[position]
                rows = owned.weight.reshape(len(owned.weight), -1)
                lost = np.abs(encoded(rows) - rows).sum(axis=1) * (largest[node.sources[0]] + before[0])
                lost += np.abs(encoded(owned.bias) - owned.bias)
                off.append(float((np.abs(rows).sum(axis=1) * before[0] + lost).max()) + CUT)
            case Relu() | Truncate():
                off.append(before[0] + 2.0 ** -bits[position])
            case SumPool():
                off.append(before[0] + CUT if plan.averages(position) else before[0] * prod(node.kernel))
            case Add():
                off.append(sum(_aligned(before, [bits[source] for source in node.sources], bits[position])))
            case _:
                off.append(before[0] if before else 0.0)
    return off[-1]


def _aligned(values: Sequence[float], bits: Sequence[int], target: int) -> list[float]:
    return [value * 2.0 ** (places - target) for value, places in zip(values, bits, strict=True)]
