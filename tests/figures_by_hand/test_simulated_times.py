"""A querying party and two answering ones over transcripts fixed by hand: every time, byte and share on paper.

One-way latency 0.5 s; a party sends 1 MB/s and takes 2 MB/s, the guardian 10 MB/s either way; two cores everywhere.
Three queries travel in a batch of two and one of one, one after the other; the second costs half of the first.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
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
from capcsim.costs.measured import MeasuredCosts, Measurements, Stratum, guardian_group, pair_group
from capcsim.crypto.shares import share
from capcsim.fixed_point.layers import Linear
from capcsim.journal import Journal
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import GNMax
from capcsim.privacy.noise import Draw
from capcsim.protocol.admission import Admission
from capcsim.protocol.aggregate import Aggregator
from capcsim.protocol.flow import GUARDIAN, Turn, flow
from capcsim.protocol.steps import Voter
from capcsim.scenario import Scenario
from capcsim.seeds import Seeds
from capcsim.simulation.world import Simulated, World
from capcsim.study.compare import times
from capcsim.study.metrics import View
from capcsim.study.simulated import rules_of
from capcsim.study.summing_up import result_of
from capcsim.study.walk import Walked
from tests.figures_by_hand.outcome import hand_made

Q, A, G = Role.QUERIER, Role.ANSWERER, Role.GUARDIAN
MB = 1_000_000
PUBLIC, NOISE = PublicModel((Linear((0,), (3,), 1),), (1,), 3, 37, 24), GNMax(7.0)
PAIRS, GUARDIANS = pair_group(PUBLIC), guardian_group(3, 3, NOISE)
CHANGES = {
    "parties.count": 3,
    "parties.queriers": 1,
    "queries.per_querier": 3,
    "queries.batch": 2,
    "queries.in_flight": 1,
    "network.latency_s": 0.5,
    "network.party": {"up_bps": 8e6, "down_bps": 16e6},
    "network.guardian": {"up_bps": 80e6, "down_bps": 80e6},
    "machines.party.cores": 2,
    "machines.guardian.cores": 2,
    "privacy.sigma": 7.0,
}


def transcript(step: Step, *nodes: tuple[Any, ...], scale: float = 1.0) -> Transcript:
    """From (role, seconds) and (sender, receiver, bytes), each after the one before; the querying party's is shared."""
    phase = Phase.SETUP if step is Step.SETUP else Phase.ONLINE
    shared = Scope.QUERIER if step is Step.SETUP else Scope.QUERY
    made: list[Compute | Message] = []
    for index, (*ends, amount) in enumerate(nodes):
        after = (index - 1,) if index else ()
        if len(ends) == 2:
            made.append(Message(ends[0], ends[1], int(scale * amount), step, phase, Scope.PAIR, after))
        else:
            scope = shared if ends[0] is Q else Scope.PAIR
            made.append(Compute(ends[0], scale * amount, step, phase, scope, after))
    return tuple(made)


