"""Data sets by name: two that scikit-learn bundles, named sets from a folder, any file. Nothing is downloaded."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.files import read_npz, together
from capcsim.learning.heart import HEART_ORIGIN, load_heart
from capcsim.learning.images import ORIGINS, load_images
from capcsim.learning.labels import Numbered, counted, number_values
from capcsim.learning.oddities import little_note
from capcsim.learning.samples import Dataset as Dataset
from capcsim.learning.samples import Missing, bad_file, channels_first, check_features, levels_note
from capcsim.learning.tables import load_table
from capcsim.scenario import AnyData, ArrayData, BundledData, GivenData, HeartData, ImageData, NoData, TableData


def load_dataset(data: AnyData) -> Dataset:
    """The data set that a scenario names; raises ScenarioError."""
    match data:
        case BundledData():
            return _digits() if data.source == "digits" else _breast_cancer()
        case ImageData():
            return load_images(data.source, _folder(data))
        case HeartData():
            return load_heart(_folder(data), data.missing)
        case ArrayData():
            return arrays_as_dataset(data.path, read_npz(data.path), data.missing)
        case GivenData():
            allowed = "another source: arrays come from Python only, by capcsim.run(..., data=(x, y))"
            raise ScenarioError("data.source", "arrays", allowed)
        case TableData():
            return load_table(data)
        case NoData():
            raise AssertionError("there are none to load")


def _folder(data: ImageData | HeartData) -> Path:
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


def arrays_as_dataset(path: Path, arrays: Mapping[str, NDArray[Any]], missing: Missing) -> Dataset:
    """Arrays by name, as a file of this path holds them; labels that are not numbered from 0 are, as a table's are.

    Raises ScenarioError.
    """
    x, y, training = together(path, dict(arrays))
    features, layout = channels_first(path, check_features(path, x, missing))
    found = _labels(path, y, len(x))
    notes = tuple(filter(None, (levels_note(x), little_note(features), layout, *found.notes)))
    names = {} if counted(found.names) else {"classes": found.names}
    return Dataset(path.name, features, found.numbers, len(found.names), training=training, notes=notes, names=names)


def _of_one_kind(path: Path, y: NDArray[Any]) -> NDArray[Any]:
    """Objects that are all texts, as pandas gives them, or all whole numbers; raises ScenarioError."""
    for kinds, dtype in (((str,), np.str_), ((int, np.integer), np.int64)):
        if all(isinstance(each, kinds) for each in y):
            return y.astype(dtype)
    strange = next(i for i, each in enumerate(y) if not isinstance(each, type(y[0])) or not isinstance(each, str | int))
    raise bad_file(path, f"y of whole numbers or text, a label for every sample; y[{strange}] is {y[strange]!r}")


def _labels(path: Path, y: NDArray[Any], samples: int) -> Numbered:
    """Labels of an array as numbers from 0; raises ScenarioError."""
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "backslashreplace")
    if y.shape != (samples,):
        one_hot = y.ndim == 2 and len(y) == samples
        remedy = f": y.argmax(axis=1) makes labels of {y.shape[1]} columns, one a class" if one_hot else ""
        raise bad_file(path, f"y of shape ({samples},), one label a sample; it is {y.shape}{remedy}")
    if y.dtype.kind == "O":
        y = _of_one_kind(path, y)
    if y.dtype.kind not in "iubfU":
        raise bad_file(path, f"y of whole numbers or text; it is {y.dtype}")
    absent = np.flatnonzero(np.isnan(y)) if y.dtype.kind == "f" else np.zeros(0, np.int64)
    if len(absent):
        raise bad_file(path, f"a label for every sample; {len(absent)} of y are NaN, the first is {absent[0]}")
    found = number_values(y, "y", lambda allowed: bad_file(path, f"labels; {allowed}"))
    if len(found.names) < 2:
        raise bad_file(path, f"at least two classes; y has only {found.names[0]}")
    return found
