"""Who works where: parties, several on a machine if the scenario says so; guardian; a dealer for who needs one."""

from collections.abc import Iterator
from dataclasses import dataclass

from capcsim.backend import Role
from capcsim.scenario import Access, Scenario
from capcsim.scenario import Machine as MachineSize
from capcsim.simulation.engine.engine import Engine
from capcsim.simulation.log import Log
from capcsim.simulation.topology import Topology

HERE = "everywhere"
"""The one site."""


@dataclass(frozen=True, slots=True)
class Host:
    """A participant, and the machine that it works on, by name."""

    name: str
    machine: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """The parties by number, and the services by role."""

    parties: tuple[Host, ...]
    services: dict[Role, Host]

    @classmethod
    def of(cls, scenario: Scenario) -> "Hosts":
        """As a scenario places them."""
        services = {role: Host(role, role) for role in (Role.GUARDIAN, Role.DEALER)}
        return cls(tuple(_parties(scenario)), services)

    def at(self, querier: int, party: int | None = None) -> dict[Role, Host]:
        """Where each role runs when a querying party works with an answering party, or with the guardian alone."""
        found = {Role.QUERIER: self.parties[querier], **self.services}
        return found if party is None else {**found, Role.ANSWERER: self.parties[party]}

    def used(self, *, dealer: bool) -> list[Host]:
        """All that a run uses."""
        return [*self.parties, *(host for role, host in self.services.items() if dealer or role is not Role.DEALER)]


def _parties(scenario: Scenario) -> Iterator[Host]:
    together = scenario.machines.parties_per_machine
    for party in range(scenario.parties.count):
        name = f"party {party}"
        yield Host(name, name if together == 1 else f"machine {party // together}")


def built(engine: Engine, log: Log, scenario: Scenario, hosts: Hosts) -> Topology:
    """The scenario's machines and lines."""
    machines, network = scenario.machines, scenario.network
    topology = Topology(engine, lambda _, __: network.latency_s)
    topology.add_site(HERE)

    def add(name: str, size: MachineSize, access: Access) -> None:
        log.add_pool(size.cores)
        topology.add_machine(name, HERE, engine.pool(size.cores), size.speed, access.up_bps, access.down_bps)

    for name in dict.fromkeys(host.machine for host in hosts.parties):
        add(name, machines.party, network.party)
    for host in hosts.services.values():
        add(host.machine, machines.guardian, network.guardian)
    return topology
