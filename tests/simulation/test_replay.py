"""Closed forms for the replay of hand-made transcripts."""

import pytest
import simpy

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.simulation.machines import Machine
from capcsim.simulation.network import Link, Network
from capcsim.simulation.replay import Host, Place, Replayer, Shared

LATENCY_S = 0.01


def host(env: simpy.Environment, name: str, cores: int = 1, bps: float = 8e6, speed: float = 1.0) -> Host:
    return Host(name, Machine(env, name, cores, speed), Link(f"{name} up", bps), Link(f"{name} down", bps))


def work(role: Role, seconds: float, *after: int, scope: Scope = Scope.PAIR) -> Compute:
    return Compute(role, seconds, Step.INFER, Phase.ONLINE, scope, after)


def message(sender: Role, receiver: Role, nbytes: int, *after: int) -> Message:
    return Message(sender, receiver, nbytes, Step.INFER, Phase.ONLINE, Scope.PAIR, after)


Q, A = Role.QUERIER, Role.ANSWERER
ROUND_TRIP: Transcript = (work(Q, 1.0), message(Q, A, 1_000_000, 0), work(A, 2.0, 1), message(A, Q, 500_000, 2))


def run(replayer: Replayer, *replays: dict[Role, simpy.Event]) -> None:
    """Simulate until every role of these replays is through."""
    env = replayer.env
    env.run(env.all_of([end for ends in replays for end in ends.values()]))


@pytest.fixture
def env() -> simpy.Environment:
    return simpy.Environment()


def test_a_chain_takes_the_sum_of_its_parts(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    run(replayer, replayer.replay(ROUND_TRIP, {Q: host(env, "q"), A: host(env, "a")}, Place()))
    assert env.now == pytest.approx(1.0 + (1.0 + LATENCY_S) + 2.0 + (0.5 + LATENCY_S), rel=1e-12)


def test_the_log_has_every_node_with_its_times(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    run(replayer, replayer.replay(ROUND_TRIP, {Q: host(env, "q"), A: host(env, "a")}, Place(3, 5)))
    assert [(row.host, row.start_s, row.end_s) for row in replayer.log.compute] == [
        ("q", 0.0, 1.0),
        ("a", pytest.approx(2.01), pytest.approx(4.01)),
    ]
    sent = replayer.log.messages[0]
    assert (sent.sender, sent.receiver, sent.nbytes, sent.querier, sent.batch) == ("q", "a", 1_000_000, 3, 5)
    assert (sent.sent_s, sent.received_s) == (1.0, pytest.approx(2.01))


@pytest.mark.parametrize("parties", [1, 5, 20])
def test_answering_parties_on_their_own_machines_take_the_time_of_one(env: simpy.Environment, parties: int) -> None:
    replayer, querier = Replayer(env, Network(env, LATENCY_S)), host(env, "q", cores=1)
    transcript = (work(A, 2.0),)
    run(replayer, *(replayer.replay(transcript, {Q: querier, A: host(env, f"a{i}")}, Place()) for i in range(parties)))
    assert env.now == 2.0


@pytest.mark.parametrize(("parties", "cores"), [(6, 6), (6, 3), (7, 3), (5, 1)])
def test_parties_on_one_machine_take_the_ceiling_of_parties_over_cores(
    env: simpy.Environment, parties: int, cores: int
) -> None:
    replayer, querier, together = Replayer(env, Network(env, LATENCY_S)), host(env, "q"), host(env, "m", cores)
    transcript = (work(A, 2.0),)
    run(replayer, *(replayer.replay(transcript, {Q: querier, A: together}, Place()) for _ in range(parties)))
    assert env.now == 2.0 * -(-parties // cores)


def test_shared_work_runs_once_and_every_pair_waits_for_it(env: simpy.Environment) -> None:
    replayer, querier = Replayer(env, Network(env, LATENCY_S)), host(env, "q", cores=8)
    transcript = (work(Q, 3.0, scope=Scope.QUERY), message(Q, A, 0, 0), work(A, 1.0, 1))
    place = Place()
    run(replayer, *(replayer.replay(transcript, {Q: querier, A: host(env, f"a{i}")}, place) for i in range(9)))
    assert sum(row.host == "q" for row in replayer.log.compute) == 1
    assert {row.start_s for row in replayer.log.compute if row.host != "q"} == {3.0 + LATENCY_S}


@pytest.mark.parametrize(("scope", "times"), [(Scope.QUERIER, 2), (Scope.QUERY, 6), (Scope.PAIR, 12)])
def test_scopes_run_once_a_querier_once_a_batch_or_once_a_pair(
    env: simpy.Environment, scope: Scope, times: int
) -> None:
    replayer, querier = Replayer(env, Network(env, LATENCY_S)), host(env, "q")
    transcript, once = (work(Q, 1.0, scope=scope),), Shared()
    replays = []
    for batch in range(3):
        per_batch = Shared()
        for group in ("a", "a", "b", "b"):  # two pairs of each of two architectures
            place = Place(0, batch, group, (), once, per_batch)
            replays.append(replayer.replay(transcript, {Q: querier}, place))
    run(replayer, *replays)
    assert len(replayer.log.compute) == times


def test_each_role_goes_on_to_the_next_transcript_on_its_own(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    hosts = {Q: host(env, "q"), A: host(env, "a")}
    first = (work(A, 1.0), message(A, Q, 1_000_000, 0), work(Q, 5.0, 1))
    ends = replayer.replay(first, hosts, Place())
    second = replayer.replay((work(A, 1.0), work(Q, 1.0)), hosts, Place(), ends)
    run(replayer, second)
    by_host = {name: [row.end_s for row in replayer.log.compute if row.host == name] for name in ("q", "a")}
    assert by_host["a"] == [1.0, 2.0], "the answering party need not wait until its message has arrived"
    assert by_host["q"] == pytest.approx([7.01, 8.01])


def test_pair_work_of_the_querier_is_contended(env: simpy.Environment) -> None:
    replayer, querier = Replayer(env, Network(env, LATENCY_S)), host(env, "q", cores=2)
    transcript = (work(Q, 3.0),)
    run(replayer, *(replayer.replay(transcript, {Q: querier, A: host(env, f"a{i}")}, Place()) for i in range(9)))
    assert env.now == 3.0 * 5


def test_independent_nodes_overlap_and_dependent_ones_do_not(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    transcript = (work(Q, 1.0), work(A, 1.5), work(Q, 1.0, 0, 1))
    run(replayer, replayer.replay(transcript, {Q: host(env, "q"), A: host(env, "a")}, Place()))
    assert env.now == 2.5


def test_two_participants_on_one_machine_need_no_network(env: simpy.Environment) -> None:
    replayer, both = Replayer(env, Network(env, LATENCY_S)), host(env, "m", cores=2)
    run(replayer, replayer.replay(ROUND_TRIP, {Q: both, A: both}, Place()))
    assert [row.network for row in replayer.log.messages] == [False, False]
    assert env.now == 3.0


def test_a_machine_twice_as_fast_works_half_as_long(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    run(replayer, replayer.replay((work(Q, 1.0),), {Q: host(env, "q", speed=2.0)}, Place()))
    assert env.now == 0.5
