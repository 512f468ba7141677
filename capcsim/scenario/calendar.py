"""`[calendar]`, and hours of the day: when the simulation begins, and when whoever works."""

from datetime import UTC, date, datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from capcsim.scenario.base import Section

Weekday: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
EVERY_DAY: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Clock: TypeAlias = Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$", examples=["18:00"])]


def _in_utc(found: datetime) -> datetime:
    """As UTC says it, without saying so."""
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


class Calendar(Section):
    """When the simulation begins, and which days are none for work."""

    start: Annotated[datetime, AfterValidator(_in_utc), Field(ge=datetime(1970, 1, 1), lt=datetime(2200, 1, 1))] = (
        Field(datetime(2024, 1, 1), description="in UTC; by default midnight before a Monday")
    )
    holidays: tuple[date, ...] = Field((), description="days on which only hours that name holidays count")


class Hours(Section):
    """Hours of the day by the clock of a site. One that closes before it opens goes on into the next day."""

    opens: Clock = Field(description="by the site's clock")
    closes: Clock = Field(description="by the site's clock; a window belongs to the day on which it opens")
    days: Annotated[tuple[Weekday, ...], Field(min_length=1)] = Field(EVERY_DAY, description="days on which it opens")
    holidays: bool = Field(True, description="whether it opens on holidays too")
