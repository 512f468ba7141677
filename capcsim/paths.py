"""Where capcsim keeps what can be made again, and what that was made by."""

import hashlib
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from capcsim.errors import BookUnavailable, HostError

NAME_A_CACHE = "set CAPCSIM_CACHE to a folder that can be written"


def cache_folder() -> Path:
    """CAPCSIM_CACHE, or capcsim in the user's cache folder. Raises HostError where no home folder is known."""
    own = os.environ.get("CAPCSIM_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache") / "capcsim"
    except RuntimeError:
        raise HostError("home folder", "none is known", NAME_A_CACHE) from None


def state_folder() -> Path:
    """CAPCSIM_STATE, or capcsim in the user's state folder: what cannot be made again. Raises BookUnavailable."""
    own = os.environ.get("CAPCSIM_STATE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME")
    try:
        return Path(base or Path.home() / ".local" / "state") / "capcsim"
    except RuntimeError:
        raise BookUnavailable("no home folder for the book of runs; name a folder with CAPCSIM_STATE") from None


def source_digest(modules: Iterable[str]) -> str:
    """A digest of modules' source, subpackages included: what they made is stale when it changes."""
    digest = hashlib.sha256()
    for module in modules:
        spec = find_spec(module)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin is None:
            continue
        files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]
