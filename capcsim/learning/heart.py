"""UCI heart disease: the patients of four hospitals."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.images import missing_set
from capcsim.learning.samples import Dataset, Missing, bad_file, check_features, check_labels

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
NAMES = {"classes": ("no disease", "disease"), "sites": HOSPITALS, "protected": ("female", "male")}
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
    return Dataset("heart", x, y, classes, site=site, protected=rows["sex"].astype(np.int64), names=NAMES)


def _hospital(path: Path) -> NDArray[np.float64]:
    """A hospital's patients, a row each; NaN where the file has a question mark."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or "it cannot be read" if isinstance(error, OSError) else "its text is not UTF-8"
        raise bad_file(path, f"a readable table of {len(COLUMNS)} columns ({why}): get the file anew") from None
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
