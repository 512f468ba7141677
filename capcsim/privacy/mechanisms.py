"""The noisy argmax over vote counts, as a privacy event (what was done), apart from what it costs.

One voter that changes its vote moves two counts by one each (Papernot et al. 2018, Prop. 8), so a label
costs as much as two counting queries of sensitivity `moved_votes`, the number of votes that the protected
unit casts. CaPC's text says "a sensitivity of 1"; its code uses the square root of two, as here.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any, TypeAlias

from capcsim.errors import InputError

MOVED_COUNTS = 2
"""Counts that change when votes move from one class to another."""


@dataclass(frozen=True, slots=True)
class GNMax:
    """Argmax of the counts plus discrete Gaussian noise; `sigma` is its parameter, in votes."""

    sigma: float
    moved_votes: int = 1

    def __post_init__(self) -> None:
        _check(self.sigma, "sigma", self.moved_votes)

    @property
    def scale(self) -> float:
        """The noise's parameter, in votes."""
        return self.sigma

    def loss(self, interval: float) -> Any:
        """Pessimistic privacy loss distribution of one label, both directions, by dp-accounting."""
        from dp_accounting.pld import privacy_loss_distribution as pld

        one = pld.from_discrete_gaussian_mechanism(
            self.sigma,
            sensitivity=self.moved_votes,
            pessimistic_estimate=True,
            value_discretization_interval=interval,
        )
        return one.self_compose(MOVED_COUNTS)

    def gaussian_mu(self, labels: int) -> float:
        """The mu of Gaussian differential privacy for continuous noise: m sqrt(2 q) / sigma."""
        return self.moved_votes * sqrt(MOVED_COUNTS * labels) / self.sigma


@dataclass(frozen=True, slots=True)
class LNMax:
    """Argmax of the counts plus discrete Laplace noise of scale `b`, in votes (Papernot et al. 2017)."""

    b: float
    moved_votes: int = 1

    def __post_init__(self) -> None:
        _check(self.b, "scale", self.moved_votes)

    @property
    def scale(self) -> float:
        """The noise's parameter, in votes."""
        return self.b

    def loss(self, interval: float) -> Any:
        """Pessimistic privacy loss distribution of one label, both directions, by dp-accounting."""
        from dp_accounting.pld import privacy_loss_distribution as pld

        one = pld.from_discrete_laplace_mechanism(
            1 / self.b,
            sensitivity=self.moved_votes,
            pessimistic_estimate=True,
            value_discretization_interval=interval,
        )
        return one.self_compose(MOVED_COUNTS)


Mechanism: TypeAlias = GNMax | LNMax


def _check(scale: float, name: str, moved_votes: int) -> None:
    if not 0 < scale < float("inf"):
        raise InputError(f"{name} = {scale}: the noise needs a finite parameter above 0")
    if moved_votes < 1:
        raise InputError(f"moved_votes = {moved_votes}: the protected unit casts at least one vote")
