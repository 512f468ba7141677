"""The CrypTen backend: secret sharing with Beaver triples, from a trusted first party or from a dealer."""

from capcsim_crypten.backend import CryptenBackend

__all__ = ["CryptenBackend"]
