"""The ledger and the releases of a walk through the stages: a run's own, which outlive it, or scratch ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from capcsim.costs.measured import Measurements
from capcsim.errors import RecordError
from capcsim.journal import Journal
from capcsim.privacy.accountant import ANALYSES, Analysis
from capcsim.privacy.history import History
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.protocol.aggregate import unlabelled_charges
from capcsim.protocol.noise import NoiseSource, mechanism_of, noise_source
from capcsim.protocol.steps import Voter
from capcsim.record import Record
from capcsim.scenario import Scenario
from capcsim.study.asked import UNKNOWN, Asked, Ballots
from capcsim.study.means import content_key
from capcsim.study.priced import Priced


@dataclass(frozen=True)
class Books:
    """The guardian's ledger, the journal of released labels, and the record that keeps what was measured, if any."""

    ledger: Ledger
    releases: Journal
    noise: NoiseSource
    record: Record | None = None

    def priced(self, asked: Asked, round_: int, make: Callable[[], Priced]) -> Priced:
        """What a killed run had measured in this round, else what is measured now, which is written down.

        Raises RecordError where other queries were asked then.
        """
        if self.record is None:
            return make()
        stored, digest = self.record.read_transcripts(), content_key(*asked.rows)
        if stored is not None and len(stored["inputs"]) > round_:
            if stored["inputs"][round_] != digest:
                why = "the models that select queries are no longer what they were when this run began"
                raise RecordError(f"{self.record.folder}: {why}; start another run")
            ballots = read_votes(self.record, [len(rows) for rows in asked.rows], len(asked.voters))
            return Priced(Measurements.from_json(stored), ballots, content_key(digest, ballots))
        priced = make()
        # Votes first: once the transcripts are there, a round's measuring is over.
        write_votes(self.record, asked.voters, priced.ballots)
        inputs = [*(stored["inputs"] if stored else ()), digest]
        self.record.write_transcripts({"inputs": inputs, **priced.measured.to_json()})
        return priced


@dataclass(frozen=True)
class Spent:
    """What the ledger tells of a walk: by querying party, then of all."""

    epsilon: tuple[float, ...]
    charges: tuple[int, ...]
    unlabelled: tuple[int, ...]
    refusal: tuple[str, ...]
    epsilon_coalition: float
    epsilon_most_exposed: float
    torn: int

    @classmethod
    def of(cls, books: Books, queriers: Sequence[int]) -> "Spent":
        """As the books stand."""
        ledger, unlabelled = books.ledger, unlabelled_charges(books.ledger, books.releases)
        return cls(
            tuple(map(ledger.epsilon, queriers)),
            tuple(map(ledger.charged, queriers)),
            tuple(unlabelled[querier] for querier in queriers),
            tuple(str(ledger.refusal(querier)) for querier in queriers),
            ledger.epsilon_coalition(),
            ledger.epsilon_most_exposed(),
            sum(ledger.torn().values()),
        )


def accountant_of(scenario: Scenario) -> Analysis:
    """The analysis that a scenario's budget is judged by."""
    return ANALYSES[scenario.privacy.analysis](mechanism_of(scenario), scenario.privacy.delta)


@contextmanager
def scratch_books(scenario: Scenario) -> Iterator[Books]:
    """Books that nothing is left of: for seeded noise, which no budget pays for."""
    with TemporaryDirectory(prefix="capcsim-") as folder, open_books(scenario, Path(folder)) as books:
        yield books


@contextmanager
def open_books(
    scenario: Scenario,
    folder: Path,
    *,
    record: Record | None = None,
    earlier: Sequence[History] | None = None,
    witness: Callable[[Journal], Callable[[Ledger], None]] = lambda _: lambda _: None,
) -> Iterator[Books]:
    """The books in a folder, with the charges of a run that was killed there.

    `earlier` is what other runs took, where the budget is one over all; `witness` makes what hears of charges.
    """
    accountant, privacy = accountant_of(scenario), scenario.privacy
    # What seeded noise has released can be released again: no disk need be waited for.
    durable = privacy.noise == "real"
    with ExitStack() as stack:
        releases = stack.enter_context(Journal(folder / "releases.jsonl", durable=durable))
        opened = Ledger(
            folder / "ledger.jsonl",
            accountant,
            privacy.epsilon,
            BudgetScope(privacy.budget_scope),
            earlier=earlier,
            witness=witness(releases),
            durable=durable,
        )
        ledger = stack.enter_context(closing(opened))
        yield Books(ledger, releases, noise_source(scenario, accountant.mechanism), record)


def write_votes(record: Record, voters: Sequence[Voter], ballots: Sequence[Ballots]) -> None:
    """Table `votes`: one row for each query and voter that was asked; nobody in the protocol sees these."""
    columns: Mapping[str, list[int]] = {"querier": [], "query": [], "voter": [], "party": [], "vote": []}
    for querier, found in enumerate(ballots):
        voter, query = np.nonzero(found != UNKNOWN)
        owners = np.array([each.party for each in voters])
        rows = (np.full(len(voter), querier), query, voter, owners[voter], found[voter, query])
        for column, values in zip(columns.values(), rows, strict=True):
            column.extend(values.tolist())
    record.write_table("votes", columns)


def read_votes(record: Record, planned: Sequence[int], voters: int) -> tuple[Ballots, ...]:
    """The votes on the first so many queries of each querying party, from the table."""
    table = record.read_table("votes").to_pydict()
    ballots = tuple(np.full((voters, count), UNKNOWN, np.int64) for count in planned)
    for querier, query, voter, vote in zip(*(table[key] for key in ("querier", "query", "voter", "vote")), strict=True):
        if query < planned[querier]:  # a later round's, where an earlier one is being gone through again
            ballots[querier][voter, query] = vote
    return ballots
