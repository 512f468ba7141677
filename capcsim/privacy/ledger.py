"""The privacy guardian's book of charges: a label is reserved here, durably, before it is released.

The budget is a filter: a reservation that would pass it is refused before anything changes. A kill at any
moment loses no charge; a torn last line counts as a charge to every account, since it may have been any's.
"""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

from capcsim.errors import PrivacyBudgetExceeded, RecordError
from capcsim.journal import Entry, Journal
from capcsim.privacy.accountant import Accountant


class BudgetScope(StrEnum):
    """Who shares a budget: each querying party has its own (the paper's), or all may pool what they learn."""

    QUERIER = "querier"
    COALITION = "coalition"


class Ledger:
    """Charges against one budget, kept in a journal; raises RecordError for a foreign or damaged file."""

    def __init__(self, path: Path, accountant: Accountant, budget: float, scope: BudgetScope) -> None:
        self.accountant, self.budget, self.scope = accountant, budget, scope
        self._journal = Journal(path)
        self._searched, self._most = 0, 0
        self._reserved: set[tuple[int, int, str]] = set()
        self._charges: dict[str, int] = {}
        self._torn = 0
        try:
            self._replay()
        except RecordError:
            self._journal.close()
            raise

    def reserve(self, querier: int, query: int, draw: str) -> None:
        """Charge one label before its noise is drawn; raises PrivacyBudgetExceeded, changing nothing.

        `draw` names the draw of noise: the same draw for the same query, sent once more, costs nothing.
        """
        key = (querier, query, draw)
        if key in self._reserved:
            return
        label = self._booked(querier) + 1
        if label > self.affordable(label):
            raise self.refusal(querier, label)
        self._journal.append({"kind": "reserve", "querier": querier, "query": query, "draw": draw})
        self._book(key)

    def account(self, querier: int) -> str:
        """The account that a querying party draws on."""
        return f"querier {querier}" if self.scope is BudgetScope.QUERIER else "coalition"

    def reserved(self) -> frozenset[tuple[int, int, str]]:
        """Every charge whose content is known: (querier, query, draw)."""
        return frozenset(self._reserved)

    def torn(self) -> int:
        """Charges of unknown content: lines that were cut short."""
        return self._torn

    def affordable(self, at_most: int) -> int:
        """How many labels the budget pays for on one account in all, up to `at_most`."""
        if at_most > self._searched:
            # Searched ahead, so that few epsilons are computed.
            self._searched = max(64, 2 * at_most)
            self._most = self.accountant.affordable(self.budget, self._searched)
        return min(self._most, at_most)

    def refusal(self, querier: int, label: int) -> PrivacyBudgetExceeded:
        """The error that says why the budget has no room for the label of this number."""
        return PrivacyBudgetExceeded(self.account(querier), label, self.accountant.epsilon(label), self.budget)

    def charged(self, querier: int) -> int:
        """Labels charged to a querying party's account."""
        booked = self._booked(querier)
        # A torn line cannot have been the charge of an account that was full: it would have been refused.
        return min(booked, max(booked - self._torn, self.affordable(booked)))

    def epsilon(self, querier: int) -> float:
        """Epsilon spent by a querying party's account."""
        return self.accountant.epsilon(self.charged(querier))

    def epsilon_coalition(self) -> float:
        """Epsilon of everything released, if all querying parties pooled their labels."""
        return self.accountant.epsilon(len(self._reserved) + self._torn)

    def close(self) -> None:
        """Release the file."""
        self._journal.close()

    def _booked(self, querier: int) -> int:
        """Known charges of an account and all torn ones, any of which may have been its own."""
        return self._charges.get(self.account(querier), 0) + self._torn

    def _header(self) -> Entry:
        mechanism = self.accountant.mechanism
        return {
            "kind": "open",
            "mechanism": {"name": type(mechanism).__name__, **asdict(mechanism)},
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
        self._torn = torn - torn_before_header
        for entry in entries[1:]:
            self._book((entry["querier"], entry["query"], entry["draw"]))

    def _book(self, key: tuple[int, int, str]) -> None:
        account = self.account(key[0])
        self._reserved.add(key)
        self._charges[account] = self._charges.get(account, 0) + 1
