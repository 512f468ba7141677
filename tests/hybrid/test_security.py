"""What each role of the hybrid backend sees, what is used once, and margins: security, as far as tests reach."""

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from capcsim.backend import Role
from capcsim.errors import PeerFailed
from capcsim.learning.models import build_model, usual_input_shape
from capcsim_hybrid import HybridBackend, inference, linear
from capcsim_hybrid.packing import arrange_weights
from capcsim_hybrid.parameters import margin_bits
from capcsim_hybrid.plan import weighted
from tests.hybrid.test_hybrid import here, inputs, mlp


def uniform_p(payload: bytes) -> float:
    return float(chisquare(np.bincount(np.frombuffer(payload, np.uint8), minlength=256)).pvalue)


def conversation(backend: HybridBackend, session: Any, x: Any) -> tuple[Any, list[tuple[Role, bytes]]]:
    messages: list[tuple[Role, bytes]] = []
    backend.tap = lambda sender, receiver, payload: messages.append((sender, payload))
    shares, _ = backend.infer(session, x)
    return shares, messages


@pytest.mark.parametrize("order", ["ahead", "online"])
def test_the_same_image_twice_gives_unrelated_ciphertexts_and_shares(order: str) -> None:
    backend = here(order=order)
    session, _ = backend.open(0, backend.prepare(mlp(0, (64, 40, 4)), seed=0))
    x = np.ones((1, 64), np.float32)
    (first, one), (second, two) = conversation(backend, session, x), conversation(backend, session, x)
    assert not (first.values == second.values).any()
    windows: list[set[bytes]] = [
        {payload[i : i + 16] for _, payload in view for i in range(0, len(payload) - 15, 16) if len(payload) > 100}
        for view in (one, two)
    ]
    # SEAL's headers are all that the two have in common.
    assert len(windows[0] & windows[1]) < 12


def test_the_answering_party_sees_the_same_distribution_for_every_image() -> None:
    """All that it gets of two very different images: uniform where it depends on them, of the same length always."""
    lengths = []
    for value in (0.0, 15.0):
        backend = here()
        session, _ = backend.open(0, backend.prepare(mlp(0, (512, 30, 4)), seed=0))
        backend.prepare_ahead(session, 4)
        _, messages = conversation(backend, session, np.full((4, 512), value, np.float32))
        sent = [payload for who, payload in messages if who is Role.QUERIER]
        masked = np.frombuffer(sent[1], np.uint64)
        assert uniform_p((masked & np.uint64((1 << 32) - 1)).astype(np.uint32).tobytes()) > 1e-6
        assert all(uniform_p(payload) > 1e-6 for payload in sent[2:] if len(payload) > 1 << 13)
        lengths.append([(who, len(payload)) for who, payload in messages])
    assert lengths[0] == lengths[1]


def test_the_querying_party_sees_the_same_distribution_for_all_weights() -> None:
    """Its shares of the logits are uniform, whatever the model; nothing else tells models apart but what is public."""
    lengths = []
    for scale in (0.0, 1.0):
        model = mlp(0, (64, 30, 4))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        backend = here()
        session, _ = backend.open(0, backend.prepare(model, seed=0))
        shares, messages = conversation(backend, session, inputs((64,), 300))
        low = (shares.values[0] & np.uint64((1 << 32) - 1)).astype(np.uint32)
        assert uniform_p(low.tobytes()) > 1e-6
        lengths.append([(who, len(payload)) for who, payload in messages])
    assert lengths[0] == lengths[1]


class Cut(Exception):
    pass


