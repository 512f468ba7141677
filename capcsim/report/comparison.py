"""The table and the figure of `capcsim compare`."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from capcsim.files import replacing
from capcsim.report.figures import STYLE, Picture, save
from capcsim.report.layout import new_table
from capcsim.report.tables import fraction, ran, seconds, size
from capcsim.study.comparison import BackendRow, Comparison

Lines: TypeAlias = Iterator[tuple[str, list[str]]]
"""Rows of the table: a name, and a cell for each backend."""
# None is red, which would look like a warning.
COLOURS = ("#1f5fa8", "#2a9d8f", "#e9a03b", "#7b4ea3", "#5c4033", "#0b2545")
MARKERS = ("o", "s", "D", "^", "v", "P")
UNPROTECTED = "#9aa5b1"
TITLE_WIDTH = 90
STEPS = ("infer", "argmax", "release")


def table(found: Comparison) -> RenderableType:
    """A column for each backend: security, costs of one pair and one release, the whole run, what came out of it."""
    shown = new_table(escape(f"{found.scenario}, batch {found.batch}\n{_as_run(found)}"))
    shown.add_column("", no_wrap=True)
    for row in found.backends:
        shown.add_column(escape(row.name), justify="right", no_wrap=False)
    for heading, section in SECTIONS.items():
        if heading:
            shown.add_row(heading, style="bold")
        for name, cells in section(found):
            shown.add_row(name, *cells)
        shown.add_section()
    return Group(shown, *(Text(line) for line in _notes(found)))


def write_comparison(found: Comparison, folder: Path) -> None:
    """comparison.json and comparison.png."""
    with replacing(folder / "comparison.json") as fresh:
        fresh.write_text(found.model_dump_json(indent=2))
    draw_comparison(found, folder / "comparison.png")


def draw_comparison(found: Comparison, path: Path) -> None:
    """Write the figure; raises HostError."""
    save(comparison(found), path)


def comparison(found: Comparison) -> Figure:
    """A label's median latency on each network, a mark for each backend."""
    networks, rows = _by_delay(found), found.backends
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(9.5, 2.2 + len(networks) * (0.3 + 0.24 * len(rows))), layout="constrained")
        axes = figure.subplots()
        for number, row in enumerate(rows):
            _marks(axes, found, networks, number, row)
        _changes(axes, [found.fastest_protected[name] for name in networks])
        axes.set_xscale("log")
        for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            set_formatter(FuncFormatter(_tick))
        axes.set_yticks(range(len(networks)), [f"{name}\n{_line(found, name)}" for name in networks])
        axes.set_ylim(len(networks) - 0.45, -0.55)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * 2)
        bold = "   (bold: the fastest of those that protect anybody)" if _contested(found) else ""
        axes.set_xlabel(f"median time from query to label, simulated, logarithmic{bold}")
        title = fill(f"{found.scenario}, {found.batch} queries at a time", TITLE_WIDTH)
        axes.set_title(f"{title}\n{_as_run(found)}", fontsize=11)
        axes.grid(axis="x", alpha=0.3)
        for between in range(1, len(networks)):
            axes.axhline(between - 0.5, color=UNPROTECTED, linewidth=0.5, alpha=0.5)
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def _marks(axes: Axes, found: Comparison, networks: list[str], number: int, row: BackendRow) -> None:
    """One backend's mark on each network; grey and hollow if it protects nobody."""
    height = 0.8 / len(found.backends)
    unprotected = row.security == "none"
    colour = UNPROTECTED if unprotected else COLOURS[number % len(COLOURS)]
    shown = [(i, row.networks[name].latency_median_s) for i, name in enumerate(networks)]
    places = [i - 0.4 + (number + 0.5) * height for i, latency_s in shown if latency_s is not None]
    latencies_s = [latency_s for _, latency_s in shown if latency_s is not None]
    names = [networks[i] for i, latency_s in shown if latency_s is not None]
    axes.scatter(latencies_s, places, s=64, marker=MARKERS[number % len(MARKERS)], edgecolors=colour, linewidths=1.6,
                 facecolors="none" if unprotected else colour, zorder=3,
                 label=f"{row.name} (security: {row.security})")  # fmt: skip
    for place, name, latency_s in zip(places, names, latencies_s, strict=True):
        fastest = _contested(found) and found.fastest_protected[name] == row.name
        axes.annotate(seconds(latency_s), (latency_s, place), xytext=(8, 0), textcoords="offset points",
                      va="center", fontsize=9, fontweight="bold" if fastest else "normal")  # fmt: skip


def _contested(found: Comparison) -> bool:
    """Whether there is a fastest at all: several that protect anybody."""
    return len([row for row in found.backends if row.security != "none"]) > 1


