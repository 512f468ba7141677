"""The exact analysis against sums in 50 digits, against Theorem 6, and against itself."""

from collections.abc import Callable
from functools import cache
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.errors import InputError
from capcsim.privacy import exact
from capcsim.privacy.conversions import ORDERS, epsilon_improved
from capcsim.privacy.exact import (
    exact_bounds,
    exact_curve,
    exact_rdp,
    exact_test_bounds,
    exact_test_rdp,
    label_probabilities,
    worst_case_rdp,
)
from capcsim.privacy.mechanisms import Adjacency, ConfidentGNMax, GNMax, NoiseKind
from capcsim.privacy.theorem6 import log_q, theorem6
from tests.privacy.test_golden import GOLDEN

CONTINUOUS, DISCRETE = NoiseKind
SOME_ORDERS = [1.05, 1.5, 2.0, 3.5, 8.0, 32.0, 256.0]
Probabilities = Callable[[tuple[int, ...], float], list[Any]]


@cache
def normal_cdfs(count: int, sigma: float, low: int, high: int, _digits: int) -> list[Any]:
    """Phi on a lattice of a fifth of sigma from `low` to `high`: the trapezoidal rule is right to 50 digits there."""
    return [mp.ncdf((z - count) / mp.mpf(sigma)) for z in lattice(sigma, low, high)]


def lattice(sigma: float, low: int, high: int) -> list[Any]:
    step = mp.mpf(sigma) / 5
    return [low + step * k for k in range(int((high - low) / step) + 2)]


def continuous(counts: tuple[int, ...], sigma: float) -> list[Any]:
    """Label probabilities with Gaussian noise."""
    low, high = -int(15 * sigma) - 2, 60 + int(15 * sigma) + 2
    found = []
    for j, own in enumerate(counts):
        others = [normal_cdfs(count, sigma, low, high, mp.mp.dps) for i, count in enumerate(counts) if i != j]
        terms = (
            mp.npdf((z - own) / mp.mpf(sigma)) * mp.fprod(column[k] for column in others)
            for k, z in enumerate(lattice(sigma, low, high))
        )
        found.append(mp.fsum(terms) / 5)
    return found


@cache
def discrete_law(sigma: float, _digits: int) -> tuple[int, list[Any], list[Any]]:
    """(reach, Pr[Z = k], Pr[Z <= k]) of the discrete Gaussian."""
    reach = int(16 * sigma) + 80
    weights = [mp.exp(-(mp.mpf(k) ** 2) / (2 * mp.mpf(sigma) ** 2)) for k in range(-reach, reach + 1)]
    whole, total, sums = mp.fsum(weights), mp.mpf(0), []
    for weight in weights:
        total += weight
        sums.append(total / whole)
    return reach, [weight / whole for weight in weights], sums


def discrete(counts: tuple[int, ...], sigma: float) -> list[Any]:
    """Label probabilities with discrete noise, where the lowest class wins a tie."""
    reach, mass, sums = discrete_law(sigma, mp.mp.dps)

    def below(k: int) -> Any:
        return mp.mpf(0) if k < -reach else sums[min(k + reach, 2 * reach)]

    found = []
    for j, own in enumerate(counts):
        total = mp.mpf(0)
        for k in range(-int(15 * sigma) - 12, int(15 * sigma) + 12 + max(counts) - own):
            others = (below(k + own - count - (i < j)) for i, count in enumerate(counts) if i != j)
            total += mass[k + reach] * mp.fprod(others)
        found.append(total)
    return found


def divergence(p: list[Any], q: list[Any], order: float) -> Any:
    return mp.log(mp.fsum(a**order * b ** (1 - order) for a, b in zip(p, q, strict=True))) / (mp.mpf(order) - 1)


def largest(counts: tuple[int, ...], sigma: float, probabilities: Probabilities) -> list[list[Any]]:
    """Both directions' largest divergence over all one-vote moves."""
    here = probabilities(counts, sigma)
    found = [[mp.mpf(0)] * len(SOME_ORDERS) for _ in range(2)]
    for a in range(len(counts)):
        for b in range(len(counts)):
            if a != b and counts[a]:
                moved = list(counts)
                moved[a] -= 1
                moved[b] += 1
                there = probabilities(tuple(moved), sigma)
                for place, order in enumerate(SOME_ORDERS):
                    found[0][place] = max(found[0][place], divergence(here, there, order))
                    found[1][place] = max(found[1][place], divergence(there, here, order))
    return found


