"""The noisy argmax over vote counts, as a privacy event (what was done), apart from what it costs.

One voter that changes its vote moves two counts by one each (Papernot et al. 2018, arXiv 1802.08908, Prop. 8), so a
label costs as much as two counting queries of sensitivity `moved_votes`. CaPC's text says "a sensitivity of 1"; its
code uses the square root of two, as here. A voter that is present or absent moves one count.

`moved_votes` is the number of votes that the protected unit casts: those of one party's virtual voters, times the
number of parties in a group that is protected together (corrupted parties that pool what they know). For Gaussian
noise the Renyi divergence grows with its square, so epsilon is not linear in the group.

A mechanism answers for itself; nobody asks for its class. `Mechanism` lists what all of them say.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import exp, expm1, inf, log, log1p, sqrt
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

UNIT = 2.0**-53
SMALLEST_RHO = 1e-300
"""A bound as well, of more noise than doubles can tell from it."""
MOST_MOVED = 1 << 31


class Adjacency(StrEnum):
    """What neighbouring inputs differ in: a unit changes its votes, or it is there or not."""

    REPLACE = "replace"
    ADD_REMOVE = "add-remove"


class NoiseKind(StrEnum):
    """The noise that is analysed: continuous as in the papers, or discrete as it is added inside a ring."""

    CONTINUOUS = "continuous"
    DISCRETE = "discrete"


class Family(StrEnum):
    """The law of the noise on a count, up to its scale."""

    GAUSSIAN = "gaussian"
    LAPLACE = "laplace"


@dataclass(frozen=True, slots=True)
class GNMax:
    """Argmax of the counts plus Gaussian noise of standard deviation `sigma`, in votes."""

    name: ClassVar[str] = "gnmax"
    parameters: ClassVar[tuple[str, ...]] = ("sigma",)
    family: ClassVar[Literal[Family.GAUSSIAN]] = Family.GAUSSIAN
    answers_every_query: ClassVar[bool] = True
    threshold: ClassVar[None] = None
    test_noise: ClassVar[None] = None
    rho_test: ClassVar[float] = 0.0
    pure_epsilon: ClassVar[float] = inf
    """Gaussian noise gives none."""

    sigma: float
    moved_votes: int = 1
    adjacency: Adjacency = Adjacency.REPLACE

    def __post_init__(self) -> None:
        _check_noise(self.sigma, "sigma")
        _check_moved(self.moved_votes)

    @property
    def title(self) -> str:
        """The mechanism in words."""
        return f"{self.name}, sigma {self.sigma:g}"

    @property
    def scale(self) -> float:
        """The noise's parameter, in votes."""
        return self.sigma

    @property
    def argmax(self) -> "GNMax":
        """The noisy argmax of an answered query."""
        return self

    @property
    def rho(self) -> float:
        """Zero-concentrated DP of one label, continuous or discrete: the Renyi divergence is at most rho x order.

        Papernot et al. 2018, Prop. 8; for discrete noise Canonne, Kamath, Steinke 2020, Theorem 4.
        """
        return _rho(moved_counts(self.adjacency), self.moved_votes, self.sigma)

    def rdp(self, orders: Floats, noise: NoiseKind = NoiseKind.CONTINUOUS) -> Floats:  # noqa: ARG002
        """Data-independent Renyi divergence of one label at each order; the same for both kinds of noise."""
        return self.rho * orders

    def rho_of(self, answered: int, unanswered: int = 0) -> float:  # noqa: ARG002
        """Zero-concentrated DP of so many labels."""
        return times(answered, self.rho)

    def gaussian_mu(self, answered: int, unanswered: int = 0) -> float:
        """The mu of Gaussian differential privacy for continuous noise: m sqrt(2 q) / sigma where votes change."""
        return sqrt(2 * self.rho_of(answered, unanswered))

    def histograms(self, answered: int, unanswered: int = 0) -> "list[tuple[Argmax, int]]":  # noqa: ARG002
        """What noisy histograms dominate so many queries, and how many of each."""
        return [(self, answered)]


