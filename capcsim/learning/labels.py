"""Values of a column as numbers from 0: classes, sites, groups. What may be a mistake in them is said or refused."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.samples import listed, quoted

MOST_FRACTIONS = 10
"""Different values that are no whole numbers and may yet be classes."""
FEW_ROWS = 10
"""Rows a value below which many values look like a measurement."""
EXACT_DIGITS, EXACT = 15, 1e15
"""Digits of a number that a float64 keeps, and where whole numbers have more."""
WHOLE = re.compile(r"[+-]?\d{1,40}")
LIKE_MISSING = {"", "-", ".", "?", "#n/a", "<na>", "n/a", "na", "nan", "nil", "none", "null"}
"""Texts, in small letters, that often mean that there is no value."""
Refuse = Callable[[str], ScenarioError]


@dataclass(frozen=True, slots=True)
class Numbered:
    """The places int64[N] of values among the sorted different ones, these as text, and what must be said of them."""

    numbers: NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def number_values(values: NDArray[Any], what: str, refuse: Refuse) -> Numbered:
    """Values [N], whole numbers, fractions or text (dtype object or str), none missing, as numbers from 0.

    Whole numbers come in their order, so do texts that are whole numbers; other texts in that of their letters. `what`
    holds the values ("column 'ill'"), `refuse` makes an error of what is allowed. Raises such an error for values that
    are no names of anything: as many as rows, or fractions as a measurement gives.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise refuse(f"{what} has {values[~np.isfinite(values)][0]}, which names nothing: leave out rows with it")
    different, numbers = _different(values)
    names = tuple(map(_name, different))
    rows, count = len(values), len(names)
    fractions = values.dtype.kind == "f" and not np.equal(np.mod(different, 1), 0).all()
    if count > 2 and (2 * count > rows or (fractions and count > MOST_FRACTIONS)):
        like = "a measurement has" if fractions else "an identifier or a measurement has"
        raise refuse(f"{what} has {count} different values in {rows} rows, as {like}: name another, or bin its values")
    broken = [name for name in names if "\n" in name]
    if broken:
        raise refuse(f"{what} has {quoted(broken[0])}, which goes over several lines: is a quote not closed?")
    notes = _notes(names, what, rows, text=values.dtype.kind in "OU")
    return Numbered(numbers.astype(np.int64).reshape(-1), names, tuple(notes))


def counted(names: tuple[str, ...]) -> bool:
    """Whether names are the numbers that stand for them: 0, 1, 2 and so on."""
    return names == tuple(map(str, range(len(names))))


def _different(values: NDArray[Any]) -> tuple[Any, NDArray[np.int64]]:
    """The sorted different values, and each value's place among them."""
    if values.dtype.kind not in "OU":
        return np.unique(values, return_inverse=True)
    texts = set(values.tolist())
    whole = all(WHOLE.fullmatch(text) for text in texts)
    ordered = sorted(texts, key=lambda text: (int(text), text)) if whole else sorted(texts)
    places = {text: place for place, text in enumerate(ordered)}
    return ordered, np.array([places[text] for text in values.tolist()], np.int64)


def _name(value: Any) -> str:
    """A value as its file might have it."""
    if isinstance(value, np.floating):
        return f"{value:.0f}" if value == np.rint(value) and abs(value) < EXACT else repr(value.item())
    return str(value)


def _notes(names: tuple[str, ...], what: str, rows: int, *, text: bool) -> list[str]:
    """What may be a mistake, and is none that could be refused."""
    found = []
    for first, second in _twins(names) if text else ():
        same = unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)
        shown = " and ".join(ascii(name) if same else quoted(name) for name in (first, second))
        found.append(f"{shown} in {what} read alike but count as different: check them.")
    absent = [name for name in names if text and name.strip().lower() in LIKE_MISSING]
    if absent:
        found.append(f"{listed(absent)} in {what} is a text like any other here, not a missing value.")
    if all(map(WHOLE.fullmatch, names)) and not counted(names):
        span = int(names[-1]) - int(names[0]) == len(names) - 1
        shown = f"{names[0]} to {names[-1]}" if span else listed(names)
        found.append(f"The values of {what}, {shown}, are numbered 0 to {len(names) - 1}.")
    if len(names) > MOST_FRACTIONS and len(names) * FEW_ROWS > rows:
        found.append(
            f"There are {len(names)} different values in the {rows} rows of {what}: check that they are names."
        )
    return found


def _twins(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in blanks, case, signs that nobody sees, or how a number is written."""
    seen: dict[str, str] = {}
    pairs = []
    for name in names:
        alike = _alike(name)
        if alike in seen:
            pairs.append((seen[alike], name))
        seen.setdefault(alike, name)
    return pairs


def _alike(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name)
    seen = "".join(" " if sign.isspace() else sign for sign in plain if unicodedata.category(sign) != "Cf")
    folded = "".join(seen.casefold().split())
    try:
        return folded if len(folded) > EXACT_DIGITS else repr(float(folded))
    except ValueError:
        return folded
