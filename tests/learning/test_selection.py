"""Margin and greedy k-center against their definitions, written out."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capcsim.learning.models import build_model
from capcsim.learning.selection import greedy_k_center, margin, select


def naive_k_center(points: np.ndarray, centres: np.ndarray, count: int) -> list[int]:
    """Definition 8, greedily, one distance at a time."""
    chosen: list[int] = []
    for _ in range(count):
        known = [*centres, *(points[i] for i in chosen)]
        nearest = [min(float(((point - centre) ** 2).sum()) for centre in known) for point in points]
        left = [i for i in range(len(points)) if i not in chosen]
        chosen.append(max(left, key=lambda i: (nearest[i], -i)))
    return chosen


@given(st.integers(2, 25), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_k_center_is_the_definition(points: int, centres: int, features: int, seed: int) -> None:
    # Whole numbers, so that both ways of computing a distance are exact.
    generator = np.random.default_rng(seed)
    x = generator.integers(-9, 10, (points, features)).astype(np.float32)
    own = generator.integers(-9, 10, (centres, features)).astype(np.float32)
    assert greedy_k_center(x, own, points).tolist() == naive_k_center(x, own, points)


def test_k_center_takes_thousands_of_points() -> None:
    generator = np.random.default_rng(0)
    x, own = (generator.random((n, 200), np.float32) for n in (3000, 2000))
    started_s = time.perf_counter()
    chosen = greedy_k_center(x, own, 200)
    assert time.perf_counter() - started_s < 10
    assert len(set(chosen.tolist())) == 200


def test_k_center_looks_at_the_layer_before_the_last() -> None:
    generator = np.random.default_rng(0)
    model = build_model("mlp", (6,), 3, (4,), seed=0).eval()
    pool, own = (generator.random((n, 6), np.float32) for n in (20, 5))
    features = model.features(pool)
    assert features.shape == (20, 4)
    logits = features @ model[-1].weight.detach().numpy().T + model[-1].bias.detach().numpy()
    assert (logits.argmax(axis=1) == model.predict(pool)).all()
    chosen = select("k-center", 7, model, pool, own, generator)
    assert chosen.tolist() == greedy_k_center(features, model.features(own), 7).tolist()


def test_margin_is_the_gap_between_the_two_most_probable_classes() -> None:
    rows = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.4, 0.2, 0.4]])
    assert margin(rows) == pytest.approx([0.2, 1.0, 0.0])


def test_margin_selection_asks_the_closest_first() -> None:
    generator = np.random.default_rng(0)
    model = build_model("mlp", (6,), 3, (4,), seed=0).eval()
    pool = generator.random((40, 6), np.float32)
    gaps = margin(model.probabilities(pool))
    chosen = select("margin", 9, model, pool, pool[:1], generator)
    assert (np.diff(gaps[chosen]) >= 0).all()
    assert gaps[chosen].max() <= np.delete(gaps, chosen).min()
