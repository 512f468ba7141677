"""CSV files as spreadsheets, pandas and R write them, and as people damage them."""

import codecs
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.errors import ScenarioError
from tests.learning.tables_of import ROWS, csv_text, features, from_csv, table

PLAIN = csv_text(table())


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
        PLAIN.replace("\n", "\n\n").encode(),
        b"\n\n" + PLAIN.encode(),
        PLAIN.rstrip("\n").encode(),
        re.sub(r"[^,\n]+", r'"\g<0>"', PLAIN).encode(),
        re.sub(r",(?=[0-9])", " , ", PLAIN).encode(),
        re.sub(r",(?=[0-9])", ",+", PLAIN).encode(),
        b"sep=,\r\n" + PLAIN.encode(),
    ],
    ids=[
        *("mark", "utf-16", "utf-16-be", "utf-32", "mark and crlf", "empty lines", "empty at the start", "no last end"),
        *("all quoted", "blanks", "plus", "sep"),
    ],
)
def test_the_same_table_in_other_clothes(tmp_path: Path, content: bytes) -> None:
    found = from_csv(tmp_path, content)
    assert found.x == pytest.approx(features())
    assert (found.y.tolist(), found.notes) == ([0, 1] * 20, ())


def test_excels_separator_line_decides(tmp_path: Path) -> None:
    found = from_csv(tmp_path, "sep=;\n" + csv_text(table(), ";", decimal=","))
    assert found.x == pytest.approx(features())
    with pytest.raises(ScenarioError, match="line 43 has 1, the first line 3"):
        from_csv(tmp_path, "sep=;\n" + csv_text(table(), ";", decimal=",") + "0,5\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "a readable csv file; it is empty"),
        (b" \n\n", "a readable csv file; it is empty"),
        (b"a,label\n0,x\x00\n1,y\n", "its text is not UTF-8"),
        (b"PK\x03\x04rest", "it is an archive or a workbook: export its sheet as CSV"),
        (b"\x1f\x8brest", "it is gzipped: unpack it"),
        (b"PAR1rest", "it is a Parquet file: read it as one, not as CSV .data.source = 'parquet'."),
        (PLAIN + "0.5,0.5\n", "line 42 has 2, the first line 3: mend that line"),
        (PLAIN + "0.5,0.5,x,1\n", "line 42 has 4, the first line 3"),
        (PLAIN.replace("\n", ",\n").replace("label,", "label"), "line 2 has 4, the first line 3"),
        ('a,b,label\n0.5,0.5,"x\n0.5,0.25,y\n0.1,0.2,x\n', "a quote in it is never closed: close it, or remove it"),
        ('a,label\n0.1,"x\n0.3,y"\n' + "0.1,x\n0.3,y\n" * 9, "which goes over several lines: is a quote not closed"),
        (PLAIN.split("\n", 1)[1], r"has no column 'label'; .* is the first line with the columns' names missing\?"),
        (csv_text(table(label=np.arange(ROWS) % 2)).split("\n", 1)[1], "it holds numbers only .*: add such a line"),
        ("label\n" + "x\ny\n" * 9, "a column of features beside 'label'; there is none"),
        ("a b label\n0.1 0.2 x\n", "it has 'a b label'; cells are parted by commas, semicolons, tabs or bars"),
        ("a,,label\n" + "1,2,x\n0,1,y\n" * 9, r"column 2 has none \(''\): name it, or data.drop = \[''\] le"),
        (csv_text(table(v=["[1, 2]"] * ROWS)).replace("[1, 2]", '"[1, 2]"'), r"holds text .'\[1, 2\]' in row 0."),
        (csv_text(table(v=[0.5] * 39 + ["unknown"])), "column 'v' holds text .'unknown' in row 39."),
        (csv_text(table(v=["mg/l"] + [0.5] * 39)), "column 'v' holds text .'mg/l' in row 0."),
        (csv_text(table(v=["5%"] * ROWS, w=["2020-01-02"] * ROWS)), "'5%' in row 0., and no numbers are in 'w' either"),
        (csv_text(table(v=["0x10"] * ROWS)), "holds text .'0x10'"),
        (csv_text(table(v=["1e400"] * ROWS)), "numbers in column 'v'; infinity in 40 of 40 rows"),
        (PLAIN + ",,\n,,\n", "every row of column 'label'; 2 of 42 rows have none, the first is row 40"),
        ("a,b,label\n", "at least one sample; it has names of columns and no row"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as caught:
        from_csv(tmp_path, content)
    assert str(caught.value).isprintable()


def test_a_first_line_of_numbers_in_their_order_is_names_and_said(tmp_path: Path) -> None:
    text = csv_text(table(label=np.arange(ROWS) % 2)).replace("a,b,label", "0,1,2", 1)
    found = from_csv(tmp_path, text, label="2")
    assert found.x == pytest.approx(features())
    assert found.note == "The first line of mine.csv ('0', '1', '2') is read as names of columns."
    spectra = from_csv(tmp_path, PLAIN.replace("a,b", "400.5,402.5", 1))
    assert (spectra.shape, spectra.notes) == ((2,), ())


def test_columns_without_name_and_value_are_left_out_and_said(tmp_path: Path) -> None:
    found = from_csv(tmp_path, csv_text(table(), ";").replace("\n", ";;\n"))
    assert found.x == pytest.approx(features())
    assert "mine.csv has 2 columns without a name and without a value, which are left out." in found.notes


def test_commas_in_names_do_not_choose_the_delimiter(tmp_path: Path) -> None:
    text = csv_text(table(), ";", decimal=",").replace("a;b", "age, years;sex, coded", 1)
    assert from_csv(tmp_path, text).x == pytest.approx(features())


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["01067", "1067"], ("01067", "1067")),
        (["123456789012345678901", "123456789012345678902"], ("123456789012345678901", "123456789012345678902")),
        (["9007199254740993", "9007199254740992"], ("9007199254740992", "9007199254740993")),
        (["1.0", "2.50"], ("1", "2.5")),
        (["TRUE", "FALSE"], ("FALSE", "TRUE")),
        (["1", "x"], ("1", "x")),
        (['"a ""q"""', '"c, d"'], ('a "q"', "c, d")),
    ],
)
def test_what_names_something_keeps_what_is_written(tmp_path: Path, labels: list[str], names: tuple[str, ...]) -> None:
    found = from_csv(tmp_path, table(label=np.resize(labels, ROWS), ward=np.resize(labels, ROWS)), site="ward")
    assert found.names["classes"] == found.names["sites"] == names
    assert np.bincount(found.y).tolist() == [20, 20]


