"""The Python door: what a command does, one call does."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import capcsim
from capcsim.errors import InputError, ScenarioError
from tests.environment import importing_from

LEARNT = ("accuracy_before", "accuracy_after", "labels", "label_accuracy", "epsilon")
QUICK = {"parties.count": 4, "models.epochs": 8, "models.kinds": ["logistic"], "queries.per_querier": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> capcsim.Run:
    return capcsim.run("smoke", set=QUICK, output=tmp_path_factory.mktemp("door") / "run")


def test_the_public_names() -> None:
    assert capcsim.__all__ == [
        "CapcsimError", "Comparison", "Run", "Scenario", "__version__", "account", "compare", "load_scenario", "run",
    ]  # fmt: skip
    for name in capcsim.__all__:
        assert getattr(capcsim, name)
    assert set(capcsim.__all__) <= set(dir(capcsim))
    with pytest.raises(AttributeError, match="no attribute 'ran_away'; it has CapcsimError"):
        capcsim.ran_away  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_is_fast_and_loads_nothing_large() -> None:
    code = "import sys, capcsim; print(sorted({'torch', 'numpy', 'pydantic', 'numba', 'pandas'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_has_tables_figures_and_a_page(run: capcsim.Run) -> None:
    assert run.metrics.loc["labels", "value"] == 8
    assert run.metrics.loc["makespan_s", "basis"] == "simulated"
    assert list(run.queriers["labels_bought"]) == [4, 4]
    assert len(run.queries) == 8
    assert {"sender", "nbytes"} <= set(run.messages.columns)
    assert {"core", "start_s"} <= set(run.compute.columns)
    assert len(run.votes) == 2 * 4 * 3
    right = (run.queries.label == run.queries.true_label).mean()
    assert run.metrics.loc["label_accuracy", "value"] == pytest.approx(right)
    assert isinstance(run.figure("timeline"), Figure)
    with pytest.raises(InputError, match=r"figure 'timelin': choose one of accuracy, .*did you mean timeline"):
        run.figure("timelin")
    assert run.report().read_text().startswith("<!doctype html>")


def test_a_run_prints_as_the_commands_table_also_in_a_notebook(run: capcsim.Run) -> None:
    assert "party 1" in str(run)
    assert "security: none" in str(run)
    assert "party 1" in run._repr_html_()
    assert repr(run) == f"<Run {run.summary.title!r} in {run.folder}>"


def test_a_run_on_disk_is_opened_again(run: capcsim.Run) -> None:
    again = capcsim.Run(run.folder)
    assert again.summary == run.summary
    with pytest.raises(capcsim.CapcsimError, match="not a run's directory"):
        capcsim.Run(run.folder / "figures")


def test_keys_are_changed_and_removed_and_a_mistake_names_the_key(tmp_path: Path) -> None:
    scenario = capcsim.load_scenario(
        "smoke", {"privacy.mechanism": "lnmax", "privacy.sigma": None, "privacy.scale": 2.0}
    )
    assert scenario.privacy.mechanism == "lnmax"
    assert "privacy.scale = 2.0" in scenario.title_as_run
    assert capcsim.load_scenario(scenario, {"seed": np.int64(3)}).seed == 3
    with pytest.raises(ScenarioError, match=r"queries\.per_querer = 4: .*did you mean queries.per_querier"):
        capcsim.run("smoke", set={"queries.per_querer": 4}, output=tmp_path / "run")


def test_without_an_output_it_is_a_new_folder_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert capcsim.run("smoke", set=QUICK).folder.parent == Path("runs")


def blobs(samples: int = 600, classes: int = 3) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    y = np.arange(samples) % classes
    return np.eye(classes, 5)[y] + generator.normal(0, 0.2, (samples, 5)), np.array(["red", "green", "blue"])[y]


def test_own_arrays_are_data(tmp_path: Path) -> None:
    found = capcsim.run("smoke", set={**QUICK, "models.epochs": 30}, data=blobs(), output=tmp_path / "run")
    assert found.summary.names["classes"] == ("blue", "green", "red")
    assert found.summary.data == "arrays"
    assert found.metrics.loc["accuracy_before", "value"] > 0.8
    x, y = blobs()
    parts = {"x_train": x[:300], "y_train": y[:300], "x_test": x[300:], "y_test": y[300:]}
    again = capcsim.run("smoke", set={**QUICK, "models.epochs": 30}, data=parts, output=tmp_path / "parts")
    assert again.metrics.loc["labels", "value"] == 8
    with pytest.raises(InputError, match="data: x within"):
        capcsim.run("smoke", set=QUICK, data=(100 * x, y), output=tmp_path / "wide")
    with pytest.raises(ScenarioError, match=r"arrays come from Python only, by capcsim\.run"):
        capcsim.run("smoke", set={**QUICK, "data.source": "arrays"}, output=tmp_path / "none")


def test_own_models_are_kinds(tmp_path: Path) -> None:
    import torch

    def network(shape: tuple[int, ...], classes: int) -> Any:
        return torch.nn.Sequential(torch.nn.Linear(*shape, 8), torch.nn.ReLU(), torch.nn.Linear(8, classes))

    changes = {**QUICK, "models.epochs": 60}
    found = capcsim.run(
        "smoke", set=changes, data=blobs(), models=[network, LogisticRegression()], output=tmp_path / "run"
    )
    assert found.metrics.loc["accuracy_before", "value"] > 0.8
    assert found.summary.execution.votes_disagreeing == 0
    with pytest.raises(ScenarioError, match=r"models\.kinds"):
        capcsim.run("smoke", set={**QUICK, "models.kinds": ["python:network"]}, output=tmp_path / "none")


def test_another_set_of_arrays_is_another_run(tmp_path: Path, run: capcsim.Run) -> None:
    capcsim.run("smoke", set=QUICK, data=blobs(), output=tmp_path / "run")
    assert capcsim.account(capcsim.Run(tmp_path / "run")).account.queries == 8


def test_backends_are_compared(own_cache: Path) -> None:
    found = capcsim.compare("smoke", ["plaintext", "hybrid"], networks="far", set=QUICK, repeats=1)
    assert found["fastest_protected"]["far"] == "hybrid"
    assert found.backends.loc[("hybrid", "far"), "security"] == "semi-honest"
    assert isinstance(found.figure(), Figure)
    assert "plaintext" in str(found)
    assert "hybrid" in found._repr_html_()
    assert found["stages"]["trained"] <= 1


def test_votes_from_python_are_accounted_for() -> None:
    counts = np.array([[40, 10], [5, 45]])
    found = capcsim.account(counts, mechanism="gnmax", sigma=7.0, delta=1e-5)
    assert found.account.queries == 2
    assert "analytic Gaussian" in str(found)
    assert found.to_json()["classes"] == 2
    with pytest.raises(InputError, match="votes: whole numbers from 0, one row a query"):
        capcsim.account(np.array([0.5]), mechanism="gnmax", sigma=7.0, delta=1e-5)


def test_it_runs_in_a_thread(tmp_path: Path) -> None:
    found: list[Any] = []

    def work() -> None:
        found.append(capcsim.run("smoke", set=QUICK, output=tmp_path / "run", workers=2))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].metrics.loc["labels", "value"] == 8


def test_two_threads_give_what_each_alone_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's generator and its tracing belong to the whole process."""
    monkeypatch.setenv("CAPCSIM_CACHE", str(tmp_path / "cache"))
    found: dict[str, list[Any]] = {}

    def work(name: str, seed: int) -> None:
        run = capcsim.run("smoke", set={**QUICK, "models.epochs": 4}, seed=seed, output=tmp_path / name)
        found[name] = [row.model_dump() for row in run.summary.queriers]

    threads = [threading.Thread(target=work, args=(f"beside {seed}", seed)) for seed in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.setenv("CAPCSIM_CACHE", str(tmp_path / "another"))
    for seed in (7, 8):
        work("alone", seed)
        for beside, alone in zip(found[f"beside {seed}"], found["alone"], strict=True):
            assert [beside[key] for key in LEARNT] == [alone[key] for key in LEARNT]
        shutil.rmtree(tmp_path / "alone")


X = np.zeros((4, 2))
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a table": ({"data": pd.DataFrame({"a": [1], "y": [0]})}, r"data: \(x, y\), or .*a DataFrame; of a table: data="),
    "three parts": ({"data": (X, X, X)}, r"data: \(x, y\), or a mapping of arrays with x and y; this is a tuple$"),
    "a name": ({"data": "digits"}, r"data: \(x, y\).*this is a str$"),
    "ragged": ({"data": ([[1], [1, 2]], [0, 1])}, "data: x: a list makes no array"),
    "masked": ({"data": (np.ma.masked_array(X, X > 0), [0, 1, 0, 1])}, "data: x is a masked array.*fill it"),
    "mixed labels": ({"data": (X, np.array(["a", 2, "a", 2], object))}, r"data: y of whole .*; y\[1\] is 2$"),
    "one model": ({"models": LogisticRegression()}, r"models: a list of models, as in models=\[model\]; this is a Log"),
    "a kind": ({"models": "mlp"}, r"models: a list of models, as in models=\[model\]; this is a str$"),
    "changes in a row": ({"set": ["privacy.sigma=2"]}, r"set: a dictionary, as in set=.*; this is a list$"),
    "a number as a key": ({"set": {5: 1}}, "set: 5 is no key"),
    "a section": ({"set": {"privacy": {"sigma": 2}}}, "set: 'privacy' is a section; .*, as in 'privacy.sigma'$"),
    "workers": ({"workers": 0}, "workers = 0: a whole number from 1 to"),
    "workers in text": ({"workers": "2"}, "workers = '2': a whole number"),
    "an engine": ({"engine": "spark"}, "engine = 'spark': choose one of loky, dask, ray"),
    "an output": ({"output": 5}, "output: a directory's name; this is 5$"),
    "a name with a NUL": ({"output": "a\0b"}, "output: a directory's name; this is"),
    "a key": ({"set": {"": 1}}, "^set = '=1': a.b=v"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_in_pythons_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, says = WRONG[name]
    with pytest.raises(capcsim.CapcsimError, match=says) as told:
        capcsim.run("smoke", **arguments)
    assert "\n" not in str(told.value)
    assert "--" not in str(told.value)
    assert not list(tmp_path.iterdir()), "no folder stays behind"


WRONG_COUNTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no mechanism": ([[1, 2]], {}, "^mechanism: give one of gnmax"),
    "no noise": ([[1, 2]], {"mechanism": "gnmax"}, "^sigma is missing: a number of votes"),
    "text": ([[1, 2]], {"mechanism": "gnmax", "sigma": "7"}, "^sigma: a number; this is '7'"),
    "a part of a vote": ([[1, 2]], {"mechanism": "gnmax", "sigma": 7, "group_size": 1.5}, "^group_size 1.5: the prot"),
    "ragged": ([[1], [1, 2]], {"mechanism": "gnmax", "sigma": 7}, "^votes: a list makes no array"),
    "huge": (np.array([[1, 2**63]], np.uint64), {"mechanism": "gnmax", "sigma": 7}, "^votes: whole numbers from 0"),
    "a strange column": (
        pd.DataFrame({"a": [1, 2], "b": [3, 4], "total": [4, 6]}), {"mechanism": "gnmax", "sigma": 7}, "total",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_COUNTS)
def test_a_mistake_in_accounting_is_one_line_too(name: str) -> None:
    votes, arguments, says = WRONG_COUNTS[name]
    with pytest.raises(capcsim.CapcsimError, match=says):
        capcsim.account(votes, delta=1e-5, **arguments)


def test_a_table_of_counts_is_read_as_its_file_would_be() -> None:
    table = pd.DataFrame({"0": [40, 5], "1": [7, 42], "true_label": [0, 1]})
    of_table, of_array = (
        capcsim.account(each, mechanism="gnmax", sigma=7.0, delta=1e-5).to_json()
        for each in (table, table[["0", "1"]].to_numpy())
    )
    assert of_table["epsilon"] == of_array["epsilon"]


def test_networks_to_compare_have_names_of_their_own() -> None:
    network = capcsim.load_scenario("smoke").network
    for wrong, says in (({"scenario": network}, "is the scenario's own"), ({"far": {"latency_s": 1}}, "not a Network")):
        with pytest.raises(InputError, match=f"networks: .*{says}"):
            capcsim.compare("smoke", ["plaintext"], networks=wrong)


def test_labels_of_pandas_are_labels(tmp_path: Path) -> None:
    x, y = blobs()
    found = [
        capcsim.run("smoke", set=QUICK, data=(pd.DataFrame(x), each), output=tmp_path / str(number)).summary.queriers
        for number, each in enumerate((y, pd.Series(y), pd.Series(y, dtype=object), pd.Series(y, dtype="category")))
    ]
    assert all(each == found[0] for each in found)


def test_what_is_printed_is_plain_wherever_it_runs(run: capcsim.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert "\x1b" not in str(run) + run._repr_html_()


def test_it_runs_at_the_prompt(tmp_path: Path) -> None:
    lines = [
        "import capcsim",
        f"run = capcsim.run('smoke', set={QUICK!r}, output={str(tmp_path / 'run')!r})",
        "print(len(run.queries))",
        "run",
    ]
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="\n".join(lines),
        cwd=tmp_path,
        env=importing_from(Path(capcsim.__file__).parents[1]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "8"
    assert done.stdout.splitlines()[1].startswith("<Run 'Smoke test")


def in_the_kernel(client: Any, code: str) -> dict[str, Any]:
    """What a cell shows: one thing, and nothing printed besides."""
    client.execute(code)
    shown = None
    while True:
        message = client.get_iopub_msg(timeout=120)
        content = message["content"]
        match message["msg_type"]:
            case "error":
                pytest.fail("\n".join(content["traceback"]))
            case "display_data" | "stream":
                pytest.fail(f"shown besides: {content}")
            case "execute_result":
                shown = content["data"]
            case "status" if content["execution_state"] == "idle" and shown is not None:
                return dict(shown)


def test_it_runs_in_a_notebook_kernel(tmp_path: Path) -> None:
    jupyter = pytest.importorskip("jupyter_client")
    pytest.importorskip("ipykernel")
    manager, client = jupyter.manager.start_new_kernel(cwd=str(tmp_path))
    try:
        shown = [
            in_the_kernel(client, code)
            for code in (
                f"import capcsim; run = capcsim.run('smoke', set={QUICK!r}, output='run'); run",
                "run.figure('timeline')",
                "capcsim.account(run)",
            )
        ]
        assert "party 1" in shown[0]["text/html"]
        assert "\x1b" not in shown[0]["text/html"]
        assert shown[1]["image/png"].startswith("iVBOR")
        assert "8 queries of 10 classes" in shown[2]["text/html"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_version_is_told() -> None:
    from importlib.metadata import version

    done = subprocess.run([sys.executable, "-m", "capcsim", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"capcsim {capcsim.__version__}\n"
    assert capcsim.__version__ == version("capcsim")
