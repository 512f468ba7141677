"""The default steps 1c (argmax) and 3 (release) of every backend that does not bring its own: Yao's protocol.

Step 1c: the querying party garbles, the answering party evaluates and alone learns its share of the votes; the
querying party's share is the mask that it chose, fresh for each class and query. Step 3: the privacy guardian
garbles its noisy sum, and only the querying party decodes the label. Nobody learns a logit, a vote or a noisy
count; the guardian learns neither the label nor whether the query was answered. Semi-honest, 128-bit labels.

Numba and the rest of the engine are loaded on first use: a backend's package stays light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import (
    VOTE_RING_BITS,
    Phase,
    Release,
    ReleaseNoise,
    Role,
    Shares,
    Step,
    Tap,
    Transcript,
)
from capcsim.crypto.shares import uniform
from capcsim.errors import InputError
from capcsim.twoparty.programs import Steps
from capcsim.twoparty.runners import Far, LocalRunner, Runner

if TYPE_CHECKING:
    from capcsim.twoparty.yao import EvaluatorSession, GarblerSession

YAO = "Yao's garbled circuits"
_HERE = LocalRunner()


@dataclass
class VotingSession:
    """Both sides of one pair: the querying party with an answering party, or with the guardian."""

    garbler: GarblerSession
    evaluator: Far
    """Stands for the `EvaluatorSession` where the other role runs."""


class HasVoting(Protocol):
    """What the default steps need of a backend's session: what `Voting.open_voting` returned."""

    voting: VotingSession


class Voting:
    """Inherit from this to get `argmax` and `release`; a backend that only infers is then complete.

    Its `open` calls `open_voting` and keeps the result as `voting` of the session that it returns.
    """

    _tap: Tap | None = None
    runner: Runner = LocalRunner()
    """Where the answering party's role runs; the guardian's always runs here."""

    def open_voting(self, other: Role) -> tuple[VotingSession, Transcript]:
        """Base transfers between the querying party and `other`, the answering party or the guardian."""
        garbler, evaluator = set_up_programs()
        (session, theirs), transcript = self._runner(other).run(
            _seats(other),
            (garbler, ()),
            (evaluator, ()),
            step=Step.SETUP,
            phase=Phase.SETUP,
            keep=True,
            tap=self._tap,
        )
        return VotingSession(session, theirs), transcript

    def argmax(self, session: HasVoting, logits: Shares) -> tuple[Shares, Transcript]:
        """Step 1c: shares mod 2^32 of the one-hot argmax; the lowest index wins a tie. Raises InputError."""
        values = getattr(logits, "values", None)
        if not isinstance(values, np.ndarray) or values.ndim != 3 or len(values) != 2 or values.dtype != np.uint64:
            raise InputError("argmax takes the Shares that infer returned: values uint64[2, B, C]")
        querier, answerer = argmax_programs()
        outputs, transcript = self.runner.run(
            _seats(Role.ANSWERER),
            (querier, (session.voting.garbler, logits.values[0], logits.ring_bits)),
            (answerer, (session.voting.evaluator, logits.values[1], logits.ring_bits)),
            step=Step.ARGMAX,
            tap=self._tap,
        )
        return Shares(np.stack(outputs), VOTE_RING_BITS, 0), transcript

    def release(
        self,
        session: HasVoting,
        querier_sum: NDArray[np.uint64],
        guardian_sum: NDArray[np.uint64],
        noise: ReleaseNoise,
    ) -> tuple[Release, Transcript]:
        """Step 3: the label goes to the querying party only."""
        _check_noise(noise)
        querier, guardian = release_programs()
        asks_threshold = noise.threshold is not None
        (_, release), transcript = self._runner(Role.GUARDIAN).run(
            _seats(Role.GUARDIAN),
            (guardian, (session.voting.garbler, guardian_sum, noise)),
            (querier, (session.voting.evaluator, querier_sum, noise.ring_bits, asks_threshold)),
            step=Step.RELEASE,
            tap=self._tap,
        )
        return release, transcript

    def _runner(self, other: Role) -> Runner:
        return _HERE if other is Role.GUARDIAN else self.runner


class TappedVoting(Voting):
    """The same for a backend that offers "tap": what it runs itself takes `tap=self.tap` too."""

    @property
    def tap(self) -> Tap | None:
        """Sees every message, as (sender, receiver, payload)."""
        return self._tap

    @tap.setter
    def tap(self, tap: Tap | None) -> None:
        self._tap = tap


