import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from capcsim.record import Record
from capcsim.report.figures import FIGURES, classes, draw_figures, utilisation
from capcsim.report.layout import new_table
from capcsim.report.page import write_page
from capcsim.report.tables import fraction, notes, seconds, size, summary
from capcsim.report.trace import write_trace
from capcsim.scenario import load_scenario
from capcsim.study.caveats import caveats
from capcsim.study.result import Result, read_result
from capcsim.study.run import run_scenario


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Record:
    return run_scenario(load_scenario("smoke"), tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Record:
    """A run that could afford no label at all."""
    return run_scenario(load_scenario("smoke", ["privacy.epsilon=0.01"]), tmp_path_factory.mktemp("report") / "none")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Record:
    """A cut of a scenario whose budget ends early."""
    overrides = ["parties.count=5", "queries.per_querier=9", "privacy.epsilon=21"]
    return run_scenario(load_scenario("smoke", overrides), tmp_path_factory.mktemp("report") / "changed")


def test_every_figure_is_drawn_and_not_blank(record: Record) -> None:
    paths = draw_figures(record)
    assert [path.stem for path in paths] == list(FIGURES)
    for path in paths:
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 300
        colours = (255 * pixels[:, :, :3]).astype(np.int64) @ (1, 1 << 8, 1 << 16)
        assert len(np.unique(colours)) > 10


def test_a_run_without_a_label_is_drawn_too(empty: Record) -> None:
    figures = draw_figures(empty)
    assert "timeline" not in {path.stem for path in figures}
    write_page(empty, figures)
    write_trace(empty)
    html = (empty.folder / "report.html").read_text()
    assert "label 1 would take epsilon" in html
    assert "No label was bought" in html


def test_the_page_needs_nothing_from_outside(record: Record) -> None:
    html = write_page(record, draw_figures(record)).read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", html)
    assert html.count("data:image/png;base64,") == len(FIGURES)
    for row in record.manifest["summary"]["queriers"]:
        assert f"<td>{fraction(row['accuracy_after'])}</td>" in html
    assert "nobody is protected" in html


def test_the_page_escapes_what_a_scenario_says(record: Record) -> None:
    changed = {**record.manifest, "summary": {**record.manifest["summary"], "title": "<script>alert(1)</script>"}}
    html = write_page(Record(record.folder, changed), []).read_text()
    assert "<script>" not in html


def test_the_trace_has_every_stretch_of_work_and_both_ends_of_each_message(record: Record) -> None:
    events = json.loads(write_trace(record).read_text())["traceEvents"]
    by_kind = {kind: [event for event in events if event["ph"] == kind] for kind in "XbeM"}
    assert len(by_kind["X"]) == record.read_table("compute").num_rows
    assert len(by_kind["b"]) == len(by_kind["e"]) == record.read_table("messages").num_rows
    begins = {event["id"]: event["ts"] for event in by_kind["b"]}
    assert all(event["ts"] >= begins[event["id"]] for event in by_kind["e"])
    assert {event["pid"] for event in events} == {event["pid"] for event in by_kind["M"]}
    assert all(event["dur"] >= 0 for event in by_kind["X"])


def printed(record: Record, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary(read_result(record)))
    return console.export_text()


def as_rows(text: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("width", [24, 40, 60, 71, 79, 80, 200])
def test_no_number_is_cut_on_any_terminal(record: Record, width: int) -> None:
    text = printed(record, width)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    found = record.manifest["summary"]
    for row in found["queriers"]:
        for value in (row["label_accuracy"], row["accuracy_before"], row["accuracy_after"], row["epsilon"]):
            assert f"{value:.3f}" in text.split()
        for value in (seconds(row["latency_median_s"]), seconds(row["simulated_s"]), size(row["bytes"])):
            assert value in text


def test_a_wide_terminal_has_a_row_for_each_querying_party(record: Record) -> None:
    for width in (71, 80):
        table = as_rows(printed(record, width).partition("Backend ")[0])
        rows = [row for row in table if row[:1] == ["party"] and row[1].isdigit()]
        assert len(rows) == 2
        assert len(rows[0]) == len(rows[1]) == 13, "a name, four numbers, epsilon, and three numbers with a unit"
    assert ["labels", "7"] in as_rows(printed(record, 60))


@pytest.mark.parametrize("width", [30, 60, 80])
def test_tables_wrap_text_and_keep_lines_of_a_cell(width: int) -> None:
    table = new_table("A title")
    table.add_column("step", no_wrap=True)
    table.add_column("words")
    table.add_column("time", justify="right")
    table.add_row("one", "so many words that they must be wrapped somewhere in this cell", "123.456 ms")
    table.add_section()
    table.add_row("two", "first 1.5 s\nsecond 2.5 s", "7,890.123 s", style="bold")
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    for whole in ("123.456 ms", "7,890.123 s", "1.5", "2.5", "A title"):
        assert whole in text
    assert "…" not in text


def test_notes_say_what_the_figures_rest_on(record: Record) -> None:
    text = "\n".join(notes(read_result(record)))
    assert "security: none; argmax: Yao's garbled circuits" in text
    assert "SEEDED FOR SIMULATION: IT PROTECTS NOBODY" in text
    assert "Costs were measured on" in text
    assert "Busiest core:" in text
    assert "Party 0, 1: asked all 7 queries." in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 ms"), (3.2e-5, "0.032 ms"), (0.5, "500 ms"), (2.346, "2.35 s"), (1234.5, "1,234 s")]
)
def test_durations_get_a_unit_that_suits(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")])
def test_sizes_get_a_unit_that_suits(value: float, text: str) -> None:
    assert size(int(value)) == text


def test_the_title_says_what_ran(changed: Record) -> None:
    text = " ".join(printed(changed, 100).split())
    assert "(changed: parties.count = 5, queries.per_querier = 9, privacy.epsilon = 21)" in text
    assert "5 parties, 2 of which ask; data: digits; seed 7" in text
    html = write_page(changed, []).read_text()
    assert "<h1>Smoke test (changed: parties.count = 5," in html
    assert "5 parties, 2 of which ask; data: digits; seed 7" in html


def test_a_budget_that_ends_early_is_told_everywhere(changed: Record) -> None:
    for row in changed.manifest["summary"]["queriers"]:
        assert (row["labels_bought"], row["labels_wanted"]) == (6, 9)
        assert row["stopped"].endswith("it bought 6 of 9 labels")
        assert "label 7 would take epsilon to" in row["stopped"]
    assert "6 of 9" in printed(changed, 80)
    assert "it bought 6 of 9 labels." in "\n".join(notes(read_result(changed)))
    assert write_page(changed, []).read_text().count("<td>6 of 9</td>") == 2


def test_an_epsilon_that_protects_nobody_is_told(changed: Record) -> None:
    (spent,) = {row["epsilon"] for row in changed.manifest["summary"]["queriers"]}
    told = f"Epsilon {spent:.4g} for 6 labels protects nobody"
    assert [line for line in changed.manifest["summary"]["warnings"] if line.startswith(told)]
    assert told in " ".join(printed(changed, 80).split())
    assert told in write_page(changed, []).read_text()


@pytest.mark.parametrize(
    ("epsilon", "labels", "says"),
    [(49.9, 2, "Epsilon 49.9 for 2 labels protects nobody"), (1e6, 1, "1 label protects nobody: .* by any factor")],
)
def test_how_little_an_epsilon_protects(record: Record, epsilon: float, labels: int, says: str) -> None:
    summary = copy.deepcopy(record.manifest["summary"])
    for row in summary["queriers"]:
        row["epsilon"], row["labels_bought"] = epsilon, labels
    assert re.search(says, "\n".join(caveats(Result.model_validate(summary))))
    for row in summary["queriers"]:
        row["epsilon"] = 9.9
    assert not any("protects nobody" in line for line in caveats(Result.model_validate(summary)))


def test_clamped_values_are_told_where_there_are_many(record: Record) -> None:
    """A float's range would not have clamped them: the reader must know."""
    summary = copy.deepcopy(record.manifest["summary"])
    assert not any("outside the integers' range" in line for line in caveats(Result.model_validate(summary)))
    summary["execution"]["saturation"] = 0.034
    assert any(
        "3.4 % of inputs and activations lay outside" in line for line in caveats(Result.model_validate(summary))
    )


def test_panels_of_one_figure_share_their_scale_or_say_that_they_do_not(record: Record) -> None:
    cores, links = utilisation(record).axes
    assert cores.get_xlim() == links.get_xlim()
    above, below = classes(record).axes
    assert above.get_ylim() == (0, 1)
    assert "own scale" in below.get_ylabel()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "raise privacy.epsilon"),
        ({"unanswered": 4}, "lower privacy.threshold"),
        (
            {"stopped": "asked all 4 queries; 4 stayed without a label for lack of a quorum"},
            "raise protocol.deadline_s",
        ),
    ],
)
def test_a_run_without_a_label_says_what_to_change(record: Record, changes: dict[str, object], says: str) -> None:
    summary = copy.deepcopy(record.manifest["summary"])
    summary["queriers"] = [{**row, "labels_bought": 0, **changes} for row in summary["queriers"]]
    assert any(
        line.startswith("No label was bought: ") and says in line for line in caveats(Result.model_validate(summary))
    )


