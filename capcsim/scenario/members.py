"""Who takes part, one by one: the members of groups, in the order in which they are numbered as parties."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

from capcsim.scenario.groups import Group
from capcsim.scenario.latencies import PRESETS
from capcsim.scenario.network import Network
from capcsim.scenario.sites import Site

ONE_GROUP = "parties"
"""What the group is called where a scenario names none."""


@dataclass(frozen=True, slots=True)
class Member:
    """A party: number `number` of a group."""

    group: str
    number: int

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{'party' if self.group == ONE_GROUP else self.group} {self.number}"


def members(groups: Mapping[str, Group]) -> tuple[Member, ...]:
    """All parties: first those that ask, group by group, then the others, so that querying party q is party q."""
    asking = [Member(name, number) for name, group in groups.items() for number in range(group.queriers)]
    others = [Member(name, n) for name, group in groups.items() for n in range(group.queriers, group.count)]
    return (*asking, *others)


def latency_s(network: Network, sites: Mapping[str, Site], a: str | None, b: str | None) -> float:
    """One way, from a site to another or within one; infinite where nothing says it."""
    return next((found for found in _latencies_s(network, sites, a, b) if found is not None), inf)


def _latencies_s(network: Network, sites: Mapping[str, Site], a: str | None, b: str | None) -> Iterator[float | None]:
    """What says it, from the most to the least precise."""
    if a is not None and b is not None:
        yield network.latency_between_s.get(a, {}).get(b)
        yield network.latency_between_s.get(b, {}).get(a)
        first, second = sites[a].place, sites[b].place
        if a != b and network.latency_preset and first and second and first != second:
            yield PRESETS[network.latency_preset].one_way_s(first, second)
    if a == b or (a is not None and b is not None and sites[a].place is not None and sites[a].place == sites[b].place):
        yield network.latency_within_s
    yield network.latency_s
