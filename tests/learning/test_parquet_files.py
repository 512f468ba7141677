"""Parquet files: every type that a column may have."""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import load_dataset
from capcsim.scenario import TableData
from tests.learning.tables_of import ROWS, SIZES, from_parquet, table


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (pa.array([0.5, None] * 20, pa.float16()), 0.5),
        (pa.array([True, None] * 20), 1),
        (pa.array([3, None] * 20, pa.int8()), 3),
        (pa.array([3, None] * 20, pa.uint64()), 3),
        (pa.array([1.5, None] * 20).dictionary_encode(), 1.5),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None] * 20, pa.int8())), 1),
        (pa.array(["", None] * 20), None),
        (pa.nulls(ROWS), None),
    ],
    ids=["float16", "boolean", "int8", "uint64", "dictionary", "bool8", "blank text", "null"],
)
def test_columns_that_are_numbers(tmp_path: Path, values: Any, first: float | None) -> None:
    found = from_parquet(tmp_path, table(v=values), missing="median")
    assert np.isnan(found.x[1, 2])
    assert np.isnan(found.x[0, 2]) if first is None else found.x[0, 2] == first


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (pa.array(["x", "y"] * 20).dictionary_encode(), "text .'x' in row 0."),
        (pa.array(["1.5", "y"] * 20, pa.large_string()), "text .'y' in row 1."),
        (pa.array(["1.5", None] * 20, pa.string_view()), "text .'1.5' in row 0."),
        (pa.array([datetime.date(2020, 1, 2)] * ROWS), "dates or times"),
        (pa.array(range(ROWS), pa.timestamp("ns", tz="UTC")), "dates or times"),
        (pa.array(range(ROWS), pa.duration("s")), "dates or times"),
        (pa.array([[1, 2]] * ROWS), "lists or records"),
        (pa.array([[1.0, 2.0]] * ROWS, pa.list_(pa.float64(), 2)), "lists or records"),
        (pa.array([{"a": 1}] * ROWS), "lists or records"),
        (pa.array([b"\xe9"] * ROWS), "bytes"),
        (pa.array([bytes(16)] * ROWS, pa.binary(16)), "bytes"),
    ],
)
def test_columns_that_are_not_say_what_they_hold(tmp_path: Path, values: Any, says: str) -> None:
    with pytest.raises(ScenarioError, match=f"column 'v' holds {says}: encode it as numbers, or data.drop = "):
        from_parquet(tmp_path, table(v=values))
    assert from_parquet(tmp_path, table(v=values), drop=["v"]).shape == (2,)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array(["q", "p"] * 20).dictionary_encode(), ("p", "q")),
        (pa.array(["q", "p"] * 20, pa.large_string()), ("p", "q")),
        (pa.array([b"q", b"p"] * 20), ("p", "q")),
        (pa.array([True, False] * 20), ("false", "true")),
        (pa.array([2**64 - 1, 2**64 - 2] * 20, pa.uint64()), ("18446744073709551614", "18446744073709551615")),
        (pa.array([Decimal("10.00"), Decimal("2.50")] * 20), ("10", "2.5")),
        (pa.array([Decimal("0.0000001"), Decimal("100.0")] * 20, pa.decimal128(20, 8)), ("0.0000001", "100")),
        (pa.array([10**20 + 1, 10**20] * 20, pa.decimal128(38, 0)), (f"{10**20}", f"{10**20 + 1}")),
        (pa.array([datetime.date(2021, 1, 2), datetime.date(2020, 1, 2)] * 20), ("2020-01-02", "2021-01-02")),
        (pa.array([1.5, 1.0] * 20, pa.float16()), ("1", "1.5")),
        (pa.array([1e300, 0.1 + 0.2] * 20), ("0.30000000000000004", "1e+300")),
    ],
)
def test_what_can_name_classes(tmp_path: Path, values: Any, names: tuple[str, ...]) -> None:
    assert from_parquet(tmp_path, table(label=values)).names["classes"] == names


@pytest.mark.parametrize("values", [pa.array([0.0, np.inf] * 20), pa.array([0.0, np.nan] * 20), pa.nulls(ROWS)])
def test_what_cannot(tmp_path: Path, values: Any) -> None:
    with pytest.raises(ScenarioError, match=r"data.label = 'label': classes; .*(which names nothing|rows have none)"):
        from_parquet(tmp_path, table(label=values))


@pytest.mark.parametrize("pandas", ["{no json", "[1]", '{"index_columns": 3}', '{"index_columns": ["label", 5, null]}'])
def test_what_the_file_says_of_pandas_is_not_trusted(tmp_path: Path, pandas: str) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table(table()).replace_schema_metadata({"pandas": pandas}), path)
    assert load_dataset(TableData(source="parquet", path=path, **SIZES)).shape == (2,)


def test_the_name_of_a_folder_makes_no_column_but_a_folder_of_files_does(tmp_path: Path) -> None:
    (tmp_path / "site=berlin").mkdir()
    pq.write_table(pa.table(table()), tmp_path / "site=berlin" / "mine.parquet")
    path = tmp_path / "site=berlin" / "mine.parquet"
    assert load_dataset(TableData(source="parquet", path=path, **SIZES)).shape == (2,)
    pq.write_to_dataset(pa.table(table(ward=["w", "e"] * 20)), tmp_path / "parts", partition_cols=["ward"])
    found = load_dataset(TableData(source="parquet", path=tmp_path / "parts", site="ward", **SIZES))
    assert found.names["sites"] == ("e", "w")


@pytest.mark.parametrize("content", [b"", b"a,label\n1,x\n", b"PAR1", b"PAR1" + bytes(99) + b"PAR1"])
def test_what_is_no_parquet_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.parquet").write_bytes(content)
    with pytest.raises(ScenarioError, match="a readable parquet file; it is none, or damaged: write it again, or read"):
        load_dataset(TableData(source="parquet", path=tmp_path / "mine.parquet", **SIZES))
