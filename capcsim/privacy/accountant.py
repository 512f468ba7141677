"""Data-independent epsilon of what was released: it looks at no vote, so it may be published.

For a mechanism that answers every query the figure that a budget is judged by is the privacy loss distribution of the
discrete noise that is really added (`capcsim.privacy.losses`): the number of labels is fixed beforehand, or bounded by
the budget. Where a threshold test decides what the next charge is, that
number is itself an output, and a filter is needed that holds for charges chosen as one goes: Renyi divergences, which
may be added up until a bound set beforehand is reached (Feldman and Zrnic 2021, arXiv 2008.11193). Since they are
rho x order for all orders at once, a bound on rho is one on epsilon.

The analytic Gaussian, exact for continuous noise (Balle and Wang 2018), stands beside both for comparison.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np

from capcsim.errors import InputError
from capcsim.privacy.conversions import (
    ORDERS,
    check_delta,
    epsilon_gaussian,
    epsilon_improved,
    epsilon_mironov,
)
from capcsim.privacy.curves import user_curves
from capcsim.privacy.losses import epsilon_of_losses
from capcsim.privacy.mechanisms import Event, Mechanism, NoiseKind


class Analysis(Protocol):
    """What a ledger asks: the epsilon, at a fixed delta, of any events of one mechanism.

    `releasable` says whether it may be published, `foreseeable` whether it is known before the votes are.
    """

    name: ClassVar[str]
    releasable: ClassVar[bool]
    foreseeable: ClassVar[bool]
    mechanism: Mechanism
    delta: float

    def epsilon_of(self, events: Mapping[Event, int]) -> float:
        """An upper bound on the epsilon of so many of each event, in whatever order they happened."""

    def affordable(self, budget: float, at_most: int) -> int:
        """How many labels, up to `at_most`, a budget pays for; `at_most` where nobody knows beforehand."""


class Accountant:
    """The data-independent analysis: each label is charged in full."""

    name: ClassVar[str] = "data-independent"
    releasable: ClassVar[bool] = True
    foreseeable: ClassVar[bool] = True

    def __init__(self, mechanism: Mechanism, delta: float) -> None:
        check_delta(delta)
        self.mechanism, self.delta = mechanism, delta

    def epsilon(self, labels: int, unanswered: int = 0) -> float:
        """An upper bound on epsilon after `labels` labels and so many queries without one; 0 for none."""
        return _epsilon(self.mechanism, self.delta, labels, unanswered)

    def epsilon_of(self, events: Mapping[Event, int]) -> float:
        """The same for events: only whether they were answered matters."""
        answered = sum(number for event, number in events.items() if event.answered)
        return self.epsilon(answered, sum(events.values()) - answered)

    def epsilon_analytic(self, labels: int, unanswered: int = 0) -> float | None:
        """Analytic Gaussian epsilon for continuous noise of the same sigma; None for Laplace noise."""
        mu = self.mechanism.gaussian_mu(labels, unanswered)
        return None if mu is None else epsilon_gaussian(mu, self.delta)

    def affordable(self, budget: float, at_most: int, unanswered: int = 0) -> int:
        """The largest number of labels, up to `at_most`, whose epsilon stays within `budget`."""
        if self.epsilon(at_most, unanswered) <= budget:
            return at_most
        low, high = -1, at_most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.epsilon(middle, unanswered) <= budget else (low, middle)
        return max(low, 0)


class PaperAccountant:
    """The CaPC paper's analysis: Theorem 6 of Papernot et al. 2018 and Mironov's conversion; not releasable.

    It needs each event's log q. Threshold tests are charged data-independently.
    """

    name: ClassVar[str] = "theorem6-mironov"
    releasable: ClassVar[bool] = False
    foreseeable: ClassVar[bool] = False

    def __init__(self, mechanism: Mechanism, delta: float) -> None:
        check_delta(delta)
        self.mechanism, self.delta = mechanism, delta

    def epsilon_of(self, events: Mapping[Event, int]) -> float:
        """The bound of one direction only, for events with a log q; those without are charged in full."""
        from capcsim.privacy.theorem6 import theorem6

        if not sum(events.values()):
            return 0.0
        curve = sum(events.values()) * self.mechanism.rho_test * ORDERS
        answered = {event.log_q: number for event, number in sorted(events.items()) if event.answered and number}
        if answered:
            logs = np.minimum(list(answered), -1e-12)
            curve += theorem6(logs, self.mechanism.argmax, ORDERS, list(answered.values()))
        return epsilon_mironov(ORDERS, curve, self.delta)[0]

    def affordable(self, budget: float, at_most: int) -> int:  # noqa: ARG002
        """All of them: what a label costs depends on its votes."""
        return at_most


ANALYSES: dict[str, type[Accountant] | type[PaperAccountant]] = {
    kind.name: kind for kind in (Accountant, PaperAccountant)
}


@lru_cache(maxsize=4096)
def _epsilon(mechanism: Mechanism, delta: float, labels: int, unanswered: int) -> float:
    if labels < 0 or unanswered < 0:
        raise InputError(f"labels = {labels}, unanswered = {unanswered}: no such number can be negative")
    if not mechanism.answers_every_query:
        rho = mechanism.rho_of(labels, unanswered)
        return epsilon_improved(ORDERS, rho * ORDERS, delta)[0] if labels + unanswered else 0.0
    if unanswered:
        raise InputError(f"{mechanism.name} answers every query: unanswered = {unanswered}")
    if not labels:
        return 0.0

    def compute() -> float:
        found = epsilon_of_losses(mechanism.histograms(labels), delta, NoiseKind.DISCRETE)
        if found is not None:
            return found
        return epsilon_improved(ORDERS, labels * mechanism.argmax.rdp(ORDERS, NoiseKind.DISCRETE), delta)[0]

    return user_curves().epsilon(Accountant.name, mechanism, delta, labels, unanswered, compute)
