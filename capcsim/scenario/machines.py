"""`[machines]`: the computers."""

from typing import Annotated

from pydantic import Field

from capcsim.scenario.base import Few, Section


class Machine(Section):
    """A machine's cores, each `speed` times as fast as the one on which transcripts were measured."""

    cores: Annotated[int, Field(ge=1, le=4096, strict=True)] = Field(
        description="up to more than the largest machines with one memory have"
    )
    speed: Annotated[float, Field(ge=1e-3, le=1e3, allow_inf_nan=False, strict=True)] = Field(
        1.0, description="against the machine on which transcripts were measured: from a microcontroller up"
    )


class Machines(Section):
    """What the parties and the guardian compute on."""

    party: Machine
    guardian: Machine
    parties_per_machine: Few = 1
