"""`[network]`: the lines."""

from typing import Annotated

from pydantic import Field

from capcsim.scenario.base import Rate, Section


class Access(Section):
    """One machine's access link."""

    up_bps: Rate = Field(description="from the machine; from a bit a second to what one optical fibre carries")
    down_bps: Rate = Field(description="to the machine; from a bit a second to what one optical fibre carries")


class Network(Section):
    """Access links of parties and guardian, and the one-way latency between any two machines."""

    latency_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False, strict=True)] = Field(
        description="one way; up to an hour, as of a satellite that stores and forwards"
    )
    party: Access
    guardian: Access
