from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.backend import VOTE_RING_BITS, Message, Phase, ReleaseNoise, Role, Shares, Transcript
from capcsim.costs.transcripts import of_phase, rounds
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import InputError
from capcsim.twoparty.voting import Voting, noisy_argmax, one_hot_argmax

rows = st.lists(st.lists(st.integers(-(1 << 35), (1 << 35) - 1), min_size=4, max_size=4), min_size=1, max_size=6)
counts = st.lists(st.lists(st.integers(0, 400), min_size=4, max_size=4), min_size=1, max_size=6)
VOTING = Voting()
PAIR, GUARDIAN = (SimpleNamespace(voting=VOTING.open_voting(role)[0]) for role in (Role.ANSWERER, Role.GUARDIAN))


@settings(deadline=None)
@given(rows)
def test_argmax_opens_to_the_first_largest(values: list[list[int]]) -> None:
    votes, _ = VOTING.argmax(PAIR, Shares(share(np.array(values), 37), 37, 24))
    expected = [[int(i == row.index(max(row))) for i in range(4)] for row in values]
    assert reconstruct(votes.values, VOTE_RING_BITS).tolist() == expected


@settings(deadline=None)
@given(counts, st.integers(0, 1 << 30), st.sampled_from([16, 32]))
def test_release_opens_to_the_noisy_argmax(values: list[list[int]], seed: int, ring_bits: int) -> None:
    generator = np.random.default_rng(seed)
    table = np.array(values)
    noise = generator.integers(-300, 300, table.shape)
    shares = share(table, VOTE_RING_BITS)
    release, _ = VOTING.release(GUARDIAN, shares[0], shares[1], ReleaseNoise(noise, ring_bits=ring_bits))
    expected = [max(range(4), key=lambda i: (row[i], -i)) for row in (table + noise).tolist()]
    assert release.labels.tolist() == expected
    assert release.answered.all()


@settings(deadline=None)
@given(counts, st.integers(0, 500), st.integers(0, 1 << 30), st.sampled_from([16, 32]))
def test_a_threshold_leaves_queries_unanswered(
    values: list[list[int]], threshold: int, seed: int, ring_bits: int
) -> None:
    table = np.array(values)
    top = np.random.default_rng(seed).integers(-200, 200, len(table))
    shares = share(table, VOTE_RING_BITS)
    noise = ReleaseNoise(np.zeros_like(table), threshold, top, ring_bits)
    release, _ = VOTING.release(GUARDIAN, shares[0], shares[1], noise)
    expected = [max(row) + extra >= threshold for row, extra in zip(values, top.tolist(), strict=True)]
    assert release.answered.tolist() == expected
    assert [label >= 0 for label in release.labels] == expected
    assert np.array_equal(release.labels, noisy_argmax(table, noise).labels)


def online_only(transcript: Transcript) -> Transcript:
    """The online nodes, waiting for each other only."""
    kept = [index for index, node in enumerate(transcript) if node.phase is Phase.ONLINE]
    place = {index: number for number, index in enumerate(kept)}
    return tuple(
        replace(transcript[index], after=tuple(place[i] for i in transcript[index].after if i in place))
        for index in kept
    )


def test_argmax_online_is_at_most_one_and_a_half_round_trips() -> None:
    _, transcript = VOTING.argmax(PAIR, Shares(share(np.zeros((3, 10), np.int64), 37), 37, 24))
    online = of_phase(transcript, Phase.ONLINE)
    assert rounds(online_only(transcript)) == 1  # one change of direction: one round trip
    assert {node.sender for node in online if isinstance(node, Message)} == {Role.QUERIER, Role.ANSWERER}


@pytest.mark.parametrize("value", [0, -5, (1 << 40)])
def test_ties_go_to_the_lowest_class(value: int) -> None:
    assert one_hot_argmax(np.full((2, 5), value)).argmax(axis=1).tolist() == [0, 0]


@pytest.mark.parametrize("edge", [(1 << 15) - 1, -(1 << 15) + 1])
def test_sixteen_bits_hold_what_they_promise(edge: int) -> None:
    table = np.array([[0, 0, 0], [1, 0, 0]])
    noise = np.array([[0, edge, 0], [0, edge - (edge > 0), 0]])
    shares = share(table, VOTE_RING_BITS)
    for drawn in (ReleaseNoise(noise, ring_bits=16), ReleaseNoise(noise, 0, np.array([edge, -edge]), 16)):
        release, _ = VOTING.release(GUARDIAN, shares[0], shares[1], drawn)
        assert np.array_equal(release.labels, noisy_argmax(table, drawn).labels)


@pytest.mark.parametrize(
    ("noise", "says"),
    [
        (ReleaseNoise(np.array([[1 << 15, 0]]), ring_bits=16), "32768 does not fit 16 bits"),
        (ReleaseNoise(np.zeros((1, 2), np.int64), 400, np.array([-32_500]), 16), "32900 does not fit 16 bits"),
        (ReleaseNoise(np.zeros((1, 2), np.int64), 400), "go together"),
    ],
)
def test_noise_that_would_wrap_is_refused(noise: ReleaseNoise, says: str) -> None:
    shares = share(np.array([[1, 2]]), VOTE_RING_BITS)
    with pytest.raises(InputError, match=says):
        VOTING.release(GUARDIAN, shares[0], shares[1], noise)
