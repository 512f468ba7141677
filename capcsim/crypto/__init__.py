"""Primitives alone: randomness, AES, shares, circuits and their interpreters, garbling, oblivious transfer."""
