"""The noisy argmax over vote counts, as a privacy event (what was done), apart from what it costs.

One voter that changes its vote moves two counts by one each (Papernot et al. 2018, arXiv 1802.08908, Prop. 8), so a
label costs as much as two counting queries of sensitivity `moved_votes`. CaPC's text says "a sensitivity of 1"; its
code uses the square root of two, as here. A voter that is present or absent moves one count.

`moved_votes` is the number of votes that the protected unit casts: those of one party's virtual voters, times the
number of parties in a group that is protected together (corrupted parties that pool what they know). For Gaussian
noise the Renyi divergence grows with its square, so epsilon is not linear in the group.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import exp, expm1, inf, log, log1p, sqrt
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

UNIT = 2.0**-53
SMALLEST_RHO = 1e-300
"""A bound as well, of more noise than doubles can tell from it."""
MOST_MOVED = 1 << 31
PARAMETERS = {"gnmax": ("sigma",), "lnmax": ("scale",), "confident-gnmax": ("sigma", "threshold", "sigma1")}
"""What each mechanism needs, by its name."""


class Adjacency(StrEnum):
    """What neighbouring inputs differ in: a unit changes its votes, or it is there or not."""

    REPLACE = "replace"
    ADD_REMOVE = "add-remove"


class NoiseKind(StrEnum):
    """The noise that is analysed: continuous as in the papers, or discrete as it is added inside a ring."""

    CONTINUOUS = "continuous"
    DISCRETE = "discrete"


@dataclass(frozen=True, slots=True)
class GNMax:
    """Argmax of the counts plus Gaussian noise of standard deviation `sigma`, in votes."""

    name: ClassVar[str] = "gnmax"

    sigma: float
    moved_votes: int = 1
    adjacency: Adjacency = Adjacency.REPLACE

    def __post_init__(self) -> None:
        _check_noise(self.sigma, "sigma")
        _check_moved(self.moved_votes)

    @property
    def scale(self) -> float:
        """The noise's parameter, in votes."""
        return self.sigma

    @property
    def rho(self) -> float:
        """Zero-concentrated DP of one label, continuous or discrete: the Renyi divergence is at most rho x order.

        Papernot et al. 2018, Prop. 8; for discrete noise Canonne, Kamath, Steinke 2020, Theorem 4.
        """
        return _rho(moved_counts(self.adjacency), self.moved_votes, self.sigma)

    def rdp(self, orders: Floats) -> Floats:
        """Data-independent Renyi divergence of one label at each order."""
        return self.rho * orders

    def gaussian_mu(self, labels: int) -> float:
        """The mu of Gaussian differential privacy for continuous noise: m sqrt(2 q) / sigma where votes change."""
        return sqrt(2 * times(labels, self.rho))


