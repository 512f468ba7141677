"""`[privacy]`: the noise and the budget."""

from typing import Annotated, Literal

from pydantic import Field

from capcsim.scenario.base import Few, Noise, Section

# What each mechanism takes, in votes.
NOISE_KEYS = {"gnmax": ("sigma",), "lnmax": ("scale",), "confident-gnmax": ("sigma", "threshold", "sigma1")}


class Privacy(Section):
    """The noise, the budget, and who shares it."""

    mechanism: Literal["gnmax", "lnmax", "confident-gnmax"] = "gnmax"
    sigma: Noise | None = Field(None, description="discrete Gaussian noise, in votes; for gnmax and confident-gnmax")
    scale: Noise | None = Field(None, description="discrete Laplace noise, in votes; for lnmax")
    threshold: Annotated[int, Field(ge=0, le=1 << 20, strict=True)] | None = Field(
        None, description="votes that the largest count needs, with its noise, for an answer; for confident-gnmax"
    )
    sigma1: Noise | None = Field(
        None, description="discrete Gaussian noise of the threshold test, in votes; for confident-gnmax"
    )
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
