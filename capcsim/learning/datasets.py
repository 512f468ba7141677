"""Data sets: two that scikit-learn bundles, and any npz file. Nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.scenario import Data

FEATURE_LIMIT = 16.0
"""Features must lie in [-16, 16], the public range of the fixed-point inputs."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples `x` float32[N, *shape] within [-16, 16], and labels `y` int64[N] from 0 to classes - 1."""

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape: (features,) or (channels, height, width)."""
        return self.x.shape[1:]


def load_dataset(data: Data) -> Dataset:
    """The data set that a scenario names; raises ScenarioError."""
    match data.source:
        case "digits":
            return _digits()
        case "breast_cancer":
            return _breast_cancer()
        case "npz":
            assert data.path is not None, "the scenario checks this"
            return _npz(data.path)


def _digits() -> Dataset:
    """1,797 images of 8 x 8 with grey levels 0 to 16, scaled to [0, 1]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset("digits", (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64), 10)


def _breast_cancer() -> Dataset:
    """569 patients, 30 measurements, each scaled to [0, 1] by the range published with the data set."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    low, high = bunch.data.min(axis=0), bunch.data.max(axis=0)
    x = ((bunch.data - low) / (high - low)).astype(np.float32)
    return Dataset("breast_cancer", x, bunch.target.astype(np.int64), 2)


def _npz(path: Path) -> Dataset:
    """Arrays x and y, or x_train, y_train, x_test, y_test (and val), which are put together."""
    try:
        if not is_zipfile(path):
            raise _bad(path, "an npz file, which numpy.savez writes" if path.exists() else "no such file")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            parts = [name for name in ("", "_train", "_val", "_test") if f"x{name}" in arrays.files]
            if not parts or any(f"y{name}" not in arrays.files for name in parts):
                raise _bad(path, f"arrays x and y, or x_train and y_train; it holds {', '.join(arrays.files)}")
            x = np.concatenate([arrays[f"x{name}"] for name in parts])
            y = np.concatenate([arrays[f"y{name}"] for name in parts])
    except OSError as error:
        raise _bad(path, f"a readable npz file ({error.strerror or error})") from None
    except (ValueError, EOFError, BadZipFile) as error:
        raise _bad(path, f"an npz file of plain arrays ({error})") from None
    if x.size == 0:
        raise _bad(path, f"at least one sample with a feature; there is no sample in an x of shape {x.shape}")
    return Dataset(path.name, _features(path, x), *_labels(path, y, len(x)))


def _features(path: Path, x: NDArray[np.generic]) -> NDArray[np.float32]:
    if x.dtype.kind not in "fiub" or x.ndim < 2:
        raise _bad(path, f"x numeric with at least two axes; it is {x.dtype} of shape {x.shape}")
    scaled = x.astype(np.float32)
    if x.dtype == np.uint8:
        scaled /= 255
    bad = np.flatnonzero(~np.isfinite(scaled).reshape(len(scaled), -1).all(axis=1))
    if len(bad):
        raise _bad(path, f"no NaN or infinity in x; {len(bad)} samples have one, the first is {bad[0]}")
    if np.abs(scaled).max() > FEATURE_LIMIT:
        raise _bad(path, f"x within [-16, 16]; it reaches {np.abs(scaled).max():g}, so scale it first")
    if scaled.ndim == 3:
        return scaled[:, None]
    if scaled.ndim == 4 and scaled.shape[-1] in (1, 3):
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
    return scaled


def _labels(path: Path, y: NDArray[np.generic], samples: int) -> tuple[NDArray[np.int64], int]:
    if y.shape != (samples,):
        raise _bad(path, f"y of shape ({samples},), one label a sample; it is {y.shape}")
    if y.dtype.kind not in "iub":
        raise _bad(path, f"y whole numbers from 0; it is {y.dtype}")
    if int(y.min()) < 0 or int(y.max()) >= samples:
        raise _bad(path, f"y numbered from 0 to classes - 1; it runs from {y.min()} to {y.max()}")
    labels = y.astype(np.int64)
    classes = int(labels.max()) + 1
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(empty) or classes < 2:
        found = f"class {empty[0]} has none" if len(empty) else "there is only class 0"
        raise _bad(path, f"at least two classes, numbered from 0, each with samples; {found}")
    return labels, classes


def _bad(path: Path, allowed: str) -> ScenarioError:
    return ScenarioError("data.path", str(path), allowed)
