"""Parties without data: models with random weights, and votes that agree with a truth as often as the scenario says.

What an ensemble costs depends on its models' structure, not on their weights. Votes are independent of each other,
which those of models that learned alike are not: a scenario without data says nothing about learning.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.models import Model, build_model, usual_input_shape
from capcsim.learning.own import Own
from capcsim.learning.partition import Partition
from capcsim.learning.samples import Dataset
from capcsim.scenario import Models, NetworkKind, NoData, Scenario, TreesKind
from capcsim.seeds import Seeds

NAME = "none"
NOTE = (
    "No data: nothing is learned. Each vote is right with probability {agreement:g}, independently of the others, which"
    " is assumed; real models err together."
)
INPUTS = 64
"""Random inputs are enough: pairs are run on a few, and cost the same on all."""


def assumed_dataset(scenario: Scenario, data: NoData) -> Dataset:
    """Random inputs, and as many true classes as queries may be asked."""
    networks = get_args(NetworkKind)
    for kind in scenario.models.kinds:
        if kind in get_args(TreesKind):
            raise ScenarioError("models.kinds", kind, "a network, where there are no data: trees grow on data")
    usual = next((usual_input_shape(kind) for kind in networks if kind in scenario.models.kinds), None)
    shape = data.input_shape or usual
    if shape is None:
        raise ScenarioError(
            "data.input_shape", None, "a sample's shape, which your own model cannot tell, such as [1, 28, 28]"
        )
    queries = sum(map(scenario.wanted, range(scenario.parties.queriers)))
    x = Seeds(scenario.seed).generator("assumed inputs").random((INPUTS, *shape), np.float32)
    y = Seeds(scenario.seed).generator("assumed classes").integers(data.classes, size=queries)
    rows = np.arange(queries) % INPUTS
    return Dataset(NAME, x[rows], y, data.classes, notes=(NOTE.format(agreement=data.agreement),))


def assumed_partition(scenario: Scenario) -> Partition:
    """Nobody owns a sample; each querying party asks about its own queries."""
    nothing = np.zeros(0, np.int64)
    ends = np.cumsum([0, *map(scenario.wanted, range(scenario.parties.queriers))])
    pools = tuple(np.arange(first, last) for first, last in pairwise(ends))
    shards = ((nothing,) * scenario.parties.virtual_per_party,) * scenario.parties.count
    return Partition(shards, pools, (nothing,) * scenario.parties.queriers)


def random_models(models: Models, voters: Sequence[int], dataset: Dataset, own: Mapping[str, Own]) -> tuple[Model, ...]:
    """A model for each voter, of whose party it is the number; one object for all of a kind."""
    made = {kind: _random_model(kind, models, dataset, own) for kind in dict.fromkeys(models.kinds)}
    return tuple(made[models.kinds[party % len(models.kinds)]] for party in voters)


def _random_model(kind: str, models: Models, dataset: Dataset, own: Mapping[str, Own]) -> Model:
    if kind in own:
        return own[kind].tried(dataset.shape, dataset.classes)
    network = next(known for known in get_args(NetworkKind) if known == kind)
    return build_model(network, dataset.shape, dataset.classes, models.hidden, 0, models.width)


def assumed_votes(data: NoData, truth: NDArray[np.int64], voters: int, querier: int, seeds: Seeds) -> NDArray[np.int64]:
    """int64[voters, n]: the true class with the scenario's probability, else any other."""
    generator = seeds.generator("assumed votes", querier)
    size = (voters, len(truth))
    right = generator.random(size) < data.agreement
    other = (truth + generator.integers(1, data.classes, size=size)) % data.classes
    return np.where(right, truth, other)
