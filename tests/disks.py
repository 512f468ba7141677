"""File systems that are full or cannot be written; mounting one takes root, and without it a test is skipped."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own on a folder, for example tmpfs of 8 kB by ("-t", "tmpfs", "-o", "size=8k", "tmpfs")."""
    folder.mkdir(exist_ok=True)
    mount(folder, *options)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(folder: Path, *options: str) -> None:
    """Mount, or mount anew with other options."""
    try:
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"mount: {error}")
    if done.returncode:
        pytest.skip(f"only root may mount a file system: {done.stderr.strip()}")


def tmpfs(size: str, mode: str = "rw") -> tuple[str, ...]:
    """Options of `mounted` for a file system in memory of this size, "8k" say."""
    return ("-t", "tmpfs", "-o", f"size={size},{mode}", "tmpfs")
