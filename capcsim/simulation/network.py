"""The network: access links whose bandwidth the connections on them share, and a latency between machines.

A connection joins two roles of one session; its messages go in order. Connections are fluid and share max-min fairly,
as many TCP connections do in the long run: each gets the rate of its narrowest link, and what one cannot use is left to
the others (progressive filling; Bertsekas and Gallager, Data Networks, 6.5.2). A message alone takes exactly
latency + bytes / bandwidth.
"""

from collections import deque
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

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


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A message on a connection, and the event that all of it has passed."""

    bits: float
    done: simpy.Event


_Key: TypeAlias = tuple[int, int, Hashable]
"""The numbers of an uplink and a downlink, and the connection over them."""


@dataclass(frozen=True, slots=True, eq=False)
class _Queue:
    """The messages of a connection that have not passed."""

    key: _Key
    messages: deque[_Waiting]


class Network:
    """All connections that carry something, as parallel arrays; the messages of each go in order.

    The message at the head of connection i had `left_bits[i]` to go at `since_s[i]` and moves at `rate_bps[i]` since
    then, until `ends_s[i]`; those behind it wait in `queues[i]`.
    """

    def __init__(self, env: simpy.Environment, latency_s: float) -> None:
        self.latency_s = latency_s
        self._env = env
        self._links: dict[Link, int] = {}
        self._bps = np.empty(0)
        self._ups, self._downs = np.empty(0, np.int64), np.empty(0, np.int64)
        self._left_bits, self._since_s = np.empty(0), np.empty(0)
        self._rate_bps, self._ends_s = np.empty(0), np.empty(0)
        self._queues: NDArray[np.object_] = np.empty(0, object)
        self._open: dict[_Key, _Queue] = {}
        self._new: list[_Queue] = []
        self._recompute_due = False
        self._wake_s = float("inf")

    def send(self, up: Link, down: Link, nbytes: int, connection: Hashable = None) -> Generator[simpy.Event, Any, None]:
        """Bring a message from a machine's uplink to another's downlink, behind those of its connection; a process."""
        up.carried_bytes += nbytes
        down.carried_bytes += nbytes
        if nbytes:
            done = self._env.event()
            self._enqueue((self._number(up), self._number(down), connection), _Waiting(8.0 * nbytes, done))
            yield done
        yield self._env.timeout(self.latency_s)

    def _number(self, link: Link) -> int:
        if link not in self._links:
            self._links[link] = len(self._links)
            self._bps = np.append(self._bps, link.bps)
        return self._links[link]

    def _enqueue(self, key: "_Key", message: _Waiting) -> None:
        """A message that follows another changes no rate."""
        if key in self._open:
            self._open[key].messages.append(message)
            return
        self._open[key] = _Queue(key, deque([message]))
        self._new.append(self._open[key])
        self._recompute_soon()

    def _recompute_soon(self) -> None:
        # Not at once: what starts or ends at the same instant is shared out together.
        if not self._recompute_due:
            self._recompute_due = True
            self._at(0.0, self._recompute)

    def _recompute(self) -> None:
        """Share the links out anew among the connections that carry something."""
        self._recompute_due = False
        self._admit()
        now_s = self._env.now
        rates_bps = max_min_rates_bps(self._ups, self._downs, self._bps)
        # A message whose rate stays keeps the end that was computed first: no error adds up.
        changed = np.flatnonzero(rates_bps != self._rate_bps)
        moved_bits = self._rate_bps[changed] * (now_s - self._since_s[changed])
        self._left_bits[changed] = np.maximum(self._left_bits[changed] - moved_bits, 0.0)
        self._since_s[changed], self._rate_bps[changed] = now_s, rates_bps[changed]
        self._ends_s[changed] = now_s + self._left_bits[changed] / rates_bps[changed]
        self._wake_next()

    def _wake_next(self) -> None:
        """Wake when the next message has passed."""
        if not len(self._ends_s):
            return
        self._wake_s = expected_s = float(self._ends_s.min())
        self._at(max(expected_s - self._env.now, 0.0), lambda: self._finish(expected_s))

    def _admit(self) -> None:
        """Take in the connections that have begun to carry something since the last time."""
        if not self._new:
            return
        queues = np.empty(len(self._new), object)
        queues[:] = self._new
        ups, downs, _ = zip(*(queue.key for queue in self._new), strict=True)
        self._ups, self._downs = np.append(self._ups, ups), np.append(self._downs, downs)
        self._left_bits = np.append(self._left_bits, [queue.messages[0].bits for queue in queues])
        self._since_s = np.append(self._since_s, np.full(len(queues), self._env.now))
        self._rate_bps = np.append(self._rate_bps, np.zeros(len(queues)))
        self._ends_s = np.append(self._ends_s, np.full(len(queues), np.inf))
        self._queues = np.append(self._queues, queues)
        self._new.clear()

    def _finish(self, expected_s: float) -> None:
        """End the messages that are due, unless the rates have changed since this was planned; the next ones follow."""
        if expected_s != self._wake_s:
            return
        self._wake_s = float("inf")
        stays = np.ones(len(self._ends_s), np.bool_)
        for index in np.flatnonzero(self._ends_s <= expected_s):
            queue = self._queues[index].messages
            queue.popleft().done.succeed()
            stays[index] = bool(queue)
            if queue:
                self._left_bits[index], self._since_s[index] = queue[0].bits, expected_s
                self._ends_s[index] = expected_s + queue[0].bits / self._rate_bps[index]
        if stays.all():
            self._wake_next()
        else:
            self._close(stays)
            self._recompute_soon()

    def _close(self, stays: NDArray[np.bool_]) -> None:
        """Leave out the connections that carry nothing any more."""
        for queue in self._queues[~stays]:
            del self._open[queue.key]
        self._ups, self._downs, self._queues = self._ups[stays], self._downs[stays], self._queues[stays]
        self._left_bits, self._since_s = self._left_bits[stays], self._since_s[stays]
        self._rate_bps, self._ends_s = self._rate_bps[stays], self._ends_s[stays]

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        event = self._env.timeout(delay_s)
        assert event.callbacks is not None, "a new timeout has not been processed"
        event.callbacks.append(lambda _: action())


def max_min_rates_bps(ups: Indices, downs: Indices, link_bps: Reals) -> Reals:
    """The max-min fair rate of each connection, which uses the links `ups[i]` and `downs[i]` of `link_bps`.

    Fill all links evenly, fix the connections of the links that are full first, repeat with what is left.
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
