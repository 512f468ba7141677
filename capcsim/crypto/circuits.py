"""Boolean circuits as data, and a builder for them.

A circuit is a netlist of XOR, AND and INV gates. XOR and INV are free when garbled, an AND costs 32 bytes and
a few hashes, so the builder spends as few ANDs as it can and folds constants. The interpreters
(`capcsim.crypto.interpreters`, `capcsim.crypto.garbling`) take the netlist as it is: a new circuit never
compiles a kernel.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Wire = int
Word = list[Wire]
"""Wires of a number, the least significant bit first."""

ZERO: Wire = -1
ONE: Wire = -2


class Op(IntEnum):
    """What an instruction does; LOAD and STORE move inputs and outputs between their arrays and the slots."""

    XOR = 0
    AND = 1
    INV = 2
    LOAD = 3
    STORE = 4


@dataclass(frozen=True, eq=False)
class Circuit:
    """A compiled circuit; inputs are numbered, the garbler's first, then the evaluator's.

    `code` int32[n, 4] has rows (op, a, b, out) over `slots` storage places that are used again as soon as
    their wire is dead. LOAD reads input `a` into slot `out`, STORE writes slot `a` to output `out`.
    """

    name: str
    garbler_inputs: int
    evaluator_inputs: int
    outputs: int
    slots: int
    ands: int
    code: NDArray[np.int32]

    @property
    def inputs(self) -> int:
        """All input wires."""
        return self.garbler_inputs + self.evaluator_inputs


class Builder:
    """Builds a circuit gate by gate. Wires are numbers; ZERO and ONE are constants and cost nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._gates: dict[Wire, tuple[Op, Wire, Wire]] = {}
        self._garbler = self._evaluator = self._next = 0

    def garbler_input(self, bits: int) -> Word:
        """A number that the garbler brings; all of its inputs come before the evaluator's."""
        assert self._next == self._garbler, "declare the garbler's inputs first"
        self._garbler += bits
        return self._new(bits)

    def evaluator_input(self, bits: int) -> Word:
        """A number that the evaluator brings."""
        assert self._next == self._garbler + self._evaluator, "declare inputs before gates"
        self._evaluator += bits
        return self._new(bits)

    def xor(self, a: Wire, b: Wire) -> Wire:
        """A XOR b; free."""
        if a == b:
            return ZERO
        for one, other in ((a, b), (b, a)):
            if one == ZERO:
                return other
            if one == ONE:
                return self.inv(other)
        return self._gate(Op.XOR, a, b)

    def inv(self, a: Wire) -> Wire:
        """NOT a; free."""
        if a in (ZERO, ONE):
            return ONE if a == ZERO else ZERO
        return self._gate(Op.INV, a, a)

    def and_(self, a: Wire, b: Wire) -> Wire:
        """A AND b."""
        if a == b:
            return a
        for one, other in ((a, b), (b, a)):
            if one == ZERO:
                return ZERO
            if one == ONE:
                return other
        return self._gate(Op.AND, a, b)

    def or_(self, a: Wire, b: Wire) -> Wire:
        """A OR b; one AND."""
        return self.inv(self.and_(self.inv(a), self.inv(b)))

    def mux(self, choice: Wire, if_one: Word, if_zero: Word) -> Word:
        """if_one where choice is 1, else if_zero; one AND a bit."""
        pairs = zip(if_one, if_zero, strict=True)
        return [self.xor(b, self.and_(choice, self.xor(a, b))) for a, b in pairs]

    def compile(self, outputs: Word) -> Circuit:
        """The circuit of these outputs: dead gates dropped, slots shared by wires that never live together."""
        outputs = [self._real(wire) for wire in outputs]
        order = self._live_gates(outputs)
        return _Allocator(self._gates, order, outputs).circuit(self.name, self._garbler, self._evaluator)

    def _new(self, bits: int) -> Word:
        self._next += bits
        return list(range(self._next - bits, self._next))

    def _gate(self, op: Op, a: Wire, b: Wire) -> Wire:
        (wire,) = self._new(1)
        self._gates[wire] = (op, a, b)
        return wire

    def _real(self, wire: Wire) -> Wire:
        """A constant output needs a wire: x XOR x, or its inverse, of the first input."""
        if wire >= 0:
            return wire
        zero = self._gate(Op.XOR, 0, 0)
        return zero if wire == ZERO else self._gate(Op.INV, zero, zero)

    def _live_gates(self, outputs: Word) -> list[Wire]:
        """Gates that an output depends on, in the order in which they were made."""
        needed, stack = set(), list(outputs)
        while stack:
            wire = stack.pop()
            if wire in needed or wire not in self._gates:
                continue
            needed.add(wire)
            stack += self._gates[wire][1:]
        return sorted(needed)


class _Allocator:
    """Turns gates into code, giving each wire a slot from its birth to its last use."""

    def __init__(
        self,
        gates: dict[Wire, tuple[Op, Wire, Wire]],
        order: list[Wire],
        outputs: Word,
    ) -> None:
        self._gates, self._order, self._outputs = gates, order, outputs
        self._uses: dict[Wire, int] = {}
        for wire in [*outputs, *(source for gate in order for source in set(gates[gate][1:]))]:
            self._uses[wire] = self._uses.get(wire, 0) + 1
        self._where: dict[Wire, int] = {}
        self._free: list[int] = []
        self._slots = 0
        self._code: list[tuple[int, int, int, int]] = []

    def circuit(self, name: str, garbler: int, evaluator: int) -> Circuit:
        """Inputs are loaded just before their first use, outputs stored as soon as they are known."""
        places: dict[Wire, list[int]] = {}
        for number, wire in enumerate(self._outputs):
            places.setdefault(wire, []).append(number)
        for wire in [wire for wire in places if wire not in self._gates]:
            self._store(wire, places[wire])
        for wire in self._order:
            op, a, b = self._gates[wire]
            sources = (self._slot(a), self._slot(b))
            for source in {a, b}:
                self._used(source)
            self._code.append((op, *sources, self._take(wire)))
            if wire in places:
                self._store(wire, places[wire])
        code = np.array(self._code, np.int32).reshape(-1, 4)
        ands = int((code[:, 0] == Op.AND).sum())
        return Circuit(name, garbler, evaluator, len(self._outputs), self._slots, ands, code)

    def _store(self, wire: Wire, numbers: list[int]) -> None:
        for number in numbers:
            self._code.append((Op.STORE, self._slot(wire), 0, number))
            self._used(wire)

    def _slot(self, wire: Wire) -> int:
        """Where a wire is; an input comes into a slot now."""
        if wire not in self._where:
            slot = self._take(wire)
            self._code.append((Op.LOAD, wire, 0, slot))
        return self._where[wire]

    def _take(self, wire: Wire) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            slot, self._slots = self._slots, self._slots + 1
        self._where[wire] = slot
        return slot

    def _used(self, wire: Wire) -> None:
        self._uses[wire] -= 1
        if self._uses[wire] == 0:
            self._free.append(self._where.pop(wire))
