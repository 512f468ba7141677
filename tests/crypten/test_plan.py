"""Real numbers instead of integers: the same network, within a bound that is computed beforehand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from capcsim.crypto.shares import reconstruct
from capcsim.errors import UnsupportedModel
from capcsim_crypten import CryptenBackend
from capcsim_crypten.deviations import explain
from tests.fixed_point.zoo import ARCHITECTURES, CHAINS

MODELS = {**CHAINS, **{name: ARCHITECTURES[name] for name in ("logistic", "cryptonet-relu", "resnet-8")}}
X = np.random.default_rng(0).normal(0, 1, (60, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 1)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_reference_within_the_tolerance(backend: CryptenBackend, name: str) -> None:
    prepared = backend.prepare(MODELS[name](), seed=0)
    x = np.random.default_rng(1).random((2, *prepared.public.input_shape), np.float32)
    session, _ = backend.open(0, prepared)
    logits, _ = backend.infer(session, x)
    error = np.abs(reconstruct(logits.values, logits.ring_bits) - backend.reference(prepared, x))
    assert error.max() <= prepared.private.tolerance * 2.0**logits.fraction_bits
    assert error.max() < 0.01 * 2.0**logits.fraction_bits
    assert logits.fraction_bits == prepared.public.fraction_bits


@pytest.mark.parametrize("estimator", [LogisticRegression(), MLPClassifier((8,), max_iter=20, random_state=0)])
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_estimators_too(backend: CryptenBackend, estimator: LogisticRegression | MLPClassifier) -> None:
    prepared = backend.prepare(estimator.fit(X, Y), seed=0)
    session, _ = backend.open(0, prepared)
    logits, _ = backend.infer(session, X)
    found, expected = reconstruct(logits.values, logits.ring_bits), backend.reference(prepared, X)
    limit = prepared.private.tolerance * 2.0**logits.fraction_bits
    assert set(explain(expected, found, limit)) <= {"", "near tie"}
    assert np.abs(found - expected).max() <= limit


def test_trees_are_refused_before_any_process_is_started() -> None:
    backend = CryptenBackend()
    with pytest.raises(UnsupportedModel, match="CrypTen's primitives do not evaluate trees"):
        backend.prepare(DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, Y), seed=0)
    assert not backend._parties._helpers
