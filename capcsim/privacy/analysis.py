"""Every analysis of one stream of votes side by side, and which of the epsilons may be published.

What happened is charged: the threshold test of Confident-GNMax always, its argmax where a query was answered. Both
public implementations sum the expected cost over "answered or not" instead, which is neither what was spent nor a
guarantee. The data-dependent figures depend on private votes, and take the queries as chosen beforehand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.privacy.conversions import (
    ORDERS,
    advanced_composition,
    check_delta,
    epsilon_gaussian,
    epsilon_improved,
    epsilon_mironov,
)
from capcsim.privacy.exact import exact_bounds, exact_test_bounds
from capcsim.privacy.losses import epsilon_connected, epsilon_of_losses
from capcsim.privacy.mechanisms import Family, Mechanism, NoiseKind, times
from capcsim.privacy.theorem6 import log_answered, log_q, theorem6, theorem6_test
from capcsim.privacy.votes import VoteCounts

Floats: TypeAlias = NDArray[np.float64]
RELEASABLE, NOT_RELEASABLE = "releasable", "not releasable (data-dependent)"
SEEDED, NO_EPSILON = "not releasable (noise seeded)", "there is no epsilon"
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


INFINITE = "infinite: so little noise against delta protects nobody"
NO_LAW = "the law of such losses is beyond double precision"
CONTINUOUS_ONLY = "does not apply: a bound for continuous Gaussian noise only"
GAUSSIAN_ONLY = "does not apply: worked out for Gaussian noise only"
ONE_VOTE_ONLY = "does not apply: units of several votes have too many neighbours"


@dataclass(frozen=True)
class Account:
    """Epsilons at `delta`, by kind and analysis; `order` is the Renyi order of `theorem6`.

    None stands where an analysis does not apply, or has nothing finite to say: `reasons` tells why. `basis` says what
    each figure is, which is more than its name where the data-independent bound stands in for some queries.
    """

    queries: int
    delta: float
    epsilon: dict[str, dict[str, float | None]]
    order: float
    classes: int
    reasons: dict[str, dict[str, str]]
    basis: dict[str, dict[str, str]]
    seeded: bool = False

    def to_json(self) -> dict[str, Any]:
        """What `capcsim account --json` prints."""
        return {
            "queries": self.queries,
            "delta": self.delta,
            "epsilon": self.epsilon,
            "releasable": {
                kind: {name: self._kind(kind, name) for name in found} for kind, found in self.epsilon.items()
            },
            "order": self.order,
            "classes": self.classes,
            "reasons": self.reasons,
            "basis": self.basis,
        }

    def rows(self) -> Iterator[tuple[str, float | None, str]]:
        """(what it is, epsilon, its kind or why there is none) of each analysis."""
        for kind, found in self.epsilon.items():
            for name, epsilon in found.items():
                yield self.basis[kind][name], epsilon, self.reasons[kind].get(name, self._kind(kind, name))

    def _kind(self, kind: str, name: str) -> str:
        """Whether an epsilon may be published: never one of noise that can be drawn again from its seed."""
        if self.epsilon[kind][name] is None:
            return NO_EPSILON
        return SEEDED if self.seeded else KINDS[kind]


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
    if mechanism.family is Family.LAPLACE:
        pure = mechanism.pure_epsilon
        found["pure"] = [pure * number for number in queries]
        found["advanced"] = [advanced_composition(pure, number, delta) for number in queries]
    return found


class _Curves:
    """What each query adds to each data-dependent curve, computed once and summed up to any query."""

    def __init__(self, votes: VoteCounts, mechanism: Mechanism, noise: NoiseKind) -> None:
        self.mechanism, self.noise, self.lost = mechanism, noise, votes.lost
        self.answered = np.ones(len(votes.counts), np.bool_)
        if not mechanism.answers_every_query and votes.answered is not None:
            self.answered = votes.answered
        argmax = mechanism.argmax
        self._logs = log_q(votes.counts, argmax, noise)
        self._exact: Floats | None = None
        self._stands_in = np.zeros(len(votes.counts), np.bool_)
        if argmax.family is Family.GAUSSIAN and mechanism.moved_votes == 1:
            exact, stands_in = exact_bounds(votes.counts, argmax, ORDERS, noise)
            self._exact = np.where(self.answered[:, None, None], exact, 0.0)
            self._stands_in = stands_in & self.answered
        if mechanism.test_noise is not None:
            self._tests = log_answered(votes.counts, mechanism, noise)
            if self._exact is not None:
                tests, stands_in = exact_test_bounds(votes.counts, mechanism, ORDERS, noise)
                self._exact += tests
                self._stands_in |= stands_in
        self.classes = votes.counts.shape[1]

    def account(self, queries: int, delta: float) -> Account:
        """Every analysis of the first so many queries; charges that were lost are added to each in full."""
        answered = int(self.answered[:queries].sum()) + self.lost
        unanswered = queries + self.lost - answered
        independent = _independent_rdp(self.mechanism, self.noise, answered, unanswered)
        bound = _independent_rdp(self.mechanism, self.noise, self.lost, 0)
        exact: float | None = None
        if self._exact is not None:
            exact = epsilon_improved(ORDERS, bound + self._exact[:queries].sum(axis=0).max(axis=0), delta)[0]
        bound = bound + self._theorem6(queries)
        theorem6_epsilon, order = epsilon_improved(ORDERS, bound, delta)
        found: dict[str, dict[str, float | None]] = {
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
        reasons = {
            kind: {name: self._reason(name, value) for name, value in row.items() if not _is_finite(value)}
            for kind, row in found.items()
        }
        epsilon = {
            kind: {name: value if _is_finite(value) else None for name, value in row.items()}
            for kind, row in found.items()
        }
        basis = {kind: {name: LABELS[name] for name in row} for kind, row in found.items()}
        basis[DATA_DEPENDENT]["exact"] = self._exact_basis(queries)
        return Account(queries, delta, epsilon, order, self.classes, reasons, basis)

    def _exact_basis(self, queries: int) -> str:
        """What the exact analysis gives: something else where the data-independent bound stands in."""
        number = int(self._stands_in[:queries].sum())
        if not number:
            return LABELS["exact"]
        others = "" if number == queries else f" for {number} of {queries} queries, the others exact"
        return f"data-independent bound in place of the exact noisy argmax, out of range{others}"

    def _reason(self, name: str, value: float | None) -> str:
        """Why there is no figure."""
        if value == inf:
            return INFINITE
        if name == "pld":
            return NO_LAW
        if name == "analytic":
            return CONTINUOUS_ONLY
        return GAUSSIAN_ONLY if self.mechanism.family is Family.LAPLACE else ONE_VOTE_ONLY

    def _theorem6(self, queries: int) -> Floats:
        curve = np.zeros(ORDERS.size)
        logs = self._logs[:queries][self.answered[:queries]]
        if logs.size:
            curve += theorem6(logs, self.mechanism.argmax, ORDERS)
        if self.mechanism.test_noise is not None:
            curve += theorem6_test(self._tests[:queries], self.mechanism, ORDERS)
        if self.mechanism.family is Family.LAPLACE:
            # Theorem 3 of 2017 knows no more than that a label is purely private; two Laplace mechanisms lose less.
            curve = np.minimum(curve, _independent_rdp(self.mechanism, self.noise, logs.size, 0))
        return curve


def _independent_rdp(mechanism: Mechanism, noise: NoiseKind, answered: int, unanswered: int) -> Floats:
    curve = np.zeros(ORDERS.size)
    # None of what is infinite is nothing.
    if answered:
        curve += answered * mechanism.argmax.rdp(ORDERS, noise)
    curve += times(answered + unanswered, mechanism.rho_test) * ORDERS
    return curve


def _analytic(mechanism: Mechanism, noise: NoiseKind, answered: int, unanswered: int, delta: float) -> float | None:
    """It is a bound for continuous Gaussian noise only."""
    mu = mechanism.gaussian_mu(answered, unanswered)
    return None if mu is None or noise is NoiseKind.DISCRETE else epsilon_gaussian(mu, delta)


def _pld(mechanism: Mechanism, noise: NoiseKind, answered: int, unanswered: int, delta: float) -> float | None:
    """For continuous Gaussian noise all of it is one Gaussian mechanism, otherwise losses are composed."""
    mu = mechanism.gaussian_mu(answered, unanswered)
    if mu is not None and noise is NoiseKind.CONTINUOUS:
        return epsilon_connected(mu, delta)
    return epsilon_of_losses(mechanism.histograms(answered, unanswered), delta, noise)


def _is_finite(value: float | None) -> bool:
    return value is not None and isfinite(value)
