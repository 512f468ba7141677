"""Long transcripts in fewer nodes: the same work and bytes, and nearly the same time."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.costs import condense
from capcsim.costs.condense import FEW_NODES, PARTS, condensed
from capcsim.costs.transcripts import cpu_s, rounds, sent_bytes
from capcsim.simulation.alone import alone

Q, A = Role.QUERIER, Role.ANSWERER
LABELS = (Step.INFER, Phase.ONLINE, Scope.PAIR)


def stream(chunks: int, layers: int = 1) -> Transcript:
    """In turns, one role works and sends chunk by chunk; the other works when the last one has come."""
    nodes: list[Compute | Message] = []
    last: dict[Role, int] = {}

    def add(node: Compute | Message, role: Role) -> int:
        nodes.append(node)
        if isinstance(node, Compute):
            last[role] = len(nodes) - 1
        return len(nodes) - 1

    heard: tuple[int, ...] = ()
    for layer in range(layers):
        sender, receiver = (Q, A) if layer % 2 == 0 else (A, Q)
        for _ in range(chunks):
            own = (last[sender],) if sender in last else ()
            work = add(Compute(sender, 0.001, *LABELS, own + heard), sender)
            sent = add(Message(sender, receiver, 1000, *LABELS, (work,)), sender)
            heard = ()
        heard = (add(Compute(receiver, 0.05, *LABELS, (sent,)), receiver),)
    return tuple(nodes)


def makespan_s(transcript: Transcript, bps: float, latency_s: float) -> float:
    return alone([transcript], bps=bps, latency_s=latency_s).last_s


@pytest.mark.parametrize(("bps", "latency_s"), [(1e9, 0.0), (1e6, 0.01), (1e5, 0.1)])
@pytest.mark.parametrize("layers", [1, 4])
def test_a_stream_takes_nearly_the_same_time_in_far_fewer_nodes(bps: float, latency_s: float, layers: int) -> None:
    long = stream(400, layers)
    short = condensed(long)
    assert len(short) < len(long) / 8
    assert sent_bytes(short) == sent_bytes(long)
    assert {role: pytest.approx(seconds) for role, seconds in cpu_s(long).items()} == cpu_s(short)
    assert rounds(short) == rounds(long) == layers - 1
    before, after = (makespan_s(each, bps, latency_s) for each in (long, short))
    assert before * (1 - 1e-9) <= after < before * (1 + layers * 2 / PARTS)


def test_what_two_roles_do_at_the_same_time_does_not_come_one_after_the_other() -> None:
    """Both work, tell each other, and work on: whoever comes second in the list must not wait for the first."""
    nodes: list[Compute | Message] = []
    heard: dict[Role, tuple[int, ...]] = {Q: (), A: ()}
    for _ in range(100):
        first = len(nodes)
        for role, other in ((Q, A), (A, Q)):
            nodes.append(Compute(role, 0.01, *LABELS, heard[role]))
            nodes.append(Message(role, other, 1000, *LABELS, (len(nodes) - 1,)))
        heard = {Q: (first, first + 3), A: (first + 2, first + 1)}
    for bps, latency_s in ((1e9, 0.0), (1e6, 0.01)):
        before, after = (makespan_s(each, bps, latency_s) for each in (tuple(nodes), condensed(tuple(nodes))))
        assert after == pytest.approx(before, rel=0.05)


def test_few_nodes_stay_as_they_are() -> None:
    short = stream(FEW_NODES // 3)
    assert condensed(short) is short


NODES = st.tuples(
    st.sampled_from([Q, A]),
    st.sampled_from([0.0, 0.1, 1.0, 0, 10, 1000]),  # seconds, or bytes
    st.sampled_from(list(Phase)),
    st.sampled_from([Scope.PAIR, Scope.PAIR, Scope.PAIR, Scope.QUERY]),
    st.lists(st.integers(1, 6), max_size=3),
)


def transcript_of(nodes: list[Any]) -> Transcript:
    """Any order of work and messages in which each waits for some of the six before it."""
    made: list[Compute | Message] = []
    for index, (role, size, phase, scope, back) in enumerate(nodes):
        labels = (Step.INFER, phase, scope, tuple(sorted({index - step for step in back if step <= index})))
        other = A if role is Q else Q
        made.append(Compute(role, size, *labels) if isinstance(size, float) else Message(role, other, size, *labels))
    return tuple(made)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NODES, min_size=1, max_size=40), st.sampled_from([1, 2, 10]))
def test_nothing_is_lost_and_nobody_waits_in_a_circle(nodes: list[Any], parts: int) -> None:
    transcript = transcript_of(nodes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(condense, "FEW_NODES", 0)
        patch.setattr(condense, "PARTS", parts)
        short = condensed(transcript)
    assert sent_bytes(short) == sent_bytes(transcript)
    assert cpu_s(short) == {role: pytest.approx(seconds) for role, seconds in cpu_s(transcript).items()}
    assert all(other < index for index, node in enumerate(short) for other in node.after)
    kept = [node.scope for node in transcript if node.scope is not Scope.PAIR]
    assert [node.scope for node in short if node.scope is not Scope.PAIR] == kept
