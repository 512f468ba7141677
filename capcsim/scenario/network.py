"""`[network]`: the lines."""

from typing import Annotated, TypeAlias

from pydantic import Field

from capcsim.scenario.base import Name, Rate, Section
from capcsim.scenario.latencies import Preset

Latency: TypeAlias = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False, strict=True)]


class Access(Section):
    """One machine's access link."""

    up_bps: Rate = Field(description="from the machine; from a bit a second to what one optical fibre carries")
    down_bps: Rate = Field(description="to the machine; from a bit a second to what one optical fibre carries")


class Network(Section):
    """Access links of parties and guardian, and how long a message is on its way."""

    latency_s: Latency | None = Field(
        None, description="one way, between any two machines; up to an hour, as of a satellite that stores and forwards"
    )
    latency_between_s: dict[Name, dict[Name, Latency]] = Field(
        default_factory=dict, description="one way, from a site to another, and to itself; else as the other way round"
    )
    latency_preset: Preset | None = Field(None, description="published latencies between the sites' places")
    latency_within_s: Latency | None = Field(None, description="one way, between two machines of one site")
    party: Access
    guardian: Access
