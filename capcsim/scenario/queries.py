"""`[queries]`: what is asked."""

from typing import Literal, TypeAlias

from pydantic import Field

from capcsim.scenario.base import Count, Few, Seconds, Section

Selection: TypeAlias = Literal["random", "entropy", "margin", "k-center"]


class Queries(Section):
    """What a querying party asks, and how it sends it."""

    selection: Selection = "random"
    per_querier: Count = Field(description="labels that a querying party wants")
    rounds: Few = Field(1, description="times that a querying party selects, asks and retrains")
    batch: Few = Field(10, description="queries that travel together")
    wait_s: Seconds = Field(0.0, description="how long a query that comes waits for others to fill its batch")
    patience_s: Seconds | None = Field(
        None, description="after which a query that has come and was not sent is not asked any more"
    )
    in_flight: Few = Field(
        1, description="batches of one querying party under way at once, each in sessions with a set-up of their own"
    )
