"""The main job: one scenario, from its data to its record.

A killed run goes through the same stages again. Its record gives back what must not be done twice:
measurements, charges, labels; all else follows from the scenario and the seed.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from copy import copy, deepcopy
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from capcsim import registry
from capcsim.backend import VOTE_RING_BITS, Backend, SaturatingBackend
from capcsim.bookkeeping import Witness, check_in, open_book
from capcsim.costs.cache import MeasurementCache, host, versions
from capcsim.costs.measure import Bench, Pair
from capcsim.costs.measured import MeasuredCosts, Measurements, pair_group
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import InputError, RecordError
from capcsim.journal import Journal
from capcsim.learning.baselines import Baseline, baseline_steps, compare
from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.datasets import load_dataset
from capcsim.learning.ensemble import Bought, Ensemble, nothing_bought
from capcsim.learning.metrics import Quality
from capcsim.learning.models import Model
from capcsim.learning.parallel import Engine
from capcsim.learning.training import TrainingTask, train_all
from capcsim.privacy.accountant import ANALYSES, Accountant
from capcsim.privacy.history import History
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import ConfidentGNMax
from capcsim.protocol import (
    Collaboration,
    NoiseSource,
    RealNoise,
    SimulatedNoise,
    Voter,
    mechanism_of,
    share_votes,
)
from capcsim.record import Record
from capcsim.results import Outcome, read_votes, summarise, write_tables, write_votes
from capcsim.scenario import Network, Scenario
from capcsim.seeds import Seeds
from capcsim.simulation.world import Simulated, World, batches


class Progress(Protocol):
    """How a run tells what it is doing."""

    def stage(self, title: str, total: int) -> Callable[[int], None]:
        """Begin a stage of `total` steps; call the answer with the number of steps that are done."""

    def note(self, text: str) -> None:
        """Say something besides the stages."""


class Silent:
    """Progress for those who do not watch."""

    def stage(self, title: str, total: int) -> Callable[[int], None]:  # noqa: ARG002
        """Do nothing."""
        return lambda _: None

    def note(self, text: str) -> None:
        """Do nothing."""


def run_scenario(
    scenario: Scenario,
    folder: Path,
    *,
    measure: bool = False,
    workers: int = 1,
    engine: Engine = "loky",
    adopt: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Run a scenario into a directory, or finish the run that was killed there; returns the record.

    A run that is complete already is left as it is.

    `measure` ignores transcripts measured earlier; `workers` processes of joblib's `engine` train; `adopt` goes on with
    a run that was begun with another book of runs. Raises a CapcsimError for anything that the user can mend.
    """
    progress = progress or Silent()
    run = Job(scenario, workers, engine, progress)
    for note in run.dataset.notes:
        progress.note(f"data: {note}")
    book = open_book(scenario.privacy, progress.note)
    noted = {"title": scenario.title_as_run, "host": host(), "book": book.identity if book else None}
    record = Record.start(folder, scenario, {"versions": versions()}, noted)
    record.check_journals()
    if record.complete:
        return record
    booked = None
    if book is not None:
        data = run.learning.training_records()
        booked = check_in(book, record, run.mechanism, data, scenario.privacy, progress.note, adopt=adopt)
    enforcing = booked is not None and scenario.privacy.book == "enforce"
    with ExitStack() as stack:
        stack.enter_context(closing(run.backend))
        releases = stack.enter_context(Journal(record.releases_path))
        witness = Witness(record, releases, booked, scenario.privacy, progress.note)
        earlier = booked.earlier() if booked and enforcing else None
        ledger = stack.enter_context(closing(run.open_ledger(record.ledger_path, earlier=earlier, witness=witness)))
        _tell_resumed(ledger, releases, progress)
        run.train()
        for round_ in range(scenario.queries.rounds):
            run.plan_queries(round_)
            measured = run.measure(record, round_, fresh=measure)
            simulated = run.simulate(measured, ledger, releases)
        ledger.commit()
        outcome = run.outcome(simulated, ledger, booked.total() if booked else None)
        progress.stage("summing up", 1)
        write_tables(record, outcome)
        record.finish(summarise(record, outcome))
    return record


