"""How fast the simulated world is: real transcripts of `digits`, many parties, and the same in bare SimPy beside it.

Run: python benchmarks/simulation.py [--json] [--full]. The transcripts are measured first, or taken from the cache;
then for each number of parties a process of its own lets three querying parties ask 550 queries each, in batches of 50,
on the scenario's machines and network. Ledger and votes are stubbed: what counts is the world. `--full` adds batches of
one query with 400 parties, 7 million messages. The twin is a process a pair in plain SimPy that works and sends as
often, on cores and lines that nobody shares, for a million events. Seconds are of CPU.
"""

import argparse
import json
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from capcsim.backend import Prepared
from capcsim.costs.cache import host, versions
from capcsim.costs.measured import MeasuredCosts, Measurements
from capcsim.protocol.admission import Admission
from capcsim.protocol.aggregate import Aggregate
from capcsim.protocol.flow import GUARDIAN, Turn, flow
from capcsim.protocol.steps import Voter, answering
from capcsim.scenario import load_scenario
from capcsim.seeds import Seeds
from capcsim.simulation.engine.kernel import compiled
from capcsim.simulation.engine.loop import run
from capcsim.simulation.engine.state import State
from capcsim.simulation.world import World
from capcsim.study.books import scratch_books
from capcsim.study.means import Means
from capcsim.study.simulated import rules_of
from capcsim.study.trained import deal_out
from capcsim.study.walk import load_backend, walk

QUERIERS, QUERIES, BATCH = 3, 550, 50
PARTIES = (100, 200, 400)
TWIN_EVENTS = 1_000_000
MEASURED = {
    "parties.count": 4,
    "parties.queriers": 1,
    "queries.per_querier": 51,
    "queries.batch": BATCH,
    "privacy.epsilon": 100.0,
}


class Everybody(Admission):
    """A budget without an end."""

    def __init__(self) -> None:
        pass

    def admit(self, querier: int, wanted: int) -> int:
        return wanted

    def affordable(self, querier: int, at_most: int) -> int:
        return at_most

    def arrived(self, querier: int, queries: int) -> None:
        pass

    def settle(self, found: Aggregate) -> None:
        pass


def opened(querier: int, queries: Sequence[int], counted: Sequence[int]) -> Aggregate:
    """Labels that nobody looks at."""
    return Aggregate(np.zeros(len(queries), np.int64), np.ones(len(queries), np.bool_), {})


def measured() -> tuple[Measurements, Prepared]:
    """Real transcripts of pairs and guardian, with batches of 50 and of one; and a model that they are of."""
    scenario, means = load_scenario("digits", MEASURED), Means()
    with closing(load_backend(scenario)) as backend, scratch_books(scenario) as books:
        walked = walk(deal_out(scenario, [backend], means), backend, books, means)
        return walked.priced.measured, walked.asked.voters[0].prepared


def case(parties: int, batch: int, found: Measurements, prepared: Prepared) -> dict[str, Any]:
    """One simulation, in this process."""
    changes = {"parties.count": parties, "queries.batch": batch, "queries.per_querier": QUERIES}
    scenario = load_scenario("digits", {**changes, "data.pool_per_querier": QUERIES})
    voters = [Voter(party, party, prepared) for party in range(parties)]
    turns = [
        Turn(querier, range(QUERIES), numbers, (GUARDIAN, *numbers))
        for querier in range(QUERIERS)
        for numbers in [tuple(voter.index for voter in answering(voters, querier))]
    ]
    compiled(run)(State(), 0.0)  # loads it
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began_s = time.process_time()
    world, costs = World(scenario), MeasuredCosts(found, Seeds(scenario.seed))
    simulated = world.run(flow(turns, rules_of(scenario), Everybody(), opened), voters, costs)
    cpu_s = time.process_time() - began_s
    messages = simulated.log.messages_written
    return {
        "parties": parties,
        "batch": batch,
        "messages": messages,
        "cpu_s": cpu_s,
        "messages_s": messages / cpu_s,
        "rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "rss_before_bytes": 1024 * before,
        "makespan_s": max(row.labelled_s for row in simulated.queries),
    }


def twin() -> float:
    """Messages a CPU second of bare SimPy, where each takes three stretches of work and a transfer."""
    env, events, sent = simpy.Environment(), 0, 0

    def pair(core: simpy.Resource) -> Iterable[simpy.Event]:
        nonlocal sent
        while True:
            for _ in range(3):
                with core.request() as turn:
                    yield turn
                    yield env.timeout(0.001)
            yield env.timeout(0.01)
            sent += 1

    for _ in range(100):
        env.process(pair(simpy.Resource(env, 1)))  # type: ignore[arg-type]
    began_s = time.process_time()
    while events < TWIN_EVENTS:
        env.step()
        events += 1
    return sent / (time.process_time() - began_s)


def apart(parties: int, batch: int, given: bytes) -> dict[str, Any]:
    """A case in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--case", str(parties), str(batch)]
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def growth(cases: Sequence[dict[str, Any]]) -> float:
    """The exponent with which CPU grows with messages."""
    first, last = cases[0], cases[-1]
    return log(last["cpu_s"] / first["cpu_s"]) / log(last["messages"] / first["messages"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--case", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(case(*arguments.case, *pickle.load(sys.stdin.buffer))))
        return
    given = pickle.dumps(measured())
    compiled(run)(State(), 0.0)  # where it is not on disk
    cases = [apart(parties, BATCH, given) for parties in PARTIES]
    if arguments.full:
        cases.append(apart(PARTIES[-1], 1, given))
    twin_messages_s = twin()
    found = {
        "cases": cases,
        "growth_exponent": growth([each for each in cases if each["batch"] == BATCH]),
        "twin_messages_s": twin_messages_s,
        "ratio": cases[len(PARTIES) - 1]["messages_s"] / twin_messages_s,
        "host": host(),
        "versions": versions(),
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for each in cases:
        print(
            f"{each['parties']} parties, batch {each['batch']}: {each['messages']:,} messages in {each['cpu_s']:.2f} s,"
            f" {each['messages_s']:,.0f} a second, {each['rss_bytes'] / 1e6:.0f} MB"
        )
    print(f"growth exponent {found['growth_exponent']:.2f}; bare SimPy {twin_messages_s:,.0f} messages a second")
    print(f"{found['ratio']:.1f} times as fast as bare SimPy; {Path(sys.executable).name}, {found['host']}")


if __name__ == "__main__":
    main()
