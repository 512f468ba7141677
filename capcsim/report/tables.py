"""The summary on the terminal."""

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from capcsim.record import Record

Row = dict[str, Any]


def new_table(title: str | None = None) -> Table:
    """An empty table in the style that all of ours have."""
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )


def summary(record: Record) -> RenderableType:
    """One row for each querying party, and under it what the figures rest on."""
    found: Row = record.manifest["summary"]
    table = new_table(escape(found["title"]))
    table.add_column("querier", no_wrap=True)
    for column in ("labels", "label acc", "before", "after", "gain", "epsilon", "simulated", "bytes"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found["queriers"]:
        table.add_row(f"party {row['querier']}", *_cells(row), seconds(row["simulated_s"]), size(row["bytes"]))
    mean = found["mean"]
    gain = mean["accuracy_after"] - mean["accuracy_before"]
    accuracies = [fraction(mean[key]) for key in ("label_accuracy", "accuracy_before", "accuracy_after")]
    last = (seconds(found["makespan_s"]), size(found["bytes"]))
    table.add_section()
    table.add_row("mean", "", *accuracies, f"{gain:+.3f}", "", *last, style="bold")
    return Group(table, *(Text(line) for line in notes(record)))


def notes(record: Record) -> list[str]:
    """What a reader must know to believe the table, a sentence a line."""
    found: Row = record.manifest["summary"]
    lines = [_security(found), _noise(found["privacy"]), _execution(found["execution"]), _bottleneck(found)]
    if found["cost"]["price"]:
        lines.append(f"At the scenario's prices: {found['cost']['price']:.4f} {found['cost']['currency']}.")
    reasons: dict[str, list[str]] = {}
    for row in found["queriers"]:
        reasons.setdefault(row["stopped"], []).append(str(row["querier"]))
    return lines + [f"Party {', '.join(parties)}: {reason}." for reason, parties in reasons.items()]


def seconds(value: float) -> str:
    """A duration with a unit that suits it."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1 or unit == "ms":
            return f"{value * factor:.3g} {unit}" if value * factor < 1000 else f"{value * factor:,.0f} {unit}"
    raise AssertionError("the last unit takes every value")


def size(nbytes: int) -> str:
    """A number of bytes with a decimal unit."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def fraction(value: float | None) -> str:
    """Three digits, or a dash where there is no value."""
    return "-" if value is None else f"{value:.3f}"


def _cells(row: Row) -> list[str]:
    gain = row["accuracy_after"] - row["accuracy_before"]
    accuracies = [fraction(row[key]) for key in ("label_accuracy", "accuracy_before", "accuracy_after")]
    return [str(row["labels_bought"]), *accuracies, f"{gain:+.3f}", f"{row['epsilon']:.3f}"]


def _security(found: Row) -> str:
    steps = f"argmax: {found['argmax']}; release: {found['release']}"
    return f"Backend {found['backend']}, security: {found['security']}; {steps}."


def _noise(privacy: Row) -> str:
    kind = "Gaussian" if privacy["mechanism"] == "gnmax" else "Laplace"
    warning = "" if privacy["releasable"] else " SEEDED FOR SIMULATION: IT PROTECTS NOBODY."
    return (
        f"Discrete {kind} noise of {privacy['noise_votes']:g} votes;{warning} epsilon is {privacy['analysis']} at"
        f" delta {privacy['delta']:g} per {privacy['unit']}, budget {privacy['epsilon_budget']:g} per"
        f" {privacy['budget_scope']}; {privacy['epsilon_if_queriers_collude']:.3f} if all queriers pool their labels."
    )


def _execution(execution: Row) -> str:
    text = f"Executed for real: {execution['pairs_executed']} of {execution['pairs']} pairs"
    if execution["strata_reused"]:
        text += (
            f", and {execution['pairs_executed_earlier']} in earlier runs that gave"
            f" {execution['strata_reused']} of {execution['strata']} strata of transcripts"
        )
    if not execution["votes_compared"]:
        return text + "."
    text += f"; {execution['votes_disagreeing']} of {execution['votes_compared']} votes differ from the reference"
    if not execution["exact"]:
        text += f" (95 % upper bound {execution['disagreement_upper_bound_95']:.2g})"
    return text + "."


def _bottleneck(found: Row) -> str:
    busiest = found["busiest"]
    return (
        f"Busiest core: {busiest['core']} ({100 * busiest['core_utilisation']:.2g} %);"
        f" busiest link: {busiest['link']} ({100 * busiest['link_utilisation']:.2g} %)."
    )
