"""Where capcsim keeps what can be made again, and what that was made by."""

import hashlib
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


def cache_folder() -> Path:
    """CAPCSIM_CACHE, or capcsim in the user's cache folder."""
    own = os.environ.get("CAPCSIM_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "capcsim"


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
