"""Whole collaborations over hand-made transcripts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.backend import (
    VOTE_RING_BITS,
    Prepared,
    PublicModel,
)
from capcsim.crypto.shares import share
from capcsim.journal import Journal
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import GNMax
from capcsim.protocol.admission import Admission
from capcsim.protocol.aggregate import Aggregator
from capcsim.protocol.flow import GUARDIAN, Turn, flow
from capcsim.protocol.noise import SimulatedNoise
from capcsim.protocol.steps import Voter, answering
from capcsim.scenario import Scenario
from capcsim.seeds import Seeds
from capcsim.simulation.world import Simulated, World
from capcsim.study.simulated import rules_of
from tests.simulation.fixed_costs import CLASSES, FixedCosts, Simulate


@pytest.fixture
def simulate(tmp_path: Path, scenario: Callable[..., Scenario]) -> Iterator[Simulate]:
    with ExitStack() as stack:
        runs = iter(range(99))

        def run(
            changes: dict[str, Any] | None = None,
            queries: list[int] | None = None,
            then: list[int] | None = None,
            changed: tuple[int, ...] = (),
            costs: FixedCosts | None = None,
            coming: dict[int, list[float]] | None = None,
        ) -> Simulated:
            wanted = scenario({"network.latency_s": 0.0, **(changes or {})})
            queries = queries or [3] * wanted.parties.queriers
            prepared = Prepared(PublicModel((), (1,), CLASSES, 37, 24), None)
            virtual = wanted.parties.virtual_per_party
            voters = [Voter(i, i // virtual, prepared) for i in range(wanted.voters)]
            votes = np.eye(CLASSES, dtype=np.int64)[np.ones((len(voters), max(then or queries)), np.int64)]
            accountant = Accountant(GNMax(7.0), 1e-5)
            number = next(runs)
            ledger = Ledger(
                tmp_path / f"l{number}", accountant, wanted.privacy.epsilon, BudgetScope(wanted.privacy.budget_scope)
            )
            stack.enter_context(closing(ledger))
            releases = stack.enter_context(Journal(tmp_path / f"r{number}"))
            admission = Admission(ledger, lambda querier: set(range(wanted.parties.count)) - {querier})
            world, costs, first = World(wanted), costs or FixedCosts(), [0] * len(queries)
            for round_, until in enumerate(filter(None, (queries, then))):
                shares = [share(votes, VOTE_RING_BITS) for _ in queries]
                noise = SimulatedNoise(GNMax(7.0), Seeds(0))
                opener = Aggregator(voters, shares, ledger=ledger, noise=noise, releases=releases)
                lanes = wanted.queries.in_flight
                spans = [range(*span) for span in zip(first, until, strict=True)]
                turns = [turn(voters, q, span, round_ and changed, lanes) for q, span in enumerate(spans)]
                times_s = {querier: np.array(times) for querier, times in (coming or {}).items()}
                turns = [replace(each, open=each.querier in times_s) for each in turns]
                found = world.run(flow(turns, rules_of(wanted), admission, opener), voters, costs, coming=times_s)
                first = [sum(row.querier == q for row in found.queries) for q in range(len(queries))]
            return found

        yield run


def turn(voters: list[Voter], querier: int, queries: range, changed: tuple[int, ...] | int, lanes: int) -> Turn:
    """A querying party's part in a first round (0), or in a later one, in which these voters changed."""
    others = tuple(voter.index for voter in answering(voters, querier))
    partners = (GUARDIAN, *others) if changed == 0 else tuple(index for index in others if index in changed)
    return Turn(querier, queries, others, partners, lanes, -(-queries.start // 2) if changed != 0 else 0)
