"""The models that parties train: torch modules, and scikit-learn's ensembles of trees behind the same methods."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeGuard, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from capcsim.errors import ScenarioError
from capcsim.learning.architectures import cryptonet_relu, lenet, mlp, resnet, vgg
from capcsim.learning.samples import FEATURE_LIMIT
from capcsim.scenario import Kind, ModelKind, Models, NetworkKind, TreesKind

PREDICTED_TOGETHER = 500
"""Samples that go through a model at once: ten thousand feature maps of a deep one would need gigabytes."""


class Model(Protocol):
    """A trained classifier over a public list of classes, some of which it may never have seen."""

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[N, C], each row summing to one."""

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64[N]; the lowest class wins a tie."""

    def features(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, d]: what the last layer takes; the samples themselves where there is one layer, or trees."""

    @property
    def estimator(self) -> Any:
        """The torch module or scikit-learn estimator that backends prepare."""


class Network(nn.Module):
    """A torch module that gives samples one logit a class."""

    input_shape: tuple[int, ...]

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[N, C], each row summing to one."""
        rows = [torch.softmax(logits.double(), dim=1).numpy() for logits in given_by(self, x)]
        together: NDArray[np.float64] = np.concatenate(rows)
        return together

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64[N]; the lowest class wins a tie."""
        labels: NDArray[np.int64] = np.concatenate([logits.numpy().argmax(axis=1) for logits in given_by(self, x)])
        return labels

    def features(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The flattened samples, where nothing is known of the layers."""
        return x.reshape(len(x), -1)

    @property
    def estimator(self) -> nn.Module:
        """The module itself."""
        return self

    @property
    def last(self) -> nn.Linear | None:
        """The layer that gives the logits, where it is known and has a bias."""
        return None

    def rank_last(self, absent: NDArray[np.int64]) -> None:
        """Give classes that the owner has no sample of the lowest logit, whatever the input.

        The bound holds in fixed point, where no input of the last layer leaves [-16, 16], and so far as activations
        stay there in floating point too.
        """
        last = self.last
        if not len(absent) or last is None:
            return
        with torch.no_grad():
            bound = (FEATURE_LIMIT * last.weight.abs().sum(dim=1) + last.bias.abs()).max()
            last.weight[absent] = 0
            last.bias[absent] = -bound - 1


class Classifier(Network, nn.Sequential):
    """Layers in a row, from samples of `input_shape` to one logit a class; the last one is linear."""

    def __init__(self, input_shape: tuple[int, ...], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.input_shape = input_shape

    def features(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, d]: what the last layer takes."""
        before = nn.Sequential(*list(self)[:-1])
        together: NDArray[np.float32] = np.concatenate([row.numpy() for row in given_by(before, x)])
        return together

    @property
    def last(self) -> nn.Linear:
        """The last layer."""
        return cast(nn.Linear, self[-1])


def given_by(module: nn.Module, x: NDArray[np.float32]) -> Iterator[torch.Tensor]:
    """What a module gives for samples, some at a time."""
    with torch.no_grad():
        for start in range(0, len(x), PREDICTED_TOGETHER):
            # A copy: what comes from another process may be read-only, which torch does not take.
            yield module(torch.tensor(x[start : start + PREDICTED_TOGETHER]))


class Fitted:
    """A fitted scikit-learn classifier, on flattened samples of `input_shape`."""

    def __init__(self, fitted: Any, input_shape: tuple[int, ...], classes: int) -> None:
        self._fitted = fitted
        # Attributes that the compiler reads: what shape a query has, and which classes there are besides those seen.
        fitted.input_shape, fitted.class_count = input_shape, classes

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[N, C], 0 for a class never seen."""
        found = np.zeros((len(x), self._fitted.class_count))
        found[:, self._fitted.classes_] = self._fitted.predict_proba(self.features(x))
        return found

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64[N]; the lowest class wins a tie."""
        labels: NDArray[np.int64] = self.probabilities(x).argmax(axis=1)
        return labels

    def features(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The flattened samples: no layer could stand for them."""
        return x.reshape(len(x), -1)

    @property
    def estimator(self) -> Any:
        """The fitted estimator."""
        return self._fitted


class Trees(Fitted):
    """A forest, or AdaBoost over trees."""


def build_model(
    kind: NetworkKind,
    input_shape: tuple[int, ...],
    classes: int,
    hidden: tuple[int, ...],
    seed: int,
    width: float = 1.0,
) -> Classifier:
    """An untrained model with seeded weights; raises ScenarioError when it cannot take the data.

    `hidden` are the layers of an mlp; `width` scales the channels of the image models.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match kind:
            case "logistic":
                layers = mlp(input_shape, classes, ())
            case "mlp":
                layers = mlp(input_shape, classes, hidden)
            case "cryptonet-relu":
                layers = cryptonet_relu(input_shape, classes, width)
            case "lenet":
                layers = lenet(input_shape, classes, width)
            case "vgg-5" | "vgg-7":
                layers = vgg(kind, input_shape, classes, width, stages=3 if kind == "vgg-5" else 4)
            case "resnet-8" | "resnet-10":
                layers = resnet(kind, input_shape, classes, width, blocks=3 if kind == "resnet-8" else 4)
            case _:
                raise ScenarioError("models.kinds", kind, f"choose from {', '.join(get_args(ModelKind))}")
    return Classifier(input_shape, *layers)


def fit_trees(
    kind: TreesKind, x: NDArray[np.float32], y: NDArray[np.int64], classes: int, models: Models, seed: int
) -> Trees:
    """A fitted scikit-learn ensemble of trees on x float32[n, *shape] and y int64[n]."""
    from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    state = seed % (1 << 32)
    if kind == "adaboost":
        tree = DecisionTreeClassifier(max_depth=models.tree_depth)
        fitted = AdaBoostClassifier(tree, n_estimators=models.trees, random_state=state)
    else:
        fitted = RandomForestClassifier(models.trees, max_depth=models.tree_depth, random_state=state)
    rows = x.reshape(len(x), -1)
    try:
        fitted.fit(rows, y)
    except ValueError:
        # No tree is better than chance, as on rows that are all alike: boosting has nothing to weigh, one tree stands.
        if kind != "adaboost":
            raise
        fitted = tree.fit(rows, y)
    return Trees(fitted, x.shape[1:], classes)


def is_network(kind: Kind) -> TypeGuard[NetworkKind]:
    """Whether a kind is one of our torch modules."""
    return kind in get_args(NetworkKind)


def is_trees(kind: Kind) -> TypeGuard[TreesKind]:
    """Whether a kind is one of our ensembles of trees."""
    return kind in get_args(TreesKind)


def usual_input_shape(kind: NetworkKind) -> tuple[int, ...]:
    """What a kind is usually given: MNIST's images, or CIFAR-10's for the deep ones."""
    return (3, 32, 32) if kind.startswith(("vgg", "resnet")) else (1, 28, 28)
