"""No first use is a sample, and how far the samples lie apart is told."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capcsim.backend import Compute, Phase, Role, Scope, Step, Transcript
from capcsim.costs.cache import MeasurementCache
from capcsim.costs.foresee import Pair
from capcsim.costs.measure import Bench
from capcsim.costs.measured import Measurements, Stratum, pair_group
from capcsim.costs.profile import profile
from capcsim.costs.transcripts import cpu_s
from capcsim.privacy.mechanisms import GNMax
from capcsim.protocol import flow
from capcsim.protocol.steps import Voter, share_votes
from capcsim.seeds import Seeds
from capcsim_plaintext import PlaintextBackend

FIRST_S = 100.0
BATCHES = (range(3), range(3, 6))


class FirstUse(PlaintextBackend):
    """Whatever it does for the first time costs 100 s more: with a model, a number of queries, the guardian."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[Any] = set()
        self.asked: Counter[int] = Counter()
        self.opened: list[Any] = []

    def open(self, querier: int, prepared: Any) -> Any:
        session, transcript = super().open(querier, prepared)
        self.opened.append(session)
        return session, self._told(Step.SETUP, Phase.SETUP, transcript, "open", id(prepared))

    def infer(self, session: Any, x: Any) -> Any:
        logits, transcript = super().infer(session, x)
        self.asked[id(session)] += 1
        return logits, self._told(Step.INFER, Phase.ONLINE, transcript, "infer", id(session.prepared), len(x))

    def argmax(self, session: Any, logits: Any) -> Any:
        votes, transcript = super().argmax(session, logits)
        return votes, self._told(Step.ARGMAX, Phase.ONLINE, transcript, "argmax", logits.values.shape)

    def release(self, session: Any, *rest: Any) -> Any:
        found, transcript = super().release(session, *rest)
        return found, self._told(Step.RELEASE, Phase.ONLINE, transcript, "release", rest[0].shape)

    def _told(self, step: Step, phase: Phase, transcript: Transcript, *use: Any) -> Transcript:
        if use in self._known:
            return transcript
        self._known.add(use)
        return (*transcript, Compute(Role.QUERIER, FIRST_S, step, phase, Scope.PAIR, ()))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPCSIM_CACHE", str(tmp_path))


def bench(backend: FirstUse) -> tuple[Bench, list[Pair]]:
    """Two querying parties, and three voters of two architectures."""
    torch.manual_seed(0)
    nets = [torch.nn.Sequential(torch.nn.Linear(5, 3)) for _ in range(2)]
    nets.append(torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)))
    voters = [Voter(i, i + 2, backend.prepare(net, seed=0)) for i, net in enumerate(nets)]
    x = np.random.default_rng(0).normal(0, 1, (6, 5)).astype(np.float32)
    votes = np.stack([share_votes(backend.reference(voter.prepared, x)) for voter in voters], axis=1)
    made = Bench(
        backend,
        [x, x],
        [votes, votes.copy()],
        GNMax(7.0),
        cache=MeasurementCache(backend),
    )
    steps = (*flow.SET_UP, *flow.PAIR)
    pairs = [Pair(q, b, rows, voter, steps) for q in range(2) for b, rows in enumerate(BATCHES) for voter in voters]
    return made, pairs


def openings(pairs: list[Pair]) -> list[Pair]:
    return [Pair(pair.querier, pair.batch, pair.queries, None, (*flow.SET_UP, *flow.OPENING)) for pair in pairs]


def sample(made: Bench, pairs: list[Pair], samples: int = 5) -> None:
    made.sample(pairs, samples, Seeds(0), lambda _: None)


def test_the_backend_of_this_test_tells_first_uses() -> None:
    backend = FirstUse()
    prepared = backend.prepare(torch.nn.Sequential(torch.nn.Linear(5, 3)), seed=0)
    spent = []
    for _ in range(2):
        session, setup = backend.open(0, prepared)
        spent.append((cpu_s(setup), cpu_s(backend.infer(session, np.zeros((2, 5), np.float32))[1])))
    assert [[found[Role.QUERIER] >= FIRST_S for found in each] for each in spent] == [[True, True], [False, False]]


