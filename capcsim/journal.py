"""An append-only file of checksummed JSON lines that survives being killed between any two writes.

Each line carries a checksum over itself and the line before, and is on disk when `append` returns. A last
line that was cut short (a kill, a full disk) is kept as it is; the next writer acknowledges it with a line
of its own, `{"kind": "torn"}`, so that readers know that something of unknown content stood there.
"""

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from capcsim.errors import RecordError

MAKE_ROOM = "make room, or mend that, and give the same command again"
Entry: TypeAlias = dict[str, Any]
TORN: Entry = {"kind": "torn"}


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a journal stood: its number of entries, and the checksum of the last, which depends on all of them."""

    count: int = 0
    head: str = ""


class Journal:
    """Open for reading and appending, by one process at a time; raises RecordError.

    One that is not `durable` survives the end of its process at any point, but not that of its host.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise RecordError(f"{path}: cannot be opened: {error.strerror}; {MAKE_ROOM}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise RecordError(f"{path}: another process is writing it; wait for it or stop it") from error
        _sync_directory(path.parent)
        self.entries, self._heads, torn = _read(path)
        if torn:
            self._append(TORN, before=b"\n")
        elif self.entries and not path.read_bytes().endswith(b"\n"):
            self._write(b"\n")

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return Mark(len(self._heads), _last(self._heads))

    def append(self, entry: Entry) -> None:
        """Write one entry; when this returns it is on disk."""
        self._append(entry)

    def close(self) -> None:
        """Release the file; calling it again does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, entry: Entry, before: bytes = b"") -> None:
        line, head = _line(entry, _last(self._heads))
        self._write(before + line)
        self.entries.append(entry)
        self._heads.append(head)

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._file, data) :]
            if self._durable:
                os.fsync(self._file)
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be written: {error.strerror}; {MAKE_ROOM}") from None


def read_journal(path: Path) -> list[Entry]:
    """The entries of a journal, a torn last line as `TORN`; raises RecordError."""
    entries, _, torn = _read(path)
    return entries + [TORN] * torn


def reaches(path: Path, mark: Mark) -> bool:
    """Whether a journal that may be gone still has all that it had at a mark; raises RecordError for a damaged one."""
    if not mark.count:
        return True
    heads = _read(path)[1] if path.exists() else []
    return len(heads) >= mark.count and heads[mark.count - 1] == mark.head


def _line(entry: Entry, last: str) -> tuple[bytes, str]:
    body = json.dumps(entry, sort_keys=True)
    checksum = hashlib.sha256((last + body).encode()).hexdigest()[:32]
    return f"{checksum} {body}\n".encode(), checksum


def _last(heads: list[str]) -> str:
    return heads[-1] if heads else ""


def _read(path: Path) -> tuple[list[Entry], list[str], bool]:
    """Entries, the checksum of each, and whether a torn line awaits acknowledgement."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    entries: list[Entry] = []
    heads: list[str] = []
    torn = False
    for number, line in enumerate(lines, start=1):
        entry = _checked(line, _last(heads))
        if torn and entry != TORN:
            # Between a torn line and its acknowledgement there may only be acknowledgements cut short.
            if not _line(TORN, _last(heads))[0].startswith(line):
                raise RecordError(f"{path}: line {number - 1} is damaged; restore the file from a copy")
        elif entry is not None:
            entries.append(entry)
            heads.append(line.split(b" ", 1)[0].decode())
            torn = False
        elif line or number < len(lines):
            torn = True
    return entries, heads, torn


def _checked(line: bytes, last: str) -> Entry | None:
    """The entry of a line with the right checksum, else None. Only its newline may be missing."""
    _, separator, body = line.partition(b" ")
    try:
        entry: Entry = json.loads(body) if separator else {}
    except ValueError:
        return None
    return entry if _line(entry, last)[0] == line + b"\n" else None


def _sync_directory(directory: Path) -> None:
    """Make a new file's name durable too."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
