"""Values that third-party code computed; `golden.json` says which code gave what."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.errors import InputError
from capcsim.privacy.analysis import analyse
from capcsim.privacy.conversions import (
    ORDERS,
    advanced_composition,
    epsilon_gaussian,
    epsilon_improved,
    epsilon_mironov,
)
from capcsim.privacy.losses import epsilon_of_losses
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, LNMax, NoiseKind
from capcsim.privacy.smooth import sanitise
from capcsim.privacy.theorem6 import log_answered, log_q, theorem6, theorem6_test
from capcsim.privacy.votes import VoteCounts

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden.json").read_text())
ORDERS_SMALL = np.array(GOLDEN["orders_small"])
ORDERS_PAPER = np.concatenate([np.arange(2, 100, 0.5), np.logspace(2, 3, 200)])
EXACT = {"rel": 1e-9}


@pytest.fixture(params=list(GOLDEN["single"]))
def single(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = GOLDEN["single"][request.param]
    return found


@pytest.fixture(params=list(GOLDEN["streams"]))
def stream(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**GOLDEN["streams"][request.param], "name": request.param}


def test_theorem_6_of_one_query(single: dict[str, Any]) -> None:
    mechanism = GNMax(single["sigma"])
    logs = log_q([single["votes"]], mechanism)
    assert logs[0] == pytest.approx(single["logq_tfprivacy"], **EXACT)
    assert theorem6(logs, mechanism, ORDERS_SMALL) == pytest.approx(single["rdp_dep_tfprivacy"], **EXACT)


def test_the_threshold_test_of_one_query(single: dict[str, Any]) -> None:
    mechanism = ConfidentGNMax(single["sigma"], int(single["threshold"]), single["sigma1"])
    logs = log_answered([single["votes"]], mechanism)
    assert logs[0, 0] == pytest.approx(single["logpr_answered_tfprivacy"], **EXACT)
    assert theorem6_test(logs, mechanism, ORDERS_SMALL) == pytest.approx(single["rdp_threshold_tfprivacy"], **EXACT)


def test_laplace_noise_of_one_query(single: dict[str, Any]) -> None:
    mechanism = LNMax(single["laplace_b"])
    logs = log_q([single["votes"]], mechanism)
    assert logs[0] == pytest.approx(single["laplace_logq_tfprivacy"], **EXACT)
    assert theorem6(logs, mechanism, ORDERS_SMALL) == pytest.approx(single["laplace_rdp_tfprivacy"], **EXACT)


def test_sums_over_550_queries(stream: dict[str, Any]) -> None:
    orders, votes = np.array(GOLDEN["orders"]), stream["votes"]
    gnmax, lnmax = GNMax(stream["sigma"]), LNMax(stream["laplace_b"])
    confident = ConfidentGNMax(stream["sigma"], int(stream["threshold"]), stream["sigma1"])
    logs, answered = log_q(votes, gnmax), log_answered(votes, confident)
    assert theorem6(logs, gnmax, orders) == pytest.approx(stream["rdp_dep_total_tfprivacy"], **EXACT)
    laplace = theorem6(log_q(votes, lnmax), lnmax, orders)
    assert laplace == pytest.approx(stream["rdp_laplace_dep_total_tfprivacy"], **EXACT)
    # Others charge an expectation; it is made of the same parts.
    expected = theorem6_test(answered, confident, orders) + theorem6(logs, gnmax, orders, np.exp(answered[:, 0]))
    assert expected == pytest.approx(stream["rdp_confident_total_tfprivacy"], **EXACT)


def test_both_conversions(stream: dict[str, Any]) -> None:
    gnmax, lnmax = GNMax(stream["sigma"]), LNMax(stream["laplace_b"])
    curves = {
        "ind": len(stream["votes"]) * gnmax.rdp(ORDERS_PAPER),
        "dep": theorem6(log_q(stream["votes"], gnmax), gnmax, ORDERS_PAPER),
        "laplace_dep": theorem6(log_q(stream["votes"], lnmax), lnmax, ORDERS_PAPER),
    }
    for name, curve in curves.items():
        golden = stream["eps"][name]
        improved, mironov = (convert(ORDERS_PAPER, curve, stream["delta"])[0] for convert in CONVERSIONS)
        assert improved == pytest.approx(golden["improved_capc"], **EXACT)
        assert mironov == pytest.approx(golden["mironov_tfp"], **EXACT)


CONVERSIONS = (epsilon_improved, epsilon_mironov)


def test_an_account_gives_the_golden_epsilons(stream: dict[str, Any]) -> None:
    """Its orders begin below 2 and hold every one that is best in the golden values."""
    found = analyse(VoteCounts(np.array(stream["votes"])), GNMax(stream["sigma"]), stream["delta"])
    golden = stream["eps"]
    assert found.epsilon["data_dependent"]["theorem6"] == pytest.approx(golden["dep"]["improved_capc"], **EXACT)
    assert found.epsilon["data_dependent"]["theorem6_mironov"] == pytest.approx(golden["dep"]["mironov_tfp"], **EXACT)
    for key, column in (("rdp", "improved_capc"), ("rdp_mironov", "mironov_tfp")):
        ours = found.epsilon["data_independent"][key]
        assert ours is not None
        assert 0.998 * golden["ind"][column] < ours <= golden["ind"][column] * (1 + 1e-9)


@pytest.mark.parametrize("name", list(GOLDEN["data_independent"]))
def test_data_independent_epsilons(name: str) -> None:
    golden = GOLDEN["data_independent"][name]
    mechanism, delta = GNMax(golden["sigma"]), golden["delta"]
    found = epsilon_gaussian(mechanism.gaussian_mu(golden["queries"]), delta)
    assert found == pytest.approx(golden["analytic_gaussian_autodp"], rel=1e-6)
    rdp = golden["queries"] * mechanism.rdp(ORDERS_PAPER)
    assert epsilon_improved(ORDERS_PAPER, rdp, delta)[0] == pytest.approx(golden["improved_capc_orders_capc"], **EXACT)
    fine = epsilon_improved(ORDERS, golden["queries"] * mechanism.rdp(ORDERS), delta)[0]
    assert fine == pytest.approx(golden["improved_dp_accounting_fine"], rel=1e-3)


def test_a_group_of_parties_costs_more_than_in_proportion() -> None:
    found = [epsilon_gaussian(GNMax(40.0, moved_votes=size).gaussian_mu(550), 1e-6) for size, _ in GOLDEN["group"]]
    assert found == pytest.approx([epsilon for _, epsilon in GOLDEN["group"]], rel=1e-9)
    assert found[3] > 5 * found[0]


@pytest.mark.parametrize("name", list(GOLDEN["laplace"]))
def test_laplace_composition(name: str) -> None:
    golden = GOLDEN["laplace"][name]
    mechanism, queries, delta = LNMax(golden["b"]), golden["queries"], golden["delta"]
    assert queries * mechanism.pure_epsilon == pytest.approx(golden["pure_basic"])
    theorem1 = advanced_composition(mechanism.pure_epsilon, queries, delta)
    assert theorem1 == pytest.approx(golden["advanced_composition_paper_thm1"], **EXACT)
    from_2 = epsilon_improved(ORDERS_PAPER, queries * mechanism.rdp(ORDERS_PAPER), delta)[0]
    assert from_2 == pytest.approx(golden["rdp_laplace2_dp_accounting"], rel=2e-3)
    assert epsilon_improved(ORDERS, queries * mechanism.rdp(ORDERS), delta)[0] <= from_2
    found = epsilon_of_losses([(mechanism, queries)], delta, NoiseKind.CONTINUOUS)
    assert found == pytest.approx(golden["pld_laplace2_dp_accounting"], rel=1e-5)


@pytest.mark.parametrize("name", list(GOLDEN["smooth_sensitivity"]))
def test_smooth_sensitivity_and_its_conditions(name: str) -> None:
    golden, stream = GOLDEN["smooth_sensitivity"][name], GOLDEN["streams"][name]
    found = sanitise(stream["votes"], GNMax(stream["sigma"]), stream["delta"], golden["order"])
    assert (found.c5, found.c6) == (golden["cond5"], golden["cond6"])
    ours = (found.beta, found.smooth_sensitivity, found.sigma, found.cost, found.standard_deviation)
    keys = ("beta", "ss", "sigma_ss", "gnss_rdp_cost", "std")
    assert ours == pytest.approx([golden[key] for key in keys], rel=1e-9)
    assert found.epsilon_before == pytest.approx(stream["eps"]["dep"]["mironov_tfp"], rel=1e-9)
    assert not found.releasable, "its parameters were chosen on the votes"


def test_only_a_sanitised_epsilon_with_parameters_chosen_beforehand_is_published() -> None:
    stream = GOLDEN["streams"]["weak_K250"]
    votes, mechanism = stream["votes"], GNMax(stream["sigma"])
    chosen = sanitise(votes, mechanism, 1e-6, 8.5)
    with pytest.raises(InputError, match="chosen on the votes"):
        chosen.publish()
    fixed = sanitise(votes, mechanism, 1e-6, 8.5, beta=chosen.beta, sigma=chosen.sigma)
    assert fixed.releasable
    assert fixed.publish() != fixed.publish()
    assert abs(fixed.publish() - fixed.epsilon) < 10 * fixed.standard_deviation
    failing = GOLDEN["streams"]["unanimous_K50"]
    with pytest.raises(InputError, match="C5 or C6 does not hold"):
        sanitise(failing["votes"], GNMax(7.0), 1e-5, 8.0, beta=0.05, sigma=1.0).publish()
