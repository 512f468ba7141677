"""Correlated oblivious transfer by extension: q and t = q ^ c Delta for random choice bits c.

Ishai, Kilian, Nissim, Petrank 2003, semi-honest: 128 base transfers once, then two AES key streams a column and
a transpose. The outputs are used as wire labels as they are, without a further hash: q is a zero label and t the
active one. Transfers are made ahead, in blocks, on random choices; when the real bits are known, the receiver
sends one correction bit each. Each index is handed out once: it is gone before anything is sent.
`capcsim.twoparty.oblivious_transfer` carries the messages.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.crypto.randomness import keystream, random_bytes
from capcsim.crypto.transpose import combine, rows_of
from capcsim.errors import InputError, PeerFailed

COLUMNS = 128
Blocks = NDArray[np.uint64]
_PADDING_WORDS = 8
"""Keeps columns off each other's cache lines, and is the slack that `cryptography` wants behind its output."""


class _Stock:
    """Rows that are made in blocks and handed out from the front, each once."""

    def __init__(self) -> None:
        self._blocks: deque[NDArray[Any]] = deque()
        self.available = 0

    def add(self, block: NDArray[Any]) -> None:
        """Behind all others."""
        self._blocks.append(block)
        self.available += len(block)

    def take(self, count: int) -> NDArray[Any]:
        """The next rows; raises InputError for too many."""
        if count > self.available:
            raise InputError(f"{count} transfers were asked for and {self.available} are made; refill first")
        self.available -= count
        taken = []
        while count:
            block = self._blocks.popleft()
            if len(block) > count:
                self._blocks.appendleft(block[count:])
            taken.append(block[:count])
            count -= len(taken[-1])
        # One block is copied too: what was handed out must not keep its neighbours in memory.
        return np.concatenate(taken) if taken else np.empty((0, 2), np.uint64)


class CotSender:
    """The side that knows Delta: its bits were the choices of the base transfers."""

    def __init__(self, delta: Blocks, keys: list[bytes]) -> None:
        self._streams = [keystream(key) for key in keys]
        bits = np.unpackbits(delta.view(np.uint8), bitorder="little").astype(np.uint64)
        # All ones or zeros: what is added is masked, not selected, so that no memory access depends on Delta.
        self._masks = (np.uint64(0) - bits)[:, None]
        self._ready = _Stock()

    @property
    def available(self) -> int:
        """Transfers that are made and not handed out."""
        return self._ready.available

    def absorb(self, payload: bytes, count: int) -> None:
        """Extend by `count` transfers, a multiple of 64, with what the receiver sent; raises PeerFailed."""
        words = count // 64
        if len(payload) != COLUMNS * 8 * words:
            raise PeerFailed(f"OT extension: {len(payload)} bytes came instead of {COLUMNS * 8 * words}")
        columns = _expand(self._streams, words)
        sent = np.frombuffer(payload, np.uint64).reshape(COLUMNS, words)
        columns[:, :words] ^= sent & self._masks
        self._ready.add(_rows(columns, count))

    def take(self, count: int) -> Blocks:
        """The next zero labels uint64[count, 2]; never handed out again. Raises InputError for too many."""
        return self._ready.take(count)


class CotReceiver:
    """The side with choice bits, here random ones."""

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._streams = [[keystream(pair[side]) for pair in pairs] for side in range(2)]
        self._ready, self._choices = _Stock(), _Stock()

    @property
    def available(self) -> int:
        """Transfers that are made and not handed out."""
        return self._ready.available

    def extend(self, count: int) -> bytes:
        """Make `count` transfers, a multiple of 64, on fresh random choices; returns what the sender needs."""
        words = count // 64
        choices = np.frombuffer(random_bytes(8 * words), np.uint64)
        columns, others = _expand(self._streams[0], words), _expand(self._streams[1], words)
        combine(columns, others, choices)
        self._ready.add(_rows(columns, count))
        self._choices.add(np.unpackbits(choices.view(np.uint8), bitorder="little"))
        return others[:, :words].tobytes()

    def take(self, count: int) -> tuple[NDArray[np.uint8], Blocks]:
        """The next choices uint8[count] and their labels uint64[count, 2]; raises InputError for too many."""
        labels = self._ready.take(count)
        return self._choices.take(count), labels


def _expand(streams: list[Any], words: int) -> Blocks:
    """The next `words` words of each column's key stream, uint64[128, words + padding]."""
    columns = np.empty((COLUMNS, words + _PADDING_WORDS), np.uint64)
    zeros = bytes(8 * words)
    for stream, column in zip(streams, columns, strict=True):
        stream.update_into(zeros, column.view(np.uint8).data)
    return columns


def _rows(columns: Blocks, count: int) -> Blocks:
    rows = np.empty((count, 2), np.uint64)
    rows_of(columns, rows)
    return rows
