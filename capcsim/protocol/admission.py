"""Who may still ask: what each account can pay for, beside what is under way.

A batch travels only when its querying party's account can pay for every label in it besides those under way, so that
nobody works for a label that would be refused.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

from capcsim.privacy.ledger import Ledger
from capcsim.privacy.tally import Events
from capcsim.protocol.aggregate import Aggregate

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Admission:
    """One for all querying parties of a run, over all its rounds.

    `answering` gives the parties that answer a querying party; `lost` is what an earlier part of the run spent in vain,
    by account. The ledger is only asked: what was spent is what `settle` is told.
    """

    def __init__(
        self,
        ledger: Ledger,
        answering: Callable[[int], Iterable[int]],
        lost: Mapping[str, Events] = NOTHING,
        refusals: Mapping[str, str] = NOTHING,
    ) -> None:
        self._ledger, self._answering = ledger, answering
        self._gone: dict[str, Events] = dict(lost)
        self._refusals = dict(refusals)
        self._under_way: Counter[str] = Counter()

    def scratch(self) -> Self:
        """A copy that goes its own way, before anything is under way."""
        return type(self)(self._ledger, self._answering, self._gone, self._refusals)

    def account(self, querier: int) -> str:
        """The account that a querying party's labels compete for."""
        return self._ledger.account(querier)

    def admit(self, querier: int, wanted: int) -> int:
        """How many queries, up to `wanted`, may travel now; they are under way from here on."""
        account = self.account(querier)
        under_way = self._under_way[account]
        size = max(0, min(wanted, self.affordable(querier, under_way + wanted) - under_way))
        self._under_way[account] += size
        return size

    def waits(self, querier: int) -> bool:
        """Whether labels under way could still go without a charge, for lack of a quorum say."""
        return self._under_way[self.account(querier)] > 0

    def affordable(self, querier: int, at_most: int) -> int:
        """How many more labels, up to `at_most`, can be released to a querying party, those under way included.

        Where the analysis looks at the votes nobody knows beforehand: all of them, until the budget has refused one.
        """
        accounts = self.accounts(querier)
        if not self._ledger.accountant.foreseeable:
            return 0 if self._refusals.keys() & set(accounts) else at_most
        torn = self._ledger.torn()
        return min(self._ledger.room(each, self._gone.get(each, Counter()) + torn, at_most) for each in accounts)

    def arrived(self, querier: int, queries: int) -> None:
        """So many queries are under way no more: each is settled or lost in this same instant."""
        self._under_way[self.account(querier)] -= queries

    def settle(self, found: Aggregate) -> None:
        """What opening a batch has spent, and which account had no more."""
        for account, events in found.spent.items():
            self._gone[account] = self._gone.get(account, Counter()) + events
        if found.refused:
            self._refusals[found.refused] = found.refusal

    def refusal(self, querier: int) -> str:
        """Why there is no room for one more label."""
        told = [self._refusals[account] for account in self.accounts(querier) if account in self._refusals]
        return told[-1] if told else str(self._ledger.refusal(querier, set(self._answering(querier))))

    def accounts(self, querier: int) -> tuple[str, ...]:
        """The accounts that may have to pay for a query of a querying party."""
        return self._ledger.accounts(querier, set(self._answering(querier)))