def histograms() -> list[tuple[tuple[int, ...], float, NoiseKind]]:
    """Forty of at most four classes: near-ties and clear ones, little noise and much."""
    generator = np.random.default_rng(6)
    found = []
    for number in range(40):
        classes, voters = int(generator.integers(2, 5)), int(generator.integers(2, 50))
        sigma = round(float(np.exp(generator.uniform(np.log(1.2), np.log(12)))), 2)
        counts = generator.multinomial(voters, generator.dirichlet(np.full(classes, 0.6)))
        found.append((tuple(int(n) for n in counts), sigma, (CONTINUOUS, DISCRETE)[number % 2]))
    return found


SOME, MORE = histograms()[:12], histograms()[12:]


@pytest.mark.parametrize(
    ("counts", "sigma", "noise"), SOME + [pytest.param(*one, marks=pytest.mark.slow) for one in MORE]
)
def test_it_is_a_bound_and_within_1e_8_of_50_digits(counts: tuple[int, ...], sigma: float, noise: NoiseKind) -> None:
    with mp.workdps(50):
        probabilities = continuous if noise is CONTINUOUS else discrete
        reference = largest(counts, sigma, probabilities)
        ours = exact_rdp([counts], GNMax(sigma), SOME_ORDERS, noise)[0]
        for row, truths in zip(ours, reference, strict=True):
            for found, truth, order in zip(row, truths, SOME_ORDERS, strict=True):
                truth = min(truth, order / mp.mpf(sigma) ** 2)
                # What 50 digits leave of a divergence near 0 is no longer the truth.
                assert truth - mp.mpf("1e-40") <= found <= truth * (1 + mp.mpf("1e-8")) + mp.mpf("1e-40")


def test_the_trapezoidal_sums_agree_with_adaptive_quadrature() -> None:
    with mp.workdps(30):
        others = (4, 2)
        value = mp.quad(
            lambda z: mp.npdf((z - 5) / 3) / 3 * mp.fprod(mp.ncdf((z - n) / 3) for n in others),
            [-40, -10, 0, 5, 10, 20, 50],
        )
        assert abs(continuous((5, 4, 2), 3.0)[0] - value) < mp.mpf("1e-25")


def test_theorem_6_is_below_the_reverse_divergence_and_ours_is_above_both() -> None:
    """The counterexample: two classes, votes [37, 14], sigma 4, order 3.5."""
    mechanism, votes = GNMax(4.0), [[37, 14]]
    bound = theorem6(log_q(votes, mechanism), mechanism, [3.5])[0]
    with mp.workdps(50):
        here, there = continuous((37, 14), 4.0), continuous((36, 15), 4.0)
        forward, reverse = divergence(here, there, 3.5), divergence(there, here, 3.5)
    assert bound == pytest.approx(7.41e-4, rel=1e-3)
    assert float(forward) < bound < float(reverse) == pytest.approx(1.445e-3, rel=1e-3)
    ours = exact_rdp(votes, mechanism, [3.5])[0, :, 0]
    assert ours[0] >= forward
    assert ours[1] >= reverse


@pytest.mark.parametrize("noise", [CONTINUOUS, DISCRETE])
@pytest.mark.parametrize("name", [pytest.param("svhn_like_K250", marks=pytest.mark.slow), "cifar_like_K50"])
def test_it_is_far_below_theorem_6_over_550_queries(name: str, noise: NoiseKind) -> None:
    stream = GOLDEN["streams"][name]
    mechanism, delta = GNMax(stream["sigma"]), stream["delta"]
    ours = epsilon_improved(ORDERS, exact_curve(exact_rdp(stream["votes"], mechanism, ORDERS, noise)), delta)[0]
    published = epsilon_improved(ORDERS, theorem6(log_q(stream["votes"], mechanism), mechanism, ORDERS), delta)[0]
    assert 1.4 * ours < published


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=6).filter(any), st.floats(0.8, 60), st.randoms())
def test_properties_of_one_histogram(counts: list[int], sigma: float, random: Any) -> None:
    mechanism = GNMax(sigma)
    ours = exact_rdp([counts], mechanism, SOME_ORDERS)[0]
    assert (ours <= mechanism.rdp(np.array(SOME_ORDERS))).all()
    assert (ours >= 0).all()
    assert (np.diff(ours, axis=1) >= -1e-12).all(), "a Renyi divergence grows with its order"
    shuffled = random.sample(counts, len(counts))
    assert np.array_equal(exact_rdp([shuffled], mechanism, SOME_ORDERS)[0], ours)
    added = exact_rdp([counts], GNMax(sigma, adjacency=Adjacency.ADD_REMOVE), SOME_ORDERS)[0]
    assert (added <= mechanism.rdp(np.array(SOME_ORDERS)) / 2 * (1 + 1e-12)).all()


