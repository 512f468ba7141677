"""The command line: it reads arguments, calls one function, prints.

`capcsim.endings` says how each ends.
"""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from capcsim import __version__
from capcsim.console import (
    capabilities_row,
    err,
    out,
    print_json,
    show_account,
    show_backends,
    show_book,
    show_profile,
    show_record,
    show_replay,
    show_tuning,
)
from capcsim.endings import end_with, keeping
from capcsim.errors import InputError, closest
from capcsim.files import make_folder, new_folder
from capcsim.progress import Stages
from capcsim.usage import usage_message

app = typer.Typer(
    name="capcsim",
    help="Runs and simulates CaPC, confidential and private collaborative learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
INTERRUPTED = 130
LOADING = "loading libraries"

Workers = Annotated[int, typer.Option(min=1, max=4096, help="Processes that train. Results do not depend on it.")]
EngineName = Annotated[
    Literal["loky", "dask", "ray"], typer.Option("--engine", help="What runs the training processes: joblib's.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=V", help="Override a key; A.B= removes it. May be repeated.")
]
Seed = Annotated[int | None, typer.Option(help="Override the scenario's seed.")]
Measure = Annotated[bool, typer.Option("--measure", help="Measure afresh; use no earlier transcript.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Where named data sets lie; else CAPCSIM_DATA.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Header = Annotated[
    Literal["yes", "no"] | None,
    typer.Option(help="Whether the first line of a text file of votes holds the columns' names; else its form tells."),
]
HEADER = {"yes": True, "no": False, None: None}
ScenarioName = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO", help="A TOML file, or one that ships: alliance, digits, heart, hospitals, mnist, smoke."
    ),
]


def _version(asked: bool) -> None:
    if asked:
        out.print(f"capcsim {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and nothing else.")
    ] = False,
) -> None:
    """Runs and simulates CaPC, confidential and private collaborative learning."""


def main() -> None:
    """Run the command line."""
    end_with(call)


