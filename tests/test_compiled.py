"""numba's compiled code where it can be kept, and where it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.disks import mount, mounted, tmpfs
from tests.environment import importing_from

ROOT = Path(__file__).parents[1]
MODULE = """
from capcsim.compiled import compiled

@compiled()
def doubled(number):
    return 2 * number
"""
SCRIPT = "import kernels; print(kernels.doubled(21), sum(kernels.doubled.stats.cache_hits.values()))"
NOWHERE = "/proc/nowhere"


def run(folder: Path, *, cache: str = NOWHERE, flags: tuple[str, ...] = ()) -> tuple[str, str]:
    """What a fresh process computes, how often it found compiled code, and what it is warned of."""
    environment = importing_from(folder, ROOT, HOME=NOWHERE, XDG_CACHE_HOME=NOWHERE, CAPCSIM_CACHE=cache)
    command = [sys.executable, *flags, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_it_is_kept_beside_the_source(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(MODULE)
    assert run(tmp_path) == ("42 0", "")
    assert run(tmp_path) == ("42 1", "")
    for file in (tmp_path / "__pycache__").glob("kernels.doubled*"):
        file.write_bytes(b"damaged")
    assert run(tmp_path) == ("42 0", "")
    assert run(tmp_path) == ("42 1", ""), "a damaged file is replaced"


@pytest.mark.slow
def test_a_source_that_cannot_be_written_beside_uses_the_cache(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "kernels.py").write_text(MODULE)
    with mounted(package, "--bind", str(package)):
        mount(package, "-o", "remount,ro,bind")
        cache = str(tmp_path / "cache")
        assert run(package, cache=cache) == ("42 0", "")
        assert run(package, cache=cache) == ("42 1", "")
        printed, told = run(package)
        assert printed == "42 0"
        assert told.count("set CAPCSIM_CACHE to a folder that can be written") == 1
        assert f"{NOWHERE}: No such file or directory" in told


def test_a_disk_that_fills_up_is_no_error(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", *tmpfs("12k")) as disk:
        (disk / "kernels.py").write_text(MODULE)
        printed, told = run(disk, flags=("-B",))
    assert printed == "42 0"
    assert "__pycache__: No space left on device; what is measured, trained or compiled cannot be kept" in told
