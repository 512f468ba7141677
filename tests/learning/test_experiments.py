"""The paper's experiments, on so few and small models that they take seconds."""

import argparse
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.learning.datasets import Dataset, load_dataset
from capcsim.privacy.vote_files import read_votes
from capcsim.scenario import BundledData

EXPERIMENTS = Path(__file__).parents[2] / "benchmarks" / "experiments"


@pytest.fixture(scope="module")
def some_digits() -> Dataset:
    """scikit-learn's digits on MNIST's 28 x 28 pixels: the experiments' code, without a folder of data."""
    small = load_dataset(BundledData(source="digits", train_per_party=1, pool_per_querier=1, evaluation=1))
    large = np.zeros((len(small.x), 1, 28, 28), np.float32)
    large[:, 0, 2:26, 2:26] = np.kron(small.x.reshape(-1, 8, 8) / small.x.max(), np.ones((1, 3, 3), np.float32))
    return Dataset("mnist", large, small.y, 10, training=1200)


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch, some_digits: Dataset) -> Any:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import common

    monkeypatch.setattr(common, "load_dataset", lambda data: some_digits)
    return common


@pytest.fixture
def tiny(common: Any) -> Any:
    sizes = {"parties": 7, "train_per_party": 60, "pool": 40, "evaluation": 200, "labels": 12, "epochs": 5}
    return replace(common.SETTINGS["mnist"], **sizes, width=0.2, retrainings=2, sigma=2.0, epsilon=10.0)


@pytest.fixture
def work(common: Any, tiny: Any, tmp_path: Path) -> Any:
    arguments = argparse.Namespace(data=None, workers=1, cache=tmp_path / "cache", output=tmp_path)
    return common.Collaboration(tiny, 3, arguments)


def test_labels_are_the_noisy_argmax_of_votes_that_are_saved(work: Any, tmp_path: Path) -> None:
    asked = work.select("random", 12)
    votes = work.vote(asked)
    assert [cast.shape for cast in votes] == [(7, 12)] * 3
    for querier, cast in enumerate(votes):
        assert (cast[querier] == -1).all(), "nobody answers its own query"
        counts = work.counts(cast)
        assert (counts.sum(axis=1) == 6).all()
        model = work.models.voters[6]
        assert (cast[6] == model.predict(work.ensemble.samples(querier, asked[querier]))).mean() > 0.9
    quiet = work.labels(votes, 0.01)
    assert all((found == work.counts(cast).argmax(axis=1)).all() for found, cast in zip(quiet, votes, strict=True))
    assert all((a == b).all() for a, b in zip(work.labels(votes, 3.0), work.labels(votes, 3.0), strict=True))
    assert any((a != b).any() for a, b in zip(work.labels(votes, 3.0), work.labels(votes, 3.0, 1), strict=True))
    for name, cast, rows in zip(work.save_votes("test", asked, votes), votes, asked, strict=True):
        saved = read_votes(tmp_path / name)
        assert (saved.counts == work.counts(cast)).all()
        assert (saved.true_labels == work.ensemble.dataset.y[rows]).all()


def test_each_analysis_buys_what_fits_the_budget_and_no_more(work: Any) -> None:
    votes = work.vote(work.select("random", 40))
    bought = work.affordable(votes)
    assert 0 < bought["data-independent"] < 40
    for name, count in bought.items():
        assert work.epsilons(votes, count)[name] <= 10.0
        assert count == 40 or work.epsilons(votes, count + 1)[name] > 10.0


def test_votes_are_cast_once_and_follow_their_queries(work: Any) -> None:
    for selection, asked, votes in work.vote_once(("random", "entropy", "k-center")):
        again = work.select(selection, 40)
        assert all((a == b).all() for a, b in zip(again, asked, strict=True))
        assert all((a == b).all() for a, b in zip(work.vote(asked), votes, strict=True))


def test_gains_are_those_of_the_first_labels(work: Any) -> None:
    asked = work.select("entropy", 12)
    truth = [work.ensemble.dataset.y[rows] for rows in asked]
    assert work.right(asked, truth) == 1
    none, few = work.retrain(asked, truth, 0), work.retrain(asked, truth, 5)
    assert [len(found) for found in few] == [2, 2, 2]
    assert none[0][0] == work.ensemble.judge(0, work.models.own[0])
    assert none != few


def test_other_parties_share_the_same_data(common: Any) -> None:
    for parties, each in ((150, 400), (250, 240), (400, 150)):
        setting = common.with_parties(common.SETTINGS["mnist"], parties)
        assert (setting.parties, setting.train_per_party) == (parties, each)


