"""Vote counts as the analyses take them, and the files they are read from.

Rows are queries, columns classes; the number of voters may differ from row to row. A column `answered` says which
queries passed the threshold test of Confident-GNMax, a column `true_label` which label is right.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capcsim.errors import InputError

ANSWERED, TRUE_LABEL = "answered", "true_label"
Counts = NDArray[np.int64]
Column = NDArray[Any]


@dataclass(frozen=True, eq=False)
class VoteCounts:
    """`counts` int64[Q, C]; `answered` bool[Q], None where nobody said; `true_labels` int64[Q], None likewise.

    `lost` charges belong to queries whose votes and label are unknown: they were reserved and then lost.
    """

    counts: Counts
    answered: NDArray[np.bool_] | None = None
    true_labels: NDArray[np.int64] | None = None
    lost: int = 0

    def __post_init__(self) -> None:
        rows, classes = check_counts(self.counts).shape
        for name, column in ((ANSWERED, self.answered), (TRUE_LABEL, self.true_labels)):
            if column is not None and column.shape != (rows,):
                raise InputError(f"{name}: {column.shape} values for {rows} queries")
        labels = self.true_labels
        if labels is not None and not ((labels >= 0) & (labels < classes)).all():
            raise InputError(f"{TRUE_LABEL}: labels lie between 0 and {classes - 1}")


def check_counts(counts: ArrayLike) -> Counts:
    """Vote counts as int64[Q, C]; raises InputError for anything that cannot be one."""
    found = np.asarray(counts)
    if found.ndim != 2 or found.shape[1] < 2:
        raise InputError(f"votes: shape {found.shape}; needed are rows of counts, one for each of at least two classes")
    if not len(found):
        raise InputError("votes: no query in it")
    if found.dtype.kind not in "iuf":
        raise InputError(f"votes: {found.dtype} values; counts are whole numbers")
    for wrong, what in (
        (~np.isfinite(found), "is no number"),
        (found < 0, "is negative"),
        (found != np.floor(found), "is no whole number"),
        (found > 1 << 31, "is larger than 2^31"),
    ):
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(f"votes: the count of query {row}, class {column}, {what}: {found[row, column]}")
    empty = np.flatnonzero(found.sum(axis=1) == 0)
    if empty.size:
        raise InputError(f"votes: nobody voted on query {empty[0]}")
    return found.astype(np.int64)


def read_votes(path: Path) -> VoteCounts:
    """Read .npz, .csv or .parquet; raises InputError, naming the file."""
    readers = {".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
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
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive) if hasattr(archive, "files") else {"votes": archive}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"no npz archive of numbers ({error})") from None
    columns = {name: arrays.pop(name) for name in (ANSWERED, TRUE_LABEL) if name in arrays}
    chosen = next((name for name in ("votes", "counts") if name in arrays), None)
    if chosen is None and len(arrays) != 1:
        raise InputError(f"holds the arrays {', '.join(arrays) or 'none'}; one of them must be called votes")
    return _assemble(arrays[chosen or next(iter(arrays))], columns)


def _read_csv(path: Path) -> VoteCounts:
    """A first line that holds any word is a header."""
    import pyarrow as pa
    from pyarrow import csv

    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
    except UnicodeDecodeError:
        raise InputError("no text in UTF-8") from None
    if not first.strip():
        raise InputError("votes: no query in it")
    headless = all(_is_number(cell) for cell in first.strip().split(","))
    try:
        table = csv.read_csv(path, csv.ReadOptions(autogenerate_column_names=headless))
    except pa.ArrowInvalid as error:
        raise InputError(f"no table of numbers ({str(error).splitlines()[0]})") from None
    return _from_table(table)


def _read_parquet(path: Path) -> VoteCounts:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _from_table(pq.read_table(path))
    except pa.ArrowInvalid as error:
        raise InputError(f"no Parquet file ({str(error).splitlines()[0]})") from None


def _from_table(table: Any) -> VoteCounts:
    if not table.num_rows:
        raise InputError("votes: no query in it")
    columns = {name: table[name].to_numpy() for name in table.column_names}
    extra = {name: columns.pop(name) for name in (ANSWERED, TRUE_LABEL) if name in columns}
    for name, column in columns.items():
        if column.dtype.kind not in "iuf":
            raise InputError(f"column {name}: counts are whole numbers")
    if not columns:
        raise InputError("votes: no class in it")
    return _assemble(np.stack(list(columns.values()), axis=1), extra)


def _assemble(counts: ArrayLike, columns: dict[str, Column]) -> VoteCounts:
    answered, labels = _flags(columns.get(ANSWERED)), _classes(columns.get(TRUE_LABEL))
    return VoteCounts(check_counts(counts), answered, labels)


def _flags(column: Column | None) -> NDArray[np.bool_] | None:
    if column is not None and (column.dtype.kind not in "biuf" or not np.isin(column, (0, 1)).all()):
        raise InputError(f"{ANSWERED}: each value is 0 or 1, true or false")
    return None if column is None else column.astype(np.bool_)


def _classes(column: Column | None) -> NDArray[np.int64] | None:
    if column is not None and (column.dtype.kind not in "iuf" or not (column == np.floor(column)).all()):
        raise InputError(f"{TRUE_LABEL}: each value is a class's number")
    return None if column is None else column.astype(np.int64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
