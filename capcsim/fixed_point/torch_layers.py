"""Torch's layers and functions one by one: which can be compiled, and what each means."""

import operator
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any, Final

import numpy as np

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.graph import Op
from capcsim.fixed_point.layers import Array, Pool, Shape, Size, pooled

SUPPORTED = (
    "only Linear, Conv2d, BatchNorm, ReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten, Dropout, Identity and "
    "the addition of two values can be compiled"
)


class _Batch:
    """How many queries there are, which no model may depend on: x.size(0)."""


BATCH: Final = _Batch()


class TorchLayers:
    """Collects ops. Its methods have the signatures of torch's functions, and raise UnsupportedModel.

    `name` is what an error calls the layer at hand, `ops` are all so far, in order.
    """

    def __init__(self) -> None:
        self.name = "input"
        self.ops: list[Op] = []
        self._stale: set[Op] = set()

    def refuse(self, why: str) -> Any:
        """Raise UnsupportedModel for the layer at hand."""
        raise UnsupportedModel(self.name, why)

    def check_fresh(self, given: Any) -> None:
        """Refuse a value that an in-place layer has changed since: ops know no such thing."""
        if isinstance(given, Op) and given in self._stale:
            self.refuse("it takes a value that was changed in place; use inplace=False, or x = x + y for x += y")

    def input(self, shape: Shape) -> Op:
        """The query, once."""
        if self.ops:
            self.refuse("the model must take one input")
        return self._op("input", (), shape)

    def _op(self, kind: Any, sources: Any, shape: Shape, **fields: Any) -> Op:
        op = Op(kind, self.name, list(sources), shape, **fields)
        self.ops.append(op)
        return op

    def _changed(self, x: Op) -> None:
        """Later uses of `x`, and of the reshaped views on it, would see the changed value."""
        base = x
        while base.kind == "reshape":
            base = base.sources[0]
        self._stale.add(base)
        self._stale.update(op for op in self.ops if op.kind == "reshape" and op.sources[0] in self._stale)

    def _unknown(self, *_: Any, **__: Any) -> Any:
        return self.refuse(SUPPORTED)

    def _softmax(self, *_: Any, **__: Any) -> Any:
        return self.refuse("let the model return its logits: a softmax does not change which class is largest")

    def _softmax_module(self, *_: Any) -> Any:
        return self._softmax()

    def _linear(self, module: Any, x: Op) -> Op:
        weight, bias = self._weights(module)
        if x.shape != (weight.shape[1],):
            self.refuse(f"does not fit its input of shape {x.shape}; it takes one row of {weight.shape[1]} values")
        return self._op("linear", [x], (len(weight),), weight=weight, bias=bias)

    def _conv2d(self, module: Any, x: Op) -> Op:
        if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros":
            self.refuse("only groups=1, dilation=1 and zero padding")
        if module.padding == "same":
            self.refuse("give the padding as a number: 'same' may pad one side more than the other")
        weight, bias = self._weights(module)
        if len(x.shape) != 3 or x.shape[0] != weight.shape[1]:
            self.refuse(f"does not fit its input of shape {x.shape}; it takes {weight.shape[1]} feature maps")
        padding = (0, 0) if module.padding == "valid" else module.padding
        window = Pool(_size(weight.shape[2:]), _size(module.stride), _size(padding))
        shape = (len(weight), *self._pooled(x, window)[1:])
        return self._op("conv2d", [x], shape, weight=weight, bias=bias, window=window)

    def _norm(self, module: Any, x: Op) -> Op:
        if module.running_var is None:
            self.refuse("it keeps no running statistics, so one query would depend on the others")
        if x.shape[0] != module.num_features:
            self.refuse(f"does not fit its input of shape {x.shape}")
        factor = 1 / np.sqrt(_numpy(module.running_var) + module.eps)
        factor = factor if module.weight is None else factor * _numpy(module.weight)
        summand = -_numpy(module.running_mean) * factor
        summand = summand if module.bias is None else summand + _numpy(module.bias)
        self._check_finite(factor, summand)
        return self._op("norm", [x], x.shape, weight=factor, bias=summand)

    def _relu_module(self, module: Any, x: Op) -> Op:
        return self._relu(x, module.inplace)

    def _relu(self, x: Op, inplace: bool = False) -> Op:
        if inplace:
            self._changed(x)
        return self._op("relu", [x], x.shape)

    def _relu_in_place(self, x: Op) -> Op:
        return self._relu(x, inplace=True)

    def _max_pool_module(self, module: Any, x: Op) -> Op:
        given = (module.kernel_size, module.stride, module.padding, module.dilation)
        return self._max_pool(x, *given, module.ceil_mode, module.return_indices)

    def _max_pool(
        self,
        x: Op,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Op:
        if _size(dilation) != (1, 1) or ceil_mode or return_indices:
            self.refuse("only dilation=1, ceil_mode=False and return_indices=False")
        window = _pool(kernel_size, stride, padding)
        return self._op("max_pool", [x], self._pooled(x, window), window=window)

    def _average_module(self, module: Any, x: Op) -> Op:
        given = (module.kernel_size, module.stride, module.padding)
        return self._average(x, *given, module.ceil_mode, module.count_include_pad, module.divisor_override)

    def _average(
        self,
        x: Op,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Op:
        if ceil_mode:
            self.refuse("ceil_mode=True makes windows of several sizes; only ceil_mode=False")
        if divisor_override is not None:
            self.refuse("only divisor_override=None")
        window = _pool(kernel_size, stride, padding)
        if window.padding != (0, 0) and not count_include_pad:
            self.refuse("count_include_pad=False makes windows of several sizes; leave it, or do not pad")
        return self._window_average(x, window)

    def _window_average(self, x: Op, window: Pool) -> Op:
        if window == Pool((1, 1), (1, 1)):
            return x
        return self._op("average", [x], self._pooled(x, window), window=window, divisor=prod(window.kernel))

    def _adaptive_module(self, module: Any, x: Op) -> Op:
        return self._adaptive(x, module.output_size)

    def _adaptive(self, x: Op, output_size: Any) -> Op:
        height, width = x.shape[1:]
        rows, columns = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        rows, columns = rows or height, columns or width
        if height % rows or width % columns:
            self.refuse(f"its output size ({rows}, {columns}) does not divide its input of shape {x.shape}")
        kernel = (height // rows, width // columns)
        return self._window_average(x, Pool(kernel, kernel))

    def _mean(self, x: Op, dim: Any, keepdim: bool = False) -> Op:
        dims = {each % (len(x.shape) + 1) for each in ((dim,) if isinstance(dim, int) else dim)}
        if dims != {2, 3} or len(x.shape) != 3:
            self.refuse("only the mean over height and width of feature maps")
        pooled_to_one = self._adaptive(x, 1)
        return pooled_to_one if keepdim else self._flatten(pooled_to_one, 1)

    def _flatten_module(self, module: Any, x: Op) -> Op:
        return self._flatten(x, module.start_dim, module.end_dim)

    def _flatten(self, x: Op, start_dim: int = 0, end_dim: int = -1) -> Op:
        dims = len(x.shape) + 1
        start, end = start_dim % dims, end_dim % dims
        if start == 0:
            self.refuse("it joins the queries of a batch; flatten from dimension 1")
        shape = (*x.shape[: start - 1], prod(x.shape[start - 1 : end]), *x.shape[end:])
        return self._op("reshape", [x], shape)

    def _reshape(self, x: Op, *sizes: Any) -> Op:
        batch, *rest = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
        known = prod(size for size in rest if size != -1)
        shape = tuple(prod(x.shape) // known if size == -1 else int(size) for size in rest)
        keeps_queries = batch is BATCH or (batch == -1 and -1 not in rest)
        if not keeps_queries or not shape or rest.count(-1) > 1 or prod(shape) != prod(x.shape):
            self.refuse(f"it mixes the queries of a batch, or does not fit shape {x.shape}; use torch.flatten(x, 1)")
        return self._op("reshape", [x], shape)

    def _identity(self, _: Any, x: Op) -> Op:
        return x

    def _dropout(self, x: Op, p: float = 0.5, training: bool = True, inplace: bool = False) -> Op:  # noqa: ARG002
        if training:
            self.refuse("it drops values in eval mode too; pass training=self.training")
        return x

    def _add(self, x: Op, other: Any, *, alpha: Any = 1) -> Op:
        if not (isinstance(x, Op) and isinstance(other, Op)) or alpha != 1:
            self.refuse("only two values of the network can be added")
        if x.shape != other.shape:
            self.refuse(f"the values that it adds have shapes {x.shape} and {other.shape}")
        return self._op("add", [x, other], x.shape)

    def _add_in_place(self, x: Op, other: Any, *, alpha: Any = 1) -> Op:
        total = self._add(x, other, alpha=alpha)
        self._changed(x)
        return total

    def _size(self, x: Op, dim: int | None = None) -> Any:
        sizes = (BATCH, *x.shape)
        return sizes if dim is None else sizes[dim]

    def _attribute(self, x: Op, name: str) -> Any:
        return self._size(x) if name == "shape" else self.refuse(SUPPORTED)

    def _pooled(self, x: Op, window: Pool) -> Shape:
        try:
            return pooled(x.shape, window)
        except ValueError as error:
            return tuple(self.refuse(str(error)))

    def _weights(self, module: Any) -> tuple[Array, Array]:
        weight = _numpy(module.weight)
        bias = np.zeros(len(weight)) if module.bias is None else _numpy(module.bias)
        self._check_finite(weight, bias)
        return weight, bias

    def _check_finite(self, *arrays: Array) -> None:
        if not all(np.isfinite(array).all() for array in arrays):
            self.refuse("a weight is NaN or infinite; train the model again")


def meaning_of_module(module: Any) -> Callable[..., Any]:
    """The method of TorchLayers that takes a module, and what the module is called with."""
    return _modules().get(type(module), TorchLayers._unknown)


def meaning_of_function(function: Any) -> Callable[..., Any]:
    """The method of TorchLayers with the signature of this function."""
    return _functions().get(function, TorchLayers._unknown)


def meaning_of_method(name: str) -> Callable[..., Any]:
    """The method of TorchLayers with the signature of this method of a tensor."""
    return _METHODS.get(name, TorchLayers._unknown)


_METHODS: dict[str, Callable[..., Any]] = {
    "relu": TorchLayers._relu,
    "relu_": TorchLayers._relu_in_place,
    "flatten": TorchLayers._flatten,
    "view": TorchLayers._reshape,
    "reshape": TorchLayers._reshape,
    "add": TorchLayers._add,
    "add_": TorchLayers._add_in_place,
    "mean": TorchLayers._mean,
    "size": TorchLayers._size,
    "softmax": TorchLayers._softmax,
    "log_softmax": TorchLayers._softmax,
}


@cache
def _modules() -> dict[type, Callable[..., Any]]:
    from torch import nn

    return {
        nn.Linear: TorchLayers._linear,
        nn.Conv2d: TorchLayers._conv2d,
        nn.BatchNorm1d: TorchLayers._norm,
        nn.BatchNorm2d: TorchLayers._norm,
        nn.ReLU: TorchLayers._relu_module,
        nn.MaxPool2d: TorchLayers._max_pool_module,
        nn.AvgPool2d: TorchLayers._average_module,
        nn.AdaptiveAvgPool2d: TorchLayers._adaptive_module,
        nn.Flatten: TorchLayers._flatten_module,
        nn.Dropout: TorchLayers._identity,
        nn.Dropout1d: TorchLayers._identity,
        nn.Dropout2d: TorchLayers._identity,
        nn.Identity: TorchLayers._identity,
        nn.Softmax: TorchLayers._softmax_module,
        nn.LogSoftmax: TorchLayers._softmax_module,
    }


@cache
def _functions() -> dict[Any, Callable[..., Any]]:
    import torch
    from torch.nn import functional

    return {
        torch.relu: TorchLayers._relu,
        torch.relu_: TorchLayers._relu_in_place,
        functional.relu: TorchLayers._relu,
        torch.max_pool2d: TorchLayers._max_pool,
        functional.max_pool2d: TorchLayers._max_pool,
        functional.avg_pool2d: TorchLayers._average,
        functional.adaptive_avg_pool2d: TorchLayers._adaptive,
        torch.mean: TorchLayers._mean,
        torch.flatten: TorchLayers._flatten,
        torch.reshape: TorchLayers._reshape,
        functional.dropout: TorchLayers._dropout,
        functional.dropout2d: TorchLayers._dropout,
        torch.add: TorchLayers._add,
        operator.add: TorchLayers._add,
        operator.iadd: TorchLayers._add_in_place,
        getattr: TorchLayers._attribute,
        torch.softmax: TorchLayers._softmax,
        torch.log_softmax: TorchLayers._softmax,
        functional.softmax: TorchLayers._softmax,
        functional.log_softmax: TorchLayers._softmax,
    }


def _numpy(tensor: Any) -> Array:
    """float64, on the processor, and no view of the model's own memory."""
    array: Array = tensor.detach().cpu().double().numpy().copy()
    return array


def _pool(kernel: Any, stride: Any, padding: Any) -> Pool:
    return Pool(_size(kernel), _size(stride if stride else kernel), _size(padding))


def _size(given: Any) -> Size:
    """One number for both sides, or height and width."""
    both = tuple(given) if isinstance(given, tuple | list) else (given, given)
    return int(both[0]), int(both[-1])
