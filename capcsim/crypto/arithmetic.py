"""Arithmetic on words of wires, with one AND a bit (Kolesnikov, Sadeghi, Schneider, ePrint 2009/411)."""

from collections.abc import Iterator

from capcsim.crypto.circuits import ONE, ZERO, Builder, Wire, Word


def add(build: Builder, a: Word, b: Word, carry: Wire = ZERO) -> Word:
    """A + b + carry mod 2^k for words of equal width k; k - 1 ANDs, since the last carry falls away."""
    total = []
    for place, (x, y) in enumerate(zip(a, b, strict=True)):
        x_carry = build.xor(x, carry)
        total.append(build.xor(x_carry, y))
        if place < len(a) - 1:
            carry = build.xor(carry, build.and_(x_carry, build.xor(y, carry)))
    return total


def subtract(build: Builder, a: Word, b: Word) -> Word:
    """A - b mod 2^k; k - 1 ANDs besides the first bit's."""
    return add(build, a, [build.inv(wire) for wire in b], ONE)


def less(build: Builder, a: Word, b: Word) -> Wire:
    """1 where a < b as unsigned numbers; one AND a bit."""
    borrow = ZERO
    for x, y in zip(a, b, strict=True):
        borrow = build.xor(y, build.and_(build.inv(build.xor(x, y)), build.xor(borrow, y)))
    return borrow


def less_signed(build: Builder, a: Word, b: Word) -> Wire:
    """1 where a < b as two's complement numbers; one AND a bit."""
    flipped_a, flipped_b = ([*word[:-1], build.inv(word[-1])] for word in (a, b))
    return less(build, flipped_a, flipped_b)


def extend(word: Word, bits: int, fill: Wire = ZERO) -> Word:
    """A word made wider with zeros, or with its sign as `fill`."""
    return word + [fill] * (bits - len(word))


def any_of(build: Builder, wires: Word) -> Wire:
    """1 where one of them is; one AND less than wires."""
    found = ZERO
    for wire in wires:
        found = build.or_(found, wire)
    return found


def largest(build: Builder, words: Iterator[Word]) -> Word:
    """The largest of some signed words; 2 k ANDs for each after the first."""
    best = next(words)
    for word in words:
        best = build.mux(less_signed(build, best, word), word, best)
    return best


def argmax_one_hot(build: Builder, words: Iterator[Word]) -> Word:
    """One wire a word: 1 at the largest, signed; the lowest index wins a tie.

    A chain, not a tree. Garbled circuits take the same number of rounds whatever their depth, so only ANDs
    count: the chain needs n - 2 ANDs to turn its comparisons into one hot wire, where a tree has to carry an
    index through every level. It also holds one word at a time, so `words` may be made as it goes.
    """
    wins, best = [], next(words)
    for word in words:
        wins.append(less_signed(build, best, word))
        best = build.mux(wins[-1], word, best)  # the last one is dead and is dropped
    hot: Word = []
    nobody_later = ONE
    for win in reversed(wins):
        hot.append(build.and_(win, nobody_later))
        nobody_later = build.xor(nobody_later, hot[-1])
    return [nobody_later, *reversed(hot)]
