"""`capcsim profile`: what one pair and one release cost on this machine, step by step."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from capcsim.backend import (
    AHEAD,
    DETAILS,
    PROGRESS,
    SATURATION,
    VOTE_RING_BITS,
    Backend,
    Phase,
    ReleaseNoise,
    Session,
    Shares,
    Transcript,
)
from capcsim.costs.cache import versions
from capcsim.costs.transcripts import cpu_s, cpu_spread, of_phase, rounds, sent_bytes, spread
from capcsim.crypto.shares import reconstruct
from capcsim.errors import InputError
from capcsim.seeds import Seeds
from capcsim.twoparty.voting import one_hot_argmax


@dataclass(frozen=True, slots=True)
class Run:
    """One call: elapsed seconds, the transcript, and the elapsed seconds of phases that were timed apart."""

    wall_s: float
    transcript: Transcript
    phase_wall_s: dict[Phase, float] = field(default_factory=dict)


def profile(
    backend: Backend,
    model: Any,
    model_name: str,
    *,
    batch: int,
    repeats: int,
    inputs: NDArray[np.float32] | None = None,
    advance: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """The JSON object of design.md 6: medians over the repeats, after a warm-up, and how far apart these lie.

    `inputs` float32[N, *shape] are taken batch by batch, again from the first when they end; random ones by default.
    """
    if batch < 1 or repeats < 1:
        raise InputError(f"--batch {batch} --repeats {repeats}: both must be at least 1")
    prepared = backend.prepare(model, seed=0)
    generator = Seeds(0).generator("profile")
    if inputs is None:
        inputs = generator.random((batch, *prepared.public.input_shape), np.float32)
    noise = ReleaseNoise(np.rint(generator.normal(0, 7, (batch, prepared.public.classes))).astype(np.int64))
    agreement = _Agreement(backend.reference(prepared, inputs), _float32_labels(model, inputs))
    runs: dict[str, list[Run]] = {"setup": [], "infer": [], "argmax": [], "release": []}
    details: dict[str, Any] = {}
    with threadpool_limits(1):
        for repeat in range(repeats + 1):
            if repeat == 1:
                runs = {step: [] for step in runs}
                agreement.forget()
            rows = np.arange(repeat * batch, (repeat + 1) * batch) % len(inputs)
            session = _timed(runs["setup"], backend.open, repeat, prepared)
            watch = _Watch(backend, advance)
            logits = _infer(runs["infer"], backend, session, inputs[rows])
            if detailed := DETAILS.of(backend):
                details = detailed.details(session, batch)
            votes = _timed(runs["argmax"], backend.argmax, session, logits)
            guardian, _ = backend.open(repeat, None)
            _timed(runs["release"], backend.release, guardian, votes.values[0], votes.values[1], noise)
            agreement.note(rows, reconstruct(votes.values, VOTE_RING_BITS))
            watch.end()
    if saturating := SATURATION.of(backend):
        details["saturation"] = saturating.saturation(prepared, inputs)
    spreads = {step: _spread(measured) for step, measured in runs.items()}
    setup = _summary(runs.pop("setup"))
    total = [_joined([runs[step][repeat] for step in runs]) for repeat in range(repeats)]
    spreads["total"] = _spread(total)
    return {
        "backend": backend.name,
        "model": model_name,
        "batch": batch,
        "security": backend.capabilities.security,
        "exact": backend.capabilities.exact,
        "argmax": backend.capabilities.argmax,
        "release": backend.capabilities.release,
        "steps": {step: _summary(measured) for step, measured in runs.items()},
        "total": _summary(total, rounds_of=[sum(rounds(runs[step][0].transcript) for step in runs)]),
        "setup": setup,
        "spread": spreads,
        "agreement": agreement.with_reference,
        "agreement_float32": agreement.with_float32,
        "details": details,
        "versions": versions(),
    }


class _Agreement:
    """How many one-hot votes are those of the reference's logits int64[N, C], and of the float32 labels int64[N]."""

    def __init__(self, reference: NDArray[np.int64], labels: NDArray[np.int64] | None) -> None:
        self._expected, self._labels = one_hot_argmax(reference), labels
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self._votes = self._equal = self._equal_float32 = 0

    def note(self, rows: NDArray[np.int64], votes: NDArray[np.int64]) -> None:
        """The votes int64[B, C] on these rows of the inputs."""
        self._votes += len(votes)
        self._equal += int((votes == self._expected[rows]).all(axis=1).sum())
        if self._labels is not None:
            self._equal_float32 += int((votes.argmax(axis=1) == self._labels[rows]).sum())

    @property
    def with_reference(self) -> float:
        """The share of votes that are the reference's."""
        return self._equal / self._votes

    @property
    def with_float32(self) -> float | None:
        """The share of votes that are the model's own in float32; None where it cannot be asked."""
        return None if self._labels is None else self._equal_float32 / self._votes


