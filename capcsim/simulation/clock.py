"""Simulated time: SimPy's, which also passes in the engine.

What is irregular are SimPy's processes and events; between two of their instants the engine runs, up to its next
milestone.
"""

import simpy

from capcsim.simulation.engine.engine import Engine


class Clock(simpy.Environment):
    """An environment whose events may be latches of an engine that open."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self._awaited: dict[int, simpy.Event] = {}

    def opened(self, latch: int) -> simpy.Event:
        """The event that a latch opens; the engine must tell it."""
        return self._awaited.setdefault(latch, self.event())

    def forget(self, latch: int) -> None:
        """Nobody waits for a latch any more."""
        self._awaited.pop(latch, None)

    def step(self) -> None:
        """What comes first: milestones of the engine, or SimPy's next event.

        All that SimPy's events of one instant ask for is there before the engine goes on, so that it can begin it in
        its own order.
        """
        next_s = self.peek()
        if next_s > self._now:
            told = self.engine.run(next_s)
            if told:
                self._now = self.engine.now_s
                for latch in told:
                    if latch in self._awaited:
                        self._awaited.pop(latch).succeed()
                return
        super().step()

    def run_out(self) -> None:
        """Until no graph is under way any more, whatever else would happen later."""
        while self.engine.busy or self.peek() <= self._now:
            self.step()
