"""The network: access links whose bandwidth the flows on them share, and a latency between machines.

Flows are fluid and share max-min fairly, as many TCP connections do in the long run: each gets the rate
of its narrowest link, and what one cannot use is left to the others (progressive filling; Bertsekas and
Gallager, Data Networks, 6.5.2). A message alone takes exactly latency + bytes / bandwidth.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray


class Link:
    """One direction of a machine's access link; `carried_bytes` counts what has been sent through it."""

    def __init__(self, name: str, bps: float) -> None:
        self.name, self.bps = name, bps
        self.carried_bytes = 0


@dataclass(eq=False, slots=True)
class _Flow:
    """Bits on their way: `left_bits` were left at `since_s`, and flow at `rate_bps` since then."""

    up: Link
    down: Link
    left_bits: float
    since_s: float
    done: simpy.Event
    rate_bps: float = 0.0
    ends_s: float = float("inf")

    def set_rate(self, rate_bps: float, now_s: float) -> None:
        """Go on at a new rate; an unchanged rate leaves the end as it was computed first."""
        if rate_bps == self.rate_bps:
            return
        self.left_bits -= self.rate_bps * (now_s - self.since_s)
        self.since_s, self.rate_bps = now_s, rate_bps
        self.ends_s = now_s + max(self.left_bits, 0.0) / rate_bps


class Network:
    """All flows under way; one per message."""

    def __init__(self, env: simpy.Environment, latency_s: float) -> None:
        self.latency_s = latency_s
        self._env = env
        self._flows: list[_Flow] = []
        self._recompute_due = False
        self._wake_s = float("inf")

    def send(self, up: Link, down: Link, nbytes: int) -> Generator[simpy.Event, Any, None]:
        """Bring one message from a machine's uplink to another's downlink; a process."""
        up.carried_bytes += nbytes
        down.carried_bytes += nbytes
        if nbytes:
            flow = _Flow(up, down, 8.0 * nbytes, self._env.now, self._env.event())
            self._flows.append(flow)
            self._recompute_soon()
            yield flow.done
        yield self._env.timeout(self.latency_s)

    def _recompute_soon(self) -> None:
        # Not at once: flows that start at the same instant are shared out together.
        if not self._recompute_due:
            self._recompute_due = True
            self._at(0.0, self._recompute)

    def _recompute(self) -> None:
        """Share the links out anew, and wake when the next flow ends."""
        self._recompute_due = False
        now_s = self._env.now
        for flow, rate_bps in zip(self._flows, max_min_rates_bps(self._flows), strict=True):
            flow.set_rate(rate_bps, now_s)
        self._wake_s = min((flow.ends_s for flow in self._flows), default=float("inf"))
        if self._flows:
            expected_s = self._wake_s
            self._at(max(expected_s - now_s, 0.0), lambda: self._finish(expected_s))

    def _finish(self, expected_s: float) -> None:
        """End the flows that are due, unless the rates have changed since this was planned."""
        if expected_s != self._wake_s:
            return
        ended = [flow for flow in self._flows if flow.ends_s <= expected_s]
        self._flows = [flow for flow in self._flows if flow.ends_s > expected_s]
        for flow in ended:
            flow.done.succeed()
        self._recompute_soon()

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        event = self._env.timeout(delay_s)
        assert event.callbacks is not None, "a new timeout has not been processed"
        event.callbacks.append(lambda _: action())


def max_min_rates_bps(flows: list[_Flow]) -> list[float]:
    """The max-min fair rate of each flow: fill all links evenly, fix the flows of the first full ones, repeat."""
    if not flows:
        return []
    links = list(dict.fromkeys(link for flow in flows for link in (flow.up, flow.down)))
    position = {link: index for index, link in enumerate(links)}
    ups = np.array([position[flow.up] for flow in flows])
    downs = np.array([position[flow.down] for flow in flows])
    left_bps = np.array([link.bps for link in links], np.float64)
    rates_bps = np.zeros(len(flows))
    open_flows = np.ones(len(flows), np.bool_)
    while open_flows.any():
        fair_bps = _even_share_bps(left_bps, ups[open_flows], downs[open_flows])
        full = fair_bps == fair_bps.min()
        fixed = open_flows & (full[ups] | full[downs])
        rates_bps[fixed] = fair_bps.min()
        used = np.bincount(ups[fixed], minlength=len(links)) + np.bincount(downs[fixed], minlength=len(links))
        left_bps -= used * fair_bps.min()
        open_flows &= ~fixed
    return [float(rate) for rate in rates_bps]


def _even_share_bps(
    left_bps: NDArray[np.float64], ups: NDArray[np.int64], downs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What each link could give to each of its open flows; infinite where it has none."""
    count = np.bincount(ups, minlength=len(left_bps)) + np.bincount(downs, minlength=len(left_bps))
    shares_bps = np.full(len(left_bps), np.inf)
    np.divide(left_bps, count, out=shares_bps, where=count > 0)
    return shares_bps
