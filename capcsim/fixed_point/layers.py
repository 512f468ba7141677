"""The layers of a compiled model: public structure, and the integer arithmetic of each.

A model is a tuple of nodes. Node 0 is the input, `sources` are the positions of earlier nodes, `shape` is
the output's, without the batch. No node holds a weight. Axis 0 of every array counts the queries.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FRACTION_BITS = 12
"""Fraction bits of inputs, weights and activations."""
RELU_BITS = 16
RELU_LIMIT = 1 << RELU_BITS
"""A ReLU saturates to [0, 2^16), a range of 16 at 12 fraction bits."""
SMALL_MAP = 256
"""Convolutions onto fewer positions than this go through one matrix product for the whole batch."""

Array: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[Any]
"""Any numeric dtype: floats that hold integers, or elements of a ring."""
Shape: TypeAlias = tuple[int, ...]
Size: TypeAlias = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The windows over which a nonlinear layer takes the largest value first."""

    kernel: Size
    stride: Size
    padding: Size = (0, 0)

    def __str__(self) -> str:
        return f"max_pool({_window(self)})"


@dataclass(frozen=True, slots=True)
class Input:
    """The query."""

    shape: Shape
    sources: tuple[()] = ()
    kind: Literal["input"] = "input"

    def __str__(self) -> str:
        return "input"


@dataclass(frozen=True, slots=True)
class Linear:
    """y = W x + b on a row of `inputs` values; W is [*shape, inputs]."""

    sources: tuple[int]
    shape: Shape
    inputs: int
    kind: Literal["linear"] = "linear"

    @property
    def weight_shape(self) -> Shape:
        """[out, in]."""
        return (*self.shape, self.inputs)

    def __str__(self) -> str:
        return f"linear({self.inputs}->{self.shape[0]})"


@dataclass(frozen=True, slots=True)
class Conv2d:
    """A convolution over `inputs` channels with zero padding."""

    sources: tuple[int]
    shape: Shape
    inputs: int
    kernel: Size
    stride: Size
    padding: Size
    kind: Literal["conv2d"] = "conv2d"

    @property
    def weight_shape(self) -> Shape:
        """[out, in, height, width]."""
        return (self.shape[0], self.inputs, *self.kernel)

    def __str__(self) -> str:
        height, width = self.kernel
        maps = f"{self.inputs}->{self.shape[0]}"
        return f"conv2d({maps}, {height}x{width}, stride {self.stride}, padding {self.padding})"


@dataclass(frozen=True, slots=True)
class SumPool:
    """Average pooling as a sum: the divisor lives in the scale, or in a neighbour's weights."""

    sources: tuple[int]
    shape: Shape
    kernel: Size
    stride: Size
    padding: Size
    kind: Literal["sum_pool"] = "sum_pool"

    def __str__(self) -> str:
        return f"sum_pool({_window(self)})"


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same values in another shape, row-major."""

    sources: tuple[int]
    shape: Shape
    kind: Literal["reshape"] = "reshape"

    def __str__(self) -> str:
        return "flatten" if len(self.shape) == 1 else f"reshape({'x'.join(map(str, self.shape))})"


@dataclass(frozen=True, slots=True)
class Shift:
    """Multiply by 2^bits."""

    sources: tuple[int]
    shape: Shape
    bits: int
    kind: Literal["shift"] = "shift"

    def __str__(self) -> str:
        return f"shift({self.bits} bits)"


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of two values of one shape and one scale."""

    sources: tuple[int, int]
    shape: Shape
    kind: Literal["add"] = "add"

    def __str__(self) -> str:
        return "add"


@dataclass(frozen=True, slots=True)
class Relu:
    """The largest of a window (if any), floored by `drop_bits`, saturated to [0, 2^16)."""

    sources: tuple[int]
    shape: Shape
    drop_bits: int
    pool: Pool | None = None
    kind: Literal["relu"] = "relu"

    def __str__(self) -> str:
        relu = "relu" if self.drop_bits == FRACTION_BITS else f"relu(drop {self.drop_bits} bits)"
        return f"{self.pool} + {relu}" if self.pool else relu


