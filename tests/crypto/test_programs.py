import pytest

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step
from capcsim.crypto.programs import Mark, Recv, Send, Steps, run_local
from capcsim.errors import PeerFailed

ROLES = (Role.QUERIER, Role.ANSWERER)


def asks(number: int) -> Steps:
    yield Mark(Phase.OFFLINE, Scope.QUERY)
    yield Mark(Phase.ONLINE, Scope.PAIR)
    yield Send(bytes([number]))
    doubled = yield Recv()
    return doubled[0]


def doubles() -> Steps:
    number = yield Recv()
    yield Send(bytes([2 * number[0], 0, 0]))
    return "done"


def test_both_outputs_come_back_and_each_byte_is_counted_once() -> None:
    seen: list[tuple[Role, Role, bytes]] = []
    outputs, transcript = run_local(
        ROLES, (asks(21), doubles()), step=Step.INFER, tap=lambda *message: seen.append(message)
    )
    assert outputs == (42, "done")
    assert seen == [(Role.QUERIER, Role.ANSWERER, b"\x15"), (Role.ANSWERER, Role.QUERIER, b"\x2a\x00\x00")]
    messages = [node for node in transcript if isinstance(node, Message)]
    assert [(m.sender, m.receiver, m.nbytes) for m in messages] == [
        (Role.QUERIER, Role.ANSWERER, 1),
        (Role.ANSWERER, Role.QUERIER, 3),
    ]


def test_a_node_waits_for_what_it_needs_and_for_no_more() -> None:
    _, transcript = run_local(ROLES, (asks(1), doubles()), step=Step.INFER)
    question, answer = (i for i, node in enumerate(transcript) if isinstance(node, Message))

    def needs(index: int) -> set[int]:
        return set(transcript[index].after).union(*(needs(i) for i in transcript[index].after))

    assert question in needs(answer)
    last_of_querier = max(i for i, n in enumerate(transcript) if isinstance(n, Compute) and n.role is Role.QUERIER)
    assert {question, answer} <= needs(last_of_querier)
    assert all(i not in needs(question) for i, n in enumerate(transcript) if getattr(n, "role", 0) is Role.ANSWERER)


def test_marks_label_what_follows_and_the_first_one_labels_the_start() -> None:
    _, transcript = run_local(ROLES, (asks(1), doubles()), step=Step.INFER)
    mine = [node for node in transcript if isinstance(node, Compute) and node.role is Role.QUERIER]
    assert [(node.phase, node.scope) for node in mine][:2] == [
        (Phase.OFFLINE, Scope.QUERY),
        (Phase.ONLINE, Scope.PAIR),
    ]
    assert mine[0].after == ()


def test_work_is_charged_to_the_role_that_does_it() -> None:
    def works() -> Steps:
        yield Recv()
        total = sum(range(300_000))
        yield Send(total.to_bytes(8, "big"))

    def waits() -> Steps:
        yield Send(b"go")
        yield Recv()

    _, transcript = run_local(ROLES, (waits(), works()), step=Step.INFER)
    spent = {role: sum(n.seconds for n in transcript if isinstance(n, Compute) and n.role is role) for role in ROLES}
    assert spent[Role.ANSWERER] > 5 * spent[Role.QUERIER] >= 0


def test_two_roles_that_wait_for_each_other_fail_instead_of_hanging() -> None:
    def waits() -> Steps:
        yield Recv()

    with pytest.raises(PeerFailed, match="querier and answerer wait"):
        run_local(ROLES, (waits(), waits()), step=Step.ARGMAX)


def test_a_message_that_nobody_reads_is_an_error() -> None:
    def talks() -> Steps:
        yield Send(b"hello")

    def ends() -> Steps:
        return
        yield

    with pytest.raises(PeerFailed, match=r"answerer ended with 1 message\(s\) unread"):
        run_local(ROLES, (talks(), ends()), step=Step.ARGMAX)
