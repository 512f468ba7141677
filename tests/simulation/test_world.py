"""Whole collaborations over hand-made transcripts, so that every time has a closed form."""

from collections import Counter

import pytest

from capcsim.backend import (
    Step,
)
from capcsim.errors import RecordError
from tests.simulation.fixed_costs import (
    ARGMAX_S,
    COUNT_S,
    ENCODE_S,
    INFER_S,
    ONE_BATCH_S,
    RELEASE_S,
    SETUP_S,
    SUBMIT_S,
    FixedCosts,
    NoShare,
    SetUpByPair,
    SilentQuerier,
    Simulate,
    Stranger,
    ended_s,
    latencies,
)
from tests.simulation.rows import rows

ONE_QUERIER = {"parties.queriers": 1, "queries.batch": 3}


@pytest.mark.parametrize("parties", [2, 8, 30])
def test_a_label_takes_the_same_time_however_many_parties_answer(simulate: Simulate, parties: int) -> None:
    found = simulate({**ONE_QUERIER, "parties.count": parties, "machines.guardian.cores": 64})
    assert latencies(found) == pytest.approx([ONE_BATCH_S] * 3)
    assert ended_s(found) == pytest.approx(SETUP_S + ONE_BATCH_S)


def test_a_querying_party_without_a_part_in_a_pair_waits_for_nothing_there(simulate: Simulate) -> None:
    found = simulate({**ONE_QUERIER, "machines.guardian.cores": 64}, costs=SilentQuerier())
    assert latencies(found) == pytest.approx([ONE_BATCH_S - ENCODE_S] * 3)
    assert [row.label for row in found.queries] == [1] * 3


@pytest.mark.parametrize(
    ("costs", "says"),
    [
        (NoShare(), "voter 1 hand the guardian no share; .*--measure"),
        (Stranger(), "step release has a node of the answerer; .*--measure"),
    ],
)
def test_transcripts_that_lack_a_part_are_named(simulate: Simulate, costs: FixedCosts, says: str) -> None:
    with pytest.raises(RecordError, match=says):
        simulate(ONE_QUERIER, costs=costs)


@pytest.mark.parametrize("latency_s", [0.25, 3.0])
def test_a_label_takes_three_one_way_latencies(simulate: Simulate, latency_s: float) -> None:
    """The query, the share to the guardian, the release. The querier's share and the counted set travel beside them."""
    found = simulate({**ONE_QUERIER, "machines.guardian.cores": 64, "network.latency_s": latency_s})
    assert latencies(found) == pytest.approx([ONE_BATCH_S + 3 * latency_s] * 3)


