"""The event-driven world: machines, network, replay of transcripts, parties. SimPy lives here and nowhere else."""

from capcsim.simulation.bare import replay
from capcsim.simulation.bare_world import read_world

__all__ = ["read_world", "replay"]
