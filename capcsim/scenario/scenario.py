"""The whole scenario, and the checks that concern more than one of its sections."""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, model_validator

from capcsim.errors import ScenarioError
from capcsim.scenario.base import Section
from capcsim.scenario.data import AnyData
from capcsim.scenario.errors import together
from capcsim.scenario.faults import Faults
from capcsim.scenario.machines import Machines
from capcsim.scenario.models import Models
from capcsim.scenario.network import Network
from capcsim.scenario.parties import Parties
from capcsim.scenario.prices import Prices
from capcsim.scenario.privacy import AnyPrivacy
from capcsim.scenario.protocol import Protocol
from capcsim.scenario.queries import Queries


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
    faults: Faults = Faults()
    prices: Prices = Prices()

    _changed: tuple[str, ...] = PrivateAttr(())

    def with_changes(self, changed: tuple[str, ...]) -> Self:
        """The same scenario, remembering in what it differs from its file, a change an item."""
        marked = self.model_copy()
        marked._changed = changed
        return marked

    @property
    def title_as_run(self) -> str:
        """The title on one line, with what was changed since it was written."""
        title = " ".join("".join(sign if sign.isprintable() else " " for sign in self.title).split())
        return f"{title} (changed: {', '.join(self._changed)})" if self._changed else title

    @property
    def voters(self) -> int:
        """Models that exist, virtual ones included."""
        return self.parties.count * self.parties.virtual_per_party

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Combinations that cannot be run, all of them in one ScenarioError."""
        checks = (self.data.problems(), _check_parties(self), _check_privacy(self), _check_protocol(self))
        problems = list(chain(*checks))
        if problems:
            raise together(problems)
        return self


def _check_parties(scenario: Scenario) -> Iterator[ScenarioError]:
    parties, data = scenario.parties, scenario.data
    if parties.queriers > parties.count:
        yield ScenarioError("parties.queriers", parties.queriers, f"at most parties.count = {parties.count}")
    if data.train_per_party is not None and parties.virtual_per_party > data.train_per_party:
        allowed = f"at most data.train_per_party = {data.train_per_party}, one sample a shard"
        yield ScenarioError("parties.virtual_per_party", parties.virtual_per_party, allowed)
    if scenario.queries.per_querier > data.pool_per_querier:
        allowed = f"at most data.pool_per_querier = {data.pool_per_querier}"
        yield ScenarioError("queries.per_querier", scenario.queries.per_querier, allowed)
    if scenario.queries.rounds > scenario.queries.per_querier:
        allowed = f"at most queries.per_querier = {scenario.queries.per_querier}, one query a round"
        yield ScenarioError("queries.rounds", scenario.queries.rounds, allowed)


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
