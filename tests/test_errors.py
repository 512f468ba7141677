"""What the host refuses, told from what may be a fault of ours."""

import errno
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import capcsim
from capcsim.errors import HostError, PeerFailed
from tests.disks import mounted, tmpfs


def opens_a_folder() -> None:
    Path("/").write_text("")


def opens_a_long_name() -> None:
    Path("/tmp", "x" * 300).read_text()


def opens_too_many_files() -> None:
    kept = []
    try:
        while True:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for number in kept:
            os.close(number)


def writes_to_a_full_device() -> None:
    with Path("/dev/full").open("w", buffering=1) as file:
        file.write("a line\n")


def wants_an_array() -> None:
    np.empty(1 << 50)


def wants_a_tensor() -> None:
    torch.empty(1 << 50)


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (opens_a_folder, "^/: Is a directory; choose another name$"),
        (opens_a_long_name, "x: File name too long; choose a shorter name$"),
        (opens_too_many_files, "/dev/null: Too many open files; allow more .*ulimit -n.* the same command again$"),
        (writes_to_a_full_device, "^disk: No space left on device; make room and give the same command again$"),
        (wants_an_array, r"^memory: exhausted \(Unable to allocate .*\); free some"),
        (wants_a_tensor, "^memory: Cannot allocate memory; free some"),
    ],
)
def test_what_the_host_refuses_is_told_with_a_remedy(fails: Callable[[], None], says: str) -> None:
    with pytest.raises((OSError, MemoryError, RuntimeError)) as caught:
        fails()
    told = HostError.of(caught.value)
    assert told is not None
    assert re.search(says, str(told)), str(told)
    assert "\n" not in str(told)


def test_a_thread_that_cannot_start_is_the_hosts() -> None:
    told = str(HostError.of(RuntimeError("can't start new thread")))
    assert told.startswith("processes: Resource temporarily unavailable; end other processes or allow more")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no space left in this matrix"),
        KeyError("querier"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", f"{capcsim.__path__[0]}/nothing"),
        OSError(errno.EINVAL, "Invalid argument"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError("cannot identify image file"),
    ],
)
def test_what_may_be_our_fault_is_not_put_on_the_host(error: Exception) -> None:
    assert HostError.of(error) is None


def test_errors_survive_their_way_between_processes() -> None:
    for error in (HostError("disk", "full", "make room"), PeerFailed("it died", "open the session again")):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert vars(again) == vars(error)
    assert str(PeerFailed("it died")) == "it died"


def test_a_disk_that_says_more_than_arrow_does(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with mounted(tmp_path / "disk", *tmpfs("4k")) as disk:
        with pytest.raises(OSError, match="No space left") as caught:
            pq.write_table(pa.table({"a": list(range(10_000))}), disk / "a.parquet")
        assert str(HostError.at("a.parquet", caught.value)).startswith("a.parquet: No space left on device; make room")
