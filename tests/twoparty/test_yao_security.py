"""What each side of Yao's protocol sees, and can use twice: security, as far as tests reach.

They look at each party's view: what it receives is of the same length and as uniform as what a simulator makes
that knows that party's inputs and outputs only (paper, appendix E); no material repeats or survives an abort.
They cannot show that AES is a good hash, nor that there is no other way in: that is the papers' proofs' part.
"""

from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from capcsim.backend import VOTE_RING_BITS, Phase, ReleaseNoise, Role, Shares, Step
from capcsim.crypto import portable
from capcsim.crypto.circuits import Builder, Circuit
from capcsim.crypto.garbling import (
    GateKeys,
    evaluate,
    garble,
    random_delta,
    random_labels,
    select_bits,
)
from capcsim.crypto.randomness import keystream
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import PeerFailed
from capcsim.twoparty.programs import Mark, Recv, Send, Steps, run_local
from capcsim.twoparty.voting import TappedVoting, Voting, argmax_programs, one_hot_argmax
from capcsim.twoparty.yao import (
    run_evaluator,
    run_garbler,
)
from tests.twoparty.test_yao import ARGMAX, ROLES, Messages, blocks, inputs, run, sessions, uniform_p


def decrypt(key: np.ndarray, block: np.ndarray) -> np.ndarray:
    """AES inverted: the evaluator knows every gate's keys."""
    cipher = Cipher(algorithms.AES(key.tobytes()), modes.ECB()).decryptor()
    return np.frombuffer(cipher.update(block.tobytes()), np.uint64)


def hashed(key: np.ndarray, block: np.ndarray) -> np.ndarray:
    cipher = Cipher(algorithms.AES(key.tobytes()), modes.ECB()).encryptor()
    return np.frombuffer(cipher.update(block.tobytes()), np.uint64) ^ block


def identity(block: np.ndarray) -> np.ndarray:
    return block


def sigma(block: np.ndarray) -> np.ndarray:
    return np.array([block[1], block[0] ^ block[1]], np.uint64)


def sigma_inverse(block: np.ndarray) -> np.ndarray:
    return np.array([block[0] ^ block[1], block[0]], np.uint64)


def deltas_found(garble_gate: Any, moved: Any, back: Any, trials: int) -> int:
    """How often a single AND gives Delta away to an evaluator that inverts AES under the public key.

    The hash of label x is E(k, moved(x)) ^ moved(x). If what is fed forward and the Delta that half gates add
    were the same, they would cancel, and E could be inverted.
    """
    found = 0
    for _ in range(trials):
        delta, keys, labels = random_delta(), GateKeys.fresh().take(1), random_labels(2, 1)
        tables = garble_gate(labels, delta, keys)
        key, left = keys.keys()[0, 0].view(np.uint64), labels[0, 0]
        rest = tables[0, 0, 0] ^ hashed(key, moved(left)) ^ moved(left)
        found += np.array_equal(back(decrypt(key, rest) ^ moved(left)), delta)
    return found


def one_and() -> Circuit:
    build = Builder("and")
    return build.compile([build.and_(build.garbler_input(1)[0], build.evaluator_input(1)[0])])


AND = one_and()


def by_aes(labels: Any, delta: Any, keys: Any) -> Any:
    return garble(AND, labels, delta, keys)[0]


def by_portable(labels: Any, delta: Any, keys: Any) -> Any:
    tables, outputs = np.empty((1, 2, 1, 2), np.uint64), np.empty((1, 1, 2), np.uint64)
    portable.garble(AND, labels, delta, keys.keys(), tables, outputs)
    return tables


def without_sigma(labels: Any, delta: Any, keys: Any) -> Any:
    """The mistake: E(k, x) ^ x, which is not circular correlation robust."""
    key = keys.keys()[0, 0].view(np.uint64)
    left, right = labels[:, 0]
    table = hashed(key, left) ^ hashed(key, left ^ delta) ^ (delta if right[0] & np.uint64(1) else np.uint64(0))
    return table.reshape(1, 1, 1, 2)


def test_delta_cannot_be_computed_by_inverting_aes() -> None:
    """The attack works on the hash without its orthomorphism, about every other time, and never on ours."""
    assert deltas_found(without_sigma, identity, identity, 60) > 10
    for garble_gate in (by_aes, by_portable):
        for moved, back in ((identity, identity), (sigma, sigma_inverse)):
            assert deltas_found(garble_gate, moved, back, 60) == 0


def test_no_two_received_blocks_are_labels_of_one_wire() -> None:
    pair, bits = sessions(), inputs(ARGMAX, 0, 5)
    _, messages = run(pair, ARGMAX, *bits)
    received = blocks(messages, Role.QUERIER)
    delta = pair[0].delta
    shifted = {(np.frombuffer(block, np.uint64) ^ delta).tobytes() for block in received}
    assert not received & shifted
    assert delta.tobytes() not in received


