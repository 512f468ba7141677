import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point import PublicNetwork, compile_model
from tests.fixed_point.reference import forest_logits

FEATURES = 6


class Scaled(LogisticRegression):
    """It fits and predicts on scaled features: its coefficients alone would predict something else."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Any:
        self.spread_ = x.std(axis=0)
        return super().fit(x / self.spread_, y)

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return super().decision_function(x / self.spread_)


class Renamed(LogisticRegression):
    """A subclass that predicts as its base does."""


def samples(classes: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_classification(600, FEATURES, n_informative=5, n_redundant=0, n_classes=classes, random_state=1)
    return x.astype(np.float32), y


def fitted(model: Any, classes: int = 3) -> Any:
    x, y = samples(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x[:300], y[:300])


TREES: dict[str, Callable[[], Any]] = {
    "tree": lambda: DecisionTreeClassifier(max_depth=6, random_state=0),
    "stump": lambda: DecisionTreeClassifier(max_depth=1, random_state=0),
    "uneven tree": lambda: DecisionTreeClassifier(max_leaf_nodes=7, random_state=0),
    "forest": lambda: RandomForestClassifier(13, max_depth=5, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(8, max_depth=4, random_state=0),
    "boosted": lambda: AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=9, random_state=0),
    "boosted stumps": lambda: AdaBoostClassifier(n_estimators=5, random_state=0),
}
OTHERS: dict[str, Callable[[], Any]] = {
    "logistic": LogisticRegression,
    "perceptron": lambda: MLPClassifier((12, 7), max_iter=60, random_state=0),
    "linear perceptron": lambda: MLPClassifier((), max_iter=60, random_state=0),
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", TREES | OTHERS)
def test_predictions_are_scikit_learns(name: str, classes: int) -> None:
    model = fitted((TREES | OTHERS)[name](), classes)
    x, _ = samples(classes)
    network = compile_model(model)
    predicted = network.evaluate(network.encode(x)).argmax(axis=1)
    assert (predicted == model.predict(x)).mean() >= 0.998
    assert PublicNetwork.from_bytes(network.public.to_bytes()) == network.public


def tree_votes(model: Any) -> tuple[list[Any], Any]:
    """The trees, and what a leaf of each is worth."""
    if isinstance(model, DecisionTreeClassifier):
        return [model], lambda index, leaf: shares(model, leaf)
    trees = list(model.estimators_)
    if isinstance(model, AdaBoostClassifier):
        alphas = model.estimator_weights_ / model.estimator_weights_.sum()
        return trees, lambda index, leaf: [
            alphas[index] * (place == int(np.argmax(shares(trees[index], leaf)))) for place in range(3)
        ]
    return trees, lambda index, leaf: shares(trees[index], leaf) / len(trees)


def shares(tree: Any, leaf: int) -> np.ndarray:
    counts = tree.tree_.value[leaf, 0]
    return np.asarray(counts / counts.sum())


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("ranges", [None, [(-7.5, 9.0 + feature) for feature in range(FEATURES)]])
def test_trees_are_exact_in_integers(name: str, ranges: Any) -> None:
    model = fitted(TREES[name]())
    low, high = [-(16 << 16)] * FEATURES, [16 << 16] * FEATURES
    if ranges:
        model.feature_ranges = ranges
        low, high = ([int(end * 65536) for end in ends] for ends in zip(*ranges, strict=True))
    x = samples(3)[0][:60] * np.random.default_rng(0).choice([1, 5], (60, 1)).astype(np.float32)
    network = compile_model(model)
    trees, votes = tree_votes(model)
    expected = forest_logits(trees, votes, x, low, high, network.public.fraction_bits)
    assert network.evaluate(network.encode(x)).tolist() == expected
    assert network.public.ring_bits == 24


def test_a_forest_shows_its_depth_and_number_and_nothing_else() -> None:
    first, second = (
        compile_model(fitted(RandomForestClassifier(9, max_depth=4, random_state=seed))).public for seed in (1, 2)
    )
    assert first == second
    assert tuple(map(str, first.layers)) == ("linear(6->135)", "tree_paths(9 trees of depth 4)", "linear(144->3)")


def test_a_feature_equal_to_a_threshold_goes_left() -> None:
    model = DecisionTreeClassifier().fit(np.array([[0.0], [1.0]]), [0, 1])
    network = compile_model(model)
    x = np.array([[0.5], [np.nextafter(np.float32(0.5), np.float32(1))], [0.51], [-99], [99]], np.float32)
    # The second lies within 2^-16 of the threshold, where it cannot be told from it.
    assert network.evaluate(network.encode(x)).argmax(axis=1).tolist() == [0, 0, 1, 0, 1]


def test_a_single_logit_is_the_second_of_two() -> None:
    network = compile_model(fitted(LogisticRegression(), 2))
    logits = network.evaluate(network.encode(samples(2)[0]))
    assert (logits[:, 0] == 0).all()
    assert network.public.classes == 2


@pytest.mark.parametrize("name", ["tree", "logistic"])
def test_images_are_flattened(name: str) -> None:
    model = fitted((TREES | OTHERS)[name]())
    x, _ = samples(3)
    flat = compile_model(model)
    model.input_shape = (1, 2, 3)
    network = compile_model(model)
    images = x.reshape(-1, 1, 2, 3)
    assert (network.evaluate(network.encode(images)) == flat.evaluate(flat.encode(x))).all()


def relabelled(labels: list[int]) -> Any:
    x, y = samples(3)
    return DecisionTreeClassifier(max_depth=2).fit(x, np.array(labels)[y])


def with_ranges(ranges: Any) -> Any:
    model = fitted(DecisionTreeClassifier(max_depth=3))
    model.feature_ranges = ranges
    return model


def with_shape(shape: Any) -> Any:
    model = fitted(DecisionTreeClassifier(max_depth=3))
    model.input_shape = shape
    return model


def broken() -> Any:
    model = fitted(LogisticRegression())
    model.coef_[0, 0] = np.nan
    return model


def large() -> Any:
    x, y = samples(3)
    return DecisionTreeClassifier(max_depth=2).fit(100 * x, y)


def deep() -> Any:
    """Labels at random can only be told apart one by one."""
    x = np.arange(600)[:, None] / 100
    return DecisionTreeClassifier(random_state=0).fit(x, np.random.default_rng(0).integers(0, 2, 600))


def many() -> Any:
    x = np.zeros((600, 1000))
    x[:, 0] = np.arange(600) / 100
    y = np.random.default_rng(0).integers(0, 2, 600)
    return RandomForestClassifier(20, max_depth=12, max_features=None, bootstrap=False, random_state=0).fit(x, y)


def two_outputs(model: Any) -> Any:
    x, y = samples(3)
    return model.fit(x, np.stack([y > 0, y > 1], axis=1).astype(int))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "kind": (lambda: fitted(GradientBoostingClassifier(n_estimators=2)), "GradientBoostingClassifier: only Logistic"),
    "regression": (LinearRegression, "LinearRegression: only LogisticRegression, MLPClassifier"),
    "not fitted": (RandomForestClassifier, "it is not fitted; call fit first"),
    "labels from one": (lambda: relabelled([1, 2, 3]), "its classes are 1, 2, 3; relabel them 0 to C - 1"),
    "one class": (lambda: relabelled([0, 0, 0]), "its classes are 0; relabel"),
    "deep": (deep, r"a tree of depth \d+; train with max_depth at most 12"),
    "many": (many, r"20 trees of depth 12 on \d+ features are too many"),
    "range": (large, r"feature \d is compared with .*outside its range \[-16, 16\); set the attribute feature_ranges"),
    "narrow range": (lambda: with_ranges([(-0.01, 0.01)] * FEATURES), r"outside its range \[-0\.01"),
    "number of ranges": (lambda: with_ranges([(-1, 1)]), r"shape \(1, 2\); give \(low, high\) for each of 6 features"),
    "no range": (lambda: with_ranges([(1, 1)] * FEATURES), "must have low < high"),
    "NaN in a range": (lambda: with_ranges([(np.nan, 1)] * FEATURES), "must have low < high"),
    "wide range": (lambda: with_ranges([(0, 1e5)] * FEATURES), "within 32768; scale the features"),
    "shape": (lambda: with_shape((1, 2, 2)), r"input_shape \(1, 2, 2\) has not the 6 features"),
    "activation": (lambda: fitted(MLPClassifier((3,), "tanh", max_iter=5)), "activation 'tanh'"),
    "labels at once": (lambda: two_outputs(MLPClassifier((3,), max_iter=300)), "several outputs"),
    "outputs": (lambda: two_outputs(DecisionTreeClassifier(max_depth=2)), "several outputs"),
    "boosted logistic": (lambda: fitted(AdaBoostClassifier(LogisticRegression(), n_estimators=2)), "only over trees"),
    "own decision": (
        lambda: fitted(Scaled()),
        r"Scaled: its decision_function is not LogisticRegression's, .*give it as a torch module",
    ),
    "NaN": (broken, "a weight is NaN or infinite"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_an_unsupported_estimator_names_the_reason(name: str) -> None:
    make, says = REFUSED[name]
    model = make()
    with pytest.raises(UnsupportedModel, match=says):
        compile_model(model)


def test_a_subclass_that_predicts_as_its_base_does_is_its_base() -> None:
    ours, base = compile_model(fitted(Renamed())), compile_model(fitted(LogisticRegression()))
    x, _ = samples(3)
    assert np.array_equal(ours.evaluate(ours.encode(x)), base.evaluate(base.encode(x)))
