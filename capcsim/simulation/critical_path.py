"""The critical path: what the last label waited for, from its end back to the beginning, second by second.

Each row of the log knows what released it and what it queued behind. So each second belongs to one thing: the cores of
a machine, a line, the latency between two sites, or a reason of the world's own, such as that no query had come yet.
What is made faster shortens the path by its part of it, as long as no other path becomes the longest.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from capcsim.protocol.flow import Lane
from capcsim.simulation.engine.records import NONE
from capcsim.simulation.log import MESSAGE, ROLES, Log

Kind: TypeAlias = Literal["cores", "line", "latency", "waiting"]
Begun: TypeAlias = tuple[Lane, int, bool]
"""A lane's set-up (batch -1), or a batch of it: its pairs, or (True) its opening."""
START, QUERIES, DEADLINE, HOURS, STANDING = (
    "the rounds before",
    "queries that had not come",
    "the guardian's deadline",
    "hours of parties that were closed",
    "machines that stood still",
)


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A thing that takes time: a machine's cores, a line, the latency between two sites, or what was waited for."""

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Why graphs began at a time: the row that ended then; or NONE, and what was waited for, since when."""

    at_s: float
    row: int = NONE
    why: str = START
    since: Begun | None = None


@dataclass(frozen=True)
class Path:
    """What the walk needs: rows, why graphs began, whose a place is, and what links and latencies are called."""

    log: Log
    causes: Mapping[Begun, Cause]
    begun: Callable[[int, int], Begun]
    link: Callable[[int], str]
    latency: Callable[[str, str], str]

    def seconds(self, last_row: int) -> dict[Resource, float]:
        """By resource, the longest first; together they are the time at which the last row ended."""
        found: dict[Resource, float] = defaultdict(float)
        number, passed_only = last_row, False
        while number != NONE:
            row = self.log.row(number)
            self._spend(found, row, passed_only=passed_only)
            queued_s = float(row["start_s"] - row["ready_s"])
            if queued_s > 0 and row["waited"] != NONE:
                # What it queued behind held a core, or a connection, up to then: not while it was on its way.
                number, passed_only = int(row["waited"]), True
                continue
            if queued_s > 0:
                found[Resource("waiting", STANDING)] += queued_s
            number, passed_only = int(row["by"]), False
            if number == NONE:
                number = self._before(found, self.begun(int(row["place"]), int(row["batch"])), float(row["ready_s"]))
        return dict(sorted(((resource, s) for resource, s in found.items() if s > 0), key=lambda item: -item[1]))

    def _spend(self, found: dict[Resource, float], row: Any, *, passed_only: bool) -> None:
        """What a row took, from its start to its end, or to when its last bit had passed."""
        node, location = self.log.node(row), self.log.locations[int(row["place"])]
        sender = location.machines[ROLES[int(node["role"])]]
        took_s, busy_s = float(row["end_s"] - row["start_s"]), float(row["busy_s"])
        if node["kind"] != MESSAGE:
            found[Resource("cores", sender)] += took_s
            return
        if busy_s > 0:
            held = "a connection's window" if row["link"] == NONE else self.link(int(row["link"]))
            found[Resource("line", held)] += busy_s
        if not passed_only and took_s > busy_s:
            receiver = location.machines[ROLES[int(node["to"])]]
            found[Resource("latency", self.latency(sender, receiver))] += took_s - busy_s

    def _before(self, found: dict[Resource, float], begun: Begun, at_s: float) -> int:
        """The row that came before graphs that began at a time, or later; what was waited for is counted."""
        while True:
            cause = self.causes[begun]
            if at_s > cause.at_s:
                found[Resource("waiting", HOURS)] += at_s - cause.at_s
            if cause.row != NONE:
                return cause.row
            if cause.since is None:
                found[Resource("waiting", cause.why)] += cause.at_s
                return NONE
            begun, since_s = cause.since, self.causes[cause.since].at_s
            found[Resource("waiting", cause.why)] += cause.at_s - since_s
            at_s = since_s
