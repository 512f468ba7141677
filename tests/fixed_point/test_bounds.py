from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point import RING_SIZES_BITS, Network, compile_model
from capcsim.fixed_point.bounds import intervals, ring_bits
from capcsim.fixed_point.layers import (
    LOCAL,
    NONLINEAR,
    WEIGHTED,
    Input,
    Linear,
    Shift,
    TreePaths,
    Weights,
    add_bias,
    apply_local,
    apply_nonlinear,
    apply_weights,
    pool_windows,
)
from tests.fixed_point.zoo import ARCHITECTURES, CHAINS, architecture


def all_values(network: Network, encoded: np.ndarray) -> list[np.ndarray]:
    """Every node's values, by the public functions that a backend uses."""
    values: list[np.ndarray] = []
    for position, node in enumerate(network.public.nodes):
        sources = [values[source] for source in node.sources]
        if isinstance(node, WEIGHTED):
            owned = network.weights[position]
            assert owned.weight.shape == node.weight_shape
            values.append(add_bias(node, owned.bias, apply_weights(node, owned.weight, sources[0])))
        elif isinstance(node, LOCAL):
            values.append(apply_local(node, *sources))
        elif isinstance(node, NONLINEAR):
            values.append(apply_nonlinear(node, sources[0]))
        else:
            values.append(encoded.astype(np.float64))
        assert values[-1].shape[1:] == node.shape
    return values


def check(network: Network, x: np.ndarray) -> None:
    """Intervals hold, and nothing that a circuit opens, nor a logit, leaves the ring."""
    public = network.public
    values = all_values(network, network.encode(x))
    encoding = public.encoding
    bounds = intervals(public.nodes, network.weights, (min(encoding.low), max(encoding.high)))
    for value, (low, high) in zip(values, bounds, strict=True):
        assert low <= value.min()
        assert value.max() <= high
        assert (value == np.rint(value)).all()
    limit = 1 << (public.ring_bits - 1)
    for node in public.nodes:
        if isinstance(node, NONLINEAR):
            opened = pool_windows(getattr(node, "pool", None), values[node.sources[0]])
            assert np.abs(opened).max() < limit
    assert np.abs(values[-1]).max() < limit
    assert (values[-1].astype(np.int64) == network.evaluate(network.encode(x))).all()


@pytest.mark.parametrize("name", ARCHITECTURES | CHAINS)
def test_no_opened_value_leaves_the_ring(name: str) -> None:
    network = compile_model((ARCHITECTURES | CHAINS)[name]())
    x = np.random.default_rng(0).choice([-1e6, 0.0, 1e6], (10, *network.public.input_shape)).astype(np.float32)
    check(network, x)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0.001, 30.0), st.sampled_from(["mlp", "cryptonet-relu", "vgg-5", "resnet-8"]))
def test_no_opened_value_leaves_the_ring_whatever_the_weights(seed: int, scale: float, kind: Any) -> None:
    model = architecture(kind, (1, 8, 8), 0.05, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    try:
        network = compile_model(model)
    except UnsupportedModel:
        assert scale > 3
        return
    check(network, np.random.default_rng(seed).choice([-1e6, 0.0, 1e6], (20, 1, 8, 8)).astype(np.float32))


def linear(weight: float, bias: float = 0.0) -> tuple[tuple[Any, ...], dict[int, Weights]]:
    return (Input((1,)), Linear((0,), (1,), 1)), {1: Weights(np.full((1, 1), weight), np.full(1, bias))}


@pytest.mark.parametrize("bits", RING_SIZES_BITS)
def test_the_smallest_ring_that_holds_both_signs(bits: int) -> None:
    largest = float((1 << (bits - 1)) - 1)
    for sign in (1, -1):
        assert ring_bits(*linear(sign * largest), (0, 1)) == bits
    bigger = next((size for size in RING_SIZES_BITS if size > bits), None)
    if bigger is None:
        with pytest.raises(UnsupportedModel, match=r"linear\(1->1\): its output could reach 3.52e\+13"):
            ring_bits(*linear(-largest - 1), (0, 1))
    else:
        assert ring_bits(*linear(-largest - 1), (0, 1)) == bigger


def test_tiny_weights_do_not_shrink_the_ring_below_the_fraction_bits() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(0)
        model.bias.fill_(0)
    assert compile_model(model).public.ring_bits == 37


def test_the_input_has_to_fit_too() -> None:
    assert ring_bits(*linear(0.0), (0, 1 << 23)) == 37


def test_signs_are_bounded_apart() -> None:
    nodes, weights = linear(-3.0, 7.0)
    assert intervals(nodes, weights, (-2, 10))[1] == (-23, 13)


def test_exactly_one_leaf_of_each_tree_votes() -> None:
    nodes = (Input((3,)), Linear((0,), (6,), 3), TreePaths((1,), (8,), 2, 2), Linear((2,), (2,), 8))
    votes = np.array([[1.0, 2, 3, 4, 10, 20, 30, 40], [0, 0, 0, -5, 0, 0, 0, 0]])
    weights = {1: Weights(np.zeros((6, 3)), np.zeros(6)), 3: Weights(votes, np.array([100.0, 0.0]))}
    assert intervals(nodes, weights, (0, 1))[3] == (-5, 144)


def test_partial_sums_have_to_be_exact_too() -> None:
    """Large weights of both signs can cancel in the interval of an input that hardly varies."""
    nodes = (Input((2,)), Linear((0,), (1,), 2))
    weights = {1: Weights(np.array([[2.0**30, -(2.0**30)]]), np.zeros(1))}
    with pytest.raises(UnsupportedModel, match="an accumulator could reach"):
        intervals(nodes, weights, ((1 << 24) - 1, 1 << 24))


def test_sums_without_weights_have_to_be_exact_too() -> None:
    with pytest.raises(UnsupportedModel, match=r"shift\(50 bits\): its output could reach 1.8e\+16"):
        intervals((Input((1,)), Shift((0,), (1,), 50)), {}, (-16, 1))


def test_a_clamped_network_stays_small_however_deep() -> None:
    layers = [layer for _ in range(30) for layer in (nn.Linear(20, 20), nn.ReLU())]
    assert compile_model(nn.Sequential(*layers, nn.Linear(20, 2))).public.ring_bits == 37
