"""A log's rows, as the tables have them."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pyarrow as pa


def rows(chunks: Iterable[dict[str, Any]]) -> list[Any]:
    """One object a row, with an attribute a column."""
    return [SimpleNamespace(**row) for columns in chunks for row in pa.table(columns).to_pylist()]
