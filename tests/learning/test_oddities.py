"""What is said of features that may be a mistake, and what is not."""

from pathlib import Path

import numpy as np
import pytest

from capcsim.learning.oddities import looks_like_id
from tests.learning.tables_of import ROWS, csv_text, features, from_csv, from_npz, table


@pytest.mark.parametrize(
    "name", ["id", "ID", "patient_id", "PatientID", "case-id", "row.id", "uuid", "patient", "study ids"]
)
def test_names_of_identifiers(name: str) -> None:
    assert looks_like_id(name, np.array([1.0, 1.0]))


@pytest.mark.parametrize(
    "name", ["plaid", "acid", "hybrid", "ideal", "identity", "number_of_patients", "steroids", "width"]
)
def test_names_of_none(name: str) -> None:
    assert not looks_like_id(name, features()[:, 0])


def test_numbers_of_rows() -> None:
    order = np.random.default_rng(0).permutation(ROWS)
    assert looks_like_id("v", order + 1000.0)
    assert looks_like_id("v", order * 3.0 - 7)
    assert looks_like_id("v", order / ROWS)
    assert not looks_like_id("v", order.astype(float) // 2), "values that repeat"
    assert not looks_like_id("v", np.where(order == 3, np.nan, order)), "values that lack"
    assert not looks_like_id("v", order[:9].astype(float)), "few"
    assert not looks_like_id("v", np.where(order == 3, np.inf, order))


def test_constant_empty_and_repeated(tmp_path: Path) -> None:
    found = from_csv(tmp_path, table(c=np.full(ROWS, 0.5), d=[None] * ROWS), missing="median")
    assert found.notes == ("The column 'd' has no value in any row.", "The column 'c' has the same value in every row.")
    rows = csv_text(table()).splitlines(keepends=True)
    twice = from_csv(tmp_path, "".join([*rows, *rows[1:4]]))
    assert twice.notes == ("3 of 43 rows repeat earlier ones: models may be judged by what they were trained on.",)
    other = from_csv(tmp_path, "".join([*rows, rows[1].replace("x", "y")]))
    assert other.notes == (), "the label differs"
    codes = {"a": np.arange(ROWS) % 3, "b": np.arange(ROWS) % 2, "label": np.resize(["x", "y"], ROWS)}
    assert from_csv(tmp_path, codes).notes == (), "codes repeat by chance"


def test_features_that_vary_too_little_for_the_fixed_point(tmp_path: Path) -> None:
    found = from_csv(tmp_path, table(c=features()[:, 0] / 1e6, d=features()[:, 0] / 300, e=3 + features()[:, 1] / 200))
    little = "The columns 'c', 'd' vary by less than 16 steps of the fixed point, 0.00024 each: scale up what varies so"
    assert [note.startswith(little) for note in found.notes if "steps" in note] == [True]
    y = np.arange(ROWS) % 2
    assert from_npz(tmp_path, features() / 1e6, y).note.startswith("All of x varies by less than 16 steps")
    assert from_npz(tmp_path, features() / 100, y).note == ""


def test_a_good_table_needs_no_word(tmp_path: Path) -> None:
    assert from_csv(tmp_path, table()).notes == ()
