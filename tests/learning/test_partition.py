from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import Dataset, load_dataset
from capcsim.learning.partition import partition
from capcsim.scenario import Scenario, load_scenario
from capcsim.seeds import Seeds


@settings(deadline=None)  # the first call loads scikit-learn
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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.evaluation": 1500}, r"data\.evaluation = 1500: 8 parties x 40 \+ .* digits has 1797; at most 1417 fit"),
        ({"data.pool_per_querier": 900}, r"data\.pool_per_querier = 900: .* = 2320 samples, .*; at most 638 fit"),
        ({"data.train_per_party": 1, "parties.count": 1700}, r"parties\.count = 1700: .*; at most 1537 fit"),
        (
            {"data.pool_per_querier": 1797, "data.evaluation": 1797},
            r"parties\.count = 8: .*; lower several of parties\.count, data\.train_per_party, data\.pool_per_querier",
        ),
    ],
)
def test_the_key_that_can_make_samples_suffice_is_named(
    scenario: Callable[..., Scenario], changes: dict[str, int], says: str
) -> None:
    wanted = scenario(changes)
    with pytest.raises(ScenarioError, match=says):
        partition(load_dataset(wanted.data), wanted.data, wanted.parties, Seeds(0))


def test_a_rare_class_is_named_with_its_number(scenario: Callable[..., Scenario]) -> None:
    names = {"classes": ("common", "rare "), "sites": ("east", "west")}
    y, site = np.arange(600) // 599, np.arange(600) % 2
    rare = Dataset("mine.csv", np.zeros((600, 2), np.float32), y, 2, site=site, names=names)
    small = scenario({"data.train_per_party": 1, "data.pool_per_querier": 7, "data.evaluation": 10})
    with pytest.raises(
        ScenarioError, match=r"nobody holds class 1 \('rare '\), of which mine.csv has 1 of 600 samples"
    ):
        partition(rare, small.data, small.parties, Seeds(0))
    by_site = {"data.source": "heart", "data.partition": "site", "data.train_per_party": None, "data.evaluation": 290}
    wanted = scenario(by_site | {"parties.count": 2, "data.pool_per_querier": 7})
    with pytest.raises(
        ScenarioError, match=r"data\.evaluation = 290: less, so that every class .*nobody holds class 1"
    ):
        partition(rare, wanted.data, wanted.parties, Seeds(1))
    wanted = scenario(by_site)
    with pytest.raises(
        ScenarioError, match=r"parties\.count = 8: 2: one party for each site of mine.csv \('east', 'we"
    ):
        partition(rare, wanted.data, wanted.parties, Seeds(0))
