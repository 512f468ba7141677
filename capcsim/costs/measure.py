"""Runs real pairs on this host, to get transcripts and to hold a backend to its own reference.

Measured pairs are a stratified random sample: at least five of every (architecture, batch size), or all of them.
Before the first of a stratum there is a warm-up, and what is made at a model's first use and kept (its weights in the
form in which they are used, say) is made before it is measured. Which steps there are, and in which order, the flow's
commands say; here each has one handler.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from capcsim.backend import VOTE_RING_BITS, Backend, ReleaseNoise, Role, Session, Shares, Step, Transcript
from capcsim.conformance.judging import Failure
from capcsim.conformance.transcripts import GUARDIAN_ROLES, PAIR_ROLES, check_transcript
from capcsim.costs.cache import MeasurementCache
from capcsim.costs.foresee import Pair
from capcsim.costs.measured import Agreement, Measurements, Stratum, guardian_group, pair_group
from capcsim.costs.transcripts import from_json, to_json
from capcsim.crypto.shares import reconstruct
from capcsim.errors import ConformanceError, RecordError
from capcsim.privacy.mechanisms import Mechanism
from capcsim.protocol.steps import Votes, count_programs, share_votes, submit_programs, sum_shares
from capcsim.seeds import Seeds
from capcsim.twoparty.programs import run_local
from capcsim.twoparty.voting import noisy_argmax

WARM_UPS = 1
"""Runs before the samples of a stratum, which are not kept."""


@dataclass
class Execution:
    """What the steps of one pair hand on while it runs; a guardian's pair has no voter."""

    pair: Pair
    session: Session
    logits: Shares | None = None
    votes: Shares | None = None
    noise: ReleaseNoise | None = None


class Bench:
    """Measures one backend on the inputs of one run.

    `inputs[q]` is float32[n, *shape], the queries of querying party q; `votes[q]` their shared votes, in the place of
    which `execute` puts its own. What an earlier round of the run `measured` is taken over, and added to.
    """

    def __init__(
        self,
        backend: Backend,
        inputs: Sequence[NDArray[np.float32]],
        votes: Sequence[Votes],
        mechanism: Mechanism,
        *,
        cache: MeasurementCache,
        measured: Measurements | None = None,
    ) -> None:
        self._steps = Handlers(backend, inputs, votes, mechanism)
        self._cache = cache
        self._warm: set[tuple[int | str, ...]] = set()
        self._sessions: dict[tuple[int, int], Session] = {}
        self.result = measured.copy() if measured else Measurements()

    def sample(self, pairs: Iterable[Pair], samples: int, seeds: Seeds, advance: Callable[[int], None]) -> None:
        """Measure a random sample of every stratum of `pairs`, or take it from the cache; `advance` counts runs."""
        for number, (size, members) in enumerate(strata(pairs)):
            chosen = _chosen(members, samples, seeds.generator("sample", number))
            self._measure(size, chosen, advance)

    def execute(self, pairs: Sequence[Pair], advance: Callable[[int], None]) -> None:
        """Run every pair for real: its own transcripts, and its own votes in place of the reference's.

        In sessions of their own, which begin with the first batch as they do in life.
        """
        sessions: dict[tuple[int, int], Session] = {}
        with threadpool_limits(1):
            for pair in pairs:
                self._warm_up(pair, _model)
                execution, transcripts = self._run(pair, sessions, but=(Step.SETUP,))
                assert pair.voter is not None, "the guardian has no vote"
                assert execution.votes is not None, "step 1c gave votes"
                rows = self._steps.votes[pair.querier]
                rows[:, pair.voter.index, pair.queries.start : pair.queries.stop] = execution.votes.values
                for step, transcript in transcripts.items():
                    self.result.own[step, pair.querier, pair.batch, len(pair.queries), pair.voter.index] = transcript
                advance(1)

    def _measure(self, size: int, chosen: Sequence[Pair], advance: Callable[[int], None]) -> None:
        """Run the chosen pairs of a stratum after a warm-up, or use those of an earlier run."""
        group = self._steps.group(chosen[0])
        kinds = [Stratum(step, group, size) for step in chosen[0].steps]
        name = f"{group} | batch {size}"
        if all(kind in self.result.samples for kind in kinds):
            advance(WARM_UPS + len(chosen))
            return
        stored = _stored(self._cache.load(name), len(chosen))
        if stored is not None:
            columns, agreement = stored
            self.result.earlier += agreement
            self.result.reused_strata += len(kinds)
            advance(WARM_UPS + len(chosen))
        else:
            before = replace(self.result.agreement)
            columns = self._samples(chosen, advance)
            now = self.result.agreement
            new = (now.pairs - before.pairs, now.votes - before.votes, now.disagreements - before.disagreements)
            samples = [[to_json(transcript) for transcript in column] for column in columns]
            self._cache.store(name, {"samples": samples, "agreement": asdict(Agreement(*new))})
        self.result.samples.update(zip(kinds, columns, strict=True))

    def _samples(self, chosen: Sequence[Pair], advance: Callable[[int], None]) -> list[tuple[Transcript, ...]]:
        """By step, the transcripts of the chosen pairs; each one's session is warmed up besides."""
        runs: list[Mapping[Step, Transcript]] = []
        with threadpool_limits(1):
            for pair in (*WARM_UPS * [chosen[0]], *chosen):
                if len(runs) >= WARM_UPS:
                    self._warm_up(pair, _session)
                runs.append(self._run(pair, self._sessions)[1])
                advance(1)
        return [tuple(run[step] for run in runs[WARM_UPS:]) for step in chosen[0].steps]

    def _run(
        self, pair: Pair, sessions: dict[tuple[int, int], Session], but: tuple[Step, ...] = ()
    ) -> tuple[Execution, dict[Step, Transcript]]:
        """All steps of a pair but some, and the transcript of each."""
        execution = Execution(pair, self._opened(pair, sessions) if pair.voter else None)
        handlers = self._steps.of_pairs if pair.voter else self._steps.of_guardian
        transcripts = {step: handlers[step](execution) for step in pair.steps if step not in but}
        if pair.voter and execution.votes is not None:
            self._warm |= {_architecture(pair), _model(pair), _session(pair)}
            self.result.agreement += self._steps.agreement(execution)
        return execution, transcripts

    def _warm_up(self, pair: Pair, used: Callable[[Pair], tuple[int, ...]]) -> None:
        """Let a model or a session answer so many queries once, unless it has."""
        if not pair.voter or not pair.queries:
            return
        execution = Execution(pair, self._opened(pair, self._sessions))
        if _architecture(pair) not in self._warm:
            self._steps.warm_up(execution, votes=True)
        elif used(pair) not in self._warm:
            # What comes after the inference knows of no model.
            self._steps.warm_up(execution, votes=False)
        self._warm |= {_architecture(pair), _model(pair), _session(pair)}

    def _opened(self, pair: Pair, sessions: dict[tuple[int, int], Session]) -> Session:
        assert pair.voter is not None, "the guardian's sessions are opened by its own handler"
        key = (pair.querier, pair.voter.index)
        if key not in sessions:
            sessions[key] = self._steps.open(pair)[0]
        return sessions[key]


