"""`[machines.M]`: the computers."""

from typing import Annotated

from pydantic import ConfigDict, Field

from capcsim.scenario.base import Few, Name, Rate, Section


class Machine(Section):
    """A kind of machine: cores, each `speed` times as fast as the one on which transcripts were measured."""

    cores: Annotated[int, Field(ge=1, le=4096, strict=True)] = Field(
        description="up to more than the largest machines with one memory have"
    )
    speed: Annotated[float, Field(ge=1e-3, le=1e3, allow_inf_nan=False, strict=True)] = Field(
        1.0, description="against the machine on which transcripts were measured: from a microcontroller up"
    )
    background: Annotated[float, Field(ge=0, le=0.99, allow_inf_nan=False, strict=True)] = Field(
        0.0, description="the share of each core that other work takes"
    )
    up_bps: Rate | None = Field(None, description="from the machine; else network.party's or network.guardian's")
    down_bps: Rate | None = Field(None, description="to the machine")
    cpu: Name | None = Field(None, description="a pool of cores, which all machines that name it share; else its own")


class Machines(Section):
    """Kinds of machines by name: what parties and guardian compute on, and any others."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Machine] = Field(init=False)

    party: Machine
    guardian: Machine
    parties_per_machine: Few = 1

    @property
    def kinds(self) -> dict[str, Machine]:
        """All of them."""
        return {"party": self.party, "guardian": self.guardian, **(self.__pydantic_extra__ or {})}
