"""A model as a list of integer layers: the arithmetic that every exact backend computes.

Inputs and weights carry 12 fraction bits; an accumulator carries 24. A ReLU floors an accumulator back to
12 bits and saturates it to [0, 2^16), a range of 16. Everything is exact in integers, so two parties'
shares can reproduce it bit for bit. Sums of products run on float64 BLAS, which is exact because
`compile_model` refuses a model whose accumulators could reach 2^53.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from capcsim.backend import PublicModel
from capcsim.errors import InputError, UnsupportedModel

FRACTION_BITS = 12
INPUT_LIMIT = 1 << 16
"""Encoded inputs are saturated to [-2^16, 2^16], that is [-16, 16]."""
RELU_LIMIT = 1 << 16
RING_SIZES_BITS = (37, 41, 46)
"""The public ring sizes; a model gets the smallest in which its accumulators cannot wrap."""
LAYERS = ("Linear", "Conv2d", "ReLU", "Flatten")

Array = NDArray[np.float64]


class Layer(Protocol):
    """One integer layer, on float64 arrays that hold integers."""

    def apply(self, x: Array) -> Array:
        """The layer's output for a batch; axis 0 counts the queries."""

    def bound(self, limit: float) -> float:
        """The largest absolute output for inputs of at most `limit`."""

    def public(self) -> str:
        """Name and shapes, without a weight."""


@dataclass(frozen=True)
class Linear:
    """y = W x + b; weight [out, in] with 12 fraction bits, bias [out] with 24."""

    weight: Array
    bias: Array

    def apply(self, x: Array) -> Array:
        """[B, in] to [B, out]."""
        return x @ self.weight.T + self.bias

    def bound(self, limit: float) -> float:
        """Interval bound over all outputs."""
        return float((np.abs(self.weight).sum(axis=1) * limit + np.abs(self.bias)).max())

    def public(self) -> str:
        """For example linear(64->10)."""
        return f"linear({self.weight.shape[1]}->{self.weight.shape[0]})"


