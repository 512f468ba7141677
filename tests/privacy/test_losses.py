"""Composed privacy losses against direct sums in many digits, and between the two estimates of dp-accounting."""

from collections.abc import Callable
from math import inf, log
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from capcsim.privacy import losses
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.conversions import ORDERS, epsilon_gaussian, epsilon_improved
from capcsim.privacy.losses import Part, epsilon_connected, epsilon_of_losses
from capcsim.privacy.mechanisms import Adjacency, GNMax, LNMax, NoiseKind

CONTINUOUS, DISCRETE = NoiseKind
slow = pytest.mark.slow
TEST = GNMax(20.0, adjacency=Adjacency.ADD_REMOVE)


def composed(sigma: float, counts: int) -> tuple[int, list[Any]]:
    """(smallest value, probabilities) of a sum of discrete Gaussians, term by term."""
    reach = int(40 * sigma) + 10
    one = [mp.exp(-(mp.mpf(k) ** 2) / (2 * mp.mpf(sigma) ** 2)) for k in range(-reach, reach + 1)]
    whole, law = mp.fsum(one), [mp.mpf(1)]
    for _ in range(counts):
        longer = [mp.mpf(0)] * (len(law) + len(one) - 1)
        for i, a in enumerate(law):
            for j, b in enumerate(one):
                longer[i + j] += a * b / whole
        law = longer
    return -reach * counts, law


def smallest_epsilon(losses_: list[Any], law: list[Any], delta: float) -> float:
    low, high = mp.mpf(0), max(losses_)

    def of(epsilon: Any) -> Any:
        return mp.fsum(p * (1 - mp.exp(epsilon - x)) for x, p in zip(losses_, law, strict=True) if x > epsilon)

    if of(low) <= delta:
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if of(middle) <= delta else (middle, high)
    return float(high)


@pytest.mark.parametrize(
    ("sigma", "moved", "labels", "delta"),
    [
        (0.5, 1, 1, 1e-5),
        (0.3, 1, 1, 1e-5),
        (1.0, 2, 1, 1e-9),
        (2.0, 1, 1, 1e-300),
        (0.7, 1, 2, 1e-100),
        (1.0, 3, 1, 0.3),
    ],
)
def test_discrete_gaussians_are_composed_exactly(sigma: float, moved: int, labels: int, delta: float) -> None:
    with mp.workdps(60 if delta > 1e-50 else 330):
        first, law = composed(sigma, 2 * labels)
        steps = [2 * labels * moved**2 + 2 * moved * (first + k) for k in range(len(law))]
        truth = smallest_epsilon([step / (2 * mp.mpf(sigma) ** 2) for step in steps], law, delta)
    found = epsilon_of_losses([(GNMax(sigma, moved), labels)], delta, DISCRETE)
    assert found is not None
    assert truth <= found <= truth * (1 + 1e-9)


def of_library(build: Callable[..., Any], parameter: float, moved: int, counts: int, interval: float) -> list[Any]:
    """The optimistic and the pessimistic law of so many counts."""
    return [
        build(
            parameter,
            sensitivity=moved,
            value_discretization_interval=interval,
            pessimistic_estimate=pessimistic,
            **({} if pessimistic else {"use_connect_dots": False}),
        ).self_compose(counts)
        for pessimistic in (False, True)
    ]


@pytest.mark.parametrize(
    ("sigma", "moved", "labels", "delta"),
    [(7.0, 1, 60, 1e-5), pytest.param(40.0, 1, 550, 1e-6, marks=slow), (0.7, 1, 5, 1e-5), (7.0, 3, 20, 1e-5)],
)
def test_it_lies_between_the_librarys_estimates(sigma: float, moved: int, labels: int, delta: float) -> None:
    interval = 1e-4 * moved / sigma
    low, high = of_library(pld.from_discrete_gaussian_mechanism, sigma, moved, 2 * labels, interval)
    found = epsilon_of_losses([(GNMax(sigma, moved), labels)], delta, DISCRETE)
    assert found is not None
    assert low.get_epsilon_for_delta(delta) <= found <= high.get_epsilon_for_delta(delta)


@pytest.mark.parametrize("noise", [CONTINUOUS, DISCRETE])
@pytest.mark.parametrize(
    ("scale", "moved", "labels", "delta"),
    [pytest.param(20.0, 1, 550, 1e-6, marks=slow), (5.0, 4, 60, 1e-5), (0.5, 1, 9, 1e-5)],
)
def test_laplace_losses_lie_there_too(noise: NoiseKind, scale: float, moved: int, labels: int, delta: float) -> None:
    discrete = noise is DISCRETE
    build = pld.from_discrete_laplace_mechanism if discrete else pld.from_laplace_mechanism
    interval = 1.2e-4 * moved / scale
    low, high = of_library(build, 1 / scale if discrete else scale, moved, 2 * labels, interval)
    found = epsilon_of_losses([(LNMax(scale, moved), labels)], delta, noise)
    assert found is not None
    # Continuous losses are laid on a grid that is a little coarser than the library's here.
    assert low.get_epsilon_for_delta(delta) <= found <= high.get_epsilon_for_delta(delta) * (1 + 1e-6)


