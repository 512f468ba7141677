"""Runs in processes of their own that die at a chosen write to disk.

They are forked from a server that has imported what a run needs, as that takes longer than such a run.
"""

import multiprocessing
import os
import signal
from pathlib import Path

from capcsim.journal import Journal
from capcsim.scenario import load_scenario
from capcsim.study.run import run_scenario

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        __name__,
        "sklearn.datasets",
        "capcsim.privacy.loss_kernels",
        "capcsim.fixed_point.torch_models",
        "capcsim_plaintext",
    ]
)


def run_until_killed(folder: Path, fatal: int, *overrides: str) -> int:
    """Run smoke into this folder, killed at its n-th sync; returns the exit code, as Popen tells it."""
    process = CONTEXT.Process(target=_run, args=(folder, fatal, overrides, dict(os.environ)))
    process.start()
    process.join()
    assert process.exitcode is not None
    code = process.exitcode
    process.close()
    return code


def _run(folder: Path, fatal: int, overrides: tuple[str, ...], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)  # the server's is what it was when the first of these processes began
    calls, sync = 0, os.fsync

    def syncing(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = syncing
    # With seeded noise too, so that there is a sync for each line to be killed at.
    before = Journal.__init__
    Journal.__init__ = lambda self, path, **_: before(self, path)  # type: ignore[method-assign]
    run_scenario(load_scenario("smoke", overrides), folder)
