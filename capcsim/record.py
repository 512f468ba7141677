"""One run on disk: manifest, tables, ledger, transcripts. It grows as the run goes on, and can be resumed.

manifest.json      scenario, seed, versions, host, state ("running" or "complete"), summary
ledger.jsonl       the privacy guardian's charges, each on disk before its label is released
releases.jsonl     the labels that went out
transcripts.json   the measured transcripts that this run draws from
*.parquet          queries, votes, messages, compute, metrics
figures/  report.html  trace.json
"""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from capcsim.errors import RecordError
from capcsim.scenario import Scenario

SCHEMA_VERSION = 2
COMPLETE, RUNNING = "complete", "running"
INT, LONG, REAL, TEXT, FLAG = pa.int32(), pa.int64(), pa.float64(), pa.string(), pa.bool_()
_BATCH = {"querier": INT, "batch": INT}
_STEP = {"step": TEXT, "phase": TEXT}
TABLES: dict[str, dict[str, pa.DataType]] = {
    "queries": _BATCH
    | {"query": INT, "sample": LONG, "label": INT, "true_label": INT, "counted": pa.list_(INT)}
    | {"submitted_s": REAL, "labelled_s": REAL, "why": TEXT},
    "votes": dict.fromkeys(("querier", "query", "voter", "party", "vote"), INT),
    "compute": _BATCH
    | {"host": TEXT, "machine": TEXT, "core": INT, "role": TEXT, **_STEP}
    | dict.fromkeys(("ready_s", "start_s", "end_s"), REAL),
    "messages": _BATCH
    | {"sender": TEXT, "receiver": TEXT, "network": FLAG, **_STEP, "nbytes": LONG}
    | dict.fromkeys(("sent_s", "received_s"), REAL),
    "metrics": {"querier": INT, "moment": TEXT, "metric": TEXT, "class": INT, "value": REAL},
}

Columns = Mapping[str, Sequence[Any]]


class Record:
    """A run's directory; every file in it appears whole or not at all, but for the two journals."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def start(
        cls, folder: Path, scenario: Scenario, fixed: Mapping[str, Any], noted: Mapping[str, Any] | None = None
    ) -> Self:
        """Begin a run in a new directory, or open the same run there, which may be complete; raises RecordError.

        `fixed` goes into the manifest and must be the same when a run is resumed; `noted` only goes into it.
        """
        path = folder / "manifest.json"
        if path.exists():
            record = cls.load(folder)
            record._check_resumable({"scenario": scenario.model_dump(mode="json"), **fixed})
            return record
        # A run that was killed at once leaves a file that begins with a dot, and nothing that counts.
        if folder.exists() and not folder.is_dir():
            raise RecordError(f"{folder}: is a file; choose another directory with -o")
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise RecordError(f"{folder}: holds files but no manifest.json; choose an empty or new directory")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"{folder}: cannot be made: {error.strerror}; choose another directory") from None
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "state": RUNNING,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "scenario": scenario.model_dump(mode="json"),
            **fixed,
            **(noted or {}),
        }
        record = cls(folder, manifest)
        record._write_json("manifest.json", manifest)
        return record

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A record, complete or not; raises RecordError."""
        path = folder / "manifest.json"
        try:
            manifest = json.loads(path.read_text())
        except OSError as error:
            raise RecordError(f"{folder}: not a run's directory ({error.strerror}: manifest.json)") from None
        except ValueError as error:
            raise RecordError(f"{path}: damaged ({error}); restore it from a copy") from None
        if manifest.get("schema_version") != SCHEMA_VERSION:
            found = manifest.get("schema_version")
            raise RecordError(f"{path}: schema version {found}, but this capcsim reads {SCHEMA_VERSION}")
        return cls(folder, manifest)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.manifest["state"] == COMPLETE)

    @property
    def ledger_path(self) -> Path:
        """The guardian's ledger."""
        return self.folder / "ledger.jsonl"

    @property
    def releases_path(self) -> Path:
        """The journal of released labels."""
        return self.folder / "releases.jsonl"

    def write_table(self, name: str, columns: Columns) -> None:
        """Write one Parquet table from columns of equal length; none at all make an empty table."""
        fresh = self.folder / f".{name}.parquet"
        schema = pa.schema(TABLES[name])
        pq.write_table(pa.table({key: columns.get(key, []) for key in schema.names}, schema=schema), fresh)
        fresh.replace(self.folder / f"{name}.parquet")

    def read_table(self, name: str) -> pa.Table:
        """One Parquet table; raises RecordError."""
        path = self.folder / f"{name}.parquet"
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise RecordError(f"{path}: cannot be read ({error}); is the run complete?") from None

    def write_transcripts(self, transcripts: Mapping[str, Any]) -> None:
        """Keep the transcripts that the run draws from."""
        self._write_json("transcripts.json", transcripts)

    def read_transcripts(self) -> dict[str, Any] | None:
        """The transcripts, or None when the run was killed before it had measured them."""
        path = self.folder / "transcripts.json"
        try:
            stored: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RecordError(f"{path}: cannot be read ({error}); start another run") from None
        return stored

    def finish(self, results: Mapping[str, Any]) -> None:
        """Mark the run as complete, with what came out of it."""
        self.manifest = {**self.manifest, "state": COMPLETE, **results}
        self._write_json("manifest.json", self.manifest)

    def _check_resumable(self, fixed: Mapping[str, Any]) -> None:
        for part, ours in fixed.items():
            theirs = self.manifest[part]
            if theirs != ours:
                keys = ", ".join(sorted(key for key in {*ours, *theirs} if theirs.get(key) != ours.get(key)))
                raise RecordError(
                    f"{self.folder}: holds a run with another {part} (it differs in {keys});"
                    " choose another directory with -o"
                )

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        fresh = self.folder / f".{name}"
        with fresh.open("w") as file:
            json.dump(content, file, indent=None if name == "transcripts.json" else 2, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.folder / name)
