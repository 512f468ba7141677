"""Closed forms for the replay of hand-made transcripts."""

import pytest
import simpy

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.simulation.machines import Machine
from capcsim.simulation.network import Link, Network
from capcsim.simulation.replay import Host, Replayer, Shared

LATENCY_S = 0.01


def host(env: simpy.Environment, name: str, cores: int = 1, bps: float = 8e6, speed: float = 1.0) -> Host:
    return Host(name, Machine(env, name, cores, speed), Link(f"{name} up", bps), Link(f"{name} down", bps))


def work(role: Role, seconds: float, *after: int, scope: Scope = Scope.PAIR) -> Compute:
    return Compute(role, seconds, Step.INFER, Phase.ONLINE, scope, after)


def message(sender: Role, receiver: Role, nbytes: int, *after: int) -> Message:
    return Message(sender, receiver, nbytes, Step.INFER, Phase.ONLINE, Scope.PAIR, after)


Q, A = Role.QUERIER, Role.ANSWERER
ROUND_TRIP: Transcript = (work(Q, 1.0), message(Q, A, 1_000_000, 0), work(A, 2.0, 1), message(A, Q, 500_000, 2))


@pytest.fixture
def env() -> simpy.Environment:
    return simpy.Environment()


def test_a_chain_takes_the_sum_of_its_parts(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    env.run(replayer.replay(ROUND_TRIP, {Q: host(env, "q"), A: host(env, "a")}))
    assert env.now == pytest.approx(1.0 + (1.0 + LATENCY_S) + 2.0 + (0.5 + LATENCY_S), rel=1e-12)


def test_the_log_has_every_node_with_its_times(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    env.run(replayer.replay(ROUND_TRIP, {Q: host(env, "q"), A: host(env, "a")}, querier=3, batch=5))
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
    env.run(env.all_of([replayer.replay(transcript, {Q: querier, A: host(env, f"a{i}")}) for i in range(parties)]))
    assert env.now == 2.0


@pytest.mark.parametrize(("parties", "cores"), [(6, 6), (6, 3), (7, 3), (5, 1)])
def test_parties_on_one_machine_take_the_ceiling_of_parties_over_cores(
    env: simpy.Environment, parties: int, cores: int
) -> None:
    replayer, querier, together = Replayer(env, Network(env, LATENCY_S)), host(env, "q"), host(env, "m", cores)
    transcript = (work(A, 2.0),)
    env.run(env.all_of([replayer.replay(transcript, {Q: querier, A: together}) for _ in range(parties)]))
    assert env.now == 2.0 * -(-parties // cores)


def test_shared_work_runs_once_and_every_pair_waits_for_it(env: simpy.Environment) -> None:
    replayer, querier = Replayer(env, Network(env, LATENCY_S)), host(env, "q", cores=8)
    transcript = (work(Q, 3.0, scope=Scope.QUERY), message(Q, A, 0, 0), work(A, 1.0, 1))
    shared: Shared = {}
    hosts = [host(env, f"a{i}") for i in range(9)]
    env.run(env.all_of([replayer.replay(transcript, {Q: querier, A: other}, shared=shared) for other in hosts]))
    assert sum(row.host == "q" for row in replayer.log.compute) == 1
    assert {row.start_s for row in replayer.log.compute if row.host != "q"} == {3.0 + LATENCY_S}


def test_pair_work_of_the_querier_is_contended(env: simpy.Environment) -> None:
    replayer, querier = Replayer(env, Network(env, LATENCY_S)), host(env, "q", cores=2)
    transcript = (work(Q, 3.0),)
    env.run(env.all_of([replayer.replay(transcript, {Q: querier, A: host(env, f"a{i}")}) for i in range(9)]))
    assert env.now == 3.0 * 5


def test_independent_nodes_overlap_and_dependent_ones_do_not(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    transcript = (work(Q, 1.0), work(A, 1.5), work(Q, 1.0, 0, 1))
    env.run(replayer.replay(transcript, {Q: host(env, "q"), A: host(env, "a")}))
    assert env.now == 2.5


def test_two_participants_on_one_machine_need_no_network(env: simpy.Environment) -> None:
    replayer, both = Replayer(env, Network(env, LATENCY_S)), host(env, "m", cores=2)
    env.run(replayer.replay(ROUND_TRIP, {Q: both, A: both}))
    assert env.now == 3.0


def test_a_machine_twice_as_fast_works_half_as_long(env: simpy.Environment) -> None:
    replayer = Replayer(env, Network(env, LATENCY_S))
    env.run(replayer.replay((work(Q, 1.0),), {Q: host(env, "q", speed=2.0), A: host(env, "a")}))
    assert env.now == 0.5
