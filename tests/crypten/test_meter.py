"""Transcripts of CrypTen: what its communicator did, no more and no less."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from capcsim.backend import Compute, Message, Phase, Role, Step
from capcsim.conformance import PAIR_ROLES, check_transcript
from capcsim.costs.transcripts import cpu_s, rounds, sent_bytes
from capcsim.crypto.programs import RoleLog
from capcsim.errors import PeerFailed
from capcsim.learning.models import build_model
from capcsim_crypten import CryptenBackend, party
from capcsim_crypten.meter import chunks_bytes


def counted(own: party.Party, work: Callable[..., Any], *arguments: Any) -> tuple[int, RoleLog]:
    """What CrypTen itself counts while a party works: bytes sent and received."""
    own.communicator.reset_communication_stats()
    _, log = work(own, *arguments)
    return own.communicator.comm_bytes, log


@pytest.mark.parametrize("name", ["backend", "dealt"])
def test_the_sums_match_cryptens_own_statistics(name: str, request: pytest.FixtureRequest) -> None:
    """Each byte is counted twice there, once at each end."""
    backend: CryptenBackend = request.getfixturevalue(name)
    model = build_model("lenet", (1, 28, 28), 10, (), seed=0, width=0.2).eval()
    session, _ = backend.open(0, backend.prepare(model, seed=0))
    x = np.random.default_rng(0).random((3, 1, 28, 28))
    shared = session.shared
    calls: dict[Role, Any] = {
        Role.ANSWERER: (counted, (party.infer, shared[Role.ANSWERER], 0 * x)),
        Role.QUERIER: (counted, (party.infer, shared[Role.QUERIER], x)),
    }
    if name == "dealt":
        calls[Role.DEALER] = (counted, (party.deal, Phase.ONLINE))
    theirs, transcript = backend._parties.run(Step.INFER, calls)
    check_transcript(Step.INFER, transcript, PAIR_ROLES)
    ours = sum(sent_bytes(transcript).values())
    assert ours == pytest.approx(sum(theirs.values()) / 2, rel=0.01)
    assert ours > 300_000


def test_directions_rounds_and_roles(backend: CryptenBackend, dealt: CryptenBackend) -> None:
    """One linear layer opens two masked tensors at once: 12 + 20 words, gathered after they were added up."""
    model = build_model("logistic", (4,), 5, (), seed=0).eval()
    x = np.ones((3, 4), np.float32)
    transcripts = {}
    for name, chosen in (("two", backend), ("three", dealt)):
        session, setup = chosen.open(0, chosen.prepare(model, seed=0))
        assert sum(sent_bytes(setup).values()) == {"two": 24, "three": 40}[name]
        _, transcripts[name] = chosen.infer(session, x)
        roles = {node.role for node in transcripts[name] if isinstance(node, Compute)}
        assert roles == {Role.QUERIER, Role.ANSWERER} | ({Role.DEALER} if name == "three" else set())
    # Chunks of whole words: 12 are 6 and 6, 20 are 10 and 10; each goes once each way.
    two = [(node.sender, node.nbytes) for node in transcripts["two"] if isinstance(node, Message)]
    assert sorted(two) == sorted([(role, 16 * 8) for role in (Role.ANSWERER, Role.QUERIER)] * 2)
    assert rounds(transcripts["two"]) == 1
    three = sent_bytes(transcripts["three"])
    assert three["answerer->querier"] == three["querier->answerer"] == 32 * 8
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


@given(st.integers(1, 5000), st.sampled_from([torch.long, torch.int32, torch.int8]))
def test_chunks_are_whole_and_nothing_is_lost(elements: int, dtype: torch.dtype) -> None:
    tensor = torch.zeros(elements, dtype=dtype)
    first, second = chunks_bytes(tensor)
    assert first + second == elements * tensor.element_size()
    assert first % tensor.element_size() == 0
    assert 0 <= first - second <= 4 * tensor.element_size()


def gathers(own: party.Party) -> tuple[None, RoleLog]:
    own.meter.begin(Phase.ONLINE)
    own.communicator.all_gather(torch.zeros(3, dtype=torch.long))
    return None, own.end()


def test_what_nobody_measures_is_refused(backend: CryptenBackend) -> None:
    calls = dict.fromkeys((Role.ANSWERER, Role.QUERIER), (gathers, ()))
    with pytest.raises(PeerFailed, match="all_gather is not measured"):
        backend._parties.run(Step.INFER, calls)
