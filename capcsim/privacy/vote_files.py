"""Vote counts from files as people have them: CSV of any usual kind, Parquet, npz, npy.

Every row is a query and every column a class, unless a rule here says otherwise; what could be either is refused, so
that no query and no class is ever lost or invented.

* A first line is a header where it holds names, or the numbers 0, 1, 2, ... that pandas writes for columns without one;
  where these, or numbers in order, could also be counts, only the user knows. Any other line of numbers is data.
* A first column without a name, and what pandas stored as an index, numbers the rows. It must, or is refused.
* Columns `answered` and `true_label` have these roles. Class columns are called by numbers, by one word and numbers, or
  by words of their own; a column that none of that explains, or that counts the rows or adds up the others, is refused.
"""

import csv
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from capcsim.errors import InputError
from capcsim.privacy.vote_columns import (
    FEW_ROWS,
    NAMELESS,
    Cells,
    Table,
    answered_of,
    from_table,
    is_number,
    listed,
    number,
    whole_numbers,
)
from capcsim.privacy.votes import ANSWERED, TRUE_LABEL, VoteCounts, check_counts
from capcsim.texts import decoded

DELIMITERS = (",", ";", "\t", "|", " ")
TRIED_ROWS = 50
"""Rows by which the delimiter is found."""
GROUPED = re.compile(r"\d{1,3}([.,]\d{3})+", re.ASCII)
"""What may be thousands with a mark between, or three decimals."""
TELL = "--header yes or --header no tells"