def _float32_labels(model: Any, x: NDArray[np.float32]) -> NDArray[np.int64] | None:
    """What a model that can predict says by itself; scikit-learn's take rows of features."""
    if not hasattr(model, "predict"):
        return None
    labels: NDArray[np.int64] = model.predict(x.reshape(len(x), -1) if hasattr(model, "n_features_in_") else x)
    return labels


class _Watch:
    """Passes on how far one repeat is, from a backend that tells; the whole of it at its end."""

    def __init__(self, backend: Backend, advance: Callable[[float], None]) -> None:
        self._advance, self._told = advance, 0.0
        self._telling = PROGRESS.of(backend)
        if self._telling:
            self._telling.progress = self._tell

    def _tell(self, done: float) -> None:
        if done > self._told:
            self._advance(done - self._told)
            self._told = done

    def end(self) -> None:
        """One repeat is done."""
        if self._telling:
            self._telling.progress = None
        self._advance(1 - self._told)


def _timed(runs: list[Run], call: Callable[..., tuple[Any, Transcript]], *arguments: Any) -> Any:
    started_s = time.perf_counter()
    result, transcript = call(*arguments)
    runs.append(Run(time.perf_counter() - started_s, transcript))
    return result


def _infer(runs: list[Run], backend: Backend, session: Session, x: NDArray[np.float32]) -> Shares:
    """Steps 1a and 1b, the phase ahead timed apart where the backend has one and its pool has room."""
    early = AHEAD.of(backend)
    started_s = time.perf_counter()
    try:
        ahead = early is not None and bool(early.prepare_ahead(session, len(x)))
    except InputError:
        ahead = False
    begun_s = time.perf_counter()
    logits, transcript = backend.infer(session, x)
    ended_s = time.perf_counter()
    phases = {Phase.OFFLINE: begun_s - started_s, Phase.ONLINE: ended_s - begun_s} if ahead else {}
    runs.append(Run(ended_s - (started_s if ahead else begun_s), transcript, phases))
    return logits


def _joined(parts: Sequence[Run]) -> Run:
    """Steps one after the other, for sums only."""
    phases: dict[Phase, float] = defaultdict(float)
    for part in parts:
        for phase in {node.phase for node in part.transcript}:
            phases[phase] += _phase_wall_s(part, phase)
    return Run(sum(part.wall_s for part in parts), tuple(node for part in parts for node in part.transcript), phases)


def _summary(runs: Sequence[Run], rounds_of: Sequence[int] | None = None) -> dict[str, Any]:
    """Medians over repeats of one step."""
    transcripts = [run.transcript for run in runs]
    phases = {node.phase for transcript in transcripts for node in transcript}
    return {
        "wall_s": median(run.wall_s for run in runs),
        "cpu_s": _medians([cpu_s(transcript) for transcript in transcripts]),
        "bytes": sent_bytes(transcripts[0]),
        "rounds": rounds_of[0] if rounds_of else rounds(transcripts[0]),
        "phases": {phase.value: _phase(runs, phase) for phase in Phase if phase in phases},
    }


def _spread(runs: Sequence[Run]) -> dict[str, Any]:
    """How far apart the repeats of one step lie."""
    return {
        "repeats": len(runs),
        "wall_s": spread([run.wall_s for run in runs]),
        "cpu_s": cpu_spread([run.transcript for run in runs]),
    }


def _phase(runs: Sequence[Run], phase: Phase) -> dict[str, Any]:
    return {
        "wall_s": median(_phase_wall_s(run, phase) for run in runs),
        "bytes": sum(sent_bytes(of_phase(runs[0].transcript, phase)).values()),
    }


def _phase_wall_s(run: Run, phase: Phase) -> float:
    """As it was timed, else the time of both roles in turn."""
    if phase in run.phase_wall_s:
        return run.phase_wall_s[phase]
    return sum(cpu_s(of_phase(run.transcript, phase)).values())


def _medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {role: median(row.get(role, 0.0) for row in rows) for role in sorted(set().union(*rows))}
