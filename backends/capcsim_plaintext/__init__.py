"""The plaintext backend: the protocol's real arithmetic and shares, and no cryptography."""

from capcsim_plaintext.plaintext import PlaintextBackend

__all__ = ["PlaintextBackend"]
