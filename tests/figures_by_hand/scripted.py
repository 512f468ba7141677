"""Backends whose costs are written down beforehand, and a clock that only they move.

Their arithmetic, shares and circuits are the plaintext backend's real ones; only what they report of time, bytes and
rounds is scripted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import numpy as np

from capcsim.backend import Compute, Message, Phase, Role, Scope, Shares, Step, Transcript
from capcsim.crypto.shares import share
from capcsim_plaintext import PlaintextBackend

Q, A, G = Role.QUERIER, Role.ANSWERER, Role.GUARDIAN
QUERY_BYTES, VOTE_BYTES, LABEL_BYTES, KEY_BYTES = 1000, 300, 70, 5


@dataclass
class Clock:
    """In place of the module `time`: it stands still but for what a scripted call takes."""

    now_s: float = 0.0

    def perf_counter(self) -> float:
        return self.now_s


@dataclass
class Script:
    """Seconds of each step of one pair, whatever the batch, and the round trips before the model runs.

    `more_s` is what each call of infer takes longer, by the clock and by the answering party's CPU.
    """

    encode_s: float
    infer_s: float
    argmax_s: float
    release_s: float
    key_s: float = 2.0
    trips: int = 0
    more_s: Iterator[float] = field(default_factory=lambda: repeat(0.0))

    def infer(self, more_s: float) -> Transcript:
        """The query is encoded once for all pairs, sent there and back `trips` times, then for good."""
        nodes: list[Compute | Message] = [Compute(Q, self.encode_s, Step.INFER, Phase.ONLINE, Scope.QUERY, ())]
        for sender, receiver in [(Q, A), (A, Q)] * self.trips:
            nodes.append(_message(sender, receiver, 0, Step.INFER, len(nodes) - 1))
        nodes.append(_message(Q, A, QUERY_BYTES, Step.INFER, len(nodes) - 1))
        return (*nodes, _work(A, self.infer_s + more_s, Step.INFER, len(nodes) - 1))

    def argmax(self) -> Transcript:
        """The answering party works, then sends, in two parts."""
        parts = (_message(A, Q, nbytes, Step.ARGMAX, 0) for nbytes in (VOTE_BYTES // 3, VOTE_BYTES - VOTE_BYTES // 3))
        return _work(A, self.argmax_s, Step.ARGMAX), *parts

    def release(self) -> Transcript:
        """The guardian works, then sends the label."""
        return _work(G, self.release_s, Step.RELEASE), _message(G, Q, LABEL_BYTES, Step.RELEASE, 0)

    def set_up(self, other: Role) -> Transcript:
        """The querying party makes its keys once and sends them."""
        keys = Compute(Q, self.key_s, Step.SETUP, Phase.SETUP, Scope.QUERIER, ())
        return keys, replace(_message(Q, other, KEY_BYTES, Step.SETUP, 0), phase=Phase.SETUP)

    def label_s(self, latency_s: float) -> float:
        """From query to label: one latency for each trip either way, the query, the share, and the release."""
        worked_s = self.encode_s + self.infer_s + self.argmax_s + self.release_s
        return worked_s + (2 * self.trips + 3) * latency_s


def _work(role: Role, seconds: float, step: Step, *after: int) -> Compute:
    return Compute(role, seconds, step, Phase.ONLINE, Scope.PAIR, after)


def _message(sender: Role, receiver: Role, nbytes: int, step: Step, *after: int) -> Message:
    return Message(sender, receiver, nbytes, step, Phase.ONLINE, Scope.PAIR, after)


class Scripted(PlaintextBackend):
    """Reports its script. With `deaf` it votes for class 0, whatever its model says; with `stubborn` on principle."""

    def __init__(
        self, name: str, security: str, script: Script, clock: Clock, *, deaf: bool = False, stubborn: bool = False
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.capabilities = replace(PlaintextBackend.capabilities, security=security, exact=not (deaf or stubborn))  # type: ignore[misc]
        self._script, self._clock, self._deaf, self._stubborn = script, clock, deaf or stubborn, stubborn

    def open(self, querier: int, prepared: Any) -> Any:
        session, _ = super().open(querier, prepared)
        self._clock.now_s += self._script.key_s
        return session, self._script.set_up(G if prepared is None else A)

    def reference(self, prepared: Any, x: Any) -> Any:
        logits = super().reference(prepared, x)
        return np.where(np.arange(logits.shape[1]), -1, 1) + 0 * logits if self._stubborn else logits

    def infer(self, session: Any, x: Any) -> Any:
        shares, _ = super().infer(session, x)
        more_s = next(self._script.more_s)
        self._clock.now_s += self._script.encode_s + self._script.infer_s + more_s
        return shares, self._script.infer(more_s)

    def argmax(self, session: Any, logits: Any) -> Any:
        votes, _ = super().argmax(session, logits)
        self._clock.now_s += self._script.argmax_s
        if self._deaf:
            first = np.zeros(votes.values.shape[1:], np.int64)
            first[:, 0] = 1
            votes = Shares(share(first, votes.ring_bits), votes.ring_bits, 0)
        return votes, self._script.argmax()

    def release(self, session: Any, querier_sum: Any, guardian_sum: Any, noise: Any) -> Any:
        release, _ = super().release(session, querier_sum, guardian_sum, noise)
        self._clock.now_s += self._script.release_s
        return release, self._script.release()

    def saturation(self, prepared: Any, x: Any) -> float:
        return 0.25
