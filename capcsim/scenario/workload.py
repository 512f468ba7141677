"""`[workload]`: when queries come."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from capcsim.scenario.base import Section, kind_by
from capcsim.scenario.calendar import Hours, Weekday

PerHour: TypeAlias = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False, strict=True)]
WORKING_DAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri")


class AtOnce(Section):
    """All queries are there when the round begins; one is submitted when its batch is sent."""

    arrivals: Literal["at-once"] = "at-once"


class Poisson(Section):
    """Queries come independently of each other, at the same rate day and night."""

    arrivals: Literal["poisson"]
    per_hour: PerHour = Field(description="queries of each querying party")


class Working(Hours):
    """Queries come independently of each other, in the hours in which people work at the site."""

    arrivals: Literal["hours"]
    per_hour: PerHour = Field(description="queries of each querying party, in these hours")
    days: Annotated[tuple[Weekday, ...], Field(min_length=1)] = WORKING_DAYS
    holidays: bool = False


class Trace(Section):
    """Queries come when a file says."""

    arrivals: Literal["trace"]
    path: Path = Field(description="seconds from the start, one a line; or a CSV file with at_s and maybe party")


Workload: TypeAlias = AtOnce | Poisson | Working | Trace
AnyWorkload: TypeAlias = Annotated[
    Annotated[AtOnce, Tag("AtOnce")]
    | Annotated[Poisson, Tag("Poisson")]
    | Annotated[Working, Tag("Working")]
    | Annotated[Trace, Tag("Trace")],
    kind_by("arrivals", AtOnce, Poisson, Working, Trace),
]


def is_open(workload: Any) -> bool:
    """Whether queries come by themselves, instead of being there."""
    return not isinstance(workload, AtOnce)