@pytest.mark.parametrize(("together", "cores"), [(4, 2), (4, 1), (8, 16)])
def test_parties_that_share_a_machine_share_its_cores(simulate: Simulate, together: int, cores: int) -> None:
    changes = {"machines.parties_per_machine": together, "machines.party.cores": cores}
    found = simulate({**ONE_QUERIER, **changes, "machines.guardian.cores": 64})
    busiest = together if together < 8 else together - 1  # the querying party itself does not answer
    waves = ENCODE_S + -(-busiest // cores) * (INFER_S + ARGMAX_S) + SUBMIT_S + COUNT_S + RELEASE_S
    assert latencies(found)[0] == pytest.approx(waves)


def test_virtual_parties_share_their_owners_machine(simulate: Simulate) -> None:
    changes = {"parties.virtual_per_party": 3, "machines.party.cores": 1, "machines.guardian.cores": 64}
    found = simulate({**ONE_QUERIER, **changes})
    assert len(found.queries[0].counted) == 7 * 3
    assert all(voter >= 3 for voter in found.queries[0].counted), "its own virtual parties answered"
    waves = ENCODE_S + 3 * (INFER_S + ARGMAX_S) + SUBMIT_S + COUNT_S + RELEASE_S
    assert latencies(found)[0] == pytest.approx(waves)


def test_batches_go_one_after_another_or_together(simulate: Simulate) -> None:
    changes = {"parties.queriers": 1, "queries.batch": 1, "machines.party.cores": 8, "machines.guardian.cores": 64}
    one = simulate({**changes, "queries.in_flight": 1}, queries=[4])
    all_at_once = simulate({**changes, "queries.in_flight": 4}, queries=[4])
    assert ended_s(one) == pytest.approx(SETUP_S + 4 * ONE_BATCH_S)
    assert ended_s(all_at_once) == pytest.approx(SETUP_S + ONE_BATCH_S)


def test_the_guardians_cores_are_contended(simulate: Simulate) -> None:
    changes = {"parties.queriers": 4, "queries.batch": 3, "machines.party.cores": 64}
    few = simulate({**changes, "machines.guardian.cores": 2})
    many = simulate({**changes, "machines.guardian.cores": 4})
    # 28 shares come in at once and are added two or four at a time; then four releases follow, two at a time.
    assert ended_s(many) == pytest.approx(SETUP_S + ENCODE_S + INFER_S + ARGMAX_S + 7 * SUBMIT_S + COUNT_S + RELEASE_S)
    assert ended_s(few) >= ended_s(many) + 7 * SUBMIT_S


def test_work_of_the_querier_runs_once_a_batch_and_its_set_up_once(simulate: Simulate) -> None:
    found = simulate({**ONE_QUERIER, "queries.batch": 1}, queries=[3])
    own = [row.step for row in rows(found.log.compute()) if row.host == "party 0"]
    assert own.count(Step.INFER) == 3
    assert own.count(Step.SETUP) == 2  # with the parties, and with the guardian


def test_utilisation_and_core_time_add_up(simulate: Simulate) -> None:
    found = simulate(ONE_QUERIER)
    worked_s = sum(row.end_s - row.start_s for row in rows(found.log.compute()))
    assert found.core_s == pytest.approx(worked_s)
    assert sum(found.core_utilisation.values()) * ended_s(found) == pytest.approx(worked_s)
    assert all(0 <= use <= 1 + 1e-9 for use in found.core_utilisation.values())


FAULTY = {**ONE_QUERIER, "faults.drop_probability": 0.4, "protocol.deadline_s": 40.0, "protocol.quorum": 0.1}


def test_the_guardian_waits_for_silent_parties_until_its_time_is_up(simulate: Simulate) -> None:
    found = simulate(FAULTY)
    assert 0 < len(found.queries[0].counted) < 7
    assert latencies(found)[0] == pytest.approx(40.0 + COUNT_S + RELEASE_S)


# One core for eight parties: they answer one after another, and the deadline falls in between.
SLOW = {**ONE_QUERIER, "machines.parties_per_machine": 8, "machines.party.cores": 1, "protocol.quorum": 0.1}
SLOW_S = ENCODE_S + 7 * (INFER_S + ARGMAX_S) + SUBMIT_S


def test_a_slow_party_is_not_counted_but_its_work_is(simulate: Simulate) -> None:
    found = simulate({**SLOW, "protocol.deadline_s": SLOW_S - 1.5 * ARGMAX_S})
    assert len(found.queries[0].counted) == 5
    infers = [row for row in rows(found.log.compute()) if row.step == Step.ARGMAX]
    assert len(infers) == 7
    assert max(row.end_s for row in infers) > ended_s(found) - COUNT_S - RELEASE_S
    assert all(0 <= use <= 1 + 1e-9 for use in found.core_utilisation.values())


def test_late_bytes_are_counted_and_no_link_is_overfull(simulate: Simulate) -> None:
    found = simulate({**SLOW, "protocol.deadline_s": 1e-4, "protocol.quorum": 1.0})
    assert ended_s(found) == pytest.approx(2 * SETUP_S + 1e-4)
    assert found.core_s == pytest.approx(sum(row.end_s - row.start_s for row in rows(found.log.compute()))) != 0
    assert all(0 <= use <= 1 + 1e-9 for use in found.link_utilisation.values())


@pytest.mark.parametrize(("quorum", "needed"), [(0.56, 14), (0.28, 7), (1.0, 25), (0.001, 1), (0.561, 15)])
def test_a_quorum_is_rounded_up_and_not_by_floating_point(simulate: Simulate, quorum: float, needed: int) -> None:
    changes = {**SLOW, "parties.count": 26, "machines.parties_per_machine": 26, "protocol.quorum": quorum}
    for late, labelled in ((0, True), (1, False)):
        in_time = needed - late
        if in_time == 0:
            continue
        waited_s = ENCODE_S + 25 * INFER_S + (in_time + 0.9) * ARGMAX_S
        found = simulate({**changes, "protocol.deadline_s": waited_s})
        assert len(found.queries[0].counted) == min(in_time, 25)
        assert (found.queries[0].label >= 0) is labelled


DECLINING = {**ONE_QUERIER, "faults.decline_probability": 0.4, "machines.guardian.cores": 64}


def test_nobody_waits_for_a_party_that_declines(simulate: Simulate) -> None:
    found = simulate(DECLINING)
    row = found.queries[0]
    assert 0 < len(row.counted) == 7 - row.declined < 7
    assert row.label >= 0, "a quorum is a share of the votes that were not declined"
    assert latencies(found) == pytest.approx([ONE_BATCH_S] * 3)


def test_with_a_deadline_too(simulate: Simulate) -> None:
    found = simulate({**DECLINING, "protocol.deadline_s": 40.0})
    assert found.queries[0].label >= 0
    assert latencies(found) == pytest.approx([ONE_BATCH_S] * 3)


def test_where_everybody_declines_nothing_is_released(simulate: Simulate) -> None:
    found = simulate({**DECLINING, "faults.decline_probability": 0.999999})
    assert [(row.label, row.declined) for row in found.queries] == [(-1, 7)] * 3
    assert found.bought(0)[0].tolist() == []


def test_a_further_round_goes_on_after_the_first(simulate: Simulate) -> None:
    changes = {**ONE_QUERIER, "queries.batch": 2, "queries.in_flight": 1, "machines.guardian.cores": 64}
    found = simulate(changes, queries=[3], then=[5])
    assert [(row.query, row.batch) for row in found.queries] == [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2)]
    assert ended_s(found) == pytest.approx(SETUP_S + 3 * ONE_BATCH_S)
    assert all(row.label >= 0 for row in found.queries)


