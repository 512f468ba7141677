"""Runs real pairs on this host, to get transcripts and to hold a backend to its own reference.

Measured pairs are a stratified random sample: at least five of every (architecture, batch size), after a
warm-up, or all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from capcsim.backend import (
    VOTE_RING_BITS,
    Backend,
    PublicModel,
    ReleaseNoise,
    Role,
    Session,
    Step,
    Transcript,
)
from capcsim.costs.cache import TranscriptCache
from capcsim.crypto.programs import run_local
from capcsim.crypto.shares import reconstruct
from capcsim.crypto.voting import noisy_argmax
from capcsim.errors import ConformanceError
from capcsim.privacy.mechanisms import Mechanism
from capcsim.protocol import (
    PairOutcome,
    Voter,
    Votes,
    answer,
    count_programs,
    share_votes,
    submit_programs,
    sum_shares,
)
from capcsim.seeds import Seeds

PAIR_STEPS = (Step.SETUP, Step.INFER, Step.ARGMAX, Step.AGGREGATE)
GUARDIAN = "guardian"


@dataclass(frozen=True, slots=True)
class Pair:
    """One execution: a querying party's batch of queries, and one voter."""

    querier: int
    batch: int
    queries: range
    voter: Voter


@dataclass
class Agreement:
    """How often real execution gave the vote that `reference` gives."""

    pairs: int = 0
    votes: int = 0
    disagreements: int = 0

    def upper_bound(self, confidence: float = 0.95) -> float | None:
        """Clopper-Pearson upper confidence bound on the rate of disagreement; None without a vote."""
        from scipy.stats import beta

        if self.votes == 0:
            return None
        if self.disagreements == self.votes:
            return 1.0
        return float(beta.ppf(confidence, self.disagreements + 1, self.votes - self.disagreements))


@dataclass
class Measurements:
    """Transcripts by stratum, what was executed, and (mode "all") each pair's own transcripts and votes."""

    samples: dict[str, tuple[Transcript, ...]] = field(default_factory=dict)
    agreement: Agreement = field(default_factory=Agreement)
    reused_strata: int = 0
    own: dict[tuple[Step, int, int, int], Transcript] = field(default_factory=dict)


def group(public: PublicModel) -> str:
    """The architecture, all that the cost of a pair depends on besides the batch."""
    return f"{', '.join(public.layers)} mod 2^{public.ring_bits}"


def stratum(step: Step, group_name: str, batch_size: int) -> str:
    """The name under which samples are kept."""
    return f"{step} | {group_name} | batch {batch_size}"


