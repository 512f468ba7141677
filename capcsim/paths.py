"""Where capcsim keeps what can be made again, and what that was made by."""

import hashlib
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from capcsim import __version__
from capcsim.errors import BookUnavailable, HostError

NAME_A_CACHE = "set CAPCSIM_CACHE to a folder that can be written"


def cache_folder() -> Path:
    """CAPCSIM_CACHE, or capcsim in the user's cache folder. Raises HostError where no home folder is known."""
    try:
        return _user_folder("CAPCSIM_CACHE", "XDG_CACHE_HOME", ".cache")
    except RuntimeError:
        raise HostError("home folder", "none is known", NAME_A_CACHE) from None


def state_folder() -> Path:
    """CAPCSIM_STATE, or capcsim in the user's state folder: what cannot be made again. Raises BookUnavailable."""
    try:
        return _user_folder("CAPCSIM_STATE", "XDG_STATE_HOME", ".local/state")
    except RuntimeError:
        raise BookUnavailable("no home folder for the book of runs; name a folder with CAPCSIM_STATE") from None


def _user_folder(ours: str, base: str, usual: str) -> Path:
    """The folder that our environment variable names, else ours in that of `base`; RuntimeError without a home."""
    own = os.environ.get(ours)
    return Path(own) if own else Path(os.environ.get(base) or Path.home() / usual) / "capcsim"


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of Python, capcsim and those of the libraries that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "capcsim": __version__}
    for library in libraries:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


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
