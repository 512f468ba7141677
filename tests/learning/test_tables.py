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
from capcsim.scenario import Data

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
    found = load_dataset(Data(source=source, path=path, missing="median", **NAMED))
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
        ({}, {}, "1 samples have one, the first is 2; data.missing = 'median' fills NaN in"),
        ({}, {"label": "sick"}, "a column 'sick', which data.label names; it has age, smokes"),
        ({}, {"site": "city"}, "which data.site names"),
        ({"age": ["young"] * 4}, {}, "column 'age' is not: encode it"),
        ({"age": [1.0] * 4, "ill": ["no", None, "yes", "no"]}, {}, "a value in every row of column 'ill'"),
        ({"age": [1.0] * 4, "sex": ["f", "m", "x", "f"]}, {}, "two values; column 'sex' has 3"),
        ({"age": [1.0] * 4, "ill": ["no"] * 4}, {}, "only class 0"),
        ({"age": [17.0] * 4}, {}, "it reaches 17, so scale it first"),
    ],
)
def test_a_bad_table_says_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], named: dict[str, Any], says: str
) -> None:
    path = written(tmp_path / "mine.parquet", TABLE | changes)
    with pytest.raises(ScenarioError, match=says):
        load_dataset(Data(source="parquet", path=path, **(NAMED | named)))


@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_a_file_that_is_no_table(tmp_path: Path, source: Any) -> None:
    for name in ("absent", "empty"):
        path = tmp_path / name
        if name == "empty":
            path.write_bytes(b"")
        with pytest.raises(ScenarioError, match=f"a readable {source} file") as caught:
            load_dataset(Data(source=source, path=path, **NAMED))
        assert "\n" not in str(caught.value)


def test_each_party_fills_in_its_own_medians() -> None:
    own = np.array([[1, np.nan, np.nan], [3, 5, np.nan], [8, 7, np.nan]], np.float32)
    x = np.array([[np.nan, np.nan, np.nan], [2, np.nan, 4]], np.float32)
    assert impute(x, own).tolist() == [[3, 6, 0], [2, 6, 4]]
    assert impute(own[1:2, :1], own[:, :1]).tolist() == [[3]]


def heart(folder: Path, rows: str) -> Data:
    (folder / "heart_disease").mkdir()
    for hospital in ("cleveland", "hungarian", "switzerland", "va"):
        (folder / "heart_disease" / f"processed.{hospital}.data").write_text(rows)
    return Data(source="heart", folder=folder, missing="median", **SIZES)


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
