"""What a long command says while it works, on a terminal and elsewhere."""

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from capcsim import progress
from capcsim.progress import Stage, Stages, duration
from capcsim.scenario import load_scenario
from capcsim.study.means import Means
from capcsim.study.run import run_scenario


def piped() -> Console:
    return Console(file=io.StringIO(), width=60)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_stage_tells_how_far_it_is_and_how_long_it_takes() -> None:
    stage = Stage("measuring pairs", 40, begun_s=100.0)
    assert str(stage) == "measuring pairs (40)"
    assert stage.told(104.0) == "measuring pairs 0 of 40, 4 s so far"
    stage.done = 12
    assert stage.told(112.0) == "measuring pairs 12 of 40, about 28 s left"
    stage.done = 40
    assert stage.told(130.0) == "measuring pairs 40 of 40, 30 s so far"
    assert Stage("drawing", 1, 0.0).told(5.0) == "drawing, 5 s so far"


@pytest.mark.parametrize(("time_s", "text"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_are_rounded(time_s: float, text: str) -> None:
    assert duration(time_s) == text


def test_elsewhere_lines_never_stop_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE_S", 0.1)
    console = piped()
    with Stages(console, quiet=False) as stages:
        stages.note("run's directory: [x]")
        stages.stage("loading")
        time.sleep(0.5)
        advance = stages.stage("training", 10)
        advance(5)
        time.sleep(0.5)
    lines = said(console).splitlines()
    assert lines[:2] == ["run's directory: [x]", "loading"]
    assert 2 <= lines.count("loading, 0 s so far") <= 6
    assert "training (10)" in lines
    assert 2 <= sum(bool(re.fullmatch(r"training 5 of 10, about \d s left", line)) for line in lines) <= 6
    time.sleep(0.3)
    assert len(said(console).splitlines()) == len(lines), "it is over"


def test_a_total_is_never_nought() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Stages(console, quiet=False) as stages:
        stages.stage("nothing to do", 0)
        stages.stage("measuring", 24)(6)
    text = said(console)
    assert "1/1" in text
    assert "6/24" in text
    assert "left" in text
    assert "/0" not in text


def test_beside_json_only_a_terminal_is_told() -> None:
    quiet, watched = piped(), Console(file=io.StringIO(), force_terminal=True, width=100)
    for console in (quiet, watched):
        with Stages(console, quiet=True) as stages:
            stages.note("a note")
            stages.stage("training", 8)(8)
    assert said(quiet) == ""
    assert "a note" in said(watched)
    assert "8/8" in said(watched)


class Watching:
    """Progress that remembers what was announced, and what was done of it."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.done: list[int] = []

    def stage(self, title: str, total: int) -> "object":
        self.stages.append((title, total))
        self.done.append(0)

        def advance(steps: int, place: int = len(self.done) - 1) -> None:
            self.done[place] += steps

        return advance

    def note(self, text: str) -> None:
        pass


@pytest.mark.parametrize("overrides", [[], ["models.baselines=['pooling','fedavg']", "models.fedavg_rounds=3"]])
def test_every_stage_of_a_run_has_the_total_that_it_reaches(tmp_path: Path, overrides: list[str]) -> None:
    quick = ["queries.per_querier=4", "models.epochs=5", "parties.count=4", "models.kinds=['mlp']", *overrides]
    seen = Watching()
    run_scenario(load_scenario("smoke", quick), tmp_path / "run", means=Means(seen))  # type: ignore[arg-type]
    titles = [title for title, _ in seen.stages]
    assert {"training", "voting", "measuring pairs", "measuring the guardian", "simulating"} <= set(titles)
    for (title, total), done in zip(seen.stages, seen.done, strict=True):
        assert total >= 1, title
        assert done == total or (done == 0 and total == 1), (title, done, total)
    # Two sizes of batches, five samples and a warm-up of each.
    assert dict(seen.stages)["measuring the guardian"] == 12


# What takes seconds to load; to import one of them is an error here.
HEAVY = ("torch", "matplotlib", "sklearn", "scipy", "numba", "pyarrow", "simpy", "joblib")
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); from capcsim.cli import main; main()"


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["run", "smoke", "-o", "run"], "run's directory: run"),
        (["report", "run"], "report of the run in run"),
        (["profile", "--model", "mlp"], "profile of mlp on hybrid, queries at a time: 1"),
        (["compare", "smoke", "--backends", "plaintext,hybrid"], "comparing plaintext,hybrid in smoke"),
        (["check", "plaintext"], "checking the backend plaintext"),
    ],
)
def test_the_first_line_comes_before_anything_slow_is_loaded(tmp_path: Path, arguments: list[str], first: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stderr.splitlines()[:2] == [first, "loading libraries"], done.stderr
    assert done.returncode != 0, "what is blocked is needed afterwards"
