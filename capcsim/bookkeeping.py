"""What is kept of a run outside its ledger, so that an emptied or overtaken one is noticed: manifest, book of runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import BookUnavailable, RecordError, ScenarioError
from capcsim.journal import Journal, Mark
from capcsim.paths import state_folder
from capcsim.privacy.book import Book, BookedRun, most_exposed
from capcsim.privacy.conversions import check_delta
from capcsim.privacy.history import History
from capcsim.privacy.ledger import Ledger
from capcsim.privacy.mechanisms import Mechanism
from capcsim.record import Record
from capcsim.scenario import Privacy


@dataclass(frozen=True)
class Booked:
    """A run's entry in the book; `records[p]` are the digests of party p's training records."""

    book: Book
    run: str
    records: Sequence[Sequence[bytes]]

    def earlier(self) -> list[History]:
        """What other runs took from each party's most exposed record."""
        known, delta = self.book.histories(without=self.run), self.book.delta(self.run)
        return [most_exposed((known[each] for each in party if each in known), delta) for party in self.records]

    def total(self) -> dict[str, Any] | None:
        """What all runs took from the most exposed of this run's records, at its delta; None where nobody can tell."""
        try:
            return self._total()
        except BookUnavailable:
            return None

    def _total(self) -> dict[str, Any]:
        known, delta = self.book.histories(), self.book.delta(self.run)
        own = {digest for party in self.records for digest in party}
        most = most_exposed((known[digest] for digest in own if digest in known), delta)
        runs = self.book.sharing(self.run)
        return {"runs": runs, "labels": most.labels, "epsilon": most.epsilon(delta), "delta": delta}


def open_book(privacy: Privacy, warn: Callable[[str], None]) -> Book | None:
    """The book that runs with real noise are entered in; None, and a warning, where it cannot be written.

    Raises ScenarioError where it is to be enforced.
    """
    if privacy.noise != "real":
        return None
    try:
        return Book(state_folder())
    except BookUnavailable as error:
        _do_without(error, privacy, warn)
        return None


def check_in(
    book: Book,
    record: Record,
    mechanism: Mechanism,
    data: Sequence[NDArray[np.float32]],
    privacy: Privacy,
    warn: Callable[[str], None],
    *,
    adopt: bool,
) -> Booked | None:
    """Enter a run whose parties train on `data[p]` float32[n, *shape], or find its entry again.

    None, and a warning, where the book cannot be written. Raises RecordError for a run that is behind its entry, and,
    unless it is to `adopt` it, for one that was begun with another book; ScenarioError as `open_book` does.
    """
    try:
        return _entry(book, record, mechanism, data, adopt=adopt)
    except BookUnavailable as error:
        _do_without(error, privacy, warn)
        return None


def _do_without(error: BookUnavailable, privacy: Privacy, warn: Callable[[str], None]) -> None:
    if privacy.book == "enforce":
        raise ScenarioError("privacy.book", "enforce", f"a book of runs that can be written, but {error}") from None
    warn(_without(error))


def _without(error: BookUnavailable) -> str:
    return f"warning: {error}; what this run takes is in its own ledger alone (CAPCSIM_STATE names another folder)"


def _entry(
    book: Book, record: Record, mechanism: Mechanism, data: Sequence[NDArray[np.float32]], *, adopt: bool
) -> Booked:
    booked = Booked(book, record.run_id, [book.digests(x) for x in data])
    mark, noted = book.mark(record.run_id), record.marks["ledger"]
    if mark is None:
        if noted.count and record.manifest["book"] not in (None, book.identity) and not adopt:
            raise RecordError(
                f"{record.folder}: this run was begun with another book of runs (on another host, or with another"
                " CAPCSIM_STATE); if no copy of it goes on there, give the same command with --adopt"
            )
        delta = float(record.manifest["scenario"]["privacy"]["delta"])
        book.register(booked.run, record.manifest["title"], mechanism, delta, booked.records, noted)
    elif not record.ledger_reaches(mark):
        raise RecordError(
            f"{record.folder}: this run's ledger is behind: {book.path} has seen {mark.count} entries of it, which are"
            " not all in it; a copy of the run has gone on, or the ledger was cut. Go on in the folder that is ahead"
        )
    return booked


