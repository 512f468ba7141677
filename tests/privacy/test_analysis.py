"""Accounts of whole streams: what grows, what falls, what is charged, what bad input says."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.errors import InputError
from capcsim.privacy.accountant import Accountant, PaperAccountant
from capcsim.privacy.analysis import NOT_RELEASABLE, RELEASABLE, analyse, epsilon_curves
from capcsim.privacy.conversions import advanced_composition, check_orders, epsilon_mironov
from capcsim.privacy.mechanisms import Adjacency, ConfidentGNMax, Event, GNMax, LNMax, Mechanism, NoiseKind
from capcsim.privacy.votes import VoteCounts, check_counts

CONFIDENT = ConfidentGNMax(7.0, 30, 20.0)
MECHANISMS = [GNMax(7.0), LNMax(5.0), CONFIDENT]
STREAM = np.random.default_rng(0).multinomial(50, np.random.default_rng(1).dirichlet(np.full(4, 0.4), 30))


def epsilons(counts: Any, mechanism: Mechanism, delta: float = 1e-5, **options: Any) -> dict[str, float]:
    """Every epsilon that applies, by analysis."""
    found = analyse(VoteCounts(np.array(counts), **options), mechanism, delta).epsilon
    return {name: value for kind in found.values() for name, value in kind.items() if value is not None}


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.name)
def test_every_epsilon_grows_with_queries_and_falls_with_noise_and_delta(mechanism: Mechanism) -> None:
    here = epsilons(STREAM, mechanism)
    assert len(here) >= 5
    more = epsilons(np.concatenate([STREAM, STREAM[:5]]), mechanism)
    # Larger in every parameter; the threshold stays.
    wider = {"sigma": 10.0, "b": 8.0, "sigma1": 30.0}
    fields = {key: wider.get(key, getattr(mechanism, key)) for key in mechanism.__slots__}
    noisier, laxer = epsilons(STREAM, type(mechanism)(**fields)), epsilons(STREAM, mechanism, 1e-3)
    for name, epsilon in here.items():
        assert more[name] > epsilon, name
        assert laxer[name] < epsilon, name
        # More noise also makes the plurality less certain, which a data-dependent bound may dislike.
        if name not in ("theorem6", "theorem6_mironov", "exact"):
            assert noisier[name] < epsilon, name


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_composing_in_any_order_gives_the_same(data: st.DataObject) -> None:
    row = st.lists(st.integers(0, 30), min_size=3, max_size=3).filter(any)
    rows = data.draw(st.lists(st.tuples(row, st.booleans()), min_size=1, max_size=6))
    other = data.draw(st.permutations(rows))
    first, second = (
        epsilons([counts for counts, _ in found], CONFIDENT, answered=np.array([flag for _, flag in found]))
        for found in (rows, other)
    )
    assert first == pytest.approx(second, rel=1e-12)


def test_what_happened_is_charged() -> None:
    queries = len(STREAM)
    unanswered = epsilons(STREAM, CONFIDENT, answered=np.zeros(queries, np.bool_))
    half = epsilons(STREAM, CONFIDENT, answered=np.arange(queries) % 2 == 0)
    everything = epsilons(STREAM, CONFIDENT)
    assert everything == epsilons(STREAM, CONFIDENT, answered=np.ones(queries, np.bool_))
    for name in everything:
        assert 0 < unanswered[name] < half[name] < everything[name], name
    # A threshold test alone is a count of sensitivity 1.
    assert unanswered["analytic"] == pytest.approx(epsilons(STREAM, GNMax(20.0 * 2**0.5))["analytic"])
    assert epsilons(STREAM, GNMax(7.0), answered=np.zeros(queries, np.bool_)) == epsilons(STREAM, GNMax(7.0))


def test_charges_that_were_lost_are_added_in_full() -> None:
    lost = epsilons(STREAM, GNMax(7.0), lost=3)
    assert lost["analytic"] == epsilons(np.concatenate([STREAM, STREAM[:3]]), GNMax(7.0))["analytic"]
    assert lost["theorem6"] > epsilons(STREAM, GNMax(7.0))["theorem6"]
    assert lost["exact"] > epsilons(STREAM, GNMax(7.0))["exact"]


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.name)
def test_the_bounds_stand_in_their_known_order(mechanism: Mechanism) -> None:
    found = epsilons(STREAM, mechanism)
    assert found["pld"] < found["rdp"] < found["rdp_mironov"]
    assert found["theorem6"] <= found["theorem6_mironov"]
    assert found["theorem6"] <= found["rdp"]
    assert found.get("exact", 0.0) <= found["rdp"]
    assert ("analytic" in found) == (mechanism.name != "lnmax")
    assert found.get("analytic", found["pld"]) == pytest.approx(found["pld"], rel=1e-6)


def test_discrete_noise_is_analysed_as_such() -> None:
    votes = VoteCounts(np.array([[5, 4], [3, 3]]))
    discrete = analyse(votes, GNMax(0.7), 1e-5, NoiseKind.DISCRETE).epsilon
    continuous = analyse(votes, GNMax(0.7), 1e-5).epsilon
    assert discrete["data_independent"]["analytic"] is None
    assert discrete["data_independent"]["pld"] != pytest.approx(continuous["data_independent"]["pld"], rel=1e-3)
    assert discrete["data_dependent"]["exact"] != pytest.approx(continuous["data_dependent"]["exact"], rel=1e-3)


@pytest.mark.parametrize("noise", list(NoiseKind))
def test_laplace_rdp_agrees_with_its_loss_distribution(noise: NoiseKind) -> None:
    """For every order, exp((a - 1) D) is the mean of exp((a - 1) loss)."""
    mechanism = LNMax(3.0, moved_votes=2, adjacency=Adjacency.ADD_REMOVE)
    discrete = noise is NoiseKind.DISCRETE
    build = pld.from_discrete_laplace_mechanism if discrete else pld.from_laplace_mechanism
    one = build(1 / 3 if discrete else 3.0, sensitivity=2, value_discretization_interval=1e-3)
    loss = one._pmf_remove.to_dense_pmf()
    losses = (loss._lower_loss + np.arange(loss._probs.size)) * 1e-3
    for order in (1.5, 4.0):
        mean = np.log(np.sum(loss._probs * np.exp((order - 1) * losses))) / (order - 1)
        assert mechanism.rdp(np.array([order]), noise)[0] == pytest.approx(mean, rel=3e-3)


def test_units_and_adjacency() -> None:
    one = epsilons(STREAM, GNMax(7.0))
    group = epsilons(STREAM, GNMax(7.0, moved_votes=3))
    assert group["analytic"] == epsilons(STREAM, GNMax(7.0 / 3))["analytic"] > 3 * one["analytic"]
    assert "exact" not in group
    absent = epsilons(STREAM, GNMax(7.0, adjacency=Adjacency.ADD_REMOVE))
    assert absent["analytic"] == pytest.approx(epsilons(STREAM, GNMax(7.0 * 2**0.5))["analytic"])
    assert absent["exact"] < one["exact"]
    assert LNMax(5.0, 2, Adjacency.ADD_REMOVE).pure_epsilon == LNMax(5.0).pure_epsilon == 0.4
    assert ConfidentGNMax(7.0, 3, 2.0, 3, Adjacency.ADD_REMOVE).rho_test == ConfidentGNMax(7.0, 3, 2.0, 3).rho_test


def test_json_has_a_kind_for_every_epsilon() -> None:
    found = analyse(VoteCounts(STREAM), CONFIDENT, 1e-5).to_json()
    assert list(found) == ["queries", "delta", "epsilon", "releasable", "order", "classes", "reasons", "basis"]
    assert (found["queries"], found["classes"]) == STREAM.shape
    assert found["reasons"] == {"data_independent": {}, "data_dependent": {}}
    assert found["basis"]["data_dependent"]["exact"] == "exact noisy argmax, both directions"
    kinds = {
        kind: {name: found["releasable"][kind][name] for name in names} for kind, names in found["epsilon"].items()
    }
    assert kinds == {
        "data_independent": dict.fromkeys(("analytic", "pld", "rdp", "rdp_mironov"), RELEASABLE),
        "data_dependent": dict.fromkeys(("theorem6", "theorem6_mironov", "exact"), NOT_RELEASABLE),
    }


def test_curves_end_where_the_account_does() -> None:
    votes = VoteCounts(STREAM)
    curves = epsilon_curves(votes, LNMax(5.0), 1e-5, points=4)
    assert curves["queries"] == [1, 3, 13, 30]
    assert curves["theorem6"][-1] == epsilons(STREAM, LNMax(5.0))["theorem6"]
    assert curves["pure"][-1] == pytest.approx(30 * 0.4)
    assert curves["advanced"][1] == advanced_composition(0.4, 3, 1e-5)


def test_the_papers_accountant_sums_theorem_6_and_needs_no_order() -> None:
    accountant = PaperAccountant(GNMax(7.0), 1e-5)
    events = [Event(log_q=-30.0), Event(log_q=-8.0), Event(log_q=-30.0), Event()]
    found = accountant.epsilon_of(Counter(events))
    assert found == accountant.epsilon_of(Counter(reversed(events)))
    assert found < accountant.epsilon_of(Counter([Event()] * 4))
    assert accountant.epsilon_of(Counter()) == 0
    confident = PaperAccountant(CONFIDENT, 1e-5)
    assert 0 < confident.epsilon_of(Counter([Event(answered=False)])) < confident.epsilon_of(Counter([Event()]))


def test_confident_charges_are_a_filter_on_rho() -> None:
    accountant = Accountant(CONFIDENT, 1e-5)
    assert accountant.epsilon(0, 5) < accountant.epsilon(1, 4) < accountant.epsilon(5)
    labels = accountant.affordable(2.0, 100, unanswered=3)
    assert accountant.epsilon(labels, 3) <= 2.0 < accountant.epsilon(labels + 1, 3)
    analytic = accountant.epsilon_analytic(5, 2)
    assert analytic is not None
    assert analytic < accountant.epsilon(5, 2) < 1.15 * analytic
    with pytest.raises(InputError, match="gnmax answers every query"):
        Accountant(GNMax(7.0), 1e-5).epsilon(1, unanswered=1)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([[3, -1], [2, 2]], "query 0, class 1, is negative: -1"),
        ([[3, 1], [0, 0]], "nobody voted on query 1"),
        ([[3.0, float("nan")]], "query 0, class 1, is no number"),
        ([[3.5, 1.0]], "is no whole number"),
        ([[1e12, 1.0]], "is larger than 2"),
        ([], "needed are rows of counts"),
        (np.zeros((0, 3)), "no query in it"),
        ([[3], [2]], "at least two classes"),
        ([3, 2], "needed are rows of counts"),
        ([["a", "b"]], "counts are whole numbers"),
    ],
)
def test_bad_counts(counts: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_counts(counts)


@pytest.mark.parametrize("delta", [0.0, 1.0, 1.5, -1e-5, float("nan")])
def test_bad_delta(delta: float) -> None:
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        analyse(VoteCounts(STREAM), GNMax(7.0), delta)
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        epsilon_mironov(np.array([2.0]), np.array([1.0]), delta)


@pytest.mark.parametrize("orders", [[1.0], [0.5, 2.0], [float("inf")], []])
def test_bad_orders(orders: list[float]) -> None:
    with pytest.raises(InputError, match="finite numbers above 1"):
        check_orders(orders)


@pytest.mark.parametrize("threshold", [2.5, float("nan"), float("inf")])
def test_a_threshold_is_a_whole_number(threshold: Any) -> None:
    with pytest.raises(InputError, match="a whole number of votes"):
        ConfidentGNMax(7.0, threshold, 3.0)