@dataclass(frozen=True, slots=True)
class LNMax:
    """Argmax of the counts plus Laplace noise of scale `b`, in votes (Papernot et al. 2017, arXiv 1610.05755)."""

    name: ClassVar[str] = "lnmax"
    parameters: ClassVar[tuple[str, ...]] = ("scale",)
    family: ClassVar[Literal[Family.LAPLACE]] = Family.LAPLACE
    answers_every_query: ClassVar[bool] = True
    threshold: ClassVar[None] = None
    test_noise: ClassVar[None] = None
    rho_test: ClassVar[float] = 0.0

    b: float
    moved_votes: int = 1
    adjacency: Adjacency = Adjacency.REPLACE

    def __post_init__(self) -> None:
        _check_noise(self.b, "scale")
        _check_moved(self.moved_votes)

    @property
    def title(self) -> str:
        """The mechanism in words."""
        return f"{self.name}, scale {self.b:g}"

    @property
    def scale(self) -> float:
        """The noise's parameter, in votes."""
        return self.b

    @property
    def argmax(self) -> "LNMax":
        """The noisy argmax of an answered query."""
        return self

    @property
    def pure_epsilon(self) -> float:
        """Pure differential privacy of one label: 2/b where one vote changes."""
        return moved_counts(self.adjacency) * self.moved_votes / self.b

    @property
    def rho(self) -> float:
        """Zero-concentrated DP of one label: half the square of each count's pure epsilon.

        Bun and Steinke 2016, arXiv 1605.02065, Prop. 1.4.
        """
        return _rho(moved_counts(self.adjacency), self.moved_votes, self.b)

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

    def rho_of(self, answered: int, unanswered: int = 0) -> float:  # noqa: ARG002
        """Zero-concentrated DP of so many labels."""
        return times(answered, self.rho)

    def gaussian_mu(self, answered: int, unanswered: int = 0) -> None:  # noqa: ARG002
        """None: with Laplace noise nothing is Gaussian."""
        return

    def histograms(self, answered: int, unanswered: int = 0) -> "list[tuple[Argmax, int]]":  # noqa: ARG002
        """What noisy histograms dominate so many queries, and how many of each."""
        return [(self, answered)]


@dataclass(frozen=True, slots=True)
class ConfidentGNMax:
    """GNMax for queries whose largest count, plus Gaussian noise `sigma1`, reaches `threshold`; all in votes.

    Papernot et al. 2018, Algorithm 1. The other queries stay unanswered and cost the threshold test alone.
    """

    name: ClassVar[str] = "confident-gnmax"
    parameters: ClassVar[tuple[str, ...]] = ("sigma", "threshold", "sigma1")
    family: ClassVar[Literal[Family.GAUSSIAN]] = Family.GAUSSIAN
    answers_every_query: ClassVar[bool] = False

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
    def title(self) -> str:
        """The mechanism in words."""
        return f"{self.name}, sigma {self.sigma:g}, threshold {self.threshold} with sigma1 {self.sigma1:g}"

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
        """What has the law of the noise on the largest count, which a unit moves by at most its votes."""
        return GNMax(self.sigma1, self.moved_votes, Adjacency.ADD_REMOVE)

    @property
    def rho_test(self) -> float:
        """Zero-concentrated DP of one threshold test."""
        return self.test_noise.rho

    def rho_of(self, answered: int, unanswered: int = 0) -> float:
        """Zero-concentrated DP of what happened: every query costs the test, those that were answered the argmax."""
        return times(answered + unanswered, self.rho_test) + times(answered, self.argmax.rho)

    def gaussian_mu(self, answered: int, unanswered: int = 0) -> float:
        """The mu of Gaussian differential privacy, for continuous noise, of what happened."""
        return sqrt(2 * self.rho_of(answered, unanswered))

    def histograms(self, answered: int, unanswered: int = 0) -> "list[tuple[Argmax, int]]":
        """What noisy histograms dominate what happened, and how many of each."""
        return [(self.argmax, answered), (self.test_noise, answered + unanswered)]


Argmax: TypeAlias = GNMax | LNMax
"""A noisy argmax without a test."""

Mechanism: TypeAlias = Argmax | ConfidentGNMax
"""Each says its `family` and `scale`, whether it `answers_every_query`, the `argmax` of those that are answered, and
`threshold` and `test_noise` of the test before it, both None where there is none. What a query costs: `rho` of an
argmax, `rho_test` of a test (0 without one), `rho_of` so many queries and their `gaussian_mu`, None for Laplace noise;
`histograms` has the dominating pairs."""

_KINDS: dict[str, Callable[..., Mechanism]] = {kind.name: kind for kind in (GNMax, LNMax, ConfidentGNMax)}
PARAMETERS = {kind.name: kind.parameters for kind in (GNMax, LNMax, ConfidentGNMax)}
"""What each mechanism needs, by its name."""


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
    kinds: dict[str, Callable[..., Mechanism]] = {kind.__name__: kind for kind in (GNMax, LNMax, ConfidentGNMax)}
    parameters = {key: value for key, value in told.items() if key not in ("name", "adjacency")}
    return kinds[told["name"]](**parameters, adjacency=Adjacency(told["adjacency"]))


def build(
    name: str, parameters: Mapping[str, Any], moved_votes: int = 1, adjacency: Adjacency = Adjacency.REPLACE
) -> Mechanism:
    """The mechanism of a name, from its `PARAMETERS`; raises KeyError for another name or where one is missing."""
    return _KINDS[name](*(parameters[key] for key in PARAMETERS[name]), moved_votes, adjacency)


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
