"""What a peer may send that is not of the protocol: PeerFailed, at once, without much memory."""

import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from capcsim.errors import PeerFailed
from capcsim.fixed_point.graph import ENCODING
from capcsim.fixed_point.layers import Conv2d, Input, Linear, Pool, Relu, Reshape, Shift
from capcsim.fixed_point.network import PublicNetwork
from capcsim.twoparty.programs import Mark, Recv, Send, Steps
from capcsim.twoparty.yao import set_up_evaluator
from capcsim_hybrid import HybridBackend
from capcsim_hybrid.inference import fill_answerer, infer_answerer
from capcsim_hybrid.plan import MOST_BATCH, Plan
from capcsim_hybrid.sessions import set_up_answerer, set_up_querier

HEAD = struct.pack("<IB", 8192, 0)


def fed(program: Steps, *payloads: bytes) -> Any:
    """Run a role on prepared messages; returns what it still waits for, or its output."""
    waiting = list(payloads)
    answer = None
    try:
        while True:
            request = program.send(answer)
            answer = None
            if isinstance(request, Recv):
                if not waiting:
                    return request
                answer = waiting.pop(0)
            assert isinstance(request, Recv | Send | Mark)
    except StopIteration as end:
        return end.value


def opened(order: str, pool_bytes: int = 1 << 20) -> tuple[HybridBackend, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    backend = HybridBackend(processes=False, order=order, pool_bytes=pool_bytes)
    session, _ = backend.open(0, backend.prepare(model, seed=0))
    assert session.far is not None
    return backend, session.far.held


@pytest.mark.parametrize("order", ["ahead", "online"])
@pytest.mark.parametrize("program", [infer_answerer, fill_answerer])
@pytest.mark.parametrize("queries", [0, MOST_BATCH + 1, 1 << 27, 1 << 62])
def test_a_batch_of_any_size_is_not_taken(order: str, program: Callable[..., Steps], queries: int) -> None:
    _, state = opened(order)
    with pytest.raises(PeerFailed, match="the querying party announces"):
        fed(program(state), struct.pack("<QQ??", 0, queries, False, True))


@pytest.mark.parametrize("program", [infer_answerer, fill_answerer])
def test_more_than_the_pool_was_agreed_on_is_not_made(program: Callable[..., Steps]) -> None:
    _, state = opened("ahead")
    queries = state.pool_bytes // state.model.plan.ahead_bytes(1) + 1
    assert queries <= MOST_BATCH
    with pytest.raises(PeerFailed, match="beyond the pool that was agreed on"):
        fed(program(state), struct.pack("<QQ??", 0, queries, False, True))


def test_nothing_is_made_ahead_in_the_online_order() -> None:
    _, state = opened("online")
    with pytest.raises(PeerFailed, match="beyond the pool that was agreed on"):
        fed(fill_answerer(state), struct.pack("<QQ??", 0, 1, False, True))


def test_material_that_was_never_made_is_not_used() -> None:
    _, state = opened("ahead")
    with pytest.raises(PeerFailed, match="was used already or never made"):
        fed(infer_answerer(state), struct.pack("<QQ??", 7, 1, True, True))


@pytest.mark.parametrize("payload", [b"", b"x", bytes(17), bytes(19)])
@pytest.mark.parametrize("program", [infer_answerer, fill_answerer])
def test_an_announcement_of_another_size_is_refused(program: Callable[..., Steps], payload: bytes) -> None:
    _, state = opened("ahead")
    with pytest.raises(PeerFailed, match="bytes came instead of 18"):
        fed(program(state), payload)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (struct.pack("<BQ", 0, 1 << 40), "wants 1099511627776 bytes kept"),
        (struct.pack("<BQ", 2, 1), "asks for order 2"),
        (b"", "bytes came instead of 9"),
    ],
)
def test_settings_beyond_what_this_party_gives_are_refused(settings: bytes, why: str) -> None:
    _, state = opened("ahead")
    with pytest.raises(PeerFailed, match=why):
        fed(set_up_answerer(state.model, 1 << 30, state.evaluator), settings)


