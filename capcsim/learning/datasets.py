"""Data sets by name: two that scikit-learn bundles, named sets from a folder, any file. Nothing is downloaded."""

import os
from pathlib import Path

import numpy as np

from capcsim.errors import ScenarioError
from capcsim.learning.files import read_npz, together
from capcsim.learning.images import ORIGINS, load_images
from capcsim.learning.samples import Dataset as Dataset
from capcsim.learning.samples import Missing, check_features, check_labels
from capcsim.learning.tables import HEART_ORIGIN, load_heart, load_table
from capcsim.scenario import Data


def load_dataset(data: Data) -> Dataset:
    """The data set that a scenario names; raises ScenarioError."""
    match data.source:
        case "digits":
            return _digits()
        case "breast_cancer":
            return _breast_cancer()
        case "npz":
            assert data.path is not None, "the scenario checks this"
            return _npz(data.path, data.missing)
        case "csv" | "parquet":
            return load_table(data)
        case "heart":
            return load_heart(_folder(data), data.missing)
        case _:
            return load_images(data.source, _folder(data))


def _folder(data: Data) -> Path:
    """Where named sets lie; raises ScenarioError where nobody said so."""
    named = data.folder or os.environ.get("CAPCSIM_DATA")
    if not named:
        allowed = "a set that lies in a folder: name it with --data DIR or CAPCSIM_DATA; it needs "
        raise ScenarioError("data.source", data.source, allowed + origin(data.source))
    return Path(named)


def origin(source: str) -> str:
    """Which files a named set needs, and where to get them."""
    return ORIGINS.get(source, HEART_ORIGIN)


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


def _npz(path: Path, missing: Missing) -> Dataset:
    x, y, training = together(path, read_npz(path))
    return Dataset(path.name, check_features(path, x, missing), *check_labels(path, y, len(x)), training=training)