def test_truth_values_are_numbers(tmp_path: Path) -> None:
    values: dict[str, Any] = {"v": np.resize(["True", "False"], ROWS), "w": np.resize(["TRUE", "NA"], ROWS)}
    found = from_csv(tmp_path, table(**values), missing="median")
    assert found.x[:2, 2].tolist() == [1, 0]
    assert found.x[0, 3] == 1
    assert np.isnan(found.x[1, 3])


def test_a_column_that_is_left_out_decides_nothing(tmp_path: Path) -> None:
    text = csv_text(table(day=np.resize(["01.02.2020", "1.5"], ROWS)), ";", decimal=",")
    assert from_csv(tmp_path, text, drop=["day"]).x == pytest.approx(features())


def test_a_wide_table(tmp_path: Path) -> None:
    wide = {f"gene {number}": features(1000, 30)[:, number] for number in range(1000)}
    found = from_csv(tmp_path, csv_text(wide | {"label": np.resize(["x", "y"], 30)}))
    assert found.x == pytest.approx(features(1000, 30))
    with pytest.raises(ScenarioError, match="reach too far") as caught:
        from_csv(tmp_path, csv_text({k: v + 99 for k, v in wide.items()} | {"label": np.resize(["x", "y"], 30)}))
    assert len(str(caught.value)) < 800, "a few of the thousand names"