def one_hot_argmax(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[B, C] of zeros with a one at each row's largest entry; the lowest index wins a tie."""
    one_hot = np.zeros_like(values)
    np.put_along_axis(one_hot, values.argmax(axis=1)[:, None], 1, axis=1)
    return one_hot


def noisy_argmax(counts: NDArray[np.int64], noise: ReleaseNoise) -> Release:
    """What step 3 computes, on the opened counts int64[B, C]: the specification of every `release`."""
    labels = (counts + noise.votes).argmax(axis=1).astype(np.int64)
    answered = np.ones(len(labels), np.bool_)
    if noise.threshold is not None and noise.top is not None:
        answered = counts.max(axis=1) + noise.top >= noise.threshold
    return Release(np.where(answered, labels, -1), answered)


def set_up_programs() -> tuple[Callable[..., Steps], Callable[..., Steps]]:
    """The garbler's and the evaluator's role in setting up a pair."""
    from capcsim.twoparty.yao import set_up_evaluator, set_up_garbler

    return set_up_garbler, set_up_evaluator


def argmax_programs() -> tuple[Callable[..., Steps], Callable[..., Steps]]:
    """The two roles of step 1c: the querying party's (garbler) and the answering party's (evaluator)."""
    return _argmax_querier, _argmax_answerer


def release_programs() -> tuple[Callable[..., Steps], Callable[..., Steps]]:
    """The two roles of step 3: the querying party's (evaluator) and the guardian's (garbler)."""
    return _release_querier, _release_guardian


def _seats(other: Role) -> tuple[Role, Role]:
    """(garbler, evaluator) of a pair: the querying party garbles for answering parties, the guardian for it."""
    return (Role.GUARDIAN, Role.QUERIER) if other is Role.GUARDIAN else (Role.QUERIER, other)


def _argmax_querier(session: GarblerSession, logits: NDArray[np.uint64], ring_bits: int) -> Steps:
    from capcsim.crypto.interpreters import words_to_inputs
    from capcsim.crypto.library import argmax_circuit
    from capcsim.twoparty.yao import run_garbler

    votes = uniform(logits.shape, VOTE_RING_BITS)
    circuit = argmax_circuit(logits.shape[1], ring_bits)
    masks = words_to_inputs((-votes).astype(np.uint64), VOTE_RING_BITS)
    yield from run_garbler(session, circuit, early=masks, late=words_to_inputs(logits, ring_bits))
    return votes


def _argmax_answerer(session: EvaluatorSession, logits: NDArray[np.uint64], ring_bits: int) -> Steps:
    from capcsim.crypto.interpreters import outputs_to_words, words_to_inputs
    from capcsim.crypto.library import argmax_circuit
    from capcsim.twoparty.yao import run_evaluator

    classes = logits.shape[1]
    circuit = argmax_circuit(classes, ring_bits)
    outputs = yield from run_evaluator(session, circuit, classes * ring_bits, words_to_inputs(logits, ring_bits))
    return outputs_to_words(outputs, classes)


def _release_querier(
    session: EvaluatorSession, own_sum: NDArray[np.uint64], ring_bits: int, asks_threshold: bool
) -> Steps:
    from capcsim.crypto.interpreters import words_to_inputs
    from capcsim.crypto.library import release_circuit, release_with_threshold_circuit
    from capcsim.twoparty.yao import run_evaluator

    classes = own_sum.shape[1]
    circuit = (release_with_threshold_circuit if asks_threshold else release_circuit)(classes, ring_bits)
    outputs = yield from run_evaluator(session, circuit, circuit.garbler_inputs, words_to_inputs(own_sum, ring_bits))
    answered = outputs[classes].astype(bool) if asks_threshold else np.ones(len(own_sum), np.bool_)
    return Release(np.where(answered, outputs[:classes].argmax(axis=0), -1).astype(np.int64), answered)


def _release_guardian(session: GarblerSession, own_sum: NDArray[np.uint64], noise: ReleaseNoise) -> Steps:
    from capcsim.crypto.interpreters import words_to_inputs
    from capcsim.crypto.library import release_circuit, release_with_threshold_circuit
    from capcsim.twoparty.yao import run_garbler

    bits, classes = noise.ring_bits, own_sum.shape[1]
    inputs = [words_to_inputs(own_sum + noise.votes.astype(np.uint64), bits)]
    build = release_circuit
    if noise.threshold is not None and noise.top is not None:
        build = release_with_threshold_circuit
        needed = (noise.threshold - noise.top).astype(np.uint64)
        inputs += [words_to_inputs(own_sum, bits), words_to_inputs(needed[:, None], bits)]
    late = np.concatenate(inputs)
    yield from run_garbler(session, build(classes, bits), early=late[:0], late=late)


def _check_noise(noise: ReleaseNoise) -> None:
    """Raises InputError for half a threshold, or numbers that the public ring width cannot hold."""
    if (noise.threshold is None) is not (noise.top is None):
        raise InputError("ReleaseNoise: a threshold and the noise on the largest count go together")
    room = 1 << (noise.ring_bits - 1)
    numbers = [noise.votes]
    if noise.threshold is not None and noise.top is not None:
        numbers.append(noise.threshold - noise.top)
    largest = max(int(np.abs(values).max(initial=0)) for values in numbers)
    if largest >= room:
        raise InputError(f"ReleaseNoise: {largest} does not fit {noise.ring_bits} bits; give a larger ring_bits")
