"""CrypTen is not exact: each way in which a vote can differ is told apart, and wraps are counted."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from capcsim.backend import VOTE_RING_BITS
from capcsim.costs.measured import Agreement
from capcsim.crypto.shares import reconstruct
from capcsim.learning.models import Classifier, build_model
from capcsim.twoparty.voting import one_hot_argmax
from capcsim_crypten import CryptenBackend
from capcsim_crypten.deviations import explain

QUERIES = 40_000


def chain(*weights: list[list[float]]) -> Any:
    """Linear layers without a ReLU, which would saturate."""
    model = Classifier((1,), *(nn.Linear(len(rows[0]), len(rows)) for rows in weights))
    for layer, rows in zip(model, weights, strict=True):
        layer.weight = nn.Parameter(torch.tensor(rows))
        nn.init.zeros_(layer.bias)
    return model.eval()


def infer(backend: CryptenBackend, model: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Reference, found logits, limit, details of queries near 16: values near 2^20, of which 2^-12 wrap."""
    prepared = backend.prepare(model, seed=0)
    session, _ = backend.open(0, prepared)
    x = np.random.default_rng(0).uniform(15, 16, (QUERIES, 1)).astype(np.float32)
    logits, _ = backend.infer(session, x)
    limit = prepared.private.tolerance * 2.0**logits.fraction_bits
    found = reconstruct(logits.values, logits.ring_bits)
    return backend.reference(prepared, x), found, limit, backend.details(session, QUERIES)


def test_wraps_of_the_last_layer_are_counted_and_vanish(backend: CryptenBackend) -> None:
    reference, found, limit, details = infer(backend, chain([[65536.0], [-65536.0]]))
    expected = 2 * QUERIES * 2.0**-12
    assert expected / 3 < details["wrapped"] < 3 * expected
    assert details["mended"] == details["wrapped"] >= details["wrapped_queries"]
    assert np.abs(found - reference).max() <= limit
    assert set(explain(reference, found, limit)) == {""}


def test_a_wrap_inside_the_network_is_counted_and_explains_its_vote(backend: CryptenBackend) -> None:
    reference, found, limit, details = infer(backend, chain([[65536.0]], [[0.2], [-0.2]]))
    assert 1 <= details["wrapped_queries"] < 3 * QUERIES * 2.0**-12
    off = np.abs(found - reference) > limit
    assert off.sum() == details["wrapped"] - details["mended"] > 0
    assert details["queries"] == QUERIES
    kinds = np.array(explain(reference, found, limit))
    assert set(kinds) == {"", "wrap"}
    assert off[kinds == "wrap"].any(axis=1).all()


def test_saturation_is_not_taken_for_a_wrap(backend: CryptenBackend) -> None:
    """The reference clamps a ReLU at 16; CrypTen does not."""
    model = Classifier((1,), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    nn.init.constant_(model[0].weight, 3.0)
    prepared = backend.prepare(model, seed=0)
    session, _ = backend.open(0, prepared)
    backend.infer(session, np.array([[1.0], [10.0]], np.float32))
    details = backend.details(session, 2)
    assert (details["saturated_queries"], details["wrapped_queries"], details["queries"]) == (1, 0, 2)
    assert backend.saturation(prepared, np.array([[10.0]], np.float32)) > 0


@pytest.mark.parametrize("kind", ["mlp", "cryptonet-relu"])
def test_votes_of_500_queries_agree_or_are_explained(backend: CryptenBackend, kind: Any) -> None:
    prepared = backend.prepare(build_model(kind, (1, 28, 28), 10, (16,), seed=1).eval(), seed=0)
    session, _ = backend.open(0, prepared)
    x = np.random.default_rng(2).random((500, 1, 28, 28), np.float32)
    found, votes = [], []
    for rows in np.split(x, 5):
        logits, _ = backend.infer(session, rows)
        found.append(reconstruct(logits.values, logits.ring_bits))
        votes.append(reconstruct(backend.argmax(session, logits)[0].values, VOTE_RING_BITS))
    logits, reference = np.concatenate(found), backend.reference(prepared, x)
    # Its own argmax is exact on the logits that it is given.
    assert np.array_equal(np.concatenate(votes), one_hot_argmax(logits))
    limit = prepared.private.tolerance * 2.0**prepared.public.fraction_bits
    kinds = explain(reference, logits, limit)
    agreement = Agreement(5, 500, sum(map(bool, kinds)))
    bound = agreement.upper_bound()
    sys.stderr.write(
        f"{kind}: {agreement.disagreements} of 500 votes differ ({bound:.4f} at 95 %): {sorted(set(kinds) - {''})}\n"
    )
    assert set(kinds) <= {"", "near tie"}
    assert bound is not None
    assert bound < 0.02
