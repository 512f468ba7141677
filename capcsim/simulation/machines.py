"""Machines: cores that run one stretch of work each at a time."""

from collections.abc import Generator
from heapq import heappop, heappush
from typing import Any

import simpy


class Machine:
    """`cores` cores, each `speed` times as fast as the one that transcripts were measured on.

    Work waits in the order in which it comes, and takes the lowest core that is idle. `busy_s[c]` is the time that
    core c has worked; it ends with the highest core that was ever needed, however many there are.
    """

    def __init__(self, env: simpy.Environment, name: str, cores: int, speed: float) -> None:
        self.name, self.speed = name, speed
        self.busy_s = [0.0]
        self._env = env
        self._queue = simpy.Resource(env, capacity=cores)
        self._idle = [0]

    def work(self, seconds: float) -> Generator[simpy.Event, Any, tuple[int, float]]:
        """Occupy one core for seconds / speed; a process. Returns the core and when it started."""
        with self._queue.request() as turn:
            yield turn
            core = self._idle_core()
            started_s = self._env.now
            took_s = seconds / self.speed
            yield self._env.timeout(took_s)
            self.busy_s[core] += took_s
            heappush(self._idle, core)
        return core, started_s

    def _idle_core(self) -> int:
        if self._idle:
            return heappop(self._idle)
        self.busy_s.append(0.0)
        return len(self.busy_s) - 1
