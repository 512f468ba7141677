"""CaPC, steps 1a to 3 of the paper (section 3.2), over any backend.

A `Collaboration` is what the parties and the privacy guardian hold between them. The pair steps (1a to 1c)
give shares of one-hot votes; `aggregate` is step 2 and 3 for a counted set that somebody else fixes: in a
simulation, the world, at the simulated time of step 2. Both sides sum exactly that set.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import (
    VOTE_RING_BITS,
    Backend,
    Prepared,
    Release,
    ReleaseNoise,
    Scope,
    Session,
    Shares,
    Transcript,
)
from capcsim.crypto.programs import Mark, Recv, Send, Steps
from capcsim.crypto.shares import reconstruct, ring_mask, share
from capcsim.crypto.voting import noisy_argmax, one_hot_argmax
from capcsim.errors import InputError, PrivacyBudgetExceeded, RecordError
from capcsim.journal import Journal
from capcsim.privacy.ledger import Events, Ledger
from capcsim.privacy.mechanisms import ConfidentGNMax, Event, GNMax, LNMax, Mechanism, NoiseKind
from capcsim.privacy.noise import Draw, largest_noise, real_draw, simulated_draw
from capcsim.scenario import Scenario
from capcsim.seeds import Seeds

Votes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Voter:
    """One answering model: `index` counts all of them, `party` owns it."""

    index: int
    party: int
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """Steps 1a to 1c of one pair: what was computed, and what that took."""

    logits: Shares
    votes: Shares
    infer: Transcript
    argmax: Transcript


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Steps 2 and 3 for one batch.

    `labels` int64[B] is -1 where there is none; `opened` bool[B] says which queries went through step 3, answered or
    not; `refusal` says why the others did not, if the budget refused.
    """

    labels: NDArray[np.int64]
    opened: NDArray[np.bool_]
    refusal: str


def answer(backend: Backend, session: Session, x: NDArray[np.float32]) -> PairOutcome:
    """Steps 1a, 1b, 1c between a querying and an answering party, on x float32[B, *shape]."""
    logits, infer = backend.infer(session, x)
    votes, argmax = backend.argmax(session, logits)
    return PairOutcome(logits, votes, infer, argmax)


def share_votes(logits: NDArray[np.int64]) -> Votes:
    """Fresh shares uint64[2, B, C] of the one-hot votes for logits int64[B, C]."""
    return share(one_hot_argmax(logits), VOTE_RING_BITS)


class NoiseSource(Protocol):
    """Where the guardian's noise comes from. A draw is named before it is made, for the ledger.

    `repeats` says whether a run that is done again makes the same draws, under the same names.
    """

    repeats: ClassVar[bool]

    def name(self, querier: int, query: int, counted: Sequence[int]) -> str:
        """The name of the next draw for this query and counted set."""

    def draw(self, name: str, querier: int, query: int, classes: int) -> Draw:
        """All the noise for one query, for the draw of this name."""


class RealNoise:
    """Noise from the operating system's generator: each draw is a new one."""

    repeats: ClassVar[bool] = False

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism

    def name(self, querier: int, query: int, counted: Sequence[int]) -> str:  # noqa: ARG002
        """A name never used before."""
        return secrets.token_hex(8)

    def draw(self, name: str, querier: int, query: int, classes: int) -> Draw:  # noqa: ARG002
        """All the noise for one query."""
        return real_draw(self._mechanism, 1, classes)


class SimulatedNoise:
    """Seeded noise: the same query and counted set get the same draw, in any run with the seed."""

    repeats: ClassVar[bool] = True

    def __init__(self, mechanism: Mechanism, seeds: Seeds) -> None:
        self._mechanism, self._seeds = mechanism, seeds

    def name(self, querier: int, query: int, counted: Sequence[int]) -> str:
        """The same name for the same query and counted set."""
        return sha256(repr((querier, query, tuple(counted))).encode()).hexdigest()[:16]

    def draw(self, name: str, querier: int, query: int, classes: int) -> Draw:
        """All the noise for one query."""
        return simulated_draw(
            self._mechanism, 1, classes, self._seeds.generator("noise", querier, query, int(name, 16))
        )


