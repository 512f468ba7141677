"""Transposing bit matrices: 128 columns of m bits to m rows of 128 bits."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, types
from numba.extending import intrinsic

from capcsim.compiled import compiled

_AT_ONCE = 8
_WORDS = ir.VectorType(ir.IntType(64), _AT_ONCE)


def _swap(_, low, high, width, mask):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        low, high, width, mask = values
        pointers = [builder.inttoptr(address, _WORDS.as_pointer()) for address in (low, high)]
        first, second = (builder.load(pointer, align=8) for pointer in pointers)
        shift, chosen = (_spread(builder, value) for value in (width, mask))
        moved = builder.and_(builder.xor(first, builder.lshr(second, shift)), chosen)
        builder.store(builder.xor(first, moved), pointers[0], align=8)
        builder.store(builder.xor(second, builder.shl(moved, shift)), pointers[1], align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.uint64, types.uint64), generate


def _spread(builder: Any, value: Any) -> Any:
    single = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), value, ir.IntType(32)(0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), _AT_ONCE), [0] * _AT_ONCE)
    return builder.shuffle_vector(single, ir.Constant(_WORDS, ir.Undefined), order)


swap: Any = intrinsic(_swap)
"""Exchange bits between eight words at the address `low` and eight at `high`: one step of the transpose."""


@compiled(nogil=True)
def _transpose_blocks(block: Any) -> None:
    """Transpose the 64 x 64 bits block[:, lane] of each lane in place."""
    base, row_bytes = int64(block.ctypes.data), int64(8 * _AT_ONCE)
    width, mask = 32, np.uint64(0x00000000FFFFFFFF)
    while width:
        for start in range(0, 64, 2 * width):
            for low in range(start, start + width):
                swap(base + low * row_bytes, base + (low + width) * row_bytes, np.uint64(width), mask)
        width >>= 1
        mask ^= mask << np.uint64(width)


@compiled(nogil=True)
def combine(columns: Any, others: Any, choices: Any) -> None:
    """Others ^= columns ^ choices, for each column: what the receiver of an OT extension sends."""
    for column in range(len(columns)):
        for word in range(len(choices)):
            others[column, word] ^= columns[column, word] ^ choices[word]


@compiled(nogil=True)
def rows_of(columns: Any, rows: Any) -> None:
    """Fill rows uint64[m, 2] from columns uint64[128, >= m / 64]; m is a multiple of 64.

    Works on 64 x 64 blocks by swapping halves, quarters and so on (Warren, Hacker's Delight, 7-3), on eight
    blocks side by side, so that vector instructions do eight at once.
    """
    block = np.empty((64, _AT_ONCE), np.uint64)
    words = len(rows) // 64
    for first in range(0, words, _AT_ONCE):
        count = min(_AT_ONCE, words - first)
        for half in range(2):
            for row in range(64):
                # Reversed in and out, which turns Warren's transpose about the other diagonal into this one.
                for lane in range(count):
                    block[63 - row, lane] = columns[64 * half + row, first + lane]
            _transpose_blocks(block)
            for lane in range(count):
                for row in range(64):
                    rows[64 * (first + lane) + row, half] = block[63 - row, lane]
