"""Oblivious transfer as two-party programs: the base transfers, and extensions that keep a stock filled."""

import numpy as np
from numpy.typing import NDArray

from capcsim.crypto.base_ot import BaseOtReceiver, BaseOtSender
from capcsim.crypto.correlated_ot import CotReceiver, CotSender
from capcsim.twoparty.programs import Recv, Send, Steps

MOST_BLOCK = 1 << 17


def base_ot_sender(count: int) -> Steps:
    """Sends `count` transfers; returns the pairs of keys, each 16 bytes."""
    sender = BaseOtSender()
    yield Send(sender.message)
    return sender.pairs((yield Recv()), count)


def base_ot_receiver(choices: NDArray[np.uint8]) -> Steps:
    """Receives one transfer for each choice bit; returns the chosen keys."""
    receiver = BaseOtReceiver((yield Recv()), choices)
    yield Send(receiver.message)
    return receiver.keys()


def refill_sender(sender: CotSender, needed: int) -> Steps:
    """The sender's role in making sure that `needed` transfers are available.

    Called with more than the next circuit needs, it makes transfers ahead.
    """
    for count in _blocks(needed - sender.available):
        sender.absorb((yield Recv()), count)


def refill_receiver(receiver: CotReceiver, needed: int) -> Steps:
    """The receiver's role; both sides count alike."""
    for count in _blocks(needed - receiver.available):
        yield Send(receiver.extend(count))


def _blocks(missing: int) -> list[int]:
    """Sizes of the extensions that cover what is missing, each a multiple of 64."""
    sizes = []
    while missing > 0:
        sizes.append(min(MOST_BLOCK, -(-missing // 64) * 64))
        missing -= sizes[-1]
    return sizes
