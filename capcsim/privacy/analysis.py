"""Every analysis of one stream of votes side by side, and which of the epsilons may be published.

What happened is charged: the threshold test of Confident-GNMax always, its argmax where a query was answered. Both
public implementations sum the expected cost over "answered or not" instead, which is neither what was spent nor a
guarantee. The data-dependent figures depend on private votes, and take the queries as chosen beforehand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.privacy.accountant import Accountant
from capcsim.privacy.conversions import (
    ORDERS,
    advanced_composition,
    check_delta,
    epsilon_gaussian,
    epsilon_improved,
    epsilon_mironov,
)
from capcsim.privacy.exact import exact_rdp, exact_test_rdp
from capcsim.privacy.mechanisms import Adjacency, ConfidentGNMax, GNMax, LNMax, Mechanism, NoiseKind
from capcsim.privacy.theorem6 import log_answered, log_q, theorem6, theorem6_test
from capcsim.privacy.votes import VoteCounts

Floats: TypeAlias = NDArray[np.float64]
INTERVAL = 1e-4
"""Of a continuous privacy loss; the pessimistic estimate is off by its square."""

RELEASABLE, NOT_RELEASABLE = "releasable", "not releasable (data-dependent)"
DATA_INDEPENDENT, DATA_DEPENDENT = "data_independent", "data_dependent"
KINDS = {DATA_INDEPENDENT: RELEASABLE, DATA_DEPENDENT: NOT_RELEASABLE}
LABELS = {
    "analytic": "analytic Gaussian, continuous noise",
    "pld": "privacy loss distribution, pessimistic",
    "rdp": "RDP, improved conversion",
    "rdp_mironov": "RDP, Mironov's conversion",
    "theorem6": "Theorem 6 of PATE, improved conversion (one direction)",
    "theorem6_mironov": "Theorem 6 of PATE, Mironov's conversion (the paper's; one direction)",
    "exact": "exact noisy argmax, both directions",
}


@dataclass(frozen=True)
class Account:
    """Epsilons at `delta`, None where an analysis does not apply; `order` is the Renyi order of `theorem6`."""

    queries: int
    delta: float
    epsilon: dict[str, dict[str, float | None]]
    order: float

    def to_json(self) -> dict[str, Any]:
        """What `capcsim account --json` prints."""
        return {
            "queries": self.queries,
            "delta": self.delta,
            "epsilon": self.epsilon,
            "releasable": {kind: dict.fromkeys(found, KINDS[kind]) for kind, found in self.epsilon.items()},
            "order": self.order,
        }

    def rows(self) -> Iterator[tuple[str, float | None, str]]:
        """(what it is, epsilon, its kind) of each analysis."""
        for kind, found in self.epsilon.items():
            for name, epsilon in found.items():
                yield LABELS[name], epsilon, KINDS[kind]


def analyse(votes: VoteCounts, mechanism: Mechanism, delta: float, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Account:
    """Epsilon of all queries together, by every analysis; raises InputError.

    Without a word on which queries were answered, all of them are charged as answered.
    """
    check_delta(delta)
    return _Curves(votes, mechanism, noise).account(len(votes.counts), delta)


def epsilon_curves(
    votes: VoteCounts,
    mechanism: Mechanism,
    delta: float,
    noise: NoiseKind = NoiseKind.CONTINUOUS,
    points: int = 25,
) -> dict[str, list[float | None]]:
    """Epsilon after each of so many numbers of `queries`, by every analysis, for a figure.

    For Laplace noise also by pure composition and by advanced composition, Theorem 1 of the CaPC paper.
    """
    check_delta(delta)
    curves = _Curves(votes, mechanism, noise)
    queries = sorted({max(1, round(len(votes.counts) * x**2)) for x in np.linspace(0, 1, points)})
    found: dict[str, list[float | None]] = {"queries": [float(n) for n in queries]}
    for number in queries:
        for analyses in curves.account(number, delta).epsilon.values():
            for name, epsilon in analyses.items():
                found.setdefault(name, []).append(epsilon)
    if isinstance(mechanism, LNMax):
        pure = mechanism.pure_epsilon
        found["pure"] = [pure * number for number in queries]
        found["advanced"] = [advanced_composition(pure, number, delta) for number in queries]
    return found


class _Curves:
    """What each query adds to each data-dependent curve, computed once and summed up to any query."""

    def __init__(self, votes: VoteCounts, mechanism: Mechanism, noise: NoiseKind) -> None:
        self.mechanism, self.noise, self.lost = mechanism, noise, votes.lost
        self.answered = np.ones(len(votes.counts), np.bool_)
        if isinstance(mechanism, ConfidentGNMax) and votes.answered is not None:
            self.answered = votes.answered
        argmax = _argmax(mechanism)
        self._logs = log_q(votes.counts, argmax, noise)
        self._exact: Floats | None = None
        if isinstance(argmax, GNMax) and mechanism.moved_votes == 1:
            self._exact = exact_rdp(votes.counts, argmax, ORDERS, noise) * self.answered[:, None, None]
        if isinstance(mechanism, ConfidentGNMax):
            self._tests = log_answered(votes.counts, mechanism, noise)
            if self._exact is not None:
                self._exact += exact_test_rdp(votes.counts, mechanism, ORDERS, noise)

    def account(self, queries: int, delta: float) -> Account:
        """Every analysis of the first so many queries; charges that were lost are added to each in full."""
        answered = int(self.answered[:queries].sum()) + self.lost
        unanswered = queries + self.lost - answered
        independent = _independent_rdp(self.mechanism, self.noise, answered, unanswered)
        rest = _independent_rdp(self.mechanism, self.noise, self.lost, 0)
        bound, exact = rest + self._theorem6(queries), None
        if self._exact is not None:
            exact = epsilon_improved(ORDERS, rest + self._exact[:queries].sum(axis=0).max(axis=0), delta)[0]
        theorem6_epsilon, order = epsilon_improved(ORDERS, bound, delta)
        epsilon: dict[str, dict[str, float | None]] = {
            DATA_INDEPENDENT: {
                "analytic": _analytic(self.mechanism, self.noise, answered, unanswered, delta),
                "pld": _pld(self.mechanism, self.noise, answered, unanswered, delta),
                "rdp": epsilon_improved(ORDERS, independent, delta)[0],
                "rdp_mironov": epsilon_mironov(ORDERS, independent, delta)[0],
            },
            DATA_DEPENDENT: {
                "theorem6": theorem6_epsilon,
                "theorem6_mironov": epsilon_mironov(ORDERS, bound, delta)[0],
                "exact": exact,
            },
        }
        return Account(queries, delta, epsilon, order)

    def _theorem6(self, queries: int) -> Floats:
        curve = np.zeros(ORDERS.size)
        logs = self._logs[:queries][self.answered[:queries]]
        if logs.size:
            curve += theorem6(logs, _argmax(self.mechanism), ORDERS)
        if isinstance(self.mechanism, ConfidentGNMax):
            curve += theorem6_test(self._tests[:queries], self.mechanism, ORDERS)
        return curve


def _argmax(mechanism: Mechanism) -> GNMax | LNMax:
    return mechanism.argmax if isinstance(mechanism, ConfidentGNMax) else mechanism


def _independent_rdp(mechanism: Mechanism, noise: NoiseKind, answered: int, unanswered: int) -> Floats:
    if isinstance(mechanism, LNMax):
        return answered * mechanism.rdp(ORDERS, noise)
    curve = answered * _argmax(mechanism).rdp(ORDERS)
    if isinstance(mechanism, ConfidentGNMax):
        curve = curve + (answered + unanswered) * mechanism.rho_test * ORDERS
    return curve


def _mu(mechanism: GNMax | ConfidentGNMax, answered: int, unanswered: int) -> float:
    if isinstance(mechanism, ConfidentGNMax):
        return mechanism.gaussian_mu(answered, unanswered)
    return mechanism.gaussian_mu(answered)


def _analytic(mechanism: Mechanism, noise: NoiseKind, answered: int, unanswered: int, delta: float) -> float | None:
    """It is a bound for continuous Gaussian noise only."""
    if isinstance(mechanism, LNMax) or noise is NoiseKind.DISCRETE:
        return None
    return epsilon_gaussian(_mu(mechanism, answered, unanswered), delta)


@lru_cache(maxsize=256)
def _pld(mechanism: Mechanism, noise: NoiseKind, answered: int, unanswered: int, delta: float) -> float:
    """Pessimistic; for Gaussian noise all of it is one Gaussian mechanism, otherwise labels are composed."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    if not isinstance(mechanism, LNMax) and noise is NoiseKind.CONTINUOUS:
        mu = _mu(mechanism, answered, unanswered)
        loss = pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=INTERVAL * max(1.0, mu))
        return float(loss.get_epsilon_for_delta(delta))
    if isinstance(mechanism, ConfidentGNMax):
        interval = 1e-4 * mechanism.moved_votes / max(mechanism.sigma, mechanism.sigma1)
        test = GNMax(mechanism.sigma1, mechanism.moved_votes)
        loss = _one_count(test, interval).self_compose(answered + unanswered)
        if answered:
            loss = loss.compose(mechanism.argmax.loss(interval, noise).self_compose(answered))
        return float(loss.get_epsilon_for_delta(delta))
    if noise is NoiseKind.DISCRETE:
        return Accountant(mechanism, delta).epsilon(answered)
    interval = 1.2e-4 * mechanism.moved_votes / mechanism.scale
    return float(mechanism.loss(interval, noise).self_compose(answered).get_epsilon_for_delta(delta))


def _one_count(mechanism: GNMax, interval: float) -> Any:
    """The loss of one count with discrete noise: of a threshold test."""
    return replace(mechanism, adjacency=Adjacency.ADD_REMOVE).loss(interval, NoiseKind.DISCRETE)
