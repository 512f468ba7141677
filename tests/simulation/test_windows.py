"""Hours of the day in simulated time: offsets, midnight, weekends, holidays."""

from datetime import date, datetime
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capcsim.scenario import Calendar, Hours
from capcsim.simulation.windows import Windows

H, DAY = 3600.0, 86400.0
MONDAY = datetime(2026, 11, 30)


def windows(opens: str, closes: str, offset_h: float = 0.0, start: datetime = MONDAY, **more: Any) -> Windows:
    holidays = more.pop("calendar_holidays", ())
    return Windows(Calendar(start=start, holidays=holidays), offset_h, Hours(opens=opens, closes=closes, **more))


def first(found: Windows, count: int, at_s: float = 0.0) -> list[tuple[float, float]]:
    return [(opens / H, closes / H) for opens, closes in islice(found.after(at_s), count)]


def test_a_day_opens_and_closes_by_the_clock() -> None:
    assert first(windows("08:00", "18:00"), 2) == [(8, 18), (32, 42)]


def test_a_clock_ahead_of_utc_opens_earlier() -> None:
    assert first(windows("08:00", "18:00", 2.0), 2) == [(6, 16), (30, 40)]
    assert first(windows("08:00", "18:00", -5.5), 1) == [(13.5, 23.5)]
    # At UTC+14 it is Monday 14:00 already when the simulation begins, and Tuesday ten hours later.
    assert first(windows("08:00", "18:00", 14.0), 2) == [(-6, 4), (18, 28)]


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    nights = windows("18:00", "08:00", days=("mon",))
    assert first(nights, 2) == [(18, 32), (18 + 7 * 24, 32 + 7 * 24)]
    assert first(windows("18:00", "08:00"), 2) == [(-6, 8), (18, 32)]


def test_a_weekend_is_skipped() -> None:
    work = windows("08:00", "18:00", days=("mon", "tue", "wed", "thu", "fri"))
    assert first(work, 2, 4 * 24 * H + 10 * H) == [(4 * 24 + 8, 4 * 24 + 18), (7 * 24 + 8, 7 * 24 + 18)]


def test_a_holiday_is_skipped_where_hours_say_so() -> None:
    tuesday = (date(2026, 12, 1),)
    assert first(windows("08:00", "18:00", calendar_holidays=tuesday, holidays=False), 2) == [(8, 18), (56, 66)]
    assert first(windows("08:00", "18:00", calendar_holidays=tuesday), 2) == [(8, 18), (32, 42)]


def test_a_holiday_is_one_by_the_clock_of_the_site() -> None:
    # Six hours ahead of UTC, Tuesday is from 18:00 UTC on Monday on.
    found = windows("00:00", "12:00", 6.0, calendar_holidays=(date(2026, 12, 1),), holidays=False)
    assert first(found, 2) == [(-6, 6), (42, 54)]


def test_around_the_clock_is_always_open() -> None:
    for closes in ("24:00", "00:00"):
        found = windows("00:00", closes)
        for at_s in (0.0, 1.0, 40 * DAY + 0.5):
            assert found.opens_s(at_s) == at_s
        assert found.at_open_s(9.5 * DAY) == 9.5 * DAY


def test_a_start_in_the_middle_of_a_window_is_in_it() -> None:
    found = windows("08:00", "18:00", start=datetime(2026, 11, 30, 12, 0))
    assert first(found, 2) == [(-4, 6), (20, 30)]
    assert (found.opens_s(0.0), found.opens_s(6.5 * H)) == (0.0, 20 * H)


@pytest.mark.parametrize(("worked_h", "at_h"), [(0.0, 8.0), (3.0, 11.0), (10.0, 18.0), (10.5, 32.5), (25.0, 61.0)])
def test_open_time_passes_in_windows_only(worked_h: float, at_h: float) -> None:
    assert windows("08:00", "18:00").at_open_s(worked_h * H) == pytest.approx(at_h * H)


clocks = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda found: f"{found[0]:02}:{found[1]:02}")


@given(
    clocks,
    clocks,
    st.integers(-48, 56),
    st.floats(0, 30 * DAY),
    st.sets(st.sampled_from(["mon", "tue", "sat", "sun"]), min_size=1),
)
def test_windows_are_in_order_and_what_is_open_is_in_one(
    opens: str, closes: str, quarters: int, at_s: float, days: set[str]
) -> None:
    found = windows(opens, closes, quarters / 4, days=tuple(days))
    some = list(islice(found.after(at_s), 5))
    assert some[0][1] > at_s
    assert all(a < b for a, b in some)
    assert all(one[1] <= two[0] for one, two in pairwise(some))
    opens_s = found.opens_s(at_s)
    assert opens_s == at_s or opens_s == some[0][0] > at_s
    local = found.local(some[0][0] + 1e-6) if some[0][0] % 60 == 0 else None
    assert local is None or f"{local:%H:%M}" == opens
