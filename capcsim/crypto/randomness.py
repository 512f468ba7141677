"""Secret randomness: AES-CTR under a key from the operating system, new in every thread and after every fork."""

import os
import secrets
import threading

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

_local = threading.local()


def random_bytes(count: int) -> bytes:
    """`count` bytes that nobody can predict or reproduce."""
    stream: CipherContext | None = getattr(_local, "stream", None)
    if stream is None:
        stream = _local.stream = keystream(secrets.token_bytes(16))
    return stream.update(bytes(count))


def keystream(key: bytes) -> CipherContext:
    """The AES-CTR key stream of a 16-byte key, from its beginning: `update` of zeros gives the next bytes."""
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


def _forget() -> None:
    _local.__dict__.clear()


os.register_at_fork(after_in_child=_forget)
