"""The flow among many parties, driven by hand: every event is sent by the test."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.backend import VOTE_RING_BITS, Prepared, PublicModel
from capcsim.costs.foresee import drive
from capcsim.crypto.shares import share
from capcsim.journal import Journal
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, Mechanism
from capcsim.protocol.admission import Admission
from capcsim.protocol.aggregate import Aggregator, lost_charges
from capcsim.protocol.flow import (
    GUARDIAN,
    UNANSWERED,
    Ask,
    Batch,
    Collected,
    Command,
    Flow,
    Lane,
    Open,
    Opened,
    Ready,
    Rules,
    Settle,
    SetUp,
    Stop,
    Turn,
    flow,
)
from capcsim.protocol.noise import NoiseSource, RealNoise, SimulatedNoise
from capcsim.protocol.steps import Voter
from capcsim.seeds import Seeds

PARTIES, CLASSES = 5, 3
ONLY, SECOND = Lane(0, 0), Lane(0, 1)
VOTERS = [Voter(party, party, Prepared(PublicModel((), (1,), CLASSES, 37, 24), None)) for party in range(PARTIES)]
GNMAX = GNMax(7.0)  # at delta 1e-5 the budget of 1.4 pays for three labels
THREE_LABELS, MANY_LABELS = 1.4, 50.0
Build = Callable[..., "Round"]


class Round:
    """A flow and its books; every vote is for class 1."""

    def __init__(self, turns: Sequence[Turn], rules: Rules, ledger: Ledger, releases: Journal, noise: NoiseSource):
        votes = np.eye(CLASSES, dtype=np.int64)[np.ones((PARTIES, 20), np.int64)]
        shares = [share(votes, VOTE_RING_BITS)] * PARTIES
        self.ledger, self.releases, self.seen = ledger, releases, list[Command]()
        opener = Aggregator(VOTERS, shares, ledger=ledger, noise=noise, releases=releases)
        lost = lost_charges(ledger, releases, repeats=noise.repeats)
        self.admission = Admission(ledger, lambda querier: set(range(PARTIES)) - {querier}, lost)
        self.flow: Flow = flow(turns, rules, self.admission, opener)

    def send(self, event: Any) -> list[Command]:
        """One event, or None to begin; what follows from it."""
        commands = next(self.flow) if event is None else self.flow.send(event)
        self.seen += commands
        return commands

    def finish(self, answer: Callable[[Command], Any] | None = None) -> list[Command]:
        """Everything at once, as soon as it is asked."""
        return list(drive(self.flow, answer or happens).commands)


def happens(command: Command) -> Any:
    match command:
        case SetUp(lane):
            return Ready(lane)
        case Ask(batch):
            return Collected(batch, batch.answering)
        case Open(batch):
            return Opened(batch)
    return None


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Rounds on the same files, one after the other."""
    with ExitStack() as stack:

        def make(
            *turns: Turn,
            batch: int = 3,
            quorum: float = 1.0,
            deadline_s: float | None = None,
            budget: float = MANY_LABELS,
            scope: BudgetScope = BudgetScope.QUERIER,
            mechanism: Mechanism = GNMAX,
            noise: NoiseSource | None = None,
        ) -> Round:
            ledger = Ledger(tmp_path / "ledger", Accountant(mechanism, 1e-5), budget, scope)
            stack.enter_context(closing(ledger))
            releases = stack.enter_context(Journal(tmp_path / "releases"))
            rules = Rules(batch, quorum, deadline_s)
            return Round(turns, rules, ledger, releases, noise or SimulatedNoise(mechanism, Seeds(0)))

        yield make


def turn(querier: int = 0, queries: int = 6, first: int = 0, lanes: int = 1) -> Turn:
    answering = tuple(party for party in range(PARTIES) if party != querier)
    return Turn(querier, range(first, queries), answering, (GUARDIAN, *answering), lanes)


def kinds(commands: Sequence[Command]) -> list[str]:
    return [type(command).__name__ for command in commands]