def measurements() -> Measurements:
    samples = {
        Stratum(Step.SETUP, PAIRS, 0): transcript(Step.SETUP, (Q, 1.0), (Q, A, MB // 2), (A, 2.0)),
        Stratum(Step.SETUP, GUARDIANS, 0): transcript(Step.SETUP, (Q, 3.0), (Q, G, MB), (G, 0.5)),
    }
    for size, scale in ((2, 1.0), (1, 0.5)):
        batch = {
            (Step.INFER, PAIRS): ((Q, 2.0), (Q, A, MB), (A, 4.0), (A, Q, MB // 4)),
            (Step.ARGMAX, PAIRS): ((A, 1.0), (A, Q, MB // 10)),
            (Step.AGGREGATE, PAIRS): ((A, G, MB // 5), (G, 0.25)),
            (Step.AGGREGATE, GUARDIANS): ((G, 0.125), (G, Q, 2 * MB)),
            (Step.RELEASE, GUARDIANS): ((G, 2.0), (G, Q, MB * 2 // 5)),
        }
        for (step, group), nodes in batch.items():
            samples[Stratum(step, group, size)] = transcript(step, *nodes, scale=scale)
    return Measurements({stratum: (found,) for stratum, found in samples.items()})


class NoNoise:
    """Labels are the plurality: what is tested here is time."""

    repeats = True

    def name(self, querier: int, query: int, counted: Any) -> str:
        return f"{querier}-{query}"

    def draw(self, name: str, querier: int, query: int, classes: int) -> Draw:
        return Draw(np.zeros((1, classes), np.int64))


@pytest.fixture
def simulate(scenario: Callable[..., Scenario], tmp_path: Path) -> Callable[..., Simulated]:
    def run(changes: dict[str, Any] | None = None) -> Simulated:
        voters = [Voter(party, party, Prepared(PUBLIC, None)) for party in range(3)]
        # The voters' classes by query: both answering parties agree but on the last one, where the lowest class wins.
        votes = np.eye(3, dtype=np.int64)[np.array([[0, 0, 0], [1, 2, 2], [1, 2, 0]])]
        votes[0] = 0
        wanted = scenario({**CHANGES, **(changes or {})})
        ledger = Ledger(tmp_path / "ledger", Accountant(NOISE, 1e-5), 50.0, BudgetScope.QUERIER)
        with closing(ledger), Journal(tmp_path / "releases") as releases:
            parts = {"ledger": ledger, "noise": NoNoise(), "releases": releases}
            opener = Aggregator(voters, [share(votes, VOTE_RING_BITS)], **parts)
            turn = Turn(0, range(3), (1, 2), (GUARDIAN, 1, 2))
            driven = flow([turn], rules_of(wanted), Admission(ledger, lambda _: (1, 2)), opener)
            return World(wanted).run(driven, voters, MeasuredCosts(measurements(), Seeds(0)))

    return run


@pytest.fixture
def found(simulate: Callable[..., Simulated]) -> Simulated:
    return simulate()


# Both pairs' and the guardian's keys take 1 s and 3 s on two cores. From 1 s to 2 s two half megabytes leave at half of
# 1 MB/s each; they are there at 2.5 s, used by 4.5 s. The guardian's megabyte goes from 3 s to 4 s, is there at 4.5 s,
# used by 5 s.
SET_UP_S = 5.0
# The query is encoded in 2 s; two megabytes at 1 MB/s and the latency make 2.5 s, the model 4 s, the argmax 1 s. Then
# each answering party sends 0.1 MB to the querying party and 0.2 MB to the guardian at half of 1 MB/s each until the
# first is through after 0.2 s; the rest, 0.1 MB, takes 0.1 s: with the latency 0.8 s, and 0.25 s to add it up. The
# counted set takes 0.125 s, the release 2 s, its 0.4 MB 0.2 s at 2 MB/s, and the latency.
TO_ADDED_UP_S = 2.0 + (2.0 + 0.5) + 4.0 + 1.0 + (0.2 + 0.1 + 0.5) + 0.25
FIRST_S = TO_ADDED_UP_S + 0.125 + 2.0 + (0.2 + 0.5)
# Half of all that; three latencies stay whole: the query, the share, the release.
SECOND_S = (FIRST_S - 3 * 0.5) / 2 + 3 * 0.5
MAKESPAN_S = SET_UP_S + FIRST_S + SECOND_S


def test_the_sums_above() -> None:
    for label_s, on_paper_s in ((FIRST_S, 13.375), (SECOND_S, 7.4375), (MAKESPAN_S, 25.8125)):
        assert label_s == pytest.approx(on_paper_s)


def test_labels_come_when_they_must(found: Simulated) -> None:
    assert [row.submitted_s for row in found.queries] == pytest.approx([SET_UP_S, SET_UP_S, SET_UP_S + FIRST_S])
    latencies_s = [row.labelled_s - row.submitted_s for row in found.queries]
    assert latencies_s == pytest.approx([FIRST_S, FIRST_S, SECOND_S])
    assert max(row.labelled_s for row in found.queries) == pytest.approx(MAKESPAN_S)
    assert [row.label for row in found.queries] == [1, 2, 0]


# In megabytes; the batch of one sends half.
SENT_MB = {
    "party 0": 2 * 0.5 + 1 + 1.5 * (2 * 1),
    "party 1": 1.5 * (0.25 + 0.1 + 0.2),
    "party 2": 1.5 * (0.25 + 0.1 + 0.2),
    "guardian": 1.5 * (2 + 0.4),
}
TAKEN_MB = {
    "party 0": 1.5 * (2 * (0.25 + 0.1) + 2 + 0.4),
    "party 1": 0.5 + 1.5 * 1,
    "party 2": 0.5 + 1.5 * 1,
    "guardian": 1 + 1.5 * 2 * 0.2,
}


def test_bytes_count_where_they_leave(found: Simulated) -> None:
    assert found.sent_bytes == {name: round(sent * MB) for name, sent in SENT_MB.items()}
    assert sum(SENT_MB.values()) == pytest.approx(sum(TAKEN_MB.values()))


def test_links_are_in_use_for_the_time_that_their_bytes_take(found: Simulated) -> None:
    use = {}
    for name in SENT_MB:
        up, down = (10.0, 10.0) if name == "guardian" else (1.0, 2.0)
        use |= {f"{name} up": SENT_MB[name] / up / MAKESPAN_S, f"{name} down": TAKEN_MB[name] / down / MAKESPAN_S}
    assert found.link_utilisation == pytest.approx(use)


def test_cores_are_in_use_while_they_work(found: Simulated) -> None:
    worked_s = {  # without the second cores of parties 1 and 2, which nothing ever needed
        "party 0, core 0": 3 + 1.5 * 2,  # the guardian's keys come first
        "party 0, core 1": 1,
        "party 1, core 0": 2 + 1.5 * (4 + 1),
        "party 2, core 0": 2 + 1.5 * (4 + 1),
        "guardian, core 0": 0.5 + 1.5 * (0.25 + 0.125 + 2),
        "guardian, core 1": 1.5 * 0.25,
    }
    assert found.core_utilisation == pytest.approx({core: each / MAKESPAN_S for core, each in worked_s.items()})
    assert found.core_s == pytest.approx(sum(worked_s.values()))


def test_a_machine_twice_as_fast_works_half_the_time(simulate: Callable[..., Simulated]) -> None:
    fast = simulate({"machines.party.speed": 2.0})
    # Of the first label's time, parties work 2 s, 4 s and 1 s; of the set-up's longest chain 3 s.
    assert fast.queries[0].submitted_s == pytest.approx(SET_UP_S - 3.0 / 2)
    assert fast.queries[0].labelled_s - fast.queries[0].submitted_s == pytest.approx(FIRST_S - 7.0 / 2)


def test_without_latency_three_are_saved_on_each_label(simulate: Callable[..., Simulated]) -> None:
    near = simulate({"network.latency_s": 0.0})
    latencies_s = [row.labelled_s - row.submitted_s for row in near.queries]
    assert latencies_s == pytest.approx([FIRST_S - 1.5, FIRST_S - 1.5, SECOND_S - 1.5])


@pytest.fixture
def walked(found: Simulated, scenario: Callable[..., Scenario], tmp_path: Path) -> Walked:
    prices = {"parties.virtual_per_party": 1, "prices.per_core_hour": 3.6, "prices.per_gb_sent": 100.0}
    folder = tmp_path / "other"
    folder.mkdir()
    made = hand_made(scenario, folder, {"parties.queriers": 1, **prices})
    ballots = (np.zeros((3, 3), np.int64),)
    priced = replace(made.priced, ballots=ballots)
    return replace(made, happened=replace(made.happened, simulated=found), priced=priced)


def test_the_summary_tells_these_figures(walked: Walked) -> None:
    told = result_of(walked, "", {}, None)
    row = told.queriers[0]
    total_mb = sum(SENT_MB.values())
    assert (row.latency_median_s, row.latency_max_s) == pytest.approx((FIRST_S, FIRST_S))
    assert (row.simulated_s, told.makespan_s) == pytest.approx((MAKESPAN_S, MAKESPAN_S))
    assert row.bytes == told.bytes == round(total_mb * MB)
    assert told.busiest.core == "party 1, core 0"
    assert told.busiest.core_utilisation == pytest.approx(9.5 / MAKESPAN_S)
    assert told.busiest.link == "party 0 up"
    assert told.busiest.link_utilisation == pytest.approx(5.0 / MAKESPAN_S)
    # 30.4375 s of work at 3.60 an hour, 10.25 MB at 100 a GB.
    assert told.cost.price == pytest.approx(0.0304375 + 1.025)


def test_a_comparison_tells_these_figures(walked: Walked) -> None:
    told = times(View(walked, [0])).model_dump()
    assert told.pop("bytes") == round(sum(SENT_MB.values()) * MB)
    assert told == pytest.approx(
        {"latency_median_s": FIRST_S, "latency_max_s": FIRST_S, "makespan_s": MAKESPAN_S, "labels": 3}
    )
