"""The book of runs on this host: where the ledger of each one stands, and what its labels cost each training record.

A run's own ledger cannot tell that a copy of it has gone on elsewhere, nor what other runs took from the same people.
The book lies in the user's state folder, apart from all runs. It knows a training record by a keyed digest of its
features, so that neither another seed, nor one new patient, nor another name of a file or column makes it a new one. It
holds neither features nor labels; its key lies beside it and is made on this host.

Where detection ends: whoever removes the book, or puts an old copy of it in place, or runs under another user or on
another host, is not noticed here; nor are records whose features were scaled or rounded anew, or have another column.
"""

import hmac
import json
import os
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import BookUnavailable, RecordError
from capcsim.journal import MAKE_ROOM, Mark
from capcsim.privacy.history import TEST_ONLY, WHOLE, History
from capcsim.privacy.mechanisms import Mechanism, describe, from_description
from capcsim.privacy.tally import Events

BOOK, KEY = "book.sqlite", "book.key"
DIGEST_BYTES, KEY_BYTES = 16, 32
BUSY_S = 30.0
"""How long one process waits for another's entry."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS book (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, started TEXT NOT NULL, title TEXT NOT NULL, mechanism TEXT NOT NULL, delta REAL NOT NULL,
    count INTEGER NOT NULL, head TEXT NOT NULL, answered INTEGER NOT NULL, unanswered INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS spent (
    run TEXT NOT NULL, party INTEGER NOT NULL, answered INTEGER NOT NULL, unanswered INTEGER NOT NULL,
    PRIMARY KEY (run, party)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    digest BLOB NOT NULL, run TEXT NOT NULL, party INTEGER NOT NULL, PRIMARY KEY (digest, run, party)) WITHOUT ROWID;
"""
HISTORIES = """
SELECT records.digest, runs.mechanism, COUNT(*), MAX(spent.answered), MAX(spent.unanswered), runs.answered,
    runs.unanswered
FROM records JOIN spent USING (run, party) JOIN runs ON runs.id = records.run
WHERE runs.id != ? GROUP BY records.digest, runs.id
"""
SHARING = """
FROM runs WHERE answered + unanswered > 0 AND id IN (
    SELECT theirs.run FROM records AS ours JOIN records AS theirs USING (digest) WHERE ours.run = ?)
"""

Digests = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class BookedRun:
    """One run: when it began, its delta, and what it took from each of its answering parties' records at most."""

    identity: str
    started: str
    title: str
    delta: float
    spent: History


