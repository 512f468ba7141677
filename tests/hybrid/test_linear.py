"""Encrypted linear layers: exact, and what each side can and cannot learn from what it gets."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as sealapi
from scipy.stats import chisquare

from capcsim.backend import Role, Step
from capcsim.crypto.shares import ring_mask, uniform
from capcsim.errors import PeerFailed
from capcsim.fixed_point.layers import Conv2d, Linear, apply_weights
from capcsim.twoparty.programs import Steps, run_local
from capcsim_hybrid import linear
from capcsim_hybrid.linear import (
    EncodedWeights,
    PublicKey,
    SecretKeys,
    encode_weights,
    noises,
    receive,
    respond,
    upload,
)
from capcsim_hybrid.packing import Layout, arrange_weights, choose_layout, form_of
from capcsim_hybrid.parameters import MARGIN_BITS, choose, context, margin_bits
from capcsim_hybrid.seal_memory import PublicInterface, load, memory, save

ROLES = (Role.QUERIER, Role.ANSWERER)
DENSE = Linear((0,), (30,), 400)
CONV = Conv2d((0,), (6, 5, 5), 3, (3, 3), (2, 2), (1, 1))


@dataclass
class Pair:
    node: Any
    weight: Any
    layout: Layout
    keys: SecretKeys
    key: PublicKey
    encoded: EncodedWeights
    noises: list[tuple[int, float]]


def pair(node: Any, shape: tuple[int, ...], batch: int, degree: int = 8192, bits: int = 37, seed: int = 0) -> Pair:
    weight = np.rint(np.random.default_rng(seed).normal(0, 200, node.weight_shape))
    arranged = arrange_weights(node, weight).astype(np.int64)
    layout = choose_layout(form_of(node, shape), degree, batch, 1 << 30)
    found = list(noises(layout, arranged))
    chosen = context(choose(degree, bits, found))
    keys = SecretKeys(chosen)
    return Pair(
        node, weight, layout, keys, PublicKey(chosen, keys.public), encode_weights(chosen, layout, arranged), found
    )


def run(made: Pair, x: Any) -> tuple[Any, Any, list[tuple[Role, bytes]]]:
    messages: list[tuple[Role, bytes]] = []

    def querier() -> Steps:
        yield from upload(made.keys, made.node, made.layout, x)
        return (yield from receive(made.keys, made.node, made.layout, len(x)))

    programs = querier(), respond(made.key, made.node, made.encoded, len(x))
    (ours, theirs), _ = run_local(
        ROLES, programs, step=Step.INFER, tap=lambda sender, _, payload: messages.append((sender, payload))
    )
    return ours, theirs, messages


def product(made: Pair, x: Any, bits: int) -> Any:
    """W x mod 2^bits, in Python's integers where numpy's could not."""
    total = np.zeros((len(x), *made.node.shape), np.uint64)
    for shift in range(0, bits, 8):
        limb = ((x >> np.uint64(shift)) & np.uint64(255)).astype(np.float64)
        total += apply_weights(made.node, made.weight, limb).astype(np.int64).astype(np.uint64) << np.uint64(shift)
    return total & ring_mask(bits)


def uniform_p(words: Any, bits: int) -> float:
    """p-value of words below 2^bits being uniform, by their upper and lower bytes."""
    words = words.reshape(-1)
    parts = np.concatenate([words >> np.uint64(bits - 8), words & np.uint64(255)]).astype(np.int64)
    return float(chisquare(np.bincount(parts, minlength=256)).pvalue)


@pytest.mark.parametrize("degree", [8192, 16384, 32768])
@pytest.mark.parametrize(("node", "shape"), [(DENSE, (400,)), (CONV, (3, 10, 10))])
@pytest.mark.parametrize("bits", [24, 37, 41, 46])
def test_shares_add_up_to_the_product(node: Any, shape: tuple[int, ...], degree: int, bits: int) -> None:
    for batch in (1, 5) if degree == 8192 else (2,):
        made = pair(node, shape, batch, degree, bits)
        for x in (uniform((batch, *shape), bits), np.full((batch, *shape), ring_mask(bits))):
            ours, theirs, _ = run(made, x)
            assert np.array_equal((ours + theirs) & ring_mask(bits), product(made, x, bits))


def test_weights_that_are_all_zero_are_no_special_case() -> None:
    made = pair(DENSE, (400,), 1)
    made.weight[:] = 0
    made.encoded.transforms[:] = 0
    x = uniform((1, 400), 37)
    ours, theirs, messages = run(made, x)
    assert not ((ours + theirs) & ring_mask(37)).any()
    assert all(len(payload) > 8 * 8192 for who, payload in messages if who is Role.ANSWERER)


def test_the_fallback_gives_the_same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "memory", PublicInterface())
    made = pair(CONV, (3, 10, 10), 2)
    x = uniform((2, 3, 10, 10), 37)
    ours, theirs, _ = run(made, x)
    assert np.array_equal((ours + theirs) & ring_mask(37), product(made, x, 37))


# What the answering party gets.


def test_an_upload_has_no_secret_key_and_decrypts_to_the_masked_share() -> None:
    made = pair(DENSE, (400,), 8)
    share = uniform((8, 400), 37)
    _, _, messages = run(made, share)
    uploads = [payload for who, payload in messages if who is Role.QUERIER]
    generator = sealapi.KeyGenerator(made.keys.context.seal)
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        load(made.keys.context.seal, sealapi.SecretKey(), uploads[0])
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        load(made.keys.context.seal, sealapi.SecretKey(), made.keys.public)
    # Another key pair does not open it; its own does, and what is inside is the uniform share.
    cipher, other, own = sealapi.Ciphertext(), sealapi.Plaintext(), sealapi.Plaintext()
    load(made.keys.context.seal, cipher, uploads[0])
    sealapi.Decryptor(made.keys.context.seal, generator.secret_key()).decrypt(cipher, other)
    made.keys._decryptor.decrypt(cipher, own)
    inside = made.layout.encode_inputs(share[: made.layout.images, :, None, None], 0)
    opened = memory.read(own)
    assert np.array_equal(opened, inside[: len(opened)])
    assert not inside[len(opened) :].any()
    assert not np.array_equal(memory.read(other)[: len(opened)], opened)
    assert uniform_p(inside[inside > 0], 37) > 1e-6


def test_no_secret_key_word_is_in_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret polynomial in transformed form, as SEAL holds it: none of its words appears in any message."""
    made_generators = []
    create = sealapi.KeyGenerator

    def recorded(chosen: Any) -> Any:
        made_generators.append(create(chosen))
        return made_generators[-1]

    monkeypatch.setattr(sealapi, "KeyGenerator", recorded)
    made = pair(DENSE, (400,), 1)
    _, _, messages = run(made, uniform((1, 400), 37))
    key = made_generators[0].secret_key()
    # Only words of the large primes: a number of 20 bits is in any message by chance.
    secret = {word for word in memory.read(key.data()).tolist() if word >> 40}
    assert len(secret) > 8192
    for payload in [made.keys.public, *(payload for who, payload in messages if who is Role.QUERIER)]:
        for offset in range(8):
            whole = payload[offset : offset + (len(payload) - offset) // 8 * 8]
            assert not secret.intersection(np.frombuffer(whole, np.uint64).tolist())


def test_keys_do_not_leave_their_process() -> None:
    import pickle

    with pytest.raises(TypeError, match="secret keys do not leave their process"):
        pickle.dumps(pair(DENSE, (400,), 1).keys)


def test_uploads_of_the_same_share_are_unrelated() -> None:
    made = pair(DENSE, (400,), 1)
    share = uniform((1, 400), 37)
    first, second = ([payload for who, payload in run(made, share)[2]] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.mean(np.frombuffer(a[-4096:], np.uint8) == np.frombuffer(b[-4096:], np.uint8)) < 0.05


def send_all(program: Steps, payload: bytes, times: int) -> None:
    for _ in range(times):
        program.send(payload)


@pytest.mark.parametrize("payload", [b"", bytes(131281), b"x" * 500])
def test_an_upload_that_is_none_is_refused(payload: bytes) -> None:
    made = pair(DENSE, (400,), 1)
    program = respond(made.key, made.node, made.encoded, 1)
    next(program)
    with pytest.raises(PeerFailed, match="sent no ciphertext of BFV, N = 8192"):
        send_all(program, payload, made.layout.in_blocks)


def test_a_ciphertext_of_another_kind_is_refused() -> None:
    """A level below, or already transformed: nothing that an upload can be."""
    made = pair(DENSE, (400,), 1)
    chosen = made.keys.context
    low = sealapi.Ciphertext()
    load(chosen.seal, low, made.keys.encrypt(np.ones(8192, np.uint64)))
    transformed = sealapi.Ciphertext()
    load(chosen.seal, transformed, save(low))
    chosen.evaluator.transform_to_ntt_inplace(transformed)
    chosen.evaluator.mod_switch_to_inplace(low, chosen.reply_id)
    for bad in (low, transformed):
        program = respond(made.key, made.node, made.encoded, 1)
        next(program)
        with pytest.raises(PeerFailed, match="no upload of"):
            send_all(program, save(bad), made.layout.in_blocks)


# What the querying party gets.


def noise_bits(made: Pair, cipher: Any) -> float:
    """Log2 of the largest noise coefficient, by the secret key; SEAL gives it in whole bits, rounded up."""
    budget = made.keys._decryptor.invariant_noise_budget(cipher)
    return sum(made.keys.context.parameters.prime_bits[:-1]) - made.keys.context.parameters.plain_bits - 1 - budget


@pytest.mark.parametrize("seed", range(3))
def test_the_noise_of_a_reply_is_flooded(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Measured: the noise of computing stays below its bound, and the flood is 40 bits above all that is sent."""
    made = pair(DENSE, (400,), 1, seed=seed)
    before, after = [], []
    flood = linear.add_flood

    def watched(chosen: Any, residues: Any) -> None:
        for found, change in ((before, False), (after, True)):
            if change:
                flood(chosen, residues)
            cipher = sealapi.Ciphertext()
            cipher.resize(chosen.seal, chosen.data_id, 2)
            whole = residues.base.reshape(2, *residues.shape) if residues.base is not None else residues
            memory.write(chosen.seal, cipher, np.ascontiguousarray(whole).reshape(-1))
            found.append(noise_bits(made, cipher))

    monkeypatch.setattr(linear, "add_flood", watched)
    run(made, uniform((1, 400), 37))
    parameters = made.keys.context.parameters
    for (_, norm), computed, flooded in zip(made.noises, before, after, strict=True):
        assert computed <= np.log2(21.5 * norm + 2**13) + 1
        assert abs(flooded - parameters.flood_bits) <= 1
    sent = sum(count for count, _ in made.noises)
    measured = parameters.flood_bits + 1 - (max(before) + np.log2(sent))
    assert measured >= MARGIN_BITS
    assert margin_bits(parameters, made.noises) >= MARGIN_BITS
    assert measured >= margin_bits(parameters, made.noises) - 1


def signed_numbers(chosen: Any, residues: Any) -> list[int]:
    """Residues uint64[L, N] as numbers in [-q/2, q/2), by the Chinese remainder theorem."""
    primes = [int(prime) for prime in chosen.primes[:, 0]]
    q = int(np.prod([1, *primes], dtype=object))
    parts = [q // p * pow(q // p, -1, p) for p in primes]
    numbers = [sum(int(r) * part for r, part in zip(column, parts, strict=True)) % q for column in residues.T]
    return [number - q if number >= q // 2 else number for number in numbers]


@pytest.mark.parametrize("bits", [24, 41])
def test_every_coefficient_gets_a_flood_of_its_own(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    """Uniform on [-F, F), on all coefficients, new for each reply."""
    made = pair(DENSE, (400,), 1, bits=bits)
    flood, added = linear.add_flood, []

    def watched(chosen: Any, residues: Any) -> None:
        before = residues.copy()
        flood(chosen, residues)
        primes = chosen.primes[:, :1]
        added.append(signed_numbers(chosen, (residues + (primes - before)) % primes))

    monkeypatch.setattr(linear, "add_flood", watched)
    for _ in range(2):
        run(made, uniform((1, 400), bits))
    top = 1 << made.keys.context.parameters.flood_bits
    everything = [number for numbers in added for number in numbers]
    assert len(set(everything)) == len(everything) == 8192 * len(added)
    for numbers in added:
        assert all(-top <= number < top for number in numbers)
        for quarter in range(4):
            part = np.array(numbers[quarter * 2048 : (quarter + 1) * 2048], object)
            assert sum(abs(part) > top // 2) in range(850, 1200)  # half of them, give or take eight deviations
            assert sum(part > 0) in range(850, 1200)
    shifted = np.array([(number + top) >> (made.keys.context.parameters.flood_bits - 7) for number in everything])
    assert chisquare(np.bincount(shifted.astype(np.int64), minlength=256)).pvalue > 1e-6
    low = np.array([number & 255 for number in everything])
    assert chisquare(np.bincount(low, minlength=256)).pvalue > 1e-6


@pytest.mark.parametrize("degree", [8192, 16384, 32768])
@pytest.mark.parametrize("bits", [24, 37, 41, 46])
@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_a_flood_at_either_end_on_all_coefficients_still_decrypts(
    monkeypatch: pytest.MonkeyPatch, degree: int, bits: int, end: str
) -> None:
    made = pair(DENSE, (400,), 1, degree, bits)
    top = 1 << made.keys.context.parameters.flood_bits
    value = -top if end == "lowest" else top - 1

    def worst(chosen: Any, residues: Any) -> None:
        for row, prime in zip(residues, chosen.primes[:, 0], strict=True):
            row[:] = (row + np.uint64(value % int(prime))) % prime

    monkeypatch.setattr(linear, "add_flood", worst)
    x = uniform((1, 400), bits)
    ours, theirs, _ = run(made, x)
    assert np.array_equal((ours + theirs) & ring_mask(bits), product(made, x, bits))


def test_no_two_encryptions_of_zero_are_the_same() -> None:
    """One used twice would cancel in the difference of two replies, and leave the weights."""
    key = pair(DENSE, (400,), 1).key
    first, second, third = (memory.read(key.encrypt_zero()) for _ in range(3))
    for a, b in ((first, second), (second, third), (first, third)):
        assert (a == b).mean() < 1e-3


def test_replies_use_an_encryption_of_zero_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second polynomials of two replies differ by more than uploads and weights explain."""
    made = pair(DENSE, (400,), 1)
    chosen, zeros = made.keys.context, []
    encrypt = PublicKey.encrypt_zero

    def recorded(key: PublicKey) -> Any:
        cipher = encrypt(key)
        zeros.append(memory.read(cipher).reshape(2, -1)[1].tobytes())
        return cipher

    monkeypatch.setattr(PublicKey, "encrypt_zero", recorded)
    for _ in range(3):
        run(made, uniform((1, 400), 37))
    assert len(zeros) == 3 * made.layout.out_blocks
    assert len(set(zeros)) == len(zeros)
    assert chosen.parameters.degree == 8192


def guesses_right(made: Pair, guess: Any, messages: list[tuple[Role, bytes]]) -> bool:
    """The querying party's attack: multiply its own uploads with guessed weights and compare c1 with the reply's."""
    chosen = made.keys.context
    uploads = [payload for who, payload in messages if who is Role.QUERIER]
    reply = next(payload for who, payload in messages if who is Role.ANSWERER)
    encoded = encode_weights(chosen, made.layout, arrange_weights(made.node, guess).astype(np.int64))
    inputs, template = linear._transformed(chosen, uploads)
    total = np.empty(inputs.shape[1:], np.uint64)
    linear.multiply_accumulate(inputs, encoded.transforms[0], chosen.primes, 0, total)
    result = sealapi.Ciphertext()
    memory.write(chosen.seal, template, total.reshape(-1))
    chosen.evaluator.transform_from_ntt(template, result)
    chosen.evaluator.mod_switch_to_inplace(result, chosen.reply_id)
    second = memory.read(result).reshape(2, -1)[1]
    return np.array_equal(second, np.frombuffer(reply, np.uint64)[-len(second) :])


def test_a_guess_of_the_weights_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without re-randomisation it can, although noise is flooded and results are masked."""
    made = pair(DENSE, (400,), 1)
    wrong = made.weight.copy()
    wrong[0, 0] += 1
    _, _, messages = run(made, uniform((1, 400), 37))
    assert not guesses_right(made, made.weight, messages)

    def transparent(key: PublicKey) -> Any:
        cipher = sealapi.Ciphertext()
        cipher.resize(key.context.seal, key.context.data_id, 2)
        memory.write(key.context.seal, cipher, np.zeros(2 * len(key.context.primes) * 8192, np.uint64))
        return cipher

    monkeypatch.setattr(PublicKey, "encrypt_zero", transparent)
    _, _, messages = run(made, uniform((1, 400), 37))
    assert guesses_right(made, made.weight, messages)
    assert not guesses_right(made, wrong, messages)


def test_replies_are_masked_on_what_is_sent_and_the_second_polynomial_is_uniform() -> None:
    made = pair(DENSE, (400,), 1)
    results, seconds = [], []
    for _ in range(40):
        ours, _, messages = run(made, np.zeros((1, 400), np.uint64))
        results.append(ours)
        for who, payload in messages:
            if who is Role.ANSWERER:
                seconds.append(np.frombuffer(payload, np.uint64)[-8192:])
    assert uniform_p(np.concatenate(results), 37) > 1e-6
    assert uniform_p(np.concatenate(seconds), 60) > 1e-6


def test_a_reply_of_another_size_is_refused() -> None:
    made = pair(DENSE, (400,), 1)
    program = receive(made.keys, made.node, made.layout, 1)
    next(program)
    with pytest.raises(PeerFailed, match="a reply of 8 bytes, not"):
        program.send(bytes(8))


@pytest.mark.parametrize("payload", [b"", b"no key", bytes(100_000)])
def test_a_public_key_that_is_none_is_refused(payload: bytes) -> None:
    made = pair(DENSE, (400,), 1)
    with pytest.raises(PeerFailed, match="sent no public key for BFV, N = 8192"):
        PublicKey(made.keys.context, payload)
