from typing import Any

import numpy as np
import pytest
import torch

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import load_dataset
from capcsim.learning.metrics import quality
from capcsim.learning.models import build_model
from capcsim.learning.selection import entropy, select
from capcsim.learning.tasks import TrainingTask
from capcsim.learning.training import train_all
from capcsim.scenario import Models, load_scenario

DIGITS = load_dataset(load_scenario("digits").data)


def tasks(kind: Any, count: int = 4) -> list[TrainingTask]:
    return [
        TrainingTask(kind, DIGITS.x[40 * i : 40 * (i + 1)], DIGITS.y[40 * i : 40 * (i + 1)], 10, seed=i)
        for i in range(count)
    ]


@pytest.mark.parametrize("kind", ["logistic", "mlp", "cryptonet-relu"])
def test_training_learns(kind: Any) -> None:
    (model,) = train_all(tasks(kind, 1), Models(), workers=1)
    held_out = quality(model.predict(DIGITS.x[1000:]), DIGITS.y[1000:], 10)
    assert held_out.accuracy > 0.6


def test_weights_do_not_depend_on_the_number_of_workers() -> None:
    alone, together = (train_all(tasks("mlp"), Models(epochs=20), workers=workers) for workers in (1, 2))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_training_leaves_torch_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    train_all(tasks("logistic", 1), Models(epochs=2), workers=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_convolution_needs_images() -> None:
    with pytest.raises(ScenarioError, match=r"samples have shape \(30,\)"):
        build_model("cryptonet-relu", (30,), 2, (5,), seed=0)


def test_cryptonet_relu_is_the_papers() -> None:
    model = build_model("cryptonet-relu", (1, 28, 28), 10, (5,), seed=0)
    assert [tuple(layer.weight.shape) for layer in model if hasattr(layer, "weight")] == [
        (5, 1, 5, 5),
        (100, 980),
        (10, 100),
    ]


def test_entropy_is_shannons() -> None:
    rows = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert entropy(rows) == pytest.approx([np.log(2), 0.0, np.log(3)])


def test_entropy_selection_asks_the_most_uncertain_first() -> None:
    (model,) = train_all(tasks("logistic", 1), Models(), workers=1)
    pool = DIGITS.x[1000:1100]
    chosen = select("entropy", 9, model, pool, DIGITS.x[:40], np.random.default_rng(0))
    uncertain = entropy(model.probabilities(pool))
    assert len(set(chosen.tolist())) == 9
    assert uncertain[chosen].min() >= np.delete(uncertain, chosen).max()
    assert (np.diff(uncertain[chosen]) <= 0).all()


def test_random_selection_depends_on_the_generator_alone() -> None:
    (model,) = train_all(tasks("logistic", 1), Models(epochs=1), workers=1)
    first, again, other = (
        select("random", 9, model, DIGITS.x[:50], DIGITS.x[:40], np.random.default_rng(seed)).tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_quality_counts_by_class() -> None:
    found = quality(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), 3)
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.per_class[:2] == pytest.approx((1 / 2, 2 / 3))
    assert np.isnan(found.per_class[2])
    assert found.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
