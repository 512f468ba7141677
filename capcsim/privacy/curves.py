"""Epsilons that were worked out before, in this process or another one of the same user.

One costs a millisecond; the first of a process half a second, for the compiler whose code it needs. They depend on no
vote, so they may be kept, one file for each mechanism, delta and analysis. A file is named by that and by versions and
source of all that computes it, and begins with a checksum: one that is damaged counts as absent. What two processes
write at once may lose an epsilon, which is worked out again; none that is wrong is ever read.
"""

import atexit
import hashlib
import json
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from math import inf
from threading import Lock
from typing import Any, TypeAlias

from capcsim.caches import Cache
from capcsim.errors import CapcsimWarning
from capcsim.paths import source_digest, versions
from capcsim.privacy.mechanisms import Mechanism, describe

Curve: TypeAlias = dict[tuple[int, int], float]
"""Epsilon by answered and unanswered queries."""

LIBRARIES = ("numpy", "numba", "scipy")
SOURCES = tuple(
    f"capcsim.privacy.{name}"
    for name in ("accountant", "conversions", "curves", "loss_kernels", "losses", "mechanisms")
)
PAUSE_S = 1.0
"""Between two times that something is written."""


class Curves:
    """Epsilons in a cache folder, by the name of an analysis, mechanism, delta, answered and unanswered queries.

    Where nothing can be written, a CapcsimWarning says so, once.
    """

    def __init__(self, files: Cache) -> None:
        self._files, self._source = files, {"versions": versions(LIBRARIES), "source": source_digest(SOURCES)}
        self._curves: dict[tuple[str, Mechanism, float], Curve] = {}
        self._changed: set[tuple[str, Mechanism, float]] = set()
        self._written_s, self._writable, self._writing = -inf, True, Lock()

    def epsilon(
        self,
        analysis: str,
        mechanism: Mechanism,
        delta: float,
        answered: int,
        unanswered: int,
        compute: Callable[[], float],
    ) -> float:
        """What is known, or what `compute` gives, which is kept."""
        key, point = (analysis, mechanism, delta), (int(answered), int(unanswered))
        if key not in self._curves:
            self._curves[key] = self._read(key)
        curve = self._curves[key]
        if point not in curve:
            curve[point] = compute()
            self._changed.add(key)
            if time.monotonic() - self._written_s >= PAUSE_S:
                self.write()
        return curve[point]

    def write(self) -> None:
        """Write what is new, beside what others have written meanwhile."""
        if not self._writing.acquire(blocking=False):  # another thread does
            return
        try:
            while self._changed and self._writable:
                key = self._changed.pop()
                self._curves[key] = self._read(key) | self._curves[key]
                self._writable = self._files.write(self._name(key), self._content(key))
            self._written_s = time.monotonic()
        finally:
            self._writing.release()

    def _read(self, key: tuple[str, Mechanism, float]) -> Curve:
        checksum, _, content = (self._files.read(self._name(key)) or b"").partition(b"\n")
        if _checksum(content) != checksum:
            return {}
        return {(answered, unanswered): epsilon for answered, unanswered, epsilon in json.loads(content)["points"]}

    def _content(self, key: tuple[str, Mechanism, float]) -> bytes:
        points = [(*point, epsilon) for point, epsilon in sorted(self._curves[key].items())]
        content = json.dumps({**self._identity(key), "points": points}, default=float).encode()
        return b"\n".join([_checksum(content), content])

    def _name(self, key: tuple[str, Mechanism, float]) -> str:
        identity = json.dumps(self._identity(key), sort_keys=True, default=float)
        return f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.curve"

    def _identity(self, key: tuple[str, Mechanism, float]) -> dict[str, Any]:
        analysis, mechanism, delta = key
        return {**self._source, "analysis": analysis, "mechanism": describe(mechanism), "delta": delta}


@lru_cache(maxsize=1)
def user_curves() -> Curves:
    """Those in the user's cache."""
    curves = Curves(Cache("curves"))
    atexit.register(_write_last, curves)
    return curves


def _write_last(curves: Curves) -> None:
    """At the end of a process, of which nothing more is told."""
    with warnings.catch_warnings(), suppress(OSError):
        warnings.simplefilter("ignore", CapcsimWarning)
        curves.write()


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