def only(commands: Sequence[Command], kind: type[Any]) -> Any:
    (found,) = [command for command in commands if isinstance(command, kind)]
    return found


def test_a_querying_party_sets_up_asks_opens_and_settles_batch_by_batch(build: Build) -> None:
    round_ = build(turn(queries=5))
    assert round_.send(None) == [SetUp(ONLY, (GUARDIAN, 1, 2, 3, 4))]
    first = only(round_.send(Ready(ONLY)), Ask).batch
    assert first == Batch(ONLY, 0, range(3), (1, 2, 3, 4))
    assert only(round_.send(Collected(first, (1, 2, 3, 4))), Open).counted == (1, 2, 3, 4)
    settled, asked = round_.send(Opened(first))
    labels = tuple(entry["label"] for entry in round_.releases.entries)
    assert settled == Settle(first, (1, 2, 3, 4), 0, labels, ("", "", ""), 3)
    second = Batch(ONLY, 1, range(3, 5), (1, 2, 3, 4))
    assert asked == Ask(second, None)
    assert only(round_.send(Collected(second, (4, 3, 2, 1))), Open).counted == (1, 2, 3, 4)
    assert kinds(round_.send(Opened(second))) == ["Settle", "End"]
    with pytest.raises(StopIteration):
        round_.send(Opened(second))


def test_so_many_batches_are_under_way_and_end_in_any_order(build: Build) -> None:
    round_ = build(turn(queries=9, lanes=2))
    assert round_.send(None) == [SetUp(lane, (GUARDIAN, 1, 2, 3, 4)) for lane in (ONLY, SECOND)]
    first, second = (only(round_.send(Ready(lane)), Ask).batch for lane in (SECOND, ONLY))
    assert (first.lane, second.lane) == (SECOND, ONLY)
    assert kinds(round_.send(Collected(second, second.answering))) == ["Open"]
    settled, third = round_.send(Opened(second))
    assert (settled.batch, third.batch.number, third.batch.lane) == (second, 2, ONLY)
    assert kinds(round_.send(Collected(first, first.answering))) == ["Open"]
    assert kinds(round_.send(Opened(first))) == ["Settle"], "nothing is left to ask"


def test_the_charge_is_made_in_the_same_step_as_the_counted_set_is_fixed(build: Build) -> None:
    round_ = build(turn(queries=3))
    round_.send(None)
    (ask,) = round_.send(Ready(ONLY))
    assert round_.ledger.charged(0) == 0
    round_.send(Collected(ask.batch, ask.batch.answering))
    assert round_.ledger.charged(0) == 3
    assert len(round_.releases.entries) == 3, "what is opened later can no longer be drawn again"


@pytest.mark.parametrize(("present", "declined", "labelled"), [
    ((1, 2, 3), (), True),  # three of four are three quarters
    ((1, 2), (), False),
    ((1, 2), (4,), False),  # two of three are less
    ((1, 2), (3, 4), True),  # of two that did not decline both came
    ((), (1, 2, 3, 4), False),
    ((), (), False),
])  # fmt: skip
def test_a_quorum_is_of_those_that_did_not_decline(
    build: Build, present: tuple[int, ...], declined: tuple[int, ...], labelled: bool
) -> None:
    round_ = build(turn(queries=3), quorum=0.75, deadline_s=9.0)
    round_.send(None)
    (ask,) = round_.send(Ready(ONLY))
    found = round_.send(Collected(ask.batch, present, declined))
    if labelled:
        assert only(found, Open).counted == present
        return
    settled = only(found, Settle)
    why = f"{len(present)} of {4 - len(declined)} votes had arrived by the deadline: no quorum"
    assert (settled.labels, settled.whys, settled.opened) == ((-1,) * 3, (why,) * 3, 0)
    assert (settled.counted, settled.declined) == (present, len(declined))
    assert round_.ledger.charged(0) == 0


def test_a_deadline_is_a_value_in_the_command(build: Build) -> None:
    round_ = build(turn(), deadline_s=2.5)
    round_.send(None)
    assert only(round_.send(Ready(ONLY)), Ask).deadline_s == 2.5