def cut_after(messages: int | None, seen: list[int]) -> Any:
    """A tap that counts messages and raises after so many."""

    def tap(*_: Any) -> None:
        seen.append(1)
        if messages is not None and len(seen) == messages:
            raise Cut

    return tap


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("order", ["ahead", "online"])
def test_an_abort_at_any_message_leaves_nothing_to_use_again(order: str, processes: bool) -> None:
    backend = HybridBackend(order=order, processes=processes)
    prepared = backend.prepare(mlp(), seed=0)

    def attempt(after: int | None) -> tuple[Any, int]:
        """Part of it lies ready, part is made; cut after so many messages."""
        seen: list[int] = []
        session, _ = backend.open(0, prepared)
        if order == "ahead":
            backend.prepare_ahead(session, 1)
        backend.tap = cut_after(after, seen)
        try:
            backend.infer(session, inputs((6,), 3))
        except Cut:
            pass
        finally:
            backend.tap = None
        return session, len(seen)

    try:
        _, total = attempt(None)
        assert total > 8
        for after in range(1, total) if not processes else (1, 2, total // 2, total - 1):
            session, _ = attempt(after)
            with pytest.raises(PeerFailed, match=r"aborted .*; set up a new one"):
                backend.infer(session, inputs((6,), 1))
    finally:
        backend.close()


def test_no_mask_is_drawn_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several calls, one of them cut: every input mask, activation mask, reply mask and flood is new."""
    backend, drawn = here(), []
    draw = linear.uniform

    def recorded(shape: tuple[int, ...], bits: int) -> Any:
        drawn.append(draw(shape, bits))
        return drawn[-1]

    monkeypatch.setattr("capcsim_hybrid.linear.uniform", recorded)
    monkeypatch.setattr("capcsim_hybrid.inference.uniform", recorded)
    prepared = backend.prepare(mlp(0, (64, 40, 4)), seed=0)
    for after in (None, 6, None):
        session, _ = backend.open(0, prepared)
        backend.tap = cut_after(after, [])
        with contextlib.suppress(Cut):
            backend.infer(session, inputs((64,), 2))
        backend.tap = None
    large = [values.tobytes()[:64] for values in drawn if values.size >= 8]
    assert len(large) >= 14
    assert len(set(large)) == len(large)
    assert all(values.any() for values in drawn)


@pytest.mark.parametrize("order", ["ahead", "online"])
def test_the_answering_party_gets_uniform_shares_of_activations(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    """What comes out of every circuit, of many queries of one image: uniform, and never the activation."""
    outputs = []
    convert = inference.output_share

    def recorded(node: Any, batch: int, bits: Any) -> Any:
        outputs.append(convert(node, batch, bits))
        return outputs[-1]

    monkeypatch.setattr(inference, "output_share", recorded)
    backend = here(order=order)
    prepared = backend.prepare(mlp(0, (8, 16, 16, 4)), seed=0)
    session, _ = backend.open(0, prepared)
    backend.infer(session, np.ones((400, 8), np.float32))
    assert len(outputs) == 2
    for shares in outputs:
        low = (shares & np.uint64((1 << 32) - 1)).astype(np.uint32)
        assert uniform_p(low.tobytes()) > 1e-6
        assert np.mean(shares < 1 << 16) < 1e-3  # activations are below 2^16
        assert len(np.unique(shares[:, 0])) == len(shares)


@pytest.mark.parametrize(
    ("kind", "width"), [("cryptonet-relu", 1.0), ("lenet", 0.5), ("vgg-5", 0.1), ("resnet-8", 0.1)]
)
@pytest.mark.parametrize("security", [8192, 16384])
def test_the_margin_holds_for_every_layout_that_a_batch_gets(kind: Any, width: float, security: int) -> None:
    """The reported margin is the smallest over all batches, and what their actual layouts give."""
    shape = usual_input_shape(kind)
    model = build_model(kind, shape, 10, (), seed=2, width=width).eval()
    private = here(security=security).prepare(model, seed=0).private
    kernels = {
        i: arrange_weights(node, private.network.weights[i].weight) for i, node in weighted(private.plan.network)
    }
    found = []
    for batch in (*range(1, 18), 31, 33, 100, 257, 1025, 2049, 4096):
        layouts = private.plan.layouts(batch)
        noises = [noise for i, kernel in kernels.items() for noise in linear.noises(layouts[i], kernel)]
        found.append(margin_bits(private.plan.parameters, noises))
    assert min(found) == pytest.approx(private.margin_bits)
    assert private.margin_bits >= 40
