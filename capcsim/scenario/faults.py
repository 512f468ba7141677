"""`[faults]`: what goes wrong."""

from pydantic import Field

from capcsim.scenario.base import Probability, Section


class Faults(Section):
    """What goes wrong."""

    drop_probability: Probability = Field(0.0, description="that a party does not answer a batch")
    decline_probability: Probability = Field(0.0, description="that a party declines a batch, and says so")
