"""The command line as people use it: what it prints, where, and with which exit code."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.cli import main
from capcsim.scenario import shipped_scenarios
from tests.test_scenario_errors import BAD

Call = Callable[..., tuple[int, str, str]]
# A run small enough to be done again and again.
QUICK = ["--set", "queries.per_querier=2", "--set", "models.epochs=5", "--set", "parties.count=3"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["capcsim", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_run_prints_a_row_for_each_querier_and_leaves_a_report(call: Call, tmp_path: Path) -> None:
    code, printed, _ = call("run", "smoke", "-o", str(tmp_path / "run"), *QUICK)
    assert code == 0
    for word in ("party 0", "party 1", "label acc", "before", "after", "epsilon", "latency", "simulated", "bytes"):
        assert word in printed
    assert "Yao's garbled circuits" in printed
    assert "SEEDED FOR SIMULATION" in printed
    files = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {"report.html", "trace.json", "accuracy.png", "epsilon.png", "timeline.png", "utilisation.png"} <= files


def test_json_is_one_object_and_nothing_else(call: Call, tmp_path: Path) -> None:
    outputs = []
    for arguments in (
        ["run", "smoke", "-o", str(tmp_path / "run"), *QUICK],
        ["report", str(tmp_path / "run")],
        ["backends"],
        ["check", "plaintext"],
        ["profile", "--model", "logistic", "--repeats", "1", "--security", "16384"],
        ["scenario-schema"],
    ):
        code, printed, errors = call(*arguments, "--json")
        assert (code, errors) == (0, ""), arguments
        outputs.append(json.loads(printed))
    summary, again, backends, check, profile, schema = outputs
    assert summary == again
    assert {"labels", "label_accuracy", "accuracy_before", "accuracy_after", "epsilon", "simulated_s", "bytes"} <= set(
        summary["queriers"][0]
    )
    assert [row["name"] for row in backends["backends"] if row["available"]]
    assert check["passed"]
    assert profile["backend"] == "hybrid"
    assert profile["steps"]["infer"]["phases"]["online"]["wall_s"] > 0
    assert "N = 16384" in profile["details"]["parameters"]
    assert profile["details"]["flood_margin_bits"] >= 40
    assert schema["title"] == "Scenario"


ACCOUNT = ["--mechanism", "gnmax", "--sigma", "3", "--delta", "1e-5"]
COUNTS = "7,2,1\n3,3,4\n10,0,0\n"


def test_account_prints_every_analysis_with_its_kind(call: Call, tmp_path: Path) -> None:
    votes = tmp_path / "votes.csv"
    votes.write_text(COUNTS)
    code, printed, errors = call("account", str(votes), *ACCOUNT, "--json")
    assert (code, errors) == (0, "")
    found = json.loads(printed)
    keys = ["queries", "delta", "epsilon", "releasable", "order", "classes", "reasons", "basis", "notes"]
    assert list(found) == keys
    assert found["queries"] == 3
    figures = tmp_path / "figures"
    code, printed, _ = call("account", str(votes), *ACCOUNT, "--budget", "20", "--figures", str(figures))
    assert code == 0
    assert "gnmax, sigma 3, 3 queries of 3 classes, delta 1e-05" in printed
    assert "not releasable (data-dependent)" in printed
    assert f"{found['epsilon']['data_dependent']['exact']:.4f}" in printed
    assert "Epsilon 20 pays for" in printed
    assert (figures / "epsilon-against-queries.png").stat().st_size > 10_000


def test_account_takes_every_mechanism(call: Call, tmp_path: Path) -> None:
    votes = tmp_path / "votes.csv"
    votes.write_text("a,b,answered\n5,4,1\n3,3,0\n")
    confident = ["--mechanism", "confident-gnmax", "--sigma", "3", "--threshold", "4", "--sigma1", "2"]
    for options in (["--mechanism", "lnmax", "--scale", "2"], confident):
        code, printed, _ = call("account", str(votes), *options, "--delta", "1e-5")
        assert code == 0
        assert "privacy loss distribution" in printed
    assert "1 queries were answered, the others charged for the test alone" in printed
    assert "threshold 4 with sigma1 2" in printed


def test_account_and_tune_read_a_run(call: Call, tmp_path: Path) -> None:
    run, figures = str(tmp_path / "run"), str(tmp_path / "figures")
    assert call("run", "smoke", "-o", run, "--json", *QUICK)[0] == 0
    code, printed, _ = call("account", run, "--json")
    assert code == 0
    found = json.loads(printed)
    assert (found["queries"], found["delta"]) == (4, 1e-5)
    assert found["epsilon"]["data_independent"]["analytic"] is None, "the run's noise is discrete"
    told = {kind for kinds in found["releasable"].values() for kind in kinds.values()}
    assert told == {"there is no epsilon", "not releasable (noise seeded)"}
    code, printed, _ = call("account", run, *ACCOUNT)
    assert code == 0
    assert "Noise: discrete" in printed
    assert "THIS RUN'S NOISE WAS SEEDED" in printed
    assert "does not apply" in printed
    code, printed, _ = call("tune", run, "--max-loss", "0.4", "--figures", figures)
    assert code == 0
    assert "tuning on private votes is itself not private" in " ".join(printed.split())
    assert (tmp_path / "figures" / "accuracy-against-sigma.png").stat().st_size > 10_000
    code, printed, _ = call("tune", run, "--max-loss", "0.4", "--json")
    assert json.loads(printed)["private"] is False


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mechanism", "gnmax", "--sigma", "3"], "--delta is missing"),
        (["--mechanism", "gnmax", "--delta", "1e-5"], "--sigma is missing: a number of votes for gnmax"),
        (["--delta", "1e-5"], "--mechanism: give one of gnmax, lnmax, confident-gnmax"),
        (["--mechanism", "exponential", "--delta", "1e-5"], "--mechanism exponential: choose one of"),
        ([*ACCOUNT, "--scale", "2"], "--scale 2: gnmax has no such parameter"),
        ([*ACCOUNT, "--delta", "1"], "delta = 1.0: it must lie strictly between 0 and 1"),
        ([*ACCOUNT, "--sigma", "0"], "sigma = 0.0: the noise needs a finite parameter above 0"),
        ([*ACCOUNT, "--noise", "pink"], "--noise pink: choose continuous or discrete"),
        ([*ACCOUNT, "--adjacency", "far"], "--adjacency far: choose replace or add-remove"),
        ([*ACCOUNT, "--group-size", "0"], "the protected unit casts at least one vote"),
        ([*ACCOUNT, "--budget", "0"], "--budget 0: an epsilon above 0"),
        (
            [
                "--mechanism",
                "confident-gnmax",
                "--sigma",
                "3",
                "--threshold",
                "2.5",
                "--sigma1",
                "1",
                "--delta",
                "1e-5",
            ],
            "--threshold 2.5: a whole number of votes",
        ),
    ],
)
def test_account_says_what_is_wrong_in_one_line(call: Call, tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "votes.csv").write_text(COUNTS)
    code, printed, errors = call("account", str(tmp_path / "votes.csv"), *options)
    assert (code, printed) == (2, "")
    assert says in errors
    assert errors.count("\n") == 1


def test_run_without_a_folder_makes_one_under_runs(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = call("run", "smoke", "--json", *QUICK)
    assert code == 0
    folder = Path(json.loads(printed)["record"])
    assert folder.parent == Path("runs")
    assert folder.name.startswith("smoke-")
    assert (folder / "report.html").exists()


def test_the_same_command_again_shows_the_run_that_is_there(call: Call, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    first, again = (call("run", "smoke", "-o", folder, "--json", *QUICK) for _ in range(2))
    assert first == again
    code, printed, errors = call("run", "smoke", "-o", folder, "--seed", "99", *QUICK)
    assert (code, printed) == (2, "")
    assert "holds a run with another scenario (it differs in seed)" in errors


def test_two_runs_in_one_second_get_two_directories(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capcsim.files import new_folder

    monkeypatch.chdir(tmp_path)
    assert len({new_folder("smoke") for _ in range(5)}) == 5


def test_a_file_is_no_directory_and_markup_in_a_title_is_text(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    code, _, errors = call("run", "smoke", "-o", str(tmp_path / "file"), *QUICK)
    assert code == 2
    assert "is a file; choose another directory" in errors
    code, printed, _ = call("run", "smoke", "-o", str(tmp_path / "run"), "--set", "title='x [/bold] y'", *QUICK)
    assert code == 0
    assert "x [/bold] y" in printed


def test_a_run_cannot_be_reported_before_its_end(call: Call, tmp_path: Path) -> None:
    call("run", "smoke", "-o", str(tmp_path), *QUICK)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "state": "running"}))
    code, _, errors = call("report", str(tmp_path))
    assert code == 2
    assert "finish it with" in errors


def as_overrides(changes: dict[str, Any]) -> list[str]:
    """The same changes as --set options; a dictionary as an inline table."""
    options = []
    for key, value in changes.items():
        text = json.dumps(value).replace(": ", " = ") if isinstance(value, dict) else json.dumps(value)
        options += ["--set", f"{key}={'nan' if value != value else text}"]
    return options


@pytest.mark.parametrize("changes", [case[1] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_scenario_is_one_line_and_exit_code_2(call: Call, tmp_path: Path, changes: dict[str, Any]) -> None:
    code, printed, errors = call("run", "smoke", "-o", str(tmp_path / "run"), *as_overrides(changes))
    assert (code, printed) == (2, "")
    assert errors.count("\n") == 1
    assert errors.startswith("capcsim: smoke.toml: ")
    assert not (tmp_path / "run").exists()


NPZ = ["--set", "data.source=npz", "--set", "parties.count=3", "--set", "data.evaluation=5"]


def bad_data(tmp_path: Path) -> list[tuple[str, list[str]]]:
    x, y = np.zeros((300, 4)), np.arange(300) % 2
    holes = x.copy()
    holes[7, 1] = np.nan
    np.savez(tmp_path / "nan.npz", x=holes, y=y)
    np.savez(tmp_path / "one-class.npz", x=x, y=0 * y)
    np.savez(tmp_path / "rare.npz", x=x, y=(np.arange(300) == 299).astype(int))
    (tmp_path / "text.npz").write_text("no archive")
    files = [(name, [*NPZ, "--set", f"data.path={tmp_path / name}.npz"]) for name in ("nan", "one-class", "text", "no")]
    tiny = [
        "--set",
        "data.train_per_party=1",
        "--set",
        "data.pool_per_querier=7",
        "--set",
        f"data.path={tmp_path}/rare.npz",
    ]
    return [
        *files,
        ("a class that nobody holds", [*NPZ, *tiny]),
        ("too few samples", ["--set", "data.train_per_party=999"]),
        ("unknown backend", ["--backend", "nonesuch"]),
        (
            "a model that does not fit",
            ["--set", "data.source=breast_cancer", "--set", "models.kinds=['cryptonet-relu']"],
        ),
    ]


@pytest.mark.parametrize("number", range(8))
def test_bad_data_or_backend_is_one_line_and_exit_code_2(call: Call, tmp_path: Path, number: int) -> None:
    name, options = bad_data(tmp_path)[number]
    code, printed, errors = call("run", "smoke", "-o", str(tmp_path / "run"), *options)
    assert (code, printed) == (2, ""), name
    message = [line for line in errors.splitlines() if line.startswith("capcsim: ")]
    assert len(message) == 1, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nonesuch"], "SCENARIO 'nonesuch': no such file; give a TOML file, or one of alliance, digits"),
        (["run", "digts"], "did you mean digits?"),
        (["run", "smoke", "--set", "nonsense"], "--set 'nonsense': a.b=v"),
        (["run"], "Missing argument SCENARIO: a TOML file"),
        (["report"], "Missing argument RUN: a run's directory; see capcsim report --help"),
        (["compare", "smoke"], "Missing option --backends: names with commas between"),
        (["run", "smoke", "extra"], "Unexpected argument 'extra'"),
        (
            ["run", "smoke", "--set", "privacy.sigma", "=", "10"],
            "Unexpected argument '= 10'; a value with blanks needs",
        ),
        (["run", "smoke", "--seed", "x"], "--seed 'x': a whole number; see capcsim run --help"),
        (["run", "smoke", "--seed", "1e3"], "--seed '1e3': a whole number"),
        (["run", "smoke", "--seed", ""], "--seed '': a whole number"),
        (["run", "smoke", "--seed", "-1"], "seed = -1: a whole number of at least 0"),
        (["run", "smoke", "--workers", "0"], "--workers '0': at least 1"),
        (["run", "smoke", "--workers", "1000000000"], "--workers '1000000000': at most 4096"),
        (["run", "smoke", "--engine", "spark"], "--engine 'spark': one of 'loky', 'dask', 'ray'"),
        (["run", "smoke", "--sigma", "abc"], "No such option '--sigma'; did you mean --set privacy.sigma=VALUE?"),
        (["run", "smoke", "--per-querier", "3"], "did you mean --set queries.per_querier=VALUE?"),
        (["run", "smoke", "--sed", "3"], "No such option '--sed'; did you mean --seed?"),
        (["run", "smoke", "--set"], "--set needs a value"),
        (["run", "smoke", "--json=3"], "does not take a value"),
        (["account", "x.csv", "--sigma", "abc"], "--sigma 'abc': a number"),
        (
            ["run", "smoke", "--backend", "hybrid", "--set", "protocol.options.security=3"],
            "protocol.options: security = 3: choose one of 8192",
        ),
        (["fly"], "No such command 'fly'; there are run, report, backends"),
        (["repotr"], "No such command 'repotr'; did you mean report?"),
        (["--foo"], "No such option '--foo'"),
        (["check", "nonesuch"], "no backend is called 'nonesuch'"),
        (["profile", "--backend", "nonesuch"], "no backend is called"),
        (["profile", "--model", "resnet-9000"], "--model 'resnet-9000': choose one of logistic, mlp, cryptonet-relu"),
        (["profile", "--model", "lenett"], "did you mean lenet?"),
        (["profile", "--batch", "0"], "both must be at least 1"),
        (["profile", "--batch", "x"], "--batch 'x': a whole number"),
        (["compare", "smoke", "--backends", "plaintext", "--networks", "lann"], "did you mean lan?"),
        (["report", "/nonexistent/run"], "not a run's directory"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(call: Call, arguments: list[str], says: str) -> None:
    code, printed, errors = call(*arguments)
    assert (code, printed) == (2, "")
    told = [line for line in errors.splitlines() if line.startswith("capcsim: ")]
    assert told == errors.splitlines()[-1:]
    assert says in told[0]
    for leaked in ("Traceback", "Input should", "pydantic", "Usage:", "\u2500", "\u256d"):
        assert leaked not in errors


def test_a_fault_of_ours_exits_with_1_and_shows_where(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("capcsim.study.run.run_scenario", fails)
    code, _, errors = call("run", "smoke")
    assert code == 1
    assert "ZeroDivisionError: a bug" in errors
    assert "this is a fault of capcsim" in errors


def test_check_exits_with_1_when_a_backend_fails(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.test_conformance import LastWinsTies

    monkeypatch.setattr("capcsim.registry.load", lambda name: LastWinsTies())
    code, printed, _ = call("check", "plaintext")
    assert code == 1
    assert "FAIL  argmax is one hot with the lowest index on ties" in printed


def test_backends_names_security_and_what_is_ideal(call: Call) -> None:
    code, printed, _ = call("backends", "--json")
    plaintext = next(row for row in json.loads(printed)["backends"] if row["name"] == "plaintext")
    assert code == 0
    assert (plaintext["security"], plaintext["exact"]) == ("none", True)
    assert plaintext["argmax"] == plaintext["release"] == "Yao's garbled circuits"


@pytest.mark.parametrize("module", ["capcsim", "capcsim.cli", "capcsim_crypten", "capcsim_plaintext"])
def test_importing_is_light(module: str) -> None:
    heavy = "{'torch', 'numba', 'tenseal', 'crypten', 'sklearn', 'simpy', 'matplotlib', 'opendp', 'scipy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_capcsim_loads_no_library_at_all() -> None:
    code = "import sys; before = set(sys.modules); import capcsim; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"capcsim"}


def test_the_scenarios_by_name_are_those_in_the_folder() -> None:
    assert {path.stem for path in Path(__file__).parents[1].glob("scenarios/*.toml")} == set(shipped_scenarios())
