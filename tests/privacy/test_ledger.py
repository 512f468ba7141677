import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from capcsim.errors import InputError, PrivacyBudgetExceeded, RecordError
from capcsim.journal import read_journal
from capcsim.privacy.accountant import Accountant, PaperAccountant
from capcsim.privacy.history import WHOLE, History
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import ConfidentGNMax, Event, GNMax

BUDGET = 3.0  # at sigma 7 and delta 1e-5: 12 labels


def open_ledger(path: Path, scope: BudgetScope = BudgetScope.QUERIER, budget: float = BUDGET) -> Ledger:
    return Ledger(path, Accountant(GNMax(7.0), 1e-5), budget, scope)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    found = open_ledger(tmp_path / "ledger.jsonl")
    yield found
    found.close()


def spend_all(ledger: Ledger, querier: int) -> int:
    """Reserve fresh draws until the ledger refuses; returns how many labels went through."""
    for query in range(1000):
        try:
            ledger.reserve(querier, query, f"fresh {query}")
        except PrivacyBudgetExceeded:
            return query
    raise AssertionError("the budget never ran out")


def test_the_budget_is_used_up_and_never_passed(ledger: Ledger) -> None:
    labels = spend_all(ledger, 0)
    assert labels == ledger.accountant.affordable(BUDGET, at_most=1000) == ledger.charged(0)
    assert ledger.epsilon(0) <= BUDGET < ledger.accountant.epsilon(labels + 1)


def test_a_refusal_says_what_would_have_happened_and_changes_nothing(ledger: Ledger) -> None:
    labels = spend_all(ledger, 0)
    before = Path(ledger._journal.path).read_bytes()
    with pytest.raises(PrivacyBudgetExceeded, match=rf"querier 0: label {labels + 1} would take epsilon to 3\."):
        ledger.reserve(0, 999, "another draw")
    assert Path(ledger._journal.path).read_bytes() == before
    assert ledger.charged(0) == labels


def test_each_querier_has_its_own_budget_or_all_share_one(tmp_path: Path) -> None:
    own = open_ledger(tmp_path / "own.jsonl")
    shared = open_ledger(tmp_path / "shared.jsonl", BudgetScope.COALITION)
    assert spend_all(own, 0) == spend_all(own, 1)
    assert spend_all(shared, 0) > 0
    assert spend_all(shared, 1) == 0
    assert own.epsilon_coalition() > BUDGET >= shared.epsilon_coalition()


def test_the_same_draw_sent_again_is_one_charge_and_a_fresh_draw_another(ledger: Ledger) -> None:
    ledger.reserve(0, 5, "a")
    ledger.reserve(0, 5, "a")
    assert ledger.charged(0) == 1
    ledger.reserve(0, 5, "b")
    assert ledger.charged(0) == 2


def test_charges_outlive_the_process(ledger: Ledger) -> None:
    for query in range(3):
        ledger.reserve(1, query, str(query))
    ledger.close()
    again = open_ledger(Path(ledger._journal.path))
    assert again.charged(1) == 3
    assert again.charged(0) == 0
    again.reserve(1, 2, "2")
    assert again.charged(1) == 3


@pytest.mark.parametrize(("scope", "budget"), [(BudgetScope.COALITION, BUDGET), (BudgetScope.QUERIER, BUDGET + 1)])
def test_a_ledger_kept_for_something_else_is_refused(ledger: Ledger, scope: BudgetScope, budget: float) -> None:
    ledger.close()
    with pytest.raises(RecordError, match="another budget or mechanism"):
        open_ledger(Path(ledger._journal.path), scope, budget)


def test_a_torn_line_is_a_charge_to_everybody(ledger: Ledger) -> None:
    for query in range(3):
        ledger.reserve(0, query, str(query))
    ledger.close()
    path = Path(ledger._journal.path)
    path.write_bytes(path.read_bytes()[:-9])
    again = open_ledger(path)
    assert again.charged(0) == 3
    assert again.charged(1) == 1
    again.close()
    assert open_ledger(path).charged(0) == 3


