"""Runs real pairs on this host, to get transcripts and to hold a backend to its own reference.

Measured pairs are a stratified random sample: at least five of every (architecture, batch size), or all of them.
Before the first of a stratum there is a warm-up, and what is made at a model's first use and kept (its weights in the
form in which they are used, say) is made before it is measured.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from capcsim.backend import (
    VOTE_RING_BITS,
    Backend,
    Role,
    Session,
    Step,
    Transcript,
)
from capcsim.conformance import GUARDIAN_ROLES, PAIR_ROLES, Failure, check_transcript
from capcsim.costs.cache import MeasurementCache
from capcsim.costs.measured import Agreement, Measurements, Stratum, guardian_group, pair_group
from capcsim.costs.transcripts import from_json, to_json
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

WARM_UPS = 1
"""Runs before the samples of a stratum, which are not kept."""
PAIR_STEPS = (Step.SETUP, Step.INFER, Step.ARGMAX, Step.AGGREGATE)
GUARDIAN_STEPS = (Step.SETUP, Step.AGGREGATE, Step.RELEASE)


@dataclass(frozen=True, slots=True)
class Pair:
    """One execution: a querying party's batch of queries, and one voter."""

    querier: int
    batch: int
    queries: range
    voter: Voter


class Bench:
    """Measures one backend on the inputs of one run.

    `inputs[q]` is float32[n, *shape], the queries of querying party q; `votes[q]` their shared votes. What an earlier
    round of the run `measured` is taken over, and added to.
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
        cache: MeasurementCache,
        measured: Measurements | None = None,
    ) -> None:
        self._backend, self._inputs, self._votes, self._mechanism = backend, inputs, votes, mechanism
        self._samples, self._seeds, self._cache = samples, seeds, cache
        self._sessions: dict[tuple[int, int], Session] = {}
        self._compared: set[tuple[int, int, int]] = set()
        self._warm: set[tuple[int | str, ...]] = set()
        self.result = measured or Measurements()

    def sample_runs(self, pairs: Sequence[Pair]) -> int:
        """How many runs `sample` takes at most, warm-ups included."""
        return len(list(_strata(pairs))) * (self._samples + WARM_UPS)

    def guardian_runs(self, pairs: Sequence[Pair]) -> int:
        """How many runs `guardian` takes at most, warm-ups included."""
        return len({len(pair.queries) for pair in pairs}) * (self._samples + WARM_UPS)

    def sample(self, pairs: Sequence[Pair], advance: Callable[[int], None]) -> None:
        """Measure a random sample of every stratum of `pairs`, or take it from the cache; `advance` counts runs."""
        for number, (name, size, members) in enumerate(_strata(pairs)):
            strata = [Stratum(step, name, size) for step in PAIR_STEPS]
            self._measure(strata, self._choose(members, number), self._run, advance, _session)

    def execute(self, pairs: Sequence[Pair], advance: Callable[[int], None]) -> None:
        """Run every pair for real: its own transcripts, and its own votes in place of the reference's.

        In sessions of their own, which begin with the first batch as they do in life.
        """
        sessions: dict[tuple[int, int], Session] = {}
        with threadpool_limits(1):
            for pair in pairs:
                self._warm_up(pair, _model)
                outcome = self._answer(pair, sessions)
                rows = self._votes[pair.querier]
                rows[:, pair.voter.index, pair.queries.start : pair.queries.stop] = outcome.votes.values
                key = (pair.querier, pair.batch, pair.voter.index)
                self.result.own[Step.INFER, *key] = outcome.infer
                self.result.own[Step.ARGMAX, *key] = outcome.argmax
                advance(1)

    def guardian(self, pairs: Sequence[Pair], advance: Callable[[int], None]) -> None:
        """Measure the guardian's steps for every batch size: set-up, fixing the counted set, release."""
        for size in sorted({len(pair.queries) for pair in pairs}):
            first = next(pair for pair in pairs if len(pair.queries) == size)
            _, voters, _, classes = self._votes[first.querier].shape
            name = guardian_group(classes, voters, self._mechanism)
            strata = [Stratum(step, name, size) for step in GUARDIAN_STEPS]
            self._measure(strata, [first] * self._samples, self._run_guardian, advance)

    def _measure(
        self,
        strata: Sequence[Stratum],
        chosen: Sequence[Pair],
        run: Callable[[Pair], tuple[Transcript, ...]],
        advance: Callable[[int], None],
        used: Callable[[Pair], tuple[int, ...]] | None = None,
    ) -> None:
        """Run the chosen pairs after a warm-up and keep a sample of each stratum, or use those of an earlier run.

        Each pair's `used`, which takes part in answering, is warmed up besides.
        """
        if all(stratum in self.result.samples for stratum in strata):
            advance(WARM_UPS + self._samples)
            return
        name = f"{strata[0].group} | batch {strata[0].size}"
        stored = self._cache.load(name)
        if stored is not None and min(map(len, stored["samples"])) >= self._samples:
            columns = [tuple(map(from_json, column)) for column in stored["samples"]]
            self.result.earlier += Agreement(**stored["agreement"])
            self.result.reused_strata += len(strata)
            advance(WARM_UPS + self._samples)
        else:
            before = replace(self.result.agreement)
            with threadpool_limits(1):
                runs: list[tuple[Transcript, ...]] = []
                for pair in (*WARM_UPS * [chosen[0]], *chosen):
                    if used and len(runs) >= WARM_UPS:
                        self._warm_up(pair, used)
                    runs.append(run(pair))
                    advance(1)
            runs = runs[WARM_UPS:]
            columns = [tuple(column) for column in zip(*runs, strict=True)]
            now = self.result.agreement
            new = (now.pairs - before.pairs, now.votes - before.votes, now.disagreements - before.disagreements)
            samples = [[to_json(transcript) for transcript in column] for column in columns]
            self._cache.store(name, {"samples": samples, "agreement": asdict(Agreement(*new))})
        self.result.samples.update(zip(strata, columns, strict=True))

    def _choose(self, members: Sequence[Pair], number: int) -> list[Pair]:
        """As many pairs as samples, without repetition as long as there are enough."""
        generator = self._seeds.generator("sample", number)
        order = generator.permutation(len(members))
        return [members[order[i % len(members)]] for i in range(self._samples)]

    def _run(self, pair: Pair) -> tuple[Transcript, ...]:
        """One pair's transcripts in the order of PAIR_STEPS."""
        outcome = self._answer(pair, self._sessions)
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
        release, transcript = self._backend.release(session, *sums, noise)
        expected = noisy_argmax(reconstruct(np.stack(sums), VOTE_RING_BITS), noise)
        if not np.array_equal(release.labels, expected.labels):
            raise ConformanceError(self._backend.name, "release gave another label than the noisy argmax")
        self._check({Step.RELEASE: transcript}, GUARDIAN_ROLES)
        return setup, count, transcript

    def _warm_up(self, pair: Pair, used: Callable[[Pair], tuple[int, ...]]) -> None:
        """Let a model or a session answer so many queries once, unless it has."""
        if _architecture(pair) not in self._warm:
            answer(self._backend, self._opened(pair, self._sessions), self._queries(pair))
        elif used(pair) not in self._warm:
            # What comes after the inference knows of no model.
            self._backend.infer(self._opened(pair, self._sessions), self._queries(pair))
        self._warm |= {_architecture(pair), _model(pair), _session(pair)}

    def _opened(self, pair: Pair, sessions: dict[tuple[int, int], Session]) -> Session:
        key = (pair.querier, pair.voter.index)
        if key not in sessions:
            sessions[key], _ = self._backend.open(pair.querier, pair.voter.prepared)
        return sessions[key]

    def _queries(self, pair: Pair) -> NDArray[np.float32]:
        return self._inputs[pair.querier][pair.queries.start : pair.queries.stop]

    def _answer(self, pair: Pair, sessions: dict[tuple[int, int], Session]) -> PairOutcome:
        """Steps 1a to 1c for real, compared with the reference."""
        x = self._queries(pair)
        outcome = answer(self._backend, self._opened(pair, sessions), x)
        self._warm |= {_architecture(pair), _model(pair), _session(pair)}
        self._check({Step.INFER: outcome.infer, Step.ARGMAX: outcome.argmax}, PAIR_ROLES)
        self._compare(pair, x, outcome)
        return outcome

    def _check(self, transcripts: dict[Step, Transcript], roles: frozenset[Role]) -> None:
        """A transcript that lacks work or messages would make costs up."""
        for step, transcript in transcripts.items():
            try:
                check_transcript(step, transcript, roles)
            except Failure as failure:
                raise ConformanceError(self._backend.name, str(failure)) from None

    def _compare(self, pair: Pair, x: NDArray[np.float32], outcome: PairOutcome) -> None:
        reference = self._backend.reference(pair.voter.prepared, x)
        logits = reconstruct(outcome.logits.values, outcome.logits.ring_bits)
        if self._backend.capabilities.exact and not np.array_equal(logits, reference):
            where = f"querier {pair.querier}, batch {pair.batch}, voter {pair.voter.index}"
            raise ConformanceError(self._backend.name, f"infer differs from reference at {where}")
        votes = reconstruct(outcome.votes.values, VOTE_RING_BITS)
        expected = share_votes(reference)
        key = (pair.querier, pair.batch, pair.voter.index)
        if key not in self._compared:
            self._compared.add(key)
            wrong = int((votes != reconstruct(expected, VOTE_RING_BITS)).any(axis=1).sum())
            self.result.agreement += Agreement(1, len(x), wrong)


def _architecture(pair: Pair) -> tuple[str, int]:
    return pair_group(pair.voter.prepared.public), len(pair.queries)


def _model(pair: Pair) -> tuple[int, int]:
    return pair.voter.index, len(pair.queries)


def _session(pair: Pair) -> tuple[int, int, int]:
    return pair.querier, pair.voter.index, len(pair.queries)


def _strata(pairs: Sequence[Pair]) -> Iterator[tuple[str, int, list[Pair]]]:
    """(architecture, batch size, members), in a fixed order."""
    members: dict[tuple[str, int], list[Pair]] = {}
    for pair in pairs:
        key = (pair_group(pair.voter.prepared.public), len(pair.queries))
        members.setdefault(key, []).append(pair)
    for (name, size), found in sorted(members.items()):
        yield name, size, found
