"""What stands where: machines with their cores and access lines, in sites with a backbone, and latencies between sites.

A message between two machines passes the sender's access line up and the receiver's down, and between two sites also
the backbone of the one up and of the other down; whoever is on them shares them max-min fairly. On one machine it is
there at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from capcsim.backend import Role
from capcsim.simulation.engine.engine import Engine

ROLE_NUMBERS = {role: number for number, role in enumerate(Role)}
Latency: TypeAlias = Callable[[str, str], float]
"""One way, in seconds, from one site to another, or within one."""


@dataclass(frozen=True, slots=True)
class Line:
    """Both directions of a line, each a link's number, or None where it holds nobody up."""

    up: int | None
    down: int | None

    def ways(self) -> list[tuple[str, int]]:
        """Those that hold somebody up, by name."""
        return [(way, link) for way, link in (("up", self.up), ("down", self.down)) if link is not None]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's number in the engine, its pool of cores, its site, and its access line."""

    number: int
    pool: int
    site: str
    access: Line


class Topology:
    """Sites and machines by name; `place` connects what works together."""

    def __init__(self, engine: Engine, latency_s: Latency) -> None:
        self.machines: dict[str, Machine] = {}
        self.sites: dict[str, Line] = {}
        self._engine, self._latency_s = engine, latency_s

    def add_site(self, name: str, up_bps: float | None = None, down_bps: float | None = None) -> None:
        """A site and its backbone, each direction with a capacity in bits/s, or None: unlimited."""
        self.sites[name] = self._line(up_bps, down_bps)

    def add_machine(
        self, name: str, site: str, pool: int, speed: float, up_bps: float | None, down_bps: float | None
    ) -> None:
        """A machine on a pool of cores, which others may share."""
        number = self._engine.machine(pool, speed)
        self.machines[name] = Machine(number, pool, site, self._line(up_bps, down_bps))

    def place(self, session: int, pair: int, machines: Mapping[Role, str]) -> int:
        """Where a pair of a session runs: its roles' machines, by name. Nothing is connected yet."""
        return self._engine.place(
            session, pair, {ROLE_NUMBERS[a]: self.machines[m].number for a, m in machines.items()}
        )

    def connect(self, place: int, machines: Mapping[Role, str], direction: tuple[Role, Role]) -> None:
        """Let a role send to another at a place, over a connection of its own if they are on two machines."""
        sender, receiver = (self.machines[machines[role]] for role in direction)
        if sender is not receiver:
            latency_s = self._latency_s(sender.site, receiver.site)
            connection = self._engine.connection(self.route(sender, receiver), latency_s)
            self._engine.connect(place, ROLE_NUMBERS[direction[0]], ROLE_NUMBERS[direction[1]], connection)

    def route(self, sender: Machine, receiver: Machine) -> list[int]:
        """The links that a message passes."""
        lines = [sender.access.up]
        if sender.site != receiver.site:
            lines += [self.sites[sender.site].up, self.sites[receiver.site].down]
        return [link for link in [*lines, receiver.access.down] if link is not None]

    def _line(self, up_bps: float | None, down_bps: float | None) -> Line:
        up, down = (None if bps is None else self._engine.link(bps) for bps in (up_bps, down_bps))
        return Line(up, down)

    # -- what they have done -------------------------------------------------------------------------------------------

    def busy_s(self, name: str) -> list[float]:
        """How long each core of a machine's pool has worked, up to the highest that was ever needed."""
        pool = self._engine.state.pools[self.machines[name].pool]
        worked_s = self._engine.state.cores["busy_s"][pool["core"] : pool["core"] + pool["cores"]]
        highest = max(np.flatnonzero(worked_s), default=0)
        return [float(each) for each in worked_s[: highest + 1]]

    def link_names(self) -> dict[int, str]:
        """What links are called."""
        lines = {name: machine.access for name, machine in self.machines.items()}
        lines |= {f"{name} backbone": line for name, line in self.sites.items()}
        ways = ((f"{name} {way}", link) for name, line in lines.items() for way, link in line.ways())
        return {link: name for name, link in ways}

    def latency_name(self, sender: str, receiver: str) -> str:
        """What the latency between two machines is called."""
        a, b = (self.machines[name].site for name in (sender, receiver))
        return f"within {a}" if a == b else f"{a} to {b}"

    def utilisation(self, name: str, span_s: float) -> dict[str, float]:
        """Of both directions of a machine's access line: the share of a time that it has carried at full rate."""
        links = self._engine.state.links
        ways = self.machines[name].access.ways()
        return {way: float(links[link]["bits"] / (links[link]["bps"] * span_s)) for way, link in ways}
