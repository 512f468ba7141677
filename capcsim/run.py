"""The main job: one scenario, from its data to its record.

A killed run goes through the same stages again. Its record gives back what must not be done twice:
measurements, charges, labels; all else follows from the scenario and the seed.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from capcsim import registry
from capcsim.backend import VOTE_RING_BITS, SaturatingBackend
from capcsim.costs.cache import MeasurementCache, host, versions
from capcsim.costs.measure import Bench, Pair
from capcsim.costs.measured import MeasuredCosts, Measurements, pair_group
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import RecordError
from capcsim.journal import Journal
from capcsim.learning.datasets import load_dataset
from capcsim.learning.metrics import Quality, quality
from capcsim.learning.models import Classifier
from capcsim.learning.partition import partition
from capcsim.learning.selection import select
from capcsim.learning.training import TrainingTask, train_all
from capcsim.privacy.accountant import ANALYSES, Accountant
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import ConfidentGNMax
from capcsim.protocol import (
    Collaboration,
    NoiseSource,
    RealNoise,
    SimulatedNoise,
    Voter,
    Votes,
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


class Silent:
    """Progress for those who do not watch."""

    def stage(self, title: str, total: int) -> Callable[[int], None]:  # noqa: ARG002
        """Do nothing."""
        return lambda _: None


def run_scenario(
    scenario: Scenario,
    folder: Path,
    *,
    measure: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Record:
    """Run a scenario into a directory, or finish the run that was killed there; returns the record.

    A run that is complete already is left as it is.

    `measure` ignores transcripts measured earlier; `workers` processes train. Raises a CapcsimError for
    anything that the user can mend.
    """
    run = Job(scenario, workers, progress or Silent())
    record = Record.start(folder, scenario, {"versions": versions()}, {"host": host()})
    if record.complete:
        return record
    with ExitStack() as stack:
        stack.enter_context(closing(run.backend))
        ledger = stack.enter_context(closing(run.open_ledger(record.ledger_path)))
        releases = stack.enter_context(Journal(record.releases_path))
        run.train()
        run.plan_queries()
        measured = run.measure(record, fresh=measure)
        simulated = run.simulate(measured, ledger, releases)
        outcome = run.outcome(measured, simulated, ledger)
        write_tables(record, outcome)
        record.finish(summarise(record, outcome))
    return record


class Job:
    """The state that the stages hand on; each stage is one method, called in the order in which they stand."""

    def __init__(self, scenario: Scenario, workers: int, progress: Progress) -> None:
        self.scenario, self._workers, self._progress = scenario, workers, progress
        self.seeds = Seeds(scenario.seed)
        self.backend = registry.load(scenario.protocol.backend, scenario.protocol.options)
        self.dataset = load_dataset(scenario.data)
        self.parts = partition(self.dataset, scenario, self.seeds)
        self.mechanism = mechanism_of(scenario)
        self.accountant = ANALYSES[scenario.privacy.analysis](self.mechanism, scenario.privacy.delta)
        self.models: list[Classifier] = []
        self.voters: list[Voter] = []
        self.own: list[Classifier] = []
        self.affordable = 0
        self.planned: list[int] = []
        self.asked: list[NDArray[np.int64]] = []
        self.votes: list[Votes] = []

    def open_ledger(self, path: Path) -> Ledger:
        """The guardian's book; it may hold the charges of a run that was killed."""
        privacy = self.scenario.privacy
        return Ledger(path, self.accountant, privacy.epsilon, BudgetScope(privacy.budget_scope))

    def train(self, models: list[Classifier] | None = None) -> None:
        """Every shard's model, and each querying party's own model on all that it has.

        `models` are another job's, of a scenario that differs in nothing that training depends on.
        """
        parties, virtual = self.scenario.parties, self.scenario.parties.virtual_per_party
        if virtual == 1:
            owners = list(range(parties.count))
            tasks = [self._task(party) for party in owners]
        else:
            owners = [party for party in range(parties.count) for _ in range(virtual)]
            tasks = [self._task(party, shard) for party in range(parties.count) for shard in range(virtual)]
            tasks += [self._task(querier) for querier in range(parties.queriers)]
        self.models = models = models or self._train(tasks, "training")
        for index, (party, model) in enumerate(zip(owners, models, strict=False)):
            prepared = self.backend.prepare(model, seed=self.seeds.integer("prepare", index))
            self.voters.append(Voter(index, party, prepared))
        self.own = models[len(owners) :] if virtual > 1 else models[: parties.queriers]

    def plan_queries(self) -> None:
        """What each querying party asks about, and everybody's votes on it by the reference."""
        wanted, privacy = self.scenario.queries.per_querier, self.scenario.privacy
        self.affordable = wanted
        if isinstance(self.accountant, Accountant):
            self.affordable = self.accountant.affordable(privacy.epsilon, wanted)
        # A query that is lost, or stays unanswered, leaves room for another.
        loses = self.scenario.protocol.deadline_s is not None or isinstance(self.mechanism, ConfidentGNMax)
        count = wanted if loses else self.affordable
        self.planned = [count] * self.scenario.parties.queriers
        for querier in range(self.scenario.parties.queriers):
            pool = self.parts.pools[querier]
            generator = self.seeds.generator("select", querier)
            x = self.dataset.x[pool]
            self.asked.append(pool[select(self.scenario.queries, count, self.own[querier], x, generator)])
        advance = self._progress.stage("voting", len(self.voters))
        votes = [np.zeros((2, len(self.voters), n, self.dataset.classes), np.uint64) for n in self.planned]
        for voter in self.voters:
            for querier, rows in enumerate(self.asked):
                if voter.party != querier and len(rows):
                    logits = self.backend.reference(voter.prepared, self.dataset.x[rows])
                    votes[querier][:, voter.index] = share_votes(logits)
            advance(1)
        self.votes = votes

    def measure(self, record: Record, *, fresh: bool) -> Measurements:
        """Transcripts from real executions, kept in the record."""
        stored = record.read_transcripts()
        if stored is not None:
            return self._measured_before(record, stored)
        measured = self.execute(fresh=fresh)
        self._keep(record, measured)
        return measured

    def execute(self, *, fresh: bool) -> Measurements:
        """Run real pairs: a sample, or every one."""
        protocol = self.scenario.protocol
        bench = Bench(
            self.backend,
            [self.dataset.x[rows] for rows in self.asked],
            self.votes,
            self.mechanism,
            samples=protocol.samples,
            seeds=self.seeds,
            cache=MeasurementCache(self.backend, protocol.options, reading=not fresh),
        )
        pairs = self._pairs(self.planned)
        # A budget that ends in the middle of a batch gives that batch a size of its own.
        cut = self._pairs([self.affordable] * len(self.planned))
        foreseen = list({(pair.querier, pair.queries, pair.voter.index): pair for pair in pairs + cut}.values())
        bench.sample(foreseen, self._progress.stage("measuring pairs", 0))
        bench.guardian(foreseen, self._progress.stage("measuring the guardian", 0))
        if protocol.execute == "all":
            bench.execute(pairs, self._progress.stage("executing every pair", len(pairs)))
        return bench.result

    def simulate(
        self, measured: Measurements, ledger: Ledger, releases: Journal, network: Network | None = None
    ) -> Simulated:
        """The event-driven world, on the scenario's network or on another; it calls back for each batch's labels."""
        scenario = self.scenario.model_copy(update={"network": network} if network else {})
        collaboration = Collaboration(
            self.voters,
            self.votes,
            ledger=ledger,
            noise=self._noise(),
            releases=releases,
            backend=self.backend if scenario.protocol.execute == "all" else None,
        )
        sizes = [[len(batch) for batch in batches(n, scenario.queries.batch)] for n in self.planned]
        costs = MeasuredCosts(measured, sizes, self.seeds)
        advance = self._progress.stage("simulating", sum(self.planned))
        return World(scenario, collaboration, costs, self.planned, self.seeds, advance).run()

    def outcome(self, measured: Measurements, simulated: Simulated, ledger: Ledger) -> Outcome:
        """Retrain on the bought labels, and put together all that is to be told."""
        retrained = self._train([self._retraining(q, simulated) for q in range(len(self.own))], "retraining")
        return Outcome(
            scenario=self.scenario,
            capabilities=self.backend.capabilities,
            dataset=self.dataset,
            asked=self.asked,
            voters=self.voters,
            votes=[reconstruct(shares, VOTE_RING_BITS) for shares in self.votes],
            before=[self._quality(model) for model in self.own],
            after=[self._quality(model) for model in retrained],
            measured=measured,
            saturation=self._saturation(),
            simulated=simulated,
            ledger=ledger,
        )

    def _task(self, party: int, shard: int | None = None) -> TrainingTask:
        """Train on one shard of a party, or on all that it owns."""
        kinds, data = self.scenario.models.kinds, self.dataset
        rows = self.parts.owned(party) if shard is None else self.parts.shards[party][shard]
        seed = self.seeds.integer("train", party, 0 if shard is None else shard + 1)
        return TrainingTask(kinds[party % len(kinds)], data.x[rows], data.y[rows], data.classes, seed)

    def _retraining(self, querier: int, simulated: Simulated) -> TrainingTask:
        """The querying party's own samples and the queries that it bought a label for (paper, section 4.2)."""
        own = self._task(querier)
        queries, labels = simulated.bought(querier)
        x = np.concatenate([own.x, self.dataset.x[self.asked[querier][queries]]])
        return TrainingTask(own.kind, x, np.concatenate([own.y, labels]), own.classes, own.seed)

    def _train(self, tasks: list[TrainingTask], title: str) -> list[Classifier]:
        advance = self._progress.stage(title, len(tasks))
        return train_all(tasks, self.scenario.models, workers=self._workers, advance=advance)

    def _quality(self, model: Classifier) -> Quality:
        rows = self.parts.evaluation
        return quality(model.predict(self.dataset.x[rows]), self.dataset.y[rows], self.dataset.classes)

    def _pairs(self, counts: list[int]) -> list[Pair]:
        """Every execution of steps 1a to 1c for so many queries each: querying party, batch, other party's voter."""
        return [
            Pair(querier, number, batch, voter)
            for querier, count in enumerate(counts)
            for number, batch in enumerate(batches(count, self.scenario.queries.batch))
            for voter in self.voters
            if voter.party != querier
        ]

    def _saturation(self) -> float | None:
        """Over one voter of each architecture and the first queries that it was asked."""
        if not isinstance(self.backend, SaturatingBackend):
            return None
        rates = []
        for voter in {pair_group(voter.prepared.public): voter for voter in self.voters}.values():
            rows = next((rows for q, rows in enumerate(self.asked) if q != voter.party and len(rows)), None)
            if rows is not None:
                rates.append(self.backend.saturation(voter.prepared, self.dataset.x[rows]))
        return max(rates, default=None)

    def _noise(self) -> NoiseSource:
        if self.scenario.privacy.noise == "simulation":
            return SimulatedNoise(self.mechanism, self.seeds)
        return RealNoise(self.mechanism)

    def _keep(self, record: Record, measured: Measurements) -> None:
        """Write down the votes, then the transcripts: once these are there, measuring is over."""
        write_votes(record, self.voters, [reconstruct(shares, VOTE_RING_BITS) for shares in self.votes])
        record.write_transcripts({"inputs": self._inputs_digest(), **measured.to_json()})

    def _measured_before(self, record: Record, stored: dict[str, Any]) -> Measurements:
        """What the killed run had measured, and the votes that it had executed; raises RecordError."""
        if stored["inputs"] != self._inputs_digest():
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
