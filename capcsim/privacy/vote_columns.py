"""Which columns of a table of votes are classes, roles or an index; the rules are those of `vote_files`."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import InputError
from capcsim.privacy.votes import ANSWERED, TRUE_LABEL, VoteCounts, check_counts

Cells = NDArray[Any]
Names = tuple[str, ...]

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?\d+,0+|[+-]?(nan|inf(inity)?)", re.ASCII | re.I)
NUMBERED = re.compile(r"(.*?)[\s_.:#-]*(\d{1,6})", re.ASCII)
NAMELESS = re.compile(r"Unnamed: \d+|__index_level_\d+__|")
NO_CLASS = frozenset(
    {
        *("id", "idx", "index", "key", "row", "rows", "line", "case", "time", "date", "timestamp", "round", "batch"),
        *(
            "mrn",
            "uid",
            "pid",
            "uuid",
            "case_id",
            "subject",
            "subject_id",
            "study_id",
            "visit",
            "query",
            "queries",
            "query_id",
            "sample",
            "sample_id",
            "patient",
            "patient_id",
            "record",
            "record_id",
        ),
        *("label", "labels", "y", "target", "truth", "true_class", "class_label", "pred", "prediction", "predicted"),
        *("winner", "plurality", "argmax", "max", "maximum", "majority", "sum", "total", "totals", "all", "weight"),
        *("gold", "ground_truth", "gt", "consensus", "class", "nr", "number", "num", "epoch", "fold", "split", "item"),
        *("n", "n_votes", "num_votes", "number_of_votes", "voters", "querier", "party", "gap", "margin", "entropy"),
        *("seed", "sigma", "epsilon", "delta", "scale", "threshold"),
    }
)
"""What people call columns that are no class."""
FEW_ROWS, MANY_ROWS = 5, 20
"""With fewer rows than that a count may number them by chance; with many, counts of one class repeat."""
FLAGS = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0, "no": 0.0, "yes": 1.0}
REMEDY = f"leave it out, or call all classes class 0, class 1, ... in the first line, and the right class {TRUE_LABEL}"


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length in their order, as float64 or objects; `names` is None where the file has none.

    `indices` are columns that number the rows, `first` is the first row's line.
    """

    names: Names | None
    columns: Sequence[Cells]
    indices: frozenset[str] = frozenset()
    first: int = 1


def from_table(table: Table) -> VoteCounts:
    """The votes in a table; raises InputError for a column that is neither class nor role nor index."""
    if not table.columns or not len(table.columns[0]):
        raise InputError("votes: no query in it")
    if table.names is None:
        counts = np.stack([_counts(table, place) for place in range(len(table.columns))], axis=1)
        _check_strange([str(place + 1) for place in range(counts.shape[1])], counts)
        return VoteCounts(check_counts(counts))
    names = tuple(name.strip() for name in table.names)
    twice = next((name for name, number in Counter(names).items() if number > 1 and name), None)
    if twice:
        raise InputError(f"column {twice!r} is there twice: rename one, or leave it out")
    places = {name: place for place, name in enumerate(names) if not _is_index(table, names, place)}
    roles = {name: table.columns[places.pop(name)] for name in (ANSWERED, TRUE_LABEL) if name in places}
    classes = _classes(list(places))
    counts = np.stack([_counts(table, places[name]) for name in classes], axis=1)
    if _family(classes) is None:
        _check_strange([repr(name) for name in classes], counts)
    labels = _label_numbers(roles.get(TRUE_LABEL), classes)
    return VoteCounts(check_counts(counts), answered_of(roles.get(ANSWERED)), labels)


def _is_index(table: Table, names: Names, place: int) -> bool:
    """Whether a column numbers the rows; raises InputError for one without a name that does not."""
    name, column = names[place], table.columns[place]
    if name in table.indices:
        return True
    if not NAMELESS.fullmatch(name):
        return False
    if place == 0 and _numbers_rows(column.tolist()):
        return True
    raise InputError(f"column {place + 1} has no name, and may be an index or a class: name it, or leave it out")


def _numbers_rows(cells: Sequence[Any]) -> bool:
    """Whether an index holds these, each once: no numbers, or all from one to another, or more than counts would."""
    if len(set(cells)) < len(cells):
        return False
    if not all(is_number(str(cell)) for cell in cells) or len(cells) >= MANY_ROWS:
        return True
    numbers = sorted(float(str(cell).partition(",")[0]) for cell in cells)
    return numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(cells) - 1


def _classes(names: Sequence[str]) -> list[str]:
    """The class columns in the order of their classes; raises InputError for what is none."""
    if len(names) < 2:
        raise InputError(f"has the columns {listed(names)}; needed is one for each of at least two classes")
    words = Counter(found[0] for name in names if (found := _numbered(name)))
    word = max(words, key=words.__getitem__, default=None)
    family = {number: name for name in names if (found := _numbered(name)) and found[0] == word for number in found[1:]}
    strangers = [name for name in names if name not in family.values()]
    if word is None or len(family) < 2:
        # Classes with names of their own.
        strangers = [name for name in names if _plain(name) in NO_CLASS or is_number(name)]
        family = dict(enumerate(names))
    if strangers:
        raise InputError(
            f"column {strangers[0]!r} is no class by its name: leave it out, or call it {TRUE_LABEL} (the right class)"
            f" or {ANSWERED}, or call all classes class 0, class 1, ..."
        )
    numbers = sorted(family)
    if numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        missing = next(i for i in range(numbers[-1]) if i not in family)
        raise InputError(
            f"the classes are {listed(names)}: one is missing ({missing}); give it a column, of zeros if need be"
        )
    return [family[number] for number in numbers]


