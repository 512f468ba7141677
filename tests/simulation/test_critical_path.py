"""The critical path: worked out by hand, and always as long as the run."""

from typing import Any

import pytest

from capcsim.simulation.critical_path import DEADLINE, HOURS, QUERIES
from tests.simulation.fixed_costs import (
    ARGMAX_S,
    COUNT_S,
    ENCODE_S,
    INFER_S,
    ONE_BATCH_S,
    RELEASE_S,
    SETUP_S,
    SUBMIT_S,
    Simulate,
    ended_s,
)
from tests.simulation.test_coming import EVENINGS, ONE, H

ONE_QUERIER = {"parties.queriers": 1, "queries.batch": 3, "machines.guardian.cores": 64}


def seconds(found: Any) -> dict[str, float]:
    return {f"{resource.kind}: {resource.name}": taken for resource, taken in found.critical_s.items()}


def test_each_step_belongs_to_who_works(simulate: Simulate) -> None:
    found = seconds(simulate({**ONE_QUERIER, "parties.count": 2, "network.latency_s": 0.5}))
    assert found == {
        # Set-up and one query.
        "cores: party 0": pytest.approx(SETUP_S + ENCODE_S),
        "cores: guardian": pytest.approx(SUBMIT_S + COUNT_S + RELEASE_S),
        "cores: party 1": pytest.approx(INFER_S + ARGMAX_S),
        # Query there, votes back to the querying party beside the share's way to the guardian, the label.
        "latency: within everywhere": pytest.approx(3 * 0.5),
    }


def test_it_goes_back_from_batch_to_batch(simulate: Simulate) -> None:
    found = simulate({**ONE_QUERIER, "parties.count": 4}, queries=[9])
    assert sum(found.critical_s.values()) == pytest.approx(SETUP_S + 3 * ONE_BATCH_S) == ended_s(found)


def test_waiting_for_a_core_belongs_to_its_machine(simulate: Simulate) -> None:
    busy = {**ONE_QUERIER, "machines.parties_per_machine": 8, "machines.party.cores": 1}
    found = simulate(busy)
    took = seconds(found)
    # On one core: keys for voters and for the guardian, then seven answers, one after another.
    assert took["cores: machine 0"] == pytest.approx(2 * SETUP_S + ENCODE_S + 7 * (INFER_S + ARGMAX_S))
    assert sum(took.values()) == pytest.approx(ended_s(found))


def test_time_without_a_query_is_no_machines(simulate: Simulate) -> None:
    found = simulate(ONE, coming={0: [100.0, 300.0, 500.0]})
    assert seconds(found)[f"waiting: {QUERIES}"] == 500.0
    assert sum(found.critical_s.values()) == pytest.approx(500.0 + ONE_BATCH_S)


def test_closed_hours_are_waited_for(simulate: Simulate) -> None:
    found = simulate(EVENINGS, queries=[1], coming={0: [23 * H]})
    took = seconds(found)
    assert took[f"waiting: {QUERIES}"] == 23 * H
    assert took[f"waiting: {HOURS}"] == pytest.approx(19 * H)
    assert sum(took.values()) == pytest.approx(ended_s(found))


def test_a_deadline_is_waited_for_where_somebody_is_gone(simulate: Simulate) -> None:
    gone = {**ONE_QUERIER, "protocol.deadline_s": 60.0, "protocol.quorum": 0.1, "faults.drop_probability": 0.5}
    found = simulate(gone)
    took = seconds(found)
    assert took[f"waiting: {DEADLINE}"] == 60.0
    assert took["cores: party 0"] == SETUP_S
    assert sum(took.values()) == pytest.approx(SETUP_S + 60.0 + COUNT_S + RELEASE_S)


@pytest.mark.parametrize(
    "changes",
    [
        {"queries.in_flight": 2},
        {"parties.queriers": 3},
        {"parties.virtual_per_party": 2, "network.latency_s": 0.3},
        {"machines.guardian.cores": 1},
        {"parties.queriers": 3, "machines.parties_per_machine": 3, "machines.party.cores": 1},
    ],
)
def test_it_is_as_long_as_the_last_label_took(simulate: Simulate, changes: dict[str, Any]) -> None:
    found = simulate(changes, queries=[7] * changes.get("parties.queriers", 2))
    assert sum(found.critical_s.values()) == pytest.approx(ended_s(found), rel=1e-9)


def test_of_no_label_there_is_none(simulate: Simulate) -> None:
    nobody = {"faults.decline_probability": 0.999, "parties.count": 2, "parties.queriers": 1}
    assert simulate(nobody).critical_s == {}
