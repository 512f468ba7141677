"""CaPC among many parties: the flow of queries, who may still ask, steps 2 and 3; without a clock or a network."""
