"""Base oblivious transfer on ed25519: one of two keys, without the sender learning which.

Chou and Orlandi, ePrint 2015/267, for semi-honest parties. Points come from PyNaCl; each one that is received
must be a valid point of the large subgroup. Keys are hashed from the transfer's number and everything sent.
"""

from hashlib import blake2b

import numpy as np
from nacl import bindings as nacl
from numpy.typing import NDArray

from capcsim.crypto.programs import Recv, Send, Steps
from capcsim.crypto.randomness import random_bytes
from capcsim.errors import PeerFailed

POINT_BYTES = nacl.crypto_core_ed25519_BYTES
KEY_BYTES = 16


def base_ot_sender(count: int) -> Steps:
    """Sends `count` transfers; returns the pairs of keys, each 16 bytes."""
    secret = _scalar()
    point = nacl.crypto_scalarmult_ed25519_base_noclamp(secret)
    yield Send(point)
    answers = yield Recv()
    if len(answers) != count * POINT_BYTES:
        raise PeerFailed(f"base OT: {len(answers)} bytes came instead of {count} points")
    own_square = nacl.crypto_scalarmult_ed25519_noclamp(secret, point)
    pairs: list[tuple[bytes, bytes]] = []
    for number in range(count):
        answer = _valid(answers[number * POINT_BYTES : (number + 1) * POINT_BYTES])
        shared = nacl.crypto_scalarmult_ed25519_noclamp(secret, answer)
        other = nacl.crypto_core_ed25519_sub(shared, own_square)
        pairs.append((_key(number, point, answer, shared), _key(number, point, answer, other)))
    return pairs


def base_ot_receiver(choices: NDArray[np.uint8]) -> Steps:
    """Receives one transfer for each choice bit; returns the chosen keys."""
    point = _valid((yield Recv()))
    secrets = [_scalar() for _ in choices]
    answers = []
    for secret, choice in zip(secrets, choices, strict=True):
        own = nacl.crypto_scalarmult_ed25519_base_noclamp(secret)
        # Both are computed, so that the time does not tell the choice.
        moved = nacl.crypto_core_ed25519_add(own, point)
        answers.append((own, moved)[int(choice)])
    yield Send(b"".join(answers))
    return [
        _key(number, point, answer, nacl.crypto_scalarmult_ed25519_noclamp(secret, point))
        for number, (secret, answer) in enumerate(zip(secrets, answers, strict=True))
    ]


def _scalar() -> bytes:
    return nacl.crypto_core_ed25519_scalar_reduce(random_bytes(nacl.crypto_core_ed25519_NONREDUCEDSCALARBYTES))


def _valid(point: bytes) -> bytes:
    if len(point) != POINT_BYTES or not nacl.crypto_core_ed25519_is_valid_point(point):
        raise PeerFailed("base OT: what came is no point of the curve's large subgroup")
    return point


def _key(number: int, point: bytes, answer: bytes, shared: bytes) -> bytes:
    return blake2b(number.to_bytes(8, "big") + point + answer + shared, digest_size=KEY_BYTES).digest()