def call() -> int:
    """Do what the arguments say; returns the exit code. Raises InputError for arguments that say nothing."""
    try:
        code = app(prog_name="capcsim", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except USAGE_ERROR as error:
        if not error.format_message():  # no command at all: typer has printed its help
            return 2
        raise InputError(usage_message(error)) from None
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code or 0


@app.command()
def run(
    scenario: ScenarioName,
    backend: Annotated[str | None, typer.Option(help="Use this backend.")] = None,
    overrides: Overrides = None,
    seed: Seed = None,
    measure: Measure = False,
    workers: Workers = 1,
    engine: EngineName = "loky",
    data: DataFolder = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run's directory; an unfinished run in it is resumed.")
    ] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Go on with a run that was begun on another host, where no copy goes on.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a scenario: train, collaborate, simulate, retrain; leaves a record and a report."""
    from capcsim.scenario import load_scenario

    wanted = load_scenario(scenario, overrides or (), seed=seed, backend=backend, folder=data)
    where = folder or new_folder(Path(scenario).stem)
    with keeping(where, named=folder is not None):
        with Stages(err, quiet=as_json) as stages:
            stages.note(f"run's directory: {where}")
            stages.stage(LOADING)
            from capcsim.study.means import Means
            from capcsim.study.run import run_scenario

            record = run_scenario(wanted, where, means=Means(stages, workers, engine, measure), adopt=adopt)
            _write_report(record, stages)
        show_record(record, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")], as_json: JsonFlag = False
) -> None:
    """Draw figures, report.html and trace.json anew from a record."""
    with Stages(err, quiet=as_json) as stages:
        stages.note(f"report of the run in {folder}")
        stages.stage(LOADING)
        from capcsim.record import Record

        record = Record.load(folder)
        record.check_complete()
        _write_report(record, stages)
    show_record(record, as_json)


@app.command()
def backends(as_json: JsonFlag = False) -> None:
    """What is installed, what is missing, and how to get it."""
    from capcsim import registry

    found = [registry.status(name) for name in registry.names()]
    missing = registry.missing_requirements()
    if as_json:
        rows = [{**capabilities_row(status), "name": status.name, "available": status.available} for status in found]
        print_json({"backends": rows, "missing_requirements": list(missing)})
        return
    show_backends(found, missing)


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="BACKEND", help="A backend's name.")], as_json: JsonFlag = False
) -> None:
    """Run the conformance kit on a backend; exits with 1 when it fails."""
    results = []
    with Stages(err, quiet=as_json, bars=False) as stages:
        stages.note(f"checking the backend {name}")
        stages.stage(LOADING)
        from capcsim import conformance, registry

        chosen = registry.load(name)
        advance = stages.stage("checks", len(conformance.CHECKS))
        for result in conformance.run_checks(chosen):
            results.append(result)
            if not as_json:
                mark = Text("pass", "green") if result.passed else Text("FAIL", "red")
                out.print(mark.append(f"  {result.name}{': ' + result.detail if result.detail else ''}", "none"))
            advance(1)
    passed = all(result.passed for result in results)
    if as_json:
        rows = [{"name": r.name, "passed": r.passed, "detail": r.detail} for r in results]
        print_json({"backend": name, "passed": passed, "checks": rows})
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
    from capcsim.scenario import NetworkKind

    kind = next((known for known in get_args(NetworkKind) if known == model), None)
    if kind is None:
        kinds = get_args(NetworkKind)
        raise InputError(f"--model {model!r}: choose one of {', '.join(kinds)}{closest(model, kinds)}")
    with Stages(err, quiet=as_json) as stages:
        stages.note(f"profile of {kind} on {backend}, queries at a time: {batch}")
        stages.stage(LOADING)
        from capcsim.costs.profile import profile as measure_steps
        from capcsim.learning.models import build_model, usual_input_shape

        with closing(registry.load(backend, {} if security is None else {"security": security})) as chosen:
            built = build_model(kind, usual_input_shape(kind), 10, (100,), seed=0)
            advance = stages.stage("measuring", repeats + 1)
            found = measure_steps(chosen, built, kind, batch=batch, repeats=repeats, advance=advance)
    if as_json:
        print_json(found)
    else:
        show_profile(found)


@app.command()
def compare(
    scenario: ScenarioName,
    backends: Annotated[
        str, typer.Option(help="Names with commas between; options as in crypten:provider=third-party.")
    ],
    networks: Annotated[
        str, typer.Option(help="Besides the scenario's own: some of lan, wan, far, slow.")
    ] = "lan,wan,far,slow",
    overrides: Overrides = None,
    seed: Seed = None,
    repeats: Annotated[int, typer.Option(min=1, max=10_000, help="Timed runs of each step after the warm-up.")] = 5,
    measure: Measure = False,
    workers: Workers = 1,
    engine: EngineName = "loky",
    data: DataFolder = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="The directory for comparison.json and comparison.png.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a scenario on several backends and networks: costs, accuracy, agreement and security side by side."""
    from capcsim.choices import parse_choices, parse_networks
    from capcsim.scenario import load_scenario

    wanted = load_scenario(scenario, overrides or (), seed=seed, folder=data)
    choices, others = parse_choices(backends), parse_networks(networks)
    if folder is not None:
        make_folder(folder)  # before any work
    with Stages(err, quiet=as_json) as stages:
        stages.note(f"comparing {backends} in {scenario}")
        stages.stage(LOADING)
        from capcsim.report.comparison import table, write_comparison
        from capcsim.study.compare import compare as compare_backends
        from capcsim.study.means import Means

        means = Means(stages, workers, engine, measure)
        found = compare_backends(wanted, choices, others, repeats=repeats, means=means)
    # First what a disk that is full could lose.
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        out.print(table(found), highlight=False)
    where = folder or new_folder(f"{Path(scenario).stem}-compare")
    make_folder(where)
    write_comparison(found, where)
    if as_json:
        return
    out.print(f"Figure: {where / 'comparison.png'}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def account(
    votes: Annotated[
        Path | None, typer.Argument(help="Counts in an .npz, .csv or .parquet file, or a run's directory.")
    ] = None,
    mechanism: Annotated[str | None, typer.Option(help="gnmax, lnmax or confident-gnmax; a run knows its own.")] = None,
    sigma: Annotated[float | None, typer.Option(help="Gaussian noise, in votes.")] = None,
    delta: Annotated[float | None, typer.Option(help="The delta of (epsilon, delta).")] = None,
    scale: Annotated[float | None, typer.Option(help="Laplace noise, in votes.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Votes that an answer needs, of confident-gnmax.")] = None,
    sigma1: Annotated[float | None, typer.Option(help="Noise of the threshold test, in votes.")] = None,
    noise: Annotated[str | None, typer.Option(help="continuous (files) or discrete (runs).")] = None,
    adjacency: Annotated[str, typer.Option(help="replace (a unit changes its votes) or add-remove.")] = "replace",
    group_size: Annotated[int | None, typer.Option(help="Votes that are protected together.")] = None,
    budget: Annotated[float | None, typer.Option(help="Also say how many labels this epsilon pays for.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Draw epsilon against queries into this folder.")] = None,
    header: Header = None,
    book: Annotated[
        bool, typer.Option("--book", help="What all runs on this host took; with a run's directory, from its parties.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Privacy accounting of votes by every analysis, and which epsilon may be published."""
    if book:
        from capcsim.bookkeeping import book_account

        told = book_account(votes, delta)
        print_json(told) if as_json else show_book(told)
        return
    if votes is None:
        raise InputError("VOTES is missing: a file of counts or a run's directory, or --book for all runs on this host")
    from capcsim.accounting import account_of, parse_mechanism

    parameters = {"sigma": sigma, "scale": scale, "threshold": threshold, "sigma1": sigma1}
    wanted = parse_mechanism(votes, mechanism, parameters, adjacency=adjacency, group_size=group_size)
    with Stages(err, quiet=as_json) as stages:
        found = account_of(
            votes,
            wanted,
            delta,
            noise=noise,
            budget=budget,
            figures=figures,
            header=HEADER[header],
            begin=stages.stage,
        )
    if as_json:
        print_json(found.to_json())
    else:
        show_account(found)


@app.command()
def tune(
    votes: Annotated[Path, typer.Argument(help="Counts in an .npz, .csv or .parquet file, or a run's directory.")],
    max_loss: Annotated[float, typer.Option(help="Label accuracy that may be lost.")] = 0.01,
    figures: Annotated[Path | None, typer.Option(help="Draw accuracy against sigma into this folder.")] = None,
    header: Header = None,
    as_json: JsonFlag = False,
) -> None:
    """The largest Gaussian noise that label accuracy bears; itself not private on private votes."""
    from capcsim.accounting import tune_on

    with Stages(err, quiet=as_json) as stages:
        found, path = tune_on(votes, max_loss, figures, HEADER[header], stages.stage)
    if as_json:
        print_json(found.to_json())
        return
    show_tuning(found)
    if path is not None:
        out.print(f"figure: {path}", markup=False, highlight=False, soft_wrap=True)


@app.command("replay")
def replay_world(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A world in JSON, as docs/simulation.md describes it.")],
    as_json: JsonFlag = False,
) -> None:
    """Run the simulation's engine on a bare world: machines, lines, transcripts of your own."""
    with Stages(err, quiet=as_json) as stages:
        stages.note(f"replay of {file}")
        stages.stage(LOADING)
        from capcsim.simulation import read_world, replay

        world = read_world(file)
        stages.stage("simulating")
        found = replay(world, source=str(file))
    if as_json:
        print_json(found)
    else:
        show_replay(found)


@app.command("scenario-schema")
def scenario_schema(as_json: JsonFlag = False) -> None:  # noqa: ARG001 (its output is JSON either way)
    """Print the JSON schema of scenarios, for editors."""
    from capcsim.scenario import Scenario

    print_json(Scenario.model_json_schema())


def _write_report(record: Any, stages: Stages) -> None:
    stages.stage(LOADING)
    from capcsim.report.whole import write_report

    write_report(record, stages.stage)