@dataclass(frozen=True, slots=True)
class Truncate:
    """The largest of a window (if any), floored by `drop_bits`; signed, and not saturated."""

    sources: tuple[int]
    shape: Shape
    drop_bits: int
    pool: Pool | None = None
    kind: Literal["truncate"] = "truncate"

    def __str__(self) -> str:
        truncate = f"truncate({self.drop_bits} bits)"
        return f"{self.pool} + {truncate}" if self.pool else truncate


@dataclass(frozen=True, slots=True)
class TreePaths:
    """From the value z of every inner node to one bit a leaf: 1 at the leaf that the path ends in.

    z[trees * (2^depth - 1)], a tree after the other, each in heap order (the children of i are 2i + 1 and
    2i + 2). The path goes left where z >= 0. Output: [trees * 2^depth], leaves from left to right.
    """

    sources: tuple[int]
    shape: Shape
    trees: int
    depth: int
    kind: Literal["tree_paths"] = "tree_paths"

    def __str__(self) -> str:
        return f"tree_paths({self.trees} trees of depth {self.depth})"


@dataclass(frozen=True, slots=True)
class Step:
    """1 where z >= 0, else 0; without fraction bits."""

    sources: tuple[int]
    shape: Shape
    kind: Literal["step"] = "step"

    def __str__(self) -> str:
        return "step"


Node: TypeAlias = Input | Linear | Conv2d | SumPool | Reshape | Shift | Add | Relu | Truncate | TreePaths | Step
Weighted: TypeAlias = Linear | Conv2d
Local: TypeAlias = SumPool | Reshape | Shift | Add
Nonlinear: TypeAlias = Relu | Truncate | TreePaths | Step


@dataclass(frozen=True, slots=True)
class Weights:
    """The private part of a weighted layer: float64 that hold integers; weight has the node's
    `weight_shape`, bias is [out].
    """

    weight: Array
    bias: Array


WEIGHTED = (Linear, Conv2d)
"""What needs the owner's weights."""
LOCAL = (SumPool, Reshape, Shift, Add)
"""What each party computes on its own shares."""
NONLINEAR = (Relu, Truncate, TreePaths, Step)
"""What needs a circuit."""


def output_shape(node: Node, sources: Sequence[Shape]) -> Shape:
    """The shape that follows from the sources' shapes; raises ValueError with a sentence when they do not fit."""
    if isinstance(node, Input):
        return node.shape
    first = sources[0]
    match node:
        case Linear():
            _fits(first == (node.inputs,), f"takes one row of {node.inputs} values", first)
            return node.shape[:1]
        case Conv2d():
            _fits(len(first) == 3 and first[0] == node.inputs, f"takes {node.inputs} feature maps", first)
            return (node.shape[0], *pooled(first, node)[1:])
        case SumPool():
            return pooled(first, node)
        case Reshape():
            _fits(prod(first) == prod(node.shape), f"makes {prod(node.shape)} values", first)
            return node.shape
        case Add():
            _fits(first == sources[1], f"adds shape {sources[1]}", first)
            return first
        case Relu() | Truncate():
            return pooled(first, node.pool) if node.pool else first
        case TreePaths():
            inner = node.trees * ((1 << node.depth) - 1)
            _fits(first == (inner,), f"takes one row of {inner} values", first)
            return (node.trees << node.depth,)
        case Shift() | Step():
            return first


