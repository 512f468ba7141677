"""Steps 2 and 3: the charge, the noise, the label (paper, section 3.2).

A query is reserved in the ledger before its noise is drawn, and what is opened is in the journal of releases before
anything else is done with it: sent again, it is neither drawn nor charged again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import VOTE_RING_BITS, Backend, ReleaseNoise, Session
from capcsim.crypto.shares import reconstruct
from capcsim.errors import InputError, PrivacyBudgetExceeded, RecordError
from capcsim.journal import Journal
from capcsim.privacy.ledger import Ledger
from capcsim.privacy.mechanisms import Event, NoiseKind
from capcsim.privacy.noise import Draw
from capcsim.privacy.tally import Events, Key
from capcsim.protocol.noise import NoiseSource
from capcsim.protocol.steps import Voter, Votes, answering, release_noise, sum_shares
from capcsim.twoparty.voting import noisy_argmax

Sums: TypeAlias = tuple[NDArray[np.uint64], NDArray[np.uint64]]


class Release(Protocol):
    """How step 3 is computed: the labels int64[B], -1 where unanswered, of a querying party's two sums."""

    def __call__(self, querier: int, sums: Sums, noise: ReleaseNoise) -> NDArray[np.int64]:
        """The sums are uint64[B, C] mod 2^32."""


def in_the_open(querier: int, sums: Sums, noise: ReleaseNoise) -> NDArray[np.int64]:  # noqa: ARG001
    """The same integers as the circuit's, without it."""
    return noisy_argmax(reconstruct(np.stack(sums), VOTE_RING_BITS), noise).labels


class Executed:
    """Step 3 on a backend, in one session with the guardian for each querying party."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._sessions: dict[int, Session] = {}

    def __call__(self, querier: int, sums: Sums, noise: ReleaseNoise) -> NDArray[np.int64]:
        """As Release says."""
        if querier not in self._sessions:
            self._sessions[querier], _ = self._backend.open(querier, None)
        return self._backend.release(self._sessions[querier], *sums, noise)[0].labels


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Steps 2 and 3 for one batch.

    `labels` int64[B] is -1 where there is none; `opened` bool[B] says which queries went through step 3, answered or
    not; `spent` is what that took from each account. Where the budget refused the others, `refusal` says why and
    `refused` names the account.
    """

    labels: NDArray[np.int64]
    opened: NDArray[np.bool_]
    spent: Mapping[str, Events]
    refused: str = ""
    refusal: str = ""


