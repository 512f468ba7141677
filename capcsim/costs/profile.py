"""`capcsim profile`: what one pair and one release cost on this machine, step by step."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from capcsim.backend import VOTE_RING_BITS, Backend, Phase, ReleaseNoise, Transcript
from capcsim.costs.cache import versions
from capcsim.costs.transcripts import cpu_s, of_phase, rounds, sent_bytes
from capcsim.crypto.shares import reconstruct
from capcsim.crypto.voting import one_hot_argmax
from capcsim.errors import InputError
from capcsim.seeds import Seeds

Run = tuple[float, Transcript]
"""Elapsed seconds, and the transcript."""


def profile(
    backend: Backend,
    model: Any,
    model_name: str,
    *,
    batch: int,
    repeats: int,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The JSON object of design.md 6: medians over the repeats, after a warm-up."""
    if batch < 1 or repeats < 1:
        raise InputError(f"--batch {batch} --repeats {repeats}: both must be at least 1")
    prepared = backend.prepare(model, seed=0)
    generator = Seeds(0).generator("profile")
    x = generator.random((batch, *prepared.public.input_shape), np.float32)
    noise = ReleaseNoise(np.rint(generator.normal(0, 7, (batch, prepared.public.classes))).astype(np.int64))
    expected = one_hot_argmax(backend.reference(prepared, x))
    runs: dict[str, list[Run]] = {"setup": [], "infer": [], "argmax": [], "release": []}
    equal = 0
    with threadpool_limits(1):
        for repeat in range(repeats + 1):
            if repeat == 1:
                runs = {step: [] for step in runs}
                equal = 0
            session = _timed(runs["setup"], backend.open, repeat, prepared)
            logits = _timed(runs["infer"], backend.infer, session, x)
            votes = _timed(runs["argmax"], backend.argmax, session, logits)
            guardian, _ = backend.open(repeat, None)
            _timed(runs["release"], backend.release, guardian, votes.values[0], votes.values[1], noise)
            equal += int((reconstruct(votes.values, VOTE_RING_BITS) == expected).all(axis=1).sum())
            advance(1)
    setup = _summary(runs.pop("setup"))
    total = [_joined([runs[step][repeat] for step in runs]) for repeat in range(repeats)]
    return {
        "backend": backend.name,
        "model": model_name,
        "batch": batch,
        "security": backend.capabilities.security,
        "exact": backend.capabilities.exact,
        "argmax": backend.capabilities.argmax,
        "release": backend.capabilities.release,
        "steps": {step: _summary(measured) for step, measured in runs.items()},
        "total": _summary(total, rounds_of=[sum(rounds(runs[step][0][1]) for step in runs)]),
        "setup": setup,
        "agreement": equal / (repeats * batch),
        "versions": versions(),
    }


def _timed(runs: list[Run], call: Callable[..., tuple[Any, Transcript]], *arguments: Any) -> Any:
    started_s = time.perf_counter()
    result, transcript = call(*arguments)
    runs.append((time.perf_counter() - started_s, transcript))
    return result


def _joined(parts: Sequence[Run]) -> Run:
    """Steps one after the other, for sums only."""
    return sum(wall_s for wall_s, _ in parts), tuple(node for _, part in parts for node in part)


def _summary(runs: Sequence[Run], rounds_of: Sequence[int] | None = None) -> dict[str, Any]:
    """Medians over repeats of one step. A phase's wall time is the time of both roles in turn."""
    transcripts = [transcript for _, transcript in runs]
    phases = {node.phase for transcript in transcripts for node in transcript}
    return {
        "wall_s": median(wall_s for wall_s, _ in runs),
        "cpu_s": _medians([cpu_s(transcript) for transcript in transcripts]),
        "bytes": sent_bytes(transcripts[0]),
        "rounds": rounds_of[0] if rounds_of else rounds(transcripts[0]),
        "phases": {phase.value: _phase(transcripts, phase) for phase in Phase if phase in phases},
    }


def _phase(transcripts: Sequence[Transcript], phase: Phase) -> dict[str, Any]:
    parts = [of_phase(transcript, phase) for transcript in transcripts]
    return {
        "wall_s": median(sum(cpu_s(part).values()) for part in parts),
        "bytes": sum(sent_bytes(parts[0]).values()),
    }


def _medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {role: median(row.get(role, 0.0) for row in rows) for role in sorted(set().union(*rows))}
