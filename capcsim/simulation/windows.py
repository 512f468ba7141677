"""Hours of the day in simulated time, by the clock of a site."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from capcsim.scenario import Calendar, Hours

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOUR_S, _DAY_S = 3600.0, 86400.0


@dataclass(frozen=True)
class Windows:
    """When hours are open, as seconds since the calendar's start; none is longer than a day."""

    calendar: Calendar
    utc_offset_h: float
    hours: Hours

    def after(self, at_s: float) -> Iterator[tuple[float, float]]:
        """Windows that close after a time, in order, without an end: (opens, closes)."""
        return ((opens_s, closes_s) for opens_s, closes_s in self._days(at_s) if closes_s > at_s)

    def opens_s(self, at_s: float) -> float:
        """That time if it is open then, else when it opens next."""
        opens_s, _ = next(self.after(at_s))
        return max(opens_s, at_s)

    def at_open_s(self, worked_s: float) -> float:
        """When so much open time has passed since the start."""
        for opens_s, closes_s in self.after(0.0):
            begins_s = max(opens_s, 0.0)
            if worked_s <= closes_s - begins_s:
                return begins_s + worked_s
            worked_s -= closes_s - begins_s
        raise AssertionError("windows have no end")

    def local(self, at_s: float) -> datetime:
        """What the site's clock shows."""
        return self.calendar.start + timedelta(seconds=at_s, hours=self.utc_offset_h)

    def _days(self, at_s: float) -> Iterator[tuple[float, float]]:
        """The window of each day on which it opens, from the day before on."""
        day = self.local(at_s).date() - timedelta(days=1)
        opens_s, closes_s = map(_seconds, (self.hours.opens, self.hours.closes))
        length_s = closes_s - opens_s if closes_s > opens_s else closes_s - opens_s + _DAY_S
        while True:
            if self._counts(day):
                begins_s = self._midnight_s(day) + opens_s
                yield begins_s, begins_s + length_s
            day += timedelta(days=1)

    def _counts(self, day: date) -> bool:
        free = day in self.calendar.holidays and not self.hours.holidays
        return _DAYS[day.weekday()] in self.hours.days and not free

    def _midnight_s(self, day: date) -> float:
        ahead = timedelta(hours=self.utc_offset_h)
        return (datetime.combine(day, time()) - ahead - self.calendar.start).total_seconds()


def _seconds(clock: str) -> float:
    hours, minutes = clock.split(":")
    return _HOUR_S * int(hours) + 60.0 * int(minutes)
