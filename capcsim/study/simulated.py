"""The fourth stage: the flow of queries in the simulated world, with its labels, charges and times."""

from collections.abc import Sequence
from dataclasses import dataclass

from capcsim.backend import Backend
from capcsim.costs.foresee import Foreseen, foresee
from capcsim.costs.measured import MeasuredCosts
from capcsim.learning.ensemble import Bought
from capcsim.privacy.accountant import Analysis
from capcsim.protocol.admission import Admission
from capcsim.protocol.aggregate import Aggregator, Executed, Release, in_the_open, lost_charges
from capcsim.protocol.flow import GUARDIAN, Rules, Turn, flow
from capcsim.protocol.steps import answering
from capcsim.scenario import Scenario, is_open
from capcsim.seeds import Seeds
from capcsim.simulation.arrivals import Times, arrivals_s
from capcsim.simulation.world import Simulated, World
from capcsim.study.asked import Asked
from capcsim.study.books import Books, Spent
from capcsim.study.means import Means, content_key
from capcsim.study.priced import Priced, share_ballots


@dataclass(frozen=True)
class Round:
    """One round's queries with their votes and costs, and what each querying party does with them."""

    asked: Asked
    priced: Priced
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Happened:
    """What came out of all rounds so far, and who may still ask."""

    simulated: Simulated
    spent: Spent
    admission: Admission

    def bought(self, asked: Asked) -> list[Bought]:
        """The samples that each querying party has a label for."""
        found = [self.simulated.bought(querier) for querier in range(len(asked.rows))]
        return [(rows[queries], labels) for rows, (queries, labels) in zip(asked.rows, found, strict=True)]


class Simulation:
    """A walk's world, books and admission, which its rounds hand on.

    With scratch books a round that was simulated before is taken from memory; then the world stands still, and catches
    up when a round comes that was not.
    """

    def __init__(self, scenario: Scenario, books: Books, backend: Backend, means: Means) -> None:
        self._scenario, self._books, self._means = scenario, books, means
        self._release: Release = Executed(backend) if scenario.protocol.execute == "all" else in_the_open
        self._world = World(scenario)
        lost, parties = lost_charges(books.ledger, books.releases, repeats=books.noise.repeats), scenario.parties.count
        self._admission = Admission(books.ledger, lambda querier: set(range(parties)) - {querier}, lost)
        self._happened: Happened | None = None
        self._behind: list[Round] = []
        self._key = content_key(sections(scenario))

    def turns(self, asked: Asked, changed: Sequence[int]) -> tuple[Turn, ...]:
        """What each querying party does in the next round, where these voters have other models than before.

        It sets up with everybody before its first batch; later, where a session belongs to a model, with these.
        """
        rows, queries = self._happened.simulated.queries if self._happened else [], self._scenario.queries
        first = asked_until(self._scenario, self._books.ledger.accountant, 0)
        made = []
        for querier, samples in enumerate(asked.rows):
            own = [row for row in rows if row.querier == querier]
            voters = tuple(voter.index for voter in answering(asked.voters, querier))
            partners = tuple(v for v in voters if v in changed) if own else (GUARDIAN, *voters)
            batches = 1 + max((row.batch for row in own), default=-1)
            # More lanes than batches would set up for nothing; those of the first round serve all.
            lanes = min(queries.in_flight, -(-first[querier] // queries.batch))
            comes = is_open(self._scenario.workload_of(querier))
            made.append(Turn(querier, range(len(own), len(samples)), voters, partners, lanes, batches, comes))
        return tuple(made)

    def foresee(self, turns: Sequence[Turn]) -> list[Foreseen]:
        """What these turns will ask of pairs."""
        admission = self._happened.admission if self._happened else self._admission
        loses = can_lose(self._scenario, self._books.ledger.accountant)
        return foresee(turns, rules_of(self._scenario), admission, loses=loses)

    def run(self, next_: Round) -> Happened:
        """Let the next round happen."""
        self._key = content_key(self._key, next_.asked.key, next_.priced.key, next_.turns)
        self._behind.append(next_)
        memory = self._means.memory
        if self._books.record is None:
            self._happened = memory.value("simulated", self._key, lambda: (self._catch_up(), True))
        else:
            memory.made["simulated"] += 1
            self._happened = self._catch_up()
        return self._happened

    def _catch_up(self) -> Happened:
        rounds, self._behind = self._behind, []
        *_, simulated = [self._simulate(each) for each in rounds]
        spent = Spent.of(self._books, range(self._scenario.parties.queriers))
        return Happened(simulated, spent, self._admission.scratch())

    def _simulate(self, each: Round) -> Simulated:
        """One flow, in the world that the rounds before have left."""
        classes, asked, books = asked_classes(each.asked), each.asked, self._books
        aggregator = Aggregator(
            asked.voters,
            [share_ballots(ballots, classes) for ballots in each.priced.ballots],
            ledger=books.ledger,
            noise=books.noise,
            releases=books.releases,
            release=self._release,
        )
        driven = flow(each.turns, rules_of(self._scenario), self._admission, aggregator)
        costs = MeasuredCosts(each.priced.measured, Seeds(self._scenario.seed))
        advance = self._means.progress.stage("simulating", sum(len(turn.queries) for turn in each.turns))
        coming = {turn.querier: self._coming(turn.querier, turn.queries.stop) for turn in each.turns if turn.open}
        return self._world.run(driven, asked.voters, costs, advance, coming)

    def _coming(self, querier: int, count: int) -> Times:
        found = arrivals_s(self._scenario, querier, count)
        assert found is not None, "its turn is open"
        return found


def rules_of(scenario: Scenario) -> Rules:
    """How batches travel."""
    queries, protocol = scenario.queries, scenario.protocol
    return Rules(queries.batch, protocol.quorum, protocol.deadline_s)


def can_lose(scenario: Scenario, accountant: Analysis) -> bool:
    """Whether a query can be lost, or stay unanswered, which leaves room for another."""
    lost = scenario.protocol.deadline_s is not None or scenario.queries.patience_s is not None
    return lost or not accountant.mechanism.answers_every_query


def asked_until(scenario: Scenario, accountant: Analysis, round_: int) -> tuple[int, ...]:
    """How many queries each querying party asks up to the end of a round; over all rounds, what its budget pays for."""
    rounds, found = scenario.queries.rounds, []
    for querier in range(scenario.parties.queriers):
        wanted = scenario.wanted(querier)
        all_ = wanted if can_lose(scenario, accountant) else accountant.affordable(scenario.privacy.epsilon, wanted)
        found.append(-(-(round_ + 1) * all_ // rounds))
    return tuple(found)


def sections(scenario: Scenario) -> dict[str, object]:
    """All of a scenario that happens in the world: what decides times, labels and charges, given votes and costs."""
    places = {"network", "calendar", "workload", "machines", "sites", "groups", "guardian", "dealer"}
    tree = scenario.model_dump(mode="json", include={*places, "faults", "privacy", "parties", "seed"})
    tree["privacy"].pop("book")
    queries = scenario.queries.model_dump(include={"batch", "in_flight", "wait_s", "patience_s"})
    protocol = scenario.protocol.model_dump(include={"quorum", "deadline_s", "execute"})
    return {**tree, "queries": queries, "protocol": protocol}


def asked_classes(asked: Asked) -> int:
    """The number of classes that the voters' models have."""
    return asked.voters[0].prepared.public.classes
