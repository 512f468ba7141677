"""Tables: columns with names, sites, protected attributes, missing values."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import load_dataset
from capcsim.learning.samples import impute
from capcsim.scenario import HeartData, TableData
from tests.learning.tables_of import data_of

SIZES: dict[str, Any] = {"train_per_party": 1, "pool_per_querier": 1, "evaluation": 1}
TABLE = {
    "age": [0.1, 0.5, None, 0.9],
    "smokes": [1, 0, 0, 1],
    "sex": ["f", "m", "m", "f"],
    "ward": ["west", "east", "west", "east"],
    "ill": ["no", "yes", "yes", "no"],
}
NAMED: dict[str, Any] = {"label": "ill", "site": "ward", "protected": "sex", **SIZES}


def written(path: Path, table: dict[str, list[Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
        return path
    rows = [table.keys(), *zip(*table.values(), strict=True)]
    path.write_text("\n".join(",".join("?" if cell is None else str(cell) for cell in row) for row in rows))
    return path


@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_columns_become_features_labels_sites_and_a_protected_attribute(tmp_path: Path, source: Any) -> None:
    path = written(tmp_path / f"mine.{source}", TABLE)
    found = load_dataset(data_of(source=source, path=path, missing="median", **NAMED))
    assert found.x[:, 1].tolist() == [1, 0, 0, 1]
    assert found.x[[0, 1, 3], 0] == pytest.approx([0.1, 0.5, 0.9])
    assert np.isnan(found.x[2, 0])
    assert (found.y.tolist(), found.classes) == ([0, 1, 1, 0], 2)
    assert found.site is not None
    assert found.protected is not None
    assert (found.site.tolist(), found.protected.tolist()) == ([1, 0, 1, 0], [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("changes", "named", "says"),
    [
        (
            {},
            {},
            "column 'age'; no value in 1 of 4 rows, the first is row 2, counted from 0: data.missing = 'median' fill",
        ),
        ({}, {"label": "sick"}, "data.label = 'sick': mine.parquet has no column 'sick'; it has 'age', 'smokes'"),
        ({}, {"site": "city"}, "data.site = 'city': mine.parquet has no column 'city'"),
        ({}, {"site": "wart"}, "did you mean 'ward'?"),
        (
            {"age": ["young"] * 4},
            {},
            "column 'age' holds text .'young' in row 0.: encode it as numbers, or data.drop = ",
        ),
        (
            {"age": [1.0] * 4, "ill": ["no", None, "yes", "no"]},
            {},
            "data.label = 'ill': .* in every row of column 'ill'",
        ),
        ({"age": [1.0] * 4, "sex": ["f", "m"] * 2, "ill": ["no"] * 4}, {}, "two classes; column 'ill' .* only 'no'"),
        ({"age": [17.0] * 4}, {}, "column 'age' reaches 17 .row 0, counted from 0.: scale it first, or data.drop = "),
    ],
)
def test_a_bad_table_says_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], named: dict[str, Any], says: str
) -> None:
    path = written(tmp_path / "mine.parquet", TABLE | changes)
    with pytest.raises(ScenarioError, match=says):
        load_dataset(TableData(source="parquet", path=path, **(NAMED | named)))


@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_a_file_that_is_no_table(tmp_path: Path, source: Any) -> None:
    for name in ("absent", "empty"):
        path = tmp_path / name
        if name == "empty":
            path.write_bytes(b"")
        with pytest.raises(ScenarioError, match=f"a readable {source} file") as caught:
            load_dataset(data_of(source=source, path=path, **NAMED))
        assert "\n" not in str(caught.value)


def refused_csv(path: Path, content: str | bytes, says: str, **named: Any) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ScenarioError, match=says) as caught:
        load_dataset(TableData(source="csv", path=path, **named, **SIZES))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,a,label\n1,2,0\n3,4,1\n", "columns of different names; 'a' is there twice"),
        ("a,label,label\n1,0,0\n3,1,1\n", "'label' is there twice"),
        ("é,label\n1,x\n2,y\n".encode("latin1"), r"not UTF-8 \(line 1\): save it as UTF-8"),
        ("a,label\n1,é\n2,y\n".encode("latin1"), r"not UTF-8 \(line 2\): save it as UTF-8"),
        ("a,label\né,x\n2,y\n".encode("latin1"), r"not UTF-8 \(line 2\): save it as UTF-8"),
        ("a,label\n1,x\n2,y\n".encode("utf-16-le"), "not UTF-8: save it as UTF-8"),
        (bytes(range(128, 256)), "a readable csv file"),
        ("a,label\n\x1b[31m1\n", "a readable csv file"),
        ("a,label\n", "at least one sample"),
    ],
)
def test_a_csv_file_that_cannot_be_used(tmp_path: Path, content: str | bytes, says: str) -> None:
    refused_csv(tmp_path / "mine.csv", content, says)


@pytest.mark.parametrize("missing", ["?", "", "  "])
@pytest.mark.parametrize("of", ["label", "site", "protected"])
def test_missing_text_is_no_value_of_its_own(tmp_path: Path, of: str, missing: str) -> None:
    columns = {"age": ["1"] * 4, "label": ["x", "y"] * 2, "site": ["e", "w"] * 2, "protected": ["f", "m"] * 2}
    columns[of][2] = missing
    rows = [",".join(row) for row in zip(*columns.values(), strict=True)]
    says = f"data.{of} = '{of}': .*every row of column '{of}'; 1 of 4 rows have none, the first is row 2"
    content = "\n".join([",".join(columns), *rows])
    refused_csv(tmp_path / "mine.csv", content, says, site="site", protected="protected")


def test_a_feature_that_nobody_measured(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b,c,label\n?,1,true,0\n?,2,?,1\n")
    found = load_dataset(TableData(source="csv", path=path, missing="median", **SIZES))
    assert np.isnan(found.x).tolist() == [[True, False, False], [True, False, True]]
    assert impute(found.x, found.x)[:, 0].tolist() == [0, 0]
    with pytest.raises(ScenarioError, match=r"data\.missing = 'median' fills NaN in"):
        load_dataset(TableData(source="csv", path=path, **SIZES))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[0], [1]], "column 'label' of mine.parquet holds lists or records: encode it"),
        ([{"a": 1}, {"a": 2}], "column 'label' of mine.parquet holds lists or records"),
        ([b"\xe9", b"x"], "column 'label' of mine.parquet holds bytes"),
        (pa.array([0, None], pa.timestamp("s")), "a value in every row of column 'label'; 1 of 2 rows have none"),
        (pa.array([True, None]), "a value in every row of column 'label'"),
    ],
)
def test_parquet_labels_that_are_none(tmp_path: Path, labels: Any, says: str) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"a": [1, 2], "label": labels}), path)
    with pytest.raises(ScenarioError, match=says):
        load_dataset(TableData(source="parquet", path=path, **SIZES))


def test_each_party_fills_in_its_own_medians() -> None:
    own = np.array([[1, np.nan, np.nan], [3, 5, np.nan], [8, 7, np.nan]], np.float32)
    x = np.array([[np.nan, np.nan, np.nan], [2, np.nan, 4]], np.float32)
    assert impute(x, own).tolist() == [[3, 6, 0], [2, 6, 4]]
    assert impute(own[1:2, :1], own[:, :1]).tolist() == [[3]]


def heart(folder: Path, rows: str) -> HeartData:
    (folder / "heart_disease").mkdir()
    for hospital in ("cleveland", "hungarian", "switzerland", "va"):
        (folder / "heart_disease" / f"processed.{hospital}.data").write_text(rows)
    return HeartData(source="heart", folder=folder, missing="median", **SIZES)


def test_a_patient_is_scaled_by_fixed_ranges_and_coded(tmp_path: Path) -> None:
    healthy, ill = "50,1,4,140,0,?,0,135,1,2,2,?,7,0", "80,0,1,200,600,1,2,60,0,-3,?,3,3,3"
    found = load_dataset(heart(tmp_path, f"{healthy}\n{ill}\n"))
    assert (found.x.shape, found.y.tolist()) == ((8, 22), [0, 1] * 4)
    assert found.site is not None
    assert found.protected is not None
    assert (found.site.tolist(), found.protected.tolist()) == ([0, 0, 1, 1, 2, 2, 3, 3], [1, 0] * 4)
    nan = np.nan
    expected = [0, 1, 0, 0, 0, 1, 0, nan, nan, 1, 0, 0, 0, 1, 0, 0, 1, 0, nan, 0, 0, 1]
    assert found.x[0] == pytest.approx(np.array(expected, np.float32), nan_ok=True, abs=1e-6)
    assert found.x[1, [0, 6, 7, 11, 12, 14, 18, 19]] == pytest.approx([1, 1, 1, 1, -1, -1, 1, 1], abs=1e-6)
    assert np.isnan(found.x[1, 15:18]).all()


def test_a_table_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="14 columns; it has 3"):
        load_dataset(heart(tmp_path, "1,2,3\n"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("50,1,4,140,0,?,0,135,1,2,2,?,7,?", "num as one of 0, 1, 2, 3, 4; line 3 of processed.cleveland.data has '?'"),
        ("50,1,4,140,0,?,0,135,1,2,2,?,7,-9", "num as one of .* has '-9'"),
        ("50,?,4,140,0,?,0,135,1,2,2,?,7,0", "sex as one of 0, 1; line 3 .* has '?'"),
        ("50,5,4,140,0,?,0,135,1,2,2,?,7,0", "sex as one of 0, 1; line 3 .* has '5'"),
        ("old,1,4,140,0,?,0,135,1,2,2,?,7,0", "age as a number, or ? where it was not measured; line 3 .* has 'old'"),
        ("50,1,9,140,0,?,0,135,1,2,2,?,7,0", "cp as one of 1, 2, 3, 4, or .* has '9'"),
        ("inf,1,4,140,0,?,0,135,1,2,2,?,7,0", "age as a number"),
        ("50,1", "14 columns; it has 2 in line 3 of processed.cleveland.data"),
    ],
)
def test_a_patient_with_a_value_that_cannot_be(tmp_path: Path, line: str, says: str) -> None:
    healthy, ill = "50,1,4,140,0,?,0,135,1,2,2,?,7,0", "80,0,1,200,600,1,2,60,0,-3,?,3,3,3"
    with pytest.raises(ScenarioError, match=says.replace("?", r"\?")):
        load_dataset(heart(tmp_path, f"{healthy}\n{ill}\n{line}\n"))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xe9" * 20])
def test_a_hospital_without_patients(tmp_path: Path, content: bytes) -> None:
    data = heart(tmp_path, "")
    (tmp_path / "heart_disease" / "processed.cleveland.data").write_bytes(content)
    with pytest.raises(ScenarioError, match="get the file anew"):
        load_dataset(data)
