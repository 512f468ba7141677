"""Samples with their labels, checked: what every source of data becomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError

FEATURE_LIMIT = 16.0
"""Features must lie in [-16, 16], the public range of the fixed-point inputs."""
LONGEST = 600
"""Characters of an error that may quote a file."""
NAMED = 58
"""Characters of a path in an error, whose end says more than its beginning."""
Missing = Literal["error", "median"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples `x` float32[N, *shape] within [-16, 16], and labels `y` int64[N] from 0 to classes - 1.

    The first `training` samples are the set's own training part, the others its test part; None where the set has
    no such parts. `site` int64[N] numbers the sites that samples come from, `protected` int64[N] is a binary
    attribute such as sex. NaN in `x` is a missing feature. `note` is what must be said wherever results appear,
    `names` the values behind the numbers of `classes`, `sites` and `protected`.
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: int
    training: int | None = None
    site: NDArray[np.int64] | None = None
    protected: NDArray[np.int64] | None = None
    note: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape: (features,) or (channels, height, width)."""
        return self.x.shape[1:]


def impute(x: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Samples with each missing feature set to its median over `own`, a party's own training samples.

    A feature that the party never measured becomes 0. Both are float32[n, *shape].
    """
    if not np.isnan(x).any():
        return x
    measured = ~np.isnan(own).all(axis=0)
    medians = np.zeros(own.shape[1:], np.float32)
    medians[measured] = np.nanmedian(own[:, measured], axis=0)
    return np.where(np.isnan(x), medians, x)


def check_features(path: Path, x: NDArray[np.generic], missing: Missing, rows: str = "samples") -> NDArray[np.float32]:
    """Features as float32[N, *shape], images with channels first and uint8 scaled to [0, 1]; raises ScenarioError."""
    if x.size == 0:
        raise bad_file(path, f"at least one sample with a feature; there is no sample in an x of shape {x.shape}")
    if x.dtype.kind not in "fiub" or x.ndim < 2:
        raise bad_file(path, f"x numeric with at least two axes; it is {x.dtype} of shape {x.shape}")
    with np.errstate(over="ignore"):
        scaled = x.astype(np.float32)
    if x.dtype == np.uint8:
        scaled /= 255
    allowed = np.isfinite(scaled) | (np.isnan(scaled) & (missing == "median"))
    bad = np.flatnonzero(~allowed.reshape(len(scaled), -1).all(axis=1))
    if len(bad):
        remedy = "" if np.isinf(scaled[bad[0]]).any() else "; data.missing = 'median' fills NaN in"
        raise bad_file(path, f"no NaN or infinity in x; {len(bad)} {rows} have one, the first is {bad[0]}{remedy}")
    largest = np.abs(scaled[np.isfinite(scaled)]).max(initial=0)
    if largest > FEATURE_LIMIT:
        raise bad_file(path, f"x within [-16, 16]; it reaches {largest:g}, so scale it first")
    if scaled.ndim == 3:
        return scaled[:, None]
    if scaled.ndim == 4 and scaled.shape[-1] in (1, 3):
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
    return scaled


def check_labels(path: Path, y: NDArray[np.generic], samples: int) -> tuple[NDArray[np.int64], int]:
    """Labels int64[N] and the number of classes; raises ScenarioError."""
    if y.shape != (samples,):
        raise bad_file(path, f"y of shape ({samples},), one label a sample; it is {y.shape}")
    if y.dtype.kind not in "iub":
        raise bad_file(path, f"y whole numbers from 0; it is {y.dtype}")
    if int(y.min()) < 0 or int(y.max()) >= samples:
        raise bad_file(path, f"y numbered from 0 to classes - 1; it runs from {y.min()} to {y.max()}")
    labels = y.astype(np.int64)
    classes = int(labels.max()) + 1
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(empty) or classes < 2:
        found = f"class {empty[0]} has none" if len(empty) else "there is only class 0"
        raise bad_file(path, f"at least two classes, numbered from 0, each with samples; {found}")
    return labels, classes


def bad_file(path: Path, allowed: str) -> ScenarioError:
    """The error for a file of samples that cannot be used: one line, whatever of the file stands in it."""
    shown = "".join(sign if sign.isprintable() else " " for sign in allowed[:LONGEST])
    place = str(path)
    named = place if len(place) <= NAMED else f"...{place[3 - NAMED :]}"
    return ScenarioError("data.path", named, " ".join(shown.split()))
