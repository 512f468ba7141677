"""Charges as they add up: by key, by account, and by the party whose votes were counted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from capcsim.privacy.mechanisms import Event

Key: TypeAlias = tuple[int, int, str]
"""(querier, query, draw)."""
Events: TypeAlias = Counter[Event]
WHOLE = Event()


@dataclass(frozen=True, slots=True)
class Charge:
    """One reservation: what it pays for, whose votes were counted, whether the querying party has reported."""

    event: Event
    parties: tuple[int, ...]
    reported: bool = False


class Tally:
    """What a ledger holds. `torn` lines were cut short: each may be a whole charge to any account."""

    def __init__(self) -> None:
        self.charges: dict[Key, Charge] = {}
        self.torn = 0
        self._spent: dict[str, Events] = {}
        self._exposed: dict[int, Events] = {}

    def book(self, key: Key, charge: Charge, accounts: Sequence[str]) -> None:
        """Add a charge, to these accounts."""
        self.charges[key] = charge
        for events in self._touched(charge, accounts):
            events[charge.event] += 1

    def settle(self, key: Key, accounts: Sequence[str], *, answered: bool) -> None:
        """Replace a charge by what was reported."""
        before = self.charges[key]
        # Without an argmax there is nothing that depends on the votes.
        event = before.event if answered else Event(answered=False)
        self.charges[key] = replace(before, event=event, reported=True)
        for events in self._touched(before, accounts):
            events[before.event] -= 1
            events[event] += 1

    def spent(self, account: str) -> Events:
        """Known charges of an account."""
        return self._spent.get(account, Counter())

    def exposed(self, party: int) -> Events:
        """Every query in which a party's votes were counted, or may have been."""
        return self._exposed.get(party, Counter()) + self.of_unknown_content()

    def every_exposed(self) -> Iterator[Events]:
        """The same for every party, and for one that was never counted."""
        yield self.of_unknown_content()
        yield from map(self.exposed, self._exposed)

    def everything(self) -> Events:
        """Every charge, of whatever account."""
        return Counter(charge.event for charge in self.charges.values()) + self.of_unknown_content()

    def of_unknown_content(self) -> Events:
        """Whole charges for the lines that were cut short."""
        return Counter({WHOLE: self.torn}) if self.torn else Counter()

    def _touched(self, charge: Charge, accounts: Sequence[str]) -> Iterator[Events]:
        """The accounts that a charge is in, and what is kept of each party's exposure."""
        for account in accounts:
            yield self._spent.setdefault(account, Counter())
        for party in charge.parties:
            yield self._exposed.setdefault(party, Counter())
