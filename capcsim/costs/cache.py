"""Measured transcripts, kept by what they depend on: host, versions, source, backend, model, batch."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capcsim.backend import Backend
from capcsim.errors import RecordError
from capcsim.paths import cache_folder, source_digest

LIBRARIES = ("numpy", "torch", "numba", "tenseal", "crypten")
SOURCES = (
    "capcsim.crypto",
    "capcsim.fixed_point",
    "capcsim.protocol",
    "capcsim.privacy.noise",
    "capcsim.costs.measure",
)


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


class MeasurementCache:
    """What was measured under one name, for one backend with its options on this host.

    With `reading` off it only stores. Raises RecordError where its folder cannot be written. A damaged file counts as
    absent.
    """

    def __init__(self, backend: Backend, options: Mapping[str, object] | None = None, *, reading: bool = True) -> None:
        self._folder, self._reading = cache_folder() / "transcripts", reading
        package = type(backend).__module__.partition(".")[0]
        self._identity = {
            "host": host(),
            "versions": versions(),
            "backend": backend.name,
            "options": dict(options or {}),
            "source": source_digest((*SOURCES, package)),
        }

    def load(self, name: str) -> dict[str, Any] | None:
        """What was stored, or None where nothing was measured under these conditions."""
        if not self._reading:
            return None
        try:
            content: dict[str, Any] = json.loads(self._path(name).read_text())
        except (OSError, ValueError):
            return None
        return content

    def store(self, name: str, measured: dict[str, Any]) -> None:
        """Keep what was measured; the file appears whole or not at all."""
        path = self._path(name)
        fresh = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps({**self._identity, "name": name, **measured}))
            fresh.replace(path)
        except OSError as error:
            why = f"cannot be written ({error.strerror}); set CAPCSIM_CACHE to a folder that can"
            raise RecordError(f"{path.parent}: {why}") from None

    def _path(self, name: str) -> Path:
        key = json.dumps({**self._identity, "name": name}, sort_keys=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
