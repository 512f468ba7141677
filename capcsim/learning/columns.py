"""Columns of a file before anybody says what they are for: which are an index, and what their values are."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.samples import bad_file, leave_out, listed, quoted

INDEX_NAME = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name in Parquet."""
NAMELESS = re.compile(r"\s*|Unnamed: \d+(\.\d+)?(_level_\d+)?")
"""No name, and what pandas makes of that when it reads and writes a file."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file in their order, each an Arrow chunked array, and what must be said of their reading."""

    names: tuple[str, ...]
    values: tuple[Any, ...]
    notes: tuple[str, ...] = ()

    def without(self, places: Collection[int], *notes: str) -> "Columns":
        """The columns but some."""
        kept = [place for place in range(len(self.names)) if place not in places]
        names, values = (tuple(of[place] for place in kept) for of in (self.names, self.values))
        return Columns(names, values, (*self.notes, *notes))

    def by_name(self, path: Path) -> dict[str, Any]:
        """Each column under its name; raises ScenarioError where two have the same."""
        twice = [name for name, number in Counter(self.names).items() if number > 1]
        if twice:
            found = f"{quoted(twice[0])} is there twice: rename one, or leave it out"
            raise bad_file(path, f"columns of different names; {found}")
        return dict(zip(self.names, self.values, strict=True))


def without_index(path: Path, columns: Columns, indices: Collection[str], kept: Collection[str]) -> Columns:
    """The columns without an index: those of `indices` or of pandas' name for one, and leading ones without a name.

    What the scenario names (`kept`) stays. Raises ScenarioError for another column without a name that has values.
    """
    names = columns.names
    nameless = {i for i, name in enumerate(names) if NAMELESS.fullmatch(name) and name not in kept}
    first = min(set(range(len(names))) - nameless, default=len(names))
    empty = {i for i in nameless if i > first and _blank(columns.values[i])}
    unclear = sorted(i for i in nameless - empty if i > first)
    if unclear:
        found = f"column {unclear[0] + 1} has none ({quoted(names[unclear[0]])})"
        raise bad_file(path, f"a name for every column; {found}: name it, or {leave_out([names[unclear[0]]])}")
    known = {i for i, name in enumerate(names) if (name in indices or INDEX_NAME.fullmatch(name)) and name not in kept}
    index = sorted(known | (nameless - empty))
    notes = []
    if index:
        named = [names[i] for i in index if names[i].strip()]
        called = listed(named) if named else "a first column without a name"
        notes.append(f"The index of {path.name} ({called}) is no feature.")
    if empty:
        notes.append(f"{path.name} has {len(empty)} columns without a name and without a value, which are left out.")
    return columns.without({*index, *empty}, *notes)


def as_numbers(column: Any) -> NDArray[np.float64] | str:
    """A column as float64[N], NaN where there is no value; or what it holds instead of numbers."""
    import pyarrow as pa

    plain = _plain(column)
    kind = plain.type
    if pa.types.is_null(kind):
        return np.full(len(plain), np.nan)
    if not _is_number(kind):
        return np.full(len(plain), np.nan) if _blank(plain) else _holds(plain)
    numbers: NDArray[np.float64] = plain.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def as_names(column: Any) -> tuple[NDArray[Any], NDArray[np.bool_]] | str:
    """A column's values as whole numbers, float64 or texts [N], and where they are missing; or what it holds instead.

    Empty texts and question marks are missing. What has no type for it (dates, decimals) becomes text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = _plain(column)
    kind = plain.type
    if pa.types.is_nested(kind):
        return _holds(plain)
    if pa.types.is_null(kind):
        return np.full(len(plain), "", object), np.ones(len(plain), bool)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        absent = pc.is_null(plain, nan_is_null=pa.types.is_floating(kind)).to_numpy()
        wide = pa.float64() if pa.types.is_floating(kind) else kind
        zero = pa.scalar(0).cast(wide)
        return plain.cast(wide).fill_null(zero).to_numpy(), absent
    try:
        texts = _texts(plain)
    except pa.ArrowInvalid:
        return _holds(plain)
    absent = pc.is_in(pc.utf8_trim_whitespace(texts.fill_null("")), pa.array(["", "?"])).to_numpy()
    return np.array(texts.to_pylist(), object), absent


def is_number(text: str) -> bool:
    """Whether a text is a number as Python writes it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _blank(column: Any) -> bool:
    found = as_names(column)
    return not isinstance(found, str) and bool(found[1].all())


def _plain(column: Any) -> Any:
    """A column without dictionaries and types of others' making."""
    import pyarrow as pa

    while isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _texts(column: Any) -> Any:
    """Raises ArrowInvalid for bytes that are no UTF-8."""
    import pyarrow as pa

    if not pa.types.is_decimal(column.type):
        return column.cast(pa.string())
    texts = [None if value is None else f"{value:f}" for value in column.to_pylist()]
    shortest = [text.rstrip("0").rstrip(".") if text and "." in text else text for text in texts]
    return pa.chunked_array([shortest], pa.string())


def _holds(column: Any) -> str:
    """What a column that holds no numbers holds, with an example."""
    import pyarrow as pa

    types, kind = pa.types, column.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        there = [(row, text) for row, text in enumerate(column.to_pylist()) if text and text.strip()]
        row, text = next((each for each in there if not is_number(each[1])), there[0])
        return f"text ({quoted(text)} in row {row})"
    if types.is_temporal(kind):
        return "dates or times"
    if types.is_nested(kind):
        return "lists or records"
    return "bytes" if "binary" in str(kind) else str(kind)
