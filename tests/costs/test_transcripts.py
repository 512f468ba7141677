import json

import pytest

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.costs.transcripts import cpu_s, from_json, of_phase, rounds, sent_bytes, to_json
from capcsim.errors import RecordError

Q, A = Role.QUERIER, Role.ANSWERER


def message(sender: Role, nbytes: int, *after: int, phase: Phase = Phase.ONLINE) -> Message:
    return Message(sender, A if sender is Q else Q, nbytes, Step.INFER, phase, Scope.PAIR, after)


def work(role: Role, seconds: float, *after: int) -> Compute:
    return Compute(role, seconds, Step.INFER, Phase.ONLINE, Scope.QUERY, after)


PING_PONG: Transcript = (work(Q, 0.5), message(Q, 10, 0), work(A, 0.25, 1), message(A, 7, 2), message(Q, 3, 3))


def test_sums() -> None:
    assert cpu_s(PING_PONG) == {"querier": 0.5, "answerer": 0.25}
    assert sent_bytes(PING_PONG) == {"querier->answerer": 13, "answerer->querier": 7}
    assert cpu_s(()) == sent_bytes(()) == {}


@pytest.mark.parametrize(
    ("transcript", "changes"),
    [
        ((), 0),
        ((work(Q, 1.0),), 0),
        ((message(Q, 1), message(Q, 1, 0)), 0),
        ((message(Q, 1), message(A, 1)), 0),  # at the same time: no chain
        ((message(Q, 1), message(A, 1, 0)), 1),
        (PING_PONG, 2),
        ((message(Q, 1), message(A, 1, 0), message(A, 1, 1), work(A, 1.0, 2), message(Q, 1, 3), message(A, 1, 4)), 3),
    ],
)
def test_rounds_are_changes_of_direction_on_the_longest_chain(transcript: Transcript, changes: int) -> None:
    assert rounds(transcript) == changes


def test_phases_are_told_apart() -> None:
    both = (message(Q, 5, phase=Phase.OFFLINE), message(Q, 6))
    assert sent_bytes(of_phase(both, Phase.OFFLINE)) == {"querier->answerer": 5}


def test_json_and_back() -> None:
    assert from_json(json.loads(json.dumps(to_json(PING_PONG)))) == PING_PONG


DAMAGED = [
    [["infer", "online", "pair", []]],
    [["querier", 1.0, "infer", "online", "pair", [0]]],
    [["querier", 1.0, "infer", "online", "pair", []], ["querier", 1.0, "infer", "online", "pair", [-1]]],
    [["querier", -1.0, "infer", "online", "pair", []]],
    [["querier", float("nan"), "infer", "online", "pair", []]],
    [["querier", "answerer", -5, "infer", "online", "pair", []]],
]


@pytest.mark.parametrize("nodes", [[["querier", 1.0]], [["nobody", 1.0, "infer", "online", "pair", []]], [3], *DAMAGED])
def test_damaged_json_is_a_clear_error(nodes: list[list[object]]) -> None:
    with pytest.raises(RecordError, match="a stored transcript is damaged"):
        from_json(nodes)
