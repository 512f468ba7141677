"""README and docs: every block is executed as it stands in a fresh copy of the checkout, every link leads somewhere.

What takes long has `<!-- slow -->` before it, and runs under -m slow in the environment that the README's first command
makes from nothing.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import typer

from capcsim.cli import app
from capcsim.scenario import Scenario
from capcsim.study.metrics import page

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / ".github" / "CONTRIBUTING.md"]
FENCE = re.compile(r"(?P<slow><!-- slow -->\n)?^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)^```$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `number` counts the page's."""

    page: Path
    number: int
    language: str
    text: str
    slow: bool

    def __str__(self) -> str:
        return f"{self.page.stem}-{self.number}"

    def execute(self, checkout: Path, **environment: str) -> str:
        """What it prints. The environment is that of a user who has set nothing up for Python, and this."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("VIRTUAL_ENV", "PYTHON"))}
        python = [str(checkout / ".venv/bin/python"), "-c", self.text]
        done = subprocess.run(
            python if self.language == "python" else ["bash", "-euo", "pipefail", "-c", self.text],
            cwd=checkout, env={**clean, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def blocks_of(path: Path) -> list[Block]:
    found = FENCE.finditer(path.read_text(encoding="utf-8"))
    return [Block(path, n, each["language"], each["text"], bool(each["slow"])) for n, each in enumerate(found)]


BLOCKS = [block for path in PAGES for block in blocks_of(path)]
RUN, TEST, *OTHERS = BLOCKS
QUICK, SLOW = ([block for block in OTHERS if block.slow is slow] for slow in (False, True))


def fresh_copy(folder: Path, environment: Path | None) -> Path:
    """What git has, in a folder, with this virtual environment in the place where a user's is."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("git, and a clone of the repository, say what belongs to a fresh copy")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    copy = folder / "capcsim"
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    if environment is not None:
        (copy / ".venv").symlink_to(environment)
    return copy


@dataclass(frozen=True)
class Ran:
    """The README's first command, in a fresh copy with nothing else."""

    checkout: Path
    printed: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    checkout = fresh_copy(tmp_path_factory.mktemp("readme"), None)
    return Ran(checkout, RUN.execute(checkout))


def test_the_readme_begins_with_the_two_commands() -> None:
    assert "capcsim run scenarios/digits.toml" in RUN.text
    assert ".venv/bin/python -m pytest -n logical" in TEST.text
    assert {block.language for block in BLOCKS} == {"sh", "python"}, "what is not executed is indented"


@pytest.mark.slow
def test_the_first_block_runs_the_main_job_from_nothing(ran: Ran) -> None:
    assert all(f"party {querier}" in ran.printed for querier in range(3))
    assert list(ran.checkout.glob("runs/digits-*/report.html"))
    pip = ran.checkout / ".venv/bin/pip"
    installed = subprocess.run([pip, "list"], capture_output=True, text=True, check=True).stdout
    offered = subprocess.run(
        ["bash", "-c", "pip config list; echo ${PIP_FIND_LINKS:-}"], capture_output=True, text=True, check=False
    ).stdout
    if "find-links" in offered:
        assert "nvidia" not in installed, "a GPU build of torch was pulled although a CPU build is offered"


@pytest.mark.slow
def test_the_second_block_finds_the_tests_from_nothing(tmp_path: Path) -> None:
    # Collected, not run: this is one of those tests. The whole suite runs by this block in .ci/run.
    printed = TEST.execute(fresh_copy(tmp_path, None), PYTEST_ADDOPTS="--collect-only -q")
    assert re.search(r"\d+/\d+ tests collected", printed)


@pytest.mark.parametrize("block", QUICK, ids=str)
def test_a_block_does_what_it_says(block: Block, tmp_path: Path) -> None:
    if not Path(sys.prefix, "bin", "capcsim").exists():
        pytest.skip("capcsim's command is not in this environment's bin")
    ours = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    block.execute(fresh_copy(tmp_path, Path(sys.prefix)), **ours)


@pytest.mark.slow
@pytest.mark.parametrize("block", SLOW, ids=str)
def test_a_long_block_does_what_it_says(block: Block, ran: Ran, tmp_path: Path) -> None:
    block.execute(fresh_copy(tmp_path, ran.checkout / ".venv"))


@pytest.mark.parametrize("path", LINKING, ids=lambda path: path.stem)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    lost = []
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def anchors(path: Path) -> set[str]:
    """What a page's headings are called in links to them."""
    titles = HEADING.findall(path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DOCS if f"(docs/{path.name})" not in readme] == []


def test_the_page_of_metrics_is_made_from_their_definitions() -> None:
    remedy = "write capcsim.study.metrics.page() there"
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == page(), remedy


def test_every_command_is_in_the_readme_and_every_option_in_the_docs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    docs = "".join(path.read_text(encoding="utf-8") for path in DOCS)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"`capcsim {name}" not in readme] == []
    options = {option for each in commands.values() for param in each.params for option in param.opts}
    assert sorted(option for option in options if option.startswith("--") and option not in docs) == []


def test_every_key_of_a_scenario_is_explained() -> None:
    text = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    keys = set()
    for section, field in Scenario.model_fields.items():
        kinds = [kind for each in (field.annotation, *get_args(field.annotation)) for kind in (each, *get_args(each))]
        models = [kind for kind in kinds if hasattr(kind, "model_fields")]
        named = {"groups": "groups.G", "sites": "sites.S"}.get(section, section)  # as the page calls what users name
        keys |= {f"{named}.{key}" for kind in models for key in kind.model_fields} or {section}
    assert {"privacy.threshold", "data.site", "seed", "groups.G.hours", "sites.S.place"} < keys
    assert sorted(key for key in keys if f"`{key}" not in text) == []
