"""Real executions of the plaintext backend: the sample, the cache, and what it notices."""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capcsim.backend import VOTE_RING_BITS, Message, PublicModel, Step, Transcript
from capcsim.costs.cache import MeasurementCache
from capcsim.costs.foresee import Pair
from capcsim.costs.measure import Bench
from capcsim.costs.measured import Agreement, MeasuredCosts, Measurements, Stratum, guardian_group, pair_group
from capcsim.crypto.shares import reconstruct
from capcsim.errors import CapcsimWarning, ConformanceError
from capcsim.fixed_point import layers
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, LNMax
from capcsim.protocol import flow
from capcsim.protocol.steps import Voter, share_votes
from capcsim.seeds import Seeds
from capcsim_plaintext import PlaintextBackend

STEPS = (*flow.SET_UP, *flow.PAIR)


def models(backend: Any) -> list[Voter]:
    """Four voters of two architectures; the first belongs to the querying party."""
    torch.manual_seed(0)
    hidden = [torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)]
    nets = [torch.nn.Sequential(torch.nn.Linear(5, 3)) for _ in range(3)] + [torch.nn.Sequential(*hidden)]
    return [Voter(i, i, backend.prepare(net, seed=0)) for i, net in enumerate(nets)]


def bench(backend: Any, cache: MeasurementCache) -> tuple[Bench, list[Pair], Any]:
    voters = models(backend)
    x = np.random.default_rng(0).normal(0, 1, (7, 5)).astype(np.float32)
    votes = np.stack([share_votes(backend.reference(voter.prepared, x)) for voter in voters], axis=1)
    votes[:, 0] = 0
    batches = [range(3), range(3, 6), range(6, 7)]
    pairs = [Pair(0, number, rows, voter, STEPS) for number, rows in enumerate(batches) for voter in voters[1:]]
    return Bench(backend, [x], [votes], GNMax(7.0), cache=cache), pairs, votes


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPCSIM_CACHE", str(tmp_path))


def measured(seed: int = 0, *, reading: bool = True) -> Bench:
    backend = PlaintextBackend()
    made, pairs, _ = bench(backend, MeasurementCache(backend, reading=reading))
    openings = [Pair(0, pair.batch, pair.queries, None, (*flow.SET_UP, *flow.OPENING)) for pair in pairs]
    made.sample(pairs + openings, 5, Seeds(seed), lambda _: None)
    return made


def test_every_stratum_has_five_samples_the_partial_batch_too() -> None:
    result = measured().result
    backend = PlaintextBackend()
    groups = {pair_group(voter.prepared.public) for voter in models(backend)}
    assert len(groups) == 2
    for name in groups:
        for step in (Step.SETUP, Step.INFER, Step.ARGMAX, Step.AGGREGATE):
            for size in (3, 1):
                assert len(result.samples[Stratum(step, name, size)]) == 5
    for step in (Step.SETUP, Step.AGGREGATE, Step.RELEASE):
        assert len(result.samples[Stratum(step, guardian_group(3, 4, GNMax(7.0)), 1)]) == 5


def test_what_the_cost_depends_on_is_in_the_name() -> None:
    # More than 819 votes of noise need a wider circuit; how much noise there is otherwise costs nothing.
    noises = [GNMax(7.0), GNMax(8.0), GNMax(900.0), LNMax(7.0), *(ConfidentGNMax(7.0, t, 7.0) for t in (5, 6))]
    names = {guardian_group(*sizes, noise) for sizes in ((3, 4), (2, 4), (3, 5)) for noise in noises}
    assert len(names) == 3 * 5
    flatten = layers.Reshape((0,), (81,))
    shapes = [PublicModel((flatten,), shape, 3, bits, 24) for shape in ((9, 9), (3, 27)) for bits in (37, 41)]
    assert len({pair_group(public) for public in shapes}) == 4


def test_the_names_of_pairs_stay_what_they_are() -> None:
    # Earlier records and kept transcripts are found by these texts.
    chain = (
        layers.Conv2d((0,), (4, 10, 10), 3, (3, 3), (1, 1), (0, 0)),
        layers.Relu((1,), (4, 5, 5), 12, layers.Pool((2, 2), (2, 2))),
        layers.Truncate((2,), (4, 5, 5), 4),
        layers.SumPool((3,), (4, 1, 1), (5, 5), (5, 5), (0, 0)),
        layers.Relu((4,), (4, 1, 1), 14),
        layers.Reshape((5,), (1, 4)),
        layers.Reshape((6,), (4,)),
        layers.Shift((7,), (4,), 12),
        layers.Add((7, 8), (4,)),
        layers.Linear((9,), (7,), 4),
        layers.TreePaths((10,), (8,), 1, 3),
        layers.Step((11,), (8,)),
        layers.Linear((12,), (3,), 8),
    )
    assert pair_group(PublicModel(chain, (3, 12, 12), 3, 37, 24)) == (
        "3x12x12: conv2d(3->4, 3x3, stride (1, 1), padding (0, 0)), max_pool(2x2, stride (2, 2), padding (0, 0)) + relu"
        ", truncate(4 bits), sum_pool(5x5, stride (5, 5), padding (0, 0)), relu(drop 14 bits), reshape(1x4), flatten, "
        "shift(12 bits), add, linear(4->7), tree_paths(1 trees of depth 3), step, linear(8->3), "
        "mod 2^37, 24 fraction bits"
    )


def test_measurements_come_back_from_json() -> None:
    result = measured().result
    assert Measurements.from_json(json.loads(json.dumps(result.to_json()))) == result


