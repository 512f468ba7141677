"""The command line: it reads arguments, calls one function, prints.

Exit codes: 0 well, 2 the user's error (one line, no traceback), 1 ours.
"""

import json
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from capcsim.errors import CapcsimError, RecordError

app = typer.Typer(
    name="capcsim",
    help="Runs and simulates CaPC, confidential and private collaborative learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out, err = Console(), Console(stderr=True)

Engine: TypeAlias = Literal["loky", "dask", "ray"]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ScenarioName = Annotated[str, typer.Argument(help="A TOML file, or one that ships: digits, heart, hospitals, smoke.")]


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="capcsim")
    except CapcsimError as error:
        err.print(f"capcsim: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except Exception:  # the last resort, which tells the user whose fault it is
        traceback.print_exc()
        err.print("capcsim: this is a fault of capcsim, not yours; please report it with the lines above")
        sys.exit(1)


@app.command()
def run(
    scenario: ScenarioName,
    backend: Annotated[str | None, typer.Option(help="Use this backend.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Override a key; A.B= removes it. May be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Override the scenario's seed.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure afresh; use no earlier transcript.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train. Results do not depend on it.")] = 1,
    engine: Annotated[
        Engine, typer.Option(help="What runs the training processes: joblib's loky, dask or ray.")
    ] = "loky",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where named data sets lie; else CAPCSIM_DATA.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run's directory; an unfinished run in it is resumed.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a scenario: train, collaborate, simulate, retrain; leaves a record and a report."""
    from capcsim.run import run_scenario
    from capcsim.scenario import load_scenario

    wanted = load_scenario(scenario, overrides or (), seed=seed, backend=backend, folder=data)
    where = folder or _new_folder(Path(scenario).stem)
    with _Stages(quiet=as_json) as stages:
        stages.heading = f"run's directory: {where}"
        try:
            record = run_scenario(wanted, where, measure=measure, workers=workers, engine=engine, progress=stages)
        except KeyboardInterrupt:
            stages.note(f"capcsim: interrupted; the same command with -o {where} keeps its labels and charges")
            raise typer.Exit(130) from None
        except CapcsimError:
            if where.is_dir() and not any(where.iterdir()):
                where.rmdir()
            raise
        stages.stage("drawing", 1)
        _write_report(record)
    _show_record(record, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")], as_json: JsonFlag = False
) -> None:
    """Draw figures, report.html and trace.json anew from a record."""
    from capcsim.record import Record

    record = Record.load(folder)
    if not record.complete:
        raise RecordError(f"{folder}: the run did not end; finish it with: capcsim run SCENARIO -o {folder}")
    _write_report(record)
    _show_record(record, as_json)


@app.command()
def backends(as_json: JsonFlag = False) -> None:
    """What is installed, what is missing, and how to get it."""
    from capcsim import registry
    from capcsim.report.tables import new_table

    found = [registry.status(name) for name in registry.names()]
    missing = registry.missing_requirements()
    if as_json:
        rows = [{**_capabilities(status), "name": status.name, "available": status.available} for status in found]
        _print_json({"backends": rows, "missing_requirements": list(missing)})
        return
    table = new_table()
    for column in ("backend", "security", "exact", "argmax, release", "package", "state"):
        table.add_column(column)
    for status in found:
        row = _capabilities(status)
        state = "ready" if status.available else escape(f"{row['problem']}: {status.install}")
        voting = " / ".join(dict.fromkeys((row["argmax"], row["release"])))
        exact = {True: "yes", False: "no", None: ""}[row["exact"]]
        table.add_row(status.name, row["security"], exact, voting, row["package"], state)
    out.print(table)
    for requirement in missing:
        out.print(f"missing: {requirement}; get it with: pip install '{requirement}'", markup=False)


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="BACKEND", help="A backend's name.")], as_json: JsonFlag = False
) -> None:
    """Run the conformance kit on a backend; exits with 1 when it fails."""
    from capcsim import conformance, registry

    results = []
    for result in conformance.run_checks(registry.load(name)):
        results.append(result)
        if not as_json:
            mark = Text("pass", "green") if result.passed else Text("FAIL", "red")
            out.print(mark.append(f"  {result.name}{': ' + result.detail if result.detail else ''}", "none"))
    passed = all(result.passed for result in results)
    if as_json:
        rows = [{"name": r.name, "passed": r.passed, "detail": r.detail} for r in results]
        _print_json({"backend": name, "passed": passed, "checks": rows})
    if not passed:
        raise typer.Exit(1)