class Handlers:
    """How each step of a pair runs for real, and what must be true of it."""

    def __init__(
        self,
        backend: Backend,
        inputs: Sequence[NDArray[np.float32]],
        votes: Sequence[Votes],
        mechanism: Mechanism,
    ) -> None:
        self._backend, self._inputs, self.votes, self._mechanism = backend, inputs, votes, mechanism
        self._compared: set[tuple[int, int, int]] = set()
        self.of_pairs: dict[Step, Callable[[Execution], Transcript]] = {
            Step.SETUP: self._set_up,
            Step.INFER: self._infer,
            Step.ARGMAX: self._argmax,
            Step.AGGREGATE: self._submit,
        }
        self.of_guardian: dict[Step, Callable[[Execution], Transcript]] = {
            Step.SETUP: self._set_up,
            Step.AGGREGATE: self._count,
            Step.RELEASE: self._release,
        }

    def group(self, pair: Pair) -> str:
        """What has the same cost."""
        if pair.voter:
            return pair_group(pair.voter.prepared.public)
        _, voters, _, classes = self.votes[pair.querier].shape
        return guardian_group(classes, voters, self._mechanism)

    def open(self, pair: Pair) -> tuple[Session, Transcript]:
        """A new session of a querying party with a voter, or the guardian."""
        return self._backend.open(pair.querier, pair.voter.prepared if pair.voter else None)

    def warm_up(self, execution: Execution, *, votes: bool) -> None:
        """Let a session answer, up to its logits or up to its votes; nothing is checked or kept."""
        logits, _ = self._backend.infer(execution.session, self._queries(execution.pair))
        if votes:
            self._backend.argmax(execution.session, logits)

    def agreement(self, execution: Execution) -> Agreement:
        """Compare a pair's outcome with the reference's; a pair that was compared before adds nothing."""
        pair, logits, votes = execution.pair, execution.logits, execution.votes
        assert pair.voter is not None, "the guardian's pair has no reference"
        assert logits is not None, "step 1b has run"
        assert votes is not None, "step 1c has run"
        reference = self._backend.reference(pair.voter.prepared, self._queries(pair))
        key = (pair.querier, pair.batch, pair.voter.index)
        found = reconstruct(logits.values, logits.ring_bits)
        if self._backend.capabilities.exact and not np.array_equal(found, reference):
            where = "querier {}, batch {}, voter {}".format(*key)
            raise ConformanceError(self._backend.name, f"infer differs from reference at {where}")
        if key in self._compared:
            return Agreement()
        self._compared.add(key)
        expected = reconstruct(share_votes(reference), VOTE_RING_BITS)
        wrong = (reconstruct(votes.values, VOTE_RING_BITS) != expected).any(axis=1)
        return Agreement(1, len(wrong), int(wrong.sum()))

    def _set_up(self, execution: Execution) -> Transcript:
        session, transcript = self.open(execution.pair)
        execution.session = execution.session or session
        return transcript

    def _infer(self, execution: Execution) -> Transcript:
        execution.logits, transcript = self._backend.infer(execution.session, self._queries(execution.pair))
        return self._checked(Step.INFER, transcript, PAIR_ROLES)

    def _argmax(self, execution: Execution) -> Transcript:
        assert execution.logits is not None, "step 1b came first"
        execution.votes, transcript = self._backend.argmax(execution.session, execution.logits)
        return self._checked(Step.ARGMAX, transcript, PAIR_ROLES)

    def _submit(self, execution: Execution) -> Transcript:
        assert execution.votes is not None, "step 1c came first"
        handed_in = execution.votes.values[1]
        programs = submit_programs(handed_in, np.zeros_like(handed_in))
        return run_local((Role.ANSWERER, Role.GUARDIAN), programs, step=Step.AGGREGATE)[1]

    def _count(self, execution: Execution) -> Transcript:
        rows = self._votes_on(execution.pair)
        programs = count_programs(rows[0], range(rows.shape[1]), self._mechanism)
        (_, execution.noise), transcript = run_local((Role.QUERIER, Role.GUARDIAN), programs, step=Step.AGGREGATE)
        return transcript

    def _release(self, execution: Execution) -> Transcript:
        assert execution.noise is not None, "step 2 came first"
        sums = sum_shares(self._votes_on(execution.pair))
        release, transcript = self._backend.release(execution.session, *sums, execution.noise)
        expected = noisy_argmax(reconstruct(np.stack(sums), VOTE_RING_BITS), execution.noise)
        if not np.array_equal(release.labels, expected.labels):
            raise ConformanceError(self._backend.name, "release gave another label than the noisy argmax")
        return self._checked(Step.RELEASE, transcript, GUARDIAN_ROLES)

    def _queries(self, pair: Pair) -> NDArray[np.float32]:
        return self._inputs[pair.querier][pair.queries.start : pair.queries.stop]

    def _votes_on(self, pair: Pair) -> Votes:
        return self.votes[pair.querier][:, :, pair.queries.start : pair.queries.stop]

    def _checked(self, step: Step, transcript: Transcript, roles: frozenset[Role]) -> Transcript:
        """A transcript that lacks work or messages would make costs up."""
        try:
            check_transcript(step, transcript, roles)
        except Failure as failure:
            raise ConformanceError(self._backend.name, str(failure)) from None
        return transcript


