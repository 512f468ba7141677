"""Vote counts as the analyses take them; `capcsim.privacy.vote_files` reads them.

Rows are queries, columns classes; the number of voters may differ from row to row. `answered` says which queries passed
the threshold test of Confident-GNMax, `true_label` which label is right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capcsim.errors import InputError

ANSWERED, TRUE_LABEL = "answered", "true_label"
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class VoteCounts:
    """`counts` int64[Q, C]; `answered` bool[Q], None where nobody said; `true_labels` int64[Q], None likewise.

    `lost` charges belong to queries whose votes and label are unknown: they were reserved and then lost.
    """

    counts: Counts
    answered: NDArray[np.bool_] | None = None
    true_labels: NDArray[np.int64] | None = None
    lost: int = 0

    def __post_init__(self) -> None:
        rows, classes = check_counts(self.counts).shape
        for name, column in ((ANSWERED, self.answered), (TRUE_LABEL, self.true_labels)):
            if column is not None and column.shape != (rows,):
                raise InputError(f"{name}: {column.shape} values for {rows} queries")
        labels = self.true_labels
        if labels is not None and not ((labels >= 0) & (labels < classes)).all():
            raise InputError(f"{TRUE_LABEL}: labels lie between 0 and {classes - 1}")


def check_counts(counts: ArrayLike) -> Counts:
    """Vote counts as int64[Q, C]; raises InputError for anything that cannot be one."""
    found = np.asarray(counts)
    if found.ndim != 2 or found.shape[1] < 2:
        raise InputError(f"votes: shape {found.shape}; needed are rows of counts, one for each of at least two classes")
    if not len(found):
        raise InputError("votes: no query in it")
    if found.dtype.kind not in "iuf":
        raise InputError(f"votes: {found.dtype} values; counts are whole numbers")
    if found.dtype.kind == "f":
        found = found.astype(np.float64)  # float16 knows no number above 65,504
    for wrong, what in (
        (~np.isfinite(found), "is no number"),
        (found < 0, "is negative"),
        (found != np.floor(found), "is no whole number"),
        (found > 1 << 31, "is larger than 2^31"),
    ):
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(f"votes: the count of query {row}, class {column}, {what}: {found[row, column]}")
    empty = np.flatnonzero(found.sum(axis=1) == 0)
    if empty.size:
        raise InputError(f"votes: nobody voted on query {empty[0]}")
    return found.astype(np.int64)
