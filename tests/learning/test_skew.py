"""Partitions that are not uniform: sites, rare classes, mixtures, sizes; and sets with a test part of their own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import load_dataset
from capcsim.learning.partition import Partition, partition
from capcsim.learning.samples import Dataset
from capcsim.scenario import BundledData, Parties, Scenario, load_scenario
from capcsim.seeds import Seeds

DIGITS = load_dataset(load_scenario("digits").data)
SIZES: dict[str, Any] = {"train_per_party": 60, "pool_per_querier": 30, "evaluation": 200}


def parts_of(dataset: Dataset = DIGITS, count: int = 12, seed: int = 3, virtual: int = 1, **data: Any) -> Partition:
    wanted = BundledData(source="digits", **(SIZES | data))
    return partition(dataset, wanted, Parties(count=count, queriers=2, virtual_per_party=virtual), Seeds(seed))


def classes_of(parts: Partition, count: int = 12, dataset: Dataset = DIGITS) -> np.ndarray:
    """How many samples of each class each party has."""
    return np.stack([np.bincount(dataset.y[parts.owned(party)], minlength=10) for party in range(count)])


def assert_disjoint(parts: Partition, count: int = 12) -> None:
    everything = np.concatenate([*map(parts.owned, range(count)), *parts.pools, parts.evaluations[0]])
    assert len(np.unique(everything)) == len(everything)


@given(st.floats(0.05, 50), st.integers(0, 99), st.floats(0, 1.5))
def test_a_dirichlet_mixture_keeps_sizes_and_disjointness(alpha: float, seed: int, spread: float) -> None:
    parts = parts_of(partition="dirichlet", dirichlet_alpha=alpha, seed=seed, size_spread=spread)
    assert_disjoint(parts)
    sizes = classes_of(parts).sum(axis=1)
    assert sizes.sum() == 12 * 60
    assert sizes.min() >= 1
    assert spread or set(sizes.tolist()) == {60}


def test_a_small_alpha_makes_parties_differ_more() -> None:
    def largest_share(alpha: float) -> float:
        held = classes_of(parts_of(partition="dirichlet", dirichlet_alpha=alpha))
        return float((held.max(axis=1) / held.sum(axis=1)).mean())

    uniform = classes_of(parts_of())
    assert largest_share(0.1) > 0.4 > 0.25 > largest_share(100.0)
    assert largest_share(100.0) == pytest.approx((uniform.max(axis=1) / 60).mean(), abs=0.06)


def test_sizes_spread_by_as_much_as_asked_and_keep_their_total() -> None:
    sizes = classes_of(parts_of(count=20, size_spread=0.5, virtual=2), 20).sum(axis=1)
    assert sizes.sum() == 20 * 60
    assert 0.3 < np.log(sizes).std() < 0.7
    assert sizes.min() >= 2


def test_weak_classes_lose_most_of_their_training_samples_and_no_others() -> None:
    normal, weak = parts_of(), parts_of(weak_classes=(1, 2), weak_ratio=0.1, weak_parties="all")
    before, after = classes_of(normal), classes_of(weak)
    rest = [0, *range(3, 10)]
    assert (before[:, rest] == after[:, rest]).all()
    assert after[:, [1, 2]].sum() == pytest.approx(0.1 * before[:, [1, 2]].sum(), abs=6)
    assert (after[:, [1, 2]] <= np.ceil(0.1 * before[:, [1, 2]])).all()
    assert all((a == b).all() for a, b in zip(normal.pools, weak.pools, strict=True))
    assert (normal.evaluations[0] == weak.evaluations[0]).all()
    assert_disjoint(weak)


def test_weak_are_the_querying_parties_unless_all_are_said_to_be() -> None:
    before, after = classes_of(parts_of()), classes_of(parts_of(weak_classes=(1, 2), weak_ratio=0.0))
    assert (after[:2, [1, 2]] == 0).all()
    assert (after[2:] == before[2:]).all()


def test_a_test_part_gives_pools_and_evaluation_and_no_training_sample() -> None:
    split = replace(DIGITS, training=1200)
    parts = parts_of(split)
    assert max(parts.owned(party).max() for party in range(12)) < 1200
    assert min(rows.min() for rows in (*parts.pools, *parts.evaluations)) >= 1200
    assert_disjoint(parts)
    says = r"300: 2 pools x 300 \+ evaluation 200 = 800 samples, but digits's test part has 597; at most 198 fit"
    with pytest.raises(ScenarioError, match=rf"data\.pool_per_querier = {says}"):
        parts_of(split, pool_per_querier=300)
    with pytest.raises(ScenarioError, match="1212 samples, but digits's training part has 1200; at most 100 fit"):
        parts_of(split, train_per_party=101)


def test_sites_keep_their_own_samples() -> None:
    sites = replace(DIGITS, site=np.arange(1797) % 3)
    parts = parts_of(sites, 3, partition="site", train_per_party=None, virtual=4)
    for site in range(3):
        assert (parts.owned(site) % 3 == site).all()
        assert len(parts.shards[site]) == 4
    assert len(parts.owned(2)) == 599
    for querier in range(2):
        assert (parts.pools[querier] % 3 == querier).all()
        assert (parts.evaluations[querier] % 3 == querier).all()
        own = np.concatenate([parts.owned(querier), parts.pools[querier], parts.evaluations[querier]])
        assert len(np.unique(own)) == len(own) == 599
    with pytest.raises(ScenarioError, match=r"parties\.count = 12: 3: one party for each site"):
        parts_of(sites, partition="site")
    with pytest.raises(ScenarioError, match=r"at most 395: site 0 has 599 samples, data\.evaluation = 200"):
        parts_of(sites, 3, partition="site", pool_per_querier=396, virtual=4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weak_classes": (10,)}, r"data\.weak_classes = \[10\]: numbers of classes of digits: 0 to 9"),
        ({"weak_classes": (3,), "weak_ratio": 0.0, "weak_parties": "all"}, r"weak_ratio = 0.* nobody holds class 3"),
        ({"weak_classes": tuple(range(9)), "weak_ratio": 0.1, "virtual": 30}, "the number of samples that party"),
    ],
)
def test_impossible_skew_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        parts_of(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.partition": "site"}, r"data\.partition = 'site': 'uniform' or 'dirichlet', or name the column"),
        ({"data.partition": "dirichlet"}, r"data\.dirichlet_alpha is missing: a number above 0"),
        ({"data.dirichlet_alpha": 1.0}, r"data\.dirichlet_alpha = 1\.0: a number above 0 for .* only for it"),
        ({"data.site": "ward"}, r"data\.site = 'ward': remove it: only data\.source = 'csv' or 'parquet' takes it"),
        ({"data.protected": "sex"}, r"data\.protected = 'sex': remove it"),
        (
            {"data.missing": "median"},
            r"data\.missing = 'median': remove it: only data\.source = 'heart', 'npz', 'arrays'",
        ),
        (
            {"data.folder": "sets"},
            r"data\.folder = 'sets': remove it: only data\.source = 'mnist', .* or 'heart' takes",
        ),
        ({"data.train_per_party": None}, r"data\.train_per_party is missing: required"),
        ({"data.weak_ratio": 1.1}, r"data\.weak_ratio = 1\.1: a number from 0 to 1"),
        ({"data.source": "csv"}, r"data\.path is missing: a file"),
        ({"data.source": "mnst"}, r"data\.source = 'mnst': 'digits', .*did you mean mnist"),
        ({"queries.rounds": 8}, r"queries\.rounds = 8: at most queries\.per_querier = 7"),
        (
            {"data.source": "heart", "data.partition": "site", "data.size_spread": 0.5},
            r"data\.size_spread = 0\.5: 0: a site has the size",
        ),
    ],
)
def test_a_bad_scenario_says_what_may_stand_there(
    scenario: Callable[..., Scenario], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ScenarioError, match=says):
        scenario(changes)
