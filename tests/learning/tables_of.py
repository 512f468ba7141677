"""Small files of samples for tests: forty rows, two features within the range, labels that alternate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from capcsim.learning.datasets import load_dataset
from capcsim.learning.samples import Dataset
from capcsim.scenario import AnyData, ArrayData, TableData

ROWS = 40
SIZES: dict[str, Any] = {"train_per_party": 1, "pool_per_querier": 1, "evaluation": 1}


def data_of(**keys: Any) -> AnyData:
    """The kind of `[data]` that the source tells."""
    return TypeAdapter[AnyData](AnyData).validate_python(keys)


def features(columns: int = 2, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(1).random((rows, columns)).round(3)


def table(rows: int = ROWS, **columns: Any) -> dict[str, Any]:
    """Columns a, b and label, and others."""
    x = features(rows=rows)
    return {"a": x[:, 0], "b": x[:, 1], "label": np.resize(["x", "y"], rows)} | columns


def csv_text(columns: dict[str, Any], mark: str = ",", end: str = "\n", decimal: str = ".") -> str:
    def cell(value: Any) -> str:
        text = "" if value is None else str(value)
        return text.replace(".", decimal) if isinstance(value, float) else text

    lines = [list(columns), *zip(*(list(values) for values in columns.values()), strict=True)]
    return "".join(mark.join(map(cell, line)) + end for line in lines)


def from_csv(folder: Path, content: str | bytes | dict[str, Any], **keys: Any) -> Dataset:
    text = csv_text(content) if isinstance(content, dict) else content
    path = folder / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_dataset(TableData(source="csv", path=path, **SIZES, **keys))


def from_parquet(folder: Path, columns: dict[str, Any], index: list[Any] | None = None, **keys: Any) -> Dataset:
    """`index` is what pandas would tell of its own."""
    written = pa.table(columns)
    if index is not None:
        written = written.replace_schema_metadata({"pandas": json.dumps({"index_columns": index})})
    pq.write_table(written, folder / "mine.parquet")
    return load_dataset(TableData(source="parquet", path=folder / "mine.parquet", **SIZES, **keys))


def from_npz(folder: Path, x: np.ndarray, y: np.ndarray) -> Dataset:
    np.savez(folder / "mine.npz", x=x, y=y)
    return load_dataset(ArrayData(source="npz", path=folder / "mine.npz", **SIZES))