@pytest.mark.parametrize("in_flight", [1, 3])
def test_every_batch_in_flight_has_sessions_with_a_set_up_of_their_own(simulate: Simulate, in_flight: int) -> None:
    changes = {**ONE_QUERIER, "queries.batch": 1, "queries.in_flight": in_flight, "machines.party.cores": 64}
    found = simulate({**changes, "machines.guardian.cores": 64}, costs=SetUpByPair())
    assert [row.step for row in rows(found.log.compute())].count(Step.SETUP) == in_flight * (1 + 7)
    assert ended_s(found) == pytest.approx(SETUP_S + 3 / in_flight * ONE_BATCH_S)


def test_only_who_changed_its_model_is_set_up_again(simulate: Simulate) -> None:
    changes = {**ONE_QUERIER, "queries.in_flight": 1, "machines.guardian.cores": 64}
    for changed, again in (((), 0), ((4, 5), 2), ((0, 4), 1)):
        found = simulate(changes, queries=[3], then=[6], changed=changed, costs=SetUpByPair())
        setups = [row.step for row in rows(found.log.compute())].count(Step.SETUP)
        assert setups == 1 + 7 + again, "the guardian, seven parties, those that changed and may answer"


def test_a_spent_budget_ends_a_further_round_at_once(simulate: Simulate) -> None:
    changes = {"parties.queriers": 1, "queries.batch": 2, "privacy.epsilon": 1.4}
    found = simulate(changes, queries=[3], then=[6])
    assert [row.label >= 0 for row in found.queries] == [True, True, True]
    assert "label 4 would take epsilon" in found.stopped[0]


def test_without_a_quorum_nothing_is_released_and_nothing_charged(simulate: Simulate) -> None:
    found = simulate({**FAULTY, "protocol.quorum": 1.0})
    assert [row.label for row in found.queries] == [-1, -1, -1]
    assert "of 7 votes had arrived by the deadline: no quorum" in found.queries[0].why
    assert found.bought(0)[0].tolist() == []


def test_the_budget_ends_the_questions_before_anybody_works_for_nothing(simulate: Simulate) -> None:
    changes = {"parties.queriers": 1, "queries.batch": 2, "queries.in_flight": 3, "privacy.epsilon": 1.4}
    found = simulate(changes, queries=[9])  # three labels are affordable
    assert [row.label >= 0 for row in found.queries] == [True, True, True]
    assert [row.batch for row in found.queries] == [0, 0, 1]
    assert "label 4 would take epsilon" in found.stopped[0]


def test_labels_that_are_being_opened_are_not_counted_twice(simulate: Simulate) -> None:
    """One core opens the two queriers' labels in turn: the first asks again while the other's are being opened."""
    changes = {"parties.queriers": 2, "queries.batch": 3, "queries.in_flight": 1, "machines.guardian.cores": 1}
    budget = {"privacy.budget_scope": "coalition", "privacy.epsilon": 2.7}  # ten labels
    found = simulate({**changes, **budget}, queries=[9, 9])
    sizes = Counter((row.querier, row.batch) for row in found.queries)
    assert sizes == {(0, 0): 3, (1, 0): 3, (0, 1): 3, (1, 1): 1}


def test_a_query_that_was_lost_leaves_room_for_another(simulate: Simulate) -> None:
    changes = {**FAULTY, "queries.batch": 1, "queries.in_flight": 2, "protocol.quorum": 0.6, "privacy.epsilon": 1.4}
    found = simulate(changes, queries=[30])
    labelled = [row.label >= 0 for row in found.queries]
    assert sum(labelled) == 3
    assert not all(labelled)
    assert labelled[-1], "it went on until the last affordable label"


def test_a_shared_budget_goes_to_who_asks_first(simulate: Simulate) -> None:
    changes = {"queries.batch": 2, "privacy.epsilon": 1.4, "privacy.budget_scope": "coalition"}
    found = simulate(changes, queries=[5, 5])
    assert sum(row.label >= 0 for row in found.queries) == 3
    assert len(found.queries) == 3
    assert set(found.stopped) == {0, 1}