def test_a_missing_set_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(EXPERIMENTS / "fig8.py"), "--data", str(tmp_path), "--output", str(tmp_path / "o")]
    done = subprocess.run([*command, "--quick"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fig8.py: data.source = 'mnist': ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("figure", "options"),
    [
        ("fig8", ["--mixed", "--baselines"]),
        pytest.param("fig10", [], marks=pytest.mark.slow),
        ("fig11", []),
        ("fig12", ["--counts", "6"]),
    ],
)
def test_one_command_leaves_json_a_picture_rows_and_the_votes(
    common: Any,
    tiny: Any,
    figure: str,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(common.SETTINGS, "mnist", replace(tiny, parties=6, retrainings=1, labels=6))
    monkeypatch.setattr(sys, "argv", [figure, *options, "--json", "--workers", "1", "--output", str(tmp_path)])
    importlib.import_module(figure).main()
    found = json.loads(capsys.readouterr().out)
    assert (found["figure"], found["setting"]["labels"]) == (figure, 6)
    assert json.loads((tmp_path / f"{figure}.json").read_text()) == found
    assert (tmp_path / f"{figure}.png").stat().st_size > 10_000
    rows = (tmp_path / f"{figure}.md").read_text().splitlines()
    assert len(rows) >= 3
    assert len({row.count("|") for row in rows}) == 1, "every row has as many cells as the heading"
    assert list(tmp_path.glob(f"votes-{figure}*.parquet"))
    for gained, before, after in gains_of(figure, found):
        assert gained == pytest.approx(after - before)
        assert -1 < gained < 1


def gains_of(figure: str, found: dict[str, Any]) -> list[tuple[float, float, float]]:
    """(gain, before, after) of every result that a figure tells."""
    run = found["runs"][0]
    if figure == "fig8":
        names = ["data-independent", "theorem6-mironov", "the paper's number", "if all were right"]
        of = [(run[name]["gain"]["mean"], run["accuracy_before"], run[name]["accuracy_after"]) for name in names]
        assert run["if all were right"]["label_accuracy"] == 1
        assert run["if all were right"]["epsilon"] is None
        return of
    if figure == "fig10":
        cases = [run[selection][name] for selection in ("entropy", "k-center") for name in ("the paper's number",)]
        assert all(sum(case["queries_per_class"]) == pytest.approx(6) for case in cases)
        return [(case["balanced_gain"]["mean"], run["balanced_before"], case["balanced_after"]) for case in cases]
    if figure == "fig12":
        return [(run["gain"]["mean"], run["accuracy_before"], run["accuracy_after"])]
    return []


def test_the_best_sigma_is_the_largest_that_labels_bear(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fig12 = importlib.import_module("fig12")
    right = {0.14: 0.9, 0.28: 0.895, 0.42: 0.891, 0.56: 0.889, 0.7: 0.8}
    monkeypatch.setattr(fig12, "SHARES_OF_K", tuple(sigma / 7 for sigma in right))
    monkeypatch.setattr(work, "labels", lambda votes, sigma, draw: round(sigma, 2))
    monkeypatch.setattr(work, "counts", lambda cast: np.zeros((1, 2)))
    monkeypatch.setattr(work, "right", lambda asked, labels: right.get(labels, 0.9) if np.isscalar(labels) else 0.9)
    assert fig12.best_sigma(work, [], [], 0.01) == (pytest.approx(0.42), pytest.approx(0.891))
    assert fig12.best_sigma(work, [], [], 0.05) == (pytest.approx(0.56), pytest.approx(0.889))
    assert fig12.best_sigma(work, [], [], -1) == (pytest.approx(0.14), pytest.approx(0.9))


def test_gains_are_told_over_runs_and_within_them(common: Any) -> None:
    gains = [common.spread([0.01, 0.03]), common.spread([0.05, 0.07])]
    assert common.gain_cell(gains) == "+4.00 +- 2.83 (2.58)"
    assert common.gain_cell(gains[:1]) == "+2.00 (1.41)"


@pytest.mark.parametrize(
    "wrong",
    [
        ["fig12.py", "--counts", "abc"],
        pytest.param(["fig8.py", "--seeds", "0"], marks=pytest.mark.slow),
        pytest.param(["fig10.py", "--workers", "-1"], marks=pytest.mark.slow),
    ],
)
def test_a_wrong_number_is_said_in_one_line(wrong: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(EXPERIMENTS / wrong[0]), *wrong[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "whole number" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
