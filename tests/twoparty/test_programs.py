import pytest

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step
from capcsim.errors import PeerFailed
from capcsim.twoparty import programs
from capcsim.twoparty.programs import (
    Grant,
    Mark,
    Received,
    Recv,
    RoleDriver,
    RoleLog,
    Send,
    Sent,
    Steps,
    Work,
    merge,
    run_local,
)

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


def test_a_mark_of_what_is_done_leaves_no_trace() -> None:
    def marked() -> Steps:
        yield Mark(done=0.0)
        yield Mark(Phase.OFFLINE, Scope.QUERY)
        yield Mark(done=0.5)
        yield Mark(Phase.ONLINE, Scope.PAIR, done=0.75)
        yield Send(bytes([1]))
        yield Mark(done=0.9)
        return (yield Recv())[0]

    def kinds(program: Steps) -> list[tuple[object, ...]]:
        _, transcript = run_local(ROLES, (program, doubles()), step=Step.INFER)
        return [(type(node), node.phase, node.scope, node.after) for node in transcript]

    assert kinds(marked()) == kinds(asks(1))


def test_progress_is_the_larger_share_and_only_grows() -> None:
    def slow() -> Steps:
        yield Mark(done=0.1)
        yield Recv()
        yield Mark(done=0.2)
        yield Mark(Phase.OFFLINE, done=0.9)

    def fast() -> Steps:
        yield Mark(done=0.5)
        yield Send(b"")
        yield Mark(done=1.0)

    seen: list[float] = []
    run_local(ROLES, (slow(), fast()), step=Step.INFER, progress=seen.append)
    assert seen == [0.1, 0.5, 1.0]


def test_a_role_that_is_far_ahead_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_IN_FLIGHT_BYTES", 1000)
    in_flight, most = 0, 0

    def sent(_sender: Role, _receiver: Role, payload: bytes) -> None:
        nonlocal in_flight, most
        in_flight += len(payload)
        most = max(most, in_flight)

    def pours() -> Steps:
        for _ in range(100):
            yield Send(bytes(400))

    def drinks() -> Steps:
        nonlocal in_flight
        for _ in range(100):
            payload = yield Recv()
            in_flight -= len(payload)

    for roles in ((pours(), drinks()), (drinks(), pours())):
        run_local(ROLES, roles, step=Step.INFER, tap=sent)
        assert (in_flight, most) == (0, 1200)


def test_a_message_larger_than_what_may_be_in_flight_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_IN_FLIGHT_BYTES", 0)
    assert run_local(ROLES, (asks(21), doubles()), step=Step.INFER)[0] == (42, "done")


def test_two_roles_that_are_both_far_ahead_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_IN_FLIGHT_BYTES", 1000)

    def pours() -> Steps:
        for _ in range(20):
            yield Send(bytes(400))
        total = 0
        for _ in range(20):
            total += len((yield Recv()))
        return total

    outputs, _ = run_local(ROLES, (pours(), pours()), step=Step.INFER)
    assert outputs == (8000, 8000)


def test_a_role_that_is_far_ahead_of_one_that_ended_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_IN_FLIGHT_BYTES", 10)

    def pours() -> Steps:
        for _ in range(5):
            yield Send(bytes(100))

    def ends() -> Steps:
        return
        yield

    with pytest.raises(PeerFailed, match=r"answerer ended with 5 message\(s\) unread"):
        run_local(ROLES, (pours(), ends()), step=Step.INFER)


def test_two_logs_make_the_transcript_whoever_ran_the_roles() -> None:
    driver = RoleDriver(asks(1))
    assert driver.resume() == Send(b"\1")
    assert driver.resume() == Recv()
    driver.take(b"\2")
    assert driver.resume() is None
    assert (driver.ended, driver.output) == (True, 2)
    other: RoleLog = [Work(0.5, Phase.ONLINE, Scope.PAIR), Received(), Sent(3, Phase.ONLINE)]
    transcript = merge(ROLES, (driver.log, other), Step.INFER)
    assert [type(node) for node in transcript] == [Compute, Compute, Message, Compute, Compute, Message, Compute]
    assert [node.after for node in transcript] == [(), (0,), (1,), (1,), (), (4, 2), (3, 5)]


