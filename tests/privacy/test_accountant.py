"""Golden values: dp-accounting 0.6.0 and autodp 0.2.3.1 agree on the analytic ones to 1e-9."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.errors import InputError
from capcsim.privacy.accountant import Accountant, PaperAccountant
from capcsim.privacy.mechanisms import Event, GNMax, LNMax


@pytest.mark.parametrize(
    ("sigma", "labels", "delta", "golden"),
    [(40.0, 550, 1e-6, 3.95328236680), (7.0, 550, 1e-5, 30.72101744514), (7.0, 1650, 1e-5, 67.86964619364)],
)
def test_analytic_gaussian_equals_the_golden_values(sigma: float, labels: int, delta: float, golden: float) -> None:
    found = Accountant(GNMax(sigma), delta).epsilon_analytic(labels)
    assert found == pytest.approx(golden, rel=1e-9)


@pytest.mark.parametrize(("sigma", "labels", "delta"), [(40.0, 550, 1e-6), (7.0, 40, 1e-5), (7.0, 291, 1e-5)])
def test_discrete_bound_is_close_above_the_continuous_one_where_sigma_is_large(
    sigma: float, labels: int, delta: float
) -> None:
    accountant = Accountant(GNMax(sigma), delta)
    analytic = accountant.epsilon_analytic(labels)
    assert analytic is not None
    assert analytic <= accountant.epsilon(labels) <= 1.002 * analytic


def test_discrete_and_continuous_part_where_sigma_is_small() -> None:
    accountant = Accountant(GNMax(0.7), 1e-5)
    analytic = accountant.epsilon_analytic(5)
    assert analytic is not None
    assert abs(accountant.epsilon(5) / analytic - 1) > 0.005


def test_laplace_bound_equals_the_golden_value() -> None:
    # Discrete Laplace; the continuous one gives 8.6815, advanced composition (the paper's Theorem 1) 18.11.
    assert Accountant(LNMax(20.0), 1e-6).epsilon(550) == pytest.approx(8.767, rel=2e-3)
    assert Accountant(LNMax(20.0), 1e-6).epsilon_analytic(550) is None


def test_one_laplace_label_costs_at_most_its_pure_epsilon() -> None:
    assert Accountant(LNMax(3.0), 1e-12).epsilon(1) <= 2 / 3 + 1e-3


@pytest.mark.parametrize(
    ("sigma", "budget", "delta", "labels"), [(40.0, 2.0, 1e-6, 160), (40.0, 2.35, 1e-6, 215), (7.0, 6.0, 1e-5, 42)]
)
def test_what_a_budget_buys(sigma: float, budget: float, delta: float, labels: int) -> None:
    accountant = Accountant(GNMax(sigma), delta)
    assert accountant.affordable(budget, at_most=1000) == labels
    assert accountant.epsilon(labels) <= budget < accountant.epsilon(labels + 1)
    assert accountant.affordable(budget, at_most=10) == 10


def test_a_budget_too_small_for_one_label_buys_none() -> None:
    assert Accountant(GNMax(1.0), 1e-6).affordable(0.5, at_most=50) == 0


@pytest.mark.parametrize("votes", [2, 3])
def test_a_unit_with_more_votes_costs_like_less_noise(votes: int) -> None:
    many = Accountant(GNMax(12.0, moved_votes=votes), 1e-5).epsilon_analytic(7)
    one = Accountant(GNMax(12.0 / votes), 1e-5).epsilon_analytic(7)
    assert many == pytest.approx(one)
    assert Accountant(GNMax(12.0, moved_votes=votes), 1e-5).epsilon(7) == pytest.approx(one, rel=5e-3)


@settings(max_examples=8, deadline=None)
@given(st.floats(1.0, 50.0), st.integers(1, 40), st.floats(1e-7, 1e-3))
def test_epsilon_grows_with_labels_and_falls_with_noise_and_delta(sigma: float, labels: int, delta: float) -> None:
    here = Accountant(GNMax(sigma), delta).epsilon(labels)
    assert here < Accountant(GNMax(sigma), delta).epsilon(labels + 2)
    assert here > Accountant(GNMax(1.5 * sigma), delta).epsilon(labels)
    assert here > Accountant(GNMax(sigma), 5 * delta).epsilon(labels)


def test_nothing_released_costs_nothing() -> None:
    accountant = Accountant(GNMax(7.0), 1e-5)
    assert accountant.epsilon(0) == accountant.epsilon_analytic(0) == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_noise_needs_a_finite_parameter_above_zero(scale: float) -> None:
    with pytest.raises(InputError, match="finite parameter above 0"):
        GNMax(scale)
    with pytest.raises(InputError, match="finite parameter above 0"):
        LNMax(scale)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 2.0])
def test_delta_lies_between_zero_and_one(delta: float) -> None:
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        Accountant(GNMax(7.0), delta)


def test_where_a_label_costs_what_its_votes_say_none_is_refused_beforehand() -> None:
    whole, mechanism = {Event(log_q=-1e-6): 1}, GNMax(0.1)
    assert PaperAccountant(mechanism, 1e-5).epsilon_of(whole) > 1.0
    assert PaperAccountant(mechanism, 1e-5).affordable(1.0, 40) == 40
    assert Accountant(mechanism, 1e-5).affordable(1.0, 40) == 0