class Bench:
    """Measures one backend on the inputs of one run.

    `inputs[q]` is float32[n, *shape], the queries of querying party q; `votes[q]` their shared votes.
    """

    def __init__(
        self,
        backend: Backend,
        inputs: Sequence[NDArray[np.float32]],
        votes: Sequence[Votes],
        mechanism: Mechanism,
        *,
        samples: int,
        seeds: Seeds,
        cache: TranscriptCache,
    ) -> None:
        self._backend, self._inputs, self._votes, self._mechanism = backend, inputs, votes, mechanism
        self._samples, self._seeds, self._cache = samples, seeds, cache
        self._sessions: dict[tuple[int, int], tuple[Session, Transcript]] = {}
        self.result = Measurements()

    def sample(self, pairs: Sequence[Pair], advance: Callable[[int], None]) -> None:
        """Measure a random sample of every stratum of `pairs`, or take it from the cache."""
        with threadpool_limits(1):
            for number, (name, size, members) in enumerate(_strata(pairs)):
                steps = [stratum(step, name, size) for step in PAIR_STEPS]
                if not self._from_cache(steps):
                    chosen = self._choose(members, number)
                    runs = [self._run(pair) for pair in (chosen[0], *chosen)][1:]
                    self._keep(steps, [list(column) for column in zip(*runs, strict=True)])
                advance(1)

    def execute(self, pairs: Sequence[Pair], advance: Callable[[int], None]) -> None:
        """Run every pair for real: its own transcripts, and its own votes in place of the reference's."""
        with threadpool_limits(1):
            for pair in pairs:
                outcome = self._answer(pair)
                rows = self._votes[pair.querier]
                rows[:, pair.voter.index, pair.queries.start : pair.queries.stop] = outcome.votes.values
                key = (pair.querier, pair.batch, pair.voter.index)
                self.result.own[Step.INFER, *key] = outcome.infer
                self.result.own[Step.ARGMAX, *key] = outcome.argmax
                advance(1)

    def guardian(self, pairs: Sequence[Pair], advance: Callable[[int], None]) -> None:
        """Measure the guardian's steps for every batch size: set-up, fixing the counted set, release."""
        with threadpool_limits(1):
            for size in sorted({len(pair.queries) for pair in pairs}):
                steps = [stratum(step, GUARDIAN, size) for step in (Step.SETUP, Step.AGGREGATE, Step.RELEASE)]
                if not self._from_cache(steps):
                    first = next(pair for pair in pairs if len(pair.queries) == size)
                    runs = [self._run_guardian(first) for _ in range(self._samples + 1)][1:]
                    self._keep(steps, [list(column) for column in zip(*runs, strict=True)])
                advance(1)

    def _choose(self, members: Sequence[Pair], number: int) -> list[Pair]:
        """As many pairs as samples, without repetition as long as there are enough."""
        generator = self._seeds.generator("sample", number)
        order = generator.permutation(len(members))
        return [members[order[i % len(members)]] for i in range(self._samples)]

    def _run(self, pair: Pair) -> tuple[Transcript, ...]:
        """One pair's transcripts in the order of PAIR_STEPS."""
        outcome = self._answer(pair)
        _, setup = self._backend.open(pair.querier, pair.voter.prepared)
        handed_in = outcome.votes.values[1]
        _, submit = run_local(
            (Role.ANSWERER, Role.GUARDIAN),
            submit_programs(handed_in, np.zeros_like(handed_in)),
            step=Step.AGGREGATE,
        )
        return setup, outcome.infer, outcome.argmax, submit

    def _run_guardian(self, pair: Pair) -> tuple[Transcript, ...]:
        rows = self._votes[pair.querier][:, :, pair.queries.start : pair.queries.stop]
        session, setup = self._backend.open(pair.querier, None)
        (_, noise), count = run_local(
            (Role.QUERIER, Role.GUARDIAN),
            count_programs(rows[0], range(rows.shape[1]), self._mechanism),
            step=Step.AGGREGATE,
        )
        sums = sum_shares(rows)
        drawn = ReleaseNoise(noise)
        release, transcript = self._backend.release(session, *sums, drawn)
        expected = noisy_argmax(reconstruct(np.stack(sums), VOTE_RING_BITS), drawn)
        if not np.array_equal(release.labels, expected.labels):
            raise ConformanceError(self._backend.name, "release gave another label than the noisy argmax")
        return setup, count, transcript

    def _answer(self, pair: Pair) -> PairOutcome:
        """Steps 1a to 1c for real, compared with the reference."""
        key = (pair.querier, pair.voter.index)
        if key not in self._sessions:
            self._sessions[key] = self._backend.open(pair.querier, pair.voter.prepared)
        x = self._inputs[pair.querier][pair.queries.start : pair.queries.stop]
        outcome = answer(self._backend, self._sessions[key][0], x)
        self._compare(pair, x, outcome)
        return outcome

    def _compare(self, pair: Pair, x: NDArray[np.float32], outcome: PairOutcome) -> None:
        reference = self._backend.reference(pair.voter.prepared, x)
        logits = reconstruct(outcome.logits.values, outcome.logits.ring_bits)
        if self._backend.capabilities.exact and not np.array_equal(logits, reference):
            where = f"querier {pair.querier}, batch {pair.batch}, voter {pair.voter.index}"
            raise ConformanceError(self._backend.name, f"infer differs from reference at {where}")
        votes = reconstruct(outcome.votes.values, VOTE_RING_BITS)
        expected = share_votes(reference)
        agreement = self.result.agreement
        agreement.pairs += 1
        agreement.votes += len(x)
        agreement.disagreements += int((votes != reconstruct(expected, VOTE_RING_BITS)).any(axis=1).sum())

    def _from_cache(self, strata: Sequence[str]) -> bool:
        """Take all of the strata from the cache, or none."""
        found = [self._cache.load(name) for name in strata]
        usable = [samples for samples in found if samples is not None and len(samples) >= self._samples]
        if len(usable) < len(found):
            return False
        self.result.samples.update(zip(strata, usable, strict=True))
        self.result.reused_strata += len(strata)
        return True

    def _keep(self, strata: Sequence[str], columns: Sequence[Sequence[Transcript]]) -> None:
        for name, column in zip(strata, columns, strict=True):
            self.result.samples[name] = tuple(column)
            self._cache.store(name, column)


def _strata(pairs: Sequence[Pair]) -> Iterator[tuple[str, int, list[Pair]]]:
    """(architecture, batch size, members), in a fixed order."""
    members: dict[tuple[str, int], list[Pair]] = {}
    for pair in pairs:
        key = (group(pair.voter.prepared.public), len(pair.queries))
        members.setdefault(key, []).append(pair)
    for (name, size), found in sorted(members.items()):
        yield name, size, found


class MeasuredCosts:
    """Answers the simulated world out of the measurements; which sample it gets is a matter of the seed."""

    def __init__(self, measured: Measurements, sizes: Sequence[Sequence[int]], seeds: Seeds) -> None:
        """`sizes[q][b]` is the number of queries in batch b of querying party q."""
        self._measured, self._sizes, self._seeds = measured, sizes, seeds

    def setup(self, querier: int, voter: Voter | None) -> Transcript:
        """Keys and base transfers of one pair; None is the guardian."""
        name = GUARDIAN if voter is None else self.group(voter)
        largest = max(self._sizes[querier])
        return self._draw(Step.SETUP, name, largest, querier, -1, -1 if voter is None else voter.index)

    def pair(self, step: Step, querier: int, batch: int, voter: Voter) -> Transcript:
        """Infer, argmax or aggregate of one pair and batch."""
        own = self._measured.own.get((step, querier, batch, voter.index))
        if own is not None:
            return own
        return self._draw(step, self.group(voter), self._sizes[querier][batch], querier, batch, voter.index)

    def count(self, querier: int, batch: int) -> Transcript:
        """Step 2 between the guardian and the querying party."""
        return self._draw(Step.AGGREGATE, GUARDIAN, self._sizes[querier][batch], querier, batch, -1)

    def release(self, querier: int, batch: int) -> Transcript:
        """Step 3."""
        return self._draw(Step.RELEASE, GUARDIAN, self._sizes[querier][batch], querier, batch, -1)

    def group(self, voter: Voter) -> str:
        """Voters of one architecture share the work of scope QUERY."""
        return group(voter.prepared.public)

    def _draw(self, step: Step, name: str, size: int, querier: int, batch: int, voter: int) -> Transcript:
        samples = self._measured.samples[stratum(step, name, size)]
        place = (list(Step).index(step), querier, batch + 1, voter + 1)
        return samples[int(self._seeds.generator("replay", *place).integers(len(samples)))]
