"""Yao's protocol: what it computes, and what may be garbled ahead."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from capcsim.backend import VOTE_RING_BITS, Phase, Role, Step
from capcsim.crypto import library
from capcsim.crypto.circuits import Circuit
from capcsim.crypto.garbling import (
    Hash,
    lanes_per_key,
)
from capcsim.crypto.interpreters import run_plain
from capcsim.errors import PeerFailed
from capcsim.twoparty import yao
from capcsim.twoparty.programs import Steps, run_local
from capcsim.twoparty.yao import (
    evaluator_online,
    garble_ahead,
    garbler_online,
    receive_ahead,
    run_evaluator,
    run_garbler,
    set_up_evaluator,
    set_up_garbler,
)

ROLES = (Role.QUERIER, Role.ANSWERER)
ARGMAX = library.argmax_circuit(4, 37)
Messages = list[tuple[Role, bytes]]


def sessions(hash_: Hash = Hash.LANES) -> Any:
    both, _ = run_local(ROLES, (set_up_garbler(hash_), set_up_evaluator(hash_)), step=Step.SETUP, phase=Phase.SETUP)
    return both


def run(pair: Any, circuit: Circuit, early: Any, late: Any, own: Any) -> tuple[Any, Messages]:
    """The evaluator's output, and each message as (sender, payload)."""
    seen: Messages = []
    programs = (run_garbler(pair[0], circuit, early, late), run_evaluator(pair[1], circuit, len(late), own))
    tap = lambda sender, _, payload: seen.append((sender, payload))  # noqa: E731
    (_, output), _ = run_local(ROLES, programs, step=Step.ARGMAX, tap=tap)
    return output, seen


def inputs(circuit: Circuit, early: int, instances: int, seed: int = 0) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2, (circuit.inputs, instances)).astype(np.uint8)
    late = circuit.garbler_inputs - early
    return bits[late : circuit.garbler_inputs], bits[:late], bits[circuit.garbler_inputs :]


def expected(circuit: Circuit, early: Any, late: Any, own: Any) -> Any:
    return run_plain(circuit, np.concatenate([late, early]), own)


def uniform_p(payload: bytes) -> float:
    """p-value of the bytes being uniform."""
    return float(chisquare(np.bincount(np.frombuffer(payload, np.uint8), minlength=256)).pvalue)


def blocks(messages: Messages, sender: Role) -> set[bytes]:
    """All aligned 16-byte blocks in what one side sent."""
    return {
        payload[at : at + 16] for who, payload in messages if who is sender for at in range(0, len(payload) - 15, 16)
    }


@pytest.mark.parametrize("hash_", list(Hash))
@pytest.mark.parametrize("instances", [1, 3, 70])
@pytest.mark.parametrize("early", [0, 4 * VOTE_RING_BITS])
def test_the_evaluator_learns_the_output(hash_: Hash, instances: int, early: int) -> None:
    pair, bits = sessions(hash_), inputs(ARGMAX, early, instances)
    for _ in range(2):
        output, _ = run(pair, ARGMAX, *bits)
        assert np.array_equal(output, expected(ARGMAX, *bits))


def test_large_batches_travel_in_several_messages() -> None:
    circuit = library.argmax_circuit(10, 41)
    instances = lanes_per_key(circuit, Hash.LANES) + 3
    bits = inputs(circuit, 320, instances)
    output, messages = run(sessions(), circuit, *bits)
    assert np.array_equal(output, expected(circuit, *bits))
    assert max(len(payload) for _, payload in messages) <= 64 << 20
    assert sum(len(payload) > 1 << 20 and who is Role.QUERIER for who, payload in messages) >= 2


def whole(session: Any, program: Steps) -> Steps:
    """What stands around every use of a session."""
    session.begin()
    result = yield from program
    session.end()
    return result


def ahead(pair: Any, circuit: Circuit, early: Any, late_inputs: int) -> Any:
    programs = (
        whole(pair[0], garble_ahead(pair[0], circuit, early)),
        whole(pair[1], receive_ahead(pair[1], circuit, late_inputs, early.shape[1])),
    )
    return run_local(ROLES, programs, step=Step.INFER, phase=Phase.OFFLINE)[0]


def online(pair: Any, ready: Any, late: Any, own: Any) -> Any:
    programs = (
        whole(pair[0], garbler_online(pair[0], ready[0], late)),
        whole(pair[1], evaluator_online(ready[1], own)),
    )
    return run_local(ROLES, programs, step=Step.INFER)[0][1]


def test_circuits_that_were_garbled_ahead_can_be_used_in_any_order() -> None:
    pair, stock = sessions(), []
    for seed in range(4):
        early, late, own = inputs(ARGMAX, 128, 3 + seed, seed)
        stock.append((ahead(pair, ARGMAX, early, len(late)), (early, late, own)))
    for ready, (early, late, own) in stock[::-1]:
        assert ready[1].stored_bytes > 32 * ARGMAX.ands * ready[1].instances
        assert np.array_equal(online(pair, ready, late, own), expected(ARGMAX, early, late, own))


def test_what_was_garbled_ahead_is_used_once() -> None:
    pair = sessions()
    early, late, own = inputs(ARGMAX, 128, 2)
    ready = ahead(pair, ARGMAX, early, len(late))
    online(pair, ready, late, own)
    for program in (garbler_online(pair[0], ready[0], late), evaluator_online(ready[1], own)):
        with pytest.raises(PeerFailed, match="were used already"):
            next(program)


def test_large_batches_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more tables than fit the limit lie at the evaluator at once."""
    monkeypatch.setattr("capcsim.twoparty.yao.MOST_STREAMED_BYTES", 32 * ARGMAX.ands * 5)
    pair, (early, late, own) = sessions(), inputs(ARGMAX, 128, 13)
    largest = 0
    receive = yao.receive_ahead

    def watched(*arguments: Any) -> Steps:
        nonlocal largest
        ready = yield from receive(*arguments)
        largest = max(largest, ready.instances)
        return ready

    monkeypatch.setattr("capcsim.twoparty.yao.receive_ahead", watched)
    output, _ = run(pair, ARGMAX, early, late, own)
    assert np.array_equal(output, expected(ARGMAX, early, late, own))
    assert largest == 5
