"""Queries that come by themselves, and parties that answer at their hours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.errors import InputError
from capcsim.scenario import Scenario
from capcsim.simulation.arrivals import arrivals_s
from tests.simulation.fixed_costs import ENCODE_S, ONE_BATCH_S, SETUP_S, Simulate

Make = Callable[..., Scenario]
H = 3600.0
POISSON = {"workload": {"arrivals": "poisson", "per_hour": 60.0}}
ONE = {**POISSON, "parties.queriers": 1, "queries.batch": 3, "machines.guardian.cores": 64}
EVENINGS = {
    "parties": {},
    "workload": {"arrivals": "poisson", "per_hour": 60.0},
    "groups": {
        "asks": {"count": 1, "queriers": 1},
        "day": {"count": 2},
        "evening": {"count": 3, "hours": {"opens": "18:00", "closes": "22:00"}},
    },
    "queries.batch": 3,
    "machines.guardian.cores": 64,
}


def rows(found: Any) -> list[tuple[float, float, int]]:
    return [(row.submitted_s, row.labelled_s, row.batch) for row in found.queries]


def test_a_query_is_sent_when_it_comes_and_waits_from_then_on(simulate: Simulate) -> None:
    found = simulate(ONE, coming={0: [100.0, 300.0, 301.0]})
    # The third comes while the second is under way.
    assert rows(found) == [
        (100.0, pytest.approx(100.0 + ONE_BATCH_S), 0),
        (300.0, pytest.approx(300.0 + ONE_BATCH_S), 1),
        (301.0, pytest.approx(300.0 + 2 * ONE_BATCH_S), 2),
    ]


def test_what_comes_before_the_set_up_is_through_waits_for_it(simulate: Simulate) -> None:
    found = simulate(ONE, coming={0: [0.0, 1.0, 500.0]})
    assert rows(found)[:2] == [
        (0.0, pytest.approx(SETUP_S + ONE_BATCH_S), 0),
        (1.0, pytest.approx(SETUP_S + ONE_BATCH_S), 0),
    ]


def test_a_query_waits_for_others_as_long_as_it_may(simulate: Simulate) -> None:
    coming = {0: [100.0, 103.0, 150.0, 151.0, 152.0, 300.0]}
    found = simulate({**ONE, "queries.wait_s": 5.0}, queries=[6], coming=coming)
    sent_s = [105.0, 105.0, 152.0, 152.0, 152.0, 305.0]
    assert [row[1] for row in rows(found)] == pytest.approx([each + ONE_BATCH_S for each in sent_s])


def test_a_query_that_was_not_sent_in_time_lapses_without_a_charge(simulate: Simulate) -> None:
    found = simulate({**ONE, "queries.batch": 1, "queries.patience_s": 15.0}, coming={0: [100.0, 101.0, 102.0]})
    first, second, third = found.queries
    assert (first.label >= 0, second.label >= 0, third.label) == (True, True, -1)
    assert second.labelled_s == pytest.approx(100.0 + 2 * ONE_BATCH_S)
    assert (third.batch, third.submitted_s, third.labelled_s, third.counted) == (-1, 102.0, 117.0, ())
    assert third.why.startswith("lapsed")
    assert {row.batch for row in found.queries} == {-1, 0, 1}


def test_the_others_are_asked_at_once_beside_queries_that_come(simulate: Simulate) -> None:
    changes = {**ONE, "parties.queriers": 2}
    found = simulate(changes, queries=[3, 3], coming={1: [1000.0, 1001.0, 1002.0]})
    assert [row.submitted_s for row in found.queries if row.querier == 0] == [pytest.approx(SETUP_S)] * 3
    assert [row.submitted_s for row in found.queries if row.querier == 1] == [1000.0, 1001.0, 1002.0]


def test_a_party_that_is_closed_answers_from_when_it_opens_on(simulate: Simulate) -> None:
    found = simulate(EVENINGS, coming={0: [20 * H, 23 * H, 23 * H + 1]})
    # Set-up with the evening group is at 18:00. After 22:00 a query waits until the next day; its own work does too.
    night = 24 * H + 18 * H
    assert rows(found) == [
        (20 * H, pytest.approx(20 * H + ONE_BATCH_S), 0),
        (23 * H, pytest.approx(night + ONE_BATCH_S - ENCODE_S), 1),
        (23 * H + 1, pytest.approx(night + 2 * ONE_BATCH_S - ENCODE_S), 2),
    ]


def test_what_has_begun_goes_on_after_closing_time(simulate: Simulate) -> None:
    found = simulate(EVENINGS, queries=[1], coming={0: [22 * H - 1.0]})
    assert rows(found) == [(22 * H - 1.0, pytest.approx(22 * H - 1.0 + ONE_BATCH_S), 0)]


def test_the_guardian_does_not_wait_for_who_is_closed_beyond_the_deadline(simulate: Simulate) -> None:
    late = {**EVENINGS, "protocol.deadline_s": 60.0, "protocol.quorum": 0.4}
    found = simulate(late, coming={0: [19 * H, 23 * H, 46 * H]})
    assert [row.counted for row in found.queries] == [(1, 2, 3, 4, 5), (1, 2), (1, 2)]


def test_poisson_arrivals_have_their_rate_and_follow_from_the_seed(scenario: Make) -> None:
    many = arrivals_s(scenario(POISSON), 0, 20_000)
    assert many is not None
    gaps = np.diff(many)
    # 60 an hour: a minute apart, with a deviation of a minute.
    assert gaps.mean() == pytest.approx(60.0, rel=0.03)
    assert gaps.std() == pytest.approx(60.0, rel=0.03)
    assert np.array_equal(many[:100], arrivals_s(scenario(POISSON), 0, 100))  # type: ignore[arg-type]
    assert not np.array_equal(many[:9], arrivals_s(scenario(POISSON), 1, 9))  # type: ignore[arg-type]
    assert not np.array_equal(many[:9], arrivals_s(scenario({**POISSON, "seed": 8}), 0, 9))  # type: ignore[arg-type]


def test_working_hours_have_the_same_rate_in_them_and_nothing_outside(scenario: Make) -> None:
    hours = {"arrivals": "hours", "per_hour": 60.0, "opens": "08:00", "closes": "18:00"}
    found = arrivals_s(scenario({"workload": hours}), 0, 6000)
    assert found is not None
    assert all(8 * H <= time % (24 * H) <= 18 * H for time in found)
    days = (found // (24 * H)).astype(int)
    assert not {5, 6} & set(days % 7), "no weekend"
    by_day = np.bincount(days)[days.min() : days.max()]
    assert by_day[by_day > 0].mean() == pytest.approx(600, rel=0.05)
    assert arrivals_s(scenario(), 0, 5) is None


def write(folder: Path, text: str) -> dict[str, Any]:
    (folder / "times.csv").write_text(text)
    return {"workload": {"arrivals": "trace", "path": str(folder / "times.csv")}}


def test_a_trace_gives_the_times(scenario: Make, tmp_path: Path) -> None:
    plain = scenario(write(tmp_path, "5\n\n1.5\n 3e1 \n99\n"))
    assert list(arrivals_s(plain, 0, 3)) == [1.5, 5.0, 30.0]  # type: ignore[arg-type]
    named = scenario(write(tmp_path, "\ufeffparty,at_s\nparty 1,7\nparty 0,1\nparty 1,3\n"))
    assert list(arrivals_s(named, 1, 2)) == [3.0, 7.0]  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"times\.csv: 1 times of party 0, but 2 queries are wanted"):
        arrivals_s(named, 0, 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1\n2\n", "2 times, but 3 queries are wanted"),
        ("", "0 times, but 3 queries"),
        ("1\nsoon\n3\n", "'soon': seconds from the start"),
        ("1\n-2\n3\n", "'-2': seconds from the start"),
        ("1\nnan\n3\n", "'nan': seconds from the start"),
        ("at_s,party\n1\n2\n3\n", "0 times of party 0"),
    ],
)
def test_a_trace_that_says_no_times_is_told(scenario: Make, tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        arrivals_s(scenario(write(tmp_path, text)), 0, 3)


def test_a_trace_that_cannot_be_read_is_told(scenario: Make, tmp_path: Path) -> None:
    gone = {"workload": {"arrivals": "trace", "path": str(tmp_path / "none.csv")}}
    with pytest.raises(InputError, match=r"workload\.path: .*none\.csv: No such file"):
        arrivals_s(scenario(gone), 0, 3)