class Book:
    """The book in a folder, made with it; every method raises BookUnavailable where it cannot be read or written.

    Raises RecordError where its key is gone or another.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / BOOK
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._key = _key(folder / KEY)
            if not self.path.exists():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise BookUnavailable(f"{error.filename or folder}: cannot be written: {error.strerror}") from None
        # An identity by the key: under another one the book would know nobody again.
        identity = hmac.digest(self._key, b"identity", "sha256").hex()[:16]
        self.identity = self._found() or self._begin(identity)
        if self.identity != identity or len(self._key) != KEY_BYTES:
            raise RecordError(
                f"{folder / KEY}: is not the key that {BOOK} beside it was begun with, without which no record in it is"
                " known again; put that file back from a copy, or remove both to begin another book"
            )

    def _found(self) -> str:
        """The book's identity; empty where it has no table yet."""
        with self._reading() as database:
            there = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'book'").fetchone()
            return str(database.execute("SELECT id FROM book").fetchone()[0]) if there else ""

    def _begin(self, identity: str) -> str:
        with self._writing() as database:
            for statement in SCHEMA.split(";"):
                database.execute(statement)
            if database.execute("SELECT id FROM book").fetchone() is None:
                database.execute("INSERT INTO book VALUES (?)", (identity,))
        return self._found()

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a folder has a book."""
        return (folder / BOOK).exists()

    def digests(self, x: NDArray[np.float32]) -> list[bytes]:
        """What stands in the book for each of the records float32[N, *shape]; a missing feature is one value."""
        # Two zeros, and many NaNs, are the same measurement.
        rows = np.where(np.isnan(x), np.float32(np.nan), x + np.float32(0)).astype("<f4")
        return [hmac.digest(self._key, row.tobytes(), "sha256")[:DIGEST_BYTES] for row in rows]

    def register(
        self, run: str, title: str, mechanism: Mechanism, delta: float, records: Sequence[Digests], mark: Mark
    ) -> None:
        """Begin a run's entry, whose ledger stands at `mark`; `records[p]` are those of party p."""
        told = json.dumps(describe(mechanism), sort_keys=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        held = [(digest, run, party) for party, digests in enumerate(records) for digest in digests]
        with self._writing() as database:
            database.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0)",
                (run, now, title, told, delta, mark.count, mark.head),
            )
            database.executemany("INSERT INTO spent VALUES (?, ?, 0, 0)", ((run, p) for p in range(len(records))))
            database.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?)", held)

    def mark(self, run: str) -> Mark | None:
        """Where the run's ledger stood when it was last noted; None for a run that the book does not know."""
        with self._reading() as database:
            row = database.execute("SELECT count, head FROM runs WHERE id = ?", (run,)).fetchone()
        return None if row is None else Mark(*row)

    def delta(self, run: str) -> float:
        """The delta that a run was begun with."""
        with self._reading() as database:
            return float(database.execute("SELECT delta FROM runs WHERE id = ?", (run,)).fetchone()[0])

    def sharing(self, run: str) -> int:
        """How many runs, this one among them, have taken something from a record of this one."""
        with self._reading() as database:
            return int(database.execute(f"SELECT COUNT(*) {SHARING}", (run,)).fetchone()[0])

    def others(self, run: str) -> int:
        """Queries so far of other runs that hold a record of this one: as long as it stays, they took no more."""
        with self._reading() as database:
            return _others(database, run)

    def note(
        self, run: str, before: Mark, now: Mark, spent: Mapping[int, Events], total: Events, others: int | None = None
    ) -> None:
        """A run's ledger went on from one mark to another; `spent` is what each party's records lost so far.

        `total` are all the run's charges. Raises RecordError, changing nothing, where the book has another mark than
        `before`: then a copy of the run has gone on; or where `others` is given and is no longer right.
        """
        with self._writing() as database:
            if others is not None and others != _others(database, run):
                raise RecordError(f"{self.path}: another run took from the same records; give the same command again")
            changed = database.execute(
                "UPDATE runs SET count = ?, head = ?, answered = ?, unanswered = ?"
                " WHERE id = ? AND count = ? AND head = ?",
                (now.count, now.head, *_numbers(total), run, before.count, before.head),
            )
            if changed.rowcount != 1:
                raise RecordError(f"{self.path}: a copy of this run has gone on; go on with the one that is ahead")
            rows = ((*_numbers(events), run, party) for party, events in spent.items())
            database.executemany("UPDATE spent SET answered = ?, unanswered = ? WHERE run = ? AND party = ?", rows)

    def histories(self, without: str = "") -> dict[bytes, History]:
        """What each record lost in all runs but one.

        Where several parties of a run hold the same record, a query that counts them all moves as many votes at once:
        it is charged as that, for all of the run's queries.
        """
        found: dict[bytes, History] = {}
        with self._reading() as database:
            for digest, told, parties, *numbers in database.execute(HISTORIES, (without,)):
                mechanism = from_description(json.loads(told))
                answered, unanswered = numbers[:2] if parties == 1 else numbers[2:]
                if parties > 1:
                    mechanism = replace(mechanism, moved_votes=parties * mechanism.moved_votes)
                events = {WHOLE: answered, TEST_ONLY: unanswered}
                found[digest] = found.get(digest, History()).plus(mechanism, events)
        return found

    def parties(self, run: str) -> list[list[bytes]]:
        """The records of each party of a run; raises RecordError for a run that the book does not know."""
        with self._reading() as database:
            rows = database.execute("SELECT party, digest FROM records WHERE run = ?", (run,)).fetchall()
            number = database.execute("SELECT COUNT(*) FROM spent WHERE run = ?", (run,)).fetchone()[0]
        if not number:
            raise RecordError(f"{self.path}: knows no run {run}; it began on another host, or its noise was seeded")
        found: list[list[bytes]] = [[] for _ in range(number)]
        for party, digest in rows:
            found[party].append(digest)
        return found

    def runs(self) -> list[BookedRun]:
        """Every run, in the order in which they began."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT id, started, title, mechanism, delta, MAX(spent.answered), MAX(spent.unanswered)"
                " FROM runs JOIN spent ON spent.run = runs.id GROUP BY runs.id ORDER BY started, runs.rowid"
            ).fetchall()
        return [
            BookedRun(run, started, title, delta, History().plus(_mechanism(told), {WHOLE: full, TEST_ONLY: tests}))
            for run, started, title, told, delta, full, tests in rows
        ]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone; it is on disk when the block ends, or nothing of it."""
        with self._reading() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                # A full disk ends the transaction by itself.
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)) as database:
                yield database
        except sqlite3.Error as error:
            raise BookUnavailable(f"{self.path}: cannot be read or written: {error}; {MAKE_ROOM}") from None


def most_exposed(histories: Iterable[History], delta: float) -> History:
    """The one with the largest epsilon; an empty one where there is none."""
    return max(set(histories), key=lambda history: history.epsilon(delta), default=History())


def _others(database: sqlite3.Connection, run: str) -> int:
    row = database.execute(f"SELECT TOTAL(answered + unanswered) {SHARING} AND id != ?", (run, run)).fetchone()
    return int(row[0])


def _mechanism(told: str) -> Mechanism:
    return from_description(json.loads(told))


def _numbers(events: Events) -> tuple[int, int]:
    """Answered and unanswered queries."""
    counts = Counter[bool]()
    for event, number in events.items():
        counts[event.answered] += number
    return counts[True], counts[False]


def _key(path: Path) -> bytes:
    """The key of this book's digests; the first to ask makes it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    if not path.exists():
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()
