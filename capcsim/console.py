"""What the commands print on the output: tables and JSON."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

out, err = Console(), Console(stderr=True)


def show_record(record: Any, as_json: bool) -> None:
    """A run's summary."""
    from capcsim.bookkeeping import told
    from capcsim.report.tables import summary
    from capcsim.study.result import read_result

    found = read_result(record)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    out.print(summary(found), highlight=False)
    out.print(f"Report: {record.folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    book = told(found.privacy.book)
    if book:
        out.print(book, highlight=False)


def capabilities_row(status: Any) -> dict[str, Any]:
    """A backend's row; what cannot be known without what it needs is empty."""
    found = status.capabilities
    problem = status.problem or (f"{', '.join(status.missing)} cannot be imported" if status.missing else "")
    return {
        "security": found.security if found else "",
        "exact": found.exact if found else None,
        "argmax": found.argmax if found else "",
        "release": found.release if found else "",
        "leaks": {role.value: what for role, what in found.leaks.items()} if found else {},
        "package": f"{status.package} {status.version}",
        "missing": list(status.missing),
        "problem": problem,
        "install": status.install,
    }


def show_backends(found: Sequence[Any], missing: Sequence[str]) -> None:
    """What is installed, and how to get what is not."""
    from capcsim.report.layout import new_table

    table = new_table()
    for column in ("backend", "security", "exact", "argmax, release", "package", "state"):
        table.add_column(column)
    for status in found:
        row = capabilities_row(status)
        state = "ready" if status.available else "not ready"
        voting = " / ".join(dict.fromkeys((row["argmax"], row["release"])))
        exact = {True: "yes", False: "no", None: ""}[row["exact"]]
        table.add_row(status.name, row["security"], exact, voting, row["package"], state)
    out.print(table)
    for status in (each for each in found if not each.available):
        why = f"{status.name} is not ready: {capabilities_row(status)['problem']}; remedy: {status.install}"
        out.print(why, markup=False, highlight=False, soft_wrap=True)
    for requirement in missing:
        out.print(f"missing: {requirement}; get it with: pip install '{requirement}'", markup=False)


def show_tuning(found: Any) -> None:
    """The largest noise that label accuracy bears, and what it costs."""
    lost = found.accuracy_without_noise - dict(zip(found.sigmas, found.accuracies, strict=True))[found.sigma]
    out.print(
        f"sigma {found.sigma:g}: accuracy against the {found.reference} falls from {found.accuracy_without_noise:.4f}"
        f" by {lost:.4f}{'; none larger was tried' if found.sigma == max(found.sigmas) else ''}; {found.warning}.",
        highlight=False,
    )


def show_account(found: Any) -> None:
    """Every analysis of an account, in a table."""
    out.print(found.table(), highlight=False)


def show_book(found: dict[str, Any]) -> None:
    """Every run in the book of runs, and what all of them took."""
    from capcsim.report.layout import new_table

    table = new_table(f"Runs with real noise on this host, delta {found['delta']:g}")
    for column in ("began", "run", "labels", "epsilon"):
        table.add_column(column, justify="right" if column in ("labels", "epsilon") else "left")
    for row in found["runs"]:
        table.add_row(row["started"], escape(row["title"]), str(row["labels"]), f"{row['epsilon']:.3f}")
    out.print(table, highlight=False)
    largest, middle = found["epsilon"]["largest"], found["epsilon"]["median"]
    out.print(
        f"All of them together: epsilon {largest:.3f} from the most exposed of {found['records']} training records,"
        f" whose party's votes were counted for {found['labels']} labels; {middle:.3f} from the median one.",
        highlight=False,
    )
    for row in found.get("parties", []):
        out.print(
            f"Party {row['party']}: {row['records']} records, the most exposed one epsilon {row['epsilon']:.3f}"
            f" ({row['labels']} labels).",
            highlight=False,
        )


def show_profile(found: dict[str, Any]) -> None:
    """Every step of a profile, in a table."""
    from capcsim.report.layout import new_table
    from capcsim.report.tables import seconds, size

    table = new_table(f"{found['backend']}, {found['model']}, batch {found['batch']}; security: {found['security']}")
    for column in ("step", "wall", "online", "rounds", "CPU", "bytes"):
        table.add_column(column, justify="right" if column in ("wall", "online", "rounds") else "left", no_wrap=True)
    for name, row in {"setup": found["setup"], **found["steps"], "total": found["total"]}.items():
        cpu = "\n".join(f"{role} {seconds(value)}" for role, value in row["cpu_s"].items())
        sent = "\n".join(f"{direction} {size(value)}" for direction, value in row["bytes"].items())
        online = row["phases"].get("online")
        online_s = seconds(online["wall_s"]) if online else ""
        table.add_row(name, seconds(row["wall_s"]), online_s, str(row["rounds"]), cpu, sent)
    out.print(table)
    out.print("wall: both roles, offline and online; total: all steps but the set-up", highlight=False)
    out.print(f"argmax: {found['argmax']}; release: {found['release']}", highlight=False)
    out.print(f"agreement with the integer reference: {found['agreement']:.4f}", highlight=False)
    if found["agreement_float32"] is not None:
        out.print(f"agreement with float32: {found['agreement_float32']:.4f}", highlight=False)
    for name, value in found["details"].items():
        shown = size(value) if name.endswith(("_bytes", "_bytes_per_query")) and isinstance(value, int) else value
        out.print(f"{name}: {shown}", markup=False, highlight=False)


def show_replay(found: dict[str, Any]) -> None:
    """When each batch of a bare world began and ended."""
    from capcsim.report.layout import new_table

    table = new_table(f"{len(found['batches'])} batches, {len(found['messages']):,} messages")
    for column in ("session", "batch", "start", "end"):
        table.add_column(column, justify="right")
    for row in found["batches"]:
        table.add_row(str(row["session"]), str(row["batch"]), f"{row['start_s']:.6f} s", f"{row['end_s']:.6f} s")
    out.print(table, highlight=False)


def print_json(value: Any) -> None:
    """One JSON object, in which every number is one."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
