"""Which samples of its pool a querying party asks about (paper, appendix C)."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.models import Model
from capcsim.scenario import Selection

Samples: TypeAlias = NDArray[np.float32]
CHUNK_VALUES = 1 << 24
"""Distances that are held at once."""


def select(
    selection: Selection, count: int, model: Model, pool: Samples, own: Samples, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Positions in `pool` of `count` samples, in the order in which they are asked: int64[count].

    `own` are the samples that the querying party trained on, the first centres of k-center.
    """
    match selection:
        case "random":
            return generator.permutation(len(pool))[:count]
        case "entropy":
            return np.argsort(-entropy(model.probabilities(pool)), kind="stable")[:count]
        case "margin":
            return np.argsort(margin(model.probabilities(pool)), kind="stable")[:count]
        case "k-center":
            return greedy_k_center(model.features(pool), model.features(own), count)


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shannon entropy in nats of each row (Definition 7): float64[N]."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    sums: NDArray[np.float64] = (probabilities * logs).sum(axis=1)
    return -sums


def margin(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The gap between the two most probable classes of each row (Definition 6): float64[N]."""
    top = np.partition(probabilities, -2, axis=1)
    gaps: NDArray[np.float64] = top[:, -1] - top[:, -2]
    return gaps


def greedy_k_center(points: Samples, centres: Samples, count: int) -> NDArray[np.int64]:
    """Positions of `count` points, each the one farthest from all centres so far (Sener and Savarese 2018).

    `points` float32[N, d], `centres` float32[M, d]; the lowest position wins a tie.
    """
    rows = points.reshape(len(points), -1).astype(np.float64)
    norms = (rows**2).sum(axis=1)
    nearest = _nearest(rows, norms, centres.reshape(len(centres), -1).astype(np.float64))
    chosen = np.empty(min(count, len(rows)), np.int64)
    for place in range(len(chosen)):
        chosen[place] = farthest = int(nearest.argmax())
        distances = norms + norms[farthest] - 2 * (rows @ rows[farthest])
        np.minimum(nearest, distances, out=nearest)
        # What is chosen is never chosen again, though rounding may leave it above 0.
        nearest[farthest] = -np.inf
    return chosen


def _nearest(
    points: NDArray[np.float64], norms: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Each point's squared distance to its nearest centre, by matrix products in pieces: float64[N]."""
    nearest = np.full(len(points), np.inf)
    step = max(1, CHUNK_VALUES // max(1, len(points)))
    for start in range(0, len(centres), step):
        some = centres[start : start + step]
        distances = norms[:, None] + (some**2).sum(axis=1) - 2 * (points @ some.T)
        np.minimum(nearest, distances.min(axis=1), out=nearest)
    return nearest
