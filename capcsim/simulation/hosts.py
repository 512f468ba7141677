"""Who computes where: parties, several on a machine if the scenario says so; guardian; a dealer for who needs one."""

from collections.abc import Iterator
from dataclasses import dataclass

import simpy

from capcsim.backend import Role
from capcsim.scenario import Access, Scenario
from capcsim.scenario import Machine as MachineSize
from capcsim.simulation.machines import Machine
from capcsim.simulation.network import Link
from capcsim.simulation.replay import Host


@dataclass(frozen=True, slots=True)
class Hosts:
    """The parties by number, and the services by role."""

    parties: tuple[Host, ...]
    services: dict[Role, Host]

    @classmethod
    def of(cls, env: simpy.Environment, scenario: Scenario) -> "Hosts":
        """As a scenario places them."""
        machines, network = scenario.machines, scenario.network
        services = {
            role: _on_one_machine(env, role, [role], machines.guardian, network.guardian)[0]
            for role in (Role.GUARDIAN, Role.DEALER)
        }
        return cls(tuple(_parties(env, scenario)), services)

    def at(self, querier: int, party: int | None = None) -> dict[Role, Host]:
        """Where each role runs when a querying party works with an answering party, or with the guardian alone."""
        found = {Role.QUERIER: self.parties[querier], **self.services}
        return found if party is None else {**found, Role.ANSWERER: self.parties[party]}

    def used(self, *, dealer: bool) -> list[Host]:
        """All that a run uses."""
        return [*self.parties, *(host for role, host in self.services.items() if dealer or role is not Role.DEALER)]


def _parties(env: simpy.Environment, scenario: Scenario) -> Iterator[Host]:
    together, count = scenario.machines.parties_per_machine, scenario.parties.count
    for first in range(0, count, together):
        names = [f"party {party}" for party in range(first, min(first + together, count))]
        label = names[0] if together == 1 else f"machine {first // together}"
        yield from _on_one_machine(env, label, names, scenario.machines.party, scenario.network.party)


def _on_one_machine(
    env: simpy.Environment, label: str, participants: list[str], size: MachineSize, access: Access
) -> list[Host]:
    """One machine with its access links, and the participants on it."""
    machine = Machine(env, label, size.cores, size.speed)
    up, down = Link(f"{label} up", access.up_bps), Link(f"{label} down", access.down_bps)
    return [Host(name, machine, up, down) for name in participants]
