import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.privacy.accountant import Accountant
from capcsim.privacy.conversions import ORDERS, epsilon_improved
from capcsim.privacy.history import TEST_ONLY, WHOLE, History
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, LNMax
from tests.environment import importing_from

DELTA = 1e-5
SEVEN, FORTY = GNMax(7.0), GNMax(40.0)
CONFIDENT = ConfidentGNMax(7.0, 30, 20.0)


def test_labels_of_one_mechanism_cost_what_they_cost_in_one_run() -> None:
    two_runs = History().plus(SEVEN, {WHOLE: 8}).plus(SEVEN, {WHOLE: 4})
    assert two_runs == History().plus(SEVEN, {WHOLE: 12})
    assert two_runs.epsilon(DELTA) == Accountant(SEVEN, DELTA).epsilon(12)
    answered = History().plus(CONFIDENT, {WHOLE: 3, TEST_ONLY: 2})
    assert answered.epsilon(DELTA) == Accountant(CONFIDENT, DELTA).epsilon(3, 2)
    assert answered.labels == 3


def test_two_mechanisms_add_up_their_renyi_divergences() -> None:
    """12 labels at sigma 7 and 550 at sigma 40 are rho = 12/49 + 550/1600; Laplace adds a curve of its own."""
    both = History().plus(SEVEN, {WHOLE: 12}).plus(FORTY, {WHOLE: 550})
    expected = epsilon_improved(ORDERS, (12 / 49 + 550 / 1600) * ORDERS, DELTA)[0]
    assert both.epsilon(DELTA) == pytest.approx(expected, rel=1e-12)
    more = both.plus(LNMax(20.0), {WHOLE: 5}).epsilon(DELTA)
    assert expected < more < expected + 5 * 2 / 20


def test_a_test_alone_costs_less_than_an_answer() -> None:
    base = History().plus(FORTY, {WHOLE: 1})
    tests = base.plus(CONFIDENT, {TEST_ONLY: 10}).epsilon(DELTA)
    answers = base.plus(CONFIDENT, {WHOLE: 10}).epsilon(DELTA)
    rho = 1 / 1600 + 10 * (1 / 20) ** 2 / 2
    assert tests == pytest.approx(epsilon_improved(ORDERS, rho * ORDERS, DELTA)[0], rel=1e-12)
    assert tests < answers


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5))
def test_more_queries_never_cost_less(sevens: int, forties: int, more: int) -> None:
    history = History().plus(SEVEN, {WHOLE: sevens}).plus(FORTY, {WHOLE: forties})
    assert history.plus(SEVEN, {WHOLE: more}).epsilon(DELTA) > history.epsilon(DELTA)
    assert history.only(SEVEN) is (forties == 0)


def test_nothing_costs_nothing() -> None:
    assert History().epsilon(DELTA) == 0.0
    assert History({(SEVEN, True): 0}) == History()
    assert np.isfinite(History().plus(SEVEN, {WHOLE: 1}).epsilon(1e-12))


def test_a_sum_does_not_depend_on_the_process() -> None:
    """Sets of strings are in another order in each; so that of what was added, and its last digit, would be."""
    program = """
from capcsim.privacy.history import TEST_ONLY, WHOLE, History
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, LNMax
history = History()
for mechanism in (GNMax(0.3), GNMax(0.7), LNMax(1.0), GNMax(40.0), LNMax(20.0), ConfidentGNMax(7.0, 30, 20.0)):
    history = history.plus(mechanism, {WHOLE: 3, TEST_ONLY: 1})
print(*(history.epsilon(10.0**-digits) for digits in range(1, 12)))
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=importing_from(PYTHONHASHSEED=str(seed)),
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(found) == 1
