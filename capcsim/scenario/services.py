"""`[guardian]` and `[dealer]`: where those work that are no party."""

from pydantic import Field

from capcsim.scenario.base import Name, Section


class Service(Section):
    """Where the privacy guardian or a dealer works."""

    site: Name | None = Field(None, description="a site's name")
    machine: Name = Field("guardian", description="the name of a kind of machine")
