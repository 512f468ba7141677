"""What a run tells of its table: in the table on the terminal and in the summary, which is the JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from capcsim.report.tables import notes
from capcsim.scenario import Scenario
from capcsim.study.result import read_result
from capcsim.study.run import run_scenario
from tests.learning.tables_of import csv_text, features

ROWS = 400
Build = Callable[..., Scenario]
RUN: dict[str, Any] = {
    "data.source": "csv",
    "data.label": "ill",
    "data.protected": "sex",
    "data.train_per_party": 30,
    "data.pool_per_querier": 8,
    "data.evaluation": 60,
    "parties.count": 3,
    "models.epochs": 5,
    "queries.per_querier": 2,
    "queries.selection": "random",
}


def summary(path: Path, scenario: Build, columns: dict[str, Any], **keys: Any) -> tuple[dict[str, Any], list[str]]:
    x = features(3, ROWS)
    rows = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "sex": np.resize(["f", "m", "m"], ROWS)} | columns
    (path / "mine.csv").write_text(csv_text(rows, ";", decimal=","))
    changes = {f"data.{key}": value for key, value in keys.items()}
    record = run_scenario(scenario(RUN | {"data.path": path / "mine.csv"} | changes), path / "run")
    json.dumps(record.manifest["summary"], allow_nan=False)
    return record.manifest["summary"], notes(read_result(record))


def test_what_was_read_and_what_is_positive_is_told(scenario: Build, tmp_path: Path) -> None:
    ill = np.where(features(3, ROWS)[:, 0] > 0.5, "pos", "neg")
    found, lines = summary(tmp_path, scenario, {"ill": ill, "who": np.arange(ROWS)}, drop=["who"])
    read = "mine.csv is read with semicolons between its cells and decimal commas."
    assert (found["data_note"], found["data_notes"]) == (read, [read])
    assert read in lines
    assert found["fairness"] == {"positive": 1, "positive_name": "pos", "groups": ["f", "m"]}
    assert any("samples of class 1, which is pos and counts as positive" in line for line in lines)
    assert [row["fairness_missing"] for row in found["queriers"]] == [None, None]
    assert all(row["fairness_after"]["equal_opportunity"] >= 0 for row in found["queriers"])
    assert "Protected: 0 is f, 1 is m." in lines


def test_three_classes_are_told_to_have_no_fairness(scenario: Build, tmp_path: Path) -> None:
    ill = np.resize(["pos", "pos ", "neg"], ROWS)
    found, lines = summary(tmp_path, scenario, {"ill": ill})
    twins = "'pos' and 'pos ' in column 'ill' read alike but count as different: check them."
    assert twins in found["data_notes"]
    assert twins in lines
    assert "Classes: 0 is neg, 1 is pos, 2 is 'pos '." in lines
    why = "fairness is told for two classes, and there are 3"
    assert [(row["fairness_before"], row["fairness_missing"]) for row in found["queriers"]] == [(None, why)] * 2
    assert f"Party 1, gaps between the protected groups: none, {why}." in lines


def test_a_group_without_a_class_is_told(scenario: Build, tmp_path: Path) -> None:
    sex = np.resize(["f", "m", "m"], ROWS)
    ill = np.where(sex == "f", "no", np.resize(["no", "no", "no", "yes"], ROWS))
    found, lines = summary(tmp_path, scenario, {"ill": ill})
    why = "of the 60 evaluation samples none is of group 0 and class 1"
    assert [row["fairness_missing"] for row in found["queriers"]] == [why] * 2
    assert f"Party 0, gaps between the protected groups: none, {why}." in lines


def test_data_without_groups_say_so_in_the_summary_only(scenario: Build, tmp_path: Path) -> None:
    found, lines = summary(tmp_path, scenario, {"ill": np.resize(["x", "y"], ROWS)}, protected=None, drop=["sex"])
    assert found["fairness"] is None
    assert all("no protected attribute" in row["fairness_missing"] for row in found["queriers"])
    assert not any("rotected" in line for line in lines)
