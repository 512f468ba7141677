"""Which samples of its pool a querying party asks about (paper, appendix C)."""

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.models import Classifier
from capcsim.scenario import Queries


def select(
    queries: Queries, count: int, model: Classifier, pool: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Positions in `pool` of `count` samples, in the order in which they are asked: int64[count]."""
    match queries.selection:
        case "random":
            return generator.permutation(len(pool))[:count]
        case "entropy":
            return np.argsort(-entropy(model.probabilities(pool)), kind="stable")[:count]


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shannon entropy in nats of each row (Definition 6): float64[N]."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    sums: NDArray[np.float64] = (probabilities * logs).sum(axis=1)
    return -sums
