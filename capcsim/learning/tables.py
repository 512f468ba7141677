"""Any CSV or Parquet file as a data set."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.columns import Columns, as_names, as_numbers, is_number
from capcsim.learning.csv_files import read_csv
from capcsim.learning.labels import Numbered, number_values
from capcsim.learning.oddities import looks_like_id, oddities
from capcsim.learning.parquet_files import read_parquet
from capcsim.learning.samples import (
    FEATURE_LIMIT,
    Dataset,
    bad_file,
    bad_key,
    check_features,
    columns_called,
    leave_out,
    listed,
    quoted,
)
from capcsim.scenario import TableData

ROLES = {"label": "classes", "site": "sites", "protected": "protected"}
"""The keys that name a column, and what its values are called."""


def load_table(data: TableData) -> Dataset:
    """A CSV or Parquet file: one column of labels, perhaps of sites and of a protected attribute, else features.

    Labels and sites may be text and are numbered in their sorted order; raises ScenarioError.
    """
    path = data.path
    roles = {key: name for key in ROLES if (name := getattr(data, key)) is not None}
    if data.source == "csv":
        found = read_csv(path, set(roles.values()), set(data.drop))
    else:
        found = read_parquet(path, {*roles.values(), *data.drop})
    _check_named(path, found, data, roles)
    columns = found.without({i for i, name in enumerate(found.names) if name in data.drop}).by_name(path)
    if not len(columns[data.label]):
        raise bad_file(path, "at least one sample; it has names of columns and no row")
    numbered = {key: _numbered(path, key, name, columns[name], data.source) for key, name in roles.items()}
    _check_two(path, data, numbered)
    names = [name for name in columns if name not in roles.values()]
    if not names:
        raise bad_file(path, f"a column of features beside {listed(roles.values())}; there is none")
    x = _features(path, {name: columns[name] for name in names})
    _check_ids(path, names, x)
    others = {key: each.numbers for key, each in numbered.items()}
    notes = [*found.notes, *(note for each in numbered.values() for note in each.notes)]
    return Dataset(
        path.name,
        check_features(path, x, data.missing, "rows", names),
        numbered["label"].numbers,
        len(numbered["label"].names),
        site=others.get("site"),
        protected=others.get("protected"),
        notes=(*notes, *oddities(names, x, list(others.values()))),
        names={ROLES[key]: each.names for key, each in numbered.items()},
    )


def _check_named(path: Path, columns: Columns, data: TableData, roles: Mapping[str, str]) -> None:
    """Every column that the scenario names is there; raises ScenarioError."""
    wanted = [*roles.items(), *(("drop", name) for name in data.drop)]
    for key, name in wanted:
        if name in columns.names:
            continue
        close = _closest(name, columns.names)
        hint = f"; did you mean {quoted(close)}?" if close else ""
        if len(columns.names) == 1:
            hint = "; cells are parted by commas, semicolons, tabs or bars"
        elif not close and any(map(is_number, columns.names)):
            hint = "; some look like values: is the first line with the columns' names missing?"
        value = list(data.drop) if key == "drop" else name
        allowed = f"{path.name} has no column {quoted(name)}; it has {listed(columns.names)}{hint}"
        raise bad_key(f"data.{key}", value, allowed)


def _closest(name: str, names: Iterable[str]) -> str:
    """The name that was meant; empty where none is close."""
    folded = {each.strip().casefold(): each for each in names}
    close = get_close_matches(name.strip().casefold(), folded, n=1)
    return folded[close[0]] if close else ""


def _numbered(path: Path, key: str, name: str, column: Any, source: str) -> Numbered:
    """A column's values as numbers from 0; raises ScenarioError."""

    def refuse(allowed: str) -> ScenarioError:
        return bad_key(f"data.{key}", name, f"{ROLES[key] if key != 'protected' else 'groups'}; {allowed}")

    found = as_names(column)
    if isinstance(found, str):
        raise refuse(f"column {quoted(name)} of {path.name} holds {found}: encode it as numbers or text")
    values, absent = found
    if absent.any():
        where = f"{absent.sum()} of {len(absent)} rows have none, the first is row {np.flatnonzero(absent)[0]}"
        numbers = source == "csv" and values.dtype != object
        hint = " (among numbers, NA and the like are read as missing)" if numbers else ""
        remedy = f"leave out the rows without one{hint}"
        raise refuse(f"a value in every row of column {quoted(name)}; {where}, counted from 0: {remedy}")
    return number_values(values, f"column {quoted(name)}", refuse)


def _check_two(path: Path, data: TableData, numbered: Mapping[str, Numbered]) -> None:
    """At least two classes, and two groups; raises ScenarioError."""
    classes = numbered["label"].names
    if len(classes) < 2:
        allowed = f"at least two classes; column {quoted(data.label)} of {path.name} has only {listed(classes)}"
        raise bad_key("data.label", data.label, allowed)
    groups = numbered["protected"].names if "protected" in numbered else ()
    if groups and len(groups) != 2:
        found = f"column {quoted(str(data.protected))} of {path.name} has {len(groups)} ({listed(groups)})"
        remedy = "merge or leave out values, or remove data.protected"
        raise bad_key("data.protected", data.protected, f"an attribute of two values; {found}: {remedy}")


def _features(path: Path, columns: Mapping[str, Any]) -> NDArray[np.float64]:
    """All features as float64[N, features]; raises ScenarioError, which names every column that has other values."""
    found = {name: as_numbers(column) for name, column in columns.items()}
    others = {name: what for name, what in found.items() if isinstance(what, str)}
    if others:
        first = next(iter(others))
        shown = f"column {quoted(first)} holds {others[first]}"
        shown += f", and no numbers are in {listed(list(others)[1:])} either" if len(others) > 1 else ""
        remedy = f"encode {'it' if len(others) == 1 else 'them'} as numbers, or {leave_out(others)}"
        raise bad_file(path, f"features that are numbers; {shown}: {remedy}")
    return np.stack([values for values in found.values() if not isinstance(values, str)], axis=1)


def _check_ids(path: Path, names: Sequence[str], x: NDArray[np.float64]) -> None:
    """No identifier among features that are too large anyway; raises ScenarioError."""
    large = np.fmax.reduce(np.abs(x), axis=0, initial=0) > FEATURE_LIMIT
    ids = [name for i, name in enumerate(names) if large[i] and looks_like_id(name, x[:, i])]
    if ids:
        verb = "looks like an identifier" if len(ids) == 1 else "look like identifiers"
        raise bad_file(path, f"features within [-16, 16]; {columns_called(ids)} {verb}: {leave_out(ids)}")