def test_no_first_use_is_a_sample() -> None:
    made, pairs = bench(FirstUse())
    sample(made, [*pairs, *openings(pairs)])
    assert {len(found) for found in made.result.samples.values()} == {5}
    for stratum, found in made.result.samples.items():
        for transcript in found:
            assert max(cpu_s(transcript).values(), default=0.0) < FIRST_S, stratum


@pytest.mark.parametrize("sampled", [True, False])
def test_no_first_use_is_in_a_pair_that_is_executed(sampled: bool) -> None:
    """With the samples from the cache nothing is warm when the first pair's turn comes."""
    made, pairs = bench(FirstUse())
    if sampled:
        sample(made, pairs, 1)
    made.execute(pairs, lambda _: None)
    assert len(made.result.own) == 3 * len(pairs)
    for key, transcript in made.result.own.items():
        assert max(cpu_s(transcript).values()) < FIRST_S, key


def test_a_pair_that_is_executed_has_a_session_of_its_own() -> None:
    """It begins with the first batch and runs every batch once, whatever was measured before."""
    backend = FirstUse()
    made, pairs = bench(backend)
    sample(made, pairs)
    before = len(backend.opened)
    made.execute(pairs, lambda _: None)
    asked = [backend.asked[id(session)] for session in backend.opened[before:]]
    # Two querying parties, three voters; besides them the sessions in which a model is used for the first time.
    assert sorted(asked)[-6:] == [len(BATCHES)] * 6
    assert len(asked) <= 6 + 3


def test_the_spread_is_the_least_the_median_and_the_most() -> None:
    def spent(querier_s: float, answerer_s: float) -> Transcript:
        labels = (Step.INFER, Phase.ONLINE, Scope.PAIR, ())
        return (
            Compute(Role.QUERIER, querier_s, *labels),
            Compute(Role.ANSWERER, answerer_s / 2, *labels),
            Compute(Role.ANSWERER, answerer_s / 2, *labels),
        )

    samples = tuple(spent(*seconds) for seconds in ((1.0, 8.0), (4.0, 8.0), (2.0, 3.0), (3.0, 9.0), (10.0, 1.0)))
    found = Measurements({Stratum(Step.INFER, "one", 3): samples, Stratum(Step.RELEASE, "none", 3): ()}).spread()
    assert found == [
        {
            "step": "infer",
            "group": "one",
            "size": 3,
            "samples": 5,
            "cpu_s": {
                "answerer": {"low": 1.0, "median": 8.0, "high": 9.0},
                "querier": {"low": 1.0, "median": 3.0, "high": 10.0},
            },
        }
    ]


def test_the_spread_has_a_row_for_every_stratum() -> None:
    made, pairs = bench(FirstUse())
    sample(made, [*pairs, *openings(pairs)])
    rows = made.result.spread()
    assert {(row["step"], row["group"], row["size"]) for row in rows} == {
        (key.step.value, key.group, key.size) for key in made.result.samples
    }
    groups = {pair_group(pair.voter.prepared.public) for pair in pairs}
    for row in rows:
        roles = {"querier", "answerer"} if row["group"] in groups else {"querier", "guardian"}
        if row["step"] == "aggregate" and row["group"] in groups:
            roles = {"answerer", "guardian"}
        assert set(row["cpu_s"]) == roles
        assert all(0 <= spent["low"] <= spent["median"] <= spent["high"] for spent in row["cpu_s"].values())


def test_a_profile_tells_its_spread() -> None:
    found = profile(PlaintextBackend(), torch.nn.Sequential(torch.nn.Linear(6, 4)), "linear", batch=3, repeats=4)
    assert set(found["spread"]) == {"setup", "infer", "argmax", "release", "total"}
    costs = {**found["steps"], "setup": found["setup"], "total": found["total"]}
    for step, apart in found["spread"].items():
        assert apart["repeats"] == 4
        assert 0 < apart["wall_s"]["low"] <= apart["wall_s"]["median"] <= apart["wall_s"]["high"]
        assert apart["wall_s"]["median"] == costs[step]["wall_s"]
        assert {role: spent["median"] for role, spent in apart["cpu_s"].items()} == costs[step]["cpu_s"]
