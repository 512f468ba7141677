import numpy as np
import pytest
from scipy.stats import chisquare

from capcsim.privacy.mechanisms import GNMax, LNMax, Mechanism
from capcsim.privacy.noise import largest_noise, real_noise, simulated_noise

SAMPLES = 40_000
MECHANISMS = [GNMax(1.3), GNMax(7.0), LNMax(2.5), LNMax(20.0)]


def probabilities(mechanism: Mechanism, support: np.ndarray) -> np.ndarray:
    """The law as its definition gives it."""
    if isinstance(mechanism, GNMax):
        weights = np.exp(-(support**2) / (2 * mechanism.sigma**2))
    else:
        weights = np.exp(-np.abs(support) / mechanism.b)
    return weights / weights.sum()


def fits(mechanism: Mechanism, samples: np.ndarray) -> float:
    """p-value of a chi-squared test, tails pooled so that each bin expects at least ten samples."""
    reach = largest_noise(mechanism)
    support = np.arange(-reach, reach + 1)
    expected = SAMPLES * probabilities(mechanism, support)
    middle = np.flatnonzero(expected >= 10)
    low, high = support[middle[0]], support[middle[-1]]
    observed = np.bincount(np.clip(samples, low, high) - low, minlength=high - low + 1)
    pooled = expected[middle].copy()
    pooled[0] += expected[: middle[0]].sum()
    pooled[-1] += expected[middle[-1] + 1 :].sum()
    return float(chisquare(observed, pooled).pvalue)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)
def test_real_noise_follows_its_law(mechanism: Mechanism) -> None:
    assert fits(mechanism, real_noise(mechanism, (SAMPLES,))) > 1e-6


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)
def test_simulated_noise_follows_the_same_law(mechanism: Mechanism) -> None:
    assert fits(mechanism, simulated_noise(mechanism, (SAMPLES,), np.random.default_rng(1))) > 1e-6


def test_the_check_would_notice_another_law() -> None:
    assert fits(GNMax(7.0), real_noise(GNMax(7.4), (SAMPLES,))) < 1e-6


def test_real_noise_does_not_repeat_and_simulated_noise_does() -> None:
    mechanism = GNMax(40.0)
    assert not np.array_equal(real_noise(mechanism, (64,)), real_noise(mechanism, (64,)))
    first, second = (simulated_noise(mechanism, (4, 16), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (4, 16)


def test_numpy_seeds_do_not_reach_real_noise() -> None:
    draws = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 (the point of the test)
        draws.append(real_noise(GNMax(40.0), (64,)))
    assert not np.array_equal(*draws)
