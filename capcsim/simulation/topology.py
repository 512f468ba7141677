"""What stands where: machines with their cores and access lines, in sites with a backbone, and latencies between sites.

A message between two machines passes the sender's access line up and the receiver's down, and between two sites also
the backbone of the one up and of the other down; whoever is on them shares them max-min fairly. On one machine it is
there at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

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
        """Where a pair of a session runs: connections of its own between its roles' machines."""
        at = {role: self.machines[name] for role, name in machines.items()}
        connections = {
            (ROLE_NUMBERS[a], ROLE_NUMBERS[b]): self._connection(at[a], at[b])
            for a in at
            for b in at
            if at[a] is not at[b]
        }
        return self._engine.place(
            session, pair, {ROLE_NUMBERS[a]: found.number for a, found in at.items()}, connections
        )

    def route(self, sender: Machine, receiver: Machine) -> list[int]:
        """The links that a message passes."""
        lines = [sender.access.up]
        if sender.site != receiver.site:
            lines += [self.sites[sender.site].up, self.sites[receiver.site].down]
        return [link for link in [*lines, receiver.access.down] if link is not None]

    def _connection(self, sender: Machine, receiver: Machine) -> int:
        return self._engine.connection(self.route(sender, receiver), self._latency_s(sender.site, receiver.site))

    def _line(self, up_bps: float | None, down_bps: float | None) -> Line:
        up, down = (None if bps is None else self._engine.link(bps) for bps in (up_bps, down_bps))
        return Line(up, down)
