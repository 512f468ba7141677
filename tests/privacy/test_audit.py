"""The distinguishing game on the real release: Yao's step 3 with the operating system's noise."""

import numpy as np
import pytest
from numpy.typing import NDArray

from capcsim.backend import VOTE_RING_BITS
from capcsim.crypto.shares import share
from capcsim.errors import InputError
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.audit import Release, audit, epsilon_from_errors
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, Mechanism
from capcsim.privacy.noise import real_draw
from capcsim.protocol.steps import release_noise
from capcsim_plaintext import PlaintextBackend

LABELS, GAMES, DELTA = 8, 600, 1e-5
NEIGHBOURS = ([25, 24], [24, 25])


def real_release(mechanism: Mechanism) -> Release:
    backend = PlaintextBackend()
    session, _ = backend.open(0, None)

    def release(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        own, guardian = share(counts, VOTE_RING_BITS)
        noise = release_noise(mechanism, [real_draw(mechanism, *counts.shape)], 50)
        return backend.release(session, own, guardian, noise)[0].labels

    return release


@pytest.mark.parametrize("mechanism", [GNMax(7.0), ConfidentGNMax(7.0, 25, 20.0)], ids=["gnmax", "confident"])
def test_the_real_release_stays_below_its_claim(mechanism: Mechanism) -> None:
    found = audit(real_release(mechanism), *NEIGHBOURS, labels=LABELS, games=GAMES, delta=DELTA)
    assert not found.contradicts(Accountant(mechanism, DELTA).epsilon(LABELS))
    assert 0 <= found.lower_bound < 2


def test_noise_cut_to_a_tenth_is_caught() -> None:
    claimed = Accountant(GNMax(7.0), DELTA).epsilon(LABELS)
    found = audit(real_release(GNMax(0.7)), *NEIGHBOURS, labels=LABELS, games=GAMES, delta=DELTA)
    assert found.contradicts(claimed)
    assert found.lower_bound < Accountant(GNMax(0.7), DELTA).epsilon(LABELS)


def test_the_bound_is_clopper_pearsons() -> None:
    # No error in 1000 games: with confidence 0.975 each rate is below 1 - 0.025^(1/1000).
    upper = 1 - 0.025 ** (1 / 1000)
    assert epsilon_from_errors(0, 0, 1000, 0.0, 0.95) == pytest.approx(np.log((1 - upper) / upper))
    assert epsilon_from_errors(500, 500, 1000, 1e-5, 0.95) == 0
    assert epsilon_from_errors(0, 1000, 1000, 1e-5, 0.95) == 0, "an adversary that never says yes knows nothing"


@pytest.mark.parametrize("wrong", [{"labels": 0}, {"games": 3}, {"confidence": 1.0}])
def test_a_game_must_be_possible(wrong: dict[str, float]) -> None:
    options = {"labels": 1, "games": 50, "confidence": 0.9, **wrong}
    with pytest.raises(InputError, match="at least"):
        audit(lambda counts: counts[:, 0], *NEIGHBOURS, delta=DELTA, **options)  # type: ignore[arg-type]
