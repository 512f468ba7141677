"""`[privacy]`: the noise and the budget."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Tag

from capcsim.scenario.base import Few, Noise, Section, kind_by


class Privacy(Section, ABC):
    """The noise, the budget, and who shares it: what all mechanisms have in common."""

    mechanism: str
    epsilon: Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False, strict=True)] = Field(
        description="the budget of each account"
    )
    delta: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, strict=True)] = Field(
        description="the delta of (epsilon, delta)"
    )
    noise: Literal["real", "simulation"] = Field("real", description="simulation: seeded, protects nobody")
    analysis: Literal["data-independent", "theorem6-mironov"] = Field(
        "data-independent",
        description="what the budget is judged by; theorem6-mironov is the paper's, which depends on private votes",
    )
    budget_scope: Literal["querier", "coalition", "party"] = Field(
        "querier", description="one for each querying party, one for all, or one for each answering party"
    )
    unit: Literal["party", "record"] = Field("party", description="what epsilon protects")
    book: Literal["record", "enforce"] = Field(
        "record",
        description="the book of runs on this host: record what a run takes from each training record, or enforce that"
        " all runs together stay within privacy.epsilon",
    )
    corrupted_parties: Few = Field(1, description="units that are protected together: parties that pool what they know")

    @property
    def parameters(self) -> dict[str, float]:
        """What the mechanism takes and others do not, in votes."""
        return {key: getattr(self, key) for key in type(self).model_fields if key not in Privacy.model_fields}

    @property
    @abstractmethod
    def reach(self) -> int:
        """How far noise and threshold can move a count, in votes."""

    @property
    def threshold_test(self) -> tuple[int, float] | None:
        """The votes that an answer needs and the noise of that test, in votes, where there is one."""
        return None


class GNMaxPrivacy(Privacy):
    """Discrete Gaussian noise on every count."""

    mechanism: Literal["gnmax"] = "gnmax"
    sigma: Noise = Field(description="discrete Gaussian noise, in votes")

    @property
    def reach(self) -> int:
        """Beyond 40 standard deviations there is no noise."""
        return int(40 * self.sigma)


class LNMaxPrivacy(Privacy):
    """Discrete Laplace noise on every count."""

    mechanism: Literal["lnmax"]
    scale: Noise = Field(description="discrete Laplace noise, in votes")

    @property
    def reach(self) -> int:
        """Beyond 40 scales there is no noise."""
        return int(40 * self.scale)


class ConfidentPrivacy(Privacy):
    """Discrete Gaussian noise on every count of a query whose largest count passes a noisy threshold."""

    mechanism: Literal["confident-gnmax"]
    sigma: Noise = Field(description="discrete Gaussian noise, in votes")
    threshold: Annotated[int, Field(ge=0, le=1 << 20, strict=True)] = Field(
        description="votes that the largest count needs, with its noise, for an answer"
    )
    sigma1: Noise = Field(description="discrete Gaussian noise of the threshold test, in votes")

    @property
    def reach(self) -> int:
        """Of the larger noise, and the threshold beside it."""
        return int(40 * max(self.sigma, self.sigma1)) + self.threshold

    @property
    def threshold_test(self) -> tuple[int, float]:
        """The votes that an answer needs and the noise of that test."""
        return self.threshold, self.sigma1


AnyPrivacy: TypeAlias = Annotated[
    Annotated[GNMaxPrivacy, Tag("GNMaxPrivacy")]
    | Annotated[LNMaxPrivacy, Tag("LNMaxPrivacy")]
    | Annotated[ConfidentPrivacy, Tag("ConfidentPrivacy")],
    kind_by("mechanism", GNMaxPrivacy, LNMaxPrivacy, ConfidentPrivacy),
]