def plan_of(*nodes: Any, ring_bits: int = 37) -> bytes:
    network = PublicNetwork.of((*nodes,), ENCODING, ring_bits=ring_bits, fraction_bits=24)
    return HEAD + network.to_bytes()


def set_up(payload: bytes) -> Any:
    def no_keys(_: Any) -> Any:
        raise AssertionError("keys were made for a plan that is none")

    return fed(set_up_querier(no_keys, 8192, "ahead", 1 << 30, None), payload)  # type: ignore[arg-type]


GOOD = plan_of(Input((6,)), Linear((0,), (4,), 6))
SHIFTS = (Input((1 << 16,)), *(Shift((i,), (1 << 16,), 0) for i in range(3000)), Linear((3000,), (2,), 1 << 16))
DIFFERENT = [node for i in range(35) for node in (Linear((2 * i,), (6,), 6), Relu((2 * i + 1,), (6,), i))]
BAD_PLANS = {
    "nothing": b"",
    "a head alone": HEAD,
    "another level": struct.pack("<IB", 4096, 0) + GOOD[5:],
    "no such primes": struct.pack("<IB", 8192, 9) + GOOD[5:],
    "deep JSON": HEAD + b"[" * 200_000,
    "infinite": HEAD + GOOD[5:].replace(b"37", b"1e999"),
    "an image that no polynomial holds": plan_of(
        Input((1, 128, 128)),
        Conv2d((0,), (1, 128, 128), 1, (3, 3), (1, 1), (1, 1)),
        Reshape((1,), (1 << 14,)),
        Relu((2,), (1 << 14,), 12),
        Linear((3,), (2,), 1 << 14),
    ),
    "a circuit of gigabytes": plan_of(
        Input((1, 128, 128)),
        Relu((0,), (1, 1, 1), 12, Pool((128, 128), (128, 128))),
        Reshape((1,), (1,)),
        Linear((2,), (2,), 1),
    ),
    "thousands of copies": plan_of(*SHIFTS),
    "many different circuits": plan_of(Input((6,)), *DIFFERENT, Linear((70,), (2,), 6)),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_a_plan_that_is_none_is_refused_at_once(name: str) -> None:
    started_s = time.perf_counter()
    with pytest.raises(PeerFailed, match="sent no plan of a model"):
        set_up(BAD_PLANS[name])
    assert time.perf_counter() - started_s < 5


def test_a_plan_of_another_level_is_not_the_wanted_one() -> None:
    with pytest.raises(PeerFailed, match="proposes N = 16384; 8192 was wanted"):
        set_up(struct.pack("<IB", 16384, 0) + GOOD[5:])


def test_a_sound_plan_is_read() -> None:
    assert Plan.from_bytes(GOOD).to_bytes() == GOOD


@pytest.mark.parametrize("start", [b"", bytes(15), bytes(17)])
def test_a_start_point_of_another_size_is_refused(start: bytes) -> None:
    """After sound base transfers; here the points of one run stand for them."""
    from capcsim.backend import Role, Step
    from capcsim.twoparty.programs import run_local
    from capcsim.twoparty.yao import set_up_garbler

    def tampered() -> Steps:
        program, answer = set_up_garbler(), None
        try:
            while True:
                request = program.send(answer)
                if isinstance(request, Send) and len(request.payload) == 16:
                    request = Send(start)
                answer = yield request
        except StopIteration as end:
            return end.value

    with pytest.raises(PeerFailed, match="bytes came instead of 16"):
        run_local((Role.QUERIER, Role.ANSWERER), (tampered(), set_up_evaluator()), step=Step.SETUP)


def test_wide_inputs_fit_a_message() -> None:
    """A batch is cut where the masked inputs would not fit one message."""
    nodes = (Input((1 << 15,)), Linear((0,), (2,), 1 << 15))
    public = PublicNetwork.of(nodes, ENCODING, ring_bits=37, fraction_bits=24)
    plan = Plan.from_bytes(HEAD + public.to_bytes())
    assert plan.most_queries(1 << 40) * 8 * (1 << 15) <= 128 << 20
    assert np.prod(plan.network.input_shape) == 1 << 15
