"""Closed forms for the steps of pairs: who waits for whom, and what runs once."""

from collections.abc import Sequence
from typing import Any

import pytest

from capcsim.backend import Compute, Message, Phase, Prepared, PublicModel, Role, Scope, Step, Transcript
from capcsim.errors import RecordError
from capcsim.protocol.flow import Lane
from capcsim.protocol.steps import Voter
from capcsim.simulation.alone import alone
from capcsim.simulation.engine.engine import Engine
from capcsim.simulation.hosts import HERE, Host, Hosts
from capcsim.simulation.log import Log
from capcsim.simulation.sessions import Pair, Sessions
from capcsim.simulation.topology import Topology
from tests.simulation.rows import rows

BPS, LATENCY_S = 8e6, 0.01
Q, A, G = Role.QUERIER, Role.ANSWERER, Role.GUARDIAN
PREPARED = Prepared(PublicModel((), (1,), 3, 37, 24), None)


def work(role: Role, seconds: float, *after: int, scope: Scope = Scope.PAIR, step: Step = Step.INFER) -> Compute:
    return Compute(role, seconds, step, Phase.ONLINE, scope, after)


def message(sender: Role, receiver: Role, nbytes: int, *after: int) -> Message:
    return Message(sender, receiver, nbytes, Step.INFER, Phase.ONLINE, Scope.PAIR, after)


ROUND_TRIP: Transcript = (work(Q, 1.0), message(Q, A, 1_000_000, 0), work(A, 2.0, 1), message(A, Q, 500_000, 2))


class Site:
    """A querying party, and answering parties on machines of their own or on one."""

    def __init__(self, parties: int, cores: int = 1, *, together: bool = False) -> None:
        self.log = Log()
        self.engine = Engine(self.log.write)
        topology = Topology(self.engine, lambda _, __: LATENCY_S)
        topology.add_site(HERE)
        machines = ["m"] * parties if together else [f"a{party}" for party in range(parties)]
        hosts = Hosts(
            (Host("q", "q"), *(Host(f"a{party}", name) for party, name in enumerate(machines))), {G: Host("g", "g")}
        )
        for name in dict.fromkeys(["q", *machines, "g"]):
            self.log.add_pool(cores)
            topology.add_machine(name, HERE, self.engine.pool(cores), 1.0, BPS, BPS)
        self.sessions, self.lane = Sessions(self.engine, topology, hosts, self.log), Lane(0, 0)
        self.voters = [Voter(party, party + 1, PREPARED) for party in range(parties)]

    def begin(self, steps: Sequence[Transcript], batch: int = 0, groups: str = "") -> None:
        """One batch of all pairs; pair i is of group i."""
        names = groups or "-" * len(self.voters)
        pairs = [Pair(voter, tuple(steps), name) for voter, name in zip(self.voters, names, strict=True)]
        self.sessions.begin(self.lane, batch, pairs)

    def run(self) -> float:
        """Until nothing is left to happen; when the last row ended."""
        self.engine.run(float("inf"))
        self.engine.flush()
        return self.log.last_s


def test_a_chain_takes_the_sum_of_its_parts() -> None:
    log = alone([ROUND_TRIP], bps=BPS, latency_s=LATENCY_S)
    assert log.last_s == pytest.approx(1.0 + (1.0 + LATENCY_S) + 2.0 + (0.5 + LATENCY_S), rel=1e-12)


def test_the_tables_have_every_node_with_its_times() -> None:
    log = alone([ROUND_TRIP], bps=BPS, latency_s=LATENCY_S)
    assert [(row.host, row.core, row.start_s, row.end_s) for row in rows(log.compute())] == [
        ("querier", 0, 0.0, 1.0),
        ("answerer", 0, pytest.approx(2.01), pytest.approx(4.01)),
    ]
    sent = rows(log.messages())[0]
    assert (sent.sender, sent.receiver, sent.nbytes, sent.querier, sent.batch) == (Q, A, 1_000_000, 0, 0)
    assert (sent.network, sent.step, sent.phase) == (True, Step.INFER, Phase.ONLINE)
    assert (sent.sent_s, sent.received_s) == (1.0, pytest.approx(2.01))


@pytest.mark.parametrize("parties", [1, 5, 20])
def test_answering_parties_on_their_own_machines_take_the_time_of_one(parties: int) -> None:
    site = Site(parties)
    site.begin([(work(A, 2.0),)])
    assert site.run() == 2.0


