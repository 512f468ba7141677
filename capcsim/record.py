"""One run on disk: manifest, tables, ledger, transcripts. It grows as the run goes on, and can be resumed.

manifest.json      scenario, seed, versions, host, state ("running" or "complete"), how far the journals were, summary
ledger.jsonl       the privacy guardian's charges, each on disk before its label is released
releases.jsonl     the labels that went out
transcripts.json   the measured transcripts that this run draws from
*.parquet          queries, votes, messages, compute, metrics
figures/  report.html  trace.json
"""

import json
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from capcsim.errors import HostError, RecordError
from capcsim.files import MANIFEST, replacing
from capcsim.journal import MAKE_ROOM, Mark, reaches
from capcsim.scenario import Scenario

SCHEMA_VERSION = 4
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

Columns = Mapping[str, Any]
"""Sequences or arrays of equal length, by name."""


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
        path = folder / MANIFEST
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
            raise RecordError(f"{folder}: cannot be made: {error.strerror}; choose another directory with -o") from None
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "state": RUNNING,
            "run_id": secrets.token_hex(8),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "scenario": scenario.model_dump(mode="json"),
            **fixed,
            **(noted or {}),
        }
        record = cls(folder, manifest)
        record._write_json(MANIFEST, manifest)
        return record

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A record, complete or not; raises RecordError."""
        path = folder / MANIFEST
        try:
            manifest = json.loads(path.read_text())
        except OSError as error:
            raise RecordError(f"{folder}: not a run's directory ({error.strerror}: manifest.json)") from None
        except ValueError as error:
            raise RecordError(f"{path}: damaged ({error}); restore it from a copy") from None
        if not isinstance(manifest, dict):
            raise RecordError(f"{path}: damaged (it is no object); restore it from a copy")
        if manifest.get("schema_version") != SCHEMA_VERSION:
            found = manifest.get("schema_version")
            raise RecordError(f"{path}: schema version {found}, but this capcsim reads {SCHEMA_VERSION}")
        return cls(folder, manifest)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.manifest.get("state") == COMPLETE)

    def check_complete(self) -> None:
        """Raises RecordError for a run that did not come to its end."""
        if not self.complete:
            raise RecordError(
                f"{self.folder}: the run did not end; finish it with: capcsim run SCENARIO -o {self.folder}"
            )

    @property
    def run_id(self) -> str:
        """What the book of runs knows this run, and every copy of it, by."""
        return str(self.manifest["run_id"])

    @property
    def marks(self) -> dict[str, Mark]:
        """How far `ledger` and `releases` were when the manifest was last written."""
        noted = self.manifest.get("journals", {})
        return {name: Mark(**noted.get(name, {})) for name in ("ledger", "releases")}

    def note_marks(self, marks: Mapping[str, Mark]) -> None:
        """Write down how far the journals are; a file that is behind that is refused from here on."""
        self.manifest = {**self.manifest, "journals": {name: asdict(mark) for name, mark in marks.items()}}
        self._write_json(MANIFEST, self.manifest)

    def check_journals(self) -> None:
        """Raises RecordError where ledger or releases are gone, or have less than the manifest has seen."""
        for name, path in (("ledger", self.ledger_path), ("releases", self.releases_path)):
            mark = self.marks[name]
            if not reaches(path, mark):
                found = "is not what it was" if path.exists() else "is gone"
                raise RecordError(
                    f"{path}: {found}: the run's manifest has seen {mark.count} entries, and what they charged stays"
                    " spent; restore the file from a copy, or begin another run with another -o"
                )

    def ledger_reaches(self, mark: Mark) -> bool:
        """Whether the ledger has all that it had at a mark; raises RecordError for a damaged one."""
        return reaches(self.ledger_path, mark)

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
        self.write_chunks(name, [{key: columns.get(key, []) for key in TABLES[name]}])

    def write_chunks(self, name: str, chunks: Iterable[Columns]) -> None:
        """Write one Parquet table of many rows, some of them at a time."""
        schema = pa.schema(TABLES[name])
        # Not by its name, which Arrow takes in UTF-8 only.
        with (
            self._replacing(f"{name}.parquet") as fresh,
            fresh.open("wb") as file,
            pq.ParquetWriter(file, schema) as writer,
        ):
            for columns in chunks:
                writer.write_table(
                    pa.table([_column(columns[key], schema.field(key).type) for key in schema.names], schema=schema)
                )

    def read_table(self, name: str, **equal: int) -> pa.Table:
        """One Parquet table, or its rows in which columns have these values; raises RecordError."""
        with self._reading(name) as file:
            return pq.read_table(file, filters=[(key, "==", value) for key, value in equal.items()] or None)

    def read_rows(self, name: str, among: Collection[str] | None = None, *columns: str) -> Iterator[dict[str, Any]]:
        """The rows of a table one by one, however many there are; where some `columns` are `among` these, or all.

        Raises RecordError.
        """
        with self._reading(name) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches():
                for column in columns if among is not None else ():
                    batch = batch.filter(pc.is_in(batch[column], pa.array(among)))
                yield from batch.to_pylist()

    @contextmanager
    def _reading(self, name: str) -> Iterator[BinaryIO]:
        path = self.folder / f"{name}.parquet"
        try:
            with path.open("rb") as file:
                yield file
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
        self._write_json(MANIFEST, self.manifest)

    def _check_resumable(self, fixed: Mapping[str, Any]) -> None:
        for part, ours in fixed.items():
            theirs = self.manifest.get(part, {})
            if theirs != ours:
                keys = ", ".join(sorted(key for key in {*ours, *theirs} if theirs.get(key) != ours.get(key)))
                raise RecordError(
                    f"{self.folder}: holds a run with {'an' * (part == 'scenario')}other {part}"
                    f" (it differs in {keys}); choose another directory with -o"
                )

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        with self._replacing(name) as fresh, fresh.open("w") as file:
            json.dump(content, file, indent=None if name == "transcripts.json" else 2, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        """Where to write a file that then appears whole, or not at all; raises RecordError where it cannot be."""
        path = self.folder / name
        try:
            with replacing(path) as fresh:
                yield fresh
        except HostError as error:
            raise RecordError(f"{path}: cannot be written: {error.reason}; {MAKE_ROOM}") from None


def _column(values: Any, type_: pa.DataType) -> pa.Array:
    return values.cast(type_) if isinstance(values, pa.Array) else pa.array(values, type_)