@app.command()
def profile(
    backend: Annotated[str, typer.Option(help="A backend's name.")] = "hybrid",
    model: Annotated[
        str, typer.Option(help="A kind of model of scenarios, for example mlp, cryptonet-relu, lenet or vgg-5.")
    ] = ("cryptonet-relu"),
    batch: Annotated[int, typer.Option(help="Queries that travel together.")] = 1,
    repeats: Annotated[int, typer.Option(help="Runs after the warm-up.")] = 7,
    security: Annotated[
        int | None, typer.Option(help="Security level of a backend that has such: 8192, 16384 or 32768 for hybrid.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure what each step costs on this machine, with random weights and inputs."""
    from typing import get_args

    from capcsim import registry
    from capcsim.costs.profile import profile as measure_steps
    from capcsim.errors import InputError
    from capcsim.learning.models import build_model, usual_input_shape
    from capcsim.scenario import NetworkKind

    chosen = registry.load(backend, {} if security is None else {"security": security})
    kind = next((known for known in get_args(NetworkKind) if known == model), None)
    if kind is None:
        raise InputError(f"--model {model}: choose one of {', '.join(get_args(NetworkKind))}")
    built = build_model(kind, usual_input_shape(kind), 10, (100,), seed=0)
    with _Stages(quiet=as_json) as stages, closing(chosen):
        advance = stages.stage("measuring", repeats + 1)
        found = measure_steps(chosen, built, model, batch=batch, repeats=repeats, advance=advance)
    if as_json:
        _print_json(found)
    else:
        _show_profile(found)


@app.command("scenario-schema")
def scenario_schema(as_json: JsonFlag = False) -> None:  # noqa: ARG001 (its output is JSON either way)
    """Print the JSON schema of scenarios, for editors."""
    from capcsim.scenario import Scenario

    _print_json(Scenario.model_json_schema())


class _Stages:
    """Progress: bars on a terminal, a line for each stage elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._quiet, self.heading = quiet, ""
        columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=err, disable=quiet or not err.is_terminal)

    def __enter__(self) -> "_Stages":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """Say something besides the stages."""
        if not self._quiet:
            err.print(text, markup=False, highlight=False, soft_wrap=True)

    def stage(self, title: str, total: int) -> Callable[[float], None]:
        """Begin a stage; the heading comes before the first."""
        if self.heading:
            self.note(self.heading)
            self.heading = ""
        if not self._quiet and not err.is_terminal:
            err.print(f"{title} ({total})" if total > 1 else title, highlight=False)
        task = self._bars.add_task(title, total=total)
        return lambda done: self._bars.advance(task, done)


def _new_folder(name: str) -> Path:
    """A new directory under runs/, named after the scenario and the time."""
    stem = f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RecordError(f"{folder}: cannot be made: {error.strerror}; name another with -o") from None
        return folder
    raise AssertionError("count does not end")


def _write_report(record: Any) -> None:
    from capcsim.report.figures import draw_figures
    from capcsim.report.page import write_page
    from capcsim.report.trace import write_trace

    write_page(record, draw_figures(record))
    write_trace(record)


def _show_record(record: Any, as_json: bool) -> None:
    from capcsim.report.tables import summary

    if as_json:
        _print_json(record.manifest["summary"])
        return
    out.print(summary(record), highlight=False)
    out.print(f"Report: {record.folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _capabilities(status: Any) -> dict[str, Any]:
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


def _show_profile(found: dict[str, Any]) -> None:
    from capcsim.report.tables import new_table, seconds, size

    table = new_table(f"{found['backend']}, {found['model']}, batch {found['batch']}; security: {found['security']}")
    for column in ("step", "wall", "rounds", "CPU", "bytes"):
        table.add_column(column, justify="right" if column in ("wall", "rounds") else "left", no_wrap=True)
    for name, row in {"setup": found["setup"], **found["steps"], "total": found["total"]}.items():
        cpu = "\n".join(f"{role} {seconds(value)}" for role, value in row["cpu_s"].items())
        sent = "\n".join(f"{direction} {size(value)}" for direction, value in row["bytes"].items())
        table.add_row(name, seconds(row["wall_s"]), str(row["rounds"]), cpu, sent)
    out.print(table)
    out.print(f"argmax: {found['argmax']}; release: {found['release']}", highlight=False)
    out.print(f"agreement with the integer reference: {found['agreement']:.4f}", highlight=False)
    for name, value in found["details"].items():
        out.print(f"{name}: {value}", markup=False, highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
