"""The hybrid backend: BFV for linear layers, Yao's garbled circuits for the rest, two parties, no dealer."""

from capcsim_hybrid.hybrid import HybridBackend

__all__ = ["HybridBackend"]
