import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from capcsim.errors import RecordError
from capcsim.record import Record
from capcsim.scenario import Scenario

Build = Callable[..., Scenario]


def test_a_new_record_is_running_until_it_is_finished(tmp_path: Path, scenario: Build) -> None:
    record = Record.start(tmp_path / "run", scenario(), {}, {"host": {"cpu": "x"}})
    assert not record.complete
    assert Record.load(record.folder).manifest == record.manifest
    record.finish({"summary": {"title": "t"}})
    again = Record.load(record.folder)
    assert again.complete
    assert again.manifest["summary"] == {"title": "t"}
    assert again.manifest["host"] == {"cpu": "x"}


def test_tables_and_transcripts_come_back(tmp_path: Path, scenario: Build) -> None:
    record = Record.start(tmp_path / "run", scenario(), {})
    assert record.read_transcripts() is None
    record.write_transcripts({"samples": {"a": [[["querier", 0.5]]]}})
    assert record.read_transcripts() == {"samples": {"a": [[["querier", 0.5]]]}}
    columns = {"querier": [0, 0], "query": [0, 1], "voter": [4, 4], "party": [2, 2], "vote": [9, 1]}
    record.write_table("votes", columns)
    assert record.read_table("votes").to_pydict() == columns
    record.write_table("queries", {})
    assert record.read_table("queries").num_rows == 0
    assert {"counted", "labelled_s", "why"} <= set(record.read_table("queries").column_names)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, scenario: Build) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RecordError, match="holds files but no manifest"):
        Record.start(tmp_path, scenario(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "not a run's directory"), ("{", "damaged"), (json.dumps({"schema_version": 99}), "schema version 99")],
)
def test_a_record_that_cannot_be_read(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RecordError, match=says):
        Record.load(tmp_path)


def test_a_missing_or_damaged_table_is_a_clear_error(tmp_path: Path, scenario: Build) -> None:
    record = Record.start(tmp_path / "run", scenario(), {})
    with pytest.raises(RecordError, match=r"queries\.parquet: cannot be read"):
        record.read_table("queries")
    (record.folder / "queries.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(RecordError, match=r"queries\.parquet: cannot be read"):
        record.read_table("queries")


def test_a_name_that_is_no_utf_8(tmp_path: Path, scenario: Build) -> None:
    record = Record.start(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), scenario(), {})
    record.write_table("metrics", {"querier": [1], "moment": ["x"], "metric": ["y"], "class": [0], "value": [0.5]})
    assert Record.load(record.folder).read_table("metrics").to_pydict()["value"] == [0.5]


def test_a_directory_that_is_removed_meanwhile_is_not_made_again(tmp_path: Path, scenario: Build) -> None:
    record = Record.start(tmp_path / "run", scenario(), {})
    shutil.rmtree(record.folder)
    with pytest.raises(RecordError, match=r"run/queries\.parquet: cannot be written: No such file or directory"):
        record.write_table("queries", {})
    assert not record.folder.exists()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, scenario: Build) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be made"):
        Record.start(tmp_path / "file" / "run", scenario(), {})
