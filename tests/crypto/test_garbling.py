"""All interpreters agree; both paths make the same tables; keys, labels and gate numbers do not repeat."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.crypto import aes, library, portable
from capcsim.crypto.circuits import Builder, Circuit
from capcsim.crypto.garbling import (
    LANES_PER_KEY,
    MOST_TABLE_BYTES,
    GateKeys,
    Hash,
    encode,
    evaluate,
    garble,
    lanes_per_key,
    random_delta,
    random_labels,
    select_bits,
)
from capcsim.crypto.interpreters import run_plain
from capcsim.errors import InputError

CIRCUITS = [
    library.argmax_circuit(3, 8),
    library.relu_circuit(1, 37, 12, 16),
    library.release_with_threshold_circuit(4, 16),
]
needs_aes = pytest.mark.skipif(not aes.blocks_per_vector(), reason="this processor has no AES instructions")


def random_circuit(data: st.DataObject) -> Circuit:
    build = Builder("random")
    wires = build.garbler_input(3) + build.evaluator_input(3)
    for _ in range(data.draw(st.integers(1, 40))):
        a, b = (wires[data.draw(st.integers(0, len(wires) - 1))] for _ in range(2))
        kind = data.draw(st.sampled_from(["xor", "and", "inv", "or"]))
        gate = {"xor": build.xor, "and": build.and_, "or": build.or_}.get(kind)
        wires.append(gate(a, b) if gate else build.inv(a))
    return build.compile(wires[-4:])


def garbled(circuit: Circuit, bits: np.ndarray) -> tuple[Any, ...]:
    """Garble and evaluate on these input bits uint8[inputs, N]."""
    keys, delta = GateKeys.fresh().take(circuit.ands), random_delta()
    zeros = random_labels(circuit.inputs, bits.shape[1])
    tables, outputs = garble(circuit, zeros, delta, keys)
    active = evaluate(circuit, encode(zeros, delta, bits), tables, keys)
    return keys, delta, zeros, tables, outputs, active


@settings(deadline=None, max_examples=50)
@given(st.data(), st.sampled_from([1, 2, 9, 64, 70]))
def test_garbled_circuits_compute_what_plain_ones_do(data: st.DataObject, instances: int) -> None:
    circuit = random_circuit(data)
    bits = np.random.default_rng(data.draw(st.integers(0, 1 << 30))).integers(0, 2, (6, instances)).astype(np.uint8)
    _, _, _, _, outputs, active = garbled(circuit, bits)
    assert np.array_equal(select_bits(outputs) ^ select_bits(active), run_plain(circuit, bits[:3], bits[3:]))


@pytest.mark.parametrize("circuit", CIRCUITS, ids=lambda circuit: circuit.name)
@pytest.mark.parametrize("instances", [1, 7, 64, 200])
def test_active_labels_are_one_of_the_two(circuit: Circuit, instances: int) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (circuit.inputs, instances)).astype(np.uint8)
    _, delta, _, _, outputs, active = garbled(circuit, bits)
    expected = run_plain(circuit, bits[: circuit.garbler_inputs], bits[circuit.garbler_inputs :])
    assert np.array_equal(active, encode(outputs, delta, expected))


@needs_aes
@pytest.mark.parametrize("circuit", CIRCUITS, ids=lambda circuit: circuit.name)
@pytest.mark.parametrize("instances", [1, 5, 64, 133])
def test_the_portable_path_makes_the_same_tables(circuit: Circuit, instances: int) -> None:
    bits = np.random.default_rng(1).integers(0, 2, (circuit.inputs, instances)).astype(np.uint8)
    keys, delta, zeros, tables, outputs, active = garbled(circuit, bits)
    other_tables, other_outputs = np.empty_like(tables), np.empty_like(outputs)
    portable.garble(circuit, zeros, delta, keys.keys(), other_tables, other_outputs)
    assert np.array_equal(tables, other_tables)
    assert np.array_equal(outputs, other_outputs)
    other_active = np.empty_like(active)
    portable.evaluate(circuit, encode(zeros, delta, bits), keys.keys(), tables, other_active)
    assert np.array_equal(active, other_active)


def test_without_aes_instructions_the_portable_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aes, "blocks_per_vector", lambda: 0)
    circuit = CIRCUITS[0]
    bits = np.random.default_rng(2).integers(0, 2, (circuit.inputs, 3)).astype(np.uint8)
    _, _, _, _, outputs, active = garbled(circuit, bits)
    expected = run_plain(circuit, bits[: circuit.garbler_inputs], bits[circuit.garbler_inputs :])
    assert np.array_equal(select_bits(outputs) ^ select_bits(active), expected)


def test_a_label_in_two_lanes_does_not_give_delta_away() -> None:
    """The trap: same key, same labels. Without the lane's tweak both lanes would have the same tables."""
    build = Builder("and")
    circuit = build.compile([build.and_(build.garbler_input(1)[0], build.evaluator_input(1)[0])])
    delta, labels = random_delta(), random_labels(2, 1)
    tables, _ = garble(circuit, np.repeat(labels, 2, axis=1), delta, GateKeys.fresh().take(1))
    assert not np.array_equal(tables[:, :, 0], tables[:, :, 1])


def test_gate_numbers_and_keys_never_repeat_in_a_session() -> None:
    keys = GateKeys.fresh()
    taken = np.concatenate([keys.take(number).keys().reshape(-1, 2) for number in (5, 1, 7, 100)])
    assert len(np.unique(taken, axis=0)) == len(taken) == 2 * 113
    assert GateKeys.from_bytes(keys.to_bytes()).start == keys.start
    assert GateKeys.fresh().start != GateKeys.fresh().start


def test_delta_is_fresh_and_odd() -> None:
    deltas = [random_delta() for _ in range(20)]
    assert all(int(delta[0]) & 1 for delta in deltas)
    assert len({delta.tobytes() for delta in deltas}) == 20


def test_lanes_share_keys_within_limits_and_never_in_mitccrh() -> None:
    small, large = library.relu_circuit(1, 37, 12, 16), library.argmax_circuit(10, 41)
    assert lanes_per_key(small, Hash.LANES) == LANES_PER_KEY
    assert 32 * large.ands * lanes_per_key(large, Hash.LANES) <= MOST_TABLE_BYTES
    assert lanes_per_key(small, Hash.MITCCRH) == 1


def test_what_does_not_fit_is_refused() -> None:
    circuit = CIRCUITS[0]
    labels, keys = random_labels(circuit.inputs, 2), GateKeys.fresh()
    with pytest.raises(InputError, match=r"labels and .* keys"):
        garble(circuit, labels[:-1], random_delta(), keys.take(circuit.ands))
    with pytest.raises(InputError, match="do not fit 2 instances"):
        evaluate(circuit, labels, np.zeros((circuit.ands, 2, 3, 2), np.uint64), keys.take(circuit.ands))