class Collaboration:
    """The parties' votes and the guardian's duties, for one run.

    `votes[q]` holds shares uint64[2, V, n, C] of every voter's votes on the n queries of querying party q.
    `releases` remembers each label that went out: sent again, it is neither drawn nor charged again. Raises
    RecordError when one of them has no charge in the ledger. With a `backend`, step 3 is really executed on it;
    without, the same integers are computed in the open.
    """

    def __init__(
        self,
        voters: Sequence[Voter],
        votes: Sequence[Votes],
        *,
        ledger: Ledger,
        noise: NoiseSource,
        releases: Journal,
        backend: Backend | None = None,
    ) -> None:
        self.voters, self.votes, self.ledger = tuple(voters), votes, ledger
        self._noise, self._journal, self._backend = noise, releases, backend
        self._guardian_sessions: dict[int, Session] = {}
        earlier = [entry for entry in releases.entries if entry["kind"] == "release"]
        self._released = {
            (entry["querier"], entry["query"], entry["counted"]): int(entry["label"]) for entry in earlier
        }
        self._settled: dict[str, Events] = {}
        self._refusals: dict[str, str] = {}
        self._lost = self._lost_charges({(entry["querier"], entry["query"], entry["draw"]) for entry in earlier})
        self._draws = {(entry["querier"], entry["query"], entry["counted"]): str(entry["draw"]) for entry in earlier}

    def extend(self, voters: Sequence[Voter], votes: Sequence[Votes]) -> None:
        """Go on with a further round: the voters' present models, and all votes, earlier queries' included.

        Raises InputError where an earlier vote is not among them.
        """
        shorter = any(new.shape[2] < old.shape[2] for new, old in zip(votes, self.votes, strict=True))
        if len(voters) != len(self.voters) or shorter:
            raise InputError("a further round needs the same voters, and the votes of all rounds before it")
        self.voters, self.votes = tuple(voters), votes

    def answering(self, querier: int) -> tuple[Voter, ...]:
        """Every voter but the querying party's own: it never answers its own query."""
        return tuple(voter for voter in self.voters if voter.party != querier)

    def affordable(self, querier: int, at_most: int) -> int:
        """How many more labels, up to `at_most`, this run can release to a querying party.

        Where the analysis looks at the votes nobody knows beforehand: all of them, until the budget has refused one.
        """
        accounts = self.ledger.accounts(querier, {voter.party for voter in self.answering(querier)})
        if not self.ledger.accountant.foreseeable:
            return 0 if self._refusals.keys() & set(accounts) else at_most
        return min(self.ledger.room(account, self._gone(account), at_most) for account in accounts)

    def refusal(self, querier: int) -> str:
        """Why there is no room for one more label."""
        parties = {voter.party for voter in self.answering(querier)}
        told = [
            self._refusals[account] for account in self.ledger.accounts(querier, parties) if account in self._refusals
        ]
        return told[-1] if told else str(self.ledger.refusal(querier, parties))

    def aggregate(self, querier: int, queries: Sequence[int], counted: Sequence[int]) -> Aggregate:
        """Steps 2 and 3 for a batch of queries and the voters that are counted.

        Each query is reserved in the ledger before its noise is drawn. When the budget refuses, the rest of
        the batch stays unlabelled. Raises InputError when an own or unknown voter is counted.
        """
        counted = sorted(counted)
        allowed = {voter.index for voter in self.answering(querier)}
        if not counted or not allowed.issuperset(counted):
            raise InputError(f"counted set {counted}: at least one voter, and none of querier {querier}'s own")
        key = "".join("1" if voter in set(counted) else "0" for voter in range(len(self.voters)))
        fresh = [query for query in queries if (querier, query, key) not in self._released]
        draws, refusal = self._reserve_and_draw(querier, fresh, counted)
        if draws:
            self.ledger.commit()
            self._open(querier, fresh[: len(draws)], counted, key, draws)
        labels = np.array([self._released.get((querier, query, key), -1) for query in queries], np.int64)
        opened = np.array([(querier, query, key) in self._released for query in queries], np.bool_)
        parties = {self.voters[voter].party for voter in counted}
        for query, label in zip(np.array(queries)[opened], labels[opened], strict=True):
            self._settle(querier, int(query), self._draws[querier, int(query), key], parties, answered=label >= 0)
        return Aggregate(labels, opened, refusal)

    def unlabelled_charges(self) -> Counter[int]:
        """By querying party, the charges that no label went out for: a killed run had made them, or was cut short.

        Lines of the ledger that were cut short may have been anybody's: `Ledger.torn` has these.
        """
        released = {(querier, query, self._draws[querier, query, key]) for querier, query, key in self._released}
        return Counter(querier for querier, _, _ in self.ledger.charges().keys() - released)

    def _open(
        self, querier: int, rows: Sequence[int], counted: Sequence[int], key: str, draws: list[tuple[str, Draw]]
    ) -> None:
        """Step 3 for queries that were reserved; what comes out is written down before anything else is done."""
        noise = release_noise(self.ledger.accountant.mechanism, [drawn for _, drawn in draws], len(self.voters))
        release = self._release(querier, rows, counted, noise)
        for query, (draw, _), label in zip(rows, draws, release.labels, strict=True):
            entry = {"querier": querier, "query": query, "counted": key, "draw": draw, "label": int(label)}
            self._journal.append({"kind": "release", **entry})
            self._released[querier, query, key] = int(label)
            self._draws[querier, query, key] = draw

    def _settle(self, querier: int, query: int, draw: str, parties: set[int], *, answered: bool) -> None:
        """The querying party's report to the ledger; and what this run has spent with it."""
        if isinstance(self.ledger.accountant.mechanism, ConfidentGNMax):
            (self.ledger.release if answered else self.ledger.refund)(querier, query, draw)
        for account in self.ledger.accounts(querier, parties):
            self._settled.setdefault(account, Counter())[Event(answered)] += 1

    def _gone(self, account: str) -> Events:
        """What this run can no longer spend on an account."""
        return self._settled.get(account, Counter()) + self._lost.get(account, Counter()) + self.ledger.torn()

    def _lost_charges(self, released: set[tuple[int, int, str]]) -> dict[str, Events]:
        """By account, the charges of a killed run whose label will never come; raises RecordError."""
        charges, lost = self.ledger.charges(), dict[str, Events]()
        if not released <= charges.keys():
            querier, query, _ = min(released - charges.keys())
            raise RecordError(
                f"{self._journal.path}: the label of query {query} of querying party {querier} went out, but the"
                " ledger has no charge for it; restore the ledger from a copy"
            )
        for key in () if self._noise.repeats else charges.keys() - released:
            for account in self.ledger.accounts(key[0], charges[key].parties):
                lost.setdefault(account, Counter())[charges[key].event] += 1
        return lost

    def _reserve_and_draw(
        self, querier: int, queries: Sequence[int], counted: Sequence[int]
    ) -> tuple[list[tuple[str, Draw]], str]:
        """Named noise for as many of the queries as the budget allows, and why it stopped."""
        draws: list[tuple[str, Draw]] = []
        classes = self.votes[querier].shape[-1]
        parties = sorted({self.voters[voter].party for voter in counted})
        for query in queries:
            name = self._noise.name(querier, query, counted)
            try:
                self.ledger.reserve(querier, query, name, parties=parties, log_q=self._log_q(querier, query, counted))
            except PrivacyBudgetExceeded as refused:
                self._refusals[refused.account] = str(refused)
                return draws, str(refused)
            draws.append((name, self._noise.draw(name, querier, query, classes)))
        return draws, ""

    def _log_q(self, querier: int, query: int, counted: Sequence[int]) -> float:
        """What a data-dependent analysis needs of the votes; in life nobody could compute it."""
        if self.ledger.accountant.foreseeable:
            return 0.0
        from capcsim.privacy.theorem6 import log_q

        counts = reconstruct(np.stack(sum_shares(self.votes[querier][:, list(counted)][:, :, [query]])), VOTE_RING_BITS)
        mechanism = self.ledger.accountant.mechanism
        argmax = mechanism.argmax if isinstance(mechanism, ConfidentGNMax) else mechanism
        return float(log_q(counts, argmax, NoiseKind.DISCRETE)[0])

    def _release(self, querier: int, rows: Sequence[int], counted: Sequence[int], noise: ReleaseNoise) -> Release:
        """Sum the counted shares on both sides, then step 3."""
        querier_sum, guardian_sum = sum_shares(self.votes[querier][:, list(counted)][:, :, list(rows)])
        if self._backend is None:
            counts = reconstruct(np.stack([querier_sum, guardian_sum]), VOTE_RING_BITS)
            return noisy_argmax(counts, noise)
        if querier not in self._guardian_sessions:
            self._guardian_sessions[querier], _ = self._backend.open(querier, None)
        session = self._guardian_sessions[querier]
        release, _ = self._backend.release(session, querier_sum, guardian_sum, noise)
        return release


