"""Every party's data and models, and what the querying parties make of the labels that they buy."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.metrics import Quality, quality
from capcsim.learning.models import Model
from capcsim.learning.partition import Indices, partition
from capcsim.learning.samples import Dataset, impute
from capcsim.learning.selection import select
from capcsim.learning.training import TrainingTask
from capcsim.scenario import Scenario, Selection
from capcsim.seeds import Seeds

Bought: TypeAlias = tuple[Indices, NDArray[np.int64]]
"""The samples that a querying party has a label for, and the labels; both int64[n]."""
Train: TypeAlias = Callable[[Sequence[TrainingTask], str], list[Model]]


class Ensemble:
    """The learning side of a collaboration: everything that happens at each party alone.

    `voters[i]` is a model that answers, of party `owners[i]`; `own[q]` is querying party q's own model on all that it
    has, with which it chooses queries. Where parties hold one model each, the two are the same. `train` gives the
    models for tasks, under a title to show.
    """

    def __init__(self, scenario: Scenario, dataset: Dataset, seeds: Seeds, train: Train) -> None:
        self._scenario, self._seeds, self._train = scenario, seeds, train
        self.dataset = dataset
        self.parts = partition(dataset, scenario.data, scenario.parties, seeds)
        parties = scenario.parties
        self.owners = [party for party in range(parties.count) for _ in range(parties.virtual_per_party)]
        self.queriers = range(parties.queriers)
        self.voters: list[Model] = []
        self.own: list[Model] = []

    def train(self) -> None:
        """Every shard's model, and each querying party's own."""
        virtual = self._scenario.parties.virtual_per_party
        if virtual == 1:
            self.voters = self._train([self.task(party) for party in self.owners], "training")
            self.own = self.voters[: len(self.queriers)]
            return
        tasks = [self.task(party, index % virtual) for index, party in enumerate(self.owners)]
        models = self._train([*tasks, *map(self.task, self.queriers)], "training")
        self.voters, self.own = models[: len(tasks)], models[len(tasks) :]

    def twin(self) -> "Ensemble":
        """The same parties with the same models, which go their own way from here."""
        twin = copy(self)
        twin.voters, twin.own = list(self.voters), list(self.own)
        return twin

    def training_records(self) -> list[NDArray[np.float32]]:
        """Each party's training samples float32[n, *shape] as they came, NaN where a feature is missing."""
        return [self.dataset.x[self.parts.owned(party)] for party in range(self._scenario.parties.count)]

    def samples(self, party: int, rows: Indices) -> NDArray[np.float32]:
        """Samples as this party sees them: what is missing is its own medians."""
        return impute(self.dataset.x[rows], self.dataset.x[self.parts.owned(party)])

    def task(self, party: int, shard: int | None = None) -> TrainingTask:
        """Train on one shard of a party, or on all that it owns."""
        kinds, data = self._scenario.models.kinds, self.dataset
        rows = self.parts.owned(party) if shard is None else self.parts.shards[party][shard]
        seed = self._seeds.integer("train", party, 0 if shard is None else shard + 1)
        # A shard's medians are its own: what one record moves must stay in its shard, whose one vote pays for it.
        x = impute(data.x[rows], data.x[rows])
        return TrainingTask(kinds[party % len(kinds)], x, data.y[rows], data.classes, seed)

    def select(
        self, selection: Selection, querier: int, count: int, bought: Bought, asked: Indices, round_: int = 0
    ) -> Indices:
        """The samples that a querying party asks about next: int64[count], from its pool without what it asked."""
        pool = self.parts.pools[querier]
        pool = pool[~np.isin(pool, asked)]
        own = self.samples(querier, np.concatenate([self.parts.owned(querier), bought[0]]))
        generator = self._seeds.generator("select", querier, round_)
        return pool[select(selection, count, self.own[querier], self.samples(querier, pool), own, generator)]

    def adopt(self, bought: Sequence[Bought]) -> list[int]:
        """Let every querying party use, and answer with, a model retrained on its labels so far.

        Returns the voters that changed. The shards of a virtual party keep their models: only its own one changes.
        """
        self.own = self._train([self.retraining(q, bought[q], 0) for q in self.queriers], "retraining")
        if self._scenario.parties.virtual_per_party > 1:
            return []
        self.voters[: len(self.own)] = self.own
        return list(self.queriers)

    def retrain(self, bought: Sequence[Bought], title: str = "retraining") -> list[list[Quality]]:
        """How good each querying party's model is on its own samples and its labels, by querying party and seed."""
        seeds = range(self._scenario.models.retrainings)
        tasks = [self.retraining(q, bought[q], seed) for q in self.queriers for seed in seeds]
        models = iter(self._train(tasks, title))
        return [[self.judge(q, next(models)) for _ in seeds] for q in self.queriers]

    def retraining(self, querier: int, bought: Bought, seed: int) -> TrainingTask:
        """The querying party's own samples and those that it bought a label for (paper, section 4.2).

        The first seed is the one with which its model was trained before.
        """
        own, (rows, labels) = self.task(querier), bought
        x = np.concatenate([own.x, self.samples(querier, rows)])
        number = self._seeds.integer("retrain", querier, seed) if seed else own.seed
        return TrainingTask(own.kind, x, np.concatenate([own.y, labels]), own.classes, number)

    def judge(self, querier: int, model: Model) -> Quality:
        """How good a model is on a querying party's evaluation set."""
        rows = self.parts.evaluations[querier]
        protected = None if self.dataset.protected is None else self.dataset.protected[rows]
        predicted = model.predict(self.samples(querier, rows))
        return quality(predicted, self.dataset.y[rows], self.dataset.classes, protected)


def nothing_bought() -> Bought:
    """No label yet."""
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
