"""The models that parties train, as torch modules that say which input shape they take."""

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from capcsim.errors import ScenarioError
from capcsim.scenario import ModelKind


class Classifier(nn.Sequential):
    """Layers in a row, from samples of `input_shape` to one logit a class."""

    def __init__(self, input_shape: tuple[int, ...], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.input_shape = input_shape

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[N, C], each row summing to one."""
        with torch.no_grad():
            rows: NDArray[np.float64] = torch.softmax(self(torch.from_numpy(x)).double(), dim=1).numpy()
        return rows

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64[N]; the lowest class wins a tie."""
        with torch.no_grad():
            logits: NDArray[np.float32] = self(torch.from_numpy(x)).numpy()
        labels: NDArray[np.int64] = logits.argmax(axis=1)
        return labels


def build_model(
    kind: ModelKind, input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...], seed: int
) -> Classifier:
    """An untrained model with seeded weights; raises ScenarioError when it cannot take the data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match kind:
            case "logistic":
                return Classifier(input_shape, nn.Flatten(), nn.Linear(prod(input_shape), classes))
            case "mlp":
                return _mlp(input_shape, classes, hidden)
            case "cryptonet-relu":
                return _cryptonet_relu(input_shape, classes)


def _mlp(input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...]) -> Classifier:
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(input_shape)
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return Classifier(input_shape, *layers, nn.Linear(width, classes))


def _cryptonet_relu(input_shape: tuple[int, ...], classes: int) -> Classifier:
    """CryptoNets with ReLU (Gilad-Bachrach et al. 2016), the model of the paper's Table 1."""
    if len(input_shape) != 3:
        allowed = f"logistic or mlp: this model convolves images, and the samples have shape {input_shape}"
        raise ScenarioError("models.kinds", "cryptonet-relu", allowed)
    channels, height, width = input_shape
    maps = 5 * ((height + 1) // 2) * ((width + 1) // 2)
    return Classifier(
        input_shape,
        nn.Conv2d(channels, 5, kernel_size=5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(maps, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )
