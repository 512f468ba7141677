"""The third stage: transcripts of real pairs, measured on this host, and, where every pair ran, their own votes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import VOTE_RING_BITS, Backend
from capcsim.costs.cache import MeasurementCache
from capcsim.costs.foresee import Foreseen, merged
from capcsim.costs.measure import Bench, runs
from capcsim.costs.measured import Measurements, guardian_group, pair_group
from capcsim.crypto.shares import reconstruct, share
from capcsim.learning.ensemble import Ensemble
from capcsim.privacy.mechanisms import Mechanism
from capcsim.protocol.steps import Votes
from capcsim.study.asked import UNKNOWN, Asked, Ballots
from capcsim.study.means import Means, content_key


@dataclass(frozen=True)
class Priced:
    """What was measured in all rounds so far, and the votes with which the protocol goes on."""

    measured: Measurements
    ballots: tuple[Ballots, ...]
    key: str


def price(
    ensemble: Ensemble,
    asked: Asked,
    earlier: Priced | None,
    foreseen: Sequence[Foreseen],
    backend: Backend,
    mechanism: Mechanism,
    means: Means,
) -> Priced:
    """Run real pairs of this round, a sample or every one; of what earlier rounds measured nothing runs again."""
    scenario = ensemble.scenario
    protocol, sizes = scenario.protocol, [each.sizes() for each in foreseen]
    groups = [pair_group(voter.prepared.public) for voter in asked.voters]
    before = earlier.key if earlier else ""
    guardian = guardian_group(ensemble.dataset.classes, len(asked.voters), mechanism)
    key = content_key(asked.key, before, sizes, groups, guardian, protocol.samples, protocol.execute, scenario.seed)

    def make() -> tuple[Priced, bool]:
        bench, shares = _bench(ensemble, asked, earlier, backend, mechanism, means)
        pairs, progress, seeds = merged(foreseen, asked.voters), means.progress, ensemble.seeds
        for title, some in (
            ("measuring pairs", [pair for pair in pairs if pair.voter]),
            ("measuring the guardian", [pair for pair in pairs if not pair.voter]),
        ):
            bench.sample(some, protocol.samples, seeds, progress.stage(title, runs(some, protocol.samples)))
        ballots = asked.ballots
        if protocol.execute == "all":
            every = foreseen[0].pairs(asked.voters)
            bench.execute(every, progress.stage("executing every pair", len(every)))
            ballots = tuple(ballots_of(votes, found) for votes, found in zip(shares, ballots, strict=True))
        measured, old = bench.result, earlier.measured if earlier else Measurements()
        reused = measured.reused_strata - old.reused_strata
        anew = len(measured.samples) - len(old.samples) > reused or len(measured.own) > len(old.own)
        return Priced(measured, ballots, key), anew

    return means.memory.value("priced", key, make)


def one_hot(ballots: Ballots, classes: int) -> NDArray[np.int64]:
    """The votes int64[V, n, C]; all zero where a voter did not vote."""
    votes: NDArray[np.int64] = (ballots[:, :, None] == np.arange(classes)).astype(np.int64)
    return votes


def share_ballots(ballots: Ballots, classes: int) -> Votes:
    """Fresh shares uint64[2, V, n, C] of the votes."""
    return share(one_hot(ballots, classes), VOTE_RING_BITS)


def ballots_of(votes: Votes, before: Ballots) -> Ballots:
    """The inverse of `share_ballots`: who did not vote `before` has not voted."""
    return np.where(before == UNKNOWN, UNKNOWN, reconstruct(votes, VOTE_RING_BITS).argmax(axis=2))


def _bench(
    ensemble: Ensemble,
    asked: Asked,
    earlier: Priced | None,
    backend: Backend,
    mechanism: Mechanism,
    means: Means,
) -> tuple[Bench, list[Votes]]:
    """The bench, and the shares in which it puts the votes that it executes; earlier rounds' are as they were."""
    ballots = list(asked.ballots)
    for querier, old in enumerate(earlier.ballots if earlier else ()):
        ballots[querier] = np.concatenate([old, ballots[querier][:, old.shape[1] :]], axis=1)
    shares = [share_ballots(found, ensemble.dataset.classes) for found in ballots]
    inputs = [ensemble.samples(querier, rows) for querier, rows in enumerate(asked.rows)]
    cache = MeasurementCache(backend, ensemble.scenario.protocol.options, reading=not means.measure)
    measured = earlier.measured if earlier else None
    return Bench(backend, inputs, shares, mechanism, cache=cache, measured=measured), shares
