"""The CrypTen backend as its users see it."""

from typing import Any

import numpy as np
import pytest

from capcsim import registry
from capcsim.backend import VOTE_RING_BITS, Role, Shares
from capcsim.conformance import CHECKS
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import InputError
from capcsim.learning.models import build_model
from capcsim.twoparty.voting import YAO, one_hot_argmax
from capcsim_crypten import CryptenBackend


def logistic() -> Any:
    return build_model("logistic", (4,), 6, (), seed=0).eval()


def test_the_provider_decides_what_is_promised(backend: CryptenBackend, dealt: CryptenBackend) -> None:
    assert registry.status("crypten").capabilities == CryptenBackend.capabilities == backend.capabilities
    assert backend.capabilities.security == "trusted first party"
    assert "the query, every activation and every logit" in backend.capabilities.leaks[Role.ANSWERER]
    assert dealt.capabilities.security == "semi-honest with trusted dealer"
    assert "together with either party, everything" in dealt.capabilities.leaks[Role.DEALER]
    for found in (backend.capabilities, dealt.capabilities):
        assert "Mersenne Twister" in found.leaks[Role.QUERIER]
        assert not found.exact


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"provider": "HE"}, "provider = 'HE': choose one of first-party, third-party"),
        ({"argmax": "tree"}, "argmax = 'tree': choose one of crypten, yao"),
        ({"timeout_s": 0.0}, "timeout_s = 0.0: must be positive"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        registry.load("crypten", options)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param("infer equals reference", marks=pytest.mark.slow),
        pytest.param("shares are fresh", marks=pytest.mark.slow),
        "transcripts are well formed",
    ],
)
def test_it_conforms_with_a_dealer_too(dealt: CryptenBackend, check: str) -> None:
    """With its defaults it is in tests/test_conformance.py."""
    CHECKS[check](dealt)


@pytest.mark.parametrize("name", ["backend", "dealt"])
def test_its_own_argmax_never_leaves_a_tie_to_chance(name: str, request: pytest.FixtureRequest) -> None:
    backend: CryptenBackend = request.getfixturevalue(name)
    session, _ = backend.open(0, backend.prepare(logistic(), seed=0))
    generator = np.random.default_rng(0)
    logits = np.concatenate([np.zeros((60, 6), np.int64), generator.integers(-3, 3, (60, 6))])
    votes, _ = backend.argmax(session, Shares(share(logits, 48), 48, 24))
    assert np.array_equal(reconstruct(votes.values, VOTE_RING_BITS), one_hot_argmax(logits))


def test_yao_computes_the_argmax_by_option() -> None:
    backend = CryptenBackend(argmax="yao")
    assert backend.capabilities.argmax == YAO
    prepared = backend.prepare(logistic(), seed=0)
    session, _ = backend.open(0, prepared)
    x = np.random.default_rng(0).random((9, 4), np.float32)
    logits, _ = backend.infer(session, x)
    votes, _ = backend.argmax(session, logits)
    opened = reconstruct(logits.values, logits.ring_bits)
    assert np.array_equal(reconstruct(votes.values, VOTE_RING_BITS), one_hot_argmax(opened))
    assert np.array_equal(opened.argmax(axis=1), backend.reference(prepared, x).argmax(axis=1))
    backend.close()


def test_the_guardians_session_has_no_model(backend: CryptenBackend) -> None:
    session, _ = backend.open(0, None)
    with pytest.raises(InputError, match="this session is the privacy guardian's"):
        backend.infer(session, np.zeros((1, 4), np.float32))