def test_who_is_dropped_is_not_counted(build: Build) -> None:
    round_ = build(turn(queries=3), quorum=0.5, deadline_s=1.0)
    two = (2, 4)
    commands = round_.finish(lambda each: Collected(each.batch, two) if isinstance(each, Ask) else happens(each))
    assert only(commands, Settle).counted == (2, 4)
    assert {charge.parties for charge in round_.ledger.charges().values()} == {(2, 4)}


def test_queries_that_stay_unanswered_are_opened_too_to_learn_it(build: Build) -> None:
    round_ = build(turn(queries=3), mechanism=ConfidentGNMax(1.0, 1000, 1.0))
    round_.send(None)
    (ask,) = round_.send(Ready(ONLY))
    (opening,) = round_.send(Collected(ask.batch, ask.batch.answering))
    settled = only(round_.send(Opened(opening.batch)), Settle)
    assert (settled.labels, settled.whys, settled.opened) == ((-1,) * 3, (UNANSWERED,) * 3, 3)


def test_what_the_ledger_refuses_is_not_opened(build: Build) -> None:
    """As where another run takes of the same budget meanwhile."""
    round_ = build(turn(queries=3), budget=THREE_LABELS)
    round_.send(None)
    (ask,) = round_.send(Ready(ONLY))
    for number in range(3):
        round_.ledger.reserve(0, 90 + number, "another's", parties=(1, 2, 3, 4))
    settled = only(round_.send(Collected(ask.batch, ask.batch.answering)), Settle)
    assert (settled.labels, settled.opened) == ((-1,) * 3, 0)
    assert all("label 4 would take epsilon" in why for why in settled.whys)


def test_a_budget_that_ends_in_the_middle_of_a_batch_makes_it_smaller(build: Build) -> None:
    round_ = build(turn(queries=9, lanes=3), batch=2, budget=THREE_LABELS)
    commands = round_.finish()
    assert [command.batch.queries for command in commands if isinstance(command, Ask)] == [range(2), range(2, 3)]
    stop = only(commands, Stop)
    assert stop.querier == 0
    assert "label 4 would take epsilon" in stop.why


def test_a_lost_batch_gives_its_room_to_another(build: Build) -> None:
    """Three labels can be paid for; the second batch waits until the first is lost or settled."""
    round_ = build(turn(queries=9, lanes=2), batch=3, budget=THREE_LABELS, deadline_s=1.0)
    round_.send(None)
    (ask,) = round_.send(Ready(ONLY))
    assert round_.send(Ready(SECOND)) == []
    settled, again = round_.send(Collected(ask.batch, ()))
    assert settled.labels == (-1, -1, -1)
    assert again.batch.queries == range(3, 6)
    round_.send(Collected(again.batch, again.batch.answering))
    assert kinds(round_.send(Opened(again.batch))) == ["Settle", "Stop", "End"]


def test_two_querying_parties_on_one_account_share_what_is_left(build: Build) -> None:
    round_ = build(turn(0), turn(1), batch=2, budget=THREE_LABELS, scope=BudgetScope.COALITION)
    assert kinds(round_.send(None)) == ["SetUp", "SetUp"]
    (first,) = round_.send(Ready(Lane(1, 0)))
    assert len(first.batch.queries) == 2
    (second,) = round_.send(Ready(ONLY))
    assert len(second.batch.queries) == 1, "one label is left beside the two under way"
    # The first is lost: its party goes on with what it leaves, and the other, when it is through, has nothing.
    _, third = round_.send(Collected(first.batch, ()))
    assert third.batch == Batch(Lane(1, 0), 1, range(2, 4), first.batch.answering)
    round_.send(Collected(second.batch, second.batch.answering))
    assert kinds(round_.send(Opened(second.batch))) == ["Settle"], "it waits: the others' labels may still be lost"
    round_.send(Collected(third.batch, third.batch.answering))
    assert kinds(round_.send(Opened(third.batch))) == ["Settle", "Stop", "Stop", "End"]
    assert round_.ledger.charged(0) == 3


