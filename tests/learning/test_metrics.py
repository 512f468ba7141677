"""Fairness and averages, against their definitions."""

import numpy as np
import pytest

from capcsim.learning.metrics import Quality, average, deviation, quality, share_fallen

# Group 0: true 1, 1, 0, 0 predicted 1, 0, 1, 0. Group 1: true 1, 1, 1, 0 predicted 1, 1, 0, 0.
PREDICTED = np.array([1, 0, 1, 0, 1, 1, 0, 0])
ACTUAL = np.array([1, 1, 0, 0, 1, 1, 1, 0])
GROUP = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def test_fairness_compares_the_rates_of_both_groups() -> None:
    found = quality(PREDICTED, ACTUAL, 2, GROUP)
    assert found.equal_opportunity == pytest.approx(2 / 3 - 1 / 2)
    assert found.equalized_odds == pytest.approx(1 / 2)
    # With labels and predictions turned round the larger gap is that of the true label 1.
    turned = quality(1 - PREDICTED, 1 - ACTUAL, 2, GROUP)
    assert turned.equal_opportunity == turned.equalized_odds == pytest.approx(1 / 2)
    same = quality(np.tile(PREDICTED, 2), np.tile(ACTUAL, 2), 2, np.repeat([0, 1], 8))
    assert (same.equal_opportunity, same.equalized_odds) == (0, 0)


def test_fairness_is_not_told_where_it_has_no_meaning() -> None:
    assert quality(PREDICTED, ACTUAL, 2).equalized_odds is None
    assert quality(PREDICTED, ACTUAL, 3, GROUP).equal_opportunity is None
    nobody = quality(PREDICTED[:4], np.array([0, 0, 1, 1]), 2, np.array([0, 1, 0, 0]))
    assert (nobody.equal_opportunity, nobody.equalized_odds) == (None, None)


def test_seeds_are_averaged() -> None:
    found = average([Quality(0.5, (0.0, 1.0), 0.5, 0.25, 0.5), Quality(0.75, (0.5, 1.0), 0.75, 0.75, None)])
    assert found == Quality(0.625, (0.25, 1.0), 0.625, 0.5, None)
    assert deviation([1.0]) is None
    assert deviation([1.0, 3.0]) == pytest.approx(np.sqrt(2))


def test_the_share_of_classes_that_fell() -> None:
    nan = float("nan")
    before = [Quality(0, (0.5, 0.5, nan), 0), Quality(0, (0.9, 0.8, nan), 0)]
    after = [Quality(0, (0.4, 0.6, nan), 0), Quality(0, (0.9, 0.7, nan), 0)]
    assert share_fallen(before, after) == pytest.approx(2 / 4)
