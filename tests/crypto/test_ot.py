from typing import Any

import numpy as np
import pytest
from nacl import bindings as nacl

from capcsim.crypto.base_ot import BaseOtReceiver, BaseOtSender
from capcsim.crypto.correlated_ot import CotReceiver, CotSender
from capcsim.crypto.garbling import random_delta
from capcsim.crypto.transpose import rows_of
from capcsim.errors import InputError, PeerFailed


def small_order_point() -> bytes:
    """A point of order eight; valid on the curve, but outside the large subgroup."""
    return bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")


@pytest.mark.parametrize("bad", [b"\xff" * 32, b"\x00" * 32, small_order_point(), b"short"])
def test_invalid_points_are_refused(bad: bytes) -> None:
    with pytest.raises(PeerFailed, match="base OT"):
        BaseOtReceiver(bad, np.zeros(1, np.uint8))
    with pytest.raises(PeerFailed, match="base OT"):
        BaseOtSender().pairs(bad, 1)


def test_the_small_order_point_is_on_the_curve() -> None:
    # Else the test above would say nothing about subgroups. Eight times the point is the neutral element.
    point = small_order_point()
    for _ in range(3):
        point = nacl.crypto_core_ed25519_add(point, point)
    assert point == b"\x01" + bytes(31)


def pair(seed: int = 0) -> tuple[CotSender, CotReceiver, Any]:
    generator, delta = np.random.default_rng(seed), random_delta()
    keys = [(generator.bytes(16), generator.bytes(16)) for _ in range(128)]
    bits = np.unpackbits(delta.view(np.uint8), bitorder="little")
    return CotSender(delta, [key[bit] for key, bit in zip(keys, bits, strict=True)]), CotReceiver(keys), delta


def extend(sender: CotSender, receiver: CotReceiver, count: int) -> None:
    sender.absorb(receiver.extend(count), count)


def test_an_index_is_handed_out_once() -> None:
    sender, receiver, _ = pair()
    extend(sender, receiver, 1024)
    labels = np.concatenate([sender.take(300), sender.take(724)])
    receiver.take(1024)
    assert len(np.unique(labels, axis=0)) == 1024
    extend(sender, receiver, 512)
    assert len(np.unique(np.concatenate([labels, sender.take(500)]), axis=0)) == 1524


def test_more_than_there_are_cannot_be_taken() -> None:
    sender, receiver, _ = pair()
    extend(sender, receiver, 64)
    for side in (sender, receiver):
        with pytest.raises(InputError, match="65 transfers were asked for and 64 are made"):
            side.take(65)
        assert side.available == 64


def test_choices_are_balanced_and_the_message_looks_random() -> None:
    _, receiver, _ = pair()
    sent = np.unpackbits(np.frombuffer(receiver.extend(1 << 14), np.uint8))
    choices, _ = receiver.take(1 << 14)
    assert abs(choices.mean() - 0.5) < 0.025
    assert abs(sent.mean() - 0.5) < 0.003


def test_a_message_of_another_size_is_refused() -> None:
    sender, receiver, _ = pair()
    with pytest.raises(PeerFailed, match=r"OT extension: .* bytes came instead of"):
        sender.absorb(receiver.extend(64)[:-1], 64)


@pytest.mark.parametrize("rows", [64, 128, 640, 1024])
def test_transpose(rows: int) -> None:
    columns = np.random.default_rng(0).integers(0, 1 << 63, (128, rows // 64 + 3)).astype(np.uint64)
    found = np.empty((rows, 2), np.uint64)
    rows_of(columns, found)
    bits = np.unpackbits(columns[:, : rows // 64].copy().view(np.uint8), axis=1, bitorder="little")
    assert np.array_equal(np.unpackbits(found.view(np.uint8), axis=1, bitorder="little"), bits.T)