KILLS = """
import os, signal, sys
from pathlib import Path
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.history import WHOLE, History
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import GNMax

folder, write, sync = Path(sys.argv[1]), os.write, os.fsync
Accountant(GNMax(7.0), 1e-5).affordable(3.0, at_most=64)  # computed once, before the forks

def guardian(path, fatal_call, quarters, out):
    calls = 0

    def die_at_the_fatal_call(act):
        nonlocal calls
        calls += 1
        if calls == fatal_call:
            act()
            os.kill(os.getpid(), signal.SIGKILL)

    def writing(handle, data):
        die_at_the_fatal_call(lambda: write(handle, data[: len(data) * quarters // 4]))
        return write(handle, data)

    def syncing(handle):
        die_at_the_fatal_call(lambda: None)
        sync(handle)

    os.write, os.fsync = writing, syncing
    ledger = Ledger(path, Accountant(GNMax(7.0), 1e-5), 3.0, BudgetScope.QUERIER)
    for query in range(4):
        ledger.reserve(0, query, f"draw {query}")
        write(out, b"x")  # the label goes out only now

for quarters in (0, 2, 4):
    fatal_call, status = 0, -1
    while status != 0:
        fatal_call += 1
        path = folder / f"{fatal_call}-{quarters}.jsonl"
        back, out = os.pipe()
        child = os.fork()
        if child == 0:
            guardian(path, fatal_call, quarters, out)
            os._exit(0)
        os.close(out)
        released = b"".join(iter(lambda: os.read(back, 100), b""))
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        print(path, len(released), flush=True)
"""


def test_kill_9_at_any_write_loses_no_charge(tmp_path: Path) -> None:
    """Kill the guardian at each write and each sync in turn, with none, half or all of the line written."""
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    kills = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    assert len(kills) > 3 * 10, "too few kills to mean anything"
    for path, count in kills:
        ledger, released = open_ledger(Path(path)), int(count)
        charged = ledger.charged(0)
        assert released <= charged <= released + 1, path
        assert spend_all(ledger, 0) + charged == 12, f"{path}: the budget was passed"
        ledger.close()
        open_ledger(Path(path)).close()
    assert int(kills[-1][1]) == 4


def test_the_file_is_lines_of_json_that_others_can_read(ledger: Ledger) -> None:
    ledger.reserve(2, 4, "abc")
    path = Path(ledger._journal.path)
    bodies = [json.loads(line.split(" ", 1)[1]) for line in path.read_text().splitlines()]
    assert bodies == read_journal(path)
    assert bodies[0]["mechanism"] == {"name": "GNMax", "sigma": 7.0, "moved_votes": 1, "adjacency": "replace"}
    assert bodies[1] == {"kind": "reserve", "querier": 2, "query": 4, "draw": "abc"}


CONFIDENT = ConfidentGNMax(7.0, 30, 20.0)


def open_confident(path: Path, scope: BudgetScope = BudgetScope.QUERIER) -> Ledger:
    return Ledger(path, Accountant(CONFIDENT, 1e-5), BUDGET, scope)


@pytest.mark.parametrize("scope", list(BudgetScope))
def test_a_query_is_reserved_in_full_and_the_argmax_refunded(tmp_path: Path, scope: BudgetScope) -> None:
    ledger = open_confident(tmp_path / "ledger.jsonl", scope)
    for query, draw in enumerate("abc"):
        ledger.reserve(0, query, draw, parties=[1, 2])
    assert ledger.epsilon(0) == ledger.accountant.epsilon_of(Counter([Event()] * 3))
    ledger.release(0, 0, "a")
    ledger.refund(0, 1, "b")
    ledger.refund(0, 1, "b")
    expected = Accountant(CONFIDENT, 1e-5).epsilon(2, unanswered=1)
    ledger.close()
    again = open_confident(tmp_path / "ledger.jsonl", scope)
    for book in (ledger, again):
        assert book.epsilon(0) == book.epsilon_coalition() == book.epsilon_party(2) == expected
        assert book.charged(0) == 2


def test_refunds_leave_room_and_never_let_the_budget_pass(tmp_path: Path) -> None:
    ledger = open_confident(tmp_path / "ledger.jsonl")
    whole = Accountant(CONFIDENT, 1e-5).affordable(BUDGET, at_most=1000)
    reserved, refused = 0, False
    while not refused:
        try:
            ledger.reserve(0, reserved, "draw")
        except PrivacyBudgetExceeded:
            refused = True
        else:
            assert ledger.epsilon(0) <= BUDGET
            if reserved % 4:
                ledger.refund(0, reserved, "draw")
            reserved += 1
    assert reserved > 2 * whole > 0
    assert ledger.epsilon(0) <= BUDGET


def test_reports_must_fit_the_charges(tmp_path: Path, ledger: Ledger) -> None:
    confident = open_confident(tmp_path / "confident.jsonl")
    confident.reserve(0, 1, "a")
    with pytest.raises(InputError, match="no charge for draw b"):
        confident.refund(0, 1, "b")
    confident.release(0, 1, "a")
    with pytest.raises(InputError, match="reported otherwise before"):
        confident.refund(0, 1, "a")
    ledger.reserve(0, 1, "a")
    with pytest.raises(InputError, match="gnmax answers every query"):
        ledger.refund(0, 1, "a")


