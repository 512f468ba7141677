"""`[groups.G]`: parties that are alike."""

from typing import Annotated

from pydantic import Field

from capcsim.scenario.base import MILLION, Count, Few, Name, Section
from capcsim.scenario.calendar import Hours
from capcsim.scenario.workload import AnyWorkload


class Group(Section):
    """Parties that are alike: how many, where, on what, and what they ask."""

    count: Annotated[int, Field(ge=1, le=MILLION, strict=True)] = Field(description="how many parties there are")
    queriers: Annotated[int, Field(ge=0, le=MILLION, strict=True)] = Field(0, description="how many of them ask")
    per_querier: Count | None = Field(None, description="labels that each of these wants; else queries.per_querier")
    site: Name | None = Field(None, description="a site's name")
    machine: Name = Field("party", description="the name of a kind of machine; each party has one, or shares it")
    hours: Hours | None = Field(None, description="when they answer; at any time without")
    workload: AnyWorkload | None = Field(None, description="when their queries come, else [workload]")
    parties_per_machine: Few = Field(1, description="parties that share one machine and its line")
