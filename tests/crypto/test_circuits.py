"""Every circuit against integers, at widths from 1 to 64, with ties, extremes and wrap-around; and its size."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.crypto import library
from capcsim.crypto.arithmetic import add, any_of, largest, less, less_signed, subtract
from capcsim.crypto.circuits import ONE, ZERO, Builder, Circuit, Op
from capcsim.crypto.interpreters import count, from_bits, run_plain, to_bits
from capcsim.errors import InputError

widths = st.integers(1, 64)


def words(bits: int) -> st.SearchStrategy[int]:
    """Values of a width, extremes more often than chance would have them."""
    top = (1 << bits) - 1
    return st.one_of(st.integers(0, top), st.sampled_from([0, 1 % (top + 1), top, top >> 1, (top >> 1) + 1]))


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def run(circuit: Circuit, garbler: list[tuple[int, int]], evaluator: list[tuple[int, int]]) -> int:
    """Outputs as one number, from (value, width) of each input word."""

    def bits(values: list[tuple[int, int]]) -> np.ndarray:
        parts = [to_bits(np.array([value], np.uint64), width) for value, width in values]
        return np.concatenate(parts) if parts else np.zeros((0, 1), np.uint8)

    out = run_plain(circuit, bits(garbler), bits(evaluator))[:, 0]
    return int("".join(map(str, out[::-1])), 2) if len(out) else 0


def binary(operation: Any, bits: int) -> Circuit:
    build = Builder("test")
    a, b = build.garbler_input(bits), build.evaluator_input(bits)
    out = operation(build, a, b)
    return build.compile(out if isinstance(out, list) else [out])


@settings(deadline=None, max_examples=40)
@given(st.data(), widths)
def test_words_add_subtract_and_compare_like_integers(data: st.DataObject, bits: int) -> None:
    a, b = data.draw(words(bits)), data.draw(words(bits))
    for operation, expected in (
        (add, (a + b) % (1 << bits)),
        (subtract, (a - b) % (1 << bits)),
        (less, int(a < b)),
        (less_signed, int(signed(a, bits) < signed(b, bits))),
    ):
        assert run(binary(operation, bits), [(a, bits)], [(b, bits)]) == expected, operation


@settings(deadline=None, max_examples=40)
@given(st.data(), widths, st.integers(1, 6))
def test_the_largest_of_signed_words(data: st.DataObject, bits: int, number: int) -> None:
    values = data.draw(st.lists(words(bits), min_size=number, max_size=number))
    build = Builder("test")
    inputs = [build.garbler_input(bits) for _ in values]
    circuit = build.compile(largest(build, iter(inputs)))
    assert signed(run(circuit, [(v, bits) for v in values], []), bits) == max(signed(v, bits) for v in values)


@settings(deadline=None, max_examples=40)
@given(st.data(), widths, st.integers(2, 8))
def test_argmax_shares_open_to_the_first_largest(data: st.DataObject, bits: int, classes: int) -> None:
    values = data.draw(st.lists(words(bits), min_size=classes, max_size=classes))
    if data.draw(st.booleans()):
        values[-1] = values[0]  # a tie, more often than chance would have it
    masks = [data.draw(words(bits)) for _ in values]
    votes = [data.draw(words(32)) for _ in values]
    ours = [(mask, bits) for mask in masks]
    theirs = [((value - mask) % (1 << bits), bits) for value, mask in zip(values, masks, strict=True)]
    negated = [(-vote % (1 << 32), 32) for vote in votes]
    out = run(library.argmax_circuit(classes, bits), [*theirs, *negated], ours)
    opened = [((out >> 32 * i) + votes[i]) % (1 << 32) for i in range(classes)]
    numbers = [signed(value, bits) for value in values]
    assert opened == [int(i == numbers.index(max(numbers))) for i in range(classes)]


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(8, 32), st.integers(2, 6))
def test_release_with_and_without_threshold(data: st.DataObject, bits: int, classes: int) -> None:
    room = 1 << (bits - 2)
    counts = data.draw(st.lists(st.integers(0, room - 1), min_size=classes, max_size=classes))
    noise = data.draw(st.lists(st.integers(-room, room - 1), min_size=classes, max_size=classes))
    needed = data.draw(st.integers(-room, room - 1))
    shares = [data.draw(words(bits)) for _ in counts]
    evaluator = [(share, bits) for share in shares]
    plain = [((c - s) % (1 << bits), bits) for c, s in zip(counts, shares, strict=True)]
    noisy = [((c + n - s) % (1 << bits), bits) for c, n, s in zip(counts, noise, shares, strict=True)]
    totals = [c + n for c, n in zip(counts, noise, strict=True)]
    winner = 1 << totals.index(max(totals))
    assert run(library.release_circuit(classes, bits), noisy, evaluator) == winner
    threshold = (needed % (1 << bits), bits)
    found = run(library.release_with_threshold_circuit(classes, bits), [*noisy, *plain, threshold], evaluator)
    answered = max(counts) >= needed
    assert found == ((winner | 1 << classes) if answered else 0)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(20, 64))
def test_relu_step_truncation_and_pooling(data: st.DataObject, bits: int) -> None:
    fraction = data.draw(st.integers(0, 12))
    limit = data.draw(st.integers(1, bits - fraction - 1))
    values = [data.draw(words(bits)) for _ in range(4)]
    shares, mask = [data.draw(words(bits)) for _ in values], data.draw(words(bits))
    theirs = [((v - s) % (1 << bits), bits) for v, s in zip(values, shares, strict=True)]
    ours, negated = [(share, bits) for share in shares], (-mask % (1 << bits), bits)
    numbers = [signed(value, bits) for value in values]

    def relu(number: int) -> int:
        return min(max(number >> fraction, 0), (1 << limit) - 1)

    def opened(circuit: Circuit, inputs: int) -> int:
        return (run(circuit, [*theirs[:inputs], negated], ours[:inputs]) + mask) % (1 << bits)

    assert opened(library.relu_circuit(1, bits, fraction, limit), 1) == relu(numbers[0])
    assert opened(library.step_circuit(bits), 1) == int(numbers[0] >= 0)
    assert signed(opened(library.truncate_circuit(1, bits, fraction), 1), bits) == numbers[0] >> fraction
    assert opened(library.relu_circuit(4, bits, fraction, limit), 4) == relu(max(numbers))
    assert signed(opened(library.truncate_circuit(4, bits, fraction), 4), bits) == max(numbers) >> fraction


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 5), st.integers(8, 41))
def test_a_tree_reaches_the_leaf_that_its_inner_nodes_choose(data: st.DataObject, depth: int, bits: int) -> None:
    inner, leaves = (1 << depth) - 1, 1 << depth
    numbers = [data.draw(st.sampled_from([-(1 << bits - 1), -1, 0, 1, (1 << bits - 1) - 1])) for _ in range(inner)]
    shares, masks = ([data.draw(words(bits)) for _ in range(count)] for count in (inner, leaves))
    theirs = [((number - share) % (1 << bits), bits) for number, share in zip(numbers, shares, strict=True)]
    negated = [(-mask % (1 << bits), bits) for mask in masks]
    circuit = library.tree_paths_circuit(depth, bits)
    found = run(circuit, [*theirs, *negated], [(share, bits) for share in shares])
    place = 0
    while place < inner:
        place = 2 * place + (1 if numbers[place] >= 0 else 2)
    for leaf, mask in enumerate(masks):
        share = found >> (leaf * bits) & ((1 << bits) - 1)
        assert (share + mask) % (1 << bits) == int(leaf == place - inner)
    assert circuit.ands == inner * (bits - 1) + inner - 1 + leaves * (bits - 1)


@pytest.mark.parametrize(
    ("circuit", "ands"),
    [
        (library.argmax_circuit(10, 32), 1172),
        (library.argmax_circuit(10, 41), 1415),
        (library.release_circuit(10, 16), 430),
        (library.release_with_threshold_circuit(10, 16), 894),
        (library.relu_circuit(1, 37, 12, 16), 96),
        (library.relu_circuit(1, 41, 12, 16), 108),
        (library.step_circuit(37), 72),
    ],
    ids=lambda value: value.name if isinstance(value, Circuit) else str(value),
)
def test_circuits_are_no_larger_than_known(circuit: Circuit, ands: int) -> None:
    cost = count(circuit)
    assert cost.ands == circuit.ands <= ands
    assert cost.table_bytes == 32 * cost.ands
    assert 0 < cost.depth <= cost.ands


@pytest.mark.parametrize("bits", [1, 2, 17, 64])
def test_one_and_a_bit(bits: int) -> None:
    assert binary(add, bits).ands == bits - 1
    assert binary(less, bits).ands == bits
    assert binary(less_signed, bits).ands == bits


def test_constants_cost_nothing_and_dead_gates_are_dropped() -> None:
    build = Builder("test")
    a, b = build.garbler_input(1)[0], build.evaluator_input(1)[0]
    build.and_(a, b)  # dead
    folded = [build.and_(a, ONE), build.and_(b, ZERO), build.xor(a, ONE), build.or_(a, ZERO), build.xor(a, a)]
    circuit = build.compile([*folded, any_of(build, [a, ZERO])])
    assert circuit.ands == 0
    for value in (0, 1):
        bits = np.array([[value]], np.uint8)
        assert run_plain(circuit, bits, bits)[:, 0].tolist() == [value, 0, 1 - value, value, 0, value]


def test_slots_are_used_again() -> None:
    circuit = library.argmax_circuit(10, 32)
    wires = int((circuit.code[:, 0] != Op.STORE).sum())
    assert circuit.slots < wires / 50


def test_wrong_numbers_of_inputs_are_refused() -> None:
    circuit = library.relu_circuit(1, 32, 12, 16)
    with pytest.raises(InputError, match=r"takes \(64, 32\) input bits, not 3 and 32"):
        run_plain(circuit, np.zeros((3, 1), np.uint8), np.zeros((32, 1), np.uint8))


@given(st.lists(words(64), min_size=1, max_size=5), widths)
def test_bits_and_back(values: list[int], bits: int) -> None:
    array = np.array(values, np.uint64)
    assert from_bits(to_bits(array, bits)).tolist() == [value % (1 << bits) for value in values]
