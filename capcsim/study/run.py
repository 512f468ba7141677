"""The main job: one scenario, from its data to its record.

A killed run goes through the same stages again. Its record gives back what must not be done twice:
measurements, charges, labels; all else follows from the scenario and the seed.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from capcsim.bookkeeping import Booked, Witness, check_in, open_book
from capcsim.costs.cache import host, versions
from capcsim.journal import Journal
from capcsim.privacy.ledger import Ledger
from capcsim.protocol.noise import mechanism_of
from capcsim.record import Record
from capcsim.scenario import Scenario
from capcsim.study.books import Books, open_books
from capcsim.study.means import Means, Progress
from capcsim.study.summing_up import epsilon_curve, result_of
from capcsim.study.tables import write_tables
from capcsim.study.trained import Given, deal_out
from capcsim.study.walk import load_backend, walk


def run_scenario(
    scenario: Scenario,
    folder: Path,
    *,
    means: Means | None = None,
    adopt: bool = False,
    given: Given = Given(),  # noqa: B008 (it never changes)
) -> Record:
    """Run a scenario into a directory, or finish the run that was killed there; returns the record.

    A run that is complete already is left as it is.

    `adopt` goes on with a run that was begun with another book of runs; `given` is what Python hands over. Raises a
    CapcsimError for anything that the user can mend.
    """
    means = means or Means()
    privacy, note = scenario.privacy, means.progress.note
    with closing(load_backend(scenario)) as backend:
        ensemble = deal_out(scenario, [backend], means, given)
        book = open_book(privacy, note)
        noted = {"title": scenario.title_as_run, "host": host(), "book": book.identity if book else None}
        fixed = {"versions": versions(), "inputs": {"data": ensemble.dataset.digest, **ensemble.own_digests}}
        record = Record.start(folder, scenario, fixed, noted)
        record.check_journals()
        if record.complete:
            return record
        data, mechanism = ensemble.training_records(), mechanism_of(scenario)
        booked = check_in(book, record, mechanism, data, privacy, note, adopt=adopt) if book else None
        enforcing = booked is not None and privacy.book == "enforce"
        witness = _witness(record, booked, scenario, note)
        earlier = booked.earlier() if booked and enforcing else None
        with open_books(scenario, folder, record=record, earlier=earlier, witness=witness) as books:
            _tell_resumed(books, means.progress)
            walked = walk(ensemble, backend, books, means)
        means.progress.stage("summing up", 1)
        told = result_of(walked, str(folder), means.memory.stages(), booked.total() if booked else None)
        write_tables(record, walked)
        record.finish(
            {
                "summary": told.model_dump(mode="json"),
                "utilisation": {
                    "cores": walked.simulated.core_utilisation,
                    "links": walked.simulated.link_utilisation,
                },
                "sent_bytes": walked.simulated.sent_bytes,
                "epsilon_curve": epsilon_curve(walked).model_dump(mode="json"),
            }
        )
    return record


def _witness(
    record: Record, booked: Booked | None, scenario: Scenario, note: Callable[[str], None]
) -> Callable[[Journal], Callable[[Ledger], None]]:
    return lambda releases: Witness(record, releases, booked, scenario.privacy, note)


def _tell_resumed(books: Books, progress: Progress) -> None:
    """Say so where a run goes on, and tell the book what it had charged."""
    charges = sum(books.ledger.everything().values())
    if charges:
        labels = sum(entry["kind"] == "release" for entry in books.releases.entries)
        progress.note(f"resuming: going on with {labels} labels and {charges} charges")
        books.ledger.commit()
