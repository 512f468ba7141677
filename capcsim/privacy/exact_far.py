"""The exact divergences of the noisy argmax where votes stand many sigmas apart.

There the probability of a label may be exp(-10,000), and one vote may change it by a factor of exp(1,000), so that
moves of votes cannot share their sums as they do elsewhere. Each probability is a sum of its own, in logarithms; but
most moves change few of them.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from capcsim.privacy.votes import Counts

Floats = NDArray[np.float64]
NOBODY = -1
UNIT = 2.0**-53
MOST_LABELS = 100_000
"""Classes that are not alike, cubed: about how many probabilities a row may take."""
NEGLIGIBLE = 1e-30
"""More than a divergence owes to labels that a move does not concern."""

Label = Callable[[Counts, int, Floats], None]
"""It fills in, for votes and the place of a class: the logarithm of its probability, a bound on the error of that, the
least noise on its count, in sigmas, that matters to it."""


def far_divergences(
    rows: Counts, sigma: float, orders: Floats, label: Label, *, replace: bool, symmetric: bool, general_error: float
) -> Floats:
    """Bounds float64[Q, 2, O] for rows of counts int64[Q, C], both ways and over all one-vote moves.

    `symmetric` says that classes of equal counts are alike, and that rows are sorted from the largest;
    `general_error` bounds the relative error that all sums have. Infinite for rows that would take too long.
    """
    from capcsim.privacy import exact_kernels as kernels

    found = np.full((len(rows), 2, orders.size), NEGLIGIBLE)
    for row, out in zip(rows, found, strict=True):
        kinds = len(set(row.tolist())) if symmetric else row.size
        if kinds**3 > MOST_LABELS:
            out[:] = np.inf
            continue
        here = _labels(label, row, np.arange(row.size), symmetric=symmetric)
        most = int(here[:, 0].argmax())
        for moved in _moves(row, replace=replace, symmetric=symmetric):
            concerned = _concerned(row, moved, here[:, 2], sigma)
            there = _labels(label, row + moved, concerned, symmetric=symmetric)
            if most not in concerned:
                concerned, there = np.append(concerned, most), np.append(there, here[most : most + 1], axis=0)
            before, after = here[concerned, 0], there[:, 0].copy()
            loose = here[concerned, 1] + there[:, 1] + 4 * general_error + 8 * UNIT * (2 + np.abs(before))
            kernels.raise_between(before, after, loose, orders, out)
    return found


def _labels(label: Label, votes: Counts, places: NDArray[np.int64], *, symmetric: bool) -> Floats:
    """What `label` finds for the classes at these places, float64[P, 3]; once for those that are alike."""
    found, known = np.empty((places.size, 3)), dict[int, int]()
    for row, j in enumerate(places):
        alike = known.setdefault(int(votes[j]), row) if symmetric else row
        if alike == row:
            label(votes, j, found[row])
        else:
            found[row] = found[alike]
    return found


def _moves(row: Counts, *, replace: bool, symmetric: bool) -> Iterator[Counts]:
    """What one vote may add to the counts, once for classes that are alike."""
    from capcsim.privacy import exact_kernels as kernels

    for a in range(NOBODY, row.size):
        for b in range(NOBODY, row.size):
            if kernels.is_needed(a, b, row, 0, replace, symmetric):
                moved = np.zeros_like(row)
                moved[[place for place in (a, b) if place != NOBODY]] = 1
                if a != NOBODY:
                    moved[a] = -1
                yield moved


def _concerned(row: Counts, moved: Counts, least: Floats, sigma: float) -> NDArray[np.int64]:
    """The classes whose probability a move changes by more than 1e-19 of it.

    Class j is concerned by its own votes, and by those of a class that is not beaten clearly where noise matters.
    """
    from capcsim.privacy.exact_far_kernels import CLEAR

    changed = np.flatnonzero(moved)
    leads = (row[:, None] - row[changed] - 3) / sigma
    concerned: NDArray[np.bool_] = np.any(least[:, None] + leads < CLEAR, axis=1)
    concerned[changed] = True
    return np.flatnonzero(concerned)
