"""The figures of a run, as PNG files."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from capcsim.files import make_folder, replacing
from capcsim.record import Record
from capcsim.study.result import Curve, PerClass, read_result

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.size": 10,
    "legend.frameon": False,
}
MUTED, STRONG, ACCENT, OTHER = "#9aa5b1", "#1f5fa8", "#d1495b", "#7b4ea3"
STEP_COLOURS = {
    "setup": "#7a7a7a",
    "infer": "#1f5fa8",
    "argmax": "#2a9d8f",
    "aggregate": "#e9a03b",
    "release": "#d1495b",
}
MOST_ANSWERERS = 8
MOST_BARS = 16


def draw_figures(record: Record, advance: Callable[[int], None] = lambda _: None) -> list[Path]:
    """Draw every figure into the record's folder; returns their paths. Raises HostError.

    `advance` is called with 1 for each of FIGURES.
    """
    folder = record.folder / "figures"
    paths = []
    with mpl.rc_context(STYLE):
        for name, draw in FIGURES.items():
            if _has(record, name):
                paths.append(folder / f"{name}.png")
                save(draw(record), paths[-1])
            advance(1)
    return paths


def _has(record: Record, name: str) -> bool:
    """Whether there is anything to draw."""
    if name == "timeline":
        return any(batch >= 0 for batch in record.read_table("queries", querier=0)["batch"].to_pylist())
    return name not in ("accuracy", "classes") or read_result(record).classes_fallen is not None


class Picture(Figure):
    """A figure that a notebook shows, whatever it has been told of matplotlib."""

    def _repr_png_(self) -> bytes:
        content = BytesIO()
        self.savefig(content, format="png", dpi=100)
        return content.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure, in the format that the name tells, into a folder that may be new; raises HostError."""
    make_folder(path.parent)
    with replacing(path) as fresh:
        figure.savefig(fresh, dpi=150)


