"""Differential privacy of the noisy vote: mechanisms, noise, accounting, the ledger. Stands alone."""