def test_who_waits_goes_on_when_the_others_batch_is_lost(build: Build) -> None:
    round_ = build(turn(0), turn(1), batch=3, budget=THREE_LABELS, scope=BudgetScope.COALITION)
    round_.send(None)
    (first,) = round_.send(Ready(Lane(1, 0)))
    assert round_.send(Ready(ONLY)) == []
    # Its own party comes first, and takes all that there is.
    commands = round_.send(Collected(first.batch, ()))
    assert [command.batch.querier for command in commands if isinstance(command, Ask)] == [1]
    round_.send(Collected(commands[-1].batch, ()))  # type: ignore[union-attr]
    assert round_.admission.affordable(0, 9) == 3


def test_whoever_waits_takes_each_room_that_comes_with_its_lowest_idle_lane(build: Build) -> None:
    first, second, third = (Lane(1, number) for number in range(3))
    round_ = build(turn(0, lanes=3), turn(1, queries=3, lanes=3), batch=1, budget=THREE_LABELS,
                   scope=BudgetScope.COALITION)  # fmt: skip
    round_.send(None)
    under_way = [only(round_.send(Ready(lane)), Ask).batch for lane in (first, second, third)]
    assert [round_.send(Ready(Lane(0, number))) for number in (2, 0, 1)] == [[], [], []]
    for lost, lane in zip(under_way, (ONLY, SECOND, Lane(0, 2)), strict=True):
        assert only(round_.send(Collected(lost, ())), Ask).batch.lane == lane


def test_who_can_pay_for_one_label_asks_for_it(build: Build) -> None:
    commands = build(turn(), budget=1.01 * Accountant(GNMAX, 1e-5).epsilon(1)).finish()
    assert [command.batch.queries for command in commands if isinstance(command, Ask)] == [range(1)]


def test_who_can_pay_for_nothing_sets_up_with_nobody(build: Build) -> None:
    assert kinds(build(turn(), budget=0.01).send(None)) == ["Stop", "End"]


@pytest.mark.parametrize("real", [True, False])
def test_a_resumed_flow_draws_and_charges_nothing_again(build: Build, real: bool) -> None:
    noise = RealNoise(GNMAX) if real else SimulatedNoise(GNMAX, Seeds(1))
    killed = build(turn(), noise=noise, budget=5.0)
    killed.send(None)
    (ask,) = killed.send(Ready(ONLY))
    killed.send(Collected(ask.batch, ask.batch.answering))
    labels = [entry["label"] for entry in killed.releases.entries]
    killed.ledger.close()
    killed.releases.close()
    resumed = build(turn(), noise=noise, budget=5.0)
    commands = resumed.finish()
    settled = [command for command in commands if isinstance(command, Settle)]
    assert settled[0].labels == tuple(labels)
    assert resumed.ledger.charged(0) == 6
    assert len(resumed.releases.entries) == 6


def test_a_label_that_a_kill_swallowed_stays_charged_and_leaves_less_to_ask(build: Build) -> None:
    killed = build(turn(), budget=THREE_LABELS, noise=RealNoise(GNMAX))
    killed.ledger.reserve(0, 0, "a draw that was lost", parties=(1, 2, 3, 4))
    killed.ledger.close()
    killed.releases.close()
    commands = build(turn(), budget=THREE_LABELS, noise=RealNoise(GNMAX)).finish()
    assert [len(command.batch.queries) for command in commands if isinstance(command, Ask)] == [2]
    assert "label 4 would take" in only(commands, Stop).why


def test_unanswered_queries_say_so_and_cost_less(build: Build) -> None:
    """Four votes never reach a hundred."""
    round_ = build(turn(queries=3), mechanism=ConfidentGNMax(1.0, 100, 1.0), budget=500.0)
    settled = only(round_.finish(), Settle)
    assert (settled.labels, settled.opened) == ((-1,) * 3, 3)
    assert all(why.startswith("unanswered: ") for why in settled.whys)


def test_a_turn_without_queries_is_no_turn(build: Build) -> None:
    assert kinds(build(turn(queries=0)).send(None)) == ["End"]
