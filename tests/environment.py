"""Environments for the processes that tests start: whatever the suite itself was started in; and what is not there."""

import os
from pathlib import Path

from capcsim import registry


def without(backend: str) -> str:
    """Why tests of this backend are skipped: what it lacks here, and how to get it. Empty if it lacks nothing."""
    status = registry.status(backend)
    return f"no {', '.join(status.missing)} here: {status.install}" if status.missing else ""


def importing_from(*folders: Path, **variables: str) -> dict[str, str]:
    """The present environment, in which Python also finds these folders, before what PYTHONPATH already names."""
    present = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([*map(str, folders), *filter(None, [present])])
    return {**os.environ, "PYTHONPATH": path, **variables}
