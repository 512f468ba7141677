"""Transcripts of CrypTen: what its communicator did, no more and no less. Against the wire: test_link.py."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from capcsim.backend import Compute, Message, Phase, Role, Step
from capcsim.conformance.transcripts import PAIR_ROLES, check_transcript
from capcsim.costs.transcripts import cpu_s, rounds, sent_bytes
from capcsim.errors import PeerFailed
from capcsim.learning.models import build_model
from capcsim.twoparty.programs import RoleLog, merge
from capcsim_crypten import CryptenBackend, gloo, party

PARTIES = (Role.ANSWERER, Role.QUERIER)


def counted(own: party.Party, work: Callable[..., Any], *arguments: Any) -> tuple[int, RoleLog]:
    """What CrypTen itself counts while a party works: bytes sent and received."""
    own.communicator.reset_communication_stats()
    _, log = work(own, *arguments)
    return own.communicator.comm_bytes, log


@pytest.mark.parametrize("name", ["backend", "dealt"])
def test_the_sums_match_cryptens_own_statistics(name: str, request: pytest.FixtureRequest) -> None:
    """Each byte is counted twice there, once at each end, and gloo's headers never."""
    backend: CryptenBackend = request.getfixturevalue(name)
    model = build_model("lenet", (1, 28, 28), 10, (), seed=0, width=0.2).eval()
    session, _ = backend.open(0, backend.prepare(model, seed=0))
    x = np.random.default_rng(0).random((3, 1, 28, 28))
    shared = session.shared
    calls: dict[Role, Any] = {
        Role.ANSWERER: (bare, (counted, party.infer, shared[Role.ANSWERER], 0 * x)),
        Role.QUERIER: (bare, (counted, party.infer, shared[Role.QUERIER], x)),
    }
    if name == "dealt":
        calls[Role.DEALER] = (bare, (counted, party.deal, Phase.ONLINE))
    theirs, transcript = backend._parties.run(Step.INFER, calls)
    check_transcript(Step.INFER, transcript, PAIR_ROLES)
    ours = sum(sent_bytes(transcript).values())
    assert ours == pytest.approx(sum(theirs.values()) / 2, rel=0.01)
    assert ours > 300_000


def bare(own: party.Party, work: Callable[..., Any], *arguments: Any) -> tuple[Any, RoleLog]:
    """Work with headers of no bytes."""
    header_bytes, gloo.HEADER_BYTES = gloo.HEADER_BYTES, 0
    try:
        output, log = work(own, *arguments)
    finally:
        gloo.HEADER_BYTES = header_bytes
    return output, log


def test_directions_rounds_and_roles(backend: CryptenBackend, dealt: CryptenBackend) -> None:
    """One linear layer opens two masked tensors at once: 12 + 20 words, gathered after they were added up."""
    model = build_model("logistic", (4,), 5, (), seed=0).eval()
    x = np.ones((3, 4), np.float32)
    transcripts = {}
    for name, chosen in (("two", backend), ("three", dealt)):
        session, setup = chosen.open(0, chosen.prepare(model, seed=0))
        # Seeds both ways and a third one, each behind three headers; with a dealer two more, and a barrier of three.
        assert sum(sent_bytes(setup).values()) == 3 * (3 * 48 + 8) + {"two": 0, "three": 2 * (144 + 8) + 6 * 144}[name]
        _, transcripts[name] = chosen.infer(session, x)
        roles = {node.role for node in transcripts[name] if isinstance(node, Compute)}
        assert roles == {Role.QUERIER, Role.ANSWERER} | ({Role.DEALER} if name == "three" else set())
    # Chunks of whole words: 12 are 6 and 6, 20 are 10 and 10; each goes once each way, in two segments of each tensor.
    two = [(node.sender, node.nbytes) for node in transcripts["two"] if isinstance(node, Message)]
    ready, payload = 8 * 48, 4 * 48 + 16 * 8
    assert sorted(two) == sorted([(role, n) for role in (Role.ANSWERER, Role.QUERIER) for n in (ready, payload)] * 2)
    assert rounds(transcripts["two"]) == 3
    three = sent_bytes(transcripts["three"])
    assert three["answerer->querier"] == three["querier->answerer"] == 2 * (ready + payload)
    assert three["dealer->answerer"] > 3 * 5 * 8, "the product's share, and its size"
    assert "dealer->querier" not in three


def late(own: party.Party, seconds: float) -> tuple[None, RoleLog]:
    """Meet the other party once; come late to it."""
    own.meter.begin(Phase.ONLINE)
    time.sleep(seconds)
    own.communicator.all_reduce(torch.zeros(10, dtype=torch.long))
    return None, own.end()


def busy(own: party.Party, seconds: float) -> tuple[None, RoleLog]:
    own.meter.begin(Phase.ONLINE)
    ends_s = time.process_time() + seconds
    while time.process_time() < ends_s:
        pass
    own.communicator.all_reduce(torch.zeros(10, dtype=torch.long))
    return None, own.end()


def test_waiting_is_no_work(backend: CryptenBackend) -> None:
    calls = {Role.ANSWERER: (busy, (0.3,)), Role.QUERIER: (late, (0.8,))}
    _, transcript = backend._parties.run(Step.INFER, calls)
    spent = cpu_s(transcript)
    assert 0.3 <= spent[Role.ANSWERER] < 0.4
    assert spent[Role.QUERIER] < 0.1


SIZES = st.tuples(st.integers(1, 600_000), st.sampled_from([1, 4, 8])).map(lambda size: (size[0] * size[1], size[1]))


@given(st.lists(SIZES, min_size=1, max_size=4))
def test_segments_are_whole_and_nothing_is_lost(sizes: list[tuple[int, int]]) -> None:
    """What one party sends is half of what it would have to send of each tensor, and half of the sum."""
    for nbytes, element_bytes in sizes:
        halves = gloo._segments(nbytes, element_bytes)
        assert sum(map(sum, halves)) == nbytes
        assert len(halves[0]) == len(halves[1]) >= 2
        assert all(part % element_bytes == 0 and part <= gloo.SEGMENT_BYTES for half in halves for part in half)
    logs = [gloo.all_reduce(other, rank, sizes, Phase.ONLINE) for rank, other in enumerate(reversed(PARTIES))]
    transcript = merge(PARTIES, logs, Step.INFER)
    segments = sum(part > 0 for size in sizes for half in gloo._segments(*size) for part in half)
    # Three headers a segment, which travels twice: before it is added up and after.
    headers = 3 * gloo.HEADER_BYTES * segments
    expected = headers + sum(nbytes for nbytes, _ in sizes)
    assert sent_bytes(transcript) == {"answerer->querier": expected, "querier->answerer": expected}


def gathers(own: party.Party) -> tuple[None, RoleLog]:
    own.meter.begin(Phase.ONLINE)
    own.communicator.all_gather(torch.zeros(3, dtype=torch.long))
    return None, own.end()


def test_what_nobody_measures_is_refused(backend: CryptenBackend) -> None:
    calls = dict.fromkeys((Role.ANSWERER, Role.QUERIER), (gathers, ()))
    with pytest.raises(PeerFailed, match="all_gather is not measured"):
        backend._parties.run(Step.INFER, calls)