DAMAGED: list[str | dict[str, Any]] = [
    "{",
    {"samples": [], "agreement": {}},
    {"samples": None},
    {"agreement": None},
    {"samples": [[[[None, None, None, None, None, None]]]]},
    {"samples": [[[["querier", 1e999, "infer", "online", "pair", []]]]]},
    {"agreement": {"pairs": 1}, "samples": [[]]},
]


def test_a_damaged_cache_is_measured_again(tmp_path: Path) -> None:
    measured()
    for file, damaged in zip(sorted((tmp_path / "transcripts").iterdir()), cycle(DAMAGED), strict=False):
        kept = json.loads(file.read_text())
        file.write_text(damaged if isinstance(damaged, str) else json.dumps(kept | damaged))
    assert measured().result.reused_strata == 0


def test_without_a_cache_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAPCSIM_CACHE", str(tmp_path / "file"))
    with pytest.warns(CapcsimWarning, match=r"file: Not a directory; .*cannot be kept .*set CAPCSIM_CACHE"):
        assert measured().result.agreement.pairs == 9


def drawn(costs: MeasuredCosts, voter: Voter, batch: int, size: int) -> Transcript:
    """The transcript of step 1a and 1b."""
    [(transcript,)] = costs.transcripts([Step.INFER], [voter], 0, batch, size)
    return transcript


def test_an_unforeseen_batch_size_replays_the_next_larger_one() -> None:
    costs, voter = MeasuredCosts(measured().result, Seeds(0)), models(PlaintextBackend())[1]

    def query_bytes(size: int) -> int:
        return next(n.nbytes for n in drawn(costs, voter, 0, size) if isinstance(n, Message))

    assert [query_bytes(size) for size in (1, 2, 3)] == [20, 60, 60]


def test_real_votes_were_compared_and_agree() -> None:
    agreement = measured().result.agreement
    # Nine pairs exist, and a pair that is measured again is not counted again.
    assert agreement.pairs == 9
    assert agreement.votes == 3 * (3 + 3 + 1)
    assert agreement.disagreements == 0


def test_a_second_bench_takes_everything_from_the_cache_and_measure_ignores_it() -> None:
    first, second, third = measured(), measured(), measured(reading=False)
    assert second.result.samples == first.result.samples
    assert second.result.agreement.pairs == 0
    assert second.result.earlier == first.result.agreement
    assert second.result.reused_strata == len(second.result.samples)
    assert third.result.agreement.pairs == first.result.agreement.pairs
    assert third.result.samples != first.result.samples


def test_another_source_or_backend_does_not_find_the_transcripts(monkeypatch: pytest.MonkeyPatch) -> None:
    measured()
    monkeypatch.setattr("capcsim.costs.cache.source_digest", lambda modules: "another source")
    assert measured().result.reused_strata == 0


def test_executing_every_pair_keeps_its_own_transcripts_and_votes() -> None:
    backend = PlaintextBackend()
    made, pairs, votes = bench(backend, MeasurementCache(backend))
    before = votes.copy()
    made.execute(pairs, lambda _: None)
    assert len(made.result.own) == 3 * len(pairs)
    assert not np.array_equal(votes, before)
    assert np.array_equal(reconstruct(votes, VOTE_RING_BITS), reconstruct(before, VOTE_RING_BITS))
    costs, (voter, other) = MeasuredCosts(made.result, Seeds(0)), (pairs[3].voter, pairs[4].voter)
    assert voter is not None
    own = made.result.own[Step.INFER, 0, 1, 3, voter.index]
    assert other is not None
    assert drawn(costs, voter, 1, 3) is own is not drawn(costs, other, 1, 3)


def test_the_world_draws_samples_by_the_seed() -> None:
    result, voter = measured().result, models(PlaintextBackend())[1]
    first, again, other = (MeasuredCosts(result, Seeds(seed)) for seed in (1, 1, 2))
    draws = [[drawn(costs, voter, batch, 3) for batch in range(40)] for costs in (first, again, other)]
    assert draws[0] == draws[1] != draws[2]
    assert len({id(transcript) for transcript in draws[0]}) == 5
    voters = models(PlaintextBackend())[1:]
    together = [first.transcripts([Step.INFER], voters, 0, batch, 3)[0][0] for batch in range(40)]
    assert together == draws[0], "whoever else is asked"


class Wrong(PlaintextBackend):
    def reference(self, prepared: Any, x: Any) -> Any:
        return super().reference(prepared, x) + 1


def test_an_exact_backend_that_differs_from_its_reference_is_refused() -> None:
    backend = Wrong()
    made, pairs, _ = bench(backend, MeasurementCache(backend))
    with pytest.raises(ConformanceError, match="infer differs from reference at querier 0, batch"):
        made.sample(pairs, 5, Seeds(0), lambda _: None)


@pytest.mark.parametrize(("votes", "wrong", "bound"), [(0, 0, None), (59, 0, 0.0495), (100, 1, 0.0466), (10, 10, 1.0)])
def test_the_upper_bound_is_clopper_pearsons(votes: int, wrong: int, bound: float | None) -> None:
    found = Agreement(0, votes, wrong).upper_bound()
    assert found == (None if bound is None else pytest.approx(bound, abs=1e-4))


class Unmeasured(PlaintextBackend):
    def infer(self, session: Any, x: Any) -> Any:
        return super().infer(session, x)[0], ()


def test_a_backend_that_measures_nothing_is_refused() -> None:
    backend = Unmeasured()
    made, pairs, _ = bench(backend, MeasurementCache(backend))
    with pytest.raises(ConformanceError, match=r"infer sends no message; run both roles with .*run_local"):
        made.sample(pairs, 5, Seeds(0), lambda _: None)