def mechanism_of(scenario: Scenario) -> Mechanism:
    """The mechanism, with the number of votes that one protected unit, or group of them, can move."""
    privacy = scenario.privacy
    votes_of_a_unit = scenario.parties.virtual_per_party if privacy.unit == "party" else 1
    moved_votes = votes_of_a_unit * privacy.corrupted_parties
    if privacy.mechanism == "lnmax":
        assert privacy.scale is not None, "the scenario checks this"
        return LNMax(privacy.scale, moved_votes)
    assert privacy.sigma is not None, "the scenario checks this"
    if privacy.mechanism == "gnmax":
        return GNMax(privacy.sigma, moved_votes)
    assert privacy.threshold is not None, "the scenario checks this"
    assert privacy.sigma1 is not None, "the scenario checks this"
    return ConfidentGNMax(privacy.sigma, privacy.threshold, privacy.sigma1, moved_votes)


def release_noise(mechanism: Mechanism, draws: Sequence[Draw], voters: int) -> ReleaseNoise:
    """What the guardian brings to step 3 for some queries.

    Its width is public: 16 bits where counts, threshold and noise stay below 2^15, at half the cost of 32, which the
    scenario guarantees.
    """
    ring_bits = 16 if voters + largest_noise(mechanism) < 1 << 15 else VOTE_RING_BITS
    votes = np.concatenate([draw.votes for draw in draws])
    if not isinstance(mechanism, ConfidentGNMax):
        return ReleaseNoise(votes, ring_bits=ring_bits)
    top = np.concatenate([draw.top for draw in draws if draw.top is not None])
    return ReleaseNoise(votes, int(mechanism.threshold), top, ring_bits)


