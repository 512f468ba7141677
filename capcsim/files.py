"""Writing a file so that it appears whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from threading import get_ident

from capcsim.errors import HostError

MANIFEST = "manifest.json"
"""A run's directory has it from its beginning."""


def make_folder(path: Path, mode: int = 0o777) -> None:
    """A folder of this mode, and those above it, where there are none; raises HostError."""
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError.at(path, error) from None


def write_private(path: Path, content: bytes) -> None:
    """A file that nobody else may read; raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name in the same folder to write to; it becomes `path` when the block ends, and is gone if that fails.

    Raises HostError, which names `path`, for an OSError in the block.
    """
    fresh = path.with_name(f".{path.stem}.{os.getpid()}.{get_ident()}{path.suffix}")
    try:
        yield fresh
        fresh.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise HostError.at(path, error) from None
        raise


@contextmanager
def withdrawing(folder: Path, *, named: bool) -> Iterator[None]:
    """Where the block fails, a run's folder that was made for it, and has nothing in it yet, goes.

    `named` is whether the user gave its name; one that was there before stays. Files whose names begin with a dot were
    being written.
    """
    before = named and folder.exists()
    try:
        yield
    except BaseException:
        if not before and not folder.joinpath(MANIFEST).exists():
            with contextlib.suppress(OSError):
                for path in folder.glob(".*"):
                    path.unlink()
                folder.rmdir()
                if not named:
                    folder.parent.rmdir()
        raise


def new_folder(name: str) -> Path:
    """A new directory under runs/, named after the scenario and the time."""
    stem = f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if folder.exists():
                continue
            raise HostError(str(folder), f"cannot be made: {error.strerror}", "name another with -o") from None
        return folder
    raise AssertionError("count does not end")
