"""Data sets, partitions, models, training, query selection, metrics: what happens at each party alone."""
