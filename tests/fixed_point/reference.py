"""The integer rules once more, slowly and without capcsim: torch's int64 for networks, Python's integers for trees.

A network runs module by module, in the order in which torch runs it.
"""

from dataclasses import dataclass, replace
from math import ceil, log2, prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from capcsim.learning.architectures import ResidualBlock


@dataclass
class Value:
    """Real numbers are ints / 2^bits / divisor."""

    ints: torch.Tensor
    bits: int
    divisor: int = 1
    accumulator: bool = False


def network_logits(model: nn.Sequential, x: np.ndarray) -> tuple[list[list[int]], int]:
    """The logits and their fraction bits."""
    ints = torch.round(torch.tensor(x).double() * 4096).clamp(-65536, 65536).long()
    value = run(list(model), Value(ints, 12))
    assert value.divisor == 1
    ints = value.ints
    if ints.shape[1] == 1:
        ints = torch.cat([torch.zeros_like(ints), ints], dim=1)
    return ints.tolist(), value.bits


def run(layers: list[nn.Module], value: Value) -> Value:
    for position, layer in enumerate(layers):
        rest = layers[position + 1 :]
        match layer:
            case nn.Linear() | nn.Conv2d():
                value = weighted(layer, rest, narrowed(value))
            case nn.ReLU():
                assert value.divisor == 1
                value = Value((value.ints >> (value.bits - 12)).clamp(0, 65535), 12)
            case nn.MaxPool2d():
                pooled = functional.max_pool2d(value.ints.double(), layer.kernel_size, layer.stride, layer.padding)
                value = replace(value, ints=pooled.long())
                beside = [layers[position - 1] if position else None, *rest[:1]]
                if not any(isinstance(other, nn.ReLU) for other in beside):
                    value = Value(value.ints >> (value.bits - 12), 12, value.divisor)
            case nn.AvgPool2d() | nn.AdaptiveAvgPool2d():
                value = averaged(layer, rest, value)
            case nn.Flatten():
                value = replace(value, ints=value.ints.flatten(1))
            case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.Dropout() | nn.Dropout2d() | nn.Identity():
                pass
            case ResidualBlock():
                value = residual(layer, value)
            case _:
                raise TypeError(layer)
    return value


def residual(block: ResidualBlock, value: Value) -> Value:
    shortcut = [block.shortcut] if isinstance(block.shortcut, nn.Identity) else list(block.shortcut)
    branches = [run(list(block.body), value), run(shortcut, value)]
    bits = max(branch.bits for branch in branches)
    total = sum(branch.ints << (bits - branch.bits) for branch in branches)
    return run([block.relu], Value(total, bits))


def narrowed(value: Value) -> Value:
    """An accumulator goes back to 12 bits before it is multiplied again."""
    if not value.accumulator:
        return value
    return Value(value.ints >> (value.bits - 12), 12, value.divisor)


def weighted(layer: nn.Linear | nn.Conv2d, rest: list[nn.Module], value: Value) -> Value:
    weight, bias = layer.weight.double(), torch.zeros(len(layer.weight)).double()
    if layer.bias is not None:
        bias = layer.bias.double()
    if rest and isinstance(rest[0], nn.BatchNorm1d | nn.BatchNorm2d):
        norm = rest[0]
        scale = 1 / torch.sqrt(norm.running_var.double() + norm.eps)
        gamma, beta = (torch.ones(len(scale)).double(), torch.zeros(len(scale)).double())
        if norm.affine:
            gamma, beta = norm.weight.double(), norm.bias.double()
        weight = weight * (scale * gamma).reshape(-1, *[1] * (weight.ndim - 1))
        bias = bias * (scale * gamma) + (beta - norm.running_mean.double() * scale * gamma)
    taken = taken_over(rest, value.ints.shape[2:])
    more = ceil(log2(taken * value.divisor))
    bits = value.bits + 12 + more
    weight = torch.round(weight / taken / value.divisor * 2 ** (12 + more)).long()
    bias = torch.round(bias / taken * 2**bits).long()
    if isinstance(layer, nn.Linear):
        ints = (value.ints[:, None, :] * weight).sum(2) + bias
    else:
        padding = 0 if layer.padding == "valid" else layer.padding
        ints = functional.conv2d(value.ints, weight, bias, layer.stride, padding)
    return Value(ints, bits, accumulator=True)


def taken_over(rest: list[nn.Module], size: Any) -> int:
    """The divisors of averages that come before any ReLU, where no other layer with weights takes them."""
    found = 1
    for layer in rest:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            return 1
        if isinstance(layer, nn.ReLU):
            break
        if isinstance(layer, nn.AvgPool2d) and odd(area(layer.kernel_size)):
            found *= area(layer.kernel_size)
    return found


def averaged(layer: Any, rest: list[nn.Module], value: Value) -> Value:
    height, width = value.ints.shape[2:]
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        rows, columns = pair(layer.output_size)
        kernel: Any = (height // rows, width // columns)
        stride, padding = kernel, 0
    else:
        kernel, stride, padding = pair(layer.kernel_size), layer.stride, layer.padding
    batch, channels = value.ints.shape[:2]
    ones = torch.ones((1, 1, *kernel), dtype=torch.long)
    sums = functional.conv2d(value.ints.reshape(-1, 1, height, width), ones, stride=stride, padding=padding)
    ints = sums.reshape(batch, channels, *sums.shape[2:])
    divisor = prod(kernel)
    if not odd(divisor):
        return replace(value, ints=ints, bits=value.bits + int(log2(divisor)))
    for other in rest:
        if isinstance(other, nn.Linear | nn.Conv2d):
            return replace(value, ints=ints, divisor=value.divisor * divisor)
        if isinstance(other, nn.ReLU):
            break
    return replace(value, ints=ints)


def odd(divisor: int) -> bool:
    return divisor != 2 ** int(log2(divisor))


def pair(size: Any) -> tuple[int, int]:
    return tuple(size) if isinstance(size, tuple) else (size, size)


def area(size: Any) -> int:
    return prod(pair(size))


def forest_logits(estimators: list[Any], votes: Any, x: np.ndarray, low: Any, high: Any, bits: int) -> list[list[int]]:
    """Walk each tree for each row; votes(tree, leaf) are real numbers for each class."""
    found = []
    for row in x.astype(np.float64).tolist():
        encoded = [min(max(int(np.floor(v * 65536)), lo), hi) for v, lo, hi in zip(row, low, high, strict=True)]
        totals: list[int] | None = None
        for index, estimator in enumerate(estimators):
            tree, node = estimator.tree_, 0
            while tree.children_left[node] != -1:
                threshold = int(np.floor(tree.threshold[node] * 65536))
                left = encoded[tree.feature[node]] <= threshold
                node = tree.children_left[node] if left else tree.children_right[node]
            rounded = [round(float(vote) * 2**bits) for vote in votes(index, node)]
            totals = rounded if totals is None else [a + b for a, b in zip(totals, rounded, strict=True)]
        assert totals is not None
        found.append(totals)
    return found
