"""The default steps 1c (argmax) and 3 (release) of every backend that does not bring its own.

For now both are an ideal functionality in the clear: one role plays the trusted third party of the
security proof (paper, appendix E), opens both inputs and hands out the outputs. The arithmetic, the
shares and the bytes are real; the confidentiality is not, and `IDEAL` says so in every table and record.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import (
    VOTE_RING_BITS,
    Release,
    ReleaseNoise,
    Role,
    Session,
    Shares,
    Step,
    Transcript,
)
from capcsim.crypto.programs import Recv, Send, Steps, run_local
from capcsim.crypto.shares import reconstruct, share, signed

IDEAL = "ideal functionality in the clear"


class Voting:
    """Inherit from this to get `argmax` and `release`; a backend that only infers is then complete."""

    def argmax(self, session: Session, logits: Shares) -> tuple[Shares, Transcript]:  # noqa: ARG002
        """Step 1c: shares mod 2^32 of the one-hot argmax; the lowest index wins a tie."""
        querier, answerer = argmax_programs()
        outputs, transcript = run_local(
            (Role.QUERIER, Role.ANSWERER),
            (querier(logits.values[0]), answerer(logits.values[1], logits.ring_bits)),
            step=Step.ARGMAX,
        )
        return Shares(np.stack(outputs), VOTE_RING_BITS, 0), transcript

    def release(
        self,
        session: Session,  # noqa: ARG002
        querier_sum: NDArray[np.uint64],
        guardian_sum: NDArray[np.uint64],
        noise: ReleaseNoise,
    ) -> tuple[Release, Transcript]:
        """Step 3: the label goes to the querying party only."""
        querier, guardian = release_programs()
        (release, _), transcript = run_local(
            (Role.QUERIER, Role.GUARDIAN),
            (querier(querier_sum, noise.threshold), guardian(guardian_sum, noise)),
            step=Step.RELEASE,
        )
        return release, transcript


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


def argmax_programs() -> tuple[Callable[..., Steps], Callable[..., Steps]]:
    """The two roles of step 1c; the answering party plays the ideal functionality."""
    return _argmax_querier, _argmax_answerer


def release_programs() -> tuple[Callable[..., Steps], Callable[..., Steps]]:
    """The two roles of step 3; the querying party plays the ideal functionality."""
    return _release_querier, _release_guardian


def _argmax_querier(logits: NDArray[np.uint64]) -> Steps:
    yield Send(logits.tobytes())
    votes = yield Recv()
    return np.frombuffer(votes, np.uint32).reshape(logits.shape).astype(np.uint64)


def _argmax_answerer(logits: NDArray[np.uint64], ring_bits: int) -> Steps:
    theirs = yield Recv()
    both = np.stack([np.frombuffer(theirs, np.uint64).reshape(logits.shape), logits])
    votes = share(one_hot_argmax(reconstruct(both, ring_bits)), VOTE_RING_BITS)
    yield Send(votes[0].astype(np.uint32).tobytes())
    return votes[1]


def _release_querier(own_sum: NDArray[np.uint64], threshold: int | None) -> Steps:
    guardian_sum = yield Recv()
    votes_noise = yield Recv()
    top_noise = None
    if threshold is not None:
        top_noise = np.frombuffer((yield Recv()), np.int32).astype(np.int64)
    theirs = np.frombuffer(guardian_sum, np.uint32).reshape(own_sum.shape)
    votes_noise = np.frombuffer(votes_noise, np.int32).reshape(own_sum.shape).astype(np.int64)
    noise = ReleaseNoise(votes_noise, threshold, top_noise)
    return noisy_argmax(signed(own_sum + theirs, VOTE_RING_BITS), noise)


def _release_guardian(own_sum: NDArray[np.uint64], noise: ReleaseNoise) -> Steps:
    yield Send(own_sum.astype(np.uint32).tobytes())
    yield Send(noise.votes.astype(np.int32).tobytes())
    if noise.top is not None:
        yield Send(noise.top.astype(np.int32).tobytes())
