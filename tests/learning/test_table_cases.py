"""Tables and arrays as people have them: each was once read wrongly, or refused for a wrong reason."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import load_dataset
from capcsim.learning.samples import Dataset
from capcsim.scenario import Scenario, TableData
from tests.learning.tables_of import ROWS, SIZES, csv_text, features, from_csv, from_npz, from_parquet, table


def read(folder: Path, source: str, columns: dict[str, Any], **keys: Any) -> Dataset:
    return (from_csv if source == "csv" else from_parquet)(folder, columns, **keys)


def test_a_float_index_that_pandas_stored_is_no_feature(tmp_path: Path) -> None:
    found = from_parquet(tmp_path, table() | {"__index_level_0__": features()[:, 1]}, ["__index_level_0__"])
    assert found.shape == (2,)
    assert found.note == "The index of mine.parquet ('__index_level_0__') is no feature."
    assert from_parquet(tmp_path, table() | {"__index_level_0__": features()[:, 1]}).shape == (2,)


def test_a_named_index_is_none_either_unless_the_scenario_names_it(tmp_path: Path) -> None:
    indexed = table(patient=features()[:, 1], ward=np.resize(["w", "e"], ROWS))
    found = from_parquet(tmp_path, indexed, ["patient", "ward"], site="ward")
    assert (found.shape, found.names["sites"]) == ((2,), ("e", "w"))
    assert "('patient') is no feature" in found.note
    everything = from_parquet(tmp_path, table(), [{"kind": "range", "start": 0, "stop": 40, "step": 1}])
    assert (everything.shape, everything.note) == ((2,), "")


def test_pandas_own_files(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(), index=pandas.Index(features()[:, 0] / 3))
    frame.to_parquet(tmp_path / "frame.parquet")
    assert parquet.read_table(tmp_path / "frame.parquet").num_columns == 4, "pandas stores the index as a column"
    assert load_dataset(TableData(source="parquet", path=tmp_path / "frame.parquet", **SIZES)).shape == (2,)
    found = from_csv(tmp_path, frame.to_csv())
    assert (found.shape, found.note) == ((2,), "The index of mine.csv (a first column without a name) is no feature.")
    again = from_csv(tmp_path, pandas.read_csv(tmp_path / "mine.csv").to_csv())
    assert (again.shape, again.note) == ((2,), "The index of mine.csv ('Unnamed: 0') is no feature.")


@pytest.mark.parametrize("source", ["csv", "parquet"])
@pytest.mark.parametrize("text", ["NA", "None", "null", "nan", "n/a"])
def test_a_text_that_reads_like_missing_is_a_text_and_said(tmp_path: Path, source: str, text: str) -> None:
    country = np.resize([text, "Europe"], ROWS)
    found = read(tmp_path, source, table(label=country, ward=country), site="ward")
    assert sorted(found.names["classes"]) == sorted(found.names["sites"]) == sorted([text, "Europe"])
    assert np.bincount(found.y).tolist() == [20, 20]
    assert f"'{text}' in column 'label' is a text like any other here, not a missing value." in found.notes
    assert any("in column 'ward' is a text like" in note for note in found.notes)


def test_among_numbers_na_is_missing_and_the_message_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ScenarioError, match=r"10 of 40 rows have none, the first is row 2.*among numbers, NA and the like"
    ):
        from_csv(tmp_path, table(label=np.resize(["0", "1", "NA", "1"], ROWS)))
    holes = from_csv(tmp_path, table(c=np.resize(["0.5", "NA", "N/A", "", "null", "?"], ROWS)), missing="median")
    assert np.isnan(holes.x[:, 2]).tolist()[:6] == [False, True, True, True, True, True]


@pytest.mark.parametrize("source", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("pos", "pos "),
        ("Pos", "pos"),
        ("\tpos", "pos"),
        ("pos", "pos\xa0"),
        ("pos", "p\u200bos"),
        ("01", "1"),
        ("e\u0301", "\u00e9"),
    ],
)
def test_labels_that_read_alike_are_named(tmp_path: Path, source: str, first: str, second: str) -> None:
    found = read(tmp_path, source, table(label=np.resize([first, second, "neg", "neg"], ROWS)))
    assert found.classes == 3
    shown = " and ".join(map(ascii if second == "\u00e9" else repr, (first, second)))
    assert [note for note in found.notes if "read alike" in note] == [
        f"{shown} in column 'label' read alike but count as different: check them."
    ]


def test_labels_that_differ_are_not(tmp_path: Path) -> None:
    assert from_csv(tmp_path, table(label=np.resize(["pos", "neg", "none of both"], ROWS))).notes == ()
    alike = np.resize(["pos", "POS", "neg", "neg"], ROWS)
    assert "'POS' and 'pos' in y read alike" in from_npz(tmp_path, features(), alike).note


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.linspace(0, 1, 400), "has 400 different values in 400 rows, as a measurement has"),
        (np.random.default_rng(0).normal(37, 1, 400).round(1), "different values in 400 rows, as a measurement has"),
        (np.arange(400), "has 400 different values in 400 rows, as an identifier or a measurement has"),
        (np.minimum(np.arange(400), 385), "has 386 different values in 400 rows, as an identifier"),
        (np.array([f"P{number}" for number in range(400)]), "has 400 different values in 400 rows, as an identifier"),
    ],
    ids=["fractions", "rounded", "whole", "nearly", "text"],
)
def test_a_label_that_is_none_is_refused(tmp_path: Path, labels: np.ndarray, says: str) -> None:
    for source in ("csv", "parquet"):
        with pytest.raises(ScenarioError, match=f"data.label = 'label': classes; column 'label' .*{says}"):
            read(tmp_path, source, table(400, label=labels))
    with pytest.raises(ScenarioError, match=f"data.path = .*labels; y .*{says}"):
        from_npz(tmp_path, features(rows=400), labels)
    with pytest.raises(ScenarioError, match=r"data\.site = 'ward': sites; column 'ward' has"):
        read(tmp_path, "csv", table(400, ward=labels), site="ward")


def test_many_labels_are_said(tmp_path: Path) -> None:
    found = from_csv(tmp_path, table(400, label=np.arange(400) % 50 + 20))
    assert found.classes == 50
    assert "There are 50 different values in the 400 rows of column 'label': check that they are names." in found.notes
    assert from_npz(tmp_path, features(rows=400), np.arange(400) % 40).notes == ()


@pytest.mark.parametrize(
    ("shape", "becomes", "says"),
    [
        ((8, 8, 4), (4, 8, 8), "Images of shape (8, 8, 4) are read as 4 channels of 8 x 8, channels last."),
        ((8, 8, 3), (3, 8, 8), "Images of shape (8, 8, 3) are read as 3 channels of 8 x 8, channels last."),
        ((8, 6, 2), (2, 8, 6), "Images of shape (8, 6, 2) are read as 2 channels of 8 x 6, channels last."),
        ((16, 16, 8), (8, 16, 16), "Images of shape (16, 16, 8) are read as 8 channels of 16 x 16, channels last."),
        ((8, 16, 16), (8, 16, 16), "Images of shape (8, 16, 16) are read as 8 channels of 16 x 16, channels first."),
        ((9, 6, 7), (9, 6, 7), "Images of shape (9, 6, 7) are read as 9 channels of 6 x 7, channels first."),
        ((3, 3, 8), (3, 3, 8), "Images of shape (3, 3, 8) are read as 3 channels of 3 x 8, channels first."),
        ((4, 8, 8), (4, 8, 8), ""),
        ((3, 4, 4), (3, 4, 4), ""),
        ((4, 4), (1, 4, 4), ""),
    ],
)
def test_the_layout_of_images_is_said_where_it_is_not_plain(
    tmp_path: Path, shape: tuple[int, ...], becomes: tuple[int, ...], says: str
) -> None:
    x = np.arange(ROWS * np.prod(shape), dtype=np.uint64).reshape(ROWS, *shape).astype(np.uint8)
    found = from_npz(tmp_path, x, np.arange(ROWS) % 2)
    assert (found.shape, found.note) == (becomes, says)
    if "last" in says:
        assert found.x[3, 1, 2, 5] * 255 == pytest.approx(x[3, 2, 5, 1])
    elif len(shape) == 3:
        assert found.x[3, 1, 2, 3] * 255 == pytest.approx(x[3, 1, 2, 3])


def test_bytes_that_are_no_image_are_said_to_be_divided(tmp_path: Path) -> None:
    found = from_npz(tmp_path, np.arange(ROWS * 4, dtype=np.uint8).reshape(ROWS, 4) % 17, np.arange(ROWS) % 2)
    assert found.note.startswith("x holds bytes, which are divided by 255; its largest is 16")


@pytest.mark.parametrize("kind", [pa.decimal128(10, 2), pa.decimal256(40, 8), pa.decimal128(38, 2)])
def test_decimals_are_numbers(tmp_path: Path, kind: Any) -> None:
    values = [Decimal("1.25"), None, Decimal("-3.5"), Decimal("0.02")] * 10
    found = from_parquet(tmp_path, table(c=pa.array(values, kind)), missing="median")
    assert found.x[[0, 2, 3], 2] == pytest.approx([1.25, -3.5, 0.02])
    assert np.isnan(found.x[1, 2])


def test_names_are_quoted_so_that_blanks_are_seen(tmp_path: Path) -> None:
    text = csv_text(table()).replace("label", " label ", 1)
    says = r"data.label = 'label': mine.csv has no column 'label'; it has 'a', 'b', ' label '; did you mean ' label '\?"
    with pytest.raises(ScenarioError, match=says):
        from_csv(tmp_path, text)
    assert from_csv(tmp_path, text, label=" label ").shape == (2,)
    with pytest.raises(ScenarioError, match=r"it has 'a', 'a  b', 'a\\tb'"):
        from_csv(tmp_path, "a,a  b,a\tb\n1,2,3\n")


def test_a_range_or_a_gap_names_its_columns(tmp_path: Path) -> None:
    wide = np.resize([0.0, 9e15, 1.0], ROWS)
    with pytest.raises(ScenarioError, match=r"column 'c d' reaches 9e\+15 .row 1, counted from 0.: scale it first, or"):
        from_parquet(tmp_path, table(**{"c d": wide}))
    says = r"'p' reaches 300 .row 0, .*, and 'o' reaches too far: scale them .*drop = \['p', 'o'\] leaves them out"
    with pytest.raises(ScenarioError, match=says):
        from_csv(tmp_path, table(o=np.full(ROWS, 63), p=np.full(ROWS, 300)))
    with pytest.raises(ScenarioError, match="numbers in column 'c'; no value in 40 of 40 rows, the first is row 0"):
        from_parquet(tmp_path, table(c=np.full(ROWS, np.nan)))
    with pytest.raises(
        ScenarioError, match="numbers in columns 'c', 'd'; no value in 13 of 40 rows, the first is row 1"
    ):
        from_csv(tmp_path, table(c=np.resize(["1", "", "1"], ROWS), d=np.resize(["1", "?", "0.5"], ROWS)))
    with pytest.raises(ScenarioError, match="numbers in column 'c'; infinity in 40 of 40 rows, the first is row 0"):
        from_csv(tmp_path, table(c=np.full(ROWS, -np.inf)), missing="median")
    with pytest.raises(ScenarioError, match=r"reaches 97\.5, so scale it first; sample 7 .feature 1."):
        from_npz(tmp_path, np.where(np.arange(ROWS * 3).reshape(ROWS, 3) == 22, 97.5, 0), np.arange(ROWS) % 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (list(range(1, 11)), "1 to 10, are numbered 0 to 9"),
        ([-1, 1], "'-1', '1', are numbered 0 to 1"),
        ([3, 7, 100], "'3', '7', '100', are numbered 0 to 2"),
        ([2**53, 2**53 + 1], "9007199254740992 to 9007199254740993, are numbered 0 to 1"),
        ([0, 2**63 - 1], "'0', '9223372036854775807', are numbered 0 to 1"),
    ],
)
def test_whole_numbers_of_any_kind_are_labels(tmp_path: Path, values: list[int], said: str) -> None:
    y = np.resize(values, ROWS)
    expected = np.resize(np.arange(len(values)), ROWS).tolist()
    named = tuple(map(str, values))
    for source in ("csv", "parquet"):
        found = read(tmp_path, source, table(label=y))
        assert (found.y.tolist(), found.names["classes"]) == (expected, named)
        assert f"The values of column 'label', {said}." in found.notes
    found = from_npz(tmp_path, features(), y)
    assert (found.y.tolist(), found.names["classes"], found.classes) == (expected, named, len(values))
    assert f"The values of y, {said}." in found.notes
    text = from_parquet(tmp_path, table(label=pa.array(map(str, y), pa.large_string())))
    assert text.names["classes"] == named, "texts that are whole numbers come in their order"


def test_labels_from_0_need_no_word(tmp_path: Path) -> None:
    found = from_npz(tmp_path, features(), np.arange(ROWS) % 3)
    assert (found.notes, dict(found.names)) == ((), {})
    assert from_csv(tmp_path, table(label=np.arange(ROWS) % 3)).notes == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_every_usual_delimiter_is_read_and_said(tmp_path: Path, mark: str, end: str) -> None:
    found = from_csv(tmp_path, csv_text(table(), mark, end))
    assert found.x == pytest.approx(features())
    names = {",": "", ";": "semicolons", "\t": "tabs", "|": "bars"}
    assert found.note == (f"mine.csv is read with {names[mark]} between its cells." if names[mark] else "")


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_decimal_commas_are_read_and_said(tmp_path: Path, mark: str) -> None:
    found = from_csv(tmp_path, csv_text(table(), mark, decimal=","))
    assert found.x == pytest.approx(features())
    assert "between its cells and decimal commas." in found.note


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "a;label\n" + "1,234;x\n12,345;y\n" * 9,
            "'1,234' in column 'a' may be 1.234 or 1234: save it with decimal po",
        ),
        ("a;b;label\n" + "0,5;0.5;x\n1,5;0.25;y\n" * 9, "column 'a' has '0,5', column 'b' has '0.5': save it with"),
        ("a;label\n" + "1.234,5;x\n0,5;y\n" * 9, "column 'a' holds text .'1.234,5' in row 0.: encode it as numbers"),
        (
            "a,b,label\n" + "0,5,1,5,x\n" * 9,
            "line 2 has 5, the first line 3: mend that line, and quote cells that hold",
        ),
    ],
    ids=["thousands", "both marks", "both in one", "no quotes"],
)
def test_numbers_that_can_be_read_in_two_ways_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        from_csv(tmp_path, text)


def test_quoted_decimal_commas_between_commas(tmp_path: Path) -> None:
    found = from_csv(tmp_path, "a,label\n" + '"0,5",x\n"1,125",y\n' * 9)
    assert found.x[:2, 0].tolist() == [0.5, 1.125]
    assert "commas between its cells and decimal commas" in found.note


def test_a_patients_number_is_refused_or_said_and_can_be_left_out(tmp_path: Path) -> None:
    large = table(patient_id=np.arange(1000, 1000 + ROWS))
    says = r"column 'patient_id' looks like an identifier: data.drop = \['patient_id'\] leaves it out"
    for source in ("csv", "parquet"):
        with pytest.raises(ScenarioError, match=says):
            read(tmp_path, source, large)
        assert read(tmp_path, source, large, drop=["patient_id"]).shape == (2,)
    text = table(who=[f"P{number}" for number in range(ROWS)])
    with pytest.raises(ScenarioError, match=r"'who' holds text .'P0' in row 0.: .*data.drop = \['who'\] leaves it out"):
        from_csv(tmp_path, text)
    assert from_csv(tmp_path, text, drop=["who"]).shape == (2,)
    small = from_csv(tmp_path, table(case_id=np.arange(ROWS) % 7))
    assert "column 'case_id' looks like an identifier, and is a feature: data.drop = ['case_id']" in small.note
    counted = from_csv(tmp_path, table(c=(np.arange(ROWS) * 7 % ROWS - 20) / 2))
    assert "column 'c' looks like an identifier" in counted.note


def test_what_is_left_out_must_be_there(tmp_path: Path) -> None:
    says = r"data.drop = \['patientid'\]: mine.csv has no column 'patientid'; it has .*did you mean 'patient_id'\?"
    with pytest.raises(ScenarioError, match=says):
        from_csv(tmp_path, table(patient_id=np.arange(ROWS)), drop=["patientid"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"drop": ["label"]}, r"data\.drop = \['label'\]: columns of no other use; 'label' has one"),
        ({"drop": ["ward"], "site": "ward"}, "'ward' has one"),
        ({"drop": ["a", "a"]}, "each column once"),
        ({"site": "label"}, r"data\.site = 'label': another column than data\.label names"),
        ({"protected": "label"}, r"data\.protected = 'label': another column"),
        ({"source": "npz", "drop": ["a"]}, r"data\.drop = \['a'\]: remove it: npz takes data\.path; only"),
        ({"source": "npz", "label": "ill"}, r"data\.label = 'ill': remove it: .* 'csv' or 'parquet' takes it"),
        ({"drop": "a"}, r"data\.drop = 'a': a list in brackets"),
    ],
)
def test_columns_that_cannot_be_named_so(scenario: Callable[..., Scenario], changes: dict[str, Any], says: str) -> None:
    data = {"source": "csv", "path": "mine.csv"} | changes
    with pytest.raises(ScenarioError, match=says):
        scenario({f"data.{key}": value for key, value in data.items()})


@pytest.mark.parametrize(("sexes", "found"), [(["f", "m", "x", "m"], "3 .'f', 'm', 'x'."), (["f"], "1 .'f'.")])
def test_a_protected_attribute_of_other_than_two_values_says_which(
    tmp_path: Path, sexes: list[str], found: str
) -> None:
    says = f"data.protected = 'sex': an attribute of two values; column 'sex' of mine.csv has {found}: merge or leave"
    with pytest.raises(ScenarioError, match=says):
        from_csv(tmp_path, table(sex=np.resize(sexes, ROWS)), protected="sex")
