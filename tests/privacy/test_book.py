import multiprocessing
import os
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from capcsim.errors import BookUnavailable, RecordError
from capcsim.journal import Mark
from capcsim.privacy.book import BOOK, KEY, Book, most_exposed
from capcsim.privacy.history import TEST_ONLY, WHOLE, History
from capcsim.privacy.mechanisms import Adjacency, ConfidentGNMax, GNMax, LNMax, describe, from_description

SEVEN = GNMax(7.0)
X = np.arange(24, dtype=np.float32).reshape(6, 4) / 24
START, ONE, TWO = Mark(1, "header"), Mark(2, "one"), Mark(3, "two")


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "state")


def enter(book: Book, run: str, parties: list[list[int]], mechanism: GNMax = SEVEN, labels: int = 0) -> None:
    """A run whose parties hold these rows of X, and that charged so many labels with everybody counted."""
    held = [book.digests(X[rows]) for rows in parties]
    book.register(run, f"run {run}", mechanism, 1e-5, held, START)
    events = Counter({WHOLE: labels})
    book.note(run, START, ONE, dict.fromkeys(range(len(parties)), events), events)


def test_a_record_is_known_again_in_another_run_party_and_order(book: Book) -> None:
    enter(book, "a", [[0, 1], [2, 3]], labels=5)
    enter(book, "b", [[3, 4], [5, 0]], labels=7)
    known = book.histories()
    spent = [known[digest].labels for digest in book.digests(X)]
    assert spent == [12, 5, 5, 12, 7, 7]
    assert [known[digest].labels for digest in book.digests(X) if digest in book.histories("a")]
    assert sorted(history.labels for history in book.histories(without="a").values()) == [7] * 4
    assert most_exposed(known.values(), 1e-5).labels == 12


def test_a_record_that_two_parties_hold_moves_two_votes_at_once(book: Book) -> None:
    """Counting each party's queries apart would add epsilon up; two votes in one query cost four times the rho."""
    enter(book, "a", [[0, 1], [0, 2]], labels=5)
    known = book.histories()
    both, one = (known[digest] for digest in book.digests(X[[0, 1]]))
    assert both == History().plus(GNMax(7.0, moved_votes=2), {WHOLE: 5})
    assert one == History().plus(SEVEN, {WHOLE: 5})
    assert both.epsilon(1e-5) > 1.9 * one.epsilon(1e-5)


def test_digests_depend_on_every_feature_and_on_the_key_and_on_nothing_else(book: Book, tmp_path: Path) -> None:
    mine = book.digests(X)
    assert len(set(mine)) == len(X)
    assert Book(tmp_path / "state").digests(X[::-1])[::-1] == mine
    changed = X.copy()
    changed[2, 3] = np.nextafter(changed[2, 3], 1)
    assert [a == b for a, b in zip(book.digests(changed), mine, strict=True)] == [True, True, False, True, True, True]
    assert not set(Book(tmp_path / "other").digests(X)) & set(mine)
    zeros = np.array([[0.0, np.nan], [-0.0, -np.nan]], np.float32)
    assert len(set(book.digests(zeros))) == 1


def test_the_book_names_nobody(book: Book) -> None:
    """Neither a feature nor a plain hash of it is in the files, which only their owner may read."""
    enter(book, "a", [[0, 1], [2, 3]], labels=5)
    for path in book.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert X[1].tobytes() not in path.read_bytes()


def test_a_note_that_does_not_follow_the_last_one_is_refused(book: Book) -> None:
    enter(book, "a", [[0], [1]], labels=1)
    spent = {0: Counter({WHOLE: 2}), 1: Counter({WHOLE: 2})}
    with pytest.raises(RecordError, match="a copy of this run has gone on"):
        book.note("a", START, TWO, spent, spent[0])
    assert book.mark("a") == ONE
    assert {history.labels for history in book.histories().values()} == {1}
    book.note("a", ONE, TWO, spent, spent[0])
    assert book.mark("a") == TWO
    assert book.mark("unknown") is None


def test_a_note_is_refused_where_others_took_from_the_same_records_meanwhile(book: Book) -> None:
    enter(book, "mine", [[0], [1]])
    enter(book, "stranger", [[4], [5]], labels=9)
    before = book.others("mine")
    assert before == 0
    enter(book, "other", [[1], [2]], labels=3)
    assert book.others("mine") == 3
    with pytest.raises(RecordError, match="another run took from the same records"):
        book.note("mine", ONE, TWO, {}, Counter(), others=before)
    book.note("mine", ONE, TWO, {}, Counter(), others=3)
    assert book.sharing("mine") == 1


@pytest.mark.parametrize(
    "mechanism",
    [GNMax(7.5, 3, Adjacency.ADD_REMOVE), LNMax(20.0, 2), ConfidentGNMax(40.0, 200, 150.0)],
    ids=["gnmax", "lnmax", "confident"],
)
def test_a_mechanism_comes_back_from_its_description(mechanism: GNMax | LNMax | ConfidentGNMax) -> None:
    assert from_description(describe(mechanism)) == mechanism


def test_runs_are_told_in_their_order(book: Book) -> None:
    book.register("a", "first", ConfidentGNMax(7.0, 30, 20.0), 1e-5, [book.digests(X[:2])], START)
    book.note("a", START, ONE, {0: Counter({WHOLE: 2, TEST_ONLY: 4})}, Counter({WHOLE: 2, TEST_ONLY: 4}))
    enter(book, "b", [[0]], labels=3)
    assert [(run.title, run.spent.labels) for run in book.runs()] == [("first", 2), ("run b", 3)]
    assert book.parties("b") == [book.digests(X[:1])]
    with pytest.raises(RecordError, match="knows no run c"):
        book.parties("c")


def _enter_and_note(folder: Path, number: int) -> None:
    book = Book(folder)
    run = f"run {number}"
    book.register(run, run, SEVEN, 1e-5, [book.digests(X)], START)
    mark = START
    for label in range(1, 11):
        after = Mark(mark.count + 1, f"{number} {label}")
        book.note(run, mark, after, {0: Counter({WHOLE: label})}, Counter({WHOLE: label}))
        mark = after


def test_many_processes_write_one_book(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        pool.starmap(_enter_and_note, [(tmp_path / "state", number) for number in range(4)])
    assert {history.labels for history in Book(tmp_path / "state").histories().values()} == {40}


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_a_damaged_book_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / BOOK).write_bytes(content)
    if content:
        with pytest.raises(BookUnavailable, match=r"book\.sqlite: cannot be read or written: file is not a database"):
            Book(tmp_path)
    else:
        assert Book(tmp_path).runs() == []


@pytest.mark.parametrize("key", [None, b"", b"x" * 31, b"x" * 32])
def test_a_book_whose_key_is_gone_or_another_is_refused(book: Book, key: bytes | None) -> None:
    """With another key every record would be a new one, and an enforced budget begin anew."""
    enter(book, "a", [[0, 1]], labels=3)
    path = book.path.parent / KEY
    right = path.read_bytes()
    path.unlink()
    if key is not None:
        path.write_bytes(key)
    with pytest.raises(RecordError, match=r"book\.key: is not the key that book\.sqlite .* put that file back"):
        Book(book.path.parent)
    path.write_bytes(right)
    assert Book(book.path.parent).histories() == book.histories()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BookUnavailable, match="cannot be written: Not a directory"):
        Book(tmp_path / "file" / "state")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BookUnavailable, match="Permission denied"):
        Book(tmp_path)