@dataclass(frozen=True, slots=True)
class LNMax:
    """Argmax of the counts plus Laplace noise of scale `b`, in votes (Papernot et al. 2017, arXiv 1610.05755)."""

    name: ClassVar[str] = "lnmax"

    b: float
    moved_votes: int = 1
    adjacency: Adjacency = Adjacency.REPLACE

    def __post_init__(self) -> None:
        _check_noise(self.b, "scale")
        _check_moved(self.moved_votes)

    @property
    def scale(self) -> float:
        """The noise's parameter, in votes."""
        return self.b

    @property
    def pure_epsilon(self) -> float:
        """Pure differential privacy of one label: 2/b where one vote changes."""
        return moved_counts(self.adjacency) * self.moved_votes / self.b

    def rdp(self, orders: Floats, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Floats:
        """Data-independent Renyi divergence of one label at each order.

        Of two Laplace mechanisms (Mironov 2017, arXiv 1702.07476, Prop. 6), tighter than that of pure 2/b.
        The privacy loss of discrete noise has steps of 2/b.
        """
        shift = self.moved_votes / self.b
        if noise is NoiseKind.CONTINUOUS:
            higher = np.log(orders / (2 * orders - 1)) + (orders - 1) * shift
            lower = np.log((orders - 1) / (2 * orders - 1)) - orders * shift
            one = np.logaddexp(higher, lower)
        else:
            one = np.logaddexp((orders - 1) * shift, -orders * shift)
            if self.moved_votes > 1:
                # Masses in proportion to exp(-i/b) whose loss is (moved_votes - 2i)/b, 0 < i < moved_votes.
                falls = (2 * orders - 1) / self.b
                first = ((orders - 1) * self.moved_votes - (2 * orders - 1)) / self.b
                series = np.log(-np.expm1(-falls * (self.moved_votes - 1))) - np.log(-np.expm1(-falls))
                one = np.logaddexp(one, log(-expm1(-1 / self.b)) + first + series)
            one = one - log1p(exp(-1 / self.b))
        one = (one + 8 * UNIT) / (orders - 1)
        return moved_counts(self.adjacency) * one


@dataclass(frozen=True, slots=True)
class ConfidentGNMax:
    """GNMax for queries whose largest count, plus Gaussian noise `sigma1`, reaches `threshold`; all in votes.

    Papernot et al. 2018, Algorithm 1. The other queries stay unanswered and cost the threshold test alone.
    """

    name: ClassVar[str] = "confident-gnmax"

    sigma: float
    threshold: int
    sigma1: float
    moved_votes: int = 1
    adjacency: Adjacency = Adjacency.REPLACE

    def __post_init__(self) -> None:
        _check_noise(self.sigma, "sigma")
        _check_noise(self.sigma1, "sigma1")
        _check_moved(self.moved_votes)
        if not abs(self.threshold) < inf or self.threshold != int(self.threshold):
            raise InputError(f"threshold = {self.threshold}: a whole number of votes")

    @property
    def scale(self) -> float:
        """The parameter of the argmax's noise, in votes."""
        return self.sigma

    @property
    def argmax(self) -> GNMax:
        """The noisy argmax of an answered query."""
        return GNMax(self.sigma, self.moved_votes, self.adjacency)

    @property
    def test_noise(self) -> GNMax:
        """What has the law of the noise on the largest count."""
        return GNMax(self.sigma1)

    @property
    def rho_test(self) -> float:
        """Zero-concentrated DP of one threshold test: a unit moves the largest count by at most its votes."""
        return _rho(1, self.moved_votes, self.sigma1)

    def gaussian_mu(self, answered: int, unanswered: int) -> float:
        """The mu of Gaussian differential privacy, for continuous noise, of what happened."""
        return sqrt(2 * (times(answered + unanswered, self.rho_test) + times(answered, self.argmax.rho)))


Mechanism: TypeAlias = GNMax | LNMax | ConfidentGNMax


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """What one query did: the threshold test, where the mechanism has one, and the argmax if it was `answered`.

    `log_q`, where a data-dependent analysis keeps it, is the logarithm of a bound on the probability that another
    label than the plurality's comes out. It is private.
    """

    answered: bool = True
    log_q: float = 0.0


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """A mechanism for a journal: its name and parameters."""
    return {"name": type(mechanism).__name__, **asdict(mechanism)}


def from_description(told: Mapping[str, Any]) -> Mechanism:
    """The inverse of `describe`, also after JSON; raises KeyError or TypeError for anything else."""
    kinds: dict[str, type[GNMax] | type[LNMax] | type[ConfidentGNMax]] = {
        kind.__name__: kind for kind in (GNMax, LNMax, ConfidentGNMax)
    }
    parameters = {key: value for key, value in told.items() if key not in ("name", "adjacency")}
    return kinds[told["name"]](**parameters, adjacency=Adjacency(told["adjacency"]))


def moved_counts(adjacency: Adjacency) -> int:
    """Counts that change with one vote."""
    return 2 if adjacency is Adjacency.REPLACE else 1


def times(number: int, cost: float) -> float:
    """The cost of so many together; none of what costs infinitely much is free."""
    return number * cost if number else 0.0


def _rho(counts: int, moved_votes: int, sigma: float) -> float:
    """Of so many counts that each move by `moved_votes`; never 0, however much noise there is."""
    ratio = moved_votes / sigma
    return max(counts * ratio * ratio / 2, SMALLEST_RHO)


def _check_noise(scale: float, name: str) -> None:
    if not 0 < scale < inf:
        raise InputError(f"{name} = {scale}: the noise needs a finite parameter above 0")


def _check_moved(moved_votes: int) -> None:
    if moved_votes > MOST_MOVED:
        raise InputError(f"moved_votes = {moved_votes}: at most 2^31 are protected together")
    if moved_votes < 1:
        raise InputError(f"moved_votes = {moved_votes}: the protected unit casts at least one vote")