def strata(pairs: Iterable[Pair]) -> Iterator[tuple[int, list[Pair]]]:
    """(batch size, members), in a fixed order: those of each architecture, then the guardian's."""
    members: dict[tuple[bool, str, int], list[Pair]] = {}
    for pair in pairs:
        name = pair_group(pair.voter.prepared.public) if pair.voter else ""
        members.setdefault((not pair.voter, name, len(pair.queries)), []).append(pair)
    for (_, _, size), found in sorted(members.items(), key=lambda item: item[0]):
        yield size, found


def runs(pairs: Iterable[Pair], samples: int) -> int:
    """How many runs `sample` takes at most, warm-ups included."""
    return len(list(strata(pairs))) * (samples + WARM_UPS)


def _stored(found: dict[str, Any] | None, enough: int) -> tuple[list[tuple[Transcript, ...]], Agreement] | None:
    """By step the transcripts of an earlier run, where they are enough; what is damaged counts as absent."""
    try:
        columns = [tuple(map(from_json, column)) for column in (found or {})["samples"]]
        agreement = Agreement(**(found or {})["agreement"])
    except (KeyError, TypeError, ValueError, RecordError):
        return None
    return (columns, agreement) if columns and min(map(len, columns)) >= enough else None


def _chosen(members: Sequence[Pair], samples: int, generator: np.random.Generator) -> list[Pair]:
    """As many pairs as samples, without repetition as long as there are enough."""
    order: Any = generator.permutation(len(members))
    return [members[order[i % len(members)]] for i in range(samples)]


def _architecture(pair: Pair) -> tuple[str, int]:
    assert pair.voter is not None, "only models are warmed up"
    return pair_group(pair.voter.prepared.public), len(pair.queries)


def _model(pair: Pair) -> tuple[int, int]:
    assert pair.voter is not None, "only models are warmed up"
    return pair.voter.index, len(pair.queries)


def _session(pair: Pair) -> tuple[int, int, int]:
    assert pair.voter is not None, "only models are warmed up"
    return pair.querier, pair.voter.index, len(pair.queries)
