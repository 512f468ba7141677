"""Measured transcripts, kept by what they depend on: host, versions, source, backend, model, batch."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capcsim.backend import Backend, Transcript
from capcsim.costs.transcripts import from_json, to_json

LIBRARIES = ("numpy", "torch", "numba", "tenseal", "crypten")
SOURCES = ("capcsim.crypto", "capcsim.fixed_point", "capcsim.protocol")


def cache_folder() -> Path:
    """CAPCSIM_CACHE, or capcsim in the user's cache folder."""
    own = os.environ.get("CAPCSIM_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "capcsim"


def versions() -> dict[str, str]:
    """Versions of Python, capcsim and the libraries that do the work."""
    return {"python": platform.python_version(), "capcsim": version("capcsim")} | {
        library: version(library) for library in LIBRARIES if find_spec(library)
    }


@lru_cache(maxsize=1)
def host() -> dict[str, Any]:
    """The machine that measures."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system(), "machine": platform.machine()}


class TranscriptCache:
    """Samples by stratum, for one backend on this host; with `reading` off it only stores."""

    def __init__(self, backend: Backend, *, reading: bool = True) -> None:
        self._folder, self._reading = cache_folder() / "transcripts", reading
        package = type(backend).__module__.partition(".")[0]
        self._identity = {
            "host": host(),
            "versions": versions(),
            "backend": backend.name,
            "source": _digest((*SOURCES, package)),
        }

    def load(self, stratum: str) -> tuple[Transcript, ...] | None:
        """The samples of a stratum, or None where none were measured under these conditions."""
        path = self._path(stratum)
        if not self._reading or not path.exists():
            return None
        return tuple(from_json(nodes) for nodes in json.loads(path.read_text())["transcripts"])

    def store(self, stratum: str, transcripts: Iterable[Transcript]) -> None:
        """Keep the samples of a stratum; the file appears whole or not at all."""
        path = self._path(stratum)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            **self._identity,
            "stratum": stratum,
            "transcripts": [to_json(transcript) for transcript in transcripts],
        }
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(content))
        fresh.replace(path)

    def _path(self, stratum: str) -> Path:
        key = json.dumps({**self._identity, "stratum": stratum}, sort_keys=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _digest(modules: Iterable[str]) -> str:
    """A digest of the source that decides what a transcript looks like."""
    digest = hashlib.sha256()
    for module in modules:
        spec = find_spec(module)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin is None:
            continue
        files = sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]
