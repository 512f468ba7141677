import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from capcsim.errors import RecordError
from capcsim.journal import TORN, Journal, Mark, reaches, read_journal

ENTRIES = [{"kind": "reserve", "query": number} for number in range(4)]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for entry in ENTRIES:
            journal.append(entry)
    return path


def test_entries_come_back_in_order(whole: Path) -> None:
    assert read_journal(whole) == ENTRIES
    with Journal(whole) as journal:
        journal.append({"kind": "more"})
    assert read_journal(whole) == [*ENTRIES, {"kind": "more"}]


def test_every_cut_keeps_the_whole_lines_and_notes_the_torn_one(whole: Path) -> None:
    content = whole.read_bytes()
    for length in range(len(content) + 1):
        whole.write_bytes(content[:length])
        lines = (content + b" ")[: length + 1].count(b"\n")  # a line that lacks only its newline is whole
        torn = length > 0 and b"\n" not in content[length - 1 : length + 1]
        expected = ENTRIES[:lines] + [TORN] * torn
        assert read_journal(whole) == expected
        with Journal(whole) as journal:
            assert journal.entries == expected
            journal.append({"kind": "after"})
        assert read_journal(whole) == [*expected, {"kind": "after"}]


def test_a_cut_acknowledgement_is_acknowledged_again(whole: Path) -> None:
    torn = whole.read_bytes()[:-5]
    whole.write_bytes(torn)
    with Journal(whole):
        pass
    acknowledged = whole.read_bytes()
    for length in range(len(torn), len(acknowledged)):
        whole.write_bytes(acknowledged[:length])
        with Journal(whole) as journal:
            journal.append({"kind": "after"})
        assert read_journal(whole) == [*ENTRIES[:3], TORN, {"kind": "after"}]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], lines[2], lines[3]],
        lambda lines: [lines[0], lines[1].replace(b'"query": 1', b'"query": 7'), *lines[2:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
    ],
    ids=["removed", "changed", "swapped", "doubled"],
)
def test_damage_in_the_middle_is_an_error_and_not_a_loss(
    whole: Path, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    damaged = b"".join(damage(whole.read_bytes().splitlines(keepends=True)))
    whole.write_bytes(damaged)
    with pytest.raises(RecordError, match="damaged"):
        Journal(whole)
    assert whole.read_bytes() == damaged


def test_a_second_writer_is_refused(whole: Path) -> None:
    with Journal(whole), pytest.raises(RecordError, match="another process"):
        Journal(whole)
    with Journal(whole) as journal:
        assert journal.entries == ENTRIES


def test_a_line_is_on_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    write, sync = os.write, os.fsync
    with Journal(tmp_path / "journal.jsonl") as journal:
        monkeypatch.setattr(os, "write", lambda *a: (calls.append("write"), write(*a))[1])
        monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("sync"), sync(*a))[1])
        journal.append({"kind": "x"})
    assert calls == ["write", "sync"]


def test_an_unreadable_journal_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nothing\.jsonl: cannot be read"):
        read_journal(tmp_path / "nothing.jsonl")


def test_a_mark_is_reached_by_what_comes_after_it_and_by_nothing_else(whole: Path, tmp_path: Path) -> None:
    with Journal(whole) as journal:
        early = journal.mark
        journal.append({"kind": "more"})
        late = journal.mark
    assert (early.count, late.count) == (4, 5)
    assert reaches(whole, early)
    assert reaches(whole, late)
    shorter, other = tmp_path / "shorter.jsonl", tmp_path / "other.jsonl"
    shorter.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:4]))
    assert reaches(shorter, early)
    assert not reaches(shorter, late)
    with Journal(other) as journal:
        for entry in [*ENTRIES[:3], {"kind": "else"}, {"kind": "more"}]:
            journal.append(entry)
    assert not reaches(other, early)
    assert not reaches(tmp_path / "gone.jsonl", early)
    assert reaches(tmp_path / "gone.jsonl", Mark())


def test_a_torn_line_and_its_acknowledgement_move_the_mark_on(whole: Path) -> None:
    with Journal(whole) as journal:
        three = Mark(3, journal._heads[2])
    whole.write_bytes(whole.read_bytes()[:-5])
    assert reaches(whole, three)
    with Journal(whole) as journal:
        assert journal.mark.count == 4
        assert journal.entries[-1] == TORN
        after = journal.mark
    assert reaches(whole, three)
    assert reaches(whole, after)


def test_a_full_disk_is_a_clear_error_and_leaves_a_journal_that_goes_on(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def half(handle: int, data: bytes) -> int:
        if len(data) > 10:
            return write(handle, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(whole) as journal:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(RecordError, match=r"journal\.jsonl: cannot be written: No space left on device; make room"):
            journal.append({"kind": "more", "what": "a line of more than twenty bytes"})
        assert journal.entries == ENTRIES
    monkeypatch.undo()
    with Journal(whole) as journal:
        assert journal.entries == [*ENTRIES, TORN]