def sum_shares(shares: Votes) -> tuple[Votes, Votes]:
    """Both sides' sums uint64[B, C] over the voters of shares uint64[2, V, B, C], mod 2^32."""
    querier_sum, guardian_sum = shares.sum(axis=1, dtype=np.uint64) & ring_mask(VOTE_RING_BITS)
    return querier_sum, guardian_sum


def submit_programs(vote_share: NDArray[np.uint64], total: NDArray[np.uint64]) -> tuple[Steps, Steps]:
    """Step 2 between an answering party, which hands in its share, and the guardian, which adds it up."""

    def answerer() -> Steps:
        yield Send(vote_share.astype(np.uint32).tobytes())

    def guardian() -> Steps:
        payload = yield Recv()
        received = np.frombuffer(payload, np.uint32).reshape(total.shape)
        return (total + received) & ring_mask(VOTE_RING_BITS)

    return answerer(), guardian()


def count_programs(
    querier_shares: NDArray[np.uint64], counted: Sequence[int], mechanism: Mechanism
) -> tuple[Steps, Steps]:
    """Step 2 between the querying party and the guardian, which fixes the counted set and draws the noise.

    `querier_shares` is uint64[V, B, C]: what the querying party holds of every voter.
    """
    batch, classes = querier_shares.shape[1:]

    def querier() -> Steps:
        bitmap = yield Recv()
        chosen = np.unpackbits(np.frombuffer(bitmap, np.uint8))[: len(querier_shares)].astype(bool)
        return querier_shares[chosen].sum(axis=0, dtype=np.uint64) & ring_mask(VOTE_RING_BITS)

    def guardian() -> Steps:
        yield Mark(scope=Scope.QUERY)
        present = np.zeros(len(querier_shares), np.uint8)
        present[list(counted)] = 1
        noise = release_noise(mechanism, [real_draw(mechanism, batch, classes)], len(querier_shares))
        yield Mark(scope=Scope.PAIR)
        yield Send(np.packbits(present).tobytes())
        return noise

    return querier(), guardian()