def read_votes(path: Path, *, header: bool | None = None) -> VoteCounts:
    """Read .csv, .tsv, .txt, .parquet, .npz or .npy; raises InputError, naming the file.

    `header` says whether the first line of a text file holds names; by default the module's rules do.
    """
    readers: dict[str, Callable[[Path], VoteCounts]] = {
        **dict.fromkeys((".csv", ".tsv", ".txt"), lambda path: from_table(_read_text(path, header))),
        ".parquet": lambda path: from_table(_read_parquet(path)),
        ".npz": _read_npz,
        ".npy": _read_npz,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: votes are read from {', '.join(readers)} files or from a run's directory")
    try:
        return reader(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read_npz(path: Path) -> VoteCounts:
    """The array `votes` or `counts`, or the only one; besides it `answered` and `true_label`."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"votes": loaded}
        else:
            with loaded as archive:
                arrays = dict(archive)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        why = str(error).splitlines()[0].partition("If you trust")[0].strip()
        raise InputError(f"no archive of numbers ({why}): write it with numpy.savez") from None
    except MemoryError as error:
        raise InputError(f"holds more than there is memory for, or is damaged ({error})") from None
    roles = {name: arrays.pop(name) for name in (ANSWERED, TRUE_LABEL) if name in arrays}
    arrays = {name: each for name, each in arrays.items() if isinstance(each, np.ndarray) and each.ndim}
    named: list[str] = [name for name in ("votes", "counts") if name in arrays] or list(arrays)
    if len(named) != 1:
        raise InputError(f"holds the arrays {listed(arrays)}; the one with the votes must be called votes")
    return VoteCounts(
        check_counts(arrays[named[0]]), answered_of(roles.get(ANSWERED)), whole_numbers(roles.get(TRUE_LABEL))
    )


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        about = table.schema.pandas_metadata or {}
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"no Parquet file ({str(error).splitlines()[0]})") from None
    return _from_arrow(table, about)


def votes_of_frame(frame: Any) -> VoteCounts:
    """A pandas table, read as a file of it would be; raises InputError."""
    import pyarrow as pa

    try:
        table = pa.Table.from_pandas(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"votes: no table of numbers ({str(error).splitlines()[0]})") from None
    return from_table(_from_arrow(table, table.schema.pandas_metadata or {}))


def _from_arrow(table: Any, about: Mapping[str, Any]) -> Table:
    """An Arrow table; `about` is what pandas noted of its index."""
    indices = frozenset(name for name in about.get("index_columns", ()) if isinstance(name, str))
    columns = [_numbers_of(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
    return Table(tuple(table.column_names), columns, indices)


def _numbers_of(name: str, column: Any) -> Cells:
    """An Arrow column as float64, or as objects where it holds no numbers; raises InputError for a missing one."""
    import pyarrow as pa

    if column.null_count:
        row = next(row for row, value in enumerate(column.to_pylist()) if value is None)
        raise InputError(f"column {name!r} has no value in row {row}")
    kind = column.type
    if pa.types.is_boolean(kind):
        return np.array(column.to_pylist(), np.bool_)
    if any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)):
        return np.array([float(value) for value in column.to_pylist()], np.float64)
    return np.array(column.to_pylist(), object)


def _read_text(path: Path, header: bool | None) -> Table:
    rows, lines = _rows(path)
    rows = _without_empty_end(rows)
    width = len(rows[0])
    for row, line in zip(rows, lines, strict=False):
        if len(row) != width:
            raise InputError(f"line {line} has {len(row)} cells, the first line {width}: mend that line")
    _check_marks(rows, lines)
    if header is None:
        header = _has_header(rows)
    names = tuple(rows[0]) if header else None
    body = rows[1:] if header else rows
    if not body:
        raise InputError("votes: no query in it")
    columns = [np.array(column, object) for column in zip(*body, strict=True)]
    return Table(names, columns, first=lines[1 if header else 0])


def _rows(path: Path) -> tuple[list[list[str]], list[int]]:
    """The rows that are not blank, cells without blanks around them, and the line of each."""
    try:
        text = decoded(path.read_bytes())
    except ValueError as error:
        raise InputError(f"no table: {error}") from None
    written = text.splitlines()
    skipped = next((i for i, line in enumerate(written) if line.strip() and not line.lstrip().startswith("#")), None)
    if skipped is None:
        raise InputError("votes: no query in it")
    remarks = [(i, line) for i, line in enumerate(written[:skipped], start=1) if line.strip()]
    directive = re.fullmatch(r"sep=(.)", written[skipped].strip())  # a line that Excel writes and obeys
    skipped += directive is not None
    delimiter = directive[1] if directive else _delimiter(written[skipped:])
    rows, lines = _split(written[skipped:], delimiter)
    first = _remarked(remarks, delimiter, len(rows[0])) if rows else []
    return [row for row, _ in first] + rows, [line for _, line in first] + [line + skipped for line in lines]


def _remarked(remarks: Sequence[tuple[int, str]], delimiter: str, width: int) -> list[tuple[list[str], int]]:
    """A header behind a sign like numpy.savetxt's; raises InputError for a line there that may be a query.

    A column that is called by the sign itself numbers the rows. Lines of another width are remarks.
    """
    if not remarks:
        return []
    line, text = remarks[-1]
    found, _ = _split([text.lstrip().removeprefix("#")], delimiter)
    cells = found[0] if found else []
    if len(cells) != width:
        return []
    numbers = [cell for cell in cells if is_number(cell)]
    if numbers and numbers != [str(i) for i in range(len(numbers))]:
        raise InputError(f"line {line} begins with # and holds counts: take the sign away, or the line")
    return [(cells, line)]


def _check_marks(rows: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
    """Refuse 1.000 where it may be a thousand: not all have three decimals, or none has nothing before them."""
    cells = [(cell, line) for row, line in zip(rows, lines, strict=False) for cell in row if GROUPED.fullmatch(cell)]
    if not cells:
        return
    numbers = [cell for row in rows for cell in row if is_number(cell)]
    if all(GROUPED.fullmatch(cell) for cell in numbers) and any(re.fullmatch(r"0[.,]000", cell) for cell in numbers):
        return
    cell, line = cells[0]
    plain = re.sub(r"[.,]", "", cell)
    raise InputError(
        f"line {line} holds {cell}, which may be {plain} or {cell.replace(',', '.')}: save counts as whole numbers"
    )


def _split(written: Sequence[str], delimiter: str) -> tuple[list[list[str]], list[int]]:
    reader = csv.reader(written, delimiter=delimiter, skipinitialspace=True)
    rows, lines = [], []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if delimiter == " ":
                cells = [cell for cell in cells if cell]
            if cells and (len(cells) > 1 or cells[0]):
                rows.append(cells)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} is no row of a table ({error})") from None
    return rows, lines


def _delimiter(written: Sequence[str]) -> str:
    """The sign that parts the first rows into equally many cells, of which all but the first row's are values."""
    fits: dict[str, tuple[int, float, int]] = {}
    for sign in DELIMITERS:
        try:
            rows, _ = _split(written[:TRIED_ROWS], sign)
        except InputError:
            continue
        widths = Counter(map(len, rows))
        if max(widths) > 1:
            numbers = sum(is_number(cell) for row in rows for cell in row)
            fits[sign] = (max(widths.values()), numbers / sum(map(len, rows)), numbers)
    if not fits:
        raise InputError(
            "no table: needed are rows of counts with commas between, one for each of at least two classes"
        )
    return max(fits, key=fits.__getitem__)


def _without_empty_end(rows: list[list[str]]) -> list[list[str]]:
    """Without rows of nothing at the end, and without a last column of nothing, as spreadsheets leave them."""
    while len(rows) > 1 and not any(rows[-1]):
        rows = rows[:-1]
    while len(rows[0]) > 2 and all(len(row) == len(rows[0]) and not row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    return rows


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds names; raises InputError where only the user can know."""
    first = list(rows[0])
    named = first[1:] if NAMELESS.fullmatch(first[0]) and len(first) > 2 else first
    numbers = [cell for cell in named if is_number(cell)]
    counting = numbers in ([str(start + i) for i in range(len(numbers))] for start in (0, 1))
    if len(numbers) < len(named):
        if numbers and not counting:
            raise InputError(f"the first line ({listed(first)}) holds names and numbers: {TELL} whether it is a header")
        if not all(named):
            raise InputError(f"the first line ({listed(first)}) has an empty cell: name each column, or give its count")
        return True
    if len(named) < len(first):
        if counting:
            return True
        raise InputError(f"the first line ({listed(first)}) has an empty cell: name each column, or give its count")
    totals = [sum(number(cell) for cell in row if is_number(cell)) for row in rows]
    first_total, others = totals[0], totals[1:] or [0.0]
    fits = min(others) <= first_total <= max(others)
    if counting and numbers[0] == "0" and not fits and len(rows) > FEW_ROWS:
        return True
    if not counting:
        # Classes may be called 2, 3, 5, 8: in one order, which do not add up to what every query does.
        values = [number(cell) for cell in first]
        ordered = all(a < b for a, b in pairwise(values)) or all(a > b for a, b in pairwise(values))
        if fits or not ordered or len(rows) < 3 or min(others) != max(others):
            return False
    raise InputError(f"the first line ({listed(first)}) may number the classes or be a query's counts: {TELL}")
