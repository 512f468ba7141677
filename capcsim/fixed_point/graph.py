"""From layers with real weights to integer nodes: what is fused, and where every scale goes.

A value's integers stand for real numbers times 2^fraction_bits * divisor. A divisor comes from an average
over a number of values that is no power of two; the next layer with weights takes it into them, or else
the layer with weights before the average does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, TypeAlias

import numpy as np

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.layers import (
    FRACTION_BITS,
    Add,
    Array,
    Conv2d,
    Input,
    Linear,
    Node,
    Pool,
    Relu,
    Reshape,
    Shape,
    Shift,
    SumPool,
    Truncate,
    Weights,
)
from capcsim.fixed_point.network import Encoding, Network

INPUT_LIMIT = 1 << 16
"""Encoded inputs are saturated to [-2^16, 2^16], that is [-16, 16]."""
ENCODING = Encoding(FRACTION_BITS, "nearest", (-INPUT_LIMIT,), (INPUT_LIMIT,))

Kind: TypeAlias = Literal["input", "linear", "conv2d", "norm", "relu", "max_pool", "average", "reshape", "add"]


@dataclass(eq=False)
class Op:
    """One layer with real numbers: what it is, the layers whose results it takes, its output's shape.

    `name` is what an error calls it. A linear layer's `weight` is [out, in], a convolution's
    [out, in, height, width], a norm's the factor of each channel; `bias` is [out]. `window` is a pool's, a
    convolution's, or that of a max pool fused with a ReLU. `divisor` is what an average has still to be
    divided by, or what a layer with weights takes over from an average after it.
    """

    kind: Kind
    name: str
    sources: list["Op"]
    shape: Shape
    weight: Array | None = None
    bias: Array | None = None
    window: Pool | None = None
    divisor: int = 1

    @property
    def owned(self) -> tuple[Array, Array]:
        """Weight and bias of a layer that has them."""
        assert self.weight is not None
        assert self.bias is not None
        return self.weight, self.bias


@dataclass(frozen=True, slots=True)
class _Value:
    """Where an op's result lies, its scale, and whether it is an accumulator, to be floored before a product."""

    node: int
    shape: Shape
    fraction_bits: int
    divisor: int = 1
    wide: bool = False


def lower(ops: Sequence[Op]) -> Network:
    """The integer network of `ops`, in order, of which the last gives the logits; raises UnsupportedModel.

    The ops are changed in place.
    """
    live = _fuse_max_pools(_fold_norms(_live(ops)))
    _fold_averages(live)
    _two_logits(live)
    lowering = _Lowering()
    values: dict[Op, _Value] = {}
    for op in live:
        values[op] = lowering.lower(op, [values[source] for source in op.sources])
    logits = values[live[-1]]
    if len(logits.shape) != 1:
        raise UnsupportedModel(live[-1].name, "the model must end with one row of logits per query; add a Flatten")
    if not lowering.weights:
        raise UnsupportedModel("model", "it has no layer with weights")
    return Network.of(tuple(lowering.nodes), lowering.weights, ENCODING, fraction_bits=logits.fraction_bits)


def _live(ops: Sequence[Op]) -> list[Op]:
    """Only what the last op depends on, and the input first."""
    needed = {ops[0], ops[-1]}
    for op in reversed(ops):
        if op in needed:
            needed.update(op.sources)
    return [op for op in ops if op in needed]


def _users(ops: Sequence[Op], op: Op) -> list[Op]:
    return [user for user in ops if op in user.sources]


def _without(ops: list[Op], gone: Op, instead: Op) -> list[Op]:
    """The ops without one, whose users take another's result."""
    for user in ops:
        user.sources = [instead if source is gone else source for source in user.sources]
    return [op for op in ops if op is not gone]


def _fold_norms(ops: list[Op]) -> list[Op]:
    """A batch norm becomes part of the layer with weights before it."""
    for norm in [op for op in ops if op.kind == "norm"]:
        before = norm.sources[0]
        if before.kind not in ("linear", "conv2d") or len(_users(ops, before)) > 1:
            raise UnsupportedModel(norm.name, "a batch norm must directly follow a Linear or Conv2d of its own")
        (weight, bias), (factor, summand) = before.owned, norm.owned
        before.weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        before.bias = bias * factor + summand
        ops = _without(ops, norm, before)
    return ops


def _fuse_max_pools(ops: list[Op]) -> list[Op]:
    """A max pool beside a ReLU becomes part of it: they commute, and one circuit opens each value once."""
    for pool in [op for op in ops if op.kind == "max_pool"]:
        before, after = pool.sources[0], _users(ops, pool)
        if before.kind == "relu" and before.window is None and len(_users(ops, before)) == 1:
            before.window, before.shape = pool.window, pool.shape
            ops = _without(ops, pool, before)
        elif len(after) == 1 and after[0].kind == "relu" and after[0].window is None:
            after[0].window = pool.window
            ops = _without(ops, pool, before)
    return ops


