"""Bare worlds: times worked out by hand, what may stand in them, and files that hold them."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capcsim.errors import InputError, ScenarioError
from capcsim.simulation import read_world, replay

CASES = os.environ.get("CAPCSIM_WORLDS")
WORLD: dict[str, Any] = {
    "sites": {"berlin": {}, "paris": {"down_bps": 50e6}},
    "latency_s": {"berlin": {"berlin": 0.001, "paris": 0.01}, "paris": {"berlin": 0.02, "paris": 0.001}},
    "machines": {
        "a": {"site": "berlin", "cores": 1, "up_bps": 100e6, "down_bps": 100e6},
        "b": {"site": "paris", "cores": 1, "speed": 2.0, "up_bps": 80e6, "down_bps": 100e6},
    },
    "parties": {"asks": {"machine": "a"}, "answers": {"machine": "b"}, "guards": {"machine": "a"}},
    "transcripts": {
        "pair": [
            {"role": "querier", "seconds": 0.5},
            {"from": "querier", "to": "answerer", "bytes": 12_500_000, "after": [0]},
            {"role": "answerer", "seconds": 1.0, "after": [1]},
            {"from": "answerer", "to": "guardian", "bytes": 1_000_000, "after": [2]},
        ],
        "last": [{"from": "guardian", "to": "querier", "bytes": 99, "after": []}, {"role": "querier", "seconds": 0.25}],
        "nothing": [],
    },
    "sessions": [
        {
            "querier": "asks",
            "guardian": "guards",
            "pairs": [{"answerer": "answers", "transcript": "pair"}],
            "closing": "last",
            "arrivals_s": [1.0, 2.0, 50.0],
        }
    ],
}
# 0.5 s, 100 Mbit over the backbone's 50 Mbit/s, 10 ms, 1 s on a core of speed 2, 8 Mbit over 80 Mbit/s, 20 ms.
PAIR_S = 0.5 + 2.0 + 0.01 + 0.5 + 0.1 + 0.02
BATCH_S = PAIR_S + 0.25


def test_times_are_those_worked_out_by_hand() -> None:
    found = replay(WORLD)
    starts_s = [1.0, 1.0 + BATCH_S, 50.0]
    assert [(row["session"], row["batch"]) for row in found["batches"]] == [(0, 0), (0, 1), (0, 2)]
    assert [row["start_s"] for row in found["batches"]] == pytest.approx(starts_s, rel=1e-12)
    assert [row["end_s"] for row in found["batches"]] == pytest.approx([s + BATCH_S for s in starts_s], rel=1e-12)
    first = [row for row in found["messages"] if row["batch"] == 0]
    assert [(row["pair"], row["node"]) for row in first] == [(0, 1), (0, 3), (1, 0)]
    assert [row["sent_s"] for row in first] == pytest.approx([1.5, 4.01, 1 + PAIR_S], rel=1e-12)
    assert [row["arrived_s"] for row in first] == pytest.approx([3.51, 1 + PAIR_S, 1 + PAIR_S], rel=1e-12)


def test_a_session_without_anything_to_do_is_over_at_once() -> None:
    world = copy.deepcopy(WORLD)
    world["sessions"][0] |= {"pairs": [{"answerer": "answers", "transcript": "nothing"}], "closing": "nothing"}
    world["sessions"].append({**world["sessions"][0], "pairs": [], "closing": None})
    found = replay(world)
    assert [row["end_s"] for row in found["batches"] if row["session"] == 0] == [1.0, 2.0, 50.0]
    assert [row["end_s"] for row in found["batches"] if row["session"] == 1] == [1.0, 2.0, 50.0]
    assert found["messages"] == []


@pytest.mark.skipif(CASES is None, reason="CAPCSIM_WORLDS names no file of worlds with their times")
def test_an_independent_reference_has_the_same_times() -> None:
    for case in json.loads(Path(CASES or "").read_text())["cases"]:
        found = replay(case["world"])
        for table, times in (("batches", ("start_s", "end_s")), ("messages", ("sent_s", "arrived_s"))):
            ours, theirs = ({_key(row): row for row in rows[table]} for rows in (found, case["expected"]))
            assert ours.keys() == theirs.keys()
            for key, row in theirs.items():
                assert [ours[key][time] for time in times] == pytest.approx([row[time] for time in times], rel=1e-6)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(value for name, value in row.items() if not name.endswith("_s"))


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(world: dict[str, Any]) -> None:
        *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        at: Any = world
        for key in keys:
            at = at[key]
        at[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("machines.a.site", "rome", "machines.a.site = 'rome': one of berlin, paris"),
        ("machines.a.cores", 0, "machines.a.cores = 0: a whole number from 1 to 4096"),
        ("machines.a.speed", float("inf"), "machines.a.speed = inf"),
        ("machines.a.up_bps", 0, "machines.a.up_bps = 0"),
        ("machines.a.colour", "red", "machines.a.colour"),
        ("parties.asks.machine", "c", "parties.asks.machine = 'c': one of a, b"),
        ("latency_s.paris", {"paris": 0.1}, "latency_s.paris.berlin is missing"),
        ("latency_s.paris.berlin", -1.0, "latency_s.paris.berlin = -1.0"),
        ("transcripts.pair.2.after", [2], "transcripts.pair.2.after = [2]: earlier nodes, from 0 to 1"),
        ("transcripts.pair.2.after", [-1], "transcripts.pair.2.after = [-1]: earlier nodes"),
        ("transcripts.pair.0.after", [0], "transcripts.pair.0.after = [0]: nothing: it is the first"),
        ("transcripts.pair.2.seconds", None, "transcripts.pair.2"),
        ("transcripts.pair.0.role", "dealer", "transcripts.pair.0"),
        ("sessions.0.closing", "pair", "sessions.0.closing = 'pair': a transcript of querier and guardian alone"),
        ("sessions.0.closing", "none", "sessions.0.closing = 'none': one of pair, last, nothing"),
        ("sessions.0.querier", "nobody", "sessions.0.querier = 'nobody': one of asks, answers, guards"),
        ("sessions.0.pairs.0.answerer", "nobody", "sessions.0.pairs.0.answerer = 'nobody'"),
        ("sessions.0.pairs.0.transcript", "x", "sessions.0.pairs.0.transcript = 'x'"),
        ("sessions.0.arrivals_s", [2.0, 1.0], "sessions.0.arrivals_s = [2.0, 1.0]: ascending times"),
        ("sessions.0.arrivals_s", [float("nan")], "sessions.0.arrivals_s.0"),
    ],
)
def test_what_cannot_be_is_told_with_its_key(path: str, value: Any, told: str) -> None:
    world = copy.deepcopy(WORLD)
    _set(path, value)(world)
    with pytest.raises(ScenarioError) as error:
        replay(world, "w.json")
    assert str(error.value).startswith("w.json: ")
    assert told in str(error.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    world = copy.deepcopy(WORLD)
    _set("machines.a.site", "rome")(world)
    _set("parties.asks.machine", "c")(world)
    with pytest.raises(ScenarioError, match=r"machines\.a\.site = 'rome'.*also parties\.asks\.machine = 'c'"):
        replay(world)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.json").write_bytes(content)
    with pytest.raises(InputError, match=r"w\.json: no JSON: .*docs/simulation\.md"):
        read_world(tmp_path / "w.json")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w\.json: cannot be read: No such file"):
        read_world(tmp_path / "w.json")


@pytest.mark.parametrize("found", [[], None, 3, "world", {"sites": []}])
def test_what_is_no_world_is_told(found: Any) -> None:
    with pytest.raises(ScenarioError):
        replay(found)
