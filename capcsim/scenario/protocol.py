"""`[protocol]`: the cryptography."""

from typing import Annotated, Literal

from pydantic import Field

from capcsim.scenario.base import Section


class Protocol(Section):
    """Which cryptography, how much of it really runs, and who must answer."""

    backend: str = "plaintext"
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="what the backend is made with, e.g. security = 16384 for hybrid"
    )
    execute: Literal["all", "sample", "none"] = "sample"
    samples: Annotated[int, Field(ge=5, le=10_000, strict=True)] = Field(5, description="executions of each stratum")
    quorum: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        1.0, description="share of the votes that must have arrived by the deadline"
    )
    deadline_s: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="how long the privacy guardian waits for a batch, at most 31 years"
    )
