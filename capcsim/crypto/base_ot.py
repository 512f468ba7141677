"""Base oblivious transfer on ed25519: one of two keys, without the sender learning which.

Chou and Orlandi, ePrint 2015/267, for semi-honest parties. Points come from PyNaCl; each one that is received
must be a valid point of the large subgroup. Keys are hashed from the transfer's number and everything sent.
`capcsim.twoparty.oblivious_transfer` carries the two messages.
"""

from hashlib import blake2b

import numpy as np
from nacl import bindings as nacl
from numpy.typing import NDArray

from capcsim.crypto.randomness import random_bytes
from capcsim.errors import PeerFailed

POINT_BYTES = nacl.crypto_core_ed25519_BYTES
KEY_BYTES = 16


class BaseOtSender:
    """The side that gets both keys of each transfer. `message` is for the receiver."""

    def __init__(self) -> None:
        self._secret = _scalar()
        self.message: bytes = nacl.crypto_scalarmult_ed25519_base_noclamp(self._secret)

    def pairs(self, answers: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """Both keys of `count` transfers, each 16 bytes, from what the receiver sent; raises PeerFailed."""
        if len(answers) != count * POINT_BYTES:
            raise PeerFailed(f"base OT: {len(answers)} bytes came instead of {count} points")
        own_square = nacl.crypto_scalarmult_ed25519_noclamp(self._secret, self.message)
        pairs: list[tuple[bytes, bytes]] = []
        for number in range(count):
            answer = _valid(answers[number * POINT_BYTES : (number + 1) * POINT_BYTES])
            shared = nacl.crypto_scalarmult_ed25519_noclamp(self._secret, answer)
            other = nacl.crypto_core_ed25519_sub(shared, own_square)
            pairs.append((_key(number, self.message, answer, shared), _key(number, self.message, answer, other)))
        return pairs


class BaseOtReceiver:
    """The side that gets one key for each choice bit uint8[count]. `message` is for the sender.

    Raises PeerFailed where `point`, what the sender sent, is none.
    """

    def __init__(self, point: bytes, choices: NDArray[np.uint8]) -> None:
        self._point = _valid(point)
        self._secrets = [_scalar() for _ in choices]
        self._answers = []
        for secret, choice in zip(self._secrets, choices, strict=True):
            own = nacl.crypto_scalarmult_ed25519_base_noclamp(secret)
            # Both are computed, so that the time does not tell the choice.
            moved = nacl.crypto_core_ed25519_add(own, self._point)
            self._answers.append((own, moved)[int(choice)])
        self.message = b"".join(self._answers)

    def keys(self) -> list[bytes]:
        """The chosen keys, each 16 bytes."""
        return [
            _key(number, self._point, answer, nacl.crypto_scalarmult_ed25519_noclamp(secret, self._point))
            for number, (secret, answer) in enumerate(zip(self._secrets, self._answers, strict=True))
        ]


def _scalar() -> bytes:
    return nacl.crypto_core_ed25519_scalar_reduce(random_bytes(nacl.crypto_core_ed25519_NONREDUCEDSCALARBYTES))


def _valid(point: bytes) -> bytes:
    if len(point) != POINT_BYTES or not nacl.crypto_core_ed25519_is_valid_point(point):
        raise PeerFailed("base OT: what came is no point of the curve's large subgroup")
    return point


def _key(number: int, point: bytes, answer: bytes, shared: bytes) -> bytes:
    return blake2b(number.to_bytes(8, "big") + point + answer + shared, digest_size=KEY_BYTES).digest()
