"""Machines: cores that run one stretch of work each at a time."""

from collections.abc import Generator
from heapq import heappop, heappush
from typing import Any

import simpy


class Machine:
    """`cores` cores, each `speed` times as fast as the one that transcripts were measured on.

    Work waits in the order in which it comes. `busy_s[c]` is the time that core c has worked.
    """

    def __init__(self, env: simpy.Environment, name: str, cores: int, speed: float) -> None:
        self.name, self.speed = name, speed
        self.busy_s = [0.0] * cores
        self._env = env
        self._queue = simpy.Resource(env, capacity=cores)
        self._idle = list(range(cores))

    def work(self, seconds: float) -> Generator[simpy.Event, Any, tuple[int, float]]:
        """Occupy one core for seconds / speed; a process. Returns the core and when it started."""
        with self._queue.request() as turn:
            yield turn
            core = heappop(self._idle)
            started_s = self._env.now
            took_s = seconds / self.speed
            yield self._env.timeout(took_s)
            self.busy_s[core] += took_s
            heappush(self._idle, core)
        return core, started_s
