"""What looks like a mistake in a table's features, and can be none: it is said."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from capcsim.fixed_point import FRACTION_BITS
from capcsim.learning.samples import columns_called, leave_out

ID_WORDS = {"id", "ids", "idx", "index", "guid", "mrn", "uid", "uuid"}
"""Last words of an identifier's name."""
ID_NAMES = {"nr", "patient", "person", "record", "row", "rownames", "subject"}
FEW = 20
"""Rows below which different whole numbers may be a measurement."""
SAME_STEP = 1e-6
"""Relative difference of steps that are one."""
STEP, FEW_STEPS = 2.0**-FRACTION_BITS, 16
"""The step of fixed-point features, and how many of them a feature should vary by."""
TOO_LITTLE = f"less than {FEW_STEPS} steps of the fixed point, {STEP:.2g} each: scale up what varies so little."
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")


def little_note(x: NDArray[np.float32]) -> str:
    """What must be said of an array of features of which none varies much."""
    spread = float(np.fmax.reduce(x, axis=None) - np.fmin.reduce(x, axis=None))
    return f"All of x varies by {TOO_LITTLE}" if 0 < spread < FEW_STEPS * STEP else ""


def oddities(names: Sequence[str], x: NDArray[np.float64], others: Sequence[NDArray[np.int64]]) -> list[str]:
    """Sentences about features float64[N, features], with NaN where one is missing, and their names.

    `others` int64[N] are the classes and so on of the same rows.
    """
    found = []
    ids = [name for i, name in enumerate(names) if looks_like_id(name, x[:, i])]
    if ids:
        verb = (
            "looks like an identifier, and is a feature" if len(ids) == 1 else "look like identifiers, and are features"
        )
        found.append(f"The {columns_called(ids)} {verb}: {leave_out(ids)}.")
    empty = [name for i, name in enumerate(names) if np.isnan(x[:, i]).all()]
    if empty:
        found.append(f"The {columns_called(empty)} {'has' if len(empty) == 1 else 'have'} no value in any row.")
    constant = [name for i, name in enumerate(names) if name not in empty and len(x) > 1 and _constant(x[:, i])]
    if constant:
        found.append(
            f"The {columns_called(constant)} {'has' if len(constant) == 1 else 'have'} the same value in every row."
        )
    with np.errstate(invalid="ignore"):
        spread = np.fmax.reduce(x, axis=0) - np.fmin.reduce(x, axis=0)
    small = [name for i, name in enumerate(names) if 0 < spread[i] < FEW_STEPS * STEP]
    if small:
        found.append(f"The {columns_called(small)} {'varies' if len(small) == 1 else 'vary'} by {TOO_LITTLE}")
    repeated = _repeated(x, others)
    if repeated:
        verb = "repeats an earlier one" if repeated == 1 else "repeat earlier ones"
        found.append(f"{repeated} of {len(x)} rows {verb}: models may be judged by what they were trained on.")
    return found


def looks_like_id(name: str, values: NDArray[np.float64]) -> bool:
    """Whether a column is called like an identifier, or numbers its rows."""
    words = [word.lower() for word in WORDS.findall(name)]
    if words and (words[-1] in ID_WORDS or (len(words) == 1 and words[0] in ID_NAMES)):
        return True
    ordered = np.sort(values)
    if len(values) < FEW or not np.isfinite([ordered[0], ordered[-1]]).all():
        return False
    steps = ordered[1:] - ordered[:-1]
    even = steps.max() - steps.min() <= SAME_STEP * steps[0]
    return bool(steps.min() > 0 and (even or (ordered == np.rint(ordered)).all()))


def _constant(values: NDArray[np.float64]) -> bool:
    return bool((values == values[0]).all())


def _repeated(x: NDArray[np.float64], others: Sequence[NDArray[np.int64]]) -> int:
    """Rows that repeat one before them; 0 where there are only whole numbers, which repeat by chance."""
    there = x[~np.isnan(x)]
    if (there == np.round(there)).all():
        return 0
    rows = np.column_stack([x, *others])
    return len(rows) - len({row.tobytes() for row in rows})
