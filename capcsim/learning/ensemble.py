"""Every party's data and models, and what the querying parties make of the labels that they buy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.assumed import assumed_dataset, assumed_partition
from capcsim.learning.checkpoints import task_key
from capcsim.learning.metrics import Quality, quality
from capcsim.learning.models import Model
from capcsim.learning.own import Own, own_kinds
from capcsim.learning.partition import Indices, Partition, partition
from capcsim.learning.samples import Dataset, impute
from capcsim.learning.selection import select
from capcsim.learning.tasks import TrainingTask
from capcsim.learning.training import way
from capcsim.scenario import NoData, Scenario, Selection
from capcsim.seeds import Seeds

Bought: TypeAlias = tuple[Indices, NDArray[np.int64]]
"""The samples that a querying party has a label for, and the labels; both int64[n]."""
Train: TypeAlias = Callable[[Sequence[TrainingTask], str], list[Model]]
"""Gives the models for tasks, under a title to show."""


@dataclass(frozen=True)
class PartyModels:
    """Models: `voters[i]` answers, of party `owners[i]`; with `own[q]` querying party q chooses its queries.

    It was trained on all that the party has. Where parties hold one model each, the two are the same. `keys` tell what
    each voter's weights depend on.
    """

    voters: tuple[Model, ...]
    own: tuple[Model, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Ensemble:
    """The learning side of a collaboration: everything that happens at each party alone.

    `own` has the kinds of models that are the user's own.
    """

    scenario: Scenario
    dataset: Dataset
    parts: Partition
    own: Mapping[str, Own] = field(default_factory=dict)

    @classmethod
    def of(cls, scenario: Scenario, dataset: Dataset, own: Mapping[str, Any] = MappingProxyType({})) -> "Ensemble":
        """The data dealt out to the parties; raises ScenarioError where they do not suffice, or a kind is no model.

        `own` has the objects of the kinds "python:NAME": what is called for an untrained model (with the samples' shape
        and the number of classes, or nothing), or a torch module or scikit-learn classifier to make others like.
        """
        assert not isinstance(scenario.data, NoData), "there is something to deal out"
        parts = partition(dataset, scenario.data, scenario.parties, Seeds(scenario.seed))
        kinds = own_kinds(scenario.models.kinds, own, dataset.x.shape[1:], dataset.classes)
        return cls(scenario, dataset, parts, kinds)

    @classmethod
    def without_data(
        cls, scenario: Scenario, data: NoData, own: Mapping[str, Any] = MappingProxyType({})
    ) -> "Ensemble":
        """Parties that own nothing, and queries about nothing; raises ScenarioError as `of` does."""
        dataset = assumed_dataset(scenario, data)
        kinds = own_kinds(scenario.models.kinds, own, dataset.shape, dataset.classes)
        return cls(scenario, dataset, assumed_partition(scenario), kinds)

    @property
    def own_digests(self) -> dict[str, str]:
        """What tells the user's own models from others, as far as anything does in another process too."""
        return {kind: own.lasting_digest for kind, own in self.own.items()}

    @property
    def owners(self) -> list[int]:
        """The party of each voter."""
        parties = self.scenario.parties
        return [party for party in range(parties.count) for _ in range(parties.virtual_per_party)]

    @property
    def queriers(self) -> range:
        """The querying parties."""
        return range(self.scenario.parties.queriers)

    @property
    def seeds(self) -> Seeds:
        """The run's."""
        return Seeds(self.scenario.seed)

    def tasks(self) -> list[TrainingTask]:
        """Every voter's model, then each querying party's own where it is another."""
        virtual = self.scenario.parties.virtual_per_party
        if virtual == 1:
            return [self.task(party) for party in self.owners]
        shards = [self.task(party, index % virtual) for index, party in enumerate(self.owners)]
        return [*shards, *map(self.task, self.queriers)]

    def train(self, train: Train) -> PartyModels:
        """Every shard's model, and each querying party's own."""
        tasks, voters = self.tasks(), len(self.owners)
        models = train(tasks, "training")
        return self.with_own(PartyModels(tuple(models[:voters]), tuple(models[voters:]), self.keys(tasks[:voters])))

    def with_own(self, models: PartyModels) -> PartyModels:
        """A party that has one model chooses its queries with the one that answers."""
        if self.scenario.parties.virtual_per_party > 1:
            return models
        return replace(models, own=models.voters[: len(self.queriers)])

    def adopt(self, models: PartyModels, bought: Sequence[Bought], train: Train) -> tuple[PartyModels, tuple[int, ...]]:
        """Let every querying party use, and answer with, a model retrained on its labels so far.

        Returns the voters that changed too. The shards of a virtual party keep their models: only its own one changes.
        """
        tasks = [self.retraining(q, bought[q], 0) for q in self.queriers]
        own = tuple(train(tasks, "retraining"))
        if self.scenario.parties.virtual_per_party > 1:
            return PartyModels(models.voters, own, models.keys), ()
        voters, keys = (own + models.voters[len(own) :], self.keys(tasks) + models.keys[len(own) :])
        return PartyModels(voters, own, keys), tuple(self.queriers)

    def keys(self, tasks: Sequence[TrainingTask]) -> tuple[str, ...]:
        """What the model of each task depends on."""
        return tuple(task_key(task, self.scenario.models, way()) for task in tasks)

    def training_records(self) -> list[NDArray[np.float32]]:
        """Each party's training samples float32[n, *shape] as they came, NaN where a feature is missing."""
        return [self.dataset.x[self.parts.owned(party)] for party in range(self.scenario.parties.count)]

    def samples(self, party: int, rows: Indices) -> NDArray[np.float32]:
        """Samples as this party sees them: what is missing is its own medians."""
        if isinstance(self.scenario.data, NoData):
            return self.dataset.x[rows]
        return impute(self.dataset.x[rows], self.dataset.x[self.parts.owned(party)])

    def task(self, party: int, shard: int | None = None) -> TrainingTask:
        """Train on one shard of a party, or on all that it owns."""
        kinds, data = self.scenario.models.kinds, self.dataset
        rows = self.parts.owned(party) if shard is None else self.parts.shards[party][shard]
        seed = self.seeds.integer("train", party, 0 if shard is None else shard + 1)
        # A shard's medians are its own: what one record moves must stay in its shard, whose one vote pays for it.
        x = impute(data.x[rows], data.x[rows])
        kind = kinds[party % len(kinds)]
        return TrainingTask(kind, x, data.y[rows], data.classes, seed, self.own.get(kind))

    def select(
        self,
        selection: Selection,
        own: Model,
        querier: int,
        count: int,
        bought: Bought,
        asked: Indices,
        round_: int = 0,
    ) -> Indices:
        """The samples that a querying party asks about next, by its `own` model: int64[count], none that it asked."""
        pool = self.parts.pools[querier]
        pool = pool[~np.isin(pool, asked)]
        known = self.samples(querier, np.concatenate([self.parts.owned(querier), bought[0]]))
        generator = self.seeds.generator("select", querier, round_)
        return pool[select(selection, count, own, self.samples(querier, pool), known, generator)]

    def retrain(self, bought: Sequence[Bought], train: Train, title: str = "retraining") -> list[list[Quality]]:
        """How good each querying party's model is on its own samples and its labels, by querying party and seed."""
        seeds = range(self.scenario.models.retrainings)
        tasks = [self.retraining(q, bought[q], seed) for q in self.queriers for seed in seeds]
        models = iter(train(tasks, title))
        return [[self.judge(q, next(models)) for _ in seeds] for q in self.queriers]

    def retraining(self, querier: int, bought: Bought, seed: int) -> TrainingTask:
        """The querying party's own samples and those that it bought a label for (paper, section 4.2).

        The first seed is the one with which its model was trained before.
        """
        own, (rows, labels) = self.task(querier), bought
        x = np.concatenate([own.x, self.samples(querier, rows)])
        number = self.seeds.integer("retrain", querier, seed) if seed else own.seed
        return replace(own, x=x, y=np.concatenate([own.y, labels]), seed=number)

    def judge(self, querier: int, model: Model) -> Quality:
        """How good a model is on a querying party's evaluation set."""
        rows = self.parts.evaluations[querier]
        protected = None if self.dataset.protected is None else self.dataset.protected[rows]
        predicted = model.predict(self.samples(querier, rows))
        return quality(predicted, self.dataset.y[rows], self.dataset.classes, protected)


def nothing_bought() -> Bought:
    """No label yet."""
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
