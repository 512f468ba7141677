"""How linear layers lie in polynomials: the coefficients of one product are inner products.

After Cheetah (ePrint 2022/207) and Iron (Hao et al. 2022): no rotation, no Galois key. Every linear layer is first
brought to one form, a convolution of stride 1 without padding: a dense layer is a 1 x 1 kernel on a 1 x 1 image, and
a convolution of stride s becomes one of stride 1 on the s^2 phases of its image (both sides rearrange their shares).

In Z[Y] / (Y^n + 1), an input polynomial holds `in_block` channels of H x W: x[c, i, j] at c HW + i W + j. A weight
polynomial holds `out_block` filters: K[m, c, u, v] at m S + O - c HW - u W - v with S = in_block HW and
O = (in_block - 1) HW + (kh - 1) W + kw - 1. Their product has the result (m, i, j) at m S + O + i W + j.

Many images at once: Y = X^b in Z[X] / (X^N + 1) with n = N / b, and image k in the coefficients that are k mod b.
They never mix, and the weights' transform has runs of b equal values, of which one is kept.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.layers import Conv2d, Linear

_UPLOAD, _REPLY, _PRODUCT = 150, 250, 3
"""What one uploaded ciphertext, one reply and one product cost beside each other, both sides together."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of stride 1 without padding on [channels, height, width]."""

    channels: int
    height: int
    width: int
    outputs: int
    kernel: tuple[int, int]

    @property
    def rows(self) -> int:
        """Height of the result."""
        return self.height - self.kernel[0] + 1

    @property
    def columns(self) -> int:
        """Width of the result."""
        return self.width - self.kernel[1] + 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies, for polynomials of `degree` coefficients with `images` interleaved."""

    form: Convolution
    degree: int
    images: int
    in_block: int
    out_block: int

    @property
    def in_blocks(self) -> int:
        """Ciphertexts of one group of images."""
        return -(-self.form.channels // self.in_block)

    @property
    def out_blocks(self) -> int:
        """Replies of one group of images."""
        return -(-self.form.outputs // self.out_block)

    @property
    def origin(self) -> int:
        """Where the first result lies."""
        form = self.form
        return (self.in_block - 1) * form.height * form.width + (form.kernel[0] - 1) * form.width + form.kernel[1] - 1

    def encode_inputs(self, images: NDArray[np.uint64], block: int) -> NDArray[np.uint64]:
        """One block of channels of some images uint64[count <= images, C, H, W] as coefficients uint64[degree]."""
        chosen = images[:, block * self.in_block : (block + 1) * self.in_block].reshape(len(images), -1)
        coefficients = np.zeros((self.degree // self.images, self.images), np.uint64)
        coefficients[: chosen.shape[1], : len(images)] = chosen.T
        return coefficients.reshape(-1)

    def encode_weights(self, weight: NDArray[np.int64], in_block: int, out_block: int) -> NDArray[np.int64]:
        """One block of a kernel int64[M, C, kh, kw] as coefficients int64[degree]."""
        chosen = weight[
            out_block * self.out_block : (out_block + 1) * self.out_block,
            in_block * self.in_block : (in_block + 1) * self.in_block,
        ]
        m, c, u, v = np.indices(chosen.shape)
        area, width = self.form.height * self.form.width, self.form.width
        places = m * self.in_block * area + self.origin - c * area - u * width - v
        coefficients = np.zeros(self.degree, np.int64)
        coefficients[(places * self.images).reshape(-1)] = chosen.reshape(-1)
        return coefficients

    def places(self, out_block: int, count: int) -> NDArray[np.int64]:
        """Where the results of one reply lie, int64[count, outputs of the block, rows, columns]."""
        outputs = min(self.out_block, self.form.outputs - out_block * self.out_block)
        image, m, i, j = np.indices((count, outputs, self.form.rows, self.form.columns))
        area = self.form.height * self.form.width
        unit = m * self.in_block * area + self.origin + i * self.form.width + j
        places: NDArray[np.int64] = unit * self.images + image
        return places


def form_of(node: Linear | Conv2d, input_shape: tuple[int, ...]) -> Convolution:
    """A layer as a convolution of stride 1 without padding."""
    if isinstance(node, Linear):
        return Convolution(input_shape[0], 1, 1, node.shape[0], (1, 1))
    phases = len(_phases(node))
    kernel = _small_kernel(node)
    outputs, rows, columns = node.shape
    return Convolution(input_shape[0] * phases, rows + kernel[0] - 1, columns + kernel[1] - 1, outputs, kernel)


def arrange_inputs(node: Linear | Conv2d, values: NDArray[Any]) -> NDArray[Any]:
    """Inputs [B, *shape] of a layer as images [B, C, H, W] of its form."""
    if isinstance(node, Linear):
        return values[:, :, None, None]
    form = form_of(node, values.shape[1:])
    (pad_h, pad_w), (step_h, step_w) = node.padding, node.stride
    height, width = form.height * step_h, form.width * step_w
    # More zeros than the padding: every phase gets the same size.
    right = [
        max(0, size - pad - have)
        for size, pad, have in zip((height, width), node.padding, values.shape[2:], strict=True)
    ]
    padded = np.pad(values, ((0, 0), (0, 0), (pad_h, right[0]), (pad_w, right[1])))[:, :, :height, :width]
    return np.concatenate([padded[:, :, p::step_h, q::step_w] for p, q in _phases(node)], axis=1)


def arrange_weights(node: Linear | Conv2d, weight: NDArray[Any]) -> NDArray[Any]:
    """A weight [out, in] or [out, in, kh, kw] as the kernel [M, C, kh', kw'] of its form."""
    if isinstance(node, Linear):
        return weight[:, :, None, None]
    kernels = []
    for p, q in _phases(node):
        taps = weight[:, :, p :: node.stride[0], q :: node.stride[1]]
        missing = [size - have for size, have in zip(_small_kernel(node), taps.shape[2:], strict=True)]
        kernels.append(np.pad(taps, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1]))))
    return np.concatenate(kernels, axis=1)


def _phases(node: Conv2d) -> list[tuple[int, int]]:
    """The phases of the image that meet a tap of the kernel."""
    return list(product(range(min(node.stride[0], node.kernel[0])), range(min(node.stride[1], node.kernel[1]))))


def _small_kernel(node: Conv2d) -> tuple[int, int]:
    return -(-node.kernel[0] // node.stride[0]), -(-node.kernel[1] // node.stride[1])


@lru_cache(maxsize=1024)
def choose_layout(form: Convolution, degree: int, queries: int, most_weight_words: int) -> Layout:
    """The cheapest layout for so many queries whose weights take at most so many words a prime.

    Raises UnsupportedModel when one channel of the image does not fit a polynomial, or no layout is small enough.
    """
    area = form.height * form.width
    best: tuple[float, Layout] | None = None
    images = 1
    while images * area <= degree and images < 2 * queries:
        for in_blocks in _block_counts(form.channels, degree // images // area):
            in_block = -(-form.channels // in_blocks)
            fitting = degree // images // area // in_block
            out_blocks = -(-form.outputs // min(form.outputs, fitting))
            groups = -(-queries // images)
            cost = groups * (_UPLOAD * in_blocks + _REPLY * out_blocks + _PRODUCT * in_blocks * out_blocks)
            words = in_blocks * out_blocks * (degree // images)
            if words <= most_weight_words and (best is None or cost < best[0]):
                best = (cost, Layout(form, degree, images, in_block, -(-form.outputs // out_blocks)))
        images *= 2
    if best is None:
        why = f"does not fit polynomials of degree {degree}"
        raise UnsupportedModel(f"{form.channels} x {form.height} x {form.width}", f"{why}; raise the security level")
    return best[1]


def _block_counts(channels: int, most_at_once: int) -> list[int]:
    """Every number of blocks that gives another block size."""
    sizes = range(1, min(channels, most_at_once) + 1)
    return sorted({-(-channels // size) for size in sizes})
