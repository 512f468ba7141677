from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import Dataset, load_dataset
from capcsim.learning.partition import partition
from capcsim.scenario import Scenario
from capcsim.scenario_files import load_scenario
from capcsim.seeds import Seeds


@given(st.integers(2, 12), st.integers(1, 2), st.integers(1, 3), st.integers(0, 99))
def test_all_parts_are_disjoint_and_of_the_size_asked_for(parties: int, queriers: int, virtual: int, seed: int) -> None:
    scenario = load_scenario(
        "smoke", [f"parties.count={parties}", f"parties.queriers={queriers}", f"parties.virtual_per_party={virtual}"]
    )
    dataset = load_dataset(scenario.data)
    parts = partition(dataset, scenario.data, scenario.parties, Seeds(seed))
    shards = [shard for party in parts.shards for shard in party]
    everything = np.concatenate([*shards, *parts.pools, parts.evaluations[0]])
    assert len(np.unique(everything)) == len(everything)
    assert [len(parts.owned(party)) for party in range(parties)] == [scenario.data.train_per_party] * parties
    assert [len(pool) for pool in parts.pools] == [scenario.data.pool_per_querier] * queriers
    assert len(shards) == parties * virtual


def test_the_seed_decides(scenario: Callable[..., Scenario]) -> None:
    wanted = scenario()
    dataset = load_dataset(wanted.data)
    first, again, other = (
        partition(dataset, wanted.data, wanted.parties, Seeds(seed)).evaluations[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_few_samples_say_how_many_would_fit(scenario: Callable[..., Scenario]) -> None:
    wanted = scenario({"data.train_per_party": 300})
    with pytest.raises(ScenarioError, match="= 2660 samples, but digits has 1797; at most 192 fit"):
        partition(load_dataset(wanted.data), wanted.data, wanted.parties, Seeds(0))


def test_a_class_that_nobody_holds(scenario: Callable[..., Scenario]) -> None:
    rare = Dataset("rare", np.zeros((600, 2), np.float32), np.arange(600) // 599, 2)
    small = scenario({"data.train_per_party": 1, "data.pool_per_querier": 7, "data.evaluation": 10})
    with pytest.raises(ScenarioError, match="nobody holds class 1"):
        partition(rare, small.data, small.parties, Seeds(0))
