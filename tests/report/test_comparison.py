"""The table and the figure of a comparison, from its value."""

import colorsys
import io
from collections.abc import Sequence
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from rich.console import Console

from capcsim.report.comparison import COLOURS, comparison, table
from capcsim.study.comparison import Comparison

SECURITY = {"plaintext": "none", "hybrid": "semi-honest", "crypten": "trusted first party", "other": "semi-honest"}


def found(names: Sequence[str], latencies_s: Sequence[float | None] | None = None) -> Comparison:
    """A comparison of backends on two networks; each is twice as slow on the second."""
    times = latencies_s or [0.01 * 3**place for place in range(len(names))]
    step = {"wall_s": 0.5, "cpu_s": {"querier": 0.25}, "bytes": {"querier -> answerer": 1500}, "rounds": 3}
    line = {"up_bps": 1e9, "down_bps": 1e9}

    def network(latency_s: float | None) -> dict[str, Any]:
        return {"latency_median_s": latency_s, "latency_max_s": latency_s, "bytes": 10_000, "labels": 42,
                "makespan_s": 1.0}  # fmt: skip

    rows = [
        {
            "name": name, "backend": name, "options": {}, "model": "mlp", "total": step, "setup": step, "details": {},
            "security": SECURITY[name], "exact": True, "argmax": "Yao", "release": "Yao", "leaks": {},
            "steps": dict.fromkeys(("infer", "argmax", "release"), step),
            "networks": {"scenario": network(time), "far": network(time and 2 * time)},
            "agreement": {"votes": 40, "disagreements": 0, "float32": 1.0, "upper_bound_95": 0.07},
            "label_accuracy": 0.857, "vote_agreement": 0.9,
            "accuracy_before": 0.5, "accuracy_after": 0.75, "epsilon": 2.5,
        }
        for name, time in zip(names, times, strict=True)
    ]  # fmt: skip
    protected = [name for name in names if SECURITY[name] != "none"]
    fastest = min(protected, key=lambda name: times[names.index(name)] or 1e9) if protected else None
    networks = {
        name: {"latency_s": latency_s, "party": line, "guardian": line}
        for name, latency_s in (("scenario", 0.01), ("far", 0.1))
    }
    told = {
        "scenario": "Smoke test (changed: parties.count = 25)", "data": "digits", "data_note": "", "seed": 7,
        "batch": 3,
        "parties": 25, "voters": 25, "queriers": 2, "labels_wanted": 500,
        "networks": networks, "backends": rows, "fastest_protected": dict.fromkeys(networks, fastest),
        "noise": "simulation", "stages": {}, "host": {}, "versions": {},
    }  # fmt: skip
    return Comparison.model_validate(told)


def printed(result: Comparison, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table(result))
    return console.export_text()


def test_times_are_marks_not_bars_that_begin_nowhere() -> None:
    (axes,) = comparison(found(("plaintext", "hybrid", "crypten"))).axes
    assert axes.get_xscale() == "log"
    assert not axes.patches
    marked = {tuple(offsets) for marks in axes.collections for offsets in marks.get_offsets()[:, 0].round(6)[:, None]}
    assert marked == {(0.01,), (0.02,), (0.03,), (0.06,), (0.09,), (0.18,)}


def test_no_backend_is_red() -> None:
    for colour in COLOURS:
        hue, saturation, _ = colorsys.rgb_to_hsv(*to_rgb(colour))
        assert saturation < 0.6 or 0.05 < hue < 0.9, colour


def bold(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]


def test_the_fastest_is_marked_only_where_it_was_contested() -> None:
    contested = found(("plaintext", "hybrid", "crypten"), (0.01, 0.03, 0.02))
    assert bold(comparison(contested)) == ["20 ms", "40 ms"]
    assert "bold: the fastest" in comparison(contested).axes[0].get_xlabel()
    assert printed(contested).count("ms *") == 2
    alone = found(("plaintext", "hybrid"))
    assert bold(comparison(alone)) == []
    assert "bold" not in comparison(alone).axes[0].get_xlabel()
    assert "*" not in printed(alone)
    assert "★" not in "".join(text.get_text() for text in comparison(contested).axes[0].texts)


def test_the_table_and_the_figure_say_what_ran() -> None:
    result = found(("hybrid", "other"))
    for text in (printed(result), comparison(result).axes[0].get_title(loc="left")):
        assert "(changed: parties.count = 25)" in text
        assert "25 parties, 2 of which ask; data: digits; seed 7" in text
    row = next(line for line in printed(result).splitlines() if line.startswith("labels bought"))
    assert row.split() == ["labels", "bought", "42", "of", "500", "42", "of", "500"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_number_is_cut(width: int) -> None:
    text = printed(found(("plaintext", "hybrid", "crypten")), width)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    for number in ("0.857", "2.500", "0.500,", "0.750", "90"):
        assert number in text.split()


def test_a_backend_without_a_label_has_no_mark() -> None:
    result = found(("plaintext", "hybrid"), (0.01, None))
    (axes,) = comparison(result).axes
    assert sum(len(marks.get_offsets()) for marks in axes.collections) == 2
    assert "-" in printed(result).split()