def test_answering_parties_have_budgets_of_their_own(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "parties.jsonl", BudgetScope.PARTY)
    for query in range(12):
        ledger.reserve(query % 2, query, "draw", parties=[2, 3])
    with pytest.raises(PrivacyBudgetExceeded, match="privacy budget of party 3"):
        ledger.reserve(0, 12, "draw", parties=[3, 4])
    ledger.reserve(0, 13, "draw", parties=[4])
    assert ledger.epsilon_party(4) == ledger.accountant.epsilon_of(Counter([Event()]))
    assert ledger.epsilon_most_exposed() == ledger.epsilon_party(2) == ledger.epsilon(1)


def test_a_data_dependent_ledger_remembers_what_the_votes_were_like(tmp_path: Path) -> None:
    def opened() -> Ledger:
        return Ledger(tmp_path / "paper.jsonl", PaperAccountant(GNMax(7.0), 1e-5), 8.0, BudgetScope.QUERIER)

    ledger = opened()
    for query in range(5):
        ledger.reserve(0, query, "draw", log_q=-25.0)
    spent = ledger.epsilon(0)
    assert 0 < spent < PaperAccountant(GNMax(7.0), 1e-5).epsilon_of(Counter([Event()] * 5))
    ledger.close()
    again = opened()
    assert again.epsilon(0) == spent
    again.close()
    with pytest.raises(RecordError, match="another budget or mechanism"):
        open_ledger(tmp_path / "paper.jsonl", budget=8.0)


@pytest.mark.parametrize("scope", list(BudgetScope))
def test_a_budget_over_all_runs_begins_with_what_others_took(tmp_path: Path, scope: BudgetScope) -> None:
    """12 labels fit; party 3's records have paid for 9 of them elsewhere, so that a set with it gets 3 more."""
    earlier = [History().plus(GNMax(7.0), {WHOLE: 9 if party == 3 else 0}) for party in range(5)]
    accountant = Accountant(GNMax(7.0), 1e-5)
    ledger = Ledger(tmp_path / "ledger.jsonl", accountant, BUDGET, scope, earlier=earlier)
    account = "party 3 over all runs"
    assert account in ledger.accounts(0, [2, 3])
    assert ledger.room(account, Counter(), 40) == 3
    for query in range(3):
        ledger.reserve(query % 2, query, "draw", parties=[2, 3])
    with pytest.raises(PrivacyBudgetExceeded, match=r"party 3 over all runs: label 13 would take epsilon to 3\."):
        ledger.reserve(0, 3, "draw", parties=[3, 4])
    ledger.reserve(0, 4, "draw", parties=[2, 4])
    assert ledger.epsilon(0) == accountant.epsilon(3 if scope is BudgetScope.QUERIER else 4)


def test_a_budget_over_all_runs_counts_other_mechanisms_too(tmp_path: Path) -> None:
    earlier = [History().plus(GNMax(20.0), {WHOLE: 40})] * 2
    ledger = Ledger(tmp_path / "l.jsonl", Accountant(GNMax(7.0), 1e-5), BUDGET, BudgetScope.QUERIER, earlier=earlier)
    fits = ledger.room("party 1 over all runs", Counter(), 40)
    total = earlier[0].plus(GNMax(7.0), {WHOLE: fits})
    assert 0 < fits < 12
    assert total.epsilon(1e-5) <= BUDGET < total.plus(GNMax(7.0), {WHOLE: 1}).epsilon(1e-5)
    for query in range(fits):
        ledger.reserve(0, query, "draw", parties=[1])
    with pytest.raises(PrivacyBudgetExceeded, match="over all runs"):
        ledger.reserve(0, fits, "draw", parties=[1])


def test_what_others_take_meanwhile_counts(tmp_path: Path) -> None:
    accountant = Accountant(GNMax(7.0), 1e-5)
    ledger = Ledger(tmp_path / "l.jsonl", accountant, BUDGET, BudgetScope.QUERIER, earlier=[History()] * 2)
    for query in range(3):
        ledger.reserve(0, query, "draw", parties=[1])
    ledger.rebase([History().plus(GNMax(7.0), {WHOLE: 9})] * 2)
    assert ledger.room("party 1 over all runs", Counter({WHOLE: 3}), 9) == 0
    with pytest.raises(RecordError, match="leaves no room for the labels that were to go out"):
        ledger.rebase([History().plus(GNMax(7.0), {WHOLE: 10})] * 2)


def test_the_witness_hears_of_charges_when_they_are_committed(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    accountant = Accountant(GNMax(7.0), 1e-5)
    witness = lambda ledger: heard.append((ledger.mark.count, sum(ledger.exposed(4).values())))  # noqa: E731
    ledger = Ledger(tmp_path / "l.jsonl", accountant, BUDGET, BudgetScope.QUERIER, witness=witness)
    ledger.reserve(0, 0, "a", parties=[3, 4])
    ledger.reserve(0, 1, "b", parties=[3])
    assert heard == []
    ledger.commit()
    assert heard == [(3, 1)]