def pooled(shape: Shape, window: Pool | SumPool | Conv2d) -> Shape:
    """[C, H, W] after windows without ceiling; raises ValueError."""
    _fits(len(shape) == 3, "takes feature maps [channels, height, width]", shape)
    steps = zip(shape[1:], window.kernel, window.stride, window.padding, strict=True)
    sizes = [(size + 2 * padding - kernel) // stride + 1 for size, kernel, stride, padding in steps]
    _fits(min(sizes) > 0, "has a window larger than its input", shape)
    return (shape[0], *sizes)


def apply_local(node: Local, *values: Numbers) -> Numbers:
    """A layer without weights on [B, *source shape] of any numeric dtype; unsigned integers wrap."""
    first = values[0]
    match node:
        case SumPool():
            return reduce(np.add, _offsets(node, first))
        case Reshape():
            return first.reshape(len(first), *node.shape)
        case Shift():
            return first * np.full(1, 1 << node.bits, first.dtype)
        case Add():
            return np.asarray(first + values[1])


def apply_weights(node: Weighted, weight: Array, x: Array) -> Array:
    """W x without the bias, on floats that hold integers: [B, *source shape] to [B, *shape].

    `weight` is [out, in] or [out, in, height, width]. Exact while every sum of products stays below 2^53.
    """
    if isinstance(node, Linear):
        row: Array = np.matmul(x, weight.T)
        return row
    windows = sliding_window_view(_padded(node, x), node.kernel, (2, 3))
    windows = windows[:, :, :: node.stride[0], :: node.stride[1]]
    batch, _, height, width, *_ = windows.shape
    rows = weight.reshape(len(weight), -1)
    # Windows are laid out with a position last: copying them is most of the work of a small convolution.
    if height * width < SMALL_MAP:
        together: Array = np.matmul(rows, windows.transpose(1, 4, 5, 0, 2, 3).reshape(rows.shape[1], -1))
        return together.reshape(-1, batch, height, width).swapaxes(0, 1)
    each: Array = np.matmul(rows, windows.transpose(0, 1, 4, 5, 2, 3).reshape(batch, rows.shape[1], -1))
    return each.reshape(batch, -1, height, width)


def add_bias(node: Weighted, bias: Numbers, y: Numbers) -> Numbers:
    """Y + b for y of [B, *shape] and bias [out], of one dtype."""
    return np.asarray(y + (bias if isinstance(node, Linear) else bias[:, None, None]))


def pool_windows(pool: Pool | None, values: Numbers) -> Numbers:
    """The values that each unit of a nonlinear layer takes: [B, *shape, k], k = 1 without a pool.

    Padding is zero, which equals none only where a ReLU follows: only there is a padded pool compiled.
    """
    return values[..., None] if pool is None else np.stack(list(_offsets(pool, values)), axis=-1)


def largest(pool: Pool | None, values: Array) -> Array:
    """The largest of each window: [B, *source shape] to [B, *shape]."""
    return values if pool is None else reduce(np.maximum, _offsets(pool, values))


def apply_nonlinear(node: Nonlinear, x: Array) -> Array:
    """What the circuits compute, on floats that hold integers: [B, *source shape] to [B, *shape]."""
    match node:
        case Relu() | Truncate():
            kept = np.floor(largest(node.pool, x) * 2.0**-node.drop_bits)
            return kept if isinstance(node, Truncate) else np.clip(kept, 0, RELU_LIMIT - 1, out=kept)
        case TreePaths():
            return _tree_paths(node, x)
        case Step():
            return (x >= 0).astype(np.float64)


def _tree_paths(node: TreePaths, z: Array) -> Array:
    left = (z >= 0).reshape(len(z), node.trees, -1)
    reached = np.ones((len(z), node.trees, 1), bool)
    for level in range(node.depth):
        first = (1 << level) - 1
        goes_left = left[:, :, first : 2 * first + 1]
        reached = np.stack([reached & goes_left, reached & ~goes_left], axis=-1).reshape(len(z), node.trees, -1)
    return reached.reshape(len(z), -1).astype(np.float64)


def _offsets(window: Pool | SumPool, values: Numbers) -> Iterator[Numbers]:
    """For each place in a window, the values there: views [B, C, H', W'] on [B, C, H, W]."""
    padded = _padded(window, values)
    _, height, width = pooled(values.shape[1:], window)
    (step_h, step_w) = window.stride
    for top in range(window.kernel[0]):
        for left in range(window.kernel[1]):
            rows = slice(top, top + step_h * (height - 1) + 1, step_h)
            yield padded[:, :, rows, left : left + step_w * (width - 1) + 1 : step_w]


def _padded(window: Pool | SumPool | Conv2d, values: Numbers) -> Numbers:
    if window.padding == (0, 0):
        return values
    high, wide = window.padding
    return np.pad(values, ((0, 0), (0, 0), (high, high), (wide, wide)))


def _window(window: Any) -> str:
    height, width = window.kernel
    return f"{height}x{width}, stride {window.stride}, padding {window.padding}"


def _fits(condition: bool, takes: str, found: Shape) -> None:
    if not condition:
        raise ValueError(f"{takes}, and its input has shape {found}")
