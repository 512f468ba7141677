"""What goes wrong, drawn for each batch by the scenario's seed."""

from dataclasses import dataclass

import numpy as np

from capcsim.scenario import Faults
from capcsim.seeds import Seeds


@dataclass(frozen=True, slots=True)
class Absences:
    """Which of `parties` parties do not answer a batch of a querying party."""

    faults: Faults
    parties: int
    seeds: Seeds

    def silent(self, querier: int, batch: int) -> set[int]:
        """The parties that are gone, and say nothing."""
        return self._befallen("drop", self.faults.drop_probability, querier, batch)

    def declining(self, querier: int, batch: int) -> set[int]:
        """The parties that say no."""
        return self._befallen("decline", self.faults.decline_probability, querier, batch)

    def _befallen(self, fault: str, probability: float, querier: int, batch: int) -> set[int]:
        lost = self.seeds.generator(fault, querier, batch).random(self.parties) < probability
        return {int(party) for party in np.flatnonzero(lost)}
