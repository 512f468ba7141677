"""Votes as people have them: no query and no class is lost or invented, and what could be either is refused."""

import io
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.errors import InputError
from capcsim.privacy.analysis import analyse
from capcsim.privacy.mechanisms import GNMax
from capcsim.privacy.vote_files import read_votes

GENERATOR = np.random.default_rng(1)
BASE = np.stack([GENERATOR.multinomial(50, np.roll([0.82] + [0.02] * 9, query % 10)) for query in range(60)])
CLASSES = [f"class {label}" for label in range(10)]
FRAME = pandas.DataFrame(BASE)
NAMED = pandas.DataFrame(BASE, columns=CLASSES)
RIGHT = np.arange(60) % 10


def lines(rows: np.ndarray, separator: str = ",", end: str = "\n") -> str:
    return "".join(separator.join(map(str, row)) + end for row in rows)


def csv(frame: "pandas.DataFrame", **options: object) -> bytes:
    return bytes(frame.to_csv(**options).encode())


def parquet(frame: "pandas.DataFrame") -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def text(*options: object, **more: object) -> bytes:
    buffer = io.BytesIO()
    np.savetxt(buffer, BASE, *options, **more)
    return buffer.getvalue()


def arrow(columns: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


RIGHT_60 = {
    "plain.csv": lines(BASE).encode(),
    "bom.csv": b"\xef\xbb\xbf" + lines(BASE).encode(),
    "bom-and-header.csv": b"\xef\xbb\xbf" + csv(NAMED, index=False),
    "excel-utf16.csv": lines(BASE, "\t").encode("utf-16"),
    "excel-sep.csv": b"sep=;\r\n" + lines(BASE, ";", "\r\n").encode(),
    "pandas.csv": csv(FRAME, index=False),
    "pandas-index.csv": csv(FRAME),
    "pandas-headless.csv": csv(FRAME, index=False, header=False),
    "pandas-read-again.csv": csv(FRAME.rename_axis("Unnamed: 0")),
    "named-index-of-text.csv": csv(NAMED.set_axis([f"patient {i}" for i in range(60)])),
    "quoted.csv": "\n".join(",".join(f'"{count}"' for count in row) for row in BASE).encode(),
    "quoted-header.csv": csv(NAMED, index=False, quoting=1),
    "crlf.csv": lines(BASE, end="\r\n").encode(),
    "semicolons.csv": lines(BASE, ";").encode(),
    "tabs.tsv": lines(BASE, "\t").encode(),
    "bars.txt": lines(BASE, "|").encode(),
    "blanks.txt": lines(BASE, " ").encode(),
    "blanks-after-commas.csv": lines(BASE, ", ").encode(),
    "decimal-points.csv": csv(FRAME.astype(float), index=False, header=False),
    "decimal-commas.csv": csv(FRAME.astype(float), index=False, header=False, sep=";", decimal=","),
    "savetxt.txt": text(),
    "savetxt.csv": text(fmt="%d", delimiter=","),
    "savetxt-comment.csv": text(fmt="%d", delimiter=",", header="votes of 50 parties"),
    "savetxt-names.csv": text(fmt="%d", delimiter=",", header=",".join(CLASSES)),
    "savetxt-numbers.csv": text(fmt="%d", delimiter=",", header=",".join(map(str, range(10)))),
    "sign-as-index.csv": csv(NAMED.rename_axis("#")),
    "three-decimals.csv": text(fmt="%.3f", delimiter=","),
    "three-decimal-commas.csv": text(fmt="%.3f", delimiter=";").replace(b".", b","),
    "blank-lines.csv": b"\n" + lines(BASE).replace("\n", "\n\n").encode() + b"\n\n",
    "empty-rows-at-the-end.csv": lines(BASE).encode() + b",,,,,,,,,\n,,,,,,,,,\n",
    "commas-at-the-end.csv": lines(BASE, end=",\n").encode(),
    "commas-at-the-end-and-header.csv": (",".join(CLASSES) + ",\n" + lines(BASE, end=",\n")).encode(),
    "words-of-their-own.csv": csv(NAMED.set_axis(list("abcdefghij"), axis=1), index=False),
    "votes_1-to-10.csv": csv(NAMED.set_axis([f"votes_{i}" for i in range(1, 11)], axis=1), index=False),
    "short-names.csv": csv(NAMED.set_axis([f"n{i}" for i in range(10)], axis=1), index=False),
    "class-order.csv": csv(NAMED[CLASSES[::-1]], index=False),
    "true-label.csv": csv(NAMED.assign(true_label=RIGHT), index=False),
    "answered.csv": csv(NAMED.assign(answered=True), index=False),
    "pandas-and-role.csv": csv(FRAME.assign(true_label=RIGHT)),
    "pandas.parquet": parquet(NAMED),
    "pandas-numbers.parquet": parquet(FRAME.rename(columns=str)),
    "pandas-float-index.parquet": parquet(NAMED.set_axis(np.arange(60) / 2.0)),
    "pandas-named-index.parquet": parquet(NAMED.set_axis(pandas.Index([f"q{i}" for i in range(60)], name="query"))),
    "decimals.parquet": arrow({name: [Decimal(int(v)) for v in BASE[:, i]] for i, name in enumerate(CLASSES)}),
    "small-integers.parquet": arrow({name: pa.array(BASE[:, i], pa.uint8()) for i, name in enumerate(CLASSES)}),
    "votes.npz": npz(votes=BASE),
    "any-name.npz": npz(arr_0=BASE.astype(np.float32)),
    "with-others.npz": npz(votes=BASE, labels=RIGHT, sigma=np.array(7.0)),
}


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", RIGHT_60)
def test_sixty_queries_of_ten_classes_stay_what_they_are(tmp_path: Path, name: str) -> None:
    found = read_votes(written(tmp_path, name, RIGHT_60[name]))
    assert np.array_equal(found.counts, BASE)
    assert (found.true_labels is not None) == ("true-label" in name or "role" in name)
    if found.true_labels is not None:
        assert np.array_equal(found.true_labels, RIGHT)
    assert (found.answered is not None) == ("answered" in name)


def test_a_file_of_the_base_has_the_known_epsilons(tmp_path: Path) -> None:
    """Sigma 7, delta 1e-5: 7.4188 whatever the votes, 1.9431 by Theorem 6, 1.5785 exact."""
    votes = read_votes(written(tmp_path, "index.csv", RIGHT_60["pandas-index.csv"]))
    epsilon = analyse(votes, GNMax(7.0), 1e-5).epsilon
    assert epsilon["data_independent"]["pld"] == pytest.approx(7.4188, abs=5e-4)
    assert epsilon["data_dependent"]["theorem6"] == pytest.approx(1.9431, abs=5e-4)
    assert epsilon["data_dependent"]["exact"] == pytest.approx(1.5785, abs=5e-4)


def test_a_byte_order_mark_costs_no_query(tmp_path: Path) -> None:
    """20 queries at sigma 10 and delta 1e-5 cost 2.5944; a lost one would make it 2.5205."""
    rows = lines(BASE[:20]).encode()
    for name, content in (("plain.csv", rows), ("bom.csv", b"\xef\xbb\xbf" + rows)):
        found = analyse(read_votes(written(tmp_path, name, content)), GNMax(10.0), 1e-5)
        assert found.queries == 20
        assert found.epsilon["data_independent"]["pld"] == pytest.approx(2.5944, abs=5e-4)


TWELVE = np.array([[0, 1, 2], [3, 0, 0], [1, 1, 1], [2, 1, 0], [0, 3, 0], [1, 0, 2]])
REFUSED: dict[str, tuple[bytes, str]] = {
    "label.csv": (csv(NAMED.assign(label=RIGHT), index=False), "column 'label' is no class by its name: .* true_label"),
    "total.csv": (csv(NAMED.assign(total=50), index=False), "column 'total' is no class by its name"),
    "id.csv": (csv(NAMED.reset_index(names="id"), index=False), "column 'id' is no class by its name"),
    "id-of-words.csv": (b"id,cat,dog\n1,2,3\n", "column 'id' is no class by its name"),
    "sum-of-words.csv": (("cat,dog,alles\n" + "2,9,11\n8,3,11\n0,4,4\n1,9,10\n5,5,10\n").encode(),
                         "column 'alles' adds up the others"),
    "rows-of-words.csv": (lines(np.array([["nummer", "cat", "dog"], *([i, 9 - i, i] for i in range(6))])).encode(),
                          "column 'nummer' numbers the rows"),
    "rows-headless.csv": (lines(np.column_stack([np.arange(60), BASE])).encode(), "column 1 numbers the rows"),
    "sum-headless.csv": (lines(np.column_stack([BASE, BASE.sum(axis=1)])).encode(), "column 11 adds up the others"),
    "winner-headless.csv": (lines(np.column_stack([BASE, RIGHT])).encode(), "column 11 tells which of the others"),
    "winner.csv": (
        csv(NAMED.set_axis(list("abcdefghij"), axis=1).assign(Gewinner=RIGHT + 1), index=False),
        "column 'Gewinner' tells which of the others is the largest",
    ),
    "most.csv": (
        csv(NAMED.set_axis(list("abcdefghij"), axis=1).assign(meiste=BASE.max(axis=1)), index=False),
        "column 'meiste' is the largest of the others",
    ),
    "some-numbers.csv": (("2,3,5,8\n" + "20,10,15,5\n" * 6).encode(), "may number the classes .*--header"),
    "commented-query.csv": (b"#3,4\n1,2\n", "line 1 begins with # and holds counts"),
    "thousands-points.csv": (b"1.000;2.000\n3.000;4.000\n", r"line 1 holds 1\.000, which may be 1000 or 1\.000: save"),
    "thousands-mixed.csv": (b"0.000;2\n3;4\n", r"line 1 holds 0\.000"),
    "thousands-commas.csv": (b"29,000;9,000\n", r"line 1 holds 29,000, which may be 29000 or 29\.000"),
    "either.csv": (lines(TWELVE).encode(), "may number the classes or be a query's counts: --header yes or"),
    "few-rows.csv": (b"0,1,2\n4,0,0\n0,5,0\n", "may number the classes .*--header"),
    "one-row.csv": (b"0,1,2\n", "may number the classes .*--header"),
    "one-and-two.csv": (b"1,2\n10,5\n3,12\n4,11\n5,10\n6,9\n", "may number the classes .*--header"),
    "falling-numbers.csv": (("5,3,1\n" + "10,6,4\n3,3,14\n" * 6).encode(), "may number the classes .*--header"),
    "tens-and-two-rows.csv": (b"10,20,30\n5,5,10\n15,4,1\n", "may number the classes .*--header"),
    "nameless-class.csv": (b",b,c\n10,5,5\n3,12,5\n0,0,20\n", "column 1 has no name, and may be an index or a class"),
    "record-number.csv": (csv(NAMED.set_axis(list("abcdefghij"), axis=1).assign(MRN=np.arange(60) + 1000),
                              index=False),
                          "column 'MRN' is no class by its name"),
    "numbered-from-1000.csv": (csv(NAMED.set_axis(list("abcdefghij"), axis=1).assign(Akte=np.arange(1000, 1060)),
                                   index=False), r"column 'Akte' numbers the rows \(1000, 1001"),
    "shuffled-numbers.csv": (csv(NAMED.set_axis(list("abcdefghij"), axis=1).assign(
        Akte=np.random.default_rng(3).permutation(60) + 4711), index=False), "column 'Akte' is of another kind"),
    "gold.csv": (csv(NAMED.set_axis(list("abcdefghij"), axis=1).assign(gold=RIGHT), index=False),
                 "column 'gold' is no class by its name"),
    "another-kind.csv": (csv(NAMED.set_axis(list("abcdefghij"), axis=1).assign(odd=[3, 1] * 30), index=False),
                         "column 'odd' is of another kind: without it all queries have 50 votes"),
    "odd-numbers.csv": (csv(NAMED.set_axis(list("abcdefghij"), axis=1).assign(k=2 * np.arange(60) + 1)[:12],
                            index=False), "column 'k' is of another kind"),
    "flags.parquet": (arrow({"class 0": [True, False], "class 1": [False, True]}),
                      "column 'class 0' holds true and false"),
    "hello.npy": (b"hello", r"no archive of numbers \(.*\): write it with numpy.savez"),
    "one-to-ten.csv": (csv(FRAME.rename(columns=lambda i: i + 1), index=False), "may number the classes .*--header"),
    "twice.csv": (b"a,a,b\n1,2,3\n", "column 'a' is there twice"),
    "twice-but-for-blanks.csv": (b"a, a,b\n1,2,3\n", "column 'a' is there twice"),
    "missing-class.csv": (csv(NAMED.drop(columns="class 4"), index=False), r"one is missing \(4\)"),
    "nameless-in-the-middle.csv": (b"a,,b\n1,2,3\n", "has an empty cell: name each column"),
    "nameless-that-repeats.csv": (b",0,1\n7,2,3\n7,3,2\n", "column 1 has no name, and may be an index or a class"),
    "hole-in-the-first-line.csv": (b",3,4\n1,2,3\n", "has an empty cell"),
    "na-in-the-first-line.csv": (b"NA,3,4\n1,2,3\n", "holds names and numbers: --header yes or --header no"),
    "empty.csv": (b"", "no query in it"),
    "blank.csv": (b" \n\n", "no query in it"),
    "header.csv": (b"a,b\n", "no query in it"),
    "words.csv": (b"a,b\n1,x\n", r"column 'b' holds 'x' \(line 2\): counts are whole numbers"),
    "hole.csv": (b"4,2\n3,\n", r"column 2 has an empty cell \(line 2\)"),
    "nan.csv": (b"4,2\n3,nan\n", "query 1, class 1, is no number"),
    "fraction.csv": (b"4,2\n3,0.5\n", "query 1, class 1, is no whole number"),
    "fraction-comma.csv": (b"4;2\n3;0,5\n", "column 2 holds '0,5'"),
    "thousands.csv": (b'"1,234",2\n3,4\n', "line 1 holds 1,234, which may be 1234"),
    "underscores.csv": (b"4,2\n1_0,2\n", "column 1 holds '1_0'"),
    "negative.csv": (b"4,2\n3,-1\n", "is negative"),
    "huge.csv": (b"4,2\n3,1e300\n", r"larger than 2\^31"),
    "nobody.csv": (b"4,2\n0,0\n", "nobody voted on query 1"),
    "ragged.csv": (b"1,2\n3\n", "line 2 has 1 cells, the first line 2"),
    "one-column.csv": (b"1\n2\n", "no table"),
    "binary.csv": (b"\xff\xfe\x00", "text is not UTF-8"),
    "latin1.csv": ("größe,b\n1,2\n".encode("latin1"), "text is not UTF-8"),
    "zip.csv": (b"PK\x03\x04", "an archive or a workbook"),
    "gzip.csv": (b"\x1f\x8b\x08", "gzipped"),
    "empty.npz": (b"", "no archive of numbers"),
    "text.npz": (b"1,2", "no archive of numbers"),
    "two.npz": (npz(a=BASE, b=BASE), "holds the arrays a, b; the one with the votes must be called votes"),
    "both.npz": (npz(votes=BASE, counts=BASE), "holds the arrays votes, counts"),
    "flat.npz": (npz(votes=BASE[0]), r"shape \(10,\)"),
    "records.npz": (npz(votes=np.zeros((2, 2), [("a", int)])), "counts are whole numbers"),
    "empty.parquet": (b"", "no Parquet file"),
    "null.parquet": (arrow({"class 0": [1, None], "class 1": [2, 3]}), "column 'class 0' has no value in row 1"),
    "text.parquet": (arrow({"class 0": ["a", "b"], "class 1": [2, 3]}), "column 'class 0' holds 'a'"),
    "flags.csv": (b"a,b,answered\n1,2,7\n", "answered: each value is 0 or 1"),
    "labels.csv": (b"a,b,true_label\n1,2,2\n", "labels lie between 0 and 1"),
    "votes.xlsx": (b"1,2", "votes are read from .csv, .tsv, .txt, .parquet, .npz, .npy files or from a run's"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_or_could_be_either_is_one_line(tmp_path: Path, name: str) -> None:
    content, says = REFUSED[name]
    with pytest.raises(InputError, match=says) as caught:
        read_votes(written(tmp_path, name, content))
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_who_knows_can_tell_what_the_first_line_is(tmp_path: Path) -> None:
    path = written(tmp_path, "either.csv", lines(TWELVE).encode())
    assert np.array_equal(read_votes(path, header=False).counts, TWELVE)
    assert np.array_equal(read_votes(path, header=True).counts, TWELVE[1:])
    path = written(tmp_path, "one-to-ten.csv", csv(FRAME.rename(columns=lambda i: i + 1), index=False))
    assert np.array_equal(read_votes(path, header=True).counts, BASE)
    with pytest.raises(InputError, match="column 1 holds 'a'"):
        read_votes(written(tmp_path, "named.csv", b"a,b\n1,2\n"), header=False)
    with pytest.raises(InputError, match=r"one is missing \(0\)"):
        read_votes(written(tmp_path, "data.csv", b"5,3\n1,2\n"), header=True)


def test_a_single_line_of_numbers_is_a_query(tmp_path: Path) -> None:
    assert read_votes(written(tmp_path, "one.csv", b"0,2,1\n")).counts.tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("index", ["7,0,3", "a,b,c", "2019-01-01,2019-01-02,2019-01-03"])
def test_an_index_of_few_rows_is_one_only_where_it_numbers_them(tmp_path: Path, index: str) -> None:
    rows = [f"{label},{row}" for label, row in zip(index.split(","), ("4,1", "0,5", "3,2"), strict=True)]
    path = written(tmp_path, "index.csv", "\n".join([",u,v", *rows]).encode())
    if index[0] == "7":
        with pytest.raises(InputError, match="column 1 has no name, and may be an index or a class"):
            read_votes(path)
    else:
        assert read_votes(path).counts.tolist() == [[4, 1], [0, 5], [3, 2]]


def test_half_precision_is_read_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "votes.npy"
    np.save(path, np.array([[3, 2], [60_000, 50_000]], np.float16))
    assert read_votes(path).counts[:, 0].tolist() == [3, 60_000]


def test_labels_are_the_classes_names_or_numbers(tmp_path: Path) -> None:
    found = read_votes(written(tmp_path, "a.csv", b"cat,dog,true_label\n1,2,dog\n2,1,cat\n"))
    assert found.true_labels is not None
    assert found.true_labels.tolist() == [1, 0]
    found = read_votes(written(tmp_path, "b.csv", b"class 1,class 2,true_label\n1,2,2\n2,1,1\n"))
    assert found.true_labels is not None
    assert found.true_labels.tolist() == [1, 0]


def test_flags_are_words_or_numbers(tmp_path: Path) -> None:
    found = read_votes(written(tmp_path, "a.csv", b"a,b,answered\n1,2,True\n2,1,no\n2,1,0\n"))
    assert found.answered is not None
    assert found.answered.tolist() == [True, False, False]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 60), min_size=3, max_size=3).filter(any), min_size=1, max_size=8),
    st.sampled_from([",", ";", "\t", "|"]),
    st.booleans(),
)
def test_no_headless_file_loses_or_invents_a_query(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], separator: str, mark: bool
) -> None:
    content = ("\ufeff" if mark else "") + lines(np.array(rows), separator)
    path = written(tmp_path_factory.mktemp("votes"), "votes.csv", content.encode())
    a, b, c = rows[0]
    ambiguous = a < b < c or a > b > c
    strange = len(rows) >= 5 and any(
        all(b[i] - a[i] == 1 for a, b in pairwise(rows))
        or all(2 * row[i] == sum(row) for row in rows)
        or len({sum(row) - row[i] for row in rows}) == 1
        for i in range(3)
    )
    if not ambiguous and not strange:
        assert read_votes(path).counts.tolist() == rows
    if not strange:
        assert read_votes(path, header=False).counts.tolist() == rows


def test_a_large_file_is_read_in_seconds(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(1, 50, (50_000, 10))
    path = written(tmp_path, "large.csv", lines(rows).encode())
    assert np.array_equal(read_votes(path).counts, rows)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_votes(tmp_path / "none.csv")


def test_both_commands_share_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from capcsim.accounting import account_of, tune_on

    path = written(tmp_path, "either.csv", lines(TWELVE).encode())
    commands: list[Callable[..., object]] = [
        lambda **more: account_of(path, GNMax(7.0), 1e-5, **more),
        lambda **more: tune_on(path, 0.2, None, **more),
    ]
    for command in commands:
        with pytest.raises(InputError, match="--header"):
            command()
        command(header=False)
