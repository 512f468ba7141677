"""Where capcsim keeps what can be made again, and what that was made by."""

import ast
import hashlib
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_path

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


def imported_by(module: str) -> list[str]:
    """The modules, outside Python's own and installed ones, that a module imports anywhere in it, and theirs."""
    found: dict[str, None] = {}
    left = [module]
    while left:
        name = left.pop()
        path = _own_source(name)
        if path is None or name in found:
            continue
        found[name] = None
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                left += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                left += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return list(found)


def _own_source(module: str) -> Path | None:
    """A module's source, unless it belongs to Python or is installed."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):  # not a module, or one that is made elsewhere
        return None
    path = Path(spec.origin) if spec and spec.origin else Path()
    kept = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = any(path.is_relative_to(get_path(each)) for each in kept)
    return path if path.suffix == ".py" and not installed else None


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
