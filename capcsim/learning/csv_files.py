"""CSV files as people have them: any usual delimiter, decimal mark and Unicode encoding.

What could be read in two ways is refused; what was decided is said.
"""

import csv
import io
import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from capcsim.errors import ScenarioError
from capcsim.learning.columns import Columns, is_number, without_index
from capcsim.learning.samples import bad_file, listed, quoted
from capcsim.texts import decoded

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
TRIED_LINES = 50
"""Lines by which the delimiter is found."""
MISSING = (
    *("", "?", "NA", "<NA>", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None"),
    *("#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""What stands for a missing number; those of pandas, and UCI's question mark."""
GROUPED = r"^\s*[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+\s*$"
"""A number whose comma may part thousands."""
TRIED_CELLS = 1000
"""Cells that are looked at before all are."""


def read_csv(path: Path, codes: Collection[str], unused: Collection[str]) -> Columns:
    """The columns of a CSV file, each of numbers or of text.

    Columns of `codes` hold names, even if these are numbers: there "007" is text. What those of `unused` hold does not
    matter. Both tell the delimiter, and are no index. Raises ScenarioError.
    """
    kept = {*codes, *unused}
    text = _text(path)
    directive = re.match(r"sep=([,;\t|])\n", text)  # a line that Excel writes and obeys
    text = text[directive.end() :] if directive else text
    delimiter = directive[1] if directive else _delimiter(text, kept)
    names, start, lines = _header(path, text, delimiter)
    first = _check_names(path, names)
    cells = Columns(names, _cells(path, text[start:], len(names), delimiter, lines + bool(directive)))
    columns = without_index(path, cells, (), kept)
    values, comma = _typed(path, columns, codes, unused)
    how = f"{path.name} is read with {DELIMITERS[delimiter]} between its cells"
    how += " and decimal commas." if comma else "."
    notes = [*columns.notes, *first, *([how] if comma or delimiter != "," else [])]
    return Columns(columns.names, values, tuple(notes))


def _text(path: Path) -> str:
    """The file's text with one sign at the end of a line; raises ScenarioError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise bad_file(path, f"a readable csv file ({error.strerror or error})") from None
    try:
        text = decoded(content)
    except ValueError as error:
        remedy = " (data.source = 'parquet')" if content.startswith(b"PAR1") else ""
        raise bad_file(path, f"a readable csv file; {error}{remedy}") from None
    if not text.strip():
        raise bad_file(path, "a readable csv file; it is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """The rows that are not empty; ends where Python's reader gives up."""
    try:
        yield from filter(None, csv.reader(_lines(text), delimiter=delimiter))
    except csv.Error:
        return


def _delimiter(text: str, kept: Collection[str]) -> str:
    """The sign that gives most of the names that are known, and else rows of one length, with most cells."""

    def fits(sign: str) -> tuple[int, bool, int]:
        rows = list(islice(_rows(text, sign), TRIED_LINES))
        header = rows[0] if rows else []
        even = len(header) > 1 and all(len(row) == len(header) for row in rows)
        return len(set(kept) & set(header)), even, len(header)

    return max(DELIMITERS, key=fits)


def _header(path: Path, text: str, delimiter: str) -> tuple[tuple[str, ...], int, int]:
    """The columns' names, where the rows begin in the text, and how many lines are before them."""
    reader = csv.reader(_lines(text), delimiter=delimiter)
    try:
        names = next(row for row in reader if row)
    except (csv.Error, StopIteration):
        raise bad_file(path, "a readable csv file; its first line is no row of names") from None
    return tuple(names), sum(map(len, islice(_lines(text), reader.line_num))), reader.line_num


def _check_names(path: Path, names: tuple[str, ...]) -> list[str]:
    """Refuse a first line that holds values, and say so where it may."""
    shown = [name.strip() for name in names]
    numbers = [name for name in shown if name]
    if not numbers or not all(map(is_number, numbers)):
        return []
    counted = [[str(start + place) for place in range(len(numbers))] for start in (0, 1)]
    if numbers in counted:
        return [f"The first line of {path.name} ({listed(numbers)}) is read as names of columns."]
    remedy = "add such a line, and name its column of labels in data.label"
    raise bad_file(path, f"a first line with the columns' names; it holds numbers only ({listed(numbers)}): {remedy}")


def _cells(path: Path, text: str, width: int, delimiter: str, before: int) -> tuple[Any, ...]:
    """Every column's cells as Arrow's text; `before` lines lie before them. Raises ScenarioError."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    if not text.strip("\n"):
        return tuple(pa.chunked_array([[]], pa.string()) for _ in range(width))
    content, names = text.encode(), [str(place) for place in range(width)]
    try:
        table = arrow.read_csv(
            io.BytesIO(content),
            # One block, since a row must not go over two.
            arrow.ReadOptions(column_names=names, use_threads=False, block_size=min(len(content) + 1, (1 << 31) - 1)),
            arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            arrow.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except Exception as error:  # damaged or hostile bytes may fail in any way
        raise _ragged(path, text, width, delimiter, before) from error
    if text.count('"') % 2 and any("\n" in str(column[-1]) for column in table.columns):
        raise bad_file(path, "a readable csv file; a quote in it is never closed: close it, or remove it")
    return tuple(table.columns)


def _ragged(path: Path, text: str, width: int, delimiter: str, before: int) -> ScenarioError:
    """The error for the first line whose cells are not as many as the names."""
    reader = csv.reader(_lines(text), delimiter=delimiter)
    try:
        cells = next((len(row) for row in reader if row and len(row) != width), None)
    except csv.Error:
        cells = None
    if cells is None:
        return bad_file(path, "a readable csv file; its quotes do not match, or a cell is too long: save it anew")
    found = f"line {reader.line_num + before} has {cells}, the first line {width}"
    remedy = f"mend that line, and quote cells that hold {DELIMITERS[delimiter]}"
    if cells == width + 1:
        remedy += "; a column of row names needs a name too"
    return bad_file(path, f"a readable csv file with as many cells in every line; {found}: {remedy}")


def _typed(
    path: Path, columns: Columns, codes: Collection[str], unused: Collection[str]
) -> tuple[tuple[Any, ...], bool]:
    """Each column as numbers where all its cells are such, else as text; and whether there are decimal commas."""
    points: list[tuple[str, Any]] = []
    commas: list[tuple[str, Any]] = []
    values: list[Any] = []
    for name, cells in zip(columns.names, columns.values, strict=True):
        value = cells if name in unused else _codes(cells) if name in codes else None
        if value is None:
            value, decimal_comma = _numbers(cells)
            if value is None:
                value = _words(cells)
            else:
                (commas if decimal_comma else points).append((name, cells))
        values.append(value)
    if commas:
        _check_commas(path, commas, points)
    return tuple(values), bool(commas)


def _check_commas(path: Path, commas: list[tuple[str, Any]], points: list[tuple[str, Any]]) -> None:
    """Refuse commas that may part thousands, and a file with both marks."""
    name, cells = commas[0]
    shown = _first(cells, ",")
    for other, there in points:
        point = _first(there, ".")
        if point:
            found = f"column {quoted(name)} has {quoted(shown)}, column {quoted(other)} has {quoted(point)}"
            raise bad_file(path, f"one decimal mark in all columns; {found}: save it with decimal points")
    if all(_grouped(cells) for _, cells in commas):
        found = f"{quoted(shown)} in column {quoted(name)} may be {shown.replace(',', '.')} or {shown.replace(',', '')}"
        raise bad_file(path, f"numbers that can be read in one way; {found}: save it with decimal points")


def _numerals(cells: Any) -> Any:
    """Cells without blanks around them and a plus before them, null where a number is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    bare = pc.utf8_trim_whitespace(cells)
    found = pc.if_else(pc.is_in(bare, pa.array(MISSING)), pa.scalar(None, pa.string()), bare)
    if pc.any(pc.starts_with(found, "+"), min_count=0).as_py():
        return pc.replace_substring_regex(found, r"^\+([0-9.,])", r"\1")
    return found


def _numbers(cells: Any) -> tuple[Any, bool]:
    """Cells as Arrow's float64 or (true, false) booleans, else None, and whether they have decimal commas."""
    import pyarrow.compute as pc

    found = _cast(cells, "float64")  # most columns are as simple as that
    if found is not None:
        return found, False
    numbers = _numerals(cells)
    found = _cast(numbers, "float64")
    if found is None and _every(numbers, "(?i)^(true|false)$"):
        found = pc.equal(pc.utf8_lower(numbers), "true")
    if found is None and not _first(numbers, "."):
        found = _cast(pc.replace_substring(numbers, ",", "."), "float64")
        return found, found is not None
    return found, False


def _codes(cells: Any) -> Any:
    """Cells as whole numbers or fractions where these keep all that is written, and else None."""
    import pyarrow as pa

    numbers = _numerals(cells)
    there = numbers.drop_null()
    if not len(there):
        return None

    if _every(there, r"^-?(0|[1-9][0-9]{0,17})$"):
        return numbers.cast(pa.int64())
    if _every(there, r"^-?[0-9]+$") or not _every(there, r"^-?([^0-]|0[^0-9]|0$)"):
        return _words(cells)
    found = _cast(numbers, "float64")
    return _words(cells) if found is None else found


def _words(cells: Any) -> Any:
    """Cells as they are, null where they are empty or hold a question mark."""
    import pyarrow as pa
    import pyarrow.compute as pc

    absent = pc.is_in(pc.utf8_trim_whitespace(cells), pa.array(["", "?"]))
    return pc.if_else(absent, pa.scalar(None, pa.string()), cells)


def _cast(cells: Any, kind: str) -> Any:
    """None where a cell is no such; the first ones are tried first, since failing is slow."""
    import pyarrow as pa

    try:
        cells.slice(0, TRIED_CELLS).cast(kind)
        return cells.cast(kind)
    except pa.ArrowInvalid:
        return None


def _every(cells: Any, pattern: str) -> bool:
    """Whether all that is there matches; the first ones are tried first."""
    import pyarrow.compute as pc

    tried = (cells.slice(0, TRIED_CELLS), cells.slice(TRIED_CELLS))
    return all(pc.all(pc.match_substring_regex(part, pattern), min_count=0).as_py() for part in tried)


def _first(cells: Any, part: str) -> str:
    """The first cell that holds a text; empty where none does."""
    import pyarrow.compute as pc

    found = cells.filter(pc.match_substring(cells, part))
    return str(found[0]) if len(found) else ""


def _grouped(cells: Any) -> bool:
    import pyarrow.compute as pc

    return _every(cells.filter(pc.match_substring(cells, ",")), GROUPED)
