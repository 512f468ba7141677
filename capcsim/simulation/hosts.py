"""Who works where: parties, several on a machine if the scenario says so; guardian; a dealer for who needs one."""

from collections.abc import Iterator
from dataclasses import dataclass

from capcsim.backend import Role
from capcsim.scenario import Access, Scenario
from capcsim.simulation.engine.engine import Engine
from capcsim.simulation.log import Log
from capcsim.simulation.topology import Topology

HERE = "everywhere"
"""The site of a scenario without sites."""


@dataclass(frozen=True, slots=True)
class Host:
    """A participant, and the machine that it works on: its name, its kind and its site."""

    name: str
    machine: str
    kind: str = "party"
    site: str = HERE


@dataclass(frozen=True, slots=True)
class Hosts:
    """The parties by number, and the services by role."""

    parties: tuple[Host, ...]
    services: dict[Role, Host]

    @classmethod
    def of(cls, scenario: Scenario) -> "Hosts":
        """As a scenario places them; a dealer without a site of its own is beside the guardian."""
        guardian, dealer = scenario.guardian, scenario.dealer
        services = {
            role: Host(role, role, service.machine, service.site or guardian.site or HERE)
            for role, service in ((Role.GUARDIAN, guardian), (Role.DEALER, dealer))
        }
        return cls(tuple(_parties(scenario)), services)

    def at(self, querier: int, party: int | None = None) -> dict[Role, Host]:
        """Where each role runs when a querying party works with an answering party, or with the guardian alone."""
        found = {Role.QUERIER: self.parties[querier], **self.services}
        return found if party is None else {**found, Role.ANSWERER: self.parties[party]}

    def used(self, *, dealer: bool) -> list[Host]:
        """All that a run uses."""
        return [*self.parties, *(host for role, host in self.services.items() if dealer or role is not Role.DEALER)]


def _parties(scenario: Scenario) -> Iterator[Host]:
    groups = scenario.named_groups
    for member in scenario.members:
        group = groups[member.group]
        together = group.parties_per_machine
        prefix = f"{member.group} " if scenario.groups else ""
        machine = member.name if together == 1 else f"{prefix}machine {member.number // together}"
        yield Host(member.name, machine, group.machine, group.site or HERE)


def built(engine: Engine, log: Log, scenario: Scenario, hosts: Hosts) -> Topology:
    """The scenario's sites, machines and lines."""
    topology = Topology(engine, lambda a, b: scenario.latency_s(*(None if s == HERE else s for s in (a, b))))
    for name, site in scenario.sites.items():
        topology.add_site(name, site.up_bps, site.down_bps)
    if not scenario.sites:
        topology.add_site(HERE)
    pools: dict[str, int] = {}
    lines = {host.machine: scenario.network.party for host in hosts.parties}
    lines |= {host.machine: scenario.network.guardian for host in hosts.services.values()}
    for host in {host.machine: host for host in (*hosts.parties, *hosts.services.values())}.values():
        _add_machine(engine, log, scenario, topology, host, lines[host.machine], pools)
    return topology


def _add_machine(
    engine: Engine, log: Log, scenario: Scenario, topology: Topology, host: Host, line: Access, pools: dict[str, int]
) -> None:
    """A machine of its kind; `line` is what it has where its kind says nothing, `pools` those that have a name."""
    kind = scenario.machines.kinds[host.kind]
    if kind.cpu is None or kind.cpu not in pools:
        log.add_pool(kind.cores)
        pool = engine.pool(kind.cores)
        if kind.cpu is not None:
            pools[kind.cpu] = pool
    else:
        pool = pools[kind.cpu]
    speed = kind.speed * (1 - kind.background)
    topology.add_machine(
        host.machine, host.site, pool, speed, kind.up_bps or line.up_bps, kind.down_bps or line.down_bps
    )