@dataclass(frozen=True)
class Conv2d:
    """A convolution; weight [out, in, kh, kw] with 12 fraction bits, bias [out] with 24, zero padding."""

    weight: Array
    bias: Array
    stride: tuple[int, int]
    padding: tuple[int, int]

    def apply(self, x: Array) -> Array:
        """[B, in, H, W] to [B, out, H', W'], as one matrix product over the windows."""
        (pad_h, pad_w), (step_h, step_w) = self.padding, self.stride
        padded = np.pad(x, ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
        windows = sliding_window_view(padded, self.weight.shape[2:], (2, 3))[:, :, ::step_h, ::step_w]
        columns = windows.transpose(0, 2, 3, 1, 4, 5)
        rows = columns.reshape(*columns.shape[:3], -1) @ self.weight.reshape(len(self.weight), -1).T
        return (rows + self.bias).transpose(0, 3, 1, 2)

    def bound(self, limit: float) -> float:
        """Interval bound over all outputs."""
        return float((np.abs(self.weight).sum(axis=(1, 2, 3)) * limit + np.abs(self.bias)).max())

    def public(self) -> str:
        """For example conv2d(1->5, 5x5, stride (2, 2), padding (2, 2))."""
        out, channels, height, width = self.weight.shape
        return f"conv2d({channels}->{out}, {height}x{width}, stride {self.stride}, padding {self.padding})"


@dataclass(frozen=True)
class Relu:
    """Floor from 24 to 12 fraction bits, then saturate to [0, 2^16)."""

    def apply(self, x: Array) -> Array:
        """Element by element."""
        return np.clip(np.floor(x / (1 << FRACTION_BITS)), 0, RELU_LIMIT - 1)

    def bound(self, limit: float) -> float:  # noqa: ARG002 (saturation makes the input's bound irrelevant)
        """The saturation limit."""
        return RELU_LIMIT - 1

    def public(self) -> str:
        """Always "relu"."""
        return "relu"


@dataclass(frozen=True)
class Flatten:
    """[B, ...] to [B, n]."""

    def apply(self, x: Array) -> Array:
        """Row-major, as torch does."""
        return x.reshape(len(x), -1)

    def bound(self, limit: float) -> float:
        """Unchanged."""
        return limit

    def public(self) -> str:
        """Always "flatten"."""
        return "flatten"


@dataclass(frozen=True)
class Network:
    """A compiled model: its layers, and the public part of it."""

    layers: tuple[Layer, ...]
    public: PublicModel

    def encode(self, x: NDArray[np.float32]) -> NDArray[np.int32]:
        """Inputs float32[B, *input_shape] with 12 fraction bits, saturated; raises InputError."""
        return encode(x, self.public.input_shape)

    def evaluate(self, encoded: NDArray[np.int32]) -> NDArray[np.int64]:
        """Logits int64[B, C] with 24 fraction bits; the same for every way of batching."""
        values = encoded.astype(np.float64)
        for layer in self.layers:
            values = layer.apply(values)
        return values.astype(np.int64)


def encode(x: NDArray[np.float32], input_shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Inputs float32[B, *input_shape] with 12 fraction bits, saturated to [-16, 16]; raises InputError."""
    if x.shape[1:] != input_shape or len(x) == 0:
        raise InputError(f"inputs have shape {x.shape}; the model takes (B, {', '.join(map(str, input_shape))})")
    if not np.isfinite(x).all():
        raise InputError("inputs hold a NaN or an infinity; clean or impute them first")
    scaled = np.rint(x.astype(np.float64) * (1 << FRACTION_BITS))
    return np.clip(scaled, -INPUT_LIMIT, INPUT_LIMIT).astype(np.int32)


def compile_model(model: Any) -> Network:
    """A torch Sequential of Linear, Conv2d, ReLU and Flatten as integer layers; raises UnsupportedModel.

    The input shape comes from the model's attribute `input_shape`, or from a first Linear layer.
    """
    from torch import nn

    if not isinstance(model, nn.Sequential):
        raise UnsupportedModel(type(model).__name__, "only a torch.nn.Sequential can be compiled")
    layers = tuple(_compile_layer(module) for module in model)
    _check_scales(layers)
    shape = tuple(getattr(model, "input_shape", ()))
    if not shape and isinstance(layers[0], Linear):
        shape = (layers[0].weight.shape[1],)
    if not shape:
        raise UnsupportedModel("model", "give it an attribute input_shape = (channels, height, width)")
    probe = np.zeros((1, *shape))
    for layer in layers:
        probe = _probe(layer, probe)
    if probe.ndim != 2:
        raise UnsupportedModel(layers[-1].public(), "the model must end with one row of logits per query")
    public = PublicModel(
        layers=tuple(layer.public() for layer in layers),
        input_shape=shape,
        classes=probe.shape[1],
        ring_bits=_ring_bits(layers),
        fraction_bits=2 * FRACTION_BITS,
    )
    return Network(layers, public)


def _compile_layer(module: Any) -> Layer:
    from torch import nn

    match module:
        case nn.Linear():
            return Linear(*_weights(module))
        case nn.Conv2d():
            if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros":
                raise UnsupportedModel(str(module), "only groups=1, dilation=1 and zero padding")
            if isinstance(module.padding, str):
                raise UnsupportedModel(str(module), "give the padding as a number")
            stride, padding = module.stride, module.padding
            return Conv2d(*_weights(module), (stride[0], stride[1]), (padding[0], padding[1]))
        case nn.ReLU():
            return Relu()
        case nn.Flatten():
            return Flatten()
    raise UnsupportedModel(str(module), f"only {', '.join(LAYERS)} can be compiled")


def _weights(module: Any) -> tuple[Array, Array]:
    """Weight at 12 and bias at 24 fraction bits, rounded once."""
    weight = module.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if module.bias is None else module.bias.detach().double().numpy()
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise UnsupportedModel(str(module), "a weight is NaN or infinite; train the model again")
    return np.rint(weight * (1 << FRACTION_BITS)), np.rint(bias * (1 << 2 * FRACTION_BITS))


def _check_scales(layers: tuple[Layer, ...]) -> None:
    """A ReLU must stand between two layers with weights: it is what brings 24 bits back to 12."""
    accumulator = False
    for layer in layers:
        if isinstance(layer, Linear | Conv2d):
            if accumulator:
                raise UnsupportedModel(layer.public(), "put a ReLU before it, or merge it with the layer before")
            accumulator = True
        elif isinstance(layer, Relu):
            if not accumulator:
                raise UnsupportedModel("relu", "a ReLU must follow a layer with weights")
            accumulator = False
    if not accumulator:
        raise UnsupportedModel("model", "the last layer must have weights: its outputs are the logits")


def _probe(layer: Layer, x: Array) -> Array:
    try:
        return layer.apply(x)
    except ValueError as error:
        raise UnsupportedModel(layer.public(), f"does not fit its input of shape {x.shape[1:]}") from error


def _ring_bits(layers: tuple[Layer, ...]) -> int:
    """The smallest public ring in which no accumulator can wrap."""
    limit, widest = float(INPUT_LIMIT), 0.0
    for layer in layers:
        limit = layer.bound(limit)
        widest = max(widest, limit)
    for bits in RING_SIZES_BITS:
        if widest < 1 << (bits - 1):
            return bits
    raise UnsupportedModel("model", f"an accumulator could reach {widest:.3g}; scale the weights down")
