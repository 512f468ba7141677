"""What a mechanism says of itself, against formulas of its own or what it is made of."""

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capcsim.privacy.mechanisms import (
    PARAMETERS,
    Adjacency,
    ConfidentGNMax,
    Family,
    GNMax,
    LNMax,
    Mechanism,
    NoiseKind,
    build,
)
from capcsim.privacy.noise import largest_noise, simulated_draw

UNITS = [(1, Adjacency.REPLACE), (3, Adjacency.REPLACE), (3, Adjacency.ADD_REMOVE)]
MECHANISMS: list[Mechanism] = [
    kind for unit in UNITS for kind in (GNMax(7.0, *unit), LNMax(20.0, *unit), ConfidentGNMax(7.0, 30, 25.0, *unit))
]
ORDERS = np.array([1.05, 1.5, 2.0, 8.0, 64.0, 1024.0])


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=str)
def test_a_test_there_is_where_queries_may_stay_unanswered(mechanism: Mechanism) -> None:
    tested = not mechanism.answers_every_query
    assert tested is (mechanism.threshold is not None) is (mechanism.test_noise is not None) is (mechanism.rho_test > 0)
    drawn = simulated_draw(mechanism, 5, 4, np.random.default_rng(0))
    assert drawn.votes.shape == (5, 4)
    assert (drawn.top is not None) is tested


def test_an_answer_of_a_mechanism_without_a_test_is_its_own() -> None:
    for mechanism in (GNMax(7.0, 3), LNMax(20.0, 3)):
        assert mechanism.argmax is mechanism
    assert ConfidentGNMax(7.0, 30, 25.0, 3).argmax == GNMax(7.0, 3)
    assert [mechanism.family for mechanism in MECHANISMS[:3]] == [Family.GAUSSIAN, Family.LAPLACE, Family.GAUSSIAN]


def test_the_noise_of_a_test_moves_by_a_units_votes_in_one_count() -> None:
    mechanism = ConfidentGNMax(7.0, 30, 25.0, 3)
    assert mechanism.test_noise == GNMax(25.0, 3, Adjacency.ADD_REMOVE)
    assert mechanism.rho_test == pytest.approx(3**2 / (2 * 25**2), rel=1e-15)
    assert largest_noise(mechanism) == 30 + 40 * 25


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=str)
def test_what_happened_costs_what_its_histograms_cost(mechanism: Mechanism) -> None:
    answered, unanswered = 5, 0 if mechanism.answers_every_query else 4
    rho = mechanism.rho_of(answered, unanswered)
    parts = mechanism.histograms(answered, unanswered)
    assert rho == pytest.approx(sum(number * part.rho for part, number in parts), rel=1e-15)
    assert rho == pytest.approx(5 * mechanism.argmax.rho + (5 + unanswered) * mechanism.rho_test, rel=1e-15)
    mu = mechanism.gaussian_mu(answered, unanswered)
    assert mu == (None if mechanism.family is Family.LAPLACE else pytest.approx(sqrt(2 * rho), rel=1e-15))


@given(st.floats(0.01, 1000), st.integers(1, 100), st.sampled_from(Adjacency))
def test_of_laplace_noise_the_concentrated_bound_is_above_each_renyi_divergence(
    b: float, moved_votes: int, adjacency: Adjacency
) -> None:
    mechanism = LNMax(b, moved_votes, adjacency)
    for noise in NoiseKind:
        assert (mechanism.rdp(ORDERS, noise) <= mechanism.rho * ORDERS * (1 + 1e-6) + 1e-12).all()
        assert (mechanism.rdp(ORDERS, noise) <= mechanism.pure_epsilon * (1 + 1e-6) + 1e-12).all()


def test_gaussian_noise_is_never_purely_private_and_costs_the_same_of_both_kinds() -> None:
    mechanism = GNMax(7.0)
    assert mechanism.pure_epsilon == inf
    assert (mechanism.rdp(ORDERS, NoiseKind.DISCRETE) == ORDERS / 49).all()
    assert (mechanism.rdp(ORDERS) == ORDERS / 49).all()


def test_one_is_built_from_its_parameters_by_name() -> None:
    given = {"sigma": 7.0, "scale": 20.0, "threshold": 30, "sigma1": 25.0}
    assert [build(name, given, 3) for name in PARAMETERS] == MECHANISMS[3:6]
    assert [mechanism.name for mechanism in MECHANISMS[:3]] == list(PARAMETERS)
    with pytest.raises(KeyError):
        build("confident-gnmax", {"sigma": 7.0})


def test_titles_tell_every_parameter() -> None:
    assert [mechanism.title for mechanism in MECHANISMS[:3]] == [
        "gnmax, sigma 7",
        "lnmax, scale 20",
        "confident-gnmax, sigma 7, threshold 30 with sigma1 25",
    ]
