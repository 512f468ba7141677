"""The circuits that the protocol needs, each built once for its sizes."""

from collections.abc import Iterator
from functools import lru_cache

from capcsim.backend import VOTE_RING_BITS
from capcsim.crypto.arithmetic import add, any_of, argmax_one_hot, extend, largest, less_signed
from capcsim.crypto.circuits import ONE, Builder, Circuit, Wire, Word

# Every circuit takes additive shares: the value is the garbler's word plus the evaluator's, mod 2^k. An output
# that is shared again goes to the evaluator less a mask; the garbler brings minus its mask as an input.


@lru_cache(maxsize=64)
def argmax_circuit(classes: int, ring_bits: int) -> Circuit:
    """Step 1c: shares mod 2^32 of the one-hot argmax of shared logits.

    Garbler: `classes` logit shares, then `classes` words of minus its vote share. Evaluator: its logit
    shares; its outputs are its vote shares, 32 bits a class.
    """
    build = Builder(f"argmax of {classes} mod 2^{ring_bits}")
    theirs = [build.garbler_input(ring_bits) for _ in range(classes)]
    masks = [build.garbler_input(VOTE_RING_BITS) for _ in range(classes)]
    logits = _opened(build, theirs, [build.evaluator_input(ring_bits) for _ in range(classes)])
    outputs: Word = []
    for hot, mask in zip(argmax_one_hot(build, logits), masks, strict=True):
        outputs += _add_bit(build, mask, hot)
    return build.compile(outputs)


@lru_cache(maxsize=64)
def release_circuit(classes: int, ring_bits: int) -> Circuit:
    """Step 3: the one-hot noisy argmax, to the evaluator. Garbler: its sums with the noise in them."""
    build = Builder(f"release of {classes} mod 2^{ring_bits}")
    theirs = [build.garbler_input(ring_bits) for _ in range(classes)]
    counts = _opened(build, theirs, [build.evaluator_input(ring_bits) for _ in range(classes)])
    return build.compile(argmax_one_hot(build, counts))


@lru_cache(maxsize=64)
def release_with_threshold_circuit(classes: int, ring_bits: int) -> Circuit:
    """Step 3 of Confident-GNMax: the one-hot noisy argmax, all zero where the query stays unanswered.

    Garbler: its sums with noise, its sums without, and threshold - noise of the largest count. A query is
    answered where the largest true count reaches that. Outputs: one-hot, then `answered`.
    """
    build = Builder(f"release of {classes} mod 2^{ring_bits} with threshold")
    noisy = [build.garbler_input(ring_bits) for _ in range(classes)]
    plain = [build.garbler_input(ring_bits) for _ in range(classes)]
    needed = build.garbler_input(ring_bits)
    mine = [build.evaluator_input(ring_bits) for _ in range(classes)]
    top = largest(build, _opened(build, plain, mine))
    answered = build.inv(less_signed(build, top, needed))
    hot = [build.and_(answered, wire) for wire in argmax_one_hot(build, _opened(build, noisy, mine))]
    return build.compile([*hot, answered])


@lru_cache(maxsize=64)
def relu_circuit(inputs: int, ring_bits: int, drop_bits: int, limit_bits: int) -> Circuit:
    """The largest of `inputs` values, floored by `drop_bits`, saturated to [0, 2^limit_bits), shared again."""
    build = Builder(f"max of {inputs}, relu mod 2^{ring_bits}")
    theirs, mask = [build.garbler_input(ring_bits) for _ in range(inputs)], build.garbler_input(ring_bits)
    values = _opened(build, theirs, [build.evaluator_input(ring_bits) for _ in range(inputs)])
    return build.compile(_relu(build, largest(build, values), mask, drop_bits, limit_bits))


@lru_cache(maxsize=64)
def tree_paths_circuit(depth: int, ring_bits: int) -> Circuit:
    """One decision tree: from its inner nodes' values, in heap order, to one bit a leaf, shared mod 2^ring_bits.

    The path goes to the left child where the value is at least 0; one AND a node below the root decides it.
    """
    build = Builder(f"paths of a tree of depth {depth} mod 2^{ring_bits}")
    inner = (1 << depth) - 1
    theirs = [build.garbler_input(ring_bits) for _ in range(inner)]
    masks = [build.garbler_input(ring_bits) for _ in range(inner + 1)]
    values = _opened(build, theirs, [build.evaluator_input(ring_bits) for _ in range(inner)])
    reached: Word = [ONE]
    for _ in range(depth):
        children: Word = []
        for path in reached:
            left = build.and_(path, build.inv(next(values)[-1]))
            children += [left, build.xor(path, left)]
        reached = children
    outputs: Word = []
    for path, mask in zip(reached, masks, strict=True):
        outputs += _add_bit(build, mask, path)
    return build.compile(outputs)


@lru_cache(maxsize=64)
def step_circuit(ring_bits: int) -> Circuit:
    """1 where the value is at least 0, else 0; shared again mod 2^ring_bits."""
    build = Builder(f"step mod 2^{ring_bits}")
    theirs, mask = build.garbler_input(ring_bits), build.garbler_input(ring_bits)
    (value,) = _opened(build, [theirs], [build.evaluator_input(ring_bits)])
    return build.compile(_add_bit(build, mask, build.inv(value[-1])))


@lru_cache(maxsize=64)
def truncate_circuit(inputs: int, ring_bits: int, drop_bits: int) -> Circuit:
    """The largest of `inputs` values, floored by `drop_bits`: the low wires are dropped, exactly and for nothing."""
    build = Builder(f"max of {inputs}, truncate by {drop_bits} mod 2^{ring_bits}")
    theirs, mask = [build.garbler_input(ring_bits) for _ in range(inputs)], build.garbler_input(ring_bits)
    values = _opened(build, theirs, [build.evaluator_input(ring_bits) for _ in range(inputs)])
    value = largest(build, values)
    return build.compile(add(build, extend(value[drop_bits:], ring_bits, value[-1]), mask))


def _opened(build: Builder, theirs: list[Word], mine: list[Word]) -> Iterator[Word]:
    """The shared values, each added up when it is asked for, so that few wires live at once."""
    return (add(build, a, b) for a, b in zip(theirs, mine, strict=True))


def _add_bit(build: Builder, word: Word, bit: Wire) -> Word:
    """Word + bit: half adders, k - 1 ANDs."""
    return add(build, word, extend([], len(word)), bit)


def _relu(build: Builder, value: Word, mask: Word, drop_bits: int, limit_bits: int) -> Word:
    """limit_bits + 1 ANDs and one for each bit above the limit, besides the adder that shares it again."""
    negative, kept = value[-1], value[drop_bits:-1]
    over = any_of(build, kept[limit_bits:])
    # inside: take the bits as they are. Else all ones when it is too large, all zeros when negative.
    inside = build.and_(build.inv(negative), build.inv(over))
    full = build.xor(build.inv(negative), inside)
    clipped = [build.xor(full, build.and_(inside, bit)) for bit in kept[:limit_bits]]
    return add(build, mask, extend(clipped, len(mask)))