def _fold_averages(ops: Sequence[Op]) -> None:
    """Find a layer with weights for every divisor that is no power of two."""
    for average in [op for op in ops if op.kind == "average" and op.divisor & (op.divisor - 1)]:
        if _meets_weights(ops, average):
            continue
        before = average.sources[0]
        while before.kind in ("reshape", "average", "max_pool") and len(_users(ops, before)) == 1:
            before = before.sources[0]
        if before.kind not in ("linear", "conv2d") or len(_users(ops, before)) > 1:
            why = f"no layer with weights can take its divisor {average.divisor}: use a window of 2^j values"
            raise UnsupportedModel(average.name, why)
        before.divisor, average.divisor = before.divisor * average.divisor, 1


def _meets_weights(ops: Sequence[Op], op: Op) -> bool:
    """Whether every way on from `op` comes to a layer with weights before a sum, a ReLU or the end."""
    users = _users(ops, op)
    return bool(users) and all(
        user.kind in ("linear", "conv2d")
        or (user.kind in ("reshape", "average", "max_pool") and _meets_weights(ops, user))
        for user in users
    )


def _two_logits(ops: Sequence[Op]) -> None:
    """A single logit z becomes (0, z): class 1 where z > 0."""
    last = ops[-1]
    if last.shape != (1,):
        return
    if last.kind != "linear":
        raise UnsupportedModel(last.name, "a model with a single logit must end with a Linear layer")
    weight, bias = last.owned
    last.weight, last.bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    last.shape = (2,)


class _Lowering:
    """The nodes and the integer weights so far."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.weights: dict[int, Weights] = {}

    def lower(self, op: Op, sources: Sequence[_Value]) -> _Value:
        match op.kind:
            case "input":
                return self._append(Input(op.shape), FRACTION_BITS)
            case "linear" | "conv2d":
                return self._weighted(op, self._narrow(sources[0]))
            case "relu":
                x = sources[0]
                relu = Relu((x.node,), op.shape, x.fraction_bits - FRACTION_BITS, op.window)
                return self._append(relu, FRACTION_BITS)
            case "max_pool":
                return self._max_pool(op, sources[0])
            case "average":
                return self._average(op, sources[0])
            case "reshape":
                return self._reshape(op, sources[0])
            case "add":
                return self._add(op, sources[0], sources[1])
        raise TypeError(op.kind)

    def _append(self, node: Node, fraction_bits: int, *, divisor: int = 1, wide: bool = False) -> _Value:
        self.nodes.append(node)
        return _Value(len(self.nodes) - 1, node.shape, fraction_bits, divisor, wide)

    def _weighted(self, op: Op, x: _Value) -> _Value:
        """Weights are rounded once, with as many more bits as the divisors make them smaller."""
        weight, bias = op.owned
        divisor = x.divisor * op.divisor
        bits = FRACTION_BITS + (divisor - 1).bit_length()
        fraction_bits = x.fraction_bits + bits
        node: Node = Linear((x.node,), op.shape, weight.shape[1])
        if op.kind == "conv2d":
            assert op.window is not None
            window = op.window
            node = Conv2d((x.node,), op.shape, weight.shape[1], window.kernel, window.stride, window.padding)
        value = self._append(node, fraction_bits, wide=True)
        self.weights[value.node] = Weights(
            np.rint(weight * (2.0**bits / divisor)), np.rint(bias * (2.0**fraction_bits / op.divisor))
        )
        return value

    def _narrow(self, x: _Value) -> _Value:
        """An accumulator floored to 12 fraction bits."""
        if not x.wide:
            return x
        truncate = Truncate((x.node,), x.shape, x.fraction_bits - FRACTION_BITS)
        return self._append(truncate, FRACTION_BITS, divisor=x.divisor)

    def _max_pool(self, op: Op, x: _Value) -> _Value:
        assert op.window is not None
        if op.window.padding != (0, 0):
            raise UnsupportedModel(op.name, "a padded max pool needs a ReLU of its own right before or after it")
        truncate = Truncate((x.node,), op.shape, x.fraction_bits - FRACTION_BITS, op.window)
        return self._append(truncate, FRACTION_BITS, divisor=x.divisor)

    def _average(self, op: Op, x: _Value) -> _Value:
        assert op.window is not None
        node = SumPool((x.node,), op.shape, op.window.kernel, op.window.stride, op.window.padding)
        if op.divisor & (op.divisor - 1):
            return self._append(node, x.fraction_bits, divisor=x.divisor * op.divisor, wide=x.wide)
        bits = x.fraction_bits + op.divisor.bit_length() - 1
        return self._append(node, bits, divisor=x.divisor, wide=x.wide)

    def _reshape(self, op: Op, x: _Value) -> _Value:
        if op.shape == x.shape:
            return x
        assert prod(op.shape) == prod(x.shape)
        value = self._append(Reshape((x.node,), op.shape), x.fraction_bits)
        return replace(value, divisor=x.divisor, wide=x.wide)

    def _add(self, op: Op, a: _Value, b: _Value) -> _Value:
        bits = max(a.fraction_bits, b.fraction_bits)
        left, right = (self._shifted(x, bits - x.fraction_bits) for x in (a, b))
        return self._append(Add((left.node, right.node), op.shape), bits, wide=a.wide or b.wide)

    def _shifted(self, x: _Value, bits: int) -> _Value:
        return self._append(Shift((x.node,), x.shape, bits), x.fraction_bits + bits) if bits else x
