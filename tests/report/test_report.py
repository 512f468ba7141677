import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from capcsim.record import Record
from capcsim.report.figures import FIGURES, draw_figures
from capcsim.report.page import write_page
from capcsim.report.tables import fraction, notes, seconds, size, summary
from capcsim.report.trace import write_trace
from capcsim.run import run_scenario
from capcsim.scenario_files import load_scenario


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Record:
    return run_scenario(load_scenario("smoke"), tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Record:
    """A run that could afford no label at all."""
    return run_scenario(load_scenario("smoke", ["privacy.epsilon=0.01"]), tmp_path_factory.mktemp("report") / "none")


def test_every_figure_is_drawn_and_not_blank(record: Record) -> None:
    paths = draw_figures(record)
    assert [path.stem for path in paths] == list(FIGURES)
    for path in paths:
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 300
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10


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


def test_the_table_fits_a_terminal_of_80_columns(record: Record) -> None:
    console = Console(width=80, record=True, file=(record.folder / "table.txt").open("w"))
    console.print(summary(record))
    console.file.close()
    text = console.export_text()
    assert "…" not in text
    assert "party 1" in text


def test_notes_say_what_the_figures_rest_on(record: Record) -> None:
    text = "\n".join(notes(record))
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


def test_clamped_values_are_told_where_there_are_many(record: Record) -> None:
    """A float's range would not have clamped them: the reader must know."""
    execution = record.manifest["summary"]["execution"]
    assert not any("outside the integers' range" in line for line in notes(record))
    try:
        execution["saturation"] = 0.034
        assert any("3.4 % of inputs and activations lay outside" in line for line in notes(record))
    finally:
        execution["saturation"] = 0.0