def test_no_label_gate_or_transfer_repeats_within_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, bits = sessions(), inputs(ARGMAX, 0, 2)
    seen: set[bytes] = set()
    gates, handed_out = [], []
    take = pair[0].transfers.take

    def recorded(count: int) -> Any:
        handed_out.append(take(count))
        return handed_out[-1]

    monkeypatch.setattr(pair[0].transfers, "take", recorded)
    for _ in range(4):
        _, messages = run(pair, ARGMAX, *bits)
        here = blocks(messages, Role.QUERIER)
        assert not here & seen
        seen |= here
        gates.append(pair[0].keys.next_gate)
        assert pair[1].keys.next_gate == gates[-1]
    assert np.diff([0, *gates]).tolist() == [ARGMAX.ands] * 4
    labels = np.concatenate(handed_out)
    assert len(np.unique(labels, axis=0)) == len(labels) == 4 * 2 * ARGMAX.evaluator_inputs


@pytest.mark.parametrize("after", range(1, 7))
def test_an_aborted_session_is_dead(after: int) -> None:
    """Stop after so many messages: neither side goes on with what may have been seen already."""
    pair, (early, late, own) = sessions(), inputs(ARGMAX, 0, 2)
    sent = 0

    class Cut(Exception):
        pass

    def tap(*_: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == after:
            raise Cut

    programs = (run_garbler(pair[0], ARGMAX, early, late), run_evaluator(pair[1], ARGMAX, len(late), own))
    with pytest.raises(Cut):
        run_local(ROLES, programs, step=Step.ARGMAX, tap=tap)
    for again in (run_garbler(pair[0], ARGMAX, early, late), run_evaluator(pair[1], ARGMAX, len(late), own)):
        with pytest.raises(PeerFailed, match="aborted in the middle of a circuit"):
            next(again)


def simulated_garbler(circuit: Circuit, late: int, output: Any, keys: Any) -> Steps:
    """Appendix E's simulator for a corrupted evaluator: it knows the output, and no input of the garbler's."""
    instances = output.shape[1]
    generator = np.random.default_rng(99)
    yield Recv()  # the extension's message
    tables = generator.bytes(32 * circuit.ands * instances)
    yield Send(tables)
    seed = generator.bytes(16)
    labels = np.frombuffer(generator.bytes(16 * circuit.inputs * instances), np.uint64).reshape(-1, instances, 2).copy()
    early = circuit.garbler_inputs - late
    labels[late : circuit.garbler_inputs] = np.frombuffer(
        keystream(seed).update(bytes(16 * early * instances)), np.uint64
    ).reshape(early, instances, 2)
    shaped = np.frombuffer(tables, np.uint64).reshape(circuit.ands, 2, instances, 2)
    active = evaluate(circuit, labels, shaped, keys)
    yield Send(seed)
    yield Mark(Phase.ONLINE)
    yield Recv()  # the corrections
    yield Send(np.packbits(select_bits(active) ^ output).tobytes())
    yield Send(np.concatenate([labels[:late], labels[circuit.garbler_inputs :]]).tobytes())


def test_a_corrupted_evaluators_view_can_be_simulated() -> None:
    """The answering party in step 1c, the querying party in step 3."""
    instances = 40
    pair, (early, late, own) = sessions(), inputs(ARGMAX, 128, instances)
    real_output, real = run(pair, ARGMAX, early, late, own)
    other = sessions()[1]
    keys = type(other.keys)(other.keys.start).take(ARGMAX.ands)

    fake: Messages = []
    # The evaluator blinds its labels with transfers of its own; the simulator knows them, it plays the sender.
    with pytest.MonkeyPatch.context() as patch:
        take = other.transfers.take
        patch.setattr(other.transfers, "take", lambda count: (take(count)[0], np.zeros((count, 2), np.uint64)))
        programs = (
            simulated_garbler(ARGMAX, len(late), real_output, keys),
            run_evaluator(other, ARGMAX, len(late), own),
        )
        (_, output), _ = run_local(
            ROLES, programs, step=Step.ARGMAX, tap=lambda sender, _, payload: fake.append((sender, payload))
        )
    assert np.array_equal(output, real_output)
    assert [(who, len(payload)) for who, payload in fake] == [(who, len(payload)) for who, payload in real]
    for view in (real, fake):
        for who, payload in view:
            if who is Role.QUERIER and len(payload) > 1 << 12:
                assert uniform_p(payload) > 1e-6


def test_a_corrupted_garblers_view_is_uniform_and_of_fixed_length() -> None:
    """The querying party in step 1c, the guardian in step 3: it receives masks and random choices only."""
    views = []
    for own_bit in (0, 1):
        pair = sessions()
        early, late, own = inputs(ARGMAX, 128, 200)
        own[:] = own_bit  # all zeros or all ones: any leak would show at once
        _, messages = run(pair, ARGMAX, early, late, own)
        views.append([payload for who, payload in messages if who is Role.ANSWERER])
    assert [len(payload) for payload in views[0]] == [len(payload) for payload in views[1]]
    for view in views:
        assert all(uniform_p(payload) > 1e-6 for payload in view)


def test_the_evaluators_view_does_not_tell_the_garblers_inputs_apart() -> None:
    views = []
    for bit in (0, 1):
        pair = sessions()
        early, late, own = inputs(ARGMAX, 128, 100)
        early[:], late[:] = bit, bit
        _, messages = run(pair, ARGMAX, early, late, own)
        views.append([payload for who, payload in messages if who is Role.QUERIER])
    assert [len(payload) for payload in views[0]] == [len(payload) for payload in views[1]]
    for ours, theirs in zip(*views, strict=True):
        if len(ours) > 1 << 12:
            assert uniform_p(ours) > 1e-6
            assert uniform_p(theirs) > 1e-6
    # Lowest bits of the online labels: a garbler that forgot to permute would show its inputs here.
    lowest = [np.frombuffer(view[-1], np.uint64).reshape(-1, 2)[:, 0] & np.uint64(1) for view in views]
    assert all(abs(bits.mean() - 0.5) < 0.02 for bits in lowest)


def test_vote_shares_are_fresh_masks_for_each_class_and_query() -> None:
    voting = Voting()
    pair, _ = voting.open_voting(Role.ANSWERER)
    logits = np.tile([5, 9, -3, 9], (2000, 1))
    session = type("Pair", (), {"voting": pair})
    votes, _ = voting.argmax(session, Shares(share(logits, 37), 37, 24))
    assert np.array_equal(reconstruct(votes.values, VOTE_RING_BITS), one_hot_argmax(logits))
    for side in votes.values:
        assert len(np.unique(side)) > 0.999 * side.size
        assert uniform_p(side.astype(np.uint32).tobytes()) > 1e-6


def test_the_guardian_sends_the_same_lengths_whether_or_not_a_query_is_answered() -> None:
    """It learns neither the label nor `answered`: nothing comes back to it but masked choices."""
    counts = np.tile([30, 2, 1, 0], (50, 1))
    shares = share(counts, VOTE_RING_BITS)
    lengths, views = [], []
    for threshold in (0, 1000):
        seen: Messages = []
        voting = TappedVoting()
        voting.tap = lambda sender, _, payload, seen=seen: seen.append((sender, payload))
        pair, _ = voting.open_voting(Role.GUARDIAN)
        seen.clear()
        noise = ReleaseNoise(np.zeros_like(counts), threshold, np.zeros(50, np.int64), 16)
        release, _ = voting.release(type("Pair", (), {"voting": pair}), shares[0], shares[1], noise)
        assert release.answered.all() == (threshold == 0)
        lengths.append([(who, len(payload)) for who, payload in seen])
        views += [payload for who, payload in seen if who is Role.QUERIER]
    assert lengths[0] == lengths[1]
    assert all(uniform_p(view) > 1e-6 for view in views)


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("change", [lambda p: p[:-1], lambda p: p + b"x", lambda p: b""])
def test_a_message_of_the_wrong_size_is_refused(position: int, change: Any) -> None:
    pair, (early, late, own) = sessions(), inputs(ARGMAX, 128, 3)
    sent = 0

    def tampered(program: Steps) -> Steps:
        nonlocal sent
        answer = None
        try:
            while True:
                request = program.send(answer)
                if isinstance(request, Send):
                    request = Send(change(request.payload)) if sent == position else request
                    sent += 1
                answer = yield request
        except StopIteration as end:
            return end.value

    programs = (
        tampered(run_garbler(pair[0], ARGMAX, early, late)),
        tampered(run_evaluator(pair[1], ARGMAX, len(late), own)),
    )
    with pytest.raises(PeerFailed, match="bytes came instead of"):
        run_local(ROLES, programs, step=Step.ARGMAX)


def test_a_forked_copy_of_a_session_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hand out the same transfers and gate numbers once more."""
    pair, (early, late, own) = sessions(), inputs(ARGMAX, 0, 1)
    monkeypatch.setattr("os.getpid", lambda: -1)
    for program in (run_garbler(pair[0], ARGMAX, early, late), run_evaluator(pair[1], ARGMAX, len(late), own)):
        with pytest.raises(PeerFailed, match="forked"):
            next(program)


def test_secrets_do_not_show_in_messages() -> None:
    pair = sessions()
    assert "delta" not in repr(pair[0])
    assert "transfers" not in repr(pair[1])


def test_both_roles_of_the_argmax_run_alone() -> None:
    """Each role needs only what is its own: no shared objects but the messages."""
    querier, answerer = argmax_programs()
    pair = sessions()
    logits = share(np.array([[1, 5, 2, 5]]), 37)
    programs = (querier(pair[0], logits[0], 37), answerer(pair[1], logits[1], 37))
    (ours, theirs), _ = run_local(ROLES, programs, step=Step.ARGMAX)
    assert reconstruct(np.stack([ours, theirs]), VOTE_RING_BITS).tolist() == [[0, 1, 0, 0]]
