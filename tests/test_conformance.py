"""Every installed backend of ours passes the kit, and the kit notices each broken promise."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from capcsim import conformance, registry
from capcsim.backend import Backend, Phase, Release, Scope, Shares, Step
from capcsim.crypto.shares import share
from capcsim_plaintext import PlaintextBackend
from tests.environment import without

OURS = [name for name in registry.names() if registry.status(name).package == "capcsim"]


@pytest.fixture(scope="module", params=OURS)
def ours(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """One for all checks: a backend may start processes."""
    if why := without(request.param):
        pytest.skip(why)
    backend = registry.load(request.param)
    yield backend
    backend.close()


@pytest.mark.parametrize("check", conformance.CHECKS)
def test_our_backends_conform(ours: Backend, check: str) -> None:
    conformance.CHECKS[check](ours)


class WrongSecurity(PlaintextBackend):
    capabilities = replace(PlaintextBackend.capabilities, security="military grade")


class PublishesWeights(PlaintextBackend):
    def prepare(self, model: Any, *, seed: int) -> Any:
        prepared = super().prepare(model, seed=seed)
        first, *others = prepared.public.layers
        leaked = replace(first, inputs=int(prepared.private.weights[1].weight[0, 0]))
        return replace(prepared, public=replace(prepared.public, layers=(leaked, *others)))


class NamesItsLayers(PlaintextBackend):
    def prepare(self, model: Any, *, seed: int) -> Any:
        prepared = super().prepare(model, seed=seed)
        names = tuple(map(str, prepared.public.layers))
        return replace(prepared, public=replace(prepared.public, layers=names))


class LeavesOutTheLastLayer(PlaintextBackend):
    def prepare(self, model: Any, *, seed: int) -> Any:
        prepared = super().prepare(model, seed=seed)
        return replace(prepared, public=replace(prepared.public, layers=prepared.public.layers[:-1]))


class TakesAnything(PlaintextBackend):
    def prepare(self, model: Any, *, seed: int) -> Any:
        return None


class InfersWrongly(PlaintextBackend):
    def infer(self, session: Any, x: Any) -> Any:
        shares, transcript = super().infer(session, x)
        values = shares.values.copy()
        values[0, -1, 0] += np.uint64(1)
        return replace(shares, values=values), transcript


class ReferenceDependsOnBatch(PlaintextBackend):
    def reference(self, prepared: Any, x: Any) -> Any:
        return super().reference(prepared, x) + len(x)


class RepeatsShares(PlaintextBackend):
    def infer(self, session: Any, x: Any) -> Any:
        _, transcript = super().infer(session, x)
        public = session.prepared.public
        values = self.reference(session.prepared, x).astype(np.uint64) & np.uint64((1 << public.ring_bits) - 1)
        return Shares(np.stack([values, 0 * values]), public.ring_bits, public.fraction_bits), transcript


class LastWinsTies(PlaintextBackend):
    def argmax(self, session: Any, logits: Any) -> Any:
        flipped, transcript = super().argmax(session, replace(logits, values=logits.values[:, :, ::-1]))
        return replace(flipped, values=flipped.values[:, :, ::-1]), transcript


class ForgetsTheNoise(PlaintextBackend):
    def release(self, session: Any, querier_sum: Any, guardian_sum: Any, noise: Any) -> Any:
        return super().release(session, querier_sum, guardian_sum, replace(noise, votes=0 * noise.votes))


class IgnoresTheThreshold(PlaintextBackend):
    def release(self, session: Any, querier_sum: Any, guardian_sum: Any, noise: Any) -> Any:
        release, transcript = super().release(session, querier_sum, guardian_sum, replace(noise, threshold=None))
        return Release(release.labels, np.ones_like(release.answered)), transcript


class SwallowsNaN(PlaintextBackend):
    def infer(self, session: Any, x: Any) -> Any:
        return super().infer(session, np.nan_to_num(x))


class SharesTooMuchWork(PlaintextBackend):
    def infer(self, session: Any, x: Any) -> Any:
        shares, transcript = super().infer(session, x)
        last = replace(transcript[-1], scope=Scope.QUERY)
        return shares, (*transcript[:-1], last)


class WaitsForTheFuture(PlaintextBackend):
    def infer(self, session: Any, x: Any) -> Any:
        shares, transcript = super().infer(session, x)
        return shares, (replace(transcript[0], after=(len(transcript) - 1,)), *transcript[1:])


class ClosesOnce(PlaintextBackend):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise OSError("closed already")
        self.closed = True


class VotesInAnotherRing(PlaintextBackend):
    def argmax(self, session: Any, logits: Any) -> Any:
        votes, transcript = super().argmax(session, logits)
        return Shares(share(np.eye(votes.values.shape[2], dtype=np.int64)[:1], 16), 16, 0), transcript


def offering(*names: str) -> Any:
    return replace(PlaintextBackend.capabilities, offers=frozenset(names))


class OffersWhatItHasNot(PlaintextBackend):
    capabilities = offering("programs", "saturation", "tap", "ahead")


class OffersWhatNobodyKnows(PlaintextBackend):
    capabilities = offering("programs", "saturation", "tap", "teleportation")


class HidesItsSaturation(PlaintextBackend):
    capabilities = offering("programs", "tap")


class HasProgramsForEverything(PlaintextBackend):
    def programs(self, step: Any) -> Any:
        return super().programs(Step.INFER)


class ForgetsItsWorkAhead(PlaintextBackend):
    capabilities = offering("programs", "saturation", "tap", "ahead")

    def prepare_ahead(self, session: Any, queries: int) -> Any:
        _, transcript = self.infer(session, np.zeros((queries, 6), np.float32))
        return tuple(replace(node, phase=Phase.OFFLINE) for node in transcript)


class TellsNumpy(PlaintextBackend):
    capabilities = offering("programs", "saturation", "tap", "details")

    def details(self, session: Any, queries: int) -> Any:
        return {"queries": np.int64(queries)}


class NeverSaturates(PlaintextBackend):
    def saturation(self, prepared: Any, x: Any) -> float:
        super().saturation(prepared, x)
        return 0.0


class InfersBehindTheTap(PlaintextBackend):
    def infer(self, session: Any, x: Any) -> Any:
        tap, self.tap = self.tap, None
        found = super().infer(session, x)
        self.tap = tap
        return found


class TellsNothing(PlaintextBackend):
    capabilities = offering("programs", "saturation", "tap", "progress")
    progress = None


class GoesBackwards(TellsNothing):
    def infer(self, session: Any, x: Any) -> Any:
        if self.progress:
            for done in (0.7, 0.3):
                self.progress(done)
        return super().infer(session, x)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (WrongSecurity, "capabilities are declared"),
        (PublishesWeights, "prepare publishes no weight"),
        (NamesItsLayers, "public layers are values"),
        (LeavesOutTheLastLayer, "public layers are values"),
        (TakesAnything, "prepare refuses what it cannot do"),
        (InfersWrongly, "infer equals reference"),
        (ReferenceDependsOnBatch, "reference does not depend on the batch"),
        (RepeatsShares, "shares are fresh"),
        (LastWinsTies, "argmax is one hot with the lowest index on ties"),
        (VotesInAnotherRing, "argmax is one hot with the lowest index on ties"),
        (ForgetsTheNoise, "release is the noisy argmax"),
        (IgnoresTheThreshold, "release is the noisy argmax"),
        (SwallowsNaN, "bad inputs are refused"),
        (SharesTooMuchWork, "transcripts are well formed"),
        (WaitsForTheFuture, "transcripts are well formed"),
        (ClosesOnce, "close can be repeated"),
        (OffersWhatItHasNot, "offers are there and declared"),
        (OffersWhatNobodyKnows, "offers are there and declared"),
        (HidesItsSaturation, "offers are there and declared"),
        (HasProgramsForEverything, "offered programs are those of the steps"),
        (ForgetsItsWorkAhead, "offered work ahead is a part of infer"),
        (TellsNumpy, "offered details are json"),
        (NeverSaturates, "offered saturation is a share"),
        (InfersBehindTheTap, "an offered tap sees every message"),
        (TellsNothing, "offered progress is told"),
        (GoesBackwards, "offered progress is told"),
    ],
)
def test_the_kit_notices(broken: Callable[[], Any], check: str) -> None:
    failed = {result.name: result.detail for result in conformance.run_checks(broken()) if not result.passed}
    assert check in failed
    assert failed[check]