@pytest.mark.parametrize(("parties", "cores"), [(6, 6), (6, 3), (7, 3), (5, 1)])
def test_parties_on_one_machine_take_the_ceiling_of_parties_over_cores(parties: int, cores: int) -> None:
    site = Site(parties, cores, together=True)
    site.begin([(work(A, 2.0),)])
    assert site.run() == 2.0 * -(-parties // cores)


def test_pair_work_of_the_querying_party_is_contended() -> None:
    site = Site(9, cores=2)
    site.begin([(work(Q, 3.0),)])
    assert site.run() == 3.0 * 5


def test_independent_nodes_overlap_and_dependent_ones_do_not() -> None:
    assert alone([(work(Q, 1.0), work(A, 1.5), work(Q, 1.0, 0, 1))], bps=BPS, latency_s=LATENCY_S).last_s == 2.5


def test_two_participants_on_one_machine_need_no_network() -> None:
    site = Site(2, cores=4, together=True)
    site.begin([(work(A, 1.0), message(A, A, 10**9, 0), work(A, 1.0, 1))])
    assert site.run() == 2.0
    assert {row.network for row in rows(site.log.messages())} == {False}
    assert not site.log.bytes.any()


def test_each_role_goes_on_to_the_next_step_on_its_own() -> None:
    first = (work(A, 1.0), message(A, Q, 1_000_000, 0), work(Q, 5.0, 1))
    log = alone([first, (work(A, 1.0), work(Q, 1.0))], bps=BPS, latency_s=LATENCY_S)
    by_host = {name: [row.end_s for row in rows(log.compute()) if row.host == name] for name in (Q, A)}
    assert by_host[A] == [1.0, 2.0], "the answering party need not wait until its message has arrived"
    assert by_host[Q] == pytest.approx([7.01, 8.01])


def test_a_role_waits_for_what_it_was_sent_two_steps_before() -> None:
    first = (work(A, 1.0), message(A, Q, 1_000_000, 0))
    log = alone([first, (work(A, 1.0),), (work(Q, 1.0),)], bps=BPS, latency_s=LATENCY_S)
    assert log.last_s == pytest.approx(3.01)


def test_shared_work_runs_once_and_every_pair_waits_for_it() -> None:
    site = Site(9, cores=8)
    site.begin([(work(Q, 3.0, scope=Scope.QUERY), message(Q, A, 0, 0), work(A, 1.0, 1))])
    site.run()
    done = rows(site.log.compute())
    assert sum(row.host == "q" for row in done) == 1
    assert {row.start_s for row in done if row.host != "q"} == {3.0 + LATENCY_S}


def test_shared_work_may_wait_for_shared_work_of_another_scope() -> None:
    site = Site(3, cores=8)
    keys, query = work(Q, 2.0, scope=Scope.QUERIER), work(Q, 1.0, 0, scope=Scope.QUERY)
    for batch in range(2):
        site.begin([(keys, query, work(A, 1.0, 1))], batch)
    assert site.run() == 4.0
    assert sorted(row.end_s for row in rows(site.log.compute()) if row.host == "q") == [2.0, 3.0, 3.0]


@pytest.mark.parametrize(("scope", "times"), [(Scope.QUERIER, 2), (Scope.QUERY, 6), (Scope.PAIR, 12)])
def test_scopes_run_once_a_querier_once_a_batch_or_once_a_pair(scope: Scope, times: int) -> None:
    site = Site(4)
    for batch in range(3):
        site.begin([(work(Q, 1.0, scope=scope),)], batch, groups="aabb")
    site.run()
    assert len(rows(site.log.compute())) == times


def test_sums_are_those_of_the_rows() -> None:
    site = Site(3, cores=2)
    site.begin([ROUND_TRIP, (work(A, 0.25, step=Step.ARGMAX),)])
    site.run()
    worked, sent = rows(site.log.compute()), rows(site.log.messages())
    assert site.log.busy_s.sum() == pytest.approx(sum(row.end_s - row.start_s for row in worked)) == 3 * 3.25
    assert site.log.bytes.sum() == sum(row.nbytes for row in sent) == 3 * 1_500_000
    assert site.log.messages_written == len(sent) == 6
    assert site.log.sent_bytes(["q", "a0", "g"]) == {
        "q": 3_000_000,
        "a0": 500_000,
        "a1": 500_000,
        "a2": 500_000,
        "g": 0,
    }


def test_rows_that_do_not_fit_in_memory_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def table(limit: int) -> list[Any]:
        monkeypatch.setattr("capcsim.simulation.log.MOST_BYTES", limit)
        monkeypatch.setattr("capcsim.simulation.engine.engine._PLAIN_ROWS", 16)
        site = Site(7)
        for batch in range(20):
            site.begin([ROUND_TRIP], batch)
        site.run()
        return [vars(row) for row in [*rows(site.log.compute()), *rows(site.log.messages())]]

    assert table(1000) == table(1 << 28)
    assert len(table(1000)) == 7 * 20 * 4


def test_shared_work_that_waits_for_a_pair_is_refused() -> None:
    site = Site(2)
    with pytest.raises(RecordError, match="node 1 of a transcript of step infer is shared by pairs, and waits for one"):
        site.begin([(work(Q, 1.0), work(Q, 1.0, 0, scope=Scope.QUERY))])


def test_pairs_that_differ_in_shared_work_are_refused() -> None:
    site = Site(2)
    one, two = (work(Q, 1.0, scope=Scope.QUERY),), (work(Q, 1.0, scope=Scope.QUERY),) * 2
    pairs = [Pair(voter, (steps,), "") for voter, steps in zip(site.voters, (one, two), strict=True)]
    with pytest.raises(RecordError, match="step infer differ in the work that pairs share"):
        site.sessions.begin(site.lane, 0, pairs)
