"""The protocol's steps as arithmetic and two-party programs (paper, section 3.2).

Steps 1a to 1c are a backend's; what comes after a vote is the same for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import VOTE_RING_BITS, Prepared, ReleaseNoise, Scope
from capcsim.crypto.shares import ring_mask, share
from capcsim.privacy.mechanisms import Mechanism
from capcsim.privacy.noise import Draw, largest_noise, real_draw
from capcsim.twoparty.programs import Mark, Recv, Send, Steps
from capcsim.twoparty.voting import one_hot_argmax

Votes: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Voter:
    """One answering model: `index` counts all of them, `party` owns it."""

    index: int
    party: int
    prepared: Prepared


def answering(voters: Sequence[Voter], querier: int) -> tuple[Voter, ...]:
    """Every voter but the querying party's own: it never answers its own query."""
    return tuple(voter for voter in voters if voter.party != querier)


def share_votes(logits: NDArray[np.int64]) -> Votes:
    """Fresh shares uint64[2, B, C] of the one-hot votes for logits int64[B, C]."""
    return share(one_hot_argmax(logits), VOTE_RING_BITS)


def sum_shares(shares: Votes) -> tuple[Votes, Votes]:
    """Both sides' sums uint64[B, C] over the voters of shares uint64[2, V, B, C], mod 2^32."""
    querier_sum, guardian_sum = shares.sum(axis=1, dtype=np.uint64) & ring_mask(VOTE_RING_BITS)
    return querier_sum, guardian_sum


def release_noise(mechanism: Mechanism, draws: Sequence[Draw], voters: int) -> ReleaseNoise:
    """What the guardian brings to step 3 for some queries."""
    votes, tops = (np.concatenate([draw.votes for draw in draws]), [draw.top for draw in draws])
    test = None if tops[0] is None else np.concatenate([top for top in tops if top is not None])
    return ReleaseNoise(votes, mechanism.threshold, test, release_bits(mechanism, voters))


def release_bits(mechanism: Mechanism, voters: int) -> int:
    """The width of step 3, which is public.

    16 bits where counts, threshold and noise stay below 2^15, at half the cost of 32, which the scenario guarantees.
    """
    return 16 if voters + largest_noise(mechanism) < 1 << 15 else VOTE_RING_BITS


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
