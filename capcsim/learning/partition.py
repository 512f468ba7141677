"""Disjoint parts of a data set: each party's training samples, the query pools, the evaluation set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import Dataset
from capcsim.scenario import Scenario
from capcsim.seeds import Seeds

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Partition:
    """Indices into a data set, all disjoint.

    `shards[p][v]` trains the v-th model of party p, `pools[q]` is what querying party q may ask about.
    """

    shards: tuple[tuple[Indices, ...], ...]
    pools: tuple[Indices, ...]
    evaluation: Indices

    def owned(self, party: int) -> Indices:
        """All training samples of a party."""
        return np.concatenate(self.shards[party])


def partition(dataset: Dataset, scenario: Scenario, seeds: Seeds) -> Partition:
    """Draw every part uniformly without replacement (paper, section 4.2); raises ScenarioError."""
    data, parties = scenario.data, scenario.parties
    training = parties.count * data.train_per_party
    pools = parties.queriers * data.pool_per_querier
    wanted = training + pools + data.evaluation
    if wanted > len(dataset.y):
        left = (len(dataset.y) - pools - data.evaluation) // parties.count
        allowed = (
            f"{parties.count} parties x {data.train_per_party} + {parties.queriers} pools x"
            f" {data.pool_per_querier} + {data.evaluation} = {wanted} samples, but {dataset.name} has"
            f" {len(dataset.y)}; at most {max(left, 0)} fit"
        )
        raise ScenarioError("data.train_per_party", data.train_per_party, allowed)
    order = seeds.generator("partition").permutation(len(dataset.y))
    own = order[:training].reshape(parties.count, data.train_per_party)
    shards = tuple(tuple(np.array_split(row, parties.virtual_per_party)) for row in own)
    pool_rows = order[training : training + pools].reshape(parties.queriers, data.pool_per_querier)
    _check_classes(dataset, order[:training], data.train_per_party)
    return Partition(shards, tuple(pool_rows), order[training + pools : wanted])


def _check_classes(dataset: Dataset, training: Indices, train_per_party: int) -> None:
    held = np.bincount(dataset.y[training], minlength=dataset.classes)
    nobody = np.flatnonzero(held == 0)
    if len(nobody):
        allowed = f"enough that every class is held by a party; nobody holds class {nobody[0]}"
        raise ScenarioError("data.train_per_party", train_per_party, allowed)
