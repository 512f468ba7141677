"""Fitted scikit-learn classifiers: linear models and perceptrons as layers, trees as comparisons."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.graph import INPUT_LIMIT, Op, lower
from capcsim.fixed_point.layers import FRACTION_BITS, Array, Shape
from capcsim.fixed_point.network import Network
from capcsim.fixed_point.trees import Ensemble, compile_ensemble


def compile_estimator(model: Any) -> Network:
    """A fitted scikit-learn classifier as integer layers; raises UnsupportedModel.

    Its classes must be 0 to C - 1; its attribute `class_count` says that there are so many although it has seen only
    some, and the others get the lowest logit for any input. It takes rows of features, or samples of its attribute
    `input_shape`, which are flattened. A tree takes the attribute `feature_ranges`: (low, high) for each feature,
    by default [-16, 16].
    """
    from sklearn.ensemble import AdaBoostClassifier, ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.tree import DecisionTreeClassifier

    name = type(model).__name__
    kinds = (
        LogisticRegression,
        MLPClassifier,
        DecisionTreeClassifier,
        RandomForestClassifier,
        ExtraTreesClassifier,
        AdaBoostClassifier,
    )
    base = next((kind for kind in kinds if isinstance(model, kind)), None)
    if base is None:
        raise UnsupportedModel(name, f"only {', '.join(kind.__name__ for kind in kinds)} can be compiled")
    _check_predicts_as(name, type(model), base)
    seen, classes = _classes(name, model)
    shape = _input_shape(name, model)
    match model:
        case LogisticRegression():
            return _perceptron(name, shape, *_widened([model.coef_.T], [model.intercept_], seen, classes))
        case MLPClassifier():
            return _perceptron(name, shape, *_widened(*_layers(model), seen, classes))
        case DecisionTreeClassifier():
            ensemble = Ensemble([model.tree_], [_probabilities(model.tree_)])
        case AdaBoostClassifier():
            ensemble = _boosted(model, DecisionTreeClassifier)
        case _:
            trees = [each.tree_ for each in model.estimators_]
            ensemble = Ensemble(trees, [_probabilities(tree) / len(trees) for tree in trees])
    votes = [_scattered(vote, seen, classes) for vote in ensemble.votes]
    return compile_ensemble(name, Ensemble(ensemble.trees, votes), shape, getattr(model, "feature_ranges", None))


def _check_predicts_as(name: str, kind: type, base: type) -> None:
    """Raise UnsupportedModel for a subclass that predicts in a way of its own: its parameters do not say how."""
    for method in ("decision_function", "predict_proba", "predict_log_proba", "predict"):
        if getattr(kind, method, None) is not getattr(base, method, None):
            why = f"its {method} is not {base.__name__}'s, and its parameters alone would predict something else"
            raise UnsupportedModel(name, f"{why}; give it as a torch module, or prepare the data beforehand")


def _classes(name: str, model: Any) -> tuple[NDArray[np.int64], int]:
    """The classes that the model has seen, ascending, and how many there are."""
    classes = getattr(model, "classes_", None)
    if classes is None:
        raise UnsupportedModel(name, "it is not fitted; call fit first")
    if isinstance(classes, list):
        raise UnsupportedModel(name, "it has several outputs; train one model for each")
    count = getattr(model, "class_count", None)
    known = range(len(classes)) if count is None else range(count)
    if len(known) < 2 or not set(classes).issubset(known):
        found = ", ".join(map(str, classes[:5]))
        why = f"its classes are {found}; relabel them 0 to C - 1, and train on every class or set class_count"
        raise UnsupportedModel(name, why)
    return np.asarray(classes, np.int64), len(known)


def _scattered(values: Array, seen: NDArray[np.int64], classes: int) -> Array:
    """Columns of the classes seen as columns of all classes, 0 for the others."""
    found = np.zeros((len(values), classes))
    found[:, seen] = values
    return found


def _widened(
    weights: Sequence[Array], biases: Sequence[Array], seen: NDArray[np.int64], classes: int
) -> tuple[list[Array], list[Array]]:
    """The last layer with a logit for every class: below any that the seen ones can reach, where it was never seen."""
    if len(seen) == classes:
        return list(weights), list(biases)
    weight, bias = weights[-1], biases[-1]
    if len(bias) == 1:  # two classes have one logit z, which stands for (0, z)
        weight, bias = np.concatenate([0 * weight, weight], axis=1), np.concatenate([0 * bias, bias])
    # Neither an input nor an activation leaves [-16, 16].
    lowest = -(INPUT_LIMIT / (1 << FRACTION_BITS) * np.abs(weight).sum(axis=0) + np.abs(bias)).max() - 1
    wide = np.full(classes, lowest)
    wide[seen] = bias
    return [*weights[:-1], _scattered(weight, seen, classes)], [*biases[:-1], wide]


def _input_shape(name: str, model: Any) -> Shape:
    features = int(model.n_features_in_)
    shape = tuple(int(size) for size in getattr(model, "input_shape", (features,)))
    if prod(shape) != features:
        raise UnsupportedModel(name, f"input_shape {shape} has not the {features} features that it was trained on")
    return shape


def _perceptron(name: str, shape: Shape, weights: Sequence[Array], biases: Sequence[Array]) -> Network:
    """Linear layers with ReLUs between them; a weight is [in, out], as scikit-learn has it."""
    ops = [Op("input", "input", [], shape)]
    ops.append(Op("reshape", "flatten", [ops[-1]], (prod(shape),)))
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        layer = f"{name}, layer {index}"
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise UnsupportedModel(layer, "a weight is NaN or infinite; train the model again")
        if index:
            ops.append(Op("relu", layer, [ops[-1]], ops[-1].shape))
        weight, bias = (np.array(array, np.float64) for array in (weight.T, bias))
        ops.append(Op("linear", layer, [ops[-1]], (len(weight),), weight=weight, bias=bias))
    return lower(ops)


def _layers(model: Any) -> tuple[list[Array], list[Array]]:
    if model.activation != "relu" and len(model.coefs_) > 1:
        raise UnsupportedModel("MLPClassifier", f"activation {model.activation!r}; train with activation='relu'")
    if model.out_activation_ == "logistic" and model.n_outputs_ > 1:
        raise UnsupportedModel("MLPClassifier", "it has several outputs; train one model for each")
    return model.coefs_, model.intercepts_


def _probabilities(tree: Any) -> Array:
    """[nodes, C]: the classes' shares at each node."""
    counts = tree.value[:, 0, :]
    shares: Array = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _boosted(model: Any, tree_kind: Any) -> Ensemble:
    """SAMME: each tree's weight, normalised, on the class that it predicts."""
    if getattr(model, "algorithm", "SAMME") == "SAMME.R":
        raise UnsupportedModel("AdaBoostClassifier", "algorithm 'SAMME.R'; train with algorithm='SAMME'")
    votes = []
    alphas = model.estimator_weights_[: len(model.estimators_)]
    for alpha, estimator in zip(alphas / alphas.sum(), model.estimators_, strict=True):
        if not isinstance(estimator, tree_kind):
            raise UnsupportedModel("AdaBoostClassifier", f"over {type(estimator).__name__}; only over trees")
        predicted = np.searchsorted(model.classes_, estimator.classes_)[_probabilities(estimator.tree_).argmax(axis=1)]
        votes.append(alpha * np.eye(len(model.classes_))[predicted])
    return Ensemble([estimator.tree_ for estimator in model.estimators_], votes)
