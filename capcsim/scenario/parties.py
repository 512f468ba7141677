"""`[parties]`: who takes part."""

from typing import Annotated

from pydantic import Field

from capcsim.scenario.base import MILLION, Few, Section


class Parties(Section):
    """Who takes part. Parties 0 to queriers - 1 ask; every party answers the others."""

    count: Annotated[int, Field(ge=2, le=MILLION, strict=True)] = Field(description="how many parties there are")
    queriers: Few = Field(1, description="how many of them ask")
    virtual_per_party: Few = Field(1, description="disjoint shards, each with a model and a vote of its own")
