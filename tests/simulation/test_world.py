"""Whole collaborations over hand-made transcripts, so that every time has a closed form."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.backend import (
    VOTE_RING_BITS,
    Compute,
    Message,
    Phase,
    Prepared,
    PublicModel,
    Role,
    Scope,
    Step,
    Transcript,
)
from capcsim.crypto.shares import share
from capcsim.journal import Journal
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import GNMax
from capcsim.protocol import Collaboration, SimulatedNoise, Voter
from capcsim.scenario import Scenario
from capcsim.seeds import Seeds
from capcsim.simulation.world import Simulated, World, batches

CLASSES = 3
INFER_S, ARGMAX_S, SUBMIT_S, COUNT_S, RELEASE_S, SETUP_S, ENCODE_S = 1.0, 0.5, 0.25, 0.125, 2.0, 4.0, 8.0
Simulate = Callable[..., Simulated]


class FixedCosts:
    """The same durations for everybody, and no bytes: times are sums of the constants above and latencies."""

    def setup(self, querier: int, voter: Voter | None) -> Transcript:
        return (Compute(Role.QUERIER, SETUP_S, Step.SETUP, Phase.SETUP, Scope.QUERIER, ()),)

    def pair(self, step: Step, querier: int, batch: int, voter: Voter) -> Transcript:
        seconds = {Step.INFER: INFER_S, Step.ARGMAX: ARGMAX_S, Step.AGGREGATE: SUBMIT_S}[step]
        work = Compute(Role.ANSWERER, seconds, step, Phase.ONLINE, Scope.PAIR, ())
        if step is not Step.INFER:
            return (work,)
        encode = Compute(Role.QUERIER, ENCODE_S, step, Phase.ONLINE, Scope.QUERY, ())
        sent = Message(Role.QUERIER, Role.ANSWERER, 0, step, Phase.ONLINE, Scope.PAIR, (0,))
        return (encode, sent, Compute(Role.ANSWERER, seconds, step, Phase.ONLINE, Scope.PAIR, (1,)))

    def count(self, querier: int, batch: int) -> Transcript:
        return (Compute(Role.GUARDIAN, COUNT_S, Step.AGGREGATE, Phase.ONLINE, Scope.PAIR, ()),)

    def release(self, querier: int, batch: int) -> Transcript:
        return (Compute(Role.GUARDIAN, RELEASE_S, Step.RELEASE, Phase.ONLINE, Scope.PAIR, ()),)

    def group(self, voter: Voter) -> str:
        return "one"


ONE_BATCH_S = ENCODE_S + INFER_S + ARGMAX_S + SUBMIT_S + COUNT_S + RELEASE_S


@pytest.fixture
def simulate(tmp_path: Path, scenario: Callable[..., Scenario]) -> Iterator[Simulate]:
    with ExitStack() as stack:
        runs = iter(range(99))

        def run(changes: dict[str, Any] | None = None, queries: list[int] | None = None) -> Simulated:
            wanted = scenario({"network.latency_s": 0.0, **(changes or {})})
            queries = queries or [3] * wanted.parties.queriers
            prepared = Prepared(PublicModel((), (1,), CLASSES, 37, 24), None)
            virtual = wanted.parties.virtual_per_party
            voters = [Voter(i, i // virtual, prepared) for i in range(wanted.voters)]
            votes = np.eye(CLASSES, dtype=np.int64)[np.ones((len(voters), max(queries)), np.int64)]
            accountant = Accountant(GNMax(7.0), 1e-5)
            number = next(runs)
            ledger = Ledger(tmp_path / f"l{number}", accountant, wanted.privacy.epsilon, BudgetScope.QUERIER)
            stack.enter_context(closing(ledger))
            collaboration = Collaboration(
                voters,
                [share(votes, VOTE_RING_BITS) for _ in queries],
                ledger=ledger,
                noise=SimulatedNoise(GNMax(7.0), Seeds(0)),
                releases=stack.enter_context(Journal(tmp_path / f"r{number}")),
            )
            return World(wanted, collaboration, FixedCosts(), queries, Seeds(0)).run()

        yield run


def latencies(found: Simulated, querier: int = 0) -> list[float]:
    return [row.labelled_s - row.submitted_s for row in found.queries if row.querier == querier]


ONE_QUERIER = {"parties.queriers": 1, "queries.batch": 3}


@pytest.mark.parametrize("parties", [2, 8, 30])
def test_a_label_takes_the_same_time_however_many_parties_answer(simulate: Simulate, parties: int) -> None:
    found = simulate({**ONE_QUERIER, "parties.count": parties, "machines.guardian.cores": 64})
    assert latencies(found) == pytest.approx([ONE_BATCH_S] * 3)
    assert found.makespan_s == pytest.approx(SETUP_S + ONE_BATCH_S)


@pytest.mark.parametrize(("together", "cores"), [(4, 2), (4, 1), (8, 16)])
def test_parties_that_share_a_machine_share_its_cores(simulate: Simulate, together: int, cores: int) -> None:
    changes = {"machines.parties_per_machine": together, "machines.party.cores": cores}
    found = simulate({**ONE_QUERIER, **changes, "machines.guardian.cores": 64})
    busiest = together if together < 8 else together - 1  # the querying party itself does not answer
    rounds = -(-busiest // cores)
    waves = ENCODE_S + rounds * (INFER_S + ARGMAX_S + SUBMIT_S) + COUNT_S + RELEASE_S
    assert latencies(found)[0] == pytest.approx(waves)


def test_virtual_parties_share_their_owners_machine(simulate: Simulate) -> None:
    changes = {"parties.virtual_per_party": 3, "machines.party.cores": 1, "machines.guardian.cores": 64}
    found = simulate({**ONE_QUERIER, **changes})
    assert len(found.queries[0].counted) == 7 * 3
    assert all(voter >= 3 for voter in found.queries[0].counted), "its own virtual parties answered"
    assert latencies(found)[0] == pytest.approx(ENCODE_S + 3 * (INFER_S + ARGMAX_S + SUBMIT_S) + COUNT_S + RELEASE_S)


def test_batches_go_one_after_another_or_together(simulate: Simulate) -> None:
    changes = {"parties.queriers": 1, "queries.batch": 1, "machines.party.cores": 8, "machines.guardian.cores": 64}
    one = simulate({**changes, "queries.in_flight": 1}, queries=[4])
    all_at_once = simulate({**changes, "queries.in_flight": 4}, queries=[4])
    assert one.makespan_s == pytest.approx(SETUP_S + 4 * ONE_BATCH_S)
    assert all_at_once.makespan_s == pytest.approx(SETUP_S + ONE_BATCH_S)


def test_the_guardians_cores_are_contended(simulate: Simulate) -> None:
    changes = {"parties.queriers": 4, "queries.batch": 3, "machines.party.cores": 64}
    few = simulate({**changes, "machines.guardian.cores": 2})
    many = simulate({**changes, "machines.guardian.cores": 4})
    assert few.makespan_s == pytest.approx(many.makespan_s + COUNT_S + RELEASE_S)


def test_work_of_the_querier_runs_once_a_batch_and_its_set_up_once(simulate: Simulate) -> None:
    found = simulate({**ONE_QUERIER, "queries.batch": 1}, queries=[3])
    own = [row.step for row in found.log.compute if row.host == "party 0"]
    assert own.count(Step.INFER) == 3
    assert own.count(Step.SETUP) == 1


def test_utilisation_and_core_time_add_up(simulate: Simulate) -> None:
    found = simulate(ONE_QUERIER)
    worked_s = sum(row.end_s - row.start_s for row in found.log.compute)
    assert found.core_s == pytest.approx(worked_s)
    assert sum(found.core_utilisation.values()) * found.makespan_s == pytest.approx(worked_s)
    assert all(0 <= use <= 1 + 1e-9 for use in found.core_utilisation.values())


FAULTY = {**ONE_QUERIER, "faults.drop_probability": 0.4, "protocol.deadline_s": 40.0, "protocol.quorum": 0.1}


def test_the_guardian_waits_for_silent_parties_until_its_time_is_up(simulate: Simulate) -> None:
    found = simulate(FAULTY)
    assert 0 < len(found.queries[0].counted) < 7
    assert latencies(found)[0] == pytest.approx(40.0 + COUNT_S + RELEASE_S)


def test_a_slow_party_is_not_counted(simulate: Simulate) -> None:
    # One core for eight parties: they hand in one after another, and the deadline falls in between.
    changes = {"machines.parties_per_machine": 8, "machines.party.cores": 1, "protocol.quorum": 0.1}
    everybody_s = ENCODE_S + 7 * (INFER_S + ARGMAX_S + SUBMIT_S)
    found = simulate({**ONE_QUERIER, **changes, "protocol.deadline_s": everybody_s - 1.5 * SUBMIT_S})
    assert len(found.queries[0].counted) == 5


def test_without_a_quorum_nothing_is_released_and_nothing_charged(simulate: Simulate) -> None:
    found = simulate({**FAULTY, "protocol.quorum": 1.0})
    assert [row.label for row in found.queries] == [-1, -1, -1]
    assert "of 7 votes had arrived after 40 s: no quorum" in found.queries[0].why
    assert found.bought(0)[0].tolist() == []


def test_the_budget_ends_the_questions(simulate: Simulate) -> None:
    changes = {"parties.queriers": 1, "queries.batch": 2, "queries.in_flight": 1, "privacy.epsilon": 1.4}
    found = simulate(changes, queries=[9])  # three labels are affordable
    assert [row.label >= 0 for row in found.queries] == [True, True, True, False]
    assert "label 4 would take epsilon" in found.stopped[0]


@pytest.mark.parametrize(("queries", "size", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (0, 3, []), (2, 5, [2])])
def test_the_last_batch_may_be_smaller(queries: int, size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in batches(queries, size)] == sizes