class Aggregator:
    """The guardian's and the querying parties' part of a round.

    `votes[q]` holds shares uint64[2, V, n, C] of every voter's votes on the n queries of querying party q; `releases`
    remembers each label that went out.
    """

    def __init__(
        self,
        voters: Sequence[Voter],
        votes: Sequence[Votes],
        *,
        ledger: Ledger,
        noise: NoiseSource,
        releases: Journal,
        release: Release = in_the_open,
    ) -> None:
        self._voters, self._votes = tuple(voters), votes
        self._ledger, self._noise, self._journal, self._release = ledger, noise, releases, release
        self._released = released(releases)

    def __call__(self, querier: int, queries: Sequence[int], counted: Sequence[int]) -> Aggregate:
        """Open a batch of queries with the voters that are counted.

        When the budget refuses, the rest of the batch stays unlabelled. Raises InputError when an own or unknown voter
        is counted.
        """
        counted = sorted(counted)
        allowed = {voter.index for voter in answering(self._voters, querier)}
        if not counted or not allowed.issuperset(counted):
            raise InputError(f"counted set {counted}: at least one voter, and none of querier {querier}'s own")
        key = "".join("1" if voter in set(counted) else "0" for voter in range(len(self._voters)))
        fresh = [query for query in queries if (querier, query, key) not in self._released]
        draws, refusal = self._reserve_and_draw(querier, fresh, counted)
        if draws:
            self._ledger.commit()
            self._open(querier, fresh[: len(draws)], counted, key, draws)
        found = [self._released.get((querier, query, key)) for query in queries]
        labels = np.array([-1 if each is None else each[0] for each in found], np.int64)
        spent: dict[str, Events] = {}
        for query, each in zip(queries, found, strict=True):
            if each is not None:
                self._settle((querier, query, each[1]), counted, spent, answered=each[0] >= 0)
        why = ("", "") if refusal is None else (refusal.account, str(refusal))
        return Aggregate(labels, np.array([each is not None for each in found], np.bool_), spent, *why)

    def _reserve_and_draw(
        self, querier: int, queries: Sequence[int], counted: Sequence[int]
    ) -> tuple[list[tuple[str, Draw]], PrivacyBudgetExceeded | None]:
        """Named noise for as many of the queries as the budget allows, and why it stopped."""
        draws: list[tuple[str, Draw]] = []
        classes = self._votes[querier].shape[-1]
        for query in queries:
            name, log_q = self._noise.name(querier, query, counted), self._log_q(querier, query, counted)
            try:
                self._ledger.reserve(querier, query, name, parties=self._parties(counted), log_q=log_q)
            except PrivacyBudgetExceeded as refused:
                return draws, refused
            draws.append((name, self._noise.draw(name, querier, query, classes)))
        return draws, None

    def _log_q(self, querier: int, query: int, counted: Sequence[int]) -> float:
        """What a data-dependent analysis needs of the votes; in life nobody could compute it."""
        if self._ledger.accountant.foreseeable:
            return 0.0
        from capcsim.privacy.theorem6 import log_q

        counts = reconstruct(np.stack(self._sums(querier, [query], counted)), VOTE_RING_BITS)
        return float(log_q(counts, self._ledger.accountant.mechanism.argmax, NoiseKind.DISCRETE)[0])

    def _open(
        self, querier: int, rows: Sequence[int], counted: Sequence[int], key: str, draws: list[tuple[str, Draw]]
    ) -> None:
        """Step 3 for queries that were reserved; what comes out is written down before anything else is done."""
        noise = release_noise(self._ledger.accountant.mechanism, [drawn for _, drawn in draws], len(self._voters))
        labels = self._release(querier, self._sums(querier, rows, counted), noise)
        for query, (draw, _), label in zip(rows, draws, labels, strict=True):
            entry = {"querier": querier, "query": query, "counted": key, "draw": draw, "label": int(label)}
            self._journal.append({"kind": "release", **entry})
            self._released[querier, query, key] = int(label), draw

    def _settle(self, key: Key, counted: Sequence[int], spent: dict[str, Events], *, answered: bool) -> None:
        """The querying party's report to the ledger, where there is one to make; and what was spent."""
        if not self._ledger.accountant.mechanism.answers_every_query:
            (self._ledger.release if answered else self._ledger.refund)(*key)
        for account in self._ledger.accounts(key[0], self._parties(counted)):
            spent.setdefault(account, Counter())[Event(answered)] += 1

    def _sums(self, querier: int, rows: Sequence[int], counted: Sequence[int]) -> Sums:
        """Both sides sum exactly the counted shares."""
        return sum_shares(self._votes[querier][:, list(counted)][:, :, list(rows)])

    def _parties(self, counted: Sequence[int]) -> list[int]:
        return sorted({self._voters[voter].party for voter in counted})


def released(releases: Journal) -> dict[tuple[int, int, str], tuple[int, str]]:
    """By querying party, query and counted set: the label that went out, and the name of its draw."""
    return {
        (entry["querier"], entry["query"], entry["counted"]): (int(entry["label"]), str(entry["draw"]))
        for entry in releases.entries
        if entry["kind"] == "release"
    }


def lost_charges(ledger: Ledger, releases: Journal, *, repeats: bool) -> dict[str, Events]:
    """By account, what a killed run charged for labels that will never come: none where the noise `repeats`.

    Lines that were cut short count on every account. Raises RecordError for a label without a charge.
    """
    charges, labelled = ledger.charges(), _labelled(releases)
    if not labelled <= charges.keys():
        querier, query, _ = min(labelled - charges.keys())
        raise RecordError(
            f"{releases.path}: the label of query {query} of querying party {querier} went out, but the"
            " ledger has no charge for it; restore the ledger from a copy"
        )
    lost: dict[str, Events] = {}
    for key in () if repeats else charges.keys() - labelled:
        for account in ledger.accounts(key[0], charges[key].parties):
            lost.setdefault(account, Counter())[charges[key].event] += 1
    return lost


def unlabelled_charges(ledger: Ledger, releases: Journal) -> Counter[int]:
    """By querying party, the charges that no label went out for: a killed run had made them, or was cut short.

    Lines of the ledger that were cut short may have been anybody's: `Ledger.torn` has these.
    """
    return Counter(querier for querier, _, _ in ledger.charges().keys() - _labelled(releases))


def _labelled(releases: Journal) -> set[Key]:
    return {(querier, query, draw) for (querier, query, _), (_, draw) in released(releases).items()}