class Witness:
    """Notes in manifest and book what a ledger has reserved, before the labels go out.

    Where the budget is one over all runs, what others take meanwhile counts. Else a book that cannot be written is one
    warning; what it missed it hears the next time that it can.
    """

    def __init__(
        self, record: Record, releases: Journal, booked: Booked | None, privacy: Privacy, warn: Callable[[str], None]
    ) -> None:
        self._record, self._releases, self._booked = record, releases, booked
        self._enforcing, self._warn = privacy.book == "enforce", warn
        self._others = booked.book.others(booked.run) if booked and self._enforcing else None
        self._mark = (booked and booked.book.mark(booked.run)) or Mark()

    def __call__(self, ledger: Ledger) -> None:
        """Raises RecordError where a copy of the run has gone on, or other runs have used the budget up."""
        if self._booked is not None:
            try:
                self._note(self._booked, ledger)
            except BookUnavailable as error:
                if self._enforcing:
                    raise
                self._warn(_without(error))
                self._warn = lambda _: None
        self._record.note_marks({"ledger": ledger.mark, "releases": self._releases.mark})

    def _note(self, booked: Booked, ledger: Ledger) -> None:
        if self._enforcing and (others := booked.book.others(booked.run)) != self._others:
            self._others = others
            ledger.rebase(booked.earlier())
        spent = {party: ledger.exposed(party) for party in range(len(booked.records))}
        booked.book.note(booked.run, self._mark, ledger.mark, spent, ledger.everything(), others=self._others)
        self._mark = ledger.mark


def book_account(run: Path | None, delta: float | None) -> dict[str, Any]:
    """What `capcsim account --book` tells: every run, what all took from the most exposed record, and of each party.

    `run` is a run's directory, whose parties are told apart. `delta` is by default the smallest of the runs'. Raises
    RecordError, also where nothing was entered yet.
    """
    folder = state_folder()
    runs = Book(folder).runs() if Book.is_in(folder) else []
    if not any(each.spent.labels for each in runs):
        raise RecordError(f"{folder}: no run with real noise has bought a label yet, so that its book is empty")
    book, delta = Book(folder), min(each.delta for each in runs) if delta is None else delta
    check_delta(delta)
    known = book.histories()
    epsilons = sorted(history.epsilon(delta) for history in known.values())
    found: dict[str, Any] = {
        "book": str(book.path),
        "delta": delta,
        "runs": [_run_row(each, delta) for each in runs if each.spent.labels],
        "records": len(known),
        "epsilon": {"largest": epsilons[-1], "median": median(epsilons)},
        "labels": most_exposed(known.values(), delta).labels,
    }
    if run is not None:
        parties = book.parties(Record.load(run).run_id)
        own = [most_exposed((known[digest] for digest in each if digest in known), delta) for each in parties]
        found["parties"] = [
            {"party": party, "records": len(parties[party]), "labels": most.labels, "epsilon": most.epsilon(delta)}
            for party, most in enumerate(own)
        ]
    return found


def _run_row(run: BookedRun, delta: float) -> dict[str, Any]:
    return {
        "run": run.identity,
        "started": run.started,
        "title": run.title,
        "labels": run.spent.labels,
        "epsilon": run.spent.epsilon(delta),
    }


def told(total: Mapping[str, Any] | None) -> str:
    """The line about the book at the end of a run."""
    if total is None or not total["runs"]:
        return ""
    runs = "this run alone" if total["runs"] == 1 else f"{total['runs']} runs"
    return (
        f"In the book of runs on this host: {runs}, which took epsilon {total['epsilon']:.3f}"
        f" (delta {total['delta']:g}) from the most exposed training record; see: capcsim account --book"
    )
