"""Layouts against ordinary convolutions, with the products of polynomials in plain integers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.layers import Conv2d, Linear, apply_weights, output_shape
from capcsim_hybrid.packing import Convolution, arrange_inputs, arrange_weights, choose_layout, form_of

DEGREE = 256


def negacyclic(a: Any, b: Any) -> Any:
    """The product in Z[X] / (X^N + 1), by the definition."""
    full = np.convolve(a, b)
    low, high = full[: len(a)], full[len(a) :]
    low = low.copy()
    low[: len(high)] -= high
    return low


@st.composite
def convolutions(draw: Any) -> tuple[Conv2d, tuple[int, ...]]:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    assume(all(size + 2 * pad >= taps for size, pad, taps in zip(shape[1:], padding, kernel, strict=True)))
    node = Conv2d((0,), (draw(st.integers(1, 5)), 0, 0), shape[0], kernel, stride, padding)
    return Conv2d((0,), output_shape(node, [shape]), shape[0], kernel, stride, padding), shape


def by_polynomials(node: Any, weight: Any, x: Any, batch: int) -> Any:
    form = form_of(node, x.shape[1:])
    layout = choose_layout(form, DEGREE, batch, 1 << 30)
    images, kernel = arrange_inputs(node, x.astype(np.uint64)), arrange_weights(node, weight)
    rows = []
    for first in range(0, batch, layout.images):
        group = images[first : first + layout.images]
        blocks = []
        for out_block in range(layout.out_blocks):
            product = np.zeros(DEGREE, np.int64)
            for in_block in range(layout.in_blocks):
                inputs = layout.encode_inputs(group, in_block).astype(np.int64)
                product += negacyclic(inputs, layout.encode_weights(kernel, in_block, out_block))
            blocks.append(product[layout.places(out_block, len(group))])
        rows.append(np.concatenate(blocks, axis=1))
    return np.concatenate(rows).reshape(batch, *node.shape)


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.integers(1, 9), st.integers(0, 1 << 30))
def test_a_product_of_polynomials_is_the_convolution(drawn: Any, batch: int, seed: int) -> None:
    node, shape = drawn
    generator = np.random.default_rng(seed)
    weight = generator.integers(-9, 10, node.weight_shape)
    x = generator.integers(0, 100, (batch, *shape))
    expected = apply_weights(node, weight.astype(np.float64), x.astype(np.float64))
    assert np.array_equal(by_polynomials(node, weight, x, batch), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 40), st.integers(1, 70), st.integers(0, 1 << 30))
def test_a_product_of_polynomials_is_the_dense_layer(inputs: int, outputs: int, batch: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    node = Linear((0,), (outputs,), inputs)
    weight, x = generator.integers(-9, 10, (outputs, inputs)), generator.integers(0, 100, (batch, inputs))
    assert np.array_equal(by_polynomials(node, weight, x, batch), x @ weight.T)


def test_no_result_lies_in_two_places() -> None:
    layout = choose_layout(Convolution(3, 6, 6, 7, (3, 3)), 2048, 5, 1 << 30)
    for block in range(layout.out_blocks):
        places = layout.places(block, layout.images)
        assert len(np.unique(places)) == places.size
        assert places.max() < 2048


def test_more_queries_use_more_of_each_polynomial() -> None:
    form = Convolution(980, 1, 1, 100, (1, 1))
    work = [
        -(-batch // layout.images) * (layout.in_blocks + layout.out_blocks) / batch
        for batch in (1, 16, 256)
        for layout in [choose_layout(form, 8192, batch, 1 << 30)]
    ]
    assert work[0] > 3 * work[1] > 3 * work[2]


def test_weights_stay_within_the_memory_that_is_allowed() -> None:
    form = Convolution(64, 10, 10, 64, (3, 3))
    for words in (1 << 22, 1 << 20, 1 << 19):
        layout = choose_layout(form, 8192, 64, words)
        assert layout.in_blocks * layout.out_blocks * (8192 // layout.images) <= words


def test_an_image_larger_than_a_polynomial_is_refused() -> None:
    with pytest.raises(
        UnsupportedModel, match="100 x 100: does not fit polynomials of degree 8192; raise the security"
    ):
        choose_layout(Convolution(1, 100, 100, 1, (3, 3)), 8192, 1, 1 << 30)
