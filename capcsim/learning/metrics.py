"""How good a model is, overall and for each class, and how fair (paper, appendix D)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quality:
    """Accuracy, its value for each class (NaN where the class has no sample), and balanced accuracy.

    `equal_opportunity` and `equalized_odds` are the gaps between the two groups of a protected attribute, 0 where
    the model treats both alike; None without such an attribute, or where a group lacks samples: `unfair` then says why.
    """

    accuracy: float
    per_class: tuple[float, ...]
    balanced_accuracy: float
    equal_opportunity: float | None = None
    equalized_odds: float | None = None
    unfair: str = ""


def quality(predicted: Labels, actual: Labels, classes: int, protected: Labels | None = None) -> Quality:
    """Compare labels int64[N] with the true ones; balanced accuracy is the mean recall over the classes.

    `protected` int64[N] holds 0 or 1; fairness is told for two classes only, of which 1 is the positive one.
    """
    right = predicted == actual
    per_class = tuple(
        float(right[actual == label].mean()) if (actual == label).any() else float("nan") for label in range(classes)
    )
    found = Quality(float(right.mean()), per_class, float(np.nanmean(per_class)))
    if protected is None:
        return found
    if classes != 2:
        return replace(found, unfair=f"fairness is told for two classes, and there are {classes}")
    gaps = [_gap(predicted, actual == label, protected) for label in (0, 1)]
    odds = None if None in gaps else max(gap for gap in gaps if gap is not None)
    return replace(found, equal_opportunity=gaps[1], equalized_odds=odds, unfair=_lacking(actual, protected))


def average(qualities: Sequence[Quality]) -> Quality:
    """The mean of each measure, over retrainings with several seeds."""

    def mean(name: str) -> float | None:
        values = [getattr(each, name) for each in qualities]
        return None if None in values else float(np.mean(values))

    per_class = np.mean([each.per_class for each in qualities], axis=0)
    return Quality(
        accuracy=mean("accuracy") or 0.0,
        per_class=tuple(map(float, per_class)),
        balanced_accuracy=mean("balanced_accuracy") or 0.0,
        equal_opportunity=mean("equal_opportunity"),
        equalized_odds=mean("equalized_odds"),
        unfair=next((each.unfair for each in qualities if each.unfair), ""),
    )


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def share_fallen(before: Sequence[Quality], after: Sequence[Quality]) -> float:
    """The share of (querying party, class) accuracies that are lower after than before (paper, section 4.3.1)."""
    pairs = [
        (old, new)
        for old_all, new_all in zip(before, after, strict=True)
        for old, new in zip(old_all.per_class, new_all.per_class, strict=True)
        if not np.isnan(old)
    ]
    return float(np.mean([new < old for old, new in pairs]))


def _gap(predicted: Labels, chosen: NDArray[np.bool_], protected: Labels) -> float | None:
    """The difference between the groups' rates of prediction 1 among the chosen (definitions 10 and 11)."""
    groups = [predicted[chosen & (protected == group)] for group in (0, 1)]
    if not all(map(len, groups)):
        return None
    return float(abs(groups[0].mean() - groups[1].mean()))


def _lacking(actual: Labels, protected: Labels) -> str:
    """Which group lacks samples of a class; empty where none does."""
    for label in (0, 1):
        for group in (0, 1):
            if not ((actual == label) & (protected == group)).any():
                return f"of the {len(actual)} evaluation samples none is of group {group} and class {label}"
    return ""
