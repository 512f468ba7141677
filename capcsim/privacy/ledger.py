"""The book of charges: a label is reserved here, durably, before its noise is drawn.

The budget is a filter: a reservation that would pass it is refused before anything changes. A query is reserved in
full, threshold test and argmax; then its label goes out; then the querying party, who alone learns it, reports whether
the query was answered. `release` makes the charge final, `refund` takes the argmax part back. Without a report the
charge stays whole. So where there is a threshold the guardian, who knows the noise, must not read this book: it only
needs to hear whether a reservation was accepted.

What stands outside the file, the run's manifest and the book of runs, hears of new charges by `commit`, before any
label of theirs goes out. Where the budget is one over all runs, each answering party has a further account, which
begins with what other runs took from the most exposed of its training records.

A kill at any moment loses no charge; a torn last line counts as a whole charge to every account, since it may have
been any's. With a data-dependent analysis the file holds what the votes were like, and is as private as they are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from capcsim.errors import InputError, PrivacyBudgetExceeded, RecordError
from capcsim.journal import Entry, Journal, Mark
from capcsim.privacy.accountant import Analysis
from capcsim.privacy.history import History
from capcsim.privacy.mechanisms import Event, describe
from capcsim.privacy.tally import WHOLE, Charge, Events, Key, Tally


class BudgetScope(StrEnum):
    """Whose loss a budget bounds, and who shares it.

    What one querying party learns (the paper's), what all learn if they pool it, or what all learn of each answering
    party, which pays for the queries in which its votes were counted.
    """

    QUERIER = "querier"
    COALITION = "coalition"
    PARTY = "party"


class Ledger:
    """Charges against one budget, kept in a journal; raises RecordError for a foreign or damaged file.

    `earlier[p]` is what other runs took from party p's records, where the budget is one over all runs; None where it is
    this run's alone. `witness` is called by `commit`. `durable` is as a Journal's.
    """

    def __init__(
        self,
        path: Path,
        accountant: Analysis,
        budget: float,
        scope: BudgetScope,
        *,
        earlier: Sequence[History] | None = None,
        witness: Callable[["Ledger"], None] = lambda _: None,
        durable: bool = True,
    ) -> None:
        self.accountant, self.budget, self.scope = accountant, budget, scope
        self._witness = witness
        self._earlier = {} if earlier is None else {_over_all_runs(p): each for p, each in enumerate(earlier)}
        self._journal = Journal(path, durable=durable)
        self._searched, self._most = 0, 0
        self._tally = Tally()
        try:
            self._replay()
        except RecordError:
            self._journal.close()
            raise

    def reserve(self, querier: int, query: int, draw: str, *, parties: Sequence[int] = (), log_q: float = 0.0) -> None:
        """Charge one query before its noise is drawn; raises PrivacyBudgetExceeded, changing nothing.

        `draw` names the draw of noise: the same draw for the same query, sent once more, costs nothing. `parties` are
        those whose votes are counted, `log_q` what a data-dependent analysis needs.
        """
        key = (querier, query, draw)
        if key in self._tally.charges:
            return
        charge = Charge(Event(log_q=log_q), tuple(sorted(set(parties))))
        for account in self.accounts(querier, charge.parties):
            if not self._fits(account, self._booked(account) + Counter([charge.event])):
                raise self._refusal(account, charge.event)
        entry: Entry = {"kind": "reserve", "querier": querier, "query": query, "draw": draw}
        if parties:
            entry["parties"] = list(charge.parties)
        if log_q:
            entry["log_q"] = log_q
        self._journal.append(entry)
        self._tally.book(key, charge, self.accounts(querier, charge.parties))

    def release(self, querier: int, query: int, draw: str) -> None:
        """The querying party's report that the query was answered: its charge is final."""
        self._report((querier, query, draw), answered=True)

    def refund(self, querier: int, query: int, draw: str) -> None:
        """The querying party's report that the query stayed unanswered: only the threshold test is charged."""
        self._report((querier, query, draw), answered=False)

    def commit(self) -> None:
        """Tell the witness what was reserved; call it before the labels go out. Raises what the witness raises."""
        self._witness(self)

    @property
    def mark(self) -> Mark:
        """Where its file stands."""
        return self._journal.mark

    def rebase(self, earlier: Sequence[History]) -> None:
        """Other runs took more from the records; raises RecordError where that leaves too little for this one."""
        self._earlier = {_over_all_runs(party): each for party, each in enumerate(earlier)}
        for account in self._earlier:
            if not self._fits(account, self._booked(account)):
                why = "what other runs took meanwhile leaves no room for the labels that were to go out now"
                raise RecordError(f"{self._journal.path}: {account}: {why}; give the same command again")

    def account(self, querier: int) -> str:
        """The account that a querying party's labels compete for."""
        return f"querier {querier}" if self.scope is BudgetScope.QUERIER and not self._earlier else "coalition"

    def accounts(self, querier: int, parties: Iterable[int]) -> tuple[str, ...]:
        """The accounts that a query of a querying party is charged to, whose counted voters belong to `parties`."""
        counted = sorted(set(parties))
        over_all_runs = tuple(map(_over_all_runs, counted)) if self._earlier else ()
        return self._scoped(querier, counted) + over_all_runs

    def charges(self) -> Mapping[Key, Charge]:
        """Every charge whose content is known."""
        return MappingProxyType(self._tally.charges)

    def torn(self) -> Events:
        """Charges of unknown content, for lines that were cut short."""
        return self._tally.of_unknown_content()

    def room(self, account: str, gone: Events, at_most: int) -> int:
        """How many more whole charges, up to `at_most`, an account pays for that has spent `gone` in this run."""
        before = self._labels_before(account)
        if before is not None:
            total = before + sum(gone.values())
            return max(0, self._affordable(total + at_most) - total)
        low, high = -1, at_most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._fits(account, gone + Counter({WHOLE: middle})) else (low, middle - 1)
        return max(low, 0)

    def refusal(self, querier: int, parties: Iterable[int] = ()) -> PrivacyBudgetExceeded:
        """The error that says why there is no room for one more label of a querying party, answered by `parties`."""
        accounts = self.accounts(querier, parties) or self._accounts_of(querier)
        fullest = max(accounts, key=lambda account: self._epsilon(account, self._events(account)))
        return self._refusal(fullest, WHOLE)

    def charged(self, querier: int) -> int:
        """Labels charged to a querying party's account; with a budget for each party, to the one with most of them."""
        return max(_labels(self._events(account)) for account in self._accounts_of(querier))

    def epsilon(self, querier: int) -> float:
        """Epsilon spent by a querying party's account; with a budget for each party, of the most exposed one."""
        return self._largest(self._events(account) for account in self._accounts_of(querier))

    def epsilon_coalition(self) -> float:
        """Epsilon of everything released, if all querying parties pooled their labels."""
        return self.accountant.epsilon_of(self.everything())

    def epsilon_party(self, party: int) -> float:
        """What all querying parties together learn of one answering party."""
        return self.accountant.epsilon_of(self.exposed(party))

    def exposed(self, party: int) -> Events:
        """Every query in which a party's votes were counted, or may have been."""
        return self._tally.exposed(party)

    def everything(self) -> Events:
        """Every charge, of whatever account."""
        return self._tally.everything()

    def epsilon_most_exposed(self) -> float:
        """What all querying parties together learn of the answering party whose votes were counted most."""
        return self._largest(self._tally.every_exposed())

    def close(self) -> None:
        """Release the file."""
        self._journal.close()

    def _report(self, key: Key, *, answered: bool) -> None:
        charge = self._tally.charges.get(key)
        if charge is None:
            raise InputError(f"query {key[1]} of querying party {key[0]}: no charge for draw {key[2]}")
        if self.accountant.mechanism.answers_every_query:
            raise InputError(f"{self.accountant.mechanism.name} answers every query: there is nothing to report")
        if charge.reported:
            if charge.event.answered is not answered:
                raise InputError(f"query {key[1]} of querying party {key[0]}: it was reported otherwise before")
            return
        kind = "release" if answered else "refund"
        self._journal.append({"kind": kind, **dict(zip(("querier", "query", "draw"), key, strict=True))})
        self._tally.settle(key, self.accounts(key[0], charge.parties), answered=answered)

    def _fits(self, account: str, events: Events) -> bool:
        """Whether an account may have spent these in this run."""
        before = self._labels_before(account)
        if before is not None:
            total = before + sum(events.values())
            return total <= self._affordable(total)
        return self._epsilon(account, events) <= self.budget

    def _epsilon(self, account: str, events: Events) -> float:
        """What an account has spent, with these in this run."""
        earlier = self._earlier.get(account)
        if earlier is None:
            return self.accountant.epsilon_of(events)
        return earlier.plus(self.accountant.mechanism, events).epsilon(self.accountant.delta)

    def _labels_before(self, account: str) -> int | None:
        """Labels of other runs on an account, where every one costs the same, so that one search serves them all."""
        if not self._counts_only():
            return None
        earlier = self._earlier.get(account, History())
        return earlier.labels if earlier.only(self.accountant.mechanism) else None

    def _counts_only(self) -> bool:
        """Whether every charge of this run is the same."""
        return self.accountant.foreseeable and self.accountant.mechanism.answers_every_query

    def _affordable(self, at_most: int) -> int:
        """How many whole charges the budget pays for on one account in all, up to `at_most`."""
        if at_most > self._searched:
            # Searched ahead, so that few epsilons are computed.
            self._searched = max(64, 2 * at_most)
            self._most = self.accountant.affordable(self.budget, self._searched)
        return min(self._most, at_most)

    def _refusal(self, account: str, event: Event) -> PrivacyBudgetExceeded:
        events = self._events(account) + Counter([event])
        earlier = self._earlier.get(account, History()).labels
        return PrivacyBudgetExceeded(account, earlier + _labels(events), self._epsilon(account, events), self.budget)

    def _largest(self, accounts: Iterable[Events]) -> float:
        """The largest epsilon; where charges are alike, of the account with most of them."""
        found = {frozenset(events.items()): events for events in accounts}
        if self._counts_only():
            return self.accountant.epsilon_of(max(found.values(), key=lambda events: sum(events.values())))
        return max(self.accountant.epsilon_of(events) for events in found.values())

    def _booked(self, account: str) -> Events:
        """Known charges of an account and all torn ones, any of which may have been its own."""
        return self._tally.spent(account) + self.torn()

    def _events(self, account: str) -> Events:
        """The same, less the torn ones that would have been refused to an account that was full."""
        spent, torn = self._tally.spent(account), self._tally.torn
        while torn and not self._fits(account, spent + Counter({WHOLE: torn})):
            torn -= 1
        return spent + Counter({WHOLE: torn})

    def _scoped(self, querier: int, parties: Iterable[int]) -> tuple[str, ...]:
        """The accounts of this run alone."""
        if self.scope is BudgetScope.PARTY:
            return tuple(f"party {party}" for party in parties)
        return (f"querier {querier}" if self.scope is BudgetScope.QUERIER else "coalition",)

    def _accounts_of(self, querier: int) -> tuple[str, ...]:
        """The accounts of this run that a querying party's charges went to; one without any where none did."""
        if self.scope is not BudgetScope.PARTY:
            return self._scoped(querier, ())
        parties = {
            party for key, charge in self._tally.charges.items() if key[0] == querier for party in charge.parties
        }
        return self._scoped(querier, sorted(parties)) or ("answering parties",)

    def _header(self) -> Entry:
        return {
            "kind": "open",
            "mechanism": describe(self.accountant.mechanism),
            "analysis": self.accountant.name,
            "delta": self.accountant.delta,
            "budget": self.budget,
            "scope": self.scope.value,
        }

    def _replay(self) -> None:
        """Rebuild the charges from the journal, or start it."""
        entries = [entry for entry in self._journal.entries if entry["kind"] != "torn"]
        torn = len(self._journal.entries) - len(entries)
        if not entries:
            # A header that was cut short: nothing can have been reserved before it was whole.
            self._journal.append(self._header())
            return
        if entries[0] != self._header():
            raise RecordError(f"{self._journal.path}: this ledger was kept for another budget or mechanism")
        torn_before_header = self._journal.entries.index(entries[0])
        self._tally.torn = torn - torn_before_header
        for entry in entries[1:]:
            key = (entry["querier"], entry["query"], entry["draw"])
            if entry["kind"] == "reserve":
                charge = Charge(Event(log_q=entry.get("log_q", 0.0)), tuple(entry.get("parties", ())))
                self._tally.book(key, charge, self.accounts(key[0], charge.parties))
            else:
                accounts = self.accounts(key[0], self._tally.charges[key].parties)
                self._tally.settle(key, accounts, answered=entry["kind"] == "release")


def _over_all_runs(party: int) -> str:
    return f"party {party} over all runs"


def _labels(events: Mapping[Event, int]) -> int:
    return sum(number for event, number in events.items() if event.answered)
