"""Choosing the noise: the most before labels lose significantly in accuracy (CaPC paper, section 4.4, Fig. 11).

The label accuracy at each noise level is not sampled but computed: the mean, over queries, of the probability of the
right label. Tuning looks at votes, so on private votes it is itself not private; do it on public data, or charge it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import InputError
from capcsim.privacy.exact import label_probabilities
from capcsim.privacy.mechanisms import GNMax, NoiseKind
from capcsim.privacy.votes import VoteCounts

WARNING = "tuning on private votes is itself not private: choose sigma on public data, or before any vote is cast"
MAX_LOSS = 0.01
"""What counts as a significant loss of accuracy: one percentage point."""
POINTS = 31


@dataclass(frozen=True)
class Tuning:
    """The chosen `sigma` and the curve it was chosen on; `accuracy_without_noise` is the plurality's.

    `reference` says what a label is compared with. Never private on private votes: see `warning`.
    """

    sigma: float
    sigmas: tuple[float, ...]
    accuracies: tuple[float, ...]
    accuracy_without_noise: float
    max_loss: float
    reference: str
    warning: str = WARNING

    def to_json(self) -> dict[str, Any]:
        """For `capcsim tune --json`."""
        return {
            "sigma": self.sigma,
            "accuracy_without_noise": self.accuracy_without_noise,
            "max_loss": self.max_loss,
            "reference": self.reference,
            "private": False,
            "warning": self.warning,
            "curve": {"sigma": list(self.sigmas), "accuracy": list(self.accuracies)},
        }


def tune(
    votes: VoteCounts,
    *,
    max_loss: float = MAX_LOSS,
    sigmas: Sequence[float] | None = None,
    noise: NoiseKind = NoiseKind.DISCRETE,
) -> Tuning:
    """The largest sigma up to which no sigma on the grid costs more than `max_loss` of label accuracy.

    Labels are compared with the votes' `true_labels`, or with the plurality where there are none. The grid is
    geometric, from 1/250 of the mean number of voters, but at least 0.1, up to that number, unless given. Raises
    InputError when even the smallest sigma costs too much.
    """
    if not 0 < max_loss < 1:
        raise InputError(f"max_loss = {max_loss}: it must lie strictly between 0 and 1")
    plurality = votes.counts.argmax(axis=1)
    right = plurality if votes.true_labels is None else votes.true_labels
    if sigmas is None:
        voters = float(votes.counts.sum(axis=1).mean())
        sigmas = [float(f"{sigma:.3g}") for sigma in np.geomspace(max(voters / 250, 0.1), max(voters, 1.0), POINTS)]
    grid = tuple(sorted(sigmas))
    accuracies = tuple(label_accuracy(votes.counts, right, GNMax(sigma), noise) for sigma in grid)
    best = float((plurality == right).mean())
    kept = 0
    while kept < len(grid) and accuracies[kept] >= best - max_loss:
        kept += 1
    if not kept:
        raise InputError(
            f"even sigma = {grid[0]:g} takes label accuracy from {best:.3f} to {accuracies[0]:.3f}; "
            f"try smaller ones, or allow a larger loss than {max_loss:g}"
        )
    reference = "plurality" if votes.true_labels is None else "true labels"
    return Tuning(grid[kept - 1], grid, accuracies, best, max_loss, reference)


def label_accuracy(
    counts: NDArray[np.int64], right: NDArray[np.int64], mechanism: GNMax, noise: NoiseKind = NoiseKind.DISCRETE
) -> float:
    """The expected share of labels that are `right` int64[Q], for counts int64[Q, C]."""
    return float(label_probabilities(counts, mechanism, noise)[np.arange(len(counts)), right].mean())
