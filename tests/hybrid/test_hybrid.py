"""The backend as a whole: exact on every architecture, single use, bounded, clear about bad input."""

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from capcsim.backend import AHEAD, Message, Phase, Role, Step
from capcsim.conformance import CHECKS
from capcsim.costs.transcripts import rounds, sent_bytes
from capcsim.crypto.shares import reconstruct
from capcsim.errors import InputError, PeerFailed, UnsupportedModel
from capcsim.learning.models import build_model, usual_input_shape
from capcsim.twoparty.programs import Steps
from capcsim_hybrid import HybridBackend, linear
from capcsim_hybrid.parties import querying_party
from capcsim_hybrid.seal_memory import PublicInterface

PAIR = (Role.QUERIER, Role.ANSWERER)
IMAGES = (
    ("cryptonet-relu", 1.0),
    ("lenet", 0.2),
    ("vgg-5", 0.05),
    ("vgg-7", 0.03),
    ("resnet-8", 0.05),
    ("resnet-10", 0.03),
)


@pytest.fixture(scope="module")
def apart() -> Iterator[HybridBackend]:
    """The answering party in a process of its own."""
    backend = HybridBackend(processes=True)
    yield backend
    backend.close()


def here(**options: Any) -> HybridBackend:
    return HybridBackend(processes=False, **options)


def mlp(seed: int = 0, sizes: tuple[int, ...] = (6, 5, 4)) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def inputs(shape: tuple[int, ...], count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 1, (count, *shape)).astype(np.float32)


def differing(backend: HybridBackend, model: Any, x: Any) -> int:
    prepared = backend.prepare(model, seed=0)
    session, _ = backend.open(0, prepared)
    shares, _ = backend.infer(session, x)
    opened = reconstruct(shares.values, shares.ring_bits)
    return int((opened != backend.reference(prepared, x)).any(axis=1).sum())


@pytest.mark.parametrize(("kind", "width"), IMAGES)
def test_every_architecture_equals_its_reference(apart: HybridBackend, kind: Any, width: float) -> None:
    shape = usual_input_shape(kind)
    model = build_model(kind, shape, 10, (), seed=2, width=width).eval()
    assert differing(apart, model, inputs(shape, 2)) == 0


def classifiers() -> Iterator[Any]:
    generator = np.random.default_rng(3)
    x = generator.normal(0, 2, (300, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int) + (x[:, 3] > 1)
    yield DecisionTreeClassifier(max_depth=5, random_state=0).fit(x, y)
    yield RandomForestClassifier(12, max_depth=4, random_state=0).fit(x, y)
    yield AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=15, random_state=0).fit(x, y)


@pytest.mark.parametrize("estimator", list(classifiers()), ids=lambda estimator: type(estimator).__name__)
def test_trees_equal_their_reference_and_predict_what_scikit_learn_does(estimator: Any) -> None:
    backend, x = here(), inputs((6,), 20) * 2
    assert differing(backend, estimator, x) == 0
    prepared = backend.prepare(estimator, seed=0)
    assert np.mean(backend.reference(prepared, x).argmax(axis=1) == estimator.predict(x)) > 0.94


@pytest.mark.parametrize("order", ["ahead", "online"])
@pytest.mark.parametrize("processes", [False, True])
def test_both_orders_and_both_ways_to_run_are_exact(order: str, processes: bool) -> None:
    backend = HybridBackend(order=order, processes=processes)
    try:
        for batch in (1, 3, 17):
            assert (
                differing(backend, build_model("cryptonet-relu", (1, 9, 9), 4, (), seed=1), inputs((1, 9, 9), batch))
                == 0
            )
    finally:
        backend.close()


@pytest.mark.parametrize("security", [16384, 32768])
def test_the_higher_levels_are_exact(security: int) -> None:
    assert differing(here(security=security), mlp(), inputs((6,), 3)) == 0


def test_ten_thousand_random_queries(apart: HybridBackend) -> None:
    x = np.random.default_rng(5).uniform(-20, 20, (10_000, 6)).astype(np.float32)
    assert differing(apart, mlp(3), x) == 0


