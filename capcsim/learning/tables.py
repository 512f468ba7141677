"""Tables of patients and the like: UCI heart disease, and any CSV or Parquet file."""

import math
from collections.abc import Hashable
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
VALUES = {"sex": (0, 1), "fbs": (0, 1), "exang": (0, 1), "num": (0, 1, 2, 3, 4)} | CODES
"""What a column of codes may hold."""
ALWAYS = ("sex", "num")
"""Where every patient has a value."""
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
        tables.append(_hospital(path))
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
    checked = check_features(path, x, data.missing)
    named = {"classes": data.label, "sites": data.site, "protected": data.protected}
    found = {role: _numbered(path, name, columns) for role, name in named.items() if name is not None}
    numbers = {role: each for role, (each, _) in found.items()}
    y, site, protected = (numbers.get(role) for role in named)
    assert y is not None, "data.label always names a column"
    if protected is not None and protected.max() > 1:
        many = f"column {data.protected!r} has {protected.max() + 1}"
        raise bad_file(path, f"a protected attribute of two values; {many}")
    names = {role: of for role, (_, of) in found.items()}
    labels = check_labels(path, y, len(x))
    return Dataset(path.name, checked, *labels, site=site, protected=protected, names=names)


def _hospital(path: Path) -> NDArray[np.float64]:
    """A hospital's patients, a row each; NaN where the file has a question mark."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise bad_file(path, f"a readable table of {len(COLUMNS)} columns ({error}): get the file anew") from None
    patients = [_patient(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not patients:
        raise bad_file(path, f"a patient in {path.name}: get the file anew")
    return np.array(patients)


def _patient(path: Path, number: int, line: str) -> list[float]:
    cells = line.split(",")
    where = f"line {number} of {path.name}"
    if len(cells) != len(COLUMNS):
        raise bad_file(path, f"{len(COLUMNS)} columns; it has {len(cells)} in {where}")
    values = [_measured(cell.strip()) for cell in cells]
    for name, cell, value in zip(COLUMNS, cells, values, strict=True):
        wanted = VALUES.get(name)
        if value is None or (wanted and value not in wanted and (name in ALWAYS or not math.isnan(value))):
            kind = "a number" if wanted is None else f"one of {', '.join(map(str, wanted))}"
            unknown = "" if name in ALWAYS else ", or ? where it was not measured"
            raise bad_file(path, f"{name} as {kind}{unknown}; {where} has {cell[:40]!r}: mend or leave out that line")
    return [value for value in values if value is not None]


def _measured(cell: str) -> float | None:
    """A cell's number, NaN for a question mark, None for anything else."""
    if cell == "?":
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


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
    try:
        table = _arrow_table(path, source)
        names = table.column_names
        columns = [_array(column) for column in table.columns]
    except UnicodeDecodeError:
        raise bad_file(path, f"a readable {source} file; its text is not UTF-8: save it as UTF-8") from None
    except OSError as error:
        raise bad_file(path, f"a readable {source} file ({error})") from None
    except Exception as error:  # damaged or hostile bytes may fail in any way
        remedy = "save it with commas and as UTF-8" if source == "csv" else "write it again"
        raise bad_file(path, f"a readable {source} file ({error}): {remedy}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise bad_file(path, f"columns of different names; {twice[0]!r} is there twice: rename one, or leave it out")
    return dict(zip(names, columns, strict=True))


def _arrow_table(path: Path, source: str) -> Any:
    """A table of Arrow, which fails in many ways; raises UnicodeDecodeError for a CSV file that is not UTF-8."""
    import pyarrow as pa

    if source == "parquet":
        from pyarrow import parquet

        return parquet.read_table(path)
    from pyarrow import csv

    options = csv.ConvertOptions(null_values=["", "?", "NA", "NaN", "nan"], strings_can_be_null=True)
    table = csv.read_csv(path, convert_options=options)
    if any(pa.types.is_binary(kind) for kind in table.schema.types):
        raise UnicodeDecodeError("utf-8", b"", 0, 0, "Arrow gives other text as bytes")
    return table


def _array(column: Any) -> NDArray[Any]:
    """A column of Arrow as numpy's: numbers with NaN for what is missing, and else objects."""
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    found: NDArray[Any] = column.to_numpy()
    return found


def _numbered(path: Path, name: str, columns: dict[str, NDArray[Any]]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """A column's values as the places of their sorted values, and these."""
    column = columns[name]
    if column.dtype.kind == "O":
        absent = np.array([value is None for value in column], bool)
    else:
        absent = np.isnat(column) if column.dtype.kind in "mM" else np.isnan(column)
    if absent.any():
        found = f"{absent.sum()} rows have none, the first is {np.flatnonzero(absent)[0]}"
        raise bad_file(path, f"a value in every row of column {name!r}; {found}: leave out the rows without one")
    if column.dtype.kind != "O":
        values, numbers = np.unique(column, return_inverse=True)
        return numbers, tuple(f"{value:g}" if column.dtype.kind == "f" else str(value) for value in values)
    try:
        texts = [_as_text(value) for value in column]
    except (TypeError, UnicodeDecodeError):
        raise bad_file(path, f"numbers or text in column {name!r}; it holds lists or bytes: encode them") from None
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    return np.array([places[text] for text in texts], np.int64), tuple(places)


def _as_text(value: Any) -> str:
    """Raises TypeError for a list or the like."""
    if not isinstance(value, Hashable):
        raise TypeError
    return value.decode() if isinstance(value, bytes) else str(value)