def _changes(axes: Axes, fastest: list[str | None]) -> None:
    """A line between two networks where another backend becomes the fastest."""
    for i, (before, after) in enumerate(pairwise(fastest)):
        if before and after and before != after:
            axes.axhline(i + 0.5, color="black", linewidth=1, linestyle=":")
            place, box = (0.995, i + 0.5), {"facecolor": "white", "edgecolor": "none", "pad": 2}
            axes.annotate(f"{before} ↑  ↓ {after}", place, xycoords=("axes fraction", "data"), ha="right",
                          va="center", fontsize=9, bbox=box)  # fmt: skip


def _tick(value: float, _: object) -> str:
    """A label at 1, 2 and 5 times a power of ten."""
    return seconds(value) if f"{value:e}"[0] in "125" else ""


def _by_delay(found: Comparison) -> list[str]:
    """The networks from the shortest latency to the longest; of equal ones, the faster line first."""
    networks = found.networks
    return sorted(networks, key=lambda name: (networks[name].latency_s or 0.0, -networks[name].party.up_bps))


def _line(found: Comparison, name: str) -> str:
    network = found.networks[name]
    up, down = map(_rate, (network.party.up_bps, network.party.down_bps))
    latency = "between sites" if network.latency_s is None else f"{1e3 * network.latency_s:g} ms"
    return f"{latency}, {up if up == down else f'{up} up'}"


def _rate(bps: float) -> str:
    return f"{bps / 1e9:g} Gbit/s" if bps >= 1e9 else f"{bps / 1e6:g} Mbit/s"


def _security(found: Comparison) -> Lines:
    yield "security", [row.security for row in found.backends]
    yield "argmax", [row.argmax for row in found.backends]


def _steps(found: Comparison) -> Lines:
    """One pair and one release on this machine."""
    for step in STEPS:
        measured = [row.steps[step] for row in found.backends]
        yield f"{step}, wall", [seconds(one["wall_s"]) for one in measured]
        yield f"{step}, CPU of all roles", [seconds(sum(one["cpu_s"].values())) for one in measured]
        yield f"{step}, bytes and rounds", [f"{size(sum(one['bytes'].values()))}, {one['rounds']}" for one in measured]


def _agreement(found: Comparison) -> Lines:
    rows = [row.agreement for row in found.backends]
    same = [f"{row.votes - row.disagreements} of {row.votes}" for row in rows]
    yield "votes as the reference", same
    yield "votes as float32", [fraction(row.float32) for row in rows]


def _latencies(found: Comparison) -> Lines:
    """Medians in the simulated run; a star marks the fastest of those that protect anybody."""
    for name in _by_delay(found):
        cells = []
        for row in found.backends:
            latency_s = row.networks[name].latency_median_s
            mark = " *" if _contested(found) and found.fastest_protected[name] == row.name else ""
            cells.append("-" if latency_s is None else seconds(latency_s) + mark)
        yield f"{name}, {_line(found, name)}", cells


def _results(found: Comparison) -> Lines:
    rows = found.backends
    wanted, bought = found.labels_wanted, [row.own.labels for row in rows]
    yield "labels bought", [f"{number} of {wanted}" if number < wanted else str(number) for number in bought]
    yield "sent in all", [size(row.own.bytes) for row in rows]
    for name, key in (("label accuracy", "label_accuracy"), ("epsilon", "epsilon")):
        yield name, [fraction(getattr(row, key)) for row in rows]
    accuracies = [f"{fraction(row.accuracy_before)}, {fraction(row.accuracy_after)}" for row in rows]
    yield "accuracy before, after", accuracies


SECTIONS: dict[str, Callable[[Comparison], Lines]] = {
    "": _security,
    "one pair, one release, here": _steps,
    "agreement": _agreement,
    "median label latency, simulated": _latencies,
    "the scenario's run": _results,
}


def _notes(found: Comparison) -> list[str]:
    """What a reader must know to believe the tables."""
    star = "* the fastest of those that protect anybody. " if _contested(found) else ""
    lines = [f"{star}Compare times of one security only: they buy different things."]
    lines += [f"{row.name} leaks: {_leaks(row)}." for row in found.backends]
    for row in found.backends:
        if row.agreement.upper_bound_95 is not None and not row.exact:
            bound = row.agreement.upper_bound_95
            lines.append(f"{row.name} is not exact: at most {bound:.2g} of its votes differ (95 %).")
    if found.data_note:
        lines.append(f"{found.data}: {found.data_note.rstrip('.')}.")
    return [*lines, "Seeded noise, so that only backends differ: these labels protect nobody."]


def _leaks(row: BackendRow) -> str:
    return "; ".join(f"the {role} learns {what}" for role, what in row.leaks.items()) or "nothing is said"


def _as_run(found: Comparison) -> str:
    """What ran, whatever the title says."""
    return ran(found.parties, found.voters, found.queriers, found.data, found.seed)
