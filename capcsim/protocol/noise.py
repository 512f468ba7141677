"""The mechanism that a scenario asks for, and where the guardian's noise comes from."""

import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import ClassVar, Protocol

from capcsim.privacy.mechanisms import Mechanism, build
from capcsim.privacy.noise import Draw, real_draw, simulated_draw
from capcsim.scenario import Scenario
from capcsim.seeds import Seeds


class NoiseSource(Protocol):
    """Where the guardian's noise comes from. A draw is named before it is made, for the ledger.

    `repeats` says whether a run that is done again makes the same draws, under the same names.
    """

    repeats: ClassVar[bool]

    def name(self, querier: int, query: int, counted: Sequence[int]) -> str:
        """The name of the next draw for this query and counted set."""

    def draw(self, name: str, querier: int, query: int, classes: int) -> Draw:
        """All the noise for one query, for the draw of this name."""


class RealNoise:
    """Noise from the operating system's generator: each draw is a new one."""

    repeats: ClassVar[bool] = False

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism

    def name(self, querier: int, query: int, counted: Sequence[int]) -> str:  # noqa: ARG002
        """A name never used before."""
        return secrets.token_hex(8)

    def draw(self, name: str, querier: int, query: int, classes: int) -> Draw:  # noqa: ARG002
        """All the noise for one query."""
        return real_draw(self._mechanism, 1, classes)


class SimulatedNoise:
    """Seeded noise: the same query and counted set get the same draw, in any run with the seed."""

    repeats: ClassVar[bool] = True

    def __init__(self, mechanism: Mechanism, seeds: Seeds) -> None:
        self._mechanism, self._seeds = mechanism, seeds

    def name(self, querier: int, query: int, counted: Sequence[int]) -> str:
        """The same name for the same query and counted set."""
        return sha256(repr((querier, query, tuple(counted))).encode()).hexdigest()[:16]

    def draw(self, name: str, querier: int, query: int, classes: int) -> Draw:
        """All the noise for one query."""
        return simulated_draw(
            self._mechanism, 1, classes, self._seeds.generator("noise", querier, query, int(name, 16))
        )


def noise_source(scenario: Scenario, mechanism: Mechanism) -> NoiseSource:
    """The source that a scenario asks for."""
    if scenario.privacy.noise == "simulation":
        return SimulatedNoise(mechanism, Seeds(scenario.seed))
    return RealNoise(mechanism)


def mechanism_of(scenario: Scenario) -> Mechanism:
    """The mechanism, with the number of votes that one protected unit, or group of them, can move."""
    privacy = scenario.privacy
    votes_of_a_unit = scenario.parties.virtual_per_party if privacy.unit == "party" else 1
    return build(privacy.mechanism, privacy.parameters, votes_of_a_unit * privacy.corrupted_parties)
