"""Tables of patients and the like: UCI heart disease, and any CSV or Parquet file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.images import missing_set
from capcsim.learning.samples import Dataset, Missing, bad_file, check_features, check_labels
from capcsim.scenario import Data

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
HEART_ORIGIN = (
    "heart_disease/processed.{cleveland,hungarian,switzerland,va}.data; get them from"
    " https://archive.ics.uci.edu/dataset/45/heart+disease"
)
COLUMNS = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
)
RANGES = {
    "age": (20, 80),
    "trestbps": (80, 200),
    "chol": (100, 600),
    "thalach": (60, 210),
    "oldpeak": (-3, 7),
    "ca": (0, 3),
}
"""Plausible clinical ranges, fixed ahead: scaling by what the patients have would tell about them."""
CODES = {"cp": (1, 2, 3, 4), "restecg": (0, 1, 2), "slope": (1, 2, 3), "thal": (3, 6, 7)}
NEVER_ZERO = ("trestbps", "chol")
"""Where the files write 0 for a value that was not measured: nobody has no blood pressure."""


def load_heart(folder: Path, missing: Missing) -> Dataset:
    """UCI heart disease: 920 patients of four hospitals; the label is whether there is any disease.

    Each measurement is scaled to [-1, 1] by a fixed range, each code becomes one column a value. The site is the
    hospital, the protected attribute the sex (1 is male). Raises ScenarioError.
    """
    tables = []
    for hospital in HOSPITALS:
        path = folder / "heart_disease" / f"processed.{hospital}.data"
        if not path.exists():
            raise missing_set("heart", folder, HEART_ORIGIN)
        try:
            tables.append(np.genfromtxt(path, delimiter=",", missing_values="?", ndmin=2))
        except (OSError, ValueError) as error:
            raise bad_file(path, f"a table of {len(COLUMNS)} columns ({error})".replace("\n", " ")) from None
        if tables[-1].shape[1] != len(COLUMNS):
            raise bad_file(path, f"{len(COLUMNS)} columns; it has {tables[-1].shape[1]}")
    rows = dict(zip(COLUMNS, np.concatenate(tables).T, strict=True))
    path = folder / "heart_disease"
    x = check_features(path, _heart_features(rows), missing, "patients")
    y, classes = check_labels(path, (rows["num"] > 0).astype(np.int64), len(x))
    site = np.repeat(np.arange(len(HOSPITALS)), [len(table) for table in tables])
    return Dataset("heart", x, y, classes, site=site, protected=rows["sex"].astype(np.int64))


def load_table(data: Data) -> Dataset:
    """A CSV or Parquet file: one column of labels, perhaps of sites and of a protected attribute, else features.

    Labels and sites may be text and are numbered in their sorted order; raises ScenarioError.
    """
    path = data.path
    assert path is not None, "the scenario checks this"
    columns = _read_table(path, data.source)
    special = {"label": data.label, "site": data.site, "protected": data.protected}
    for key, name in special.items():
        if name is not None and name not in columns:
            raise bad_file(path, f"a column {name!r}, which data.{key} names; it has {', '.join(columns)}")
    features = {name: column for name, column in columns.items() if name not in special.values()}
    for name, column in features.items():
        if column.dtype.kind not in "fiub":
            raise bad_file(path, f"features that are numbers; column {name!r} is not: encode it, or leave it out")
    x = np.stack([column.astype(np.float64) for column in features.values()], axis=1) if features else np.zeros((0, 0))
    y = _numbered(path, data.label, columns)
    site = None if data.site is None else _numbered(path, data.site, columns)
    protected = None if data.protected is None else _numbered(path, data.protected, columns)
    if protected is not None and protected.max() > 1:
        found = f"column {data.protected!r} has {protected.max() + 1}"
        raise bad_file(path, f"a protected attribute of two values; {found}")
    checked = check_features(path, x, data.missing)
    return Dataset(path.name, checked, *check_labels(path, y, len(x)), site=site, protected=protected)


def _heart_features(rows: dict[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    found: list[Any] = []
    for name in COLUMNS[:-1]:
        values = rows[name]
        if name in NEVER_ZERO:
            values = np.where(values == 0, np.nan, values)
        if name in CODES:
            missing = np.isnan(values)
            found += [np.where(missing, np.nan, values == code) for code in CODES[name]]
        elif name in RANGES:
            low, high = RANGES[name]
            found.append(np.clip(2 * (values - low) / (high - low) - 1, -1, 1))
        else:
            found.append(values)
    return np.stack(found, axis=1).astype(np.float32)


def _read_table(path: Path, source: str) -> dict[str, NDArray[Any]]:
    import pyarrow as pa

    try:
        if source == "csv":
            from pyarrow import csv

            table = csv.read_csv(path, convert_options=csv.ConvertOptions(null_values=["", "?", "NA", "NaN", "nan"]))
        else:
            from pyarrow import parquet

            table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise bad_file(path, f"a readable {source} file ({str(error).splitlines()[0]})") from None
    return {name: table[name].to_numpy() for name in table.column_names}


def _numbered(path: Path, name: str, columns: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """A column's values as the places of their sorted values."""
    column = columns[name]
    absent = column.dtype.kind == "O" and any(value is None for value in column)
    if absent or (column.dtype.kind == "f" and np.isnan(column).any()):
        raise bad_file(path, f"a value in every row of column {name!r}: leave out the rows without one")
    return np.unique(column.astype(str) if column.dtype.kind == "O" else column, return_inverse=True)[1]