@pytest.mark.parametrize("noise", [CONTINUOUS, DISCRETE])
def test_adding_or_removing_a_vote(noise: NoiseKind) -> None:
    probabilities = continuous if noise is CONTINUOUS else discrete
    ours = exact_rdp([[9, 4, 0]], GNMax(3.0, adjacency=Adjacency.ADD_REMOVE), [3.5], noise)[0, :, 0]
    with mp.workdps(50):
        here, neighbours = probabilities((9, 4, 0), 3.0), [(8, 4, 0), (9, 3, 0), (10, 4, 0), (9, 5, 0), (9, 4, 1)]
        there = [probabilities(counts, 3.0) for counts in neighbours]
        forward = max(divergence(here, other, 3.5) for other in there)
        reverse = max(divergence(other, here, 3.5) for other in there)
    assert [float(forward), float(reverse)] == pytest.approx(ours, rel=1e-8)
    assert forward <= ours[0]
    assert reverse <= ours[1]


@pytest.mark.parametrize("noise", [CONTINUOUS, DISCRETE])
def test_label_probabilities(noise: NoiseKind) -> None:
    found = label_probabilities([[9, 4, 0], [0, 3, 3]], GNMax(3.0), noise)
    with mp.workdps(50):
        probabilities = continuous if noise is CONTINUOUS else discrete
        truth = [[float(p) for p in probabilities(counts, 3.0)] for counts in ((9, 4, 0), (0, 3, 3))]
    assert found == pytest.approx(np.array(truth), rel=1e-12)
    assert (found[1, 1] > found[1, 2] * 1.05) == (noise is DISCRETE), "the lowest class wins a tie"


@pytest.mark.parametrize("noise", [CONTINUOUS, DISCRETE])
def test_the_threshold_test_alone(noise: NoiseKind) -> None:
    mechanism = ConfidentGNMax(5.0, 12, 6.0)
    ours = exact_test_rdp([[10, 3], [2, 11]], mechanism, SOME_ORDERS, noise)
    with mp.workdps(50):

        def outcome(top: int) -> list[Any]:
            if noise is CONTINUOUS:
                return [mp.ncdf(mp.mpf(top - 12) / 6), mp.ncdf(mp.mpf(12 - top) / 6)]
            reach, _, sums = discrete_law(6.0, mp.mp.dps)
            return [1 - sums[12 - top - 1 + reach], sums[12 - top - 1 + reach]]

        for row, top in zip(ours, (10, 11), strict=True):
            for place, order in enumerate(SOME_ORDERS):
                pairs = [(outcome(top), outcome(top + step)) for step in (-1, 1)]
                truth = max(divergence(p, q, order) for p, q in pairs), max(divergence(q, p, order) for p, q in pairs)
                for found, exact in zip(row[:, place], truth, strict=True):
                    assert exact <= found <= exact * (1 + mp.mpf("1e-8"))


FAR = [
    ((12, 3), 0.4, CONTINUOUS),
    ((12, 3), 0.4, DISCRETE),
    ((8, 8), 0.25, CONTINUOUS),
    ((8, 8), 0.25, DISCRETE),
    ((9, 8), 0.1, CONTINUOUS),
    ((8, 9), 0.1, DISCRETE),
    ((0, 30), 0.8, DISCRETE),
    ((40, 2), 0.9, CONTINUOUS),
    pytest.param((11, 4, 4), 0.5, DISCRETE, marks=pytest.mark.slow),
    ((5, 5, 1), 0.3, DISCRETE),
]


@pytest.mark.parametrize(("counts", "sigma", "noise"), FAR, ids=str)
def test_little_noise_against_300_digits(counts: tuple[int, ...], sigma: float, noise: NoiseKind) -> None:
    """Probabilities down to exp(-1,000), that one vote changes by factors of exp(100)."""
    with mp.workdps(60 + int((max(counts) - min(counts) + 2) ** 2 / sigma**2)):
        ours, stands_in = exact_bounds([counts], GNMax(sigma), SOME_ORDERS, noise)
        reference = largest(counts, sigma, two_classes if noise is CONTINUOUS else discrete)
        assert not stands_in.any()
        for row, truths in zip(ours[0], reference, strict=True):
            for found, truth, order in zip(row, truths, SOME_ORDERS, strict=True):
                truth = min(truth, order / mp.mpf(sigma) ** 2)
                assert truth <= found <= truth * (1 + mp.mpf("1e-5")) + mp.mpf("1e-29")


def two_classes(counts: tuple[int, ...], sigma: float) -> list[Any]:
    lead = (counts[0] - counts[1]) / (mp.mpf(sigma) * mp.sqrt(2))
    return [mp.ncdf(lead), mp.ncdf(-lead)]


