import warnings
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as sealapi
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim_hybrid import seal_memory
from capcsim_hybrid.parameters import Parameters, context
from capcsim_hybrid.seal_memory import PublicInterface, Views, choose, load, save

SMALL = context(Parameters(8192, (60, 60, 20), 37))
WAYS = (Views(), PublicInterface())


def ciphertext() -> Any:
    key = sealapi.KeyGenerator(SMALL.seal).secret_key()
    cipher = sealapi.Ciphertext()
    sealapi.Encryptor(SMALL.seal, key).encrypt_symmetric(sealapi.Plaintext("5x^3 + 2"), cipher)
    return cipher


def test_the_view_proves_itself_here() -> None:
    assert isinstance(seal_memory.memory, Views)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 30), st.booleans())
def test_both_ways_read_and_write_the_same_words(seed: int, transformed: bool) -> None:
    cipher = ciphertext()
    if transformed:
        SMALL.evaluator.transform_to_ntt_inplace(cipher)
    words = np.random.default_rng(seed).integers(0, SMALL.primes[:, 0].min(), 4 * 8192, np.uint64)
    plain, coefficients = sealapi.Plaintext(64), words[:64] % np.uint64(1 << 37)
    for writer in WAYS:
        writer.write(SMALL.seal, cipher, words)
        writer.write(SMALL.seal, plain, coefficients)
        for reader in WAYS:
            assert np.array_equal(reader.read(cipher), words)
            assert np.array_equal(reader.read(plain), coefficients)
        assert cipher.is_ntt_form() == transformed


def test_what_is_saved_is_loaded_again() -> None:
    cipher, again = ciphertext(), sealapi.Ciphertext()
    load(SMALL.seal, again, save(cipher))
    assert np.array_equal(Views().read(again), Views().read(cipher))


@pytest.mark.parametrize("payload", [b"", b"no ciphertext", bytes(4096)])
def test_bytes_that_are_no_object_are_refused(payload: bytes) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        load(SMALL.seal, sealapi.Ciphertext(), payload)


@pytest.mark.parametrize("place", ["_PLAINTEXT_SIZE", "_PLAINTEXT_DATA", "_CIPHERTEXT_SIZE", "_CIPHERTEXT_DATA"])
@pytest.mark.parametrize("moved", [-3, -1, 1, 4])
def test_another_memory_layout_falls_back_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, place: str, moved: int
) -> None:
    """A build whose fields lie elsewhere: no crash, no wrong word, the public interface instead."""
    monkeypatch.setattr(seal_memory, place, getattr(seal_memory, place) + moved)
    with pytest.warns(RuntimeWarning, match="public interface, slower"):
        chosen = choose()
    assert isinstance(chosen, PublicInterface)


def test_no_warning_where_the_proof_holds() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(choose(), Views)
