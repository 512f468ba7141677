"""One pair alone: each role on a machine of its own, with nobody else on its line."""

from collections.abc import Sequence

from capcsim.backend import Role, Transcript
from capcsim.protocol.flow import Lane
from capcsim.simulation.engine.engine import Engine
from capcsim.simulation.hosts import HERE, Host, Hosts
from capcsim.simulation.log import Log
from capcsim.simulation.sessions import Pair, Sessions
from capcsim.simulation.topology import Topology


def alone(transcripts: Sequence[Transcript], *, bps: float, latency_s: float, cores: int = 1) -> Log:
    """What happens in a pair's steps, given a transcript of each, one after the other for each role."""
    log = Log()
    engine = Engine(log.write)
    topology = Topology(engine, lambda _, __: latency_s)
    topology.add_site(HERE)
    for role in Role:
        log.add_pool(cores)
        topology.add_machine(role, HERE, engine.pool(cores), 1.0, bps, bps)
    everybody = {role: Host(role, role) for role in Role}
    hosts = Hosts((everybody[Role.QUERIER],), everybody)
    Sessions(engine, topology, hosts, log).begin(Lane(0, 0), 0, [Pair(None, tuple(transcripts), "")])
    engine.run(float("inf"))
    engine.flush()
    return log
