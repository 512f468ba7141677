"""numpy arrays in and out of SEAL's plaintexts and ciphertexts, for which its Python binding has no way of its own.

The fast way copies through the C++ object behind the Python object, at offsets that belong to one build of the
binding. It proves itself at import, without touching memory that may not be mapped; where the proof fails, the
public interface does the same work, some milliseconds an object. Both give the same results.
"""

import ctypes
import os
import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_POINTER = 16
"""Where pybind11 keeps the address of the C++ object: behind CPython's object header."""
_PLAINTEXT_SIZE, _PLAINTEXT_DATA = 9, 10
_CIPHERTEXT_SIZE, _CIPHERTEXT_DATA = 13, 14
"""Words of the C++ objects that hold the array's length and address."""


class Memory(Protocol):
    """Copies between numpy and SEAL. Words are residues or coefficients, uint64."""

    def read(self, holder: Any) -> Words:
        """All words of a Plaintext or Ciphertext, uint64[n]."""

    def write(self, context: Any, holder: Any, words: Words) -> None:
        """Replace all words of a Plaintext or Ciphertext of the same size."""


class Views:
    """Through the address of the C++ object."""

    def read(self, holder: Any) -> Words:
        """A copy, so that no array outlives what it was read from."""
        return self._view(holder).copy()

    def write(self, context: Any, holder: Any, words: Words) -> None:  # noqa: ARG002 (the public way needs it)
        """One copy."""
        self._view(holder)[:] = words

    def _view(self, holder: Any) -> Words:
        size, data = _places(holder)
        base = ctypes.c_uint64.from_address(id(holder) + _POINTER).value
        count = ctypes.c_uint64.from_address(base + 8 * size).value
        address = ctypes.c_uint64.from_address(base + 8 * data).value
        return np.ctypeslib.as_array((ctypes.c_uint64 * count).from_address(address))


class PublicInterface:
    """Through indexing, and SEAL's file format without compression."""

    def read(self, holder: Any) -> Words:
        """Word by word."""
        return np.fromiter((holder[i] for i in range(holder.dyn_array().size())), np.uint64)

    def write(self, context: Any, holder: Any, words: Words) -> None:
        """As a file that SEAL loads."""
        load(
            context,
            holder,
            _with_header(_fields(holder) + _with_header(struct.pack("<Q", len(words)) + words.tobytes())),
        )


def save(holder: Any) -> bytes:
    """What SEAL saves of an object."""
    with _file() as (path, descriptor):
        holder.save(path)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def load(context: Any, holder: Any, payload: bytes) -> None:
    """Load an object from bytes; raises RuntimeError, ValueError or IndexError for what is none."""
    with _file() as (path, descriptor):
        os.pwrite(descriptor, payload, 0)
        holder.load(context, path)


@contextmanager
def _file() -> Iterator[tuple[str, int]]:
    """A file in memory where the system has such; the binding saves to and loads from a path only."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("seal")
        try:
            yield f"/proc/self/fd/{descriptor}", descriptor
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            yield file.name, file.fileno()


def _places(holder: Any) -> tuple[int, int]:
    if isinstance(holder, sealapi.Ciphertext):
        return _CIPHERTEXT_SIZE, _CIPHERTEXT_DATA
    return _PLAINTEXT_SIZE, _PLAINTEXT_DATA


def _fields(holder: Any) -> bytes:
    """What stands before the words in SEAL's file of a plaintext or ciphertext."""
    identity = struct.pack("<4Q", *holder.parms_id())
    if isinstance(holder, sealapi.Ciphertext):
        shape = (holder.size(), holder.poly_modulus_degree(), holder.coeff_modulus_size())
        # The correction factor is BGV's; BFV has 1.
        return identity + struct.pack("<B3QdQ", holder.is_ntt_form(), *shape, holder.scale, 1)
    return identity + struct.pack("<Qd", holder.coeff_count(), holder.scale)


def _with_header(body: bytes) -> bytes:
    """SEAL's header: magic, its own size, version, no compression, the whole size."""
    magic, size, major, minor = struct.unpack_from("<HBBB", save(sealapi.Plaintext("1")))
    return struct.pack("<HBBBBHQ", magic, size, major, minor, 0, 0, size + len(body)) + body


def _prove() -> None:
    """Write through the view and read through the public interface, and the other way; raises where they differ."""
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(1024)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(1024, [27]))
    parameters.set_plain_modulus(1 << 10)
    context = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC128)
    plain = sealapi.Plaintext("3x^5 + 7x^1 + 1")
    encryptor = sealapi.Encryptor(context, sealapi.KeyGenerator(context).secret_key())
    cipher = sealapi.Ciphertext()
    encryptor.encrypt_symmetric(plain, cipher)
    # Room for more than there is, so that a length is not taken for a capacity.
    cipher.reserve(context, 3)
    roomy = sealapi.Plaintext(64, 8)
    public, views = PublicInterface(), Views()
    for holder in (plain, roomy, cipher):
        expected = public.read(holder)
        _check_addresses(holder, expected)
        if not np.array_equal(views.read(holder), expected):
            raise RuntimeError("a view reads other words than the public interface")
        changed = expected[::-1].copy()
        views.write(context, holder, changed)
        if not np.array_equal(public.read(holder), changed):
            raise RuntimeError("the public interface reads other words than were written through a view")


def _check_addresses(holder: Any, expected: Words) -> None:
    """Follow the addresses in a copy of this process's memory, where a wrong one is an error and not a crash."""
    size, data = _places(holder)
    with open("/proc/self/mem", "rb", buffering=0) as memory:  # noqa: PTH123 (unbuffered)

        def word(address: int) -> int:
            value: int = struct.unpack("<Q", os.pread(memory.fileno(), 8, address))[0]
            return value

        base = word(id(holder) + _POINTER)
        if word(base + 8 * size) != len(expected):
            raise RuntimeError("the array's length is not where it was")
        words = os.pread(memory.fileno(), 8 * len(expected), word(base + 8 * data))
        if words != expected.tobytes():
            raise RuntimeError("the array's words are not where they were")


def choose() -> Memory:
    """Views where they prove themselves, else the public interface, with a warning."""
    try:
        _prove()
    except Exception as error:  # whatever another build of the binding does
        why = f"SEAL's memory cannot be read directly ({error}): hybrid runs through its public interface, slower"
        warnings.warn(why, RuntimeWarning, stacklevel=2)
        return PublicInterface()
    return Views()


memory: Memory = choose()
