"""What waits for the clock: queries that come by themselves, and parties that answer at their hours."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import simpy

from capcsim.backend import Role
from capcsim.protocol.flow import Arrived, Lapsed
from capcsim.protocol.steps import Voter
from capcsim.scenario import Queries, Scenario
from capcsim.simulation.arrivals import Times, windows
from capcsim.simulation.clock import Clock
from capcsim.simulation.windows import Windows


class Arrivals:
    """Queries arrive in batches as far as these fill in time, and lapse when patience ends."""

    def __init__(self, clock: Clock, queries: Queries) -> None:
        self._clock, self._queries = clock, queries

    def begin(self, querier: int, times_s: Times, inbox: simpy.Store) -> None:
        """Let a querying party's queries come, each at its time."""
        self._clock.process(self._arrive(querier, times_s, inbox))
        if self._queries.patience_s is not None:
            self._clock.process(self._lapse(querier, times_s + self._queries.patience_s, inbox))

    def _arrive(self, querier: int, times_s: Times, inbox: simpy.Store) -> Generator[simpy.Event, Any, None]:
        """One batch after another: when it is full, or when its first query has waited long enough."""
        first = 0
        while first < len(times_s):
            last = first + self._queries.batch - 1
            full_s = times_s[last] if last < len(times_s) else np.inf
            at_s = float(min(full_s, times_s[first] + self._queries.wait_s))
            yield self._clock.timeout(max(at_s - self._clock.now, 0.0))
            first = int(np.searchsorted(times_s, at_s, side="right"))
            inbox.put(Arrived(querier, first))

    def _lapse(self, querier: int, ends_s: Times, inbox: simpy.Store) -> Generator[simpy.Event, Any, None]:
        for number, at_s in enumerate(ends_s):
            yield self._clock.timeout(max(float(at_s) - self._clock.now, 0.0))
            inbox.put(Lapsed(querier, number + 1))


class Openings:
    """A pair whose answering party is closed begins when it opens; what has begun goes on."""

    def __init__(self, clock: Clock, scenario: Scenario) -> None:
        self._clock = clock
        self._windows: dict[int, Windows] = {}
        for party, member in enumerate(scenario.members):
            hours = scenario.named_groups[member.group].hours
            if hours is not None:
                self._windows[party] = windows(scenario, party, hours)
        self._begins: dict[float, Mapping[Role, int]] = {}

    def wait(self, voters: Sequence[Voter | None]) -> list[Mapping[Role, int]]:
        """For each pair, a latch that its roles wait for; none where it may begin now."""
        if not self._windows:
            return []
        return [{} if voter is None else self._latch(voter.party) for voter in voters]

    def _latch(self, party: int) -> Mapping[Role, int]:
        now_s = self._clock.now
        if party not in self._windows:
            return {}
        opens_s = self._windows[party].opens_s(now_s)
        if opens_s <= now_s:
            return {}
        if opens_s not in self._begins:
            latch = self._clock.engine.latches(1)
            self._clock.engine.set_latches(latch)
            self._begins[opens_s] = {Role.QUERIER: latch, Role.ANSWERER: latch}
            self._clock.process(self._open(opens_s, latch))
        return self._begins[opens_s]

    def _open(self, at_s: float, latch: int) -> Generator[simpy.Event, Any, None]:
        yield self._clock.timeout(at_s - self._clock.now)
        del self._begins[at_s]
        self._clock.engine.count_down(latch)
