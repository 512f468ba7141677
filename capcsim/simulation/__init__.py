"""The event-driven world: machines, network, replay of transcripts, parties. SimPy lives here and nowhere else."""

from capcsim.simulation.bare import replay

__all__ = ["replay"]
