"""Steps 2 and 3 over hand-made votes: who is counted, what is charged, what is released."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capcsim.backend import VOTE_RING_BITS, Prepared, PublicModel, Role, Step
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import InputError, RecordError
from capcsim.journal import Journal
from capcsim.privacy.accountant import Accountant, PaperAccountant
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, Mechanism
from capcsim.privacy.noise import Draw
from capcsim.protocol.admission import Admission
from capcsim.protocol.aggregate import Aggregate, Aggregator, Executed, in_the_open, lost_charges
from capcsim.protocol.noise import NoiseSource, RealNoise, SimulatedNoise
from capcsim.protocol.steps import Voter, answering, count_programs, share_votes, submit_programs, sum_shares
from capcsim.seeds import Seeds
from capcsim.twoparty.programs import run_local
from capcsim_plaintext import PlaintextBackend

PARTIES, CLASSES, QUERIES = 6, 4, 5
PUBLIC = PublicModel((), (1,), CLASSES, 37, 24)
VOTERS = [Voter(index, index // 2, Prepared(PUBLIC, None)) for index in range(2 * PARTIES)]  # two models a party
Build = Callable[..., "Collaboration"]
GNMAX, CONFIDENT = GNMax(7.0), ConfidentGNMax(7.0, 8, 20.0)


class NoNoise:
    """Makes labels a function of the votes."""

    repeats: ClassVar[bool] = True

    def name(self, querier: int, query: int, counted: Any) -> str:
        return f"{querier} {query} {counted}"

    def draw(self, name: str, querier: int, query: int, classes: int) -> Any:
        return Draw(np.zeros((1, classes), np.int64), np.zeros(1, np.int64))


def one_hot(votes: list[list[int]]) -> Any:
    """Shares uint64[2, V, n, C] of the votes given by voter and query."""
    return share(np.eye(CLASSES, dtype=np.int64)[np.array(votes)], VOTE_RING_BITS)


class Collaboration:
    """Querying party 0, everybody's votes, and the guardian's books: what a round of the flow works with."""

    def __init__(self, votes: Any, ledger: Ledger, noise: NoiseSource, releases: Journal, backend: Any) -> None:
        self.ledger, self.journal = ledger, releases
        release = in_the_open if backend is None else Executed(backend)
        self._open = Aggregator(VOTERS, [votes], ledger=ledger, noise=noise, releases=releases, release=release)
        lost = lost_charges(ledger, releases, repeats=noise.repeats)
        self.admission = Admission(ledger, lambda querier: set(range(PARTIES)) - {querier}, lost)

    def aggregate(self, querier: int, queries: Any, counted: Any) -> Aggregate:
        found = self._open(querier, queries, counted)
        self.admission.settle(found)
        return found


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """A collaboration in which querying party 0 asks, on files that outlive it."""
    with ExitStack() as stack:

        def make(
            votes: Any,
            noise: NoiseSource | None = None,
            budget: float = 9.0,
            backend: Any = None,
            mechanism: Mechanism = GNMAX,
            analysis: type[Accountant] | type[PaperAccountant] = Accountant,
            scope: BudgetScope = BudgetScope.QUERIER,
        ) -> Any:
            ledger = Ledger(tmp_path / "ledger", analysis(mechanism, 1e-5), budget, scope)
            stack.enter_context(closing(ledger))
            releases = stack.enter_context(Journal(tmp_path / "releases"))
            return Collaboration(votes, ledger, noise or NoNoise(), releases, backend)

        yield make


def stop(collaboration: Collaboration) -> None:
    """What a kill does to the files: nothing more is written to them."""
    collaboration.ledger.close()
    collaboration.journal.close()


@given(st.data())
def test_a_label_is_the_plurality_of_exactly_the_counted_set(data: st.DataObject) -> None:
    votes = data.draw(st.lists(st.integers(0, CLASSES - 1), min_size=12, max_size=12))
    counted = data.draw(st.sets(st.integers(2, 11), min_size=1))
    shares = one_hot([[vote] for vote in votes])
    counts = reconstruct(np.stack(sum_shares(shares[:, sorted(counted)])), VOTE_RING_BITS)[0]
    expected = [sum(votes[voter] == c for voter in counted) for c in range(CLASSES)]
    assert counts.tolist() == expected


def test_a_late_party_changes_the_label(build: Build) -> None:
    votes = [[0]] * 7 + [[1]] * 5
    collaboration = build(one_hot(votes))
    assert collaboration.aggregate(0, [0], range(2, 12)).labels.tolist() == [0]
    assert collaboration.aggregate(0, [0], [2, 3, 9, 10, 11]).labels.tolist() == [1]


@pytest.mark.parametrize("counted", [[], [0, 2, 3], [1, 4], [12]])
def test_nobody_answers_its_own_query_and_strangers_do_not_count(build: Build, counted: list[int]) -> None:
    collaboration = build(one_hot([[0]] * 12))
    assert [voter.index for voter in answering(VOTERS, 0)] == list(range(2, 12))
    with pytest.raises(InputError, match="none of querier 0's own"):
        collaboration.aggregate(0, [0], counted)
    assert collaboration.ledger.charged(0) == 0


def test_the_budget_stops_a_batch_in_its_middle(build: Build) -> None:
    collaboration = build(one_hot([[0] * 5] * 12), budget=1.4)  # three labels
    found = collaboration.aggregate(0, range(5), range(2, 12))
    assert found.labels.tolist() == [0, 0, 0, -1, -1]
    assert "label 4 would take epsilon" in found.refusal
    assert collaboration.ledger.charged(0) == 3
    assert collaboration.aggregate(0, [4], range(2, 12)).labels.tolist() == [-1]


@pytest.mark.parametrize("real", [True, False])
def test_a_label_that_went_out_is_resent_and_not_charged_again(build: Build, real: bool) -> None:
    mechanism = GNMax(7.0)
    noise = RealNoise(mechanism) if real else SimulatedNoise(mechanism, Seeds(3))
    votes = one_hot([[0] * 5] * 6 + [[1] * 5] * 6)
    first = build(votes, noise)
    labels = first.aggregate(0, range(5), range(2, 12)).labels.tolist()
    stop(first)
    again = build(votes, noise)
    assert again.aggregate(0, range(5), range(2, 12)).labels.tolist() == labels
    assert again.ledger.charged(0) == 5


def test_after_a_kill_between_charge_and_label_a_fresh_draw_is_a_new_charge(build: Build) -> None:
    votes = one_hot([[0] * 5] * 12)
    killed = build(votes, RealNoise(GNMax(7.0)))
    killed.ledger.reserve(0, 0, "a draw that was lost")
    stop(killed)
    again = build(votes, RealNoise(GNMax(7.0)))
    again.aggregate(0, [0], range(2, 12))
    assert again.ledger.charged(0) == 2


def test_after_a_kill_between_charge_and_label_the_same_seeded_draw_is_the_same_charge(build: Build) -> None:
    votes, noise = one_hot([[0] * 5] * 12), SimulatedNoise(GNMax(7.0), Seeds(3))
    killed = build(votes, noise)
    killed.ledger.reserve(0, 0, noise.name(0, 0, list(range(2, 12))))
    stop(killed)
    again = build(votes, noise)
    again.aggregate(0, [0], range(2, 12))
    assert again.ledger.charged(0) == 1


def test_a_label_without_a_charge_means_that_the_ledger_was_lost(build: Build, tmp_path: Path) -> None:
    votes = one_hot([[0] * 5] * 12)
    first = build(votes, RealNoise(GNMax(7.0)))
    first.aggregate(0, range(3), range(2, 12))
    stop(first)
    lines = (tmp_path / "ledger").read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger").write_bytes(b"".join(lines[:2]))
    with pytest.raises(RecordError, match="the label of query 1 of querying party 0 went out, but the ledger"):
        build(votes, RealNoise(GNMax(7.0)))


@pytest.mark.parametrize(("real", "left"), [(True, 2), (False, 3)])
def test_what_a_run_can_still_release_leaves_out_charges_that_were_lost(build: Build, real: bool, left: int) -> None:
    noise = RealNoise(GNMax(7.0)) if real else SimulatedNoise(GNMax(7.0), Seeds(3))
    votes = one_hot([[0] * 5] * 12)
    killed = build(votes, noise, budget=1.4)  # three labels
    killed.ledger.reserve(0, 0, noise.name(0, 0, list(range(2, 12))))
    stop(killed)
    again = build(votes, noise, budget=1.4)
    assert again.admission.affordable(0, 9) == left
    again.aggregate(0, [0, 1], range(2, 12))
    assert again.admission.affordable(0, 9) == left - 2


def test_another_counted_set_is_another_release(build: Build) -> None:
    collaboration = build(one_hot([[0] * 5] * 12), SimulatedNoise(GNMax(7.0), Seeds(3)))
    collaboration.aggregate(0, [0], range(2, 12))
    collaboration.aggregate(0, [0], range(2, 11))
    assert collaboration.ledger.charged(0) == 2


def test_the_charge_is_on_disk_before_the_noise_is_drawn(build: Build, tmp_path: Path) -> None:
    class Watches(NoNoise):
        seen = ""

        def draw(self, name: str, querier: int, query: int, classes: int) -> Any:
            self.seen = (tmp_path / "ledger").read_text()
            return super().draw(name, querier, query, classes)

    noise = Watches()
    build(one_hot([[0] * 5] * 12), noise).aggregate(0, [3], range(2, 12))
    assert '"query": 3' in noise.seen


def test_seeded_noise_depends_on_seed_query_and_counted_set() -> None:
    def draw(seed: int, query: int, counted: range) -> list[int]:
        noise = SimulatedNoise(GNMax(40.0), Seeds(seed))
        found: list[int] = noise.draw(noise.name(0, query, list(counted)), 0, query, 8).votes[0].tolist()
        return found

    draws = [draw(1, 0, range(9)), draw(2, 0, range(9)), draw(1, 1, range(9)), draw(1, 0, range(8))]
    assert draws[0] == draw(1, 0, range(9))
    assert len({tuple(numbers) for numbers in draws}) == 4


def test_the_real_release_gives_the_same_labels_as_the_open_one(build: Build) -> None:
    votes = one_hot(np.random.default_rng(0).integers(0, CLASSES, (12, 5)).tolist())
    noise = SimulatedNoise(GNMax(7.0), Seeds(3))
    plain = build(votes, noise)
    labels = plain.aggregate(0, range(5), range(2, 12)).labels
    stop(plain)
    for file in ("ledger", "releases"):
        (Path(plain.journal.path).parent / file).unlink()
    executed = build(votes, noise, backend=PlaintextBackend())
    assert np.array_equal(executed.aggregate(0, range(5), range(2, 12)).labels, labels)


@pytest.mark.parametrize("backend", [None, PlaintextBackend()], ids=["in the open", "Yao"])
def test_a_query_below_the_threshold_gets_no_label_and_is_refunded(build: Build, backend: Any) -> None:
    """Ten votes for class 0 on queries 0 and 2, five and five on query 1; an answer needs eight."""
    votes = one_hot([[0, 0, 0]] * 7 + [[0, 1, 0]] * 5)
    collaboration = build(votes, mechanism=CONFIDENT, backend=backend)
    found = collaboration.aggregate(0, range(3), range(2, 12))
    assert found.labels.tolist() == [0, -1, 0]
    assert found.opened.tolist() == [True] * 3
    ledger = collaboration.ledger
    assert ledger.charged(0) == 2
    assert ledger.epsilon(0) == ledger.accountant.epsilon(2, unanswered=1) < ledger.accountant.epsilon(3)


def test_the_threshold_test_has_noise_of_its_own(build: Build) -> None:
    votes = one_hot([[0] * 40] * 12)
    labels = build(votes, SimulatedNoise(CONFIDENT, Seeds(1)), mechanism=CONFIDENT).aggregate(
        0, range(40), range(2, 12)
    )
    assert 0 < (labels.labels < 0).sum() < 40, "with noise 20 a count of ten passes eight now and then"


def test_an_unanswered_query_stays_so_after_a_kill(build: Build) -> None:
    votes = one_hot([[0, 0, 0]] * 7 + [[0, 1, 0]] * 5)
    first = build(votes, RealNoise(CONFIDENT), mechanism=CONFIDENT)
    labels = first.aggregate(0, range(3), range(2, 12)).labels
    spent = first.ledger.epsilon(0)
    stop(first)
    again = build(votes, RealNoise(CONFIDENT), mechanism=CONFIDENT)
    assert again.ledger.epsilon(0) == spent
    assert np.array_equal(again.aggregate(0, range(3), range(2, 12)).labels, labels)
    assert again.ledger.epsilon(0) == spent


def test_a_report_that_a_kill_swallowed_is_made_again(build: Build, tmp_path: Path) -> None:
    votes = one_hot([[0, 0, 0]] * 7 + [[0, 1, 0]] * 5)
    first = build(votes, mechanism=CONFIDENT)
    first.aggregate(0, [1], range(2, 12))
    spent = first.ledger.epsilon(0)
    stop(first)
    lines = (tmp_path / "ledger").read_bytes().splitlines(keepends=True)
    assert b"refund" in lines[-1]
    (tmp_path / "ledger").write_bytes(b"".join(lines[:-1]))
    again = build(votes, mechanism=CONFIDENT)
    assert again.ledger.epsilon(0) > spent, "without the report the charge is whole"
    again.aggregate(0, [1], range(2, 12))
    assert again.ledger.epsilon(0) == spent


def test_what_stays_unanswered_leaves_room_for_more(build: Build) -> None:
    votes = one_hot([[0] * 400] * 7 + [[1] * 400] * 5)
    collaboration = build(votes, mechanism=CONFIDENT, budget=1.6)
    whole = collaboration.admission.affordable(0, 99)
    counted = [4, 5, 6, 7, 8, 9]  # three against three; an answer needs eight
    unanswered = 0
    while collaboration.admission.affordable(0, 1):
        assert collaboration.aggregate(0, [unanswered], counted).opened.all()
        unanswered += 1
    assert unanswered > 2 * whole > 0
    assert "would take epsilon" in collaboration.aggregate(0, [399], counted).refusal
    assert collaboration.ledger.epsilon(0) <= 1.6


def test_the_papers_analysis_charges_clear_votes_less(build: Build) -> None:
    clear, split = one_hot([[0] * 200] * 12), one_hot([[0] * 200] * 7 + [[1] * 200] * 5)
    labels = []
    for votes in (clear, split):
        collaboration = build(votes, mechanism=GNMax(1.5), analysis=PaperAccountant, budget=30.0)
        assert collaboration.admission.affordable(0, 200) == 200, "nobody knows beforehand"
        found = collaboration.aggregate(0, range(200), range(2, 12))
        labels.append(int(found.opened.sum()))
        assert collaboration.ledger.epsilon(0) <= 30.0
        if labels[-1] < 200:
            assert collaboration.admission.affordable(0, 1) == 0
            assert "would take epsilon" in collaboration.admission.refusal(0)
        stop(collaboration)
        for file in ("ledger", "releases"):
            (Path(collaboration.journal.path).parent / file).unlink()
    assert labels[0] > 3 * labels[1] > 0


def test_an_answering_party_pays_for_the_queries_in_which_it_was_counted(build: Build) -> None:
    collaboration = build(one_hot([[0] * 9] * 12), budget=1.4, scope=BudgetScope.PARTY)  # three labels
    assert collaboration.aggregate(0, range(2), range(2, 12)).opened.all()
    assert collaboration.aggregate(0, range(2, 5), [2, 3]).opened.tolist() == [True, False, False]
    assert collaboration.admission.affordable(0, 9) == 0
    assert collaboration.aggregate(0, [5], range(4, 12)).opened.all(), "party 1 is spent, the others are not"
    ledger = collaboration.ledger
    assert ledger.epsilon_party(1) == ledger.epsilon_party(2) == ledger.accountant.epsilon(3)
    assert ledger.epsilon_party(0) == 0
    assert ledger.epsilon_most_exposed() == ledger.epsilon(0) == ledger.accountant.epsilon(3)
    assert ledger.epsilon_coalition() == ledger.accountant.epsilon(4)
    assert "privacy budget of party" in collaboration.admission.refusal(0)


def test_steps_1a_to_1c_vote_for_the_largest_logit() -> None:
    import torch

    backend = PlaintextBackend()
    torch.manual_seed(0)
    prepared = backend.prepare(torch.nn.Sequential(torch.nn.Linear(3, CLASSES)), seed=0)
    x = np.random.default_rng(0).normal(0, 1, (20, 3)).astype(np.float32)
    session, _ = backend.open(1, prepared)
    shares, _ = backend.argmax(session, backend.infer(session, x)[0])
    reference = backend.reference(prepared, x)
    votes = reconstruct(shares.values, VOTE_RING_BITS)
    assert votes.argmax(axis=1).tolist() == reference.argmax(axis=1).tolist()
    assert votes.sum(axis=1).tolist() == [1] * 20
    assert np.array_equal(reconstruct(share_votes(reference), VOTE_RING_BITS), votes)


def test_the_programs_of_step_2_sum_the_counted_shares() -> None:
    votes = one_hot(np.random.default_rng(1).integers(0, CLASSES, (12, QUERIES)).tolist())
    counted = [2, 3, 7, 11]
    total = np.zeros((QUERIES, CLASSES), np.uint64)
    for voter in counted:
        roles = (Role.ANSWERER, Role.GUARDIAN)
        (_, total), _ = run_local(roles, submit_programs(votes[1, voter], total), step=Step.AGGREGATE)
    programs = count_programs(votes[0], counted, GNMax(7.0))
    (own, noise), transcript = run_local((Role.QUERIER, Role.GUARDIAN), programs, step=Step.AGGREGATE)
    querier_sum, guardian_sum = sum_shares(votes[:, counted])
    assert np.array_equal(own, querier_sum)
    assert np.array_equal(total, guardian_sum)
    assert noise.votes.shape == (QUERIES, CLASSES)
    assert sum(getattr(node, "nbytes", 0) for node in transcript) == 2  # a bitmap of twelve voters
