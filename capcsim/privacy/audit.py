"""An empirical lower bound on epsilon, by a distinguishing game on the real release.

Someone plays one of two neighbouring histograms many times; an adversary looks at the labels of each game and says
which it was. Half of the games choose its test, the other half measure its two error rates, and Clopper-Pearson
bounds on those give a lower bound on epsilon (Jagielski, Ullman, Oprea 2020, arXiv 2006.07709, with the relation of
Kairouz, Oh, Viswanath 2015 between error rates and (epsilon, delta)). It must stay below any claimed bound: one that
it passes is wrong. It proves nothing else, since another adversary may do better.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from capcsim.errors import InputError
from capcsim.privacy.conversions import check_delta
from capcsim.privacy.votes import check_counts

Release: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From counts int64[B, C] to released labels int64[B], -1 where there is none; with fresh noise for every row."""


@dataclass(frozen=True, slots=True)
class Audit:
    """`lower_bound` holds with `confidence`; the error rates are those of the best test on the second half."""

    lower_bound: float
    confidence: float
    games: int
    false_positives: float
    false_negatives: float

    def contradicts(self, claimed: float) -> bool:
        """Whether the release is less private than claimed."""
        return self.lower_bound > claimed


def audit(
    release: Release,
    counts: ArrayLike,
    neighbour: ArrayLike,
    *,
    labels: int,
    games: int,
    delta: float,
    confidence: float = 0.999,
) -> Audit:
    """Play `games` games of `labels` labels on each of two neighbouring histograms int64[C].

    The adversary's score adds up the log-likelihood ratios of the labels, learned from the first half.
    Raises InputError for histograms of different lengths, or too few games.
    """
    check_delta(delta)
    pair = check_counts(np.stack([np.asarray(counts), np.asarray(neighbour)]))
    if labels < 1 or games < 20 or not 0 < confidence < 1:
        raise InputError(
            f"labels = {labels}, games = {games}, confidence = {confidence}: at least 1, 20, within (0, 1)"
        )
    drawn = [_play(release, row, labels, games) for row in pair]
    half = games // 2
    frequencies = [_frequencies(found[:half], pair.shape[1]) for found in drawn]
    score = np.log(frequencies[1]) - np.log(frequencies[0])
    scores = [score[found].sum(axis=1) for found in drawn]
    threshold = _best_threshold(scores[0][:half], scores[1][:half], delta)
    # It says "the neighbour" above the threshold.
    wrong = [int((scores[0][half:] > threshold).sum()), int((scores[1][half:] <= threshold).sum())]
    bound = epsilon_from_errors(wrong[0], wrong[1], games - half, delta, confidence)
    rates = [number / (games - half) for number in wrong]
    return Audit(bound, confidence, games, rates[0], rates[1])


def epsilon_from_errors(
    false_positives: int, false_negatives: int, games: int, delta: float, confidence: float
) -> float:
    """A lower bound on epsilon, with `confidence`, from an adversary's errors in so many games of each kind.

    An (epsilon, delta) release has FPR >= (1 - delta - FNR) exp(-epsilon), and the same with the two exchanged.
    """
    # Two bounds must hold together.
    level = 1 - (1 - confidence) / 2
    upper = [_clopper_pearson_upper(wrong, games, level) for wrong in (false_positives, false_negatives)]
    ratios = [(1 - delta - upper[1]) / upper[0], (1 - delta - upper[0]) / upper[1]]
    return log(max(1.0, *ratios))


def _clopper_pearson_upper(wrong: int, games: int, level: float) -> float:
    return 1.0 if wrong >= games else float(beta.ppf(level, wrong + 1, games - wrong))


def _play(release: Release, row: NDArray[np.int64], labels: int, games: int) -> NDArray[np.int64]:
    """Labels int64[games, labels]; no label counts as one more class."""
    found = release(np.tile(row, (games * labels, 1)))
    return np.where(found < 0, len(row), found).reshape(games, labels)


def _frequencies(found: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """How often each label came, none of them never."""
    seen = np.bincount(found.reshape(-1), minlength=classes + 1) + 0.5
    rates: NDArray[np.float64] = seen / seen.sum()
    return rates


def _best_threshold(zeros: NDArray[np.float64], ones: NDArray[np.float64], delta: float) -> float:
    """The score that gives the largest bound on games that are not counted."""
    tries = np.unique(np.concatenate([zeros, ones]))
    bounds = [
        epsilon_from_errors(int((zeros > t).sum()), int((ones <= t).sum()), len(zeros), delta, 0.9)
        for t in tries[:: max(1, len(tries) // 100)]
    ]
    return float(tries[:: max(1, len(tries) // 100)][int(np.argmax(bounds))])
