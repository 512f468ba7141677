"""`[sites.S]`: where machines stand."""

from typing import Annotated

from pydantic import Field

from capcsim.scenario.base import Rate, Section
from capcsim.scenario.latencies import Place


class Site(Section):
    """A place with machines; what goes to other sites shares its backbone."""

    up_bps: Rate | None = Field(None, description="backbone out of the site; without it nothing holds up but the lines")
    down_bps: Rate | None = Field(None, description="backbone into the site")
    utc_offset_h: Annotated[float, Field(ge=-12, le=14, allow_inf_nan=False, multiple_of=0.25, strict=True)] = Field(
        0.0, description="hours that its clock is ahead of UTC"
    )
    place: Place | None = Field(None, description="where network.latency_preset finds it")