def accuracy(record: Record) -> Figure:
    """Accuracy of each querying party before and after, and of the labels that it bought."""
    rows = read_result(record).queriers
    figure, axes = _figure(8, 1.6 + 0.5 * len(rows))
    places = np.arange(len(rows))
    before = np.array([row.accuracy_before for row in rows])
    after = np.array([row.accuracy_after for row in rows])
    axes.hlines(places, before, after, color=MUTED, linewidth=3, zorder=1)
    axes.scatter(before, places, s=70, color=MUTED, label="before", zorder=2)
    axes.scatter(after, places, s=70, color=STRONG, label="after", zorder=3)
    right = np.array([np.nan if row.label_accuracy is None else row.label_accuracy for row in rows])
    axes.scatter(right, places, marker="|", s=180, color=ACCENT, label="bought labels", zorder=4)
    for place, gain in zip(places, after - before, strict=True):
        middle = (before[place] + after[place]) / 2
        axes.annotate(f"{gain:+.3f}", (middle, place), xytext=(0, 7), textcoords="offset points", ha="center")
    axes.set_yticks(places, [f"party {row.querier}" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("accuracy on the evaluation set")
    axes.set_title("Accuracy before and after collaboration")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def classes(record: Record) -> Figure:
    """Each class's accuracy before and after, and how often it was asked about: means over the querying parties."""
    rows = read_result(record).queriers
    means = [
        _mean_by_class([row.class_accuracy_before for row in rows]),
        _mean_by_class([row.class_accuracy_after for row in rows]),
    ]
    asked = np.mean([row.queries_per_class for row in rows], axis=0)
    figure = Picture(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    places = np.arange(len(asked))
    for shift, (label, colour), values in zip((-0.2, 0.2), (("before", MUTED), ("after", STRONG)), means, strict=True):
        above.bar(places + shift, values, 0.4, color=colour, label=label)
    below.bar(places, asked, 0.4, color=OTHER)
    above.set_ylabel("accuracy")
    above.set_title("Accuracy and queries by true class, mean over the querying parties")
    above.set_ylim(0, 1)
    below.set_ylabel("queries\n(own scale)")
    below.set_xlabel("class")
    if len(places) <= MOST_BARS:
        below.set_xticks(places)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def epsilon(record: Record) -> Figure:
    """Epsilon spent against labels bought."""
    curve, found = Curve.model_validate(record.manifest["epsilon_curve"]), read_result(record)
    figure, axes = _figure(8, 4.2)
    axes.plot(curve.labels, curve.epsilon, color=STRONG, label="discrete noise, data-independent")
    analytic = [epsilon for epsilon in curve.analytic if epsilon is not None]
    if len(analytic) == len(curve.labels):
        axes.plot(curve.labels, analytic, "--", color=MUTED, label="analytic Gaussian, continuous noise")
    privacy = found.privacy
    budget = privacy.epsilon_budget
    axes.axhline(budget, color=ACCENT, linewidth=1, label=f"budget {budget:g}")
    charged, spent = [row.charges for row in found.queriers], [row.epsilon for row in found.queriers]
    paper = "" if privacy.analysis == "data-independent" else ", by Theorem 6 (not releasable)"
    axes.scatter(charged, spent, color=STRONG, zorder=3, label=f"spent by the querying parties{paper}")
    lost = [row for row in found.queriers if row.charges_without_label]
    if lost:
        ends = [[row.charges - row.charges_without_label, row.charges] for row in lost]
        for (left, right), row in zip(ends, lost, strict=True):
            axes.hlines(row.epsilon, left, right, color=ACCENT, linewidth=2, zorder=2)
        axes.plot([], [], color=ACCENT, linewidth=2, label="charged by an interrupted run, no label bought")
    axes.set_xlabel("labels charged to one account")
    axes.set_ylabel(f"epsilon at delta = {privacy.delta:g}")
    axes.set_title("Privacy spent")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


TIME_UNITS = (("ms", 1e3, 10), ("s", 1.0, 10_000), ("hours", 1 / 3600, float("inf")))
"""Names, what a second is in them, and up to how many seconds they are used."""


def timeline(record: Record) -> Figure:
    """One batch of querying party 0, from its beginning to its label: work as bars, messages as lines."""
    batch, submitted_s = _typical_batch(record)
    compute, messages = _of_batch(record, "compute", batch), _of_batch(record, "messages", batch)
    # A query that came by itself may have waited for hours, of which there is nothing to see.
    times_s = [row[key] for rows, key in ((compute, "start_s"), (messages, "sent_s")) for row in rows]
    start_s = max(submitted_s, min(times_s, default=submitted_s))
    asking = read_result(record).queriers[0].name
    hosts = _shown_hosts(messages, asking)
    rows = {host: place for place, host in enumerate(hosts)}
    figure, axes = _figure(10, 1.8 + 0.42 * max(len(hosts), 4))
    span_s = max((message["received_s"] - start_s for message in messages), default=0.0)
    unit, factor = next((unit, factor) for unit, factor, most_s in TIME_UNITS if span_s <= most_s)
    # As two collections: a thousand lines and bars of their own take seconds to draw.
    sent = [each for each in messages if each["sender"] in rows and each["receiver"] in rows]
    lines = [
        [
            (factor * (each[at] - start_s), rows[each[who]])
            for at, who in (("sent_s", "sender"), ("received_s", "receiver"))
        ]
        for each in sent
    ]
    colours = [STEP_COLOURS[each["step"]] for each in sent]
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=0.8, alpha=0.55))
    worked = [each for each in compute if each["host"] in rows]
    corners = [(factor * (each["start_s"] - start_s), rows[each["host"]] - 0.3) for each in worked]
    widths = [factor * (each["end_s"] - each["start_s"]) for each in worked]
    bars = [Rectangle(corner, width, 0.6) for corner, width in zip(corners, widths, strict=True)]
    axes.add_collection(PatchCollection(bars, facecolors=[STEP_COLOURS[each["step"]] for each in worked]))
    axes.autoscale_view()
    for step in ("infer", "argmax", "aggregate", "release"):
        axes.barh(0, 0, color=STEP_COLOURS[step], label=STEP_NAMES[step])
    axes.set_yticks(range(len(hosts)), [f"{host} (asks)" if host == asking else host for host in hosts])
    axes.set_ylim(len(hosts) - 0.4, -0.6)
    others = len({message["sender"] for message in messages}) - len(hosts)
    hidden = f"   ({others} more answering parties are not shown)" if others > 0 else ""
    axes.set_xlabel(f"simulated time since the batch began, {unit}{hidden}")
    axes.set_title("One batch, from query to label (bars: work, lines: messages)")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def utilisation(record: Record) -> Figure:
    """The busiest cores and links over the whole run."""
    found = record.manifest["utilisation"]
    figure = Picture(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for axes, title, uses in zip(panels, ("cores", "links"), (found["cores"], found["links"]), strict=True):
        top = sorted(uses.items(), key=lambda item: -item[1])[:MOST_BARS]
        axes.barh([name for name, _ in top], [100 * use for _, use in top], color=STRONG)
        axes.invert_yaxis()
        axes.set_xlabel("% of the simulated time, on one scale")
        axes.set_title(f"The {len(top)} busiest of {len(uses)} {title} in use")
        axes.grid(axis="x", alpha=0.3)
    return figure


FIGURES: dict[str, Callable[[Record], Figure]] = {
    "accuracy": accuracy,
    "classes": classes,
    "epsilon": epsilon,
    "timeline": timeline,
    "utilisation": utilisation,
}
STEP_NAMES = {
    "infer": "1a, 1b inference",
    "argmax": "1c argmax",
    "aggregate": "2 aggregate",
    "release": "3 release",
}


def _mean_by_class(rows: Sequence[PerClass]) -> list[float]:
    """The mean over the querying parties that have samples of a class; NaN, which draws nothing, where none has."""
    there = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return [float(np.mean(values)) if values else float("nan") for values in there]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Picture(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _typical_batch(record: Record) -> tuple[int, float]:
    """The batch of querying party 0 with the median latency, and when it was submitted."""
    rows = record.read_table("queries", querier=0).to_pylist()
    ends = {row["batch"]: row for row in rows if row["batch"] >= 0}
    ordered = sorted(ends.values(), key=lambda row: row["labelled_s"] - row["submitted_s"])
    middle = ordered[len(ordered) // 2]
    return middle["batch"], middle["submitted_s"]


def _of_batch(record: Record, table: str, batch: int) -> list[dict[str, Any]]:
    """The rows of one batch of querying party 0."""
    rows: list[dict[str, Any]] = record.read_table(table, querier=0, batch=batch).to_pylist()
    return rows


def _shown_hosts(messages: list[dict[str, Any]], asking: str) -> list[str]:
    """The querying party, some answering parties from the fastest to the slowest, the guardian."""
    arrived_s = {row["sender"]: row["received_s"] for row in messages if row["receiver"] == "guardian"}
    arrived_s.pop(asking, None)
    ordered = sorted(arrived_s, key=arrived_s.__getitem__)
    places = {round(place) for place in np.linspace(0, len(ordered) - 1, MOST_ANSWERERS)} if ordered else set()
    return [asking, *(ordered[place] for place in sorted(places)), "guardian"]