@pytest.mark.parametrize("name", CHECKS)
def test_the_conformance_kit_on_the_fallback_path(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(linear, "memory", PublicInterface())
    CHECKS[name](here())


def test_importing_the_package_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    script = "import sys, capcsim_hybrid; print([m for m in ('tenseal', 'numba', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# The phases, and what waits between them.


def test_what_lies_ready_is_used_and_leaves_only_the_online_phase() -> None:
    backend = here()
    prepared = backend.prepare(mlp(), seed=0)
    session, _ = backend.open(0, prepared)
    ahead = backend.prepare_ahead(session, 4)
    assert {node.phase for node in ahead} == {Phase.OFFLINE}
    stored = backend.details(session, 4)["ready_answerer_bytes"]
    assert session.far is not None
    assert stored == session.far.held.pool.stored_bytes > 0
    seen: list[int] = []
    backend.tap = lambda sender, receiver, payload: seen.append(len(payload))
    x = inputs((6,), 4)
    shares, transcript = backend.infer(session, x)
    assert np.array_equal(reconstruct(shares.values, shares.ring_bits), backend.reference(prepared, x))
    online = [node.nbytes for node in transcript if isinstance(node, Message) and node.phase is Phase.ONLINE]
    assert sorted(online) == sorted(seen)
    assert sum(seen) < 0.2 * sum(sent_bytes(transcript).values())
    assert transcript[: len(ahead)] == ahead
    assert backend.details(session, 4)["ready_queries"] == 0


def test_what_lies_ready_is_combined_with_what_is_made_for_the_rest() -> None:
    backend = here()
    prepared = backend.prepare(mlp(), seed=0)
    session, _ = backend.open(0, prepared)
    for size in (2, 3, 50):
        backend.prepare_ahead(session, size)
    x = inputs((6,), 9)
    for _ in range(2):
        shares, _ = backend.infer(session, x)
        assert np.array_equal(reconstruct(shares.values, shares.ring_bits), backend.reference(prepared, x))
    assert backend.details(session, 1)["ready_queries"] == 50


def test_a_batch_beyond_the_pool_runs_in_parts() -> None:
    model = mlp()
    plan = here().prepare(model, seed=0).private.plan
    backend = here(pool_bytes=plan.ahead_bytes(4))
    prepared = backend.prepare(model, seed=0)
    session, _ = backend.open(0, prepared)
    backend.prepare_ahead(session, 3)
    with pytest.raises(InputError, match="2 queries do not fit the offline pool: 1 to 1 do now; raise pool_bytes"):
        backend.prepare_ahead(session, 2)
    x = inputs((6,), 14)
    shares, _ = backend.infer(session, x)
    assert np.array_equal(reconstruct(shares.values, shares.ring_bits), backend.reference(prepared, x))


@pytest.mark.parametrize("processes", [False, True])
def test_what_does_not_fit_the_pool_is_refused_and_harms_nothing(processes: bool) -> None:
    model = mlp()
    room = here().prepare(model, seed=0).private.plan.ahead_bytes(8)
    backend = HybridBackend(pool_bytes=room, processes=processes)
    try:
        prepared = backend.prepare(model, seed=0)
        session, _ = backend.open(0, prepared)
        with pytest.raises(InputError, match="1000 queries do not fit the offline pool: 1 to 8 do now"):
            backend.prepare_ahead(session, 1000)
        backend.prepare_ahead(session, 8)
        for _ in range(2):  # eight lie ready for one call, and fill the pool
            with pytest.raises(InputError, match="left of the pool; raise pool_bytes, or take order = 'online'"):
                backend.infer(session, inputs((6,), 3))
        x = inputs((6,), 8)
        shares, _ = backend.infer(session, x)
        assert np.array_equal(reconstruct(shares.values, shares.ring_bits), backend.reference(prepared, x))
    finally:
        backend.close()


@pytest.mark.parametrize("processes", [False, True])
def test_the_online_order_has_no_phase_ahead(processes: bool) -> None:
    backend = HybridBackend(order="online", processes=processes)
    assert AHEAD.of(HybridBackend(processes=False))
    assert not AHEAD.of(backend)
    try:
        CHECKS["offers are there and declared"](backend)
        session, _ = backend.open(0, backend.prepare(mlp(), seed=0))
        with pytest.raises(InputError, match="order = 'online' has no phase ahead"):
            backend.prepare_ahead(session, 1)
        _, transcript = backend.infer(session, inputs((6,), 1))
        assert {node.phase for node in transcript} == {Phase.ONLINE}
    finally:
        backend.close()


def test_the_online_phase_takes_one_round_trip_a_circuit() -> None:
    backend = here()
    session, _ = backend.open(0, backend.prepare(mlp(0, (6, 5, 5, 4)), seed=0))
    backend.prepare_ahead(session, 1)
    messages: list[Role] = []
    backend.tap = lambda sender, receiver, payload: messages.append(sender)
    backend.infer(session, inputs((6,), 1))
    changes = sum(a is not b for a, b in pairwise(messages))
    assert changes == 2 * 2


def test_keys_are_made_once_per_querying_party() -> None:
    backend = here()
    first, second = (backend.open(7, backend.prepare(mlp(seed), seed=0))[0].near for seed in (0, 1))
    other = backend.open(8, backend.prepare(mlp(), seed=0))[0].near
    assert first
    assert second
    assert other
    assert first.keys is second.keys
    assert first.keys is not other.keys


def test_more_is_told_about_a_long_call() -> None:
    backend, told = here(), []
    backend.progress = told.append
    session, _ = backend.open(0, backend.prepare(mlp(), seed=0))
    backend.infer(session, inputs((6,), 2))
    assert told == sorted(told)
    assert len(told) >= 5
    assert told[-1] == pytest.approx(1.0)


# Bad input.


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (np.zeros((2, 5), np.float32), r"shape \(2, 5\); the model takes \(B, 6\)"),
        (np.full((1, 6), np.nan, np.float32), "NaN or an infinity"),
        (np.full((1, 6), np.inf, np.float32), "NaN or an infinity"),
        (np.zeros((0, 6), np.float32), "shape"),
    ],
)
def test_bad_inputs_are_refused_and_the_session_lives_on(apart: HybridBackend, x: Any, why: str) -> None:
    prepared = apart.prepare(mlp(), seed=0)
    session, _ = apart.open(0, prepared)
    with pytest.raises(InputError, match=why):
        apart.infer(session, x)
    good = inputs((6,), 2)
    shares, _ = apart.infer(session, good)
    assert np.array_equal(reconstruct(shares.values, shares.ring_bits), apart.reference(prepared, good))


