"""AES-NI in numba: intrinsics that hash garbled labels, several lanes and several blocks at a time.

The hash of a label x in lane t of gate g is E(k_g, s(x) ^ t) ^ s(x) ^ t, with a key for each gate and the linear
orthomorphism s. `capcsim.crypto.garbling` says why s is needed, and which lanes share a key.

LLVM's own vector types do the work: a block is `<2 x i64>`, and with VAES four of them are `<8 x i64>`. Eight
AES chains are in flight at once. The number of rounds is passed at run time: a constant would let LLVM unroll
the loop and serialise the chains.
"""

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROUNDS = 10
I64, I32, I8 = ir.IntType(64), ir.IntType(32), ir.IntType(8)
BLOCK = ir.VectorType(I64, 2)


@lru_cache(maxsize=1)
def blocks_per_vector() -> int:
    """How many AES blocks one instruction takes here: 4 or 2 with VAES, 1 with AES-NI, 0 without."""
    features = get_host_cpu_features()
    if not features.get("aes") or not features.get("sse4.1"):
        return 0
    if features.get("vaes") and features.get("avx512f"):
        return 4
    return 2 if features.get("vaes") and features.get("avx2") else 1


class _Emitter:
    """Emits vector code for `width` blocks a vector."""

    def __init__(self, builder: Any, width: int) -> None:
        self.builder, self.width = builder, width
        self.type = ir.VectorType(I64, 2 * width)

    def load(self, base: Any, offset: Any) -> Any:
        """A vector at base + offset bytes; numpy promises eight-byte alignment only."""
        return self.builder.load(self._pointer(base, offset, self.type), align=8)

    def store(self, value: Any, base: Any, offset: Any) -> None:
        """Write a vector at base + offset bytes."""
        self.builder.store(value, self._pointer(base, offset, self.type), align=8)

    def broadcast(self, base: Any, offset: Any) -> Any:
        """One block, repeated in the whole vector."""
        block = self.builder.load(self._pointer(base, offset, BLOCK), align=8)
        return self._shuffle(block, [0, 1] * self.width)

    def sigma(self, value: Any) -> Any:
        """The orthomorphism (high ^ low, high) of (high, low), for each block."""
        swapped = self._shuffle(value, [word ^ 1 for word in range(2 * self.width)])
        high = ir.Constant(self.type, [0, -1] * self.width)
        return self.builder.xor(swapped, self.builder.and_(value, high))

    def low_bit_mask(self, value: Any) -> Any:
        """All ones in each block whose lowest bit is 1, else zeros: the select bit of point-and-permute."""
        low = self._shuffle(value, [word & ~1 for word in range(2 * self.width)])
        bit = self.builder.and_(low, ir.Constant(self.type, [1] * (2 * self.width)))
        return self.builder.sub(ir.Constant(self.type, [0] * (2 * self.width)), bit)

    def tweak(self, first_lane: Any) -> Any:
        """Lane numbers, first_lane and up, in the high word of each block."""
        single = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), first_lane, I32(0))
        lanes = self._shuffle(single, [0] * (2 * self.width))
        high = ir.Constant(self.type, [0, -1] * self.width)
        steps = ir.Constant(self.type, [word // 2 if word % 2 else 0 for word in range(2 * self.width)])
        return self.builder.add(self.builder.and_(lanes, high), steps)

    def encrypt(self, chains: list[tuple[Any, int]], keys: list[Any], rounds: Any) -> list[Any]:
        """E(x) ^ x for each chain (x, number of its key); `keys` are addresses of expanded keys."""
        build = self.builder
        round_keys = [self.broadcast(key, I64(0)) for key in keys]
        states = [build.xor(block, round_keys[key]) for block, key in chains]
        before, body, after = build.block, build.append_basic_block("round"), build.append_basic_block("last")
        build.branch(body)
        build.position_at_end(body)
        number = build.phi(I64)
        number.add_incoming(I64(1), before)
        phis = []
        for state in states:
            phi = build.phi(self.type)
            phi.add_incoming(state, before)
            phis.append(phi)
        offset = build.mul(number, I64(16))
        round_keys = [self.broadcast(key, offset) for key in keys]
        inner = [self._aes("aesenc", phi, round_keys[key]) for phi, (_, key) in zip(phis, chains, strict=True)]
        following = build.add(number, I64(1))
        build.cbranch(build.icmp_signed("<", following, rounds), body, after)
        number.add_incoming(following, body)
        for phi, state in zip(phis, inner, strict=True):
            phi.add_incoming(state, body)
        build.position_at_end(after)
        round_keys = [self.broadcast(key, build.mul(rounds, I64(16))) for key in keys]
        last = [self._aes("aesenclast", s, round_keys[key]) for s, (_, key) in zip(inner, chains, strict=True)]
        return [build.xor(state, block) for state, (block, _) in zip(last, chains, strict=True)]

    def _aes(self, operation: str, state: Any, key: Any) -> Any:
        suffix = {1: "", 2: ".256", 4: ".512"}[self.width]
        kind = ir.FunctionType(self.type, [self.type, self.type])
        name = f"llvm.x86.aesni.{operation}{suffix}"
        return self.builder.call(_declared(self.builder.module, kind, name), [state, key])

    def _shuffle(self, value: Any, order: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(I32, len(order)), order)
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)

    def _pointer(self, base: Any, offset: Any, kind: Any) -> Any:
        return self.builder.inttoptr(self.builder.add(base, offset), kind.as_pointer())


def _declared(module: Any, kind: Any, name: str) -> Any:
    """An LLVM intrinsic as a function of this module."""
    return cgutils.get_or_insert_function(module, kind, name)  # type: ignore[no-untyped-call]


def _emit_garble(build: Any, width: int, vectors: int, at: Any, a: Any) -> None:
    """Half gates for `width * vectors` lanes from byte offset `at` on; `a` are the arguments of garble_and."""
    emit = _Emitter(build, width)
    delta = emit.broadcast(a.delta, I64(0))
    moved_delta = emit.sigma(delta)
    wires, chains = [], []
    for number in range(vectors):
        offset = build.add(at, I64(16 * width * number))
        lane = build.add(a.first_lane, build.lshr(offset, I64(4)))
        left, right, tweak = emit.load(a.left, offset), emit.load(a.right, offset), emit.tweak(lane)
        wires.append((offset, left, right))
        for wire, key in ((left, 0), (right, 1)):
            tweaked = build.xor(emit.sigma(wire), tweak)
            chains += [(tweaked, key), (build.xor(tweaked, moved_delta), key)]
    hashes = emit.encrypt(chains, [a.left_key, a.right_key], a.rounds)
    for number, (offset, left, right) in enumerate(wires):
        left_0, left_1, right_0, right_1 = hashes[4 * number : 4 * number + 4]
        select_left, select_right = emit.low_bit_mask(left), emit.low_bit_mask(right)
        table_g = build.xor(build.xor(left_0, left_1), build.and_(select_right, delta))
        table_e = build.xor(build.xor(right_0, right_1), left)
        out_g = build.xor(left_0, build.and_(select_left, table_g))
        out_e = build.xor(right_0, build.and_(select_right, build.xor(table_e, left)))
        emit.store(table_g, a.table_g, offset)
        emit.store(table_e, a.table_e, offset)
        emit.store(build.xor(out_g, out_e), a.out, offset)


def _emit_evaluate(build: Any, width: int, vectors: int, at: Any, a: Any) -> None:
    """The evaluator's half of `_emit_garble`."""
    emit = _Emitter(build, width)
    wires, chains = [], []
    for number in range(vectors):
        offset = build.add(at, I64(16 * width * number))
        lane = build.add(a.first_lane, build.lshr(offset, I64(4)))
        left, right, tweak = emit.load(a.left, offset), emit.load(a.right, offset), emit.tweak(lane)
        wires.append((offset, left, right))
        chains += [(build.xor(emit.sigma(wire), tweak), key) for wire, key in ((left, 0), (right, 1))]
    hashes = emit.encrypt(chains, [a.left_key, a.right_key], a.rounds)
    for number, (offset, left, right) in enumerate(wires):
        select_left, select_right = emit.low_bit_mask(left), emit.low_bit_mask(right)
        table_g, table_e = emit.load(a.table_g, offset), emit.load(a.table_e, offset)
        out_g = build.xor(hashes[2 * number], build.and_(select_left, table_g))
        out_e = build.xor(hashes[2 * number + 1], build.and_(select_right, build.xor(table_e, left)))
        emit.store(build.xor(out_g, out_e), a.out, offset)


def _over_lanes(emit: Callable[..., None], vectors: int, build: Any, arguments: SimpleNamespace) -> None:
    """Run `emit` on as many lanes at once as it takes, then on the rest one by one."""
    width = blocks_per_vector()
    step = I64(16 * width * vectors)
    total = build.mul(arguments.lanes, I64(16))
    wide = build.sub(total, build.urem(total, step))
    with cgutils.for_range_slice(build, I64(0), wide, step, intp=I64) as (at, _):
        emit(build, width, vectors, at, arguments)
    with cgutils.for_range_slice(build, wide, total, I64(16), intp=I64) as (at, _):
        emit(build, 1, 1, at, arguments)


_GATE = ("left", "right", "out", "table_g", "table_e", "left_key", "right_key", "first_lane", "lanes", "rounds")


# numba wants every argument by name and gives each its type; so these functions stay without annotations.


def _garble_and(  # type: ignore[no-untyped-def]
    _,
    left,
    right,
    out,
    table_g,
    table_e,
    left_key,
    right_key,
    first_lane,
    lanes,
    rounds,
    delta,
):

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        arguments = SimpleNamespace(**dict(zip((*_GATE, "delta"), values, strict=True)))
        _over_lanes(_emit_garble, 2, builder, arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * (len(_GATE) + 1)), generate


def _evaluate_and(  # type: ignore[no-untyped-def]
    _,
    left,
    right,
    out,
    table_g,
    table_e,
    left_key,
    right_key,
    first_lane,
    lanes,
    rounds,
):

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        arguments = SimpleNamespace(**dict(zip(_GATE, values, strict=True)))
        _over_lanes(_emit_evaluate, 4, builder, arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * len(_GATE)), generate


def _expand_key(_, destination, low, high):  # type: ignore[no-untyped-def]

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        destination, low, high = values
        emit = _Emitter(builder, 1)
        key = builder.insert_element(ir.Constant(BLOCK, ir.Undefined), low, I32(0))
        key = builder.insert_element(key, high, I32(1))
        emit.store(key, destination, I64(0))
        for number, constant in enumerate((1, 2, 4, 8, 16, 32, 64, 128, 27, 54), start=1):
            key = _next_round_key(builder, key, constant)
            emit.store(key, destination, I64(16 * number))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


garble_and: Any = intrinsic(_garble_and)
"""One AND in `lanes` lanes. Arguments are addresses of blocks, but for first_lane, lanes and rounds."""

evaluate_and: Any = intrinsic(_evaluate_and)
"""One AND in `lanes` lanes, from active labels; arguments as for garble_and, without Delta."""

expand_key: Any = intrinsic(_expand_key)
"""AES-128 key expansion of the key (low, high words): eleven blocks at the address `destination`."""


def _next_round_key(build: Any, key: Any, constant: int) -> Any:
    """FIPS 197, section 5.2: each word is itself xor all the words before it xor the substituted last word."""
    words = ir.VectorType(I32, 4)
    kind = ir.FunctionType(BLOCK, [BLOCK, I8])
    assist = _declared(build.module, kind, "llvm.x86.aesni.aeskeygenassist")
    substituted = build.bitcast(build.call(assist, [key, I8(constant)]), words)
    undefined, zeros = ir.Constant(words, ir.Undefined), ir.Constant(words, [0] * 4)
    order = ir.VectorType(I32, 4)
    total = build.bitcast(key, words)
    for shift in (1, 2):
        # Words move up by `shift`; zeros (index 4) come in below.
        mask = ir.Constant(order, [4] * shift + list(range(4 - shift)))
        total = build.xor(total, build.shuffle_vector(total, zeros, mask))
    last = build.shuffle_vector(substituted, undefined, ir.Constant(order, [3] * 4))
    return build.bitcast(build.xor(total, last), BLOCK)
