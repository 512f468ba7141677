"""Every command block of the README, executed as it stands in a fresh copy of the checkout."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
RUN, TEST, USE = BLOCKS


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has, and no virtual environment."""
    copy = tmp_path_factory.mktemp("readme") / "capcsim"
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("git, and a clone of the repository, say what belongs to a fresh copy")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def execute(block: str, checkout: Path, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("VIRTUAL_ENV", "PYTHON"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=checkout,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_has_the_blocks_that_are_tested_here() -> None:
    assert "capcsim run scenarios/digits.toml" in RUN
    assert ".venv/bin/python -m pytest -n logical" in TEST
    assert USE.count(".venv/bin/capcsim") == len(USE.splitlines())


@pytest.mark.slow
def test_the_first_block_runs_the_main_job_from_nothing(checkout: Path) -> None:
    printed = execute(RUN, checkout)
    assert all(f"party {querier}" in printed for querier in range(3))
    assert list(checkout.glob("runs/digits-*/report.html"))
    installed = subprocess.run([checkout / ".venv/bin/pip", "list"], capture_output=True, text=True, check=True).stdout
    offered = subprocess.run(
        ["bash", "-c", "pip config list; echo ${PIP_FIND_LINKS:-}"], capture_output=True, text=True, check=False
    ).stdout
    if "find-links" in offered:
        assert "nvidia" not in installed, "a GPU build of torch was pulled although a CPU build is offered"


@pytest.mark.slow
def test_the_second_block_finds_the_tests_from_nothing(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv", ignore_errors=True)
    # Collected, not run: this is one of those tests. The whole suite runs by this block in .ci/run.
    assert re.search(r"\d+/\d+ tests collected", execute(TEST, checkout, PYTEST_ADDOPTS="--collect-only -q"))


@pytest.mark.slow
def test_the_third_block_does_what_it_says(checkout: Path) -> None:
    if not (checkout / ".venv").exists():
        execute(RUN, checkout)
    printed = execute(USE, checkout)
    assert "plaintext" in printed
    assert (checkout / "runs/my-run/report.html").exists()
    assert (checkout / "runs/scenario.schema.json").read_text().startswith("{")
