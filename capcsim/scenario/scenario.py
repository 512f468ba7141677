"""The whole scenario, and the checks that concern more than one of its sections."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from math import isinf
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, model_validator

from capcsim.errors import ScenarioError
from capcsim.scenario.base import MILLION, Name, Section
from capcsim.scenario.calendar import Calendar
from capcsim.scenario.data import AnyData, NoData
from capcsim.scenario.errors import together
from capcsim.scenario.faults import Faults
from capcsim.scenario.groups import Group
from capcsim.scenario.machines import Machines
from capcsim.scenario.members import ONE_GROUP, Member, latency_s, members
from capcsim.scenario.models import Models
from capcsim.scenario.network import Network
from capcsim.scenario.parties import Parties
from capcsim.scenario.prices import Prices
from capcsim.scenario.privacy import AnyPrivacy
from capcsim.scenario.protocol import Protocol
from capcsim.scenario.queries import Queries
from capcsim.scenario.services import Service
from capcsim.scenario.sites import Site
from capcsim.scenario.workload import AnyWorkload, AtOnce, Workload, is_open


class Scenario(Section):
    """One experiment, complete."""

    title: str
    seed: Annotated[int, Field(ge=0, lt=1 << 63, strict=True)] = 0
    data: AnyData
    parties: Parties
    models: Models = Models()
    queries: Queries
    privacy: AnyPrivacy
    protocol: Protocol = Protocol()
    network: Network
    machines: Machines
    calendar: Calendar = Calendar()
    workload: AnyWorkload = AtOnce()
    sites: dict[Name, Site] = Field(default_factory=dict)
    groups: dict[Name, Group] = Field(default_factory=dict)
    guardian: Service = Service()
    dealer: Service = Service()
    faults: Faults = Faults()
    prices: Prices = Prices()

    _changed: tuple[str, ...] = PrivateAttr(())

    def with_changes(self, changed: tuple[str, ...]) -> Self:
        """The same scenario, remembering in what it differs from its file, a change an item."""
        marked = self.model_copy()
        marked._changed = changed
        return marked

    def on_network(self, network: Network) -> Self:
        """The same with these lines and latencies everywhere; its own network has those of sites and machines too."""
        if network == self.network:
            return self
        no_line: dict[str, None] = dict.fromkeys(("up_bps", "down_bps"))
        kinds = {name: kind.model_copy(update=no_line) for name, kind in self.machines.kinds.items()}
        machines = Machines(**kinds, parties_per_machine=self.machines.parties_per_machine)
        # Only the lines are others: hours still follow each site's clock.
        sites = {name: site.model_copy(update=no_line) for name, site in self.sites.items()}
        return self.model_copy(update={"network": network, "machines": machines, "sites": sites})

    @property
    def title_as_run(self) -> str:
        """The title on one line, with what was changed since it was written."""
        title = " ".join("".join(sign if sign.isprintable() else " " for sign in self.title).split())
        return f"{title} (changed: {', '.join(self._changed)})" if self._changed else title

    @property
    def named_groups(self) -> dict[str, Group]:
        """The groups, or all parties as one where the scenario names none."""
        if self.groups:
            return dict(self.groups)
        one = Group(
            count=self.parties.count,
            queriers=self.parties.queriers,
            parties_per_machine=self.machines.parties_per_machine,
        )
        return {ONE_GROUP: one}

    @property
    def members(self) -> tuple[Member, ...]:
        """The parties by number; those that ask come first."""
        return members(self.named_groups)

    def group_of(self, party: int) -> Group:
        """The group of a party."""
        return self.named_groups[self.members[party].group]

    def wanted(self, querier: int) -> int:
        """Labels that a querying party wants."""
        return self.group_of(querier).per_querier or self.queries.per_querier

    def workload_of(self, querier: int) -> Workload:
        """When a querying party's queries come."""
        return self.group_of(querier).workload or self.workload

    def latency_s(self, a: str | None, b: str | None) -> float:
        """One way, from a machine of a site to one of another or of the same; None is the one place without sites."""
        return latency_s(self.network, self.sites, a, b)

    @property
    def voters(self) -> int:
        """Models that exist, virtual ones included."""
        return self.parties.count * self.parties.virtual_per_party

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, found: Any) -> Any:
        """Groups say how many parties there are, and how many ask."""
        groups = found.get("groups") if isinstance(found, Mapping) else None
        if not groups or not isinstance(groups, Mapping):
            return found
        parties = found.get("parties") or {}
        sums = {name: _sum(groups.values(), name) for name in ("count", "queriers")}
        return {**found, "parties": {**sums, **parties}} if isinstance(parties, Mapping) else found

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Combinations that cannot be run, all of them in one ScenarioError."""
        checks = (
            self.data.problems(),
            _check_parties(self),
            _check_privacy(self),
            _check_protocol(self),
            _check_places(self),
            _check_workload(self),
        )
        problems = list(chain(*checks))
        if problems:
            raise together(problems)
        return self


def _check_parties(scenario: Scenario) -> Iterator[ScenarioError]:
    parties, data = scenario.parties, scenario.data
    for name in ("count", "queriers") if scenario.groups else ():
        together = sum(getattr(group, name) for group in scenario.groups.values())
        if name == "queriers" and together == 0:
            key = f"groups.{next(iter(scenario.groups))}.queriers"
            yield ScenarioError(key, 0, "at least 1 in one of the groups, as somebody must ask")
        elif getattr(parties, name) != together:
            yield ScenarioError(f"parties.{name}", getattr(parties, name), f"nothing: the groups have {together}")
    if parties.queriers > parties.count:
        yield ScenarioError("parties.queriers", parties.queriers, f"at most parties.count = {parties.count}")
    if isinstance(data, NoData):
        yield from _check_without_data(scenario)
        return
    if data.train_per_party is not None and parties.virtual_per_party > data.train_per_party:
        allowed = f"at most data.train_per_party = {data.train_per_party}, one sample a shard"
        yield ScenarioError("parties.virtual_per_party", parties.virtual_per_party, allowed)
    own = {f"groups.{name}.per_querier": group.per_querier for name, group in scenario.groups.items()}
    for key, wanted in {"queries.per_querier": scenario.queries.per_querier, **own}.items():
        if wanted is not None and wanted > data.pool_per_querier:
            yield ScenarioError(key, wanted, f"at most data.pool_per_querier = {data.pool_per_querier}")
        if wanted is not None and scenario.queries.rounds > wanted:
            yield ScenarioError(
                "queries.rounds", scenario.queries.rounds, f"at most {key} = {wanted}, one query a round"
            )


def _check_without_data(scenario: Scenario) -> Iterator[ScenarioError]:
    """What needs data."""
    without = "where data.source = 'none'"
    if scenario.queries.rounds > 1:
        yield ScenarioError(
            "queries.rounds", scenario.queries.rounds, f"1 {without}: nothing is learned between rounds"
        )
    if scenario.queries.selection != "random":
        yield ScenarioError("queries.selection", scenario.queries.selection, f"'random' {without}")
    if scenario.models.baselines:
        yield ScenarioError(
            "models.baselines", list(scenario.models.baselines), f"none {without}: they learn from data"
        )
    if scenario.privacy.noise != "simulation":
        allowed = f"'simulation' {without}: nobody's votes are protected, and no book is charged for them"
        yield ScenarioError("privacy.noise", scenario.privacy.noise, allowed)


def _sum(groups: Iterable[Any], key: str) -> int:
    """What groups have together; what is no number in them is told otherwise."""
    found = [group.get(key, 0) if isinstance(group, Mapping) else getattr(group, key, None) for group in groups]
    numbers = [each for each in found if isinstance(each, int) and 0 <= each <= MILLION]
    return max(sum(numbers), 1 if len(numbers) == len(found) else 2)


def _check_places(scenario: Scenario) -> Iterator[ScenarioError]:
    """Names that must be there, and latencies between all sites where somebody works."""
    working: dict[str, Group | Service] = {f"groups.{name}": group for name, group in scenario.groups.items()}
    working |= {"guardian": scenario.guardian, "dealer": scenario.dealer}
    kinds = scenario.machines.kinds
    for key, who in working.items():
        if who.machine not in kinds:
            yield ScenarioError(f"{key}.machine", who.machine, f"one of {', '.join(kinds)}, or machines.{who.machine}")
        if who.site is not None and who.site not in scenario.sites:
            known = ", ".join(scenario.sites) or "none"
            yield ScenarioError(f"{key}.site", who.site, f"a site; the scenario has {known}")
        if who.site is None and scenario.sites and key != "dealer":
            yield ScenarioError(f"{key}.site", None, f"one of {', '.join(scenario.sites)}, as there are sites")
    for name, group in scenario.groups.items():
        if group.queriers > group.count:
            yield ScenarioError(f"groups.{name}.queriers", group.queriers, f"at most its count = {group.count}")
    yield from _check_pools(scenario)
    yield from _check_latencies(scenario, {who.site for who in working.values() if who.site in scenario.sites})


def _check_workload(scenario: Scenario) -> Iterator[ScenarioError]:
    queries, kinds = scenario.queries, {"workload": scenario.workload}
    kinds |= {f"groups.{name}.workload": group.workload for name, group in scenario.groups.items() if group.workload}
    coming = {key: workload for key, workload in kinds.items() if is_open(workload)}
    if queries.rounds > 1 and coming:
        allowed = "1: in several rounds a querying party chooses its queries itself"
        yield ScenarioError("queries.rounds", queries.rounds, f"{allowed}, and {next(iter(coming))} lets them come")
    if scenario.protocol.execute == "all" and coming:
        allowed = (
            f"'sample': which queries travel together is not known beforehand, as {next(iter(coming))} lets them come"
        )
        yield ScenarioError("protocol.execute", "all", allowed)
    for key, value in (("wait_s", queries.wait_s), ("patience_s", queries.patience_s)):
        if value and not coming:
            yield ScenarioError(f"queries.{key}", value, "nothing, unless a workload lets queries come by themselves")


def _check_pools(scenario: Scenario) -> Iterator[ScenarioError]:
    """Machines that share a pool of cores agree on how many it has."""
    cores: dict[str, tuple[str, int]] = {}
    for name, machine in scenario.machines.kinds.items():
        if machine.cpu is not None:
            other, known = cores.setdefault(machine.cpu, (name, machine.cores))
            if machine.cores != known:
                allowed = f"{known}, as machines.{other} has, with which it shares the pool {machine.cpu}"
                yield ScenarioError(f"machines.{name}.cores", machine.cores, allowed)


def _check_latencies(scenario: Scenario, used: set[str | None]) -> Iterator[ScenarioError]:
    network = scenario.network
    places: list[str | None] = [*sorted(filter(None, used))] or [None]
    for name in {*network.latency_between_s, *chain(*network.latency_between_s.values())} - scenario.sites.keys():
        known = ", ".join(scenario.sites) or "none"
        yield ScenarioError(f"network.latency_between_s.{name}", name, f"a site; the scenario has {known}")
    lacking = [(a, b) for a in places for b in places if isinf(scenario.latency_s(a, b))]
    if not lacking:
        return
    a, b = lacking[0]
    if a is None:
        yield ScenarioError("network.latency_s", None, "seconds, one way, between any two machines")
    elif a == b:
        allowed = f"seconds, one way, between two machines of {a}; or network.latency_between_s.{a}.{a}"
        yield ScenarioError("network.latency_within_s", None, allowed)
    else:
        allowed = "seconds, one way; or network.latency_s for all, or network.latency_preset with sites.S.place"
        yield ScenarioError(f"network.latency_between_s.{a}.{b}", None, allowed)


def _check_privacy(scenario: Scenario) -> Iterator[ScenarioError]:
    privacy = scenario.privacy
    if privacy.corrupted_parties >= scenario.parties.count:
        allowed = f"fewer than parties.count = {scenario.parties.count}"
        yield ScenarioError("privacy.corrupted_parties", privacy.corrupted_parties, allowed)
    if privacy.book == "enforce" and privacy.noise != "real":
        allowed = "'record': seeded noise protects nobody, and no budget pays for it"
        yield ScenarioError("privacy.book", "enforce", allowed)
    retrained = scenario.queries.rounds > 1 and scenario.parties.virtual_per_party == 1
    if privacy.budget_scope == "querier" and retrained and scenario.parties.queriers > 1:
        allowed = (
            "'coalition' or 'party': in a later round querying parties answer with what others' labels taught them"
        )
        yield ScenarioError("privacy.budget_scope", privacy.budget_scope, allowed)
    room = (1 << 31) - privacy.reach
    if scenario.voters >= room:
        allowed = f"fewer than {room // scenario.parties.virtual_per_party}: votes and noise must fit a ring of 2^32"
        yield ScenarioError("parties.count", scenario.parties.count, allowed)


def _check_protocol(scenario: Scenario) -> Iterator[ScenarioError]:
    protocol = scenario.protocol
    if protocol.execute == "none":
        allowed = "'all' or 'sample'; running without any cryptography needs cost estimates, which do not exist yet"
        yield ScenarioError("protocol.execute", "none", allowed)
    if scenario.faults.drop_probability > 0 and protocol.deadline_s is None:
        allowed = "a number of seconds, because faults.drop_probability > 0 and the guardian must not wait for ever"
        yield ScenarioError("protocol.deadline_s", None, allowed)
    elif protocol.quorum < 1 and protocol.deadline_s is None:
        allowed = "a number of seconds, because protocol.quorum < 1 says what is enough when time is up"
        yield ScenarioError("protocol.deadline_s", None, allowed)
