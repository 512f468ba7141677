"""Parquet files, read without trusting what they say of themselves."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from capcsim.learning.columns import Columns, without_index
from capcsim.learning.samples import bad_file


def read_parquet(path: Path, kept: Collection[str]) -> Columns:
    """The columns of a Parquet file, or of a folder of such, without the index that pandas stored.

    `kept` are names that the scenario knows: they are no index. Raises ScenarioError.
    """
    if not path.exists():
        raise bad_file(path, "a readable parquet file; there is no such file")
    try:
        table = _read(path)
        columns = Columns(tuple(table.column_names), tuple(table.columns))
        indices = _indices(table.schema)
    except Exception as error:  # damaged or hostile bytes may fail in any way
        found = "it is none, or damaged: write it again, or read a CSV file with data.source = 'csv'"
        if isinstance(error, OSError) and error.errno is not None:
            found = os.strerror(error.errno)
        raise bad_file(path, f"a readable parquet file; {found}") from None
    return without_index(path, columns, indices, kept)


def _read(path: Path) -> Any:
    from pyarrow import parquet

    if path.is_dir():
        return parquet.read_table(path)
    # read_table would make a column of a folder that is called like one, as site=berlin is.
    with parquet.ParquetFile(path) as file:
        return file.read()


def _indices(schema: Any) -> list[str]:
    """The columns that pandas stored its index in."""
    try:
        about = schema.pandas_metadata
    except ValueError:  # it is no JSON
        return []
    found = about.get("index_columns") if isinstance(about, dict) else None
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