def _tell_resumed(ledger: Ledger, releases: Journal, progress: Progress) -> None:
    """Say so where a run goes on, and tell the book what it had charged."""
    charges = sum(ledger.everything().values())
    if charges:
        labels = sum(entry["kind"] == "release" for entry in releases.entries)
        progress.note(f"resuming: going on with {labels} labels and {charges} charges")
        ledger.commit()


def _backend(scenario: Scenario) -> Backend:
    """The scenario's backend; what is wrong with its options names their section."""
    try:
        return registry.load(scenario.protocol.backend, scenario.protocol.options)
    except InputError as error:
        raise InputError(f"protocol.options: {error}") from None


class Job:
    """The state that the stages hand on; each stage is one method, called in the order in which they stand."""

    def __init__(self, scenario: Scenario, workers: int, engine: Engine, progress: Progress) -> None:
        self.scenario, self._workers, self._engine, self._progress = scenario, workers, engine, progress
        self.seeds = Seeds(scenario.seed)
        self.backend = _backend(scenario)
        progress.stage("reading the data", 1)
        self.dataset = load_dataset(scenario.data)
        self.learning = Ensemble(scenario, self.dataset, self.seeds, self._train)
        self.mechanism = mechanism_of(scenario)
        self.accountant = ANALYSES[scenario.privacy.analysis](self.mechanism, scenario.privacy.delta)
        self.voters: list[Voter] = []
        self.changed: list[int] = []
        self.affordable = 0
        self.rounds: list[int] = []
        self.planned = [0] * scenario.parties.queriers
        self.asked = [np.zeros(0, np.int64) for _ in self.planned]
        self.votes = [np.zeros((2, scenario.voters, 0, self.dataset.classes), np.uint64) for _ in self.planned]
        self.bought: list[Bought] = [nothing_bought() for _ in self.planned]
        self.measured = Measurements()
        self._collaboration: Collaboration | None = None
        self._world: World | None = None

    def open_ledger(
        self,
        path: Path,
        *,
        earlier: Sequence[History] | None = None,
        witness: Callable[[Ledger], None] = lambda _: None,
    ) -> Ledger:
        """The guardian's book; it may hold the charges of a run that was killed."""
        privacy = self.scenario.privacy
        scope = BudgetScope(privacy.budget_scope)
        return Ledger(path, self.accountant, privacy.epsilon, scope, earlier=earlier, witness=witness)

    def train(self, trained: Ensemble | None = None) -> None:
        """Every shard's model, and each querying party's own model on all that it has.

        `trained` is another job's, of a scenario that differs in nothing that training depends on.
        """
        if trained is None:
            self.learning.train()
        else:
            self.learning = trained.twin()
        models = zip(self.learning.owners, self.learning.voters, strict=True)
        self.voters = [self._voter(index, party, model) for index, (party, model) in enumerate(models)]

    def fork(self, network: Network, progress: Progress) -> "Job":
        """The same job before its first simulation, to go on with on another network."""
        twin = copy(self)
        twin._progress = progress
        twin.scenario = self.scenario.model_copy(update={"network": network})
        twin.learning, twin.measured = self.learning.twin(), deepcopy(self.measured)
        twin.voters, twin.rounds, twin.planned = list(self.voters), list(self.rounds), list(self.planned)
        twin.asked, twin.votes, twin.bought = list(self.asked), list(self.votes), list(self.bought)
        return twin

    def plan_queries(self, round_: int) -> None:
        """What each querying party asks about in a round, and everybody's votes on it by the reference."""
        if round_:
            self.changed = self.learning.adopt(self.bought)
            for index in self.changed:
                self.voters[index] = self._voter(index, self.voters[index].party, self.learning.voters[index])
        queries = self.scenario.queries
        until = -(-(round_ + 1) * self._count() // queries.rounds)
        for querier, before in enumerate(self.planned):
            asked = self.asked[querier]
            new = self.learning.select(queries.selection, querier, until - before, self.bought[querier], asked, round_)
            self.asked[querier] = np.concatenate([asked, new])
        self._vote(self.planned)
        self.rounds.append(self.planned[0])
        self.planned = [until] * len(self.planned)

    def _count(self) -> int:
        """How many queries a querying party asks in all rounds."""
        wanted, privacy = self.scenario.queries.per_querier, self.scenario.privacy
        self.affordable = wanted
        if isinstance(self.accountant, Accountant):
            self.affordable = self.accountant.affordable(privacy.epsilon, wanted)
        # A query that is lost, or stays unanswered, leaves room for another.
        loses = self.scenario.protocol.deadline_s is not None or isinstance(self.mechanism, ConfidentGNMax)
        return wanted if loses else self.affordable

    def _vote(self, first: Sequence[int]) -> None:
        """Shares of everybody's votes on the queries from `first` on, besides those of earlier rounds."""
        advance = self._progress.stage("voting", len(self.voters))
        new = [rows[start:] for rows, start in zip(self.asked, first, strict=True)]
        votes = [np.zeros((2, len(self.voters), len(rows), self.dataset.classes), np.uint64) for rows in new]
        for voter in self.voters:
            for querier, rows in enumerate(new):
                if voter.party != querier and len(rows):
                    logits = self.backend.reference(voter.prepared, self.learning.samples(querier, rows))
                    votes[querier][:, voter.index] = share_votes(logits)
            advance(1)
        self.votes = [np.concatenate(pair, axis=2) for pair in zip(self.votes, votes, strict=True)]

    def measure(self, record: Record, round_: int, *, fresh: bool) -> Measurements:
        """Transcripts from real executions of this round's pairs, kept in the record."""
        stored = record.read_transcripts()
        if stored is not None and len(stored["inputs"]) > round_:
            self.measured = self._measured_before(record, stored, round_)
        else:
            self.execute(fresh=fresh)
            self._keep(record, stored)
        return self.measured

    def execute(self, *, fresh: bool) -> Measurements:
        """Run real pairs of this round: a sample, or every one."""
        protocol = self.scenario.protocol
        bench = Bench(
            self.backend,
            [self.learning.samples(querier, rows) for querier, rows in enumerate(self.asked)],
            self.votes,
            self.mechanism,
            samples=protocol.samples,
            seeds=self.seeds,
            cache=MeasurementCache(self.backend, protocol.options, reading=not fresh),
            measured=self.measured,
        )
        pairs = self._pairs(self.planned)
        # A budget that ends in the middle of a batch gives that batch a size of its own.
        cut = self._pairs([self.affordable] * len(self.planned))
        foreseen = list({(pair.querier, pair.queries, pair.voter.index): pair for pair in pairs + cut}.values())
        bench.sample(foreseen, self._progress.stage("measuring pairs", bench.sample_runs(foreseen)))
        bench.guardian(foreseen, self._progress.stage("measuring the guardian", bench.guardian_runs(foreseen)))
        if protocol.execute == "all":
            bench.execute(pairs, self._progress.stage("executing every pair", len(pairs)))
        return self.measured

    def simulate(self, measured: Measurements, ledger: Ledger, releases: Journal) -> Simulated:
        """The event-driven world, up to the end of the present round; it calls back for each batch's labels."""
        sizes = [[len(batch) for batch in self._batches(n)] for n in self.planned]
        costs = MeasuredCosts(measured, sizes, self.seeds)
        if self._collaboration is None or self._world is None:
            self._collaboration = Collaboration(
                self.voters,
                self.votes,
                ledger=ledger,
                noise=self._noise(),
                releases=releases,
                backend=self.backend if self.scenario.protocol.execute == "all" else None,
            )
            advance = self._progress.stage("simulating", self.scenario.queries.rounds * sum(self.planned))
            self._world = World(self.scenario, self._collaboration, costs, self.planned, self.seeds, advance)
        else:
            self._collaboration.extend(self.voters, self.votes)
            self._world.next_round(costs, self.planned, self.changed)
        simulated = self._world.run()
        for querier in self.learning.queriers:
            queries, labels = simulated.bought(querier)
            self.bought[querier] = self.asked[querier][queries], labels
        return simulated

    def outcome(self, simulated: Simulated, ledger: Ledger, booked: Mapping[str, Any] | None = None) -> Outcome:
        """Retrain on the bought labels, and put together all that is to be told; `booked` is what the book tells."""
        assert self._collaboration is not None, "the simulation came first"
        before = self._judged_before()
        return Outcome(
            scenario=self.scenario,
            capabilities=self.backend.capabilities,
            dataset=self.dataset,
            asked=self.asked,
            voters=self.voters,
            votes=[reconstruct(shares, VOTE_RING_BITS) for shares in self.votes],
            before=before,
            after=self.learning.retrain(self.bought),
            baselines=self._baselines(),
            measured=self.measured,
            saturation=self._saturation(),
            simulated=simulated,
            ledger=ledger,
            unlabelled_charges=self._collaboration.unlabelled_charges(),
            booked=booked,
        )

    def _judged_before(self) -> list[list[Quality]]:
        """Each querying party's model without any label, for every seed with which it is retrained."""
        return self.learning.retrain([nothing_bought() for _ in self.planned], "training for comparison")

    def _baselines(self) -> dict[str, Baseline]:
        models = self.scenario.models
        advance = self._progress.stage("baselines", baseline_steps(models)) if models.baselines else None
        return compare(
            self.learning, models, self.seeds, advance or (lambda _: None), workers=self._workers, engine=self._engine
        )

    def _train(self, tasks: Sequence[TrainingTask], title: str) -> list[Model]:
        return train_all(
            tasks,
            self.scenario.models,
            workers=self._workers,
            engine=self._engine,
            checkpoints=Checkpoints(),
            advance=self._progress.stage(title, len(tasks)),
        )

    def _voter(self, index: int, party: int, model: Model) -> Voter:
        prepared = self.backend.prepare(model.estimator, seed=self.seeds.integer("prepare", index))
        return Voter(index, party, prepared)

    def _batches(self, until: int) -> list[range]:
        """Every batch of the rounds so far, up to a number of queries."""
        size, ends = self.scenario.queries.batch, [*self.rounds, self.planned[0]]
        spans = [(start, min(end, until)) for start, end in pairwise(ends) if start < until]
        return [
            range(start + batch.start, start + batch.stop)
            for start, end in spans
            for batch in batches(end - start, size)
        ]

    def _pairs(self, counts: Sequence[int]) -> list[Pair]:
        """Every execution of steps 1a to 1c in this round, for so many queries each in all rounds."""
        return [
            Pair(querier, number, batch, voter)
            for querier, count in enumerate(counts)
            for number, batch in enumerate(self._batches(count))
            for voter in self.voters
            if voter.party != querier and batch.start >= self.rounds[-1]
        ]

    def _saturation(self) -> float | None:
        """Over one voter of each architecture and the first queries that it was asked."""
        if not isinstance(self.backend, SaturatingBackend):
            return None
        rates = []
        for voter in {pair_group(voter.prepared.public): voter for voter in self.voters}.values():
            querier = next((q for q, rows in enumerate(self.asked) if q != voter.party and len(rows)), None)
            if querier is not None:
                x = self.learning.samples(querier, self.asked[querier])
                rates.append(self.backend.saturation(voter.prepared, x))
        return max(rates, default=None)

    def _noise(self) -> NoiseSource:
        if self.scenario.privacy.noise == "simulation":
            return SimulatedNoise(self.mechanism, self.seeds)
        return RealNoise(self.mechanism)

    def _keep(self, record: Record, stored: dict[str, Any] | None) -> None:
        """Write down the votes, then the transcripts: once these are there, a round's measuring is over."""
        write_votes(record, self.voters, [reconstruct(shares, VOTE_RING_BITS) for shares in self.votes])
        inputs = [*(stored["inputs"] if stored else ()), self._inputs_digest()]
        record.write_transcripts({"inputs": inputs, **self.measured.to_json()})

    def _measured_before(self, record: Record, stored: dict[str, Any], round_: int) -> Measurements:
        """What the killed run had measured, and the votes that it had executed; raises RecordError."""
        if stored["inputs"][round_] != self._inputs_digest():
            raise RecordError(f"{record.folder}: the data set has changed since this run began; start another run")
        shape = self.votes[0].shape[1], self.dataset.classes
        self.votes = [share(one_hot, VOTE_RING_BITS) for one_hot in read_votes(record, self.planned, *shape)]
        return Measurements.from_json(stored)

    def _inputs_digest(self) -> str:
        """A digest of the samples that were selected and of the whole data set."""
        digest = sha256(self.dataset.x.tobytes() + self.dataset.y.tobytes())
        for rows in self.asked:
            digest.update(rows.astype(np.int64).tobytes())
        return digest.hexdigest()[:32]
