"""The models that parties train, as torch modules that say which input shape they take."""

from collections.abc import Iterator
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from capcsim.errors import ScenarioError
from capcsim.learning.architectures import cryptonet_relu, lenet, mlp, resnet, vgg
from capcsim.scenario import ModelKind

PREDICTED_TOGETHER = 500
"""Samples that go through a model at once: ten thousand feature maps of a deep one would need gigabytes."""


class Classifier(nn.Sequential):
    """Layers in a row, from samples of `input_shape` to one logit a class."""

    def __init__(self, input_shape: tuple[int, ...], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.input_shape = input_shape

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[N, C], each row summing to one."""
        rows = [torch.softmax(logits.double(), dim=1).numpy() for logits in self._logits(x)]
        together: NDArray[np.float64] = np.concatenate(rows)
        return together

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64[N]; the lowest class wins a tie."""
        labels: NDArray[np.int64] = np.concatenate([logits.numpy().argmax(axis=1) for logits in self._logits(x)])
        return labels

    def _logits(self, x: NDArray[np.float32]) -> Iterator[torch.Tensor]:
        with torch.no_grad():
            for samples in torch.split(torch.from_numpy(x), PREDICTED_TOGETHER):
                yield self(samples)


def build_model(
    kind: ModelKind,
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


def usual_input_shape(kind: ModelKind) -> tuple[int, ...]:
    """What a kind is usually given: MNIST's images, or CIFAR-10's for the deep ones."""
    return (3, 32, 32) if kind.startswith(("vgg", "resnet")) else (1, 28, 28)
