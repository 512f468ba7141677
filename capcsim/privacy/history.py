"""What several runs, each with a mechanism of its own, took from one training record.

Labels that all cost the same are judged like one run's. Else the Renyi divergences are added up: that stays a bound
where each mechanism was chosen after seeing what came before (Feldman and Zrnic 2021, arXiv 2008.11193).
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from capcsim.privacy.accountant import Accountant
from capcsim.privacy.conversions import ORDERS, epsilon_improved
from capcsim.privacy.mechanisms import Event, Mechanism, NoiseKind

WHOLE, TEST_ONLY = Event(), Event(answered=False)


class History:
    """How many queries of each mechanism counted a record's vote, answered or not. A value: `plus` makes another.

    >>> History().epsilon(1e-5)
    0.0
    """

    def __init__(self, queries: Mapping[tuple[Mechanism, bool], int] | None = None) -> None:
        self._queries = frozenset((key, number) for key, number in (queries or {}).items() if number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._queries == other._queries

    def __hash__(self) -> int:
        return hash(self._queries)

    @property
    def labels(self) -> int:
        """Queries that were answered."""
        return sum(number for (_, answered), number in self._queries if answered)

    def plus(self, mechanism: Mechanism, events: Mapping[Event, int]) -> "History":
        """The same with further queries."""
        total = Counter(dict(self._queries))
        for event, number in events.items():
            total[mechanism, event.answered] += number
        return History(total)

    def only(self, mechanism: Mechanism) -> bool:
        """Whether no other mechanism is in it."""
        return all(known == mechanism for (known, _), _ in self._queries)

    def epsilon(self, delta: float) -> float:
        """A data-independent bound on what all of it tells about the record; 0 for none."""
        return _epsilon(self._queries, delta)


@lru_cache(maxsize=4096)
def _epsilon(queries: frozenset[tuple[tuple[Mechanism, bool], int]], delta: float) -> float:
    mechanisms = {mechanism for (mechanism, _), _ in queries}
    if not mechanisms:
        return 0.0
    counts = dict(queries)
    if len(mechanisms) == 1:
        (only,) = mechanisms
        return Accountant(only, delta).epsilon(counts.get((only, True), 0), counts.get((only, False), 0))
    curve = np.zeros(ORDERS.size)
    for (mechanism, answered), number in sorted(queries, key=repr):  # a sum depends on its order
        curve += number * _rdp(mechanism, answered=answered)
    return epsilon_improved(ORDERS, curve, delta)[0]


def _rdp(mechanism: Mechanism, *, answered: bool) -> NDArray[np.float64]:
    """The Renyi divergence of one query at each order."""
    test = mechanism.rho_test * ORDERS
    if not answered and not mechanism.answers_every_query:
        return test
    return test + mechanism.argmax.rdp(ORDERS, NoiseKind.DISCRETE)
