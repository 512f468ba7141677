"""A party that lacks classes: they get the lowest logit, in floating point and compiled."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point import compile_model
from capcsim.learning.datasets import load_dataset
from capcsim.learning.tasks import TrainingTask
from capcsim.learning.training import train
from capcsim.scenario import Models, load_scenario

DIGITS = load_dataset(load_scenario("digits").data)
ABSENT = [0, 4, 9]
SEEN = np.setdiff1d(np.arange(10), ABSENT)
KINDS = ["logistic", "mlp", "cryptonet-relu", "vgg-5", "adaboost", "random-forest"]


def trained(kind: Any) -> Any:
    rows = np.flatnonzero(np.isin(DIGITS.y[:150], SEEN))
    return train(TrainingTask(kind, DIGITS.x[rows], DIGITS.y[rows], 10, 1), Models(epochs=30, width=0.1, trees=7))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.sampled_from([0.1, 1.0, 40.0]))
def test_a_class_never_seen_never_wins(kind: str, seed: int, scale: float) -> None:
    model = MODELS[kind]
    x = (scale * np.random.default_rng(seed).standard_normal((20, 1, 8, 8))).astype(np.float32)
    network = compile_model(model.estimator)
    logits = network.evaluate(network.encode(x))
    assert logits.shape == (20, 10)
    lowest_seen = logits[:, SEEN].min(axis=1)
    if kind in ("adaboost", "random-forest"):
        assert (logits[:, ABSENT] == 0).all()
        assert (logits[:, SEEN].max(axis=1) > 0).all()
    else:
        assert (logits[:, ABSENT].max(axis=1) < lowest_seen).all()
    assert not np.isin(model.predict(np.clip(x, -16, 16)), ABSENT).any()


MODELS = {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_compiling_changes_few_predictions(kind: str) -> None:
    model = MODELS[kind]
    network = compile_model(model.estimator)
    found = network.evaluate(network.encode(DIGITS.x[1000:])).argmax(axis=1)
    assert (found == model.predict(DIGITS.x[1000:])).mean() > 0.98
    assert (found == DIGITS.y[1000:]).mean() > 0.3


def estimators() -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.tree import DecisionTreeClassifier

    return {
        "logistic": LogisticRegression(),
        "mlp": MLPClassifier((8,), max_iter=30, random_state=0),
        "tree": DecisionTreeClassifier(max_depth=4),
    }


@pytest.mark.parametrize("name", ["logistic", "mlp", "tree"])
@pytest.mark.parametrize("seen", [[1, 3], [0, 2, 3], [0, 1, 2, 3, 4]])
def test_any_estimator_may_lack_classes(name: str, seen: list[int]) -> None:
    rows = np.flatnonzero(np.isin(DIGITS.y[:300], seen))
    x = DIGITS.x.reshape(len(DIGITS.x), -1)
    model = estimators()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x[rows], DIGITS.y[rows])
    model.class_count = 5
    network = compile_model(model)
    logits = network.evaluate(network.encode(x[1000:1300]))
    assert logits.shape == (300, 5)
    assert (logits.argmax(axis=1) == model.predict(x[1000:1300])).mean() > 0.98
    absent = [label for label in range(5) if label not in seen]
    if name != "tree" and absent:
        assert (logits[:, absent].max(axis=1) < logits[:, seen].min(axis=1)).all()


def test_a_class_outside_the_list_is_refused() -> None:
    model = estimators()["tree"].fit(DIGITS.x.reshape(len(DIGITS.x), -1), DIGITS.y)
    model.class_count = 9
    with pytest.raises(UnsupportedModel, match="relabel them 0 to C - 1"):
        compile_model(model)
