"""How good a model is, overall and for each class (paper, appendix D)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Quality:
    """Accuracy, its value for each class (NaN where the class has no sample), and balanced accuracy."""

    accuracy: float
    per_class: tuple[float, ...]
    balanced_accuracy: float


def quality(predicted: NDArray[np.int64], actual: NDArray[np.int64], classes: int) -> Quality:
    """Compare labels int64[N] with the true ones; balanced accuracy is the mean recall over the classes."""
    right = predicted == actual
    per_class = tuple(
        float(right[actual == label].mean()) if (actual == label).any() else float("nan") for label in range(classes)
    )
    return Quality(float(right.mean()), per_class, float(np.nanmean(per_class)))
