from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from capcsim.fixed_point.layers import (
    LOCAL,
    NONLINEAR,
    WEIGHTED,
    Add,
    Conv2d,
    Input,
    Linear,
    Pool,
    Relu,
    Reshape,
    Shift,
    Step,
    SumPool,
    TreePaths,
    Truncate,
    add_bias,
    apply_local,
    apply_nonlinear,
    apply_weights,
    output_shape,
    pool_windows,
    pooled,
)

SIDES = st.tuples(st.integers(1, 4), st.integers(1, 4))


def integers(seed: int, *shape: int, limit: int = 1 << 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(-limit, limit, shape).astype(np.float64)


@st.composite
def windows(draw: Any) -> tuple[Pool, tuple[int, int, int]]:
    """A window with padding at most half its kernel, and feature maps that it fits."""
    kernel, stride = draw(SIDES), draw(SIDES)
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    sizes = zip(shape[1:], kernel, padding, strict=True)
    assume(all(size + 2 * pad >= length for size, length, pad in sizes))
    return Pool(kernel, stride, padding), shape


@settings(deadline=None)
@given(windows(), st.integers(0, 99))
def test_pools_are_torchs(given_window: tuple[Pool, tuple[int, int, int]], seed: int) -> None:
    pool, shape = given_window
    x = integers(seed, 2, *shape)
    found = pooled(shape, pool)
    sizes = (pool.kernel, pool.stride, pool.padding)
    total = apply_local(SumPool((0,), found, *sizes), x)
    mean = functional.avg_pool2d(torch.tensor(x), *sizes)
    assert total == pytest.approx(mean.numpy() * np.prod(pool.kernel))
    relu = apply_nonlinear(Relu((0,), found, 3, pool), x)
    largest = functional.max_pool2d(torch.tensor(x), *sizes)
    assert (relu == torch.clamp(torch.floor(largest / 8), 0, 65535).numpy()).all()
    values = pool_windows(pool, x)
    assert values.shape == (2, *found, np.prod(pool.kernel))
    assert (np.maximum(values.max(axis=-1), 0) == torch.clamp(largest, 0).numpy()).all()


@settings(deadline=None)
@given(windows(), st.integers(1, 4), st.integers(0, 99))
def test_convolutions_are_torchs(given_window: tuple[Pool, tuple[int, int, int]], maps: int, seed: int) -> None:
    window, shape = given_window
    x, weight, bias = integers(seed, 3, *shape), integers(seed, maps, shape[0], *window.kernel), integers(seed, maps)
    node = Conv2d((0,), (maps, *pooled(shape, window)[1:]), shape[0], window.kernel, window.stride, window.padding)
    found = add_bias(node, bias, apply_weights(node, weight, x))
    arrays = (torch.tensor(array).long() for array in (x, weight, bias))
    assert found.tolist() == functional.conv2d(*arrays, window.stride, window.padding).tolist()
    assert found.shape[1:] == output_shape(node, [shape]) == node.shape


def test_a_convolution_onto_many_positions_is_torchs() -> None:
    x, weight = integers(0, 2, 3, 20, 20), integers(1, 4, 3, 3, 3)
    found = apply_weights(Conv2d((0,), (4, 20, 20), 3, (3, 3), (1, 1), (1, 1)), weight, x)
    assert found.tolist() == functional.conv2d(torch.tensor(x).long(), torch.tensor(weight).long(), padding=1).tolist()


LOCAL_NODES = [
    (SumPool((0,), (2, 2, 2), (3, 3), (2, 2), (1, 1)), 1),
    (Reshape((0,), (32,)), 1),
    (Shift((0,), (2, 4, 4), 12), 1),
    (Add((0, 1), (2, 4, 4)), 2),
]


@pytest.mark.parametrize(("node", "count"), LOCAL_NODES)
def test_local_layers_commute_with_sharing(node: Any, count: int) -> None:
    """On shares mod 2^64 they give shares of what they give on the values."""
    generator = np.random.default_rng(0)
    values = [integers(seed, 5, 2, 4, 4) for seed in range(count)]
    masks = [generator.integers(0, 1 << 64, value.shape, np.uint64) for value in values]
    rest = [value.astype(np.int64).astype(np.uint64) - mask for value, mask in zip(values, masks, strict=True)]
    together = apply_local(node, *masks) + apply_local(node, *rest)
    assert together.dtype == np.uint64
    assert together.astype(np.int64).tolist() == apply_local(node, *values).tolist()
    assert output_shape(node, [(2, 4, 4)] * count) == node.shape


def test_windows_of_shares_add_up_to_windows_of_values() -> None:
    pool = Pool((2, 2), (2, 2), (1, 1))
    value = np.arange(32, dtype=np.uint64).reshape(1, 2, 4, 4)
    mask = np.random.default_rng(0).integers(0, 1 << 64, value.shape, np.uint64)
    assert (pool_windows(pool, value - mask) + pool_windows(pool, mask) == pool_windows(pool, value)).all()
    assert pool_windows(None, value).shape == (1, 2, 4, 4, 1)


def test_nonlinear_layers_floor_and_saturate() -> None:
    x = np.array([[-4097.0, -4096, -1, 0, 4095, 4096, 2.0**28 - 1, 2.0**28, 2.0**40]])
    relu = apply_nonlinear(Relu((0,), (9,), 12), x)
    assert relu.tolist() == [[0, 0, 0, 0, 0, 1, 65535, 65535, 65535]]
    truncated = apply_nonlinear(Truncate((0,), (9,), 12), x)
    assert truncated.tolist() == [[-2, -1, -1, 0, 0, 1, 65535, 65536, 2**28]]
    assert apply_nonlinear(Step((0,), (9,)), x).tolist() == [[0, 0, 0, 1, 1, 1, 1, 1, 1]]


def test_a_truncation_may_take_the_largest_of_a_window_first() -> None:
    x = -np.arange(16.0).reshape(1, 1, 4, 4) - 1
    found = apply_nonlinear(Truncate((0,), (1, 2, 2), 1, Pool((2, 2), (2, 2))), x)
    assert found.tolist() == [[[[-1, -2], [-5, -6]]]]


@pytest.mark.parametrize(("trees", "depth"), [(1, 1), (3, 2), (2, 4)])
def test_tree_paths_end_in_the_leaf_that_a_walk_reaches(trees: int, depth: int) -> None:
    inner, leaves = (1 << depth) - 1, 1 << depth
    z = np.random.default_rng(0).integers(-2, 3, (40, trees * inner)).astype(np.float64)
    bits = apply_nonlinear(TreePaths((0,), (trees * leaves,), trees, depth), z).reshape(40, trees, leaves)
    for row, tree in product(range(40), range(trees)):
        place = 0
        while place < inner:
            place = 2 * place + (1 if z[row, tree * inner + place] >= 0 else 2)
        assert bits[row, tree].tolist() == [float(leaf == place - inner) for leaf in range(leaves)]


def test_texts_name_the_layers() -> None:
    pool = Pool((2, 2), (2, 2))
    shown = {
        Input((3,)): "input",
        Linear((0,), (10,), 64): "linear(64->10)",
        Conv2d((0,), (5, 2, 2), 1, (5, 5), (2, 2), (2, 2)): "conv2d(1->5, 5x5, stride (2, 2), padding (2, 2))",
        SumPool((0,), (1, 1, 1), (2, 3), (1, 1), (0, 0)): "sum_pool(2x3, stride (1, 1), padding (0, 0))",
        Reshape((0,), (3,)): "flatten",
        Reshape((0,), (3, 1, 1)): "reshape(3x1x1)",
        Shift((0,), (3,), 12): "shift(12 bits)",
        Add((0, 1), (3,)): "add",
        Relu((0,), (3,), 12): "relu",
        Relu((0,), (3,), 14): "relu(drop 14 bits)",
        Relu((0,), (1, 1, 1), 12, pool): "max_pool(2x2, stride (2, 2), padding (0, 0)) + relu",
        Truncate((0,), (1, 1, 1), 2, pool): "max_pool(2x2, stride (2, 2), padding (0, 0)) + truncate(2 bits)",
        TreePaths((0,), (8,), 2, 2): "tree_paths(2 trees of depth 2)",
        Step((0,), (3,)): "step",
    }
    assert {node: str(node) for node in shown} == shown
    assert {type(node) for node in shown} == {Input, *WEIGHTED, *LOCAL, *NONLINEAR}
    assert len({node.kind for node in shown}) == len({type(node) for node in shown})
