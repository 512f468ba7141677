"""The network: access links whose bandwidth the flows on them share, and a latency between machines.

Flows are fluid and share max-min fairly, as many TCP connections do in the long run: each gets the rate
of its narrowest link, and what one cannot use is left to the others (progressive filling; Bertsekas and
Gallager, Data Networks, 6.5.2). A message alone takes exactly latency + bytes / bandwidth.
"""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]


class Link:
    """One direction of a machine's access link; `carried_bytes` counts what has been sent through it."""

    def __init__(self, name: str, bps: float) -> None:
        self.name, self.bps = name, bps
        self.carried_bytes = 0


class Network:
    """All flows under way, one for each message, as parallel arrays.

    Flow i had `left_bits[i]` to go at `since_s[i]` and moves at `rate_bps[i]` since then, until `ends_s[i]`.
    """

    def __init__(self, env: simpy.Environment, latency_s: float) -> None:
        self.latency_s = latency_s
        self._env = env
        self._links: dict[Link, int] = {}
        self._bps = np.empty(0)
        self._ups, self._downs = np.empty(0, np.int64), np.empty(0, np.int64)
        self._left_bits, self._since_s = np.empty(0), np.empty(0)
        self._rate_bps, self._ends_s = np.empty(0), np.empty(0)
        self._done: NDArray[np.object_] = np.empty(0, object)
        self._new: list[tuple[int, int, float, simpy.Event]] = []
        self._recompute_due = False
        self._wake_s = float("inf")

    def send(self, up: Link, down: Link, nbytes: int) -> Generator[simpy.Event, Any, None]:
        """Bring one message from a machine's uplink to another's downlink; a process."""
        up.carried_bytes += nbytes
        down.carried_bytes += nbytes
        if nbytes:
            done = self._env.event()
            self._new.append((self._number(up), self._number(down), 8.0 * nbytes, done))
            self._recompute_soon()
            yield done
        yield self._env.timeout(self.latency_s)

    def _number(self, link: Link) -> int:
        if link not in self._links:
            self._links[link] = len(self._links)
            self._bps = np.append(self._bps, link.bps)
        return self._links[link]

    def _recompute_soon(self) -> None:
        # Not at once: flows that start at the same instant are shared out together.
        if not self._recompute_due:
            self._recompute_due = True
            self._at(0.0, self._recompute)

    def _recompute(self) -> None:
        """Share the links out anew, and wake when the next flow ends."""
        self._recompute_due = False
        self._admit()
        if not len(self._done):
            return
        now_s = self._env.now
        rates_bps = max_min_rates_bps(self._ups, self._downs, self._bps)
        # A flow whose rate stays keeps the end that was computed first: no error adds up.
        changed = np.flatnonzero(rates_bps != self._rate_bps)
        moved_bits = self._rate_bps[changed] * (now_s - self._since_s[changed])
        self._left_bits[changed] = np.maximum(self._left_bits[changed] - moved_bits, 0.0)
        self._since_s[changed], self._rate_bps[changed] = now_s, rates_bps[changed]
        self._ends_s[changed] = now_s + self._left_bits[changed] / rates_bps[changed]
        self._wake_s = expected_s = float(self._ends_s.min())
        self._at(max(expected_s - now_s, 0.0), lambda: self._finish(expected_s))

    def _admit(self) -> None:
        """Take in the flows that have started since the last time."""
        if not self._new:
            return
        ups, downs, bits, done = zip(*self._new, strict=True)
        count = len(self._new)
        self._ups, self._downs = np.append(self._ups, ups), np.append(self._downs, downs)
        self._left_bits = np.append(self._left_bits, bits)
        self._since_s = np.append(self._since_s, np.full(count, self._env.now))
        self._rate_bps = np.append(self._rate_bps, np.zeros(count))
        self._ends_s = np.append(self._ends_s, np.full(count, np.inf))
        self._done = np.append(self._done, np.array(done, object))
        self._new.clear()

    def _finish(self, expected_s: float) -> None:
        """End the flows that are due, unless the rates have changed since this was planned."""
        if expected_s != self._wake_s:
            return
        left = self._ends_s > expected_s
        for done in self._done[~left]:
            done.succeed()
        self._done = self._done[left]
        self._ups, self._downs = self._ups[left], self._downs[left]
        self._left_bits, self._since_s = self._left_bits[left], self._since_s[left]
        self._rate_bps, self._ends_s = self._rate_bps[left], self._ends_s[left]
        self._wake_s = float("inf")
        self._recompute_soon()

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        event = self._env.timeout(delay_s)
        assert event.callbacks is not None, "a new timeout has not been processed"
        event.callbacks.append(lambda _: action())


def max_min_rates_bps(ups: Indices, downs: Indices, link_bps: Reals) -> Reals:
    """The max-min fair rate of each flow, which uses the links `ups[i]` and `downs[i]` of `link_bps`.

    Fill all links evenly, fix the flows of the links that are full first, repeat with what is left.
    """
    left_bps = link_bps.copy()
    rates_bps = np.zeros(len(ups))
    waiting = np.arange(len(ups))
    while len(waiting):
        up, down = ups[waiting], downs[waiting]
        count = np.bincount(up, minlength=len(left_bps)) + np.bincount(down, minlength=len(left_bps))
        fair_bps = np.full(len(left_bps), np.inf)
        np.divide(left_bps, count, out=fair_bps, where=count > 0)
        lowest_bps = fair_bps.min()
        full = fair_bps == lowest_bps
        fixed = full[up] | full[down]
        rates_bps[waiting[fixed]] = lowest_bps
        used = np.bincount(up[fixed], minlength=len(left_bps)) + np.bincount(down[fixed], minlength=len(left_bps))
        left_bps -= used * lowest_bps
        waiting = waiting[~fixed]
    return rates_bps
