"""Environments for the processes that tests start: whatever the suite itself was started in."""

import os
from pathlib import Path


def importing_from(*folders: Path, **variables: str) -> dict[str, str]:
    """The present environment, in which Python also finds these folders, before what PYTHONPATH already names."""
    present = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([*map(str, folders), *filter(None, [present])])
    return {**os.environ, "PYTHONPATH": path, **variables}