@slow
def test_two_kinds_of_noise_are_composed() -> None:
    low, high = (
        test.compose(argmax).get_epsilon_for_delta(1e-5)
        for test, argmax in zip(
            of_library(pld.from_discrete_gaussian_mechanism, 20.0, 1, 60, 5e-6),
            of_library(pld.from_discrete_gaussian_mechanism, 7.0, 1, 60, 5e-6),
            strict=True,
        )
    )
    found = epsilon_of_losses([(TEST, 60), (GNMax(7.0), 30)], 1e-5, DISCRETE)
    assert found is not None
    assert low <= found <= high
    assert found == epsilon_of_losses([(GNMax(7.0), 30), (TEST, 60)], 1e-5, DISCRETE)
    assert epsilon_of_losses([(TEST, 0), (GNMax(7.0), 0)], 1e-5, DISCRETE) == 0


@pytest.mark.parametrize("delta", [1e-5, 1e-300])
def test_where_a_window_is_too_small_much_noise_is_bounded_by_the_continuous(
    monkeypatch: pytest.MonkeyPatch, delta: float
) -> None:
    parts: list[Part] = [(GNMax(60.0), 200)]
    exact = epsilon_of_losses(parts, delta, DISCRETE)
    monkeypatch.setattr(losses, "SMALL_WINDOW", 100)
    bound = epsilon_of_losses(parts, delta, DISCRETE)
    assert exact is not None
    assert bound is not None
    assert exact <= bound <= exact + 1.1 / 3600


EXTREMES: list[Part] = [
    (mechanism, labels)
    for labels in (1, 60, 100_000)
    for mechanism in (
        *(GNMax(sigma) for sigma in (1e-160, 1e-5, 0.3, 1e3, 1e6, 1e300)),
        *(LNMax(scale) for scale in (1e-300, 1e-5, 0.3, 1e3, 1e6, 1e300)),
        *(kind(7.0, moved) for kind in (GNMax, LNMax) for moved in (1000, 7919, 1 << 31)),
    )
]


@pytest.mark.parametrize("delta", [0.5, 1e-5, 1e-300])
@pytest.mark.parametrize(("mechanism", "labels"), EXTREMES, ids=str)
def test_at_the_edges_it_is_a_figure_below_renyis_or_none(mechanism: GNMax | LNMax, labels: int, delta: float) -> None:
    found = epsilon_of_losses([(mechanism, labels)], delta, DISCRETE)
    highest = epsilon_improved(ORDERS, labels * mechanism.rdp(ORDERS, DISCRETE), delta)[0]
    if found is None:
        assert highest > 1e290
        found = highest
    assert 0 <= found <= highest
    assert Accountant(mechanism, delta).epsilon(labels) == found


@pytest.mark.parametrize(("mu", "delta"), [(1.56, 1e-5), (30.0, 1e-5), (1.0, 1e-12)])
def test_connected_dots_are_the_librarys(mu: float, delta: float) -> None:
    library = pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-4 * mu)
    assert epsilon_connected(mu, delta) == pytest.approx(library.get_epsilon_for_delta(delta), rel=1e-9)
    assert epsilon_gaussian(mu, delta) < epsilon_connected(mu, delta) < epsilon_gaussian(mu, delta) * (1 + 1e-7)


@pytest.mark.parametrize(
    ("mu", "delta"), [(1e-3, 1e-5), (1e-3, 1e-9), (0.01, 1e-20), (1.5, 1e-300), (1.5, 0.5), (219.0, 1e-5), (1e5, 1e-5)]
)
def test_the_analytic_gaussian_is_an_upper_bound_at_its_edges(mu: float, delta: float) -> None:
    found = epsilon_gaussian(mu, delta)
    with mp.workdps(80):

        def log_delta(epsilon: Any) -> Any:
            a, b = mp.mpf(mu) / 2 - epsilon / mp.mpf(mu), -mp.mpf(mu) / 2 - epsilon / mp.mpf(mu)
            return mp.log(mp.ncdf(a) - mp.exp(epsilon) * mp.ncdf(b))

        assert log_delta(mp.mpf(found)) <= mp.log(mp.mpf(delta))
        assert log_delta(mp.mpf(found) * (1 - mp.mpf("1e-10"))) > mp.log(mp.mpf(delta))


@pytest.mark.parametrize(
    ("mu", "delta", "expected"), [(0.0, 1e-5, 0.0), (1e-12, 1e-5, 0.0), (inf, 1e-5, inf), (1e160, 0.1, inf)]
)
def test_the_analytic_gaussian_has_ends(mu: float, delta: float, expected: float) -> None:
    assert epsilon_gaussian(mu, delta) == expected
    assert epsilon_connected(mu, delta) == expected


def test_a_divergence_that_underflows_is_no_proof_of_privacy() -> None:
    nothing = np.zeros(ORDERS.size)
    assert epsilon_improved(ORDERS, nothing, 1e-5)[0] == 0
    tiny = epsilon_improved(ORDERS, nothing, 1e-300)[0]
    assert 0 < tiny <= -log(1e-300) / (ORDERS.max() - 1)
    assert epsilon_improved(ORDERS, np.full(ORDERS.size, inf), 1e-5)[0] == inf