@pytest.mark.parametrize("noise", [CONTINUOUS, DISCRETE])
@pytest.mark.parametrize(("classes", "sigma"), [(3, 0.8), (5, 1.1), (4, 3.0)])
def test_both_ways_of_summing_agree(monkeypatch: Any, noise: NoiseKind, classes: int, sigma: float) -> None:
    generator = np.random.default_rng(classes)
    rows = generator.multinomial(30, generator.dirichlet(np.full(classes, 0.7), 8))
    shared = exact_rdp(rows, GNMax(sigma), SOME_ORDERS, noise)
    monkeypatch.setattr(exact, "FARTHEST", 0.0)
    alone = exact_rdp(rows, GNMax(sigma), SOME_ORDERS, noise)
    assert shared == pytest.approx(alone, rel=1e-6, abs=1e-12)


def test_where_sigmas_are_countless_terms_are_bounded_without_a_lattice() -> None:
    for noise in (CONTINUOUS, DISCRETE):
        near, far = exact_rdp([[6, 5], [26, 5]], GNMax(1e-8), [1.5, 64.0], noise)[:, :, 0]
        # A lead of one vote becomes none: the label is a coin's, and there was no doubt before.
        assert near[1] == pytest.approx(3 * np.log(2) if noise is CONTINUOUS else 0, abs=2e16)
        assert far == pytest.approx([0, 0], abs=1e-29)


def test_wide_discrete_noise_needs_few_terms_and_equals_all_of_them(monkeypatch: Any) -> None:
    rows = [[60, 31, 9], [40, 30, 30]]
    few = exact_rdp(rows, GNMax(30.0), SOME_ORDERS, DISCRETE)
    monkeypatch.setattr(exact, "_stride", lambda _classes, sigma: (1, 1e-17 * (1 + sigma)))
    assert few == pytest.approx(exact_rdp(rows, GNMax(30.0), SOME_ORDERS, DISCRETE), rel=1e-7)


@pytest.mark.parametrize(("sigma", "noise"), [(1e-200, CONTINUOUS), (1e-200, DISCRETE), (1e6, DISCRETE)])
def test_where_the_data_independent_bound_stands_in_it_is_said(sigma: float, noise: NoiseKind) -> None:
    mechanism = GNMax(sigma)
    found, stands_in = exact_bounds([[250, 0], [130, 120]], mechanism, [2.0], noise)
    assert stands_in.all()
    assert (found == mechanism.rdp(np.array([2.0]))).all()
    confident = ConfidentGNMax(1.0, 200, sigma)
    found, stands_in = exact_test_bounds([[250, 0]], confident, [2.0], noise)
    assert stands_in.all()
    assert found[0, 0, 0] == confident.rho_test * 2.0


def test_many_classes_with_little_noise_are_bounded_where_they_are_alike() -> None:
    rows = [[30, 5, 4, 4] + [1] * 3 + [0] * 93]
    found, stands_in = exact_bounds(rows, GNMax(0.2), [1.5], CONTINUOUS)
    assert not stands_in.any()
    assert found[0, 0, 0] < 1e-20
    assert exact_bounds(rows, GNMax(0.2), [1.5], DISCRETE)[1].all()


@pytest.mark.parametrize(("classes", "noise"), [(2, CONTINUOUS), (2, DISCRETE), (3, CONTINUOUS), (3, DISCRETE)])
def test_the_certified_worst_case_is_above_every_histogram_and_below_the_known_bound(
    classes: int, noise: NoiseKind
) -> None:
    mechanism, orders = GNMax(5.0), np.array([1.5, 8.0])
    worst = worst_case_rdp(14, classes, mechanism, orders, noise)
    assert (worst < 0.7 * mechanism.rdp(orders)).all()
    generator = np.random.default_rng(1)
    rows = generator.multinomial(14, generator.dirichlet(np.ones(classes), 200))
    found = exact_rdp(rows, mechanism, orders, noise).max(axis=(0, 1))
    assert (found <= worst).all()
    assert found == pytest.approx(worst, rel=0.05), "among 200 random histograms one is nearly the worst"


def test_a_bound_for_two_classes_that_may_be_published() -> None:
    """At small orders 2/pi of order/sigma^2, so 3.29 where the noisy histogram costs 3.95."""
    mechanism = GNMax(40.0)
    worst = worst_case_rdp(250, 2, mechanism, ORDERS)
    assert (worst / mechanism.rdp(ORDERS))[0] == pytest.approx(2 / np.pi, rel=1e-3)
    assert epsilon_improved(ORDERS, 550 * worst, 1e-6)[0] == pytest.approx(3.294, rel=1e-3)
    with pytest.raises(InputError, match="more than 200000 to try"):
        worst_case_rdp(250, 10, mechanism, ORDERS)


def test_a_unit_of_several_votes_is_refused() -> None:
    with pytest.raises(InputError, match="too many neighbours"):
        exact_rdp([[5, 3]], GNMax(4.0, moved_votes=2), [2.0])
