"""Files that appear whole or not at all, and caches without which the work goes on."""

from pathlib import Path

import pytest

from capcsim.caches import Cache
from capcsim.errors import CapcsimWarning, HostError
from capcsim.files import make_folder, replacing
from tests.disks import mounted, tmpfs


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as fresh:
        fresh.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        _write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _write_half(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as fresh:
        fresh.write_text("half")
        raise error


def test_a_full_disk_keeps_the_old_file_and_no_part_of_the_new_one(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", *tmpfs("8k")) as disk:
        path = disk / "a.txt"
        path.write_text("old")
        with (
            pytest.raises(HostError, match=r"a\.txt: No space left on device; make room and"),
            replacing(path) as fresh,
        ):
            fresh.write_bytes(bytes(10_000))
        assert path.read_text() == "old"
        assert list(disk.iterdir()) == [path]


def test_a_folder_that_vanished_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"gone/a\.txt: No such file or directory"), replacing(tmp_path / "gone/a.txt"):
        (tmp_path / "gone/a.txt").write_text("")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(("name", "says"), [("file/x", "Not a directory"), ("x" * 300, "choose a shorter name")])
def test_a_folder_that_cannot_be_made(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=says):
        make_folder(tmp_path / name)


def test_a_cache_keeps_files(tmp_path: Path) -> None:
    cache = Cache("things", tmp_path / "new" / "folder")
    assert cache.read("a") is None
    assert cache.write("a", b"1")
    assert cache.read("a") == b"1"


@pytest.mark.parametrize(("disk", "says"), [(("4k", "rw"), "No space left"), (("1m", "ro"), "Read-only file system")])
def test_a_cache_without_room_warns_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: tuple[str, str], says: str
) -> None:
    with mounted(tmp_path / "disk", *tmpfs(*disk)) as folder:
        monkeypatch.setenv("CAPCSIM_CACHE", str(folder))
        cache = Cache("things")
        told = f"{folder}: {says}.* cannot be kept for another time; set CAPCSIM_CACHE to a folder that can be written"
        with pytest.warns(CapcsimWarning, match=told):
            assert not cache.write("a", bytes(10_000))
        assert cache.read("a") is None
        assert not [path for path in folder.rglob("*") if path.is_file()]


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container for a user whom its system does not know."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("CAPCSIM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.warns(CapcsimWarning, match="home folder: none is known; .*set CAPCSIM_CACHE"):
        cache = Cache("things")
    assert cache.folder is None
    assert not cache.write("a", b"1")
    assert cache.read("a") is None


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.warns(CapcsimWarning, match=rf"^{tmp_path}/kept: Is a directory; .*; remove it$"):
        assert not Cache("any", tmp_path).write("kept", b"x")