def test_logs_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(PeerFailed, match="logs of querier and answerer do not belong together"):
        merge(ROLES, ([Received()], []), Step.INFER)


def test_the_logs_of_three_roles_are_merged_by_who_sent_what() -> None:
    """The dealer gives something to each party, and these meet."""
    asker, other, dealer = ROLES[0], ROLES[1], Role.DEALER
    meets: dict[Role, RoleLog] = {
        role: [Received(dealer), Work(0.1, Phase.ONLINE, Scope.PAIR), Sent(5, Phase.ONLINE, peer), Received(peer)]
        for role, peer in ((asker, other), (other, asker))
    }
    deals: RoleLog = [Work(1.0, Phase.ONLINE, Scope.PAIR), Sent(1, Phase.ONLINE, asker), Sent(2, Phase.ONLINE, other)]
    merged = merge((asker, other, dealer), (meets[asker], meets[other], deals), Step.INFER)
    sent = {(node.sender, node.receiver): node.nbytes for node in merged if isinstance(node, Message)}
    assert sent == {(dealer, asker): 1, (dealer, other): 2, (asker, other): 5, (other, asker): 5}
    for node in merged:
        if isinstance(node, Compute) and node.role is not dealer:
            assert [merged[index].receiver for index in node.after if isinstance(merged[index], Message)] == [node.role]
    with pytest.raises(PeerFailed, match="querier ended with 1 message"):
        merge((asker, other, dealer), (meets[asker][:3], meets[other][:3], deals), Step.INFER)


def test_a_granted_message_waits_for_the_grant_and_its_sender_does_not() -> None:
    """A rendezvous both ways: each says that it is ready, and sends when it hears that the other is."""
    work = Work(0.1, Phase.ONLINE, Scope.PAIR)
    meets: RoleLog = [work, Grant(48, Phase.ONLINE), Sent(7, Phase.ONLINE, granted=True), work, Received(), work]
    transcript = merge(ROLES, (meets, meets), Step.INFER)
    grants, payloads = ([i for i, n in enumerate(transcript) if getattr(n, "nbytes", 0) == size] for size in (48, 7))
    own_work = {role: [i for i, n in enumerate(transcript) if getattr(n, "role", "") is role] for role in ROLES}
    for role, peer in (ROLES, ROLES[::-1]):
        first, second, last = own_work[role]
        (grant,) = (i for i in grants if transcript[i].sender is role)
        (of_peer,) = (i for i in grants if transcript[i].sender is peer)
        (payload,) = (i for i in payloads if transcript[i].sender is role)
        assert transcript[grant].after == (first,)
        assert transcript[payload].after == (first, of_peer)
        assert transcript[second].after == (first,)
        assert [i for i in payloads if transcript[i].sender is peer] == [
            i for i in transcript[last].after if i != second
        ]


def test_who_waits_for_a_grant_goes_on_after_it() -> None:
    work = Work(0.1, Phase.ONLINE, Scope.PAIR)
    gives: RoleLog = [Received(grant=True), Sent(7, Phase.ONLINE), work]
    takes: RoleLog = [Grant(48, Phase.ONLINE), Received()]
    transcript = merge(ROLES, (gives, takes), Step.INFER)
    assert [(type(node), node.after) for node in transcript] == [(Message, ()), (Message, (0,)), (Compute, (0,))]


def test_a_grant_that_nobody_uses_or_gives_is_refused() -> None:
    with pytest.raises(PeerFailed, match=r"answerer ended with 1 message\(s\) unread"):
        merge(ROLES, ([Grant(48, Phase.ONLINE)], []), Step.INFER)
    with pytest.raises(PeerFailed, match="do not belong together"):
        merge(ROLES, ([Sent(7, Phase.ONLINE, granted=True)], [Received()]), Step.INFER)
