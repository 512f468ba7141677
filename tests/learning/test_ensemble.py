"""The learning side of a collaboration, and what it is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from capcsim.learning.baselines import compare, federated_averaging, pooled_task
from capcsim.learning.datasets import load_dataset
from capcsim.learning.ensemble import Ensemble, nothing_bought
from capcsim.learning.models import Model
from capcsim.learning.samples import Dataset
from capcsim.learning.selection import greedy_k_center
from capcsim.learning.tasks import TrainingTask, untrained
from capcsim.learning.training import train_all
from capcsim.scenario import Models, Scenario, Selection
from capcsim.seeds import Seeds

Build = Callable[..., Scenario]


class Taught:
    """Parties, and the models that they trained."""

    def __init__(self, scenario: Scenario, dataset: Dataset | None = None) -> None:
        self.ensemble = Ensemble.of(scenario, dataset or load_dataset(scenario.data))
        self.models = self.ensemble.train(self.train)
        self.voters, self.own = self.models.voters, self.models.own

    def train(self, tasks: Sequence[TrainingTask], title: str) -> list[Model]:
        return train_all(tasks, self.ensemble.scenario.models, workers=1)

    def select(self, selection: Selection, querier: int, count: int, *rest: Any) -> Any:
        return self.ensemble.select(selection, self.own[querier], querier, count, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ensemble, name)


@pytest.fixture
def quick(scenario: Build) -> Build:
    return lambda changes=None: scenario({"models.epochs": 30, "models.kinds": ["logistic"], **(changes or {})})


def test_a_virtual_party_chooses_with_a_stronger_model_than_it_votes_with(quick: Build) -> None:
    ensemble = Taught(quick({"parties.virtual_per_party": 4, "data.train_per_party": 80, "parties.count": 4}))
    assert ensemble.owners == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert (len(ensemble.voters), len(ensemble.own)) == (16, 2)
    strong, weak = (
        [np.mean([ensemble.judge(q, model).accuracy for model in models]) for q, models in found]
        for found in (
            [(q, [ensemble.own[q]]) for q in (0, 1)],
            [(q, ensemble.voters[4 * q : 4 * q + 4]) for q in (0, 1)],
        )
    )
    assert all(np.array(strong) > np.array(weak) + 0.1)


def test_one_model_a_party_is_both_its_voter_and_its_own(quick: Build) -> None:
    ensemble = Taught(quick())
    assert ensemble.own == ensemble.voters[:2]


def test_a_further_round_leaves_out_what_was_asked_and_lets_the_retrained_answer(quick: Build) -> None:
    ensemble = Taught(quick({"data.pool_per_querier": 60}))
    nothing = nothing_bought()
    first = [ensemble.select("entropy", q, 40, nothing, nothing[0]) for q in (0, 1)]
    bought = [(rows, ensemble.dataset.y[rows]) for rows in first]
    before = ensemble.voters
    after, changed = ensemble.adopt(ensemble.models, bought, ensemble.train)
    assert changed == (0, 1)
    assert after.voters[:2] == after.own
    assert [new is old for new, old in zip(after.voters, before, strict=True)] == [False] * 2 + [True] * 6
    assert [new == old for new, old in zip(after.keys, ensemble.models.keys, strict=True)] == [False] * 2 + [True] * 6
    then = ensemble.select("entropy", 0, 20, bought[0], first[0], 1)
    assert sorted([*first[0], *then]) == sorted(ensemble.parts.pools[0])
    gains = [ensemble.judge(q, after.own[q]).accuracy - ensemble.judge(q, before[q]).accuracy for q in (0, 1)]
    assert np.mean(gains) > 0


def test_virtual_parties_keep_their_shards_models(quick: Build) -> None:
    ensemble = Taught(quick({"parties.virtual_per_party": 2}))
    after, changed = ensemble.adopt(ensemble.models, [nothing_bought()] * 2, ensemble.train)
    assert (after.voters, after.keys, changed) == (ensemble.models.voters, ensemble.models.keys, ())


def test_seeds_of_retraining_differ_and_the_first_is_the_parties_own(quick: Build) -> None:
    ensemble = Taught(quick({"models.retrainings": 3, "models.kinds": ["mlp"]}))
    found = ensemble.retrain([nothing_bought()] * 2, ensemble.train)
    assert [len(each) for each in found] == [3, 3]
    for querier, qualities in enumerate(found):
        assert qualities[0] == ensemble.judge(querier, ensemble.own[querier])
        assert len({quality.accuracy for quality in qualities}) > 1


def test_a_query_is_imputed_by_the_querying_party(quick: Build) -> None:
    generator = np.random.default_rng(0)
    x = generator.random((900, 5)).astype(np.float32)
    x[generator.random(x.shape) < 0.3] = np.nan
    holes = Dataset("holes", x, np.arange(900) % 2, 2)
    ensemble = Taught(quick(), holes)
    rows = ensemble.parts.evaluations[0]
    seen = [ensemble.samples(party, rows) for party in (0, 1)]
    known = ~np.isnan(x[rows])
    assert all((found[known] == x[rows][known]).all() for found in seen)
    medians = np.nanmedian(x[ensemble.parts.owned(1)], axis=0)
    assert (np.where(known, 0, seen[1]) == np.where(known, 0, medians)).all()
    assert (seen[0] != seen[1]).any()


def test_one_record_moves_one_shard_also_where_gaps_are_filled(quick: Build) -> None:
    """What makes one vote the price of a record: medians over other shards would carry it there."""
    generator = np.random.default_rng(0)
    x = generator.random((900, 5)).astype(np.float32)
    x[generator.random(x.shape) < 0.3] = np.nan
    wanted = quick({"parties.virtual_per_party": 4, "privacy.unit": "record"})
    before = Taught(wanted, Dataset("holes", x, np.arange(900) % 2, 2))
    for record in before.parts.owned(3)[::21]:
        moved = x.copy()
        moved[record] = 9
        after = Taught(wanted, Dataset("holes", moved, np.arange(900) % 2, 2))
        pairs = [(before.task(3, shard), after.task(3, shard)) for shard in range(4)]
        assert sum((old.x != new.x).any() for old, new in pairs) == 1


def test_kinds_are_dealt_out_to_the_parties_in_turn(quick: Build) -> None:
    ensemble = Taught(quick({"models.kinds": ["logistic", "mlp", "random-forest"]}))
    assert [ensemble.task(party).kind for party in range(4)] == ["logistic", "mlp", "random-forest", "logistic"]
    assert [type(model).__name__ for model in ensemble.voters[:3]] == ["Classifier", "Classifier", "Trees"]


def test_k_center_begins_with_all_that_the_querying_party_has_a_label_for(quick: Build) -> None:
    ensemble = Taught(quick({"models.kinds": ["mlp"]}))
    nothing = nothing_bought()
    asked = ensemble.select("k-center", 1, 5, nothing, nothing[0])
    bought = asked, ensemble.dataset.y[asked]
    found = ensemble.select("k-center", 1, 6, bought, asked, 1)
    pool = np.setdiff1d(ensemble.parts.pools[1], asked, assume_unique=True)
    features = [
        ensemble.own[1].features(ensemble.samples(1, rows))
        for rows in (pool, np.concatenate([ensemble.parts.owned(1), asked]))
    ]
    assert (found == pool[greedy_k_center(*features, 6)]).all()


def test_every_round_draws_other_queries_at_random(quick: Build) -> None:
    ensemble, nothing = Taught(quick()), nothing_bought()
    first, second = (ensemble.select("random", 0, 20, nothing, nothing[0], round_) for round_ in (0, 1))
    assert set(first) != set(second)


def test_retraining_with_and_without_labels_shares_its_seed(quick: Build) -> None:
    ensemble = Taught(quick())
    rows = ensemble.parts.pools[0][:3]
    for seed in range(3):
        tasks = [
            ensemble.retraining(0, bought, seed) for bought in (nothing_bought(), (rows, ensemble.dataset.y[rows]))
        ]
        assert tasks[0].seed == tasks[1].seed
        assert len(tasks[1].y) == len(tasks[0].y) + 3


def test_pooling_is_better_than_any_party_and_averaging_comes_near(
    quick: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"models.baselines": ["pooling", "fedavg"], "models.fedavg_rounds": 8}
    wanted = quick({**changes, "models.kinds": ["mlp"]})
    ensemble = Taught(wanted)
    found = compare(ensemble.ensemble, wanted.models, Seeds(1))
    alone = np.mean([ensemble.judge(q, ensemble.own[q]).accuracy for q in (0, 1)])
    pooled, averaged = (np.mean([each.accuracy for each in found[name].qualities]) for name in ("pooling", "fedavg"))
    assert pooled > alone + 0.05
    assert averaged > alone
    weights = sum(value.numel() for value in untrained(ensemble.task(0), wanted.models).state_dict().values())
    assert found["fedavg"].sent_bytes == 2 * 8 * 8 * 4 * weights
    assert found["pooling"].sent_bytes is None
    monkeypatch.setattr("capcsim.learning.baselines.federated_averaging", lambda *_: pytest.fail("it trained again"))
    assert compare(ensemble.ensemble, wanted.models, Seeds(1)) == found


def test_averaging_weighs_by_samples_and_covers_running_statistics() -> None:
    from capcsim.learning.baselines import LOCAL_EPOCHS, _mean, _trained_here

    generator = np.random.default_rng(0)
    x = generator.random((12, 1, 8, 8)).astype(np.float32)
    models = Models(epochs=1, width=0.05, fedavg_rounds=1, batch_size=4)
    tasks = [TrainingTask("vgg-5", x[a:b], np.arange(b - a) % 2, 3, 1) for a, b in ((0, 4), (4, 12))]
    one, two = (untrained(task, models).state_dict() for task in tasks)
    two = {name: value + 3 for name, value in two.items()}
    mixed = _mean([one, two], [4, 8])
    assert all(
        np.allclose(mixed[name], one[name].double() + 2, atol=1e-5) for name in one if one[name].is_floating_point()
    )
    federated = federated_averaging(tasks, models, Seeds(0))
    local, common = models.model_copy(update={"epochs": LOCAL_EPOCHS}), untrained(tasks[0], models)
    own = [replace(task, seed=Seeds(0).integer("fedavg", 0, index)) for index, task in enumerate(tasks)]
    small, large = (_trained_here(common, task, local)["0.weight"].double() for task in own)
    assert np.allclose(federated.state_dict()["0.weight"], (small + 2 * large) / 3, atol=1e-6)
    assert not np.allclose(small, large, atol=1e-3)
    assert not np.allclose(federated.state_dict()["1.running_mean"], 0)
    assert not (federated.predict(x) == 2).any(), "nobody has class 2"


@pytest.mark.parametrize("kinds", [["logistic", "mlp"], ["random-forest"]])
def test_averaging_needs_one_kind_of_network(quick: Build, kinds: list[str]) -> None:
    wanted = quick({"models.kinds": kinds, "models.baselines": ["fedavg"]})
    found = compare(Taught(wanted).ensemble, wanted.models, Seeds(1))["fedavg"]
    assert found.qualities == ()
    assert "one kind of network" in found.note


def test_pooled_samples_are_everybodys(quick: Build) -> None:
    ensemble = Taught(quick())
    tasks = [ensemble.task(party) for party in range(8)]
    pooled = pooled_task(tasks, tasks[3])
    assert len(pooled.y) == 8 * 40
    assert (pooled.x[40:80] == tasks[1].x).all()
