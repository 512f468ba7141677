"""Measured transcripts, kept by what they depend on: host, versions, source, backend, model, batch."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from capcsim.backend import Backend
from capcsim.caches import Cache
from capcsim.paths import source_digest
from capcsim.paths import versions as versions_of

LIBRARIES = ("numpy", "torch", "numba", "tenseal", "crypten")
SOURCES = (
    "capcsim.crypto",
    "capcsim.twoparty",
    "capcsim.fixed_point",
    "capcsim.protocol.steps",
    "capcsim.privacy.noise",
    "capcsim.costs.measure",
)


def versions() -> dict[str, str]:
    """Versions of Python, capcsim and the libraries that do the work."""
    return versions_of(LIBRARIES)


@lru_cache(maxsize=1)
def host() -> dict[str, Any]:
    """The machine that measures."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system(), "machine": platform.machine()}


def identity_of(backend: Backend, options: Mapping[str, object] | None = None) -> dict[str, Any]:
    """What a backend's integers and work depend on besides the host: sources, options, libraries."""
    package = type(backend).__module__.partition(".")[0]
    return {
        "versions": versions(),
        "backend": backend.name,
        "options": dict(options or {}),
        "source": source_digest((*SOURCES, package)),
    }


class MeasurementCache:
    """What was measured under one name, for one backend with its options on this host.

    With `reading` off it only stores. A damaged file counts as absent; where none can be written, a CapcsimWarning
    says so.
    """

    def __init__(self, backend: Backend, options: Mapping[str, object] | None = None, *, reading: bool = True) -> None:
        self._files, self._reading = Cache("transcripts"), reading
        self._identity = {"host": host(), **identity_of(backend, options)}

    def load(self, name: str) -> dict[str, Any] | None:
        """What was stored, or None where nothing was measured under these conditions."""
        content = self._files.read(self._file(name)) if self._reading else None
        try:
            found = None if content is None else json.loads(content)
        except ValueError:
            return None
        return found if isinstance(found, dict) and found.get("name") == name else None

    def store(self, name: str, measured: dict[str, Any]) -> None:
        """Keep what was measured; the file appears whole or not at all."""
        self._files.write(self._file(name), json.dumps({**self._identity, "name": name, **measured}).encode())

    def _file(self, name: str) -> str:
        key = json.dumps({**self._identity, "name": name}, sort_keys=True)
        return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
