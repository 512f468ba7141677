from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from capcsim.errors import InputError, UnsupportedModel
from capcsim.fixed_point import FRACTION_BITS, INPUT_LIMIT, RELU_LIMIT, compile_model
from capcsim.learning.models import build_model

KINDS = ("logistic", "mlp", "cryptonet-relu")


def slow_reference(model: nn.Sequential, x: np.ndarray) -> list[list[int]]:
    """The integer rules once more, with Python integers and torch's own convolution on int64."""
    scale = 1 << FRACTION_BITS
    values = torch.clamp(torch.round(torch.tensor(x).double() * scale), -INPUT_LIMIT, INPUT_LIMIT).long()
    for layer in model:
        match layer:
            case nn.Flatten():
                values = values.flatten(1)
            case nn.ReLU():
                values = torch.clamp(values >> FRACTION_BITS, 0, RELU_LIMIT - 1)
            case nn.Linear() | nn.Conv2d():
                weight = torch.round(layer.weight.double() * scale).long()
                bias = torch.round(layer.bias.double() * scale**2).long()
                if isinstance(layer, nn.Linear):
                    values = (values[:, None, :] * weight).sum(2) + bias
                else:
                    values = nn.functional.conv2d(values, weight, bias, layer.stride, layer.padding)
    return values.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 9)])
def test_a_network_is_exact_in_integers(kind: Any, shape: tuple[int, ...]) -> None:
    model = build_model(kind, shape, 10, (16,), seed=3)
    x = np.random.default_rng(0).normal(0, 1, (6, *shape)).astype(np.float32)
    network = compile_model(model)
    assert network.evaluate(network.encode(x)).tolist() == slow_reference(model, x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_close_to_its_float_model(kind: Any) -> None:
    model = build_model(kind, (1, 28, 28), 10, (32,), seed=1)
    x = np.random.default_rng(1).random((50, 1, 28, 28), np.float32)
    network = compile_model(model)
    logits = network.evaluate(network.encode(x)) / (1 << network.public.fraction_bits)
    assert np.abs(logits - model(torch.tensor(x)).detach().numpy()).max() < 0.01


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0.01, 30.0))
def test_no_accumulator_leaves_the_ring(seed: int, scale: float) -> None:
    model = build_model("mlp", (6,), 3, (5,), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    network = compile_model(model)
    x = np.random.default_rng(seed).choice([-1e6, 0.0, 1e6], (40, 6)).astype(np.float32)
    assert np.abs(network.evaluate(network.encode(x))).max() < 1 << (network.public.ring_bits - 1)


def test_relu_floors_and_saturates() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[0].bias.fill_(0.0)
        model[2].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[2].bias.fill_(0.0)
    network = compile_model(model)
    x = np.array([[-1.0], [1.0], [15.0]], np.float32)
    top = (RELU_LIMIT - 1) << FRACTION_BITS
    assert network.evaluate(network.encode(x)).tolist() == [[0, 0], [2 << 24, -2 << 24], [top, -top]]


def shaped(shape: tuple[int, ...], *layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers)
    model.input_shape = shape  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear(2, 2), "only a torch.nn.Sequential"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), r"Tanh\(\): only Linear, Conv2d, ReLU, Flatten"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "put a ReLU before it"),
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "a ReLU must follow"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "the last layer must have weights"),
        (nn.Sequential(nn.Conv2d(1, 1, 3)), "give it an attribute input_shape"),
        (shaped((1, 5, 5), nn.Conv2d(1, 1, 3)), "one row of logits"),
        (shaped((2, 5, 5), nn.Conv2d(2, 2, 3, groups=2), nn.Flatten()), "only groups=1"),
        (shaped((1, 5, 5), nn.Flatten(), nn.Linear(24, 2)), r"does not fit its input of shape \(25,\)"),
    ],
)
def test_an_unsupported_model_names_layer_and_reason(model: nn.Module, says: str) -> None:
    with pytest.raises(UnsupportedModel, match=says):
        compile_model(model)


@pytest.mark.parametrize(("value", "says"), [(float("nan"), "NaN or infinite"), (1e12, "scale the weights down")])
def test_weights_that_cannot_be_encoded(value: float, says: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.fill_(value)
    with pytest.raises(UnsupportedModel, match=says):
        compile_model(model)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((2, 3), np.float32), r"shape \(2, 3\); the model takes \(B, 2\)"),
        (np.zeros((0, 2), np.float32), r"shape \(0, 2\)"),
        (np.array([[1, np.nan]], np.float32), "NaN or an infinity"),
        (np.array([[1, np.inf]], np.float32), "NaN or an infinity"),
    ],
)
def test_bad_inputs(x: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        compile_model(nn.Sequential(nn.Linear(2, 2))).encode(x)