def test_the_trace_of_many_parties_shows_some_and_says_which(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capcsim.report.trace.MOST_PARTIES", 3)
    trace = json.loads(write_trace(record).read_text())
    assert trace["otherData"] == {"parties": "party 0, party 1, guardian, party 2, of 8 parties", "until_s": "the end"}
    hosts = {event["args"]["host"] for event in trace["traceEvents"] if event["ph"] == "X"}
    assert hosts == {"party 0", "party 1", "party 2", "guardian"}
    ends = {
        event["args"][end] for event in trace["traceEvents"] if event["ph"] == "b" for end in ("sender", "receiver")
    }
    assert ends <= hosts


def work(event: dict[str, Any]) -> tuple[float, float, str]:
    return event["ts"], event["dur"], event["name"]


def test_a_long_trace_shows_its_beginning_and_says_so(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(write_trace(record).read_text())["traceEvents"]
    monkeypatch.setattr("capcsim.report.trace.MOST_EVENTS", 60)
    trace = json.loads(write_trace(record).read_text())
    until_s, events = trace["otherData"]["until_s"], trace["traceEvents"]
    assert 0 < len([event for event in events if event["ph"] != "M"]) <= 60
    shown = {work(event) for event in events if event["ph"] == "X"}
    ended = {work(event) for event in whole if event["ph"] == "X" and sum(work(event)[:2]) < 1e6 * until_s * (1 - 1e-9)}
    assert ended <= shown
    assert max(start + duration for start, duration, _ in shown) <= 1e6 * until_s * (1 + 1e-9)
    assert {event["pid"] for event in events} == {event["pid"] for event in events if event["ph"] == "M"}