def _numbered(name: str) -> tuple[str, int] | None:
    """The word and the number of a name such as class 3, or None."""
    found = NUMBERED.fullmatch(name)
    return (found[1].lower(), int(found[2])) if found else None


def _family(classes: Sequence[str]) -> int | None:
    """The number of the first class, where all are called by numbers, else None."""
    found = [_numbered(name) for name in classes]
    words = {each[0] for each in found if each}
    return found[0][1] if found[0] and len(words) == 1 and None not in found else None


def _check_strange(names: Sequence[str], counts: NDArray[np.float64]) -> None:
    """Refuse columns without a class's name that number the rows, or tell of the others: sum, largest, winner."""
    if len(counts) < FEW_ROWS:
        return
    for place, (name, column) in enumerate(zip(names, counts.T, strict=True)):
        others = np.delete(counts, place, axis=1)
        what = ""
        if (np.diff(column) == 1).all():
            what = f"numbers the rows ({column[0]:g}, {column[1]:g}, ...)"
        elif others.shape[1] > 1 and (column == others.sum(axis=1)).all():
            what = "adds up the others"
        elif others.shape[1] > 1 and (column == others.max(axis=1)).all():
            what = "is the largest of the others"
        elif others.shape[1] > 1 and np.ptp(column) and _tells_winner(column, others):
            what = "tells which of the others is the largest"
        elif others.shape[1] > 1 and _spoils_totals(column, others.sum(axis=1)):
            what = f"is of another kind: without it all queries have {others[0].sum():g} votes"
        if what:
            raise InputError(f"column {name} {what}: {REMEDY}")


def _spoils_totals(column: NDArray[np.float64], without: NDArray[np.float64]) -> bool:
    """Whether all queries have equally many votes but for this column, which is not where most of them are."""
    no_count = without[0] >= column.mean() or len(set(column.tolist())) == len(column)
    return bool(np.ptp(column) and not np.ptp(without) and without[0] and no_count)


def _tells_winner(column: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether it holds the number, from 0 or from 1, of a largest count of each row."""
    for start in (0, 1):
        winners = column - start
        if (winners == np.floor(winners)).all() and (winners >= 0).all() and (winners < others.shape[1]).all():
            chosen = others[np.arange(len(others)), winners.astype(np.int64)]
            if (chosen == others.max(axis=1)).all():
                return True
    return False


def _counts(table: Table, place: int) -> NDArray[np.float64]:
    """A column as numbers; raises InputError, naming column and line, for anything else."""
    column = table.columns[place]
    if column.dtype.kind == "b":
        raise InputError(
            f"column {table.names and table.names[place]!r} holds true and false: counts are whole numbers"
        )
    if column.dtype.kind == "f":
        return column
    known: dict[Any, float] = {}
    for cell in dict.fromkeys(column.tolist()):
        if not (isinstance(cell, str) and is_number(cell)):
            name = f"column {table.names[place]!r}" if table.names else f"column {place + 1}"
            line = table.first + column.tolist().index(cell)
            what = "has an empty cell" if cell == "" else f"holds {str(cell)[:40]!r}"
            raise InputError(f"{name} {what} (line {line}): counts are whole numbers")
        known[cell] = number(cell)
    return np.array([known[cell] for cell in column.tolist()], np.float64)


def answered_of(column: Cells | None) -> NDArray[np.bool_] | None:
    """Flags bool[Q] of a column; raises InputError for other values."""
    if column is None:
        return None
    if column.dtype.kind == "O":
        values = [FLAGS.get(str(cell).strip().lower(), -1.0) for cell in column.tolist()]
        column = np.array([value if value >= 0 else np.nan for value in values])
    if column.dtype.kind not in "biuf" or not np.isin(column, (0, 1)).all():
        raise InputError(f"{ANSWERED}: each value is 0 or 1, true or false")
    return column.astype(np.bool_)


def _label_numbers(column: Cells | None, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """Right classes as places of their columns: by the classes' numbers or names."""
    if column is None:
        return None
    start = _family(classes)
    if start is None and column.dtype.kind == "O" and set(column.tolist()) <= set(classes):
        return np.array([classes.index(cell) for cell in column.tolist()], np.int64)
    if column.dtype.kind == "O" and all(is_number(str(cell)) for cell in column.tolist()):
        column = np.array([number(str(cell)) for cell in column.tolist()])
    numbers = whole_numbers(column)
    return None if numbers is None else numbers - (start or 0)


def whole_numbers(column: Cells | None) -> NDArray[np.int64] | None:
    """Labels int64[Q] of a column; raises InputError for other values."""
    if column is None:
        return None
    if column.dtype.kind not in "iuf" or not np.isfinite(column).all() or not (column == np.floor(column)).all():
        raise InputError(f"{TRUE_LABEL}: each value is a class's number")
    return column.astype(np.int64)


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, as programs and spreadsheets write one."""
    return NUMBER.fullmatch(cell) is not None


def number(cell: str) -> float:
    """Such a cell's number; after a decimal comma there are zeros only."""
    return float(cell.partition(",")[0])


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", name.strip().lower())


def listed(names: Iterable[str]) -> str:
    """The first of some names."""
    names = list(names)
    shown = ", ".join(repr(name) if not name else name[:20] for name in islice(names, 12))
    return f"{shown}, ..." if len(names) > 12 else shown or "none"
