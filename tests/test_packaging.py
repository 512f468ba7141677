"""The wheel as somebody else would install it."""

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.environment import importing_from

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(folder), str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_packages_and_nothing_else_at_the_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {top for name in names if not (top := name.split("/")[0]).endswith(".dist-info")}
    assert top == {"capcsim", "capcsim_crypten", "capcsim_hybrid", "capcsim_plaintext"}
    shipped = {name for name in names if name.startswith("capcsim/_scenarios/")}
    assert shipped == {f"capcsim/_scenarios/{path.name}" for path in ROOT.glob("scenarios/*.toml")}
    assert "capcsim/report/templates/report.html" in names
    assert "capcsim/py.typed" in names


def test_a_plain_installation_asks_neither_for_crypten_nor_for_what_only_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    plain = [text for text in metadata.get_all("Requires-Dist") or [] if "extra ==" not in text]
    assert any(text.startswith("pandas") for text in plain)
    assert not [text for text in plain if text.startswith(("crypten", "sklearn"))]
    assert "crypten" in (metadata.get_all("Provides-Extra") or [])


@pytest.mark.slow
def test_an_installed_wheel_runs_a_scenario_by_name_anywhere(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-m", "capcsim", "run", "smoke", "--set", "models.epochs=5", "-o", "run"],
        cwd=work,
        env=importing_from(site),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (work / "run" / "report.html").exists()
    located = subprocess.run(
        [sys.executable, "-c", "import capcsim; print(capcsim.__file__)"],
        cwd=work, env=importing_from(site), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert located.stdout.startswith(str(site)), "the checkout ran, not the wheel"
