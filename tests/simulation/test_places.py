"""The same work and messages in different places: closed forms for lines, backbones, speeds and latencies."""

from collections.abc import Callable
from typing import Any

import pytest

from capcsim.backend import Compute, Message, Phase, Prepared, PublicModel, Role, Scope, Step, Transcript
from capcsim.protocol.flow import Lane
from capcsim.protocol.steps import Voter
from capcsim.scenario import Scenario
from capcsim.simulation.engine.engine import Engine
from capcsim.simulation.hosts import Hosts, built
from capcsim.simulation.log import Log
from capcsim.simulation.sessions import Pair, Sessions
from tests.simulation.rows import rows

Q, A, G = Role.QUERIER, Role.ANSWERER, Role.GUARDIAN
MB = 1_000_000
PREPARED = Prepared(PublicModel((), (1,), 3, 37, 24), None)
FIVE_PARTIES = {
    "parties": {},
    "network.latency_s": 0.0,
    "network.latency_between_s": {"south": {"north": 0.25}, "north": {"south": 0.5, "north": 0.125}},
    "network.party": {"up_bps": 8e6, "down_bps": 8e6},
    "network.guardian": {"up_bps": 8e7, "down_bps": 8e7},
    "machines.party.cores": 1,
}


def pair(seconds: float, nbytes: int) -> Transcript:
    """The querying party's query, the answering party's work, and the share that it hands in."""

    def sent(sender: Role, receiver: Role, size: int, *after: int) -> Message:
        return Message(sender, receiver, size, Step.INFER, Phase.ONLINE, Scope.PAIR, after)

    work = Compute(A, seconds, Step.INFER, Phase.ONLINE, Scope.PAIR, (0,))
    return sent(Q, A, nbytes), work, sent(A, G, nbytes, 1)


def simulate(scenario: Scenario, transcript: Transcript, querier: int = 0) -> Log:
    """One batch of a querying party with all others."""
    log = Log()
    engine, hosts = Engine(log.write), Hosts.of(scenario)
    sessions = Sessions(engine, built(engine, log, scenario, hosts), hosts, log)
    voters = [Voter(party, party, PREPARED) for party in range(scenario.parties.count) if party != querier]
    sessions.begin(Lane(querier, 0), 0, [Pair(voter, (transcript,), "") for voter in voters])
    engine.run(float("inf"))
    engine.flush()
    return log


@pytest.fixture
def places(scenario: Callable[..., Scenario]) -> Callable[..., Scenario]:
    """A querying party in the south, answering ones in the north, and the guardian there."""

    def make(changes: dict[str, Any] | None = None) -> Scenario:
        groups = {
            "asks": {"count": 1, "queriers": 1, "site": "south"},
            "answer": {"count": 4, "site": "north", "machine": "party"},
        }
        sites: dict[str, Any] = {"south": {}, "north": {}}
        return scenario(
            {**FIVE_PARTIES, "groups": groups, "sites": sites, "guardian": {"site": "north"}, **(changes or {})}
        )

    return make


def test_a_query_crosses_sites_and_a_share_stays_in_one(places: Callable[..., Scenario]) -> None:
    # Four queries of 8 Mbit leave over 8 Mbit/s; 0.25 s later the work; a share on its own line, 0.125 s within a site.
    assert simulate(places(), pair(2.0, MB)).last_s == pytest.approx(4.0 + 0.25 + 2.0 + 1.0 + 0.125)


def test_a_backbone_is_shared_by_all_machines_of_a_site(places: Callable[..., Scenario]) -> None:
    # Shares stay in the north: only queries pass the backbone into it, at half the rate of the line before it.
    slow = places({"sites.north.down_bps": 4e6, "sites.north.up_bps": 1.0})
    assert simulate(slow, pair(2.0, MB)).last_s == pytest.approx(8.0 + 0.25 + 2.0 + 1.0 + 0.125)


def test_where_the_guardian_is_decides_what_crosses(places: Callable[..., Scenario]) -> None:
    moved = places({"guardian.site": "south", "sites.north.up_bps": 16e6})
    # Four shares of 8 Mbit over a backbone of 16 Mbit/s, then the other direction's latency.
    assert simulate(moved, pair(2.0, MB)).last_s == pytest.approx(4.0 + 0.25 + 2.0 + 2.0 + 0.5)


def test_a_kind_of_machine_has_its_own_line_speed_and_background(places: Callable[..., Scenario]) -> None:
    server = {"cores": 1, "speed": 4.0, "background": 0.5, "up_bps": 16e6}
    fast = places({"machines.server": server, "groups.answer.machine": "server"})
    assert simulate(fast, pair(2.0, MB)).last_s == pytest.approx(4.0 + 0.25 + 1.0 + 0.5 + 0.125)


@pytest.mark.parametrize(("together", "work_s"), [(1, 2.0), (2, 4.0), (3, 6.0), (4, 8.0)])
def test_parties_of_a_group_share_machines_and_lines(
    places: Callable[..., Scenario], together: int, work_s: float
) -> None:
    shared = places({"groups.answer.parties_per_machine": together})
    log = simulate(shared, pair(2.0, 0))
    assert log.last_s == pytest.approx(0.25 + work_s + 0.125)
    machines = {row.machine for row in rows(log.compute())}
    assert machines == (
        {f"answer {n}" for n in range(4)} if together == 1 else {f"answer machine {n // together}" for n in range(4)}
    )


def test_machines_that_name_a_pool_share_its_cores_and_not_their_lines(places: Callable[..., Scenario]) -> None:
    pooled = places({"machines.party.cpu": "host", "machines.party.cores": 2})
    log = simulate(pooled, pair(2.0, MB))
    # Four stretches of work on two cores.
    assert log.last_s == pytest.approx(4.0 + 0.25 + 4.0 + 1.0 + 0.125)
    assert {row.core for row in rows(log.compute())} == {0, 1}
    assert len({row.machine for row in rows(log.compute())}) == 4
