"""`[prices]`: what it costs."""

from capcsim.scenario.base import OneLine, Price, Section


class Prices(Section):
    """What the simulated resources cost."""

    currency: OneLine = "EUR"
    per_core_hour: Price = 0.0
    per_gb_sent: Price = 0.0
