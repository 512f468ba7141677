"""What all tests share: a transcript cache and a book of runs of their own, and small scenarios."""

import copy
import os
import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capcsim.scenario import Scenario, parse_scenario, shipped_scenarios

Tree = dict[str, Any]
TERMINAL = (
    "CLICOLOR_FORCE", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS", "TERM", "TERMINAL_WIDTH",
    "TTY_COMPATIBLE", "TTY_INTERACTIVE",
)  # fmt: skip


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait for a process, or for nothing to happen."""
    return (os.cpu_count() or 1) + 1


def pytest_sessionstart() -> None:
    """Before any module of ours looks: output goes to a plain screen of one size, wherever the suite is started."""
    for name in TERMINAL:
        os.environ.pop(name, None)
    os.environ.update(COLUMNS="80", LINES="25")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's measured transcripts, or enters a run in the user's book."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPCSIM_CACHE", str(folder))
        patch.setenv("CAPCSIM_STATE", str(tmp_path_factory.mktemp("state")))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, here and in processes that tests start, also where the suite was started with it ignored."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # under nohup, or in the background of a script
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(scope="session")
def smoke_tree() -> Tree:
    return tomllib.loads(shipped_scenarios()["smoke"].read_text())


@pytest.fixture
def scenario(smoke_tree: Tree) -> Callable[..., Scenario]:
    """The smoke scenario with some keys changed: scenario({"privacy.sigma": 2.0})."""

    def build(changes: Tree | None = None) -> Scenario:
        tree = copy.deepcopy(smoke_tree)
        for key, value in (changes or {}).items():
            *sections, last = key.split(".")
            target = tree
            for section in sections:
                target = target.setdefault(section, {})
            target[last] = value
        return parse_scenario(tree)

    return build