def test_values_out_of_range_saturate_as_in_the_reference() -> None:
    backend, x = here(), np.array([[1e9, -1e9, 17, -17, 0, 16]], np.float32)
    assert differing(backend, mlp(), x) == 0
    assert backend.saturation(backend.prepare(mlp(), seed=0), x) > 0


def test_an_unsupported_layer_is_named_before_any_cryptography() -> None:
    with pytest.raises(UnsupportedModel, match="Softmax"):
        here().prepare(torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Softmax(1)), seed=0)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"security": 4096}, "security = 4096: choose one of 8192, 16384, 32768"),
        ({"order": "later"}, "order = 'later': choose one of ahead, online"),
        ({"security": 8192.0}, "security = 8192.0: choose one of"),
        ({"security": "8192"}, "security = '8192': choose one of"),
        ({"pool_bytes": 0}, "pool_bytes = 0: give a positive whole number of bytes"),
        ({"pool_bytes": 1e9}, "pool_bytes = 1000000000.0: give a positive whole number"),
        ({"pool_bytes": True}, "pool_bytes = True: give"),
        ({"pool_bytes": "1GB"}, "pool_bytes = '1GB': give"),
        ({"pool_bytes": 10**22}, "pool_bytes = 10000000000000000000000: give"),
        ({"processes": "no"}, "processes = 'no': true, false, or leave it out"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        HybridBackend(**options)


@pytest.mark.parametrize("options", [{"security": 4096}, {"order": "foo"}, {"pool_bytes": 1.5}])
def test_the_parties_programs_check_their_options_too(options: dict[str, Any]) -> None:
    program = querying_party(np.zeros((1, 6), np.float32), **options)
    with pytest.raises(InputError, match=next(iter(options))):
        next(program)


@pytest.mark.parametrize("queries", [0, -1, 2.5, True])
def test_a_number_of_queries_that_is_none_harms_nothing(queries: Any) -> None:
    backend = here()
    session, _ = backend.open(0, backend.prepare(mlp(), seed=0))
    with pytest.raises(InputError, match="queries: give a positive whole number"):
        backend.prepare_ahead(session, queries)
    backend.infer(session, inputs((6,), 1))


def test_things_of_another_type_are_named() -> None:
    backend = here()
    prepared = backend.prepare(mlp(), seed=0)
    session, _ = backend.open(0, prepared)
    for x, found in ((torch.zeros(1, 6), "Tensor"), ([[0.0] * 6], "list"), (np.zeros((1, 6), complex), "complex128")):
        with pytest.raises(InputError, match=f"{found}; give a numpy array of float32"):
            backend.infer(session, x)
    with pytest.raises(InputError, match="what this backend's prepare returned, not a Sequential"):
        backend.open(0, mlp())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="argmax takes the Shares that infer returned"):
        backend.argmax(session, np.zeros((1, 4)))  # type: ignore[arg-type]
    shares, _ = backend.infer(session, inputs((6,), 1))
    backend.argmax(session, shares)


def test_a_pool_too_small_for_one_query_is_told_before_anything_runs() -> None:
    with pytest.raises(InputError, match="raise pool_bytes, or take order = 'online'"):
        here(pool_bytes=1000).prepare(mlp(), seed=0)
    here(pool_bytes=1000, order="online").prepare(mlp(), seed=0)


def test_the_guardians_session_has_no_model() -> None:
    backend = here()
    session, _ = backend.open(0, None)
    with pytest.raises(InputError, match="privacy guardian's, who has no model"):
        backend.infer(session, inputs((6,), 1))


def idle() -> Steps:
    return
    yield


def process_number() -> Steps:
    return os.getpid()
    yield


def test_an_answering_process_that_dies_is_an_error_and_the_next_session_works() -> None:
    backend = HybridBackend(processes=True)
    try:
        prepared = backend.prepare(mlp(), seed=0)
        session, _ = backend.open(0, prepared)
        pid, _ = backend.runner.run(PAIR, (idle, ()), (process_number, ()), step=Step.INFER)[0][::-1]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(PeerFailed, match="answering party"):
            backend.infer(session, inputs((6,), 1))
        again, _ = backend.open(0, prepared)
        x = inputs((6,), 2)
        shares, _ = backend.infer(again, x)
        assert np.array_equal(reconstruct(shares.values, shares.ring_bits), backend.reference(prepared, x))
    finally:
        backend.close()


def test_rounds_are_those_of_the_chain() -> None:
    backend = here()
    session, _ = backend.open(0, backend.prepare(mlp(), seed=0))
    _, transcript = backend.infer(session, inputs((6,), 1))
    assert 3 <= rounds(transcript) <= 9
