"""The Python door: what a command does, one call does."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import capcsim
from capcsim.errors import InputError, ScenarioError
from tests.environment import importing_from

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
    with pytest.raises(ScenarioError, match="data = 'arrays': x within"):
        capcsim.run("smoke", set=QUICK, data=(100 * x, y), output=tmp_path / "wide")
    with pytest.raises(ScenarioError, match=r"arrays come from Python only, by capcsim\.run"):
        capcsim.run("smoke", set={**QUICK, "data.source": "arrays"}, output=tmp_path / "none")


def test_own_models_are_kinds(tmp_path: Path) -> None:
    import torch
    from sklearn.linear_model import LogisticRegression

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


def test_it_runs_in_a_notebook_kernel(tmp_path: Path) -> None:
    jupyter = pytest.importorskip("jupyter_client")
    pytest.importorskip("ipykernel")
    manager, client = jupyter.manager.start_new_kernel(cwd=str(tmp_path))
    try:
        code = f"import capcsim; run = capcsim.run('smoke', set={QUICK!r}, output='run'); run"
        client.execute(code)
        shown = None
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            message = client.get_iopub_msg(timeout=120)
            if message["msg_type"] == "error":
                pytest.fail("\n".join(message["content"]["traceback"]))
            if message["msg_type"] == "execute_result":
                shown = message["content"]["data"]
                break
        assert shown is not None
        assert "party 1" in shown["text/html"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_version_is_told() -> None:
    from importlib.metadata import version

    done = subprocess.run([sys.executable, "-m", "capcsim", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"capcsim {capcsim.__version__}\n"
    assert capcsim.__version__ == version("capcsim")
