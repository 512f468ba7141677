"""Latencies between places that others have measured and published."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Place: TypeAlias = Literal[
    "amsterdam", "berlin", "dublin", "frankfurt", "london", "milan", "oslo", "paris", "stockholm", "warsaw", "zurich"
]
Preset: TypeAlias = Literal["azure-europe"]


@dataclass(frozen=True, slots=True)
class Published:
    """Round trips in milliseconds between places, in the order of `places`; zero where it is one place."""

    source: str
    places: tuple[str, ...]
    round_trip_ms: tuple[tuple[int, ...], ...]

    def one_way_s(self, a: str, b: str) -> float:
        """Half the mean of both round trips."""
        first, second = self.places.index(a), self.places.index(b)
        return (self.round_trip_ms[first][second] + self.round_trip_ms[second][first]) / 4 / 1000


PRESETS: Mapping[Preset, Published] = {
    "azure-europe": Published(
        "Microsoft, Azure network round-trip latency statistics, medians of the 30 days to 9 April 2024;"
        " one way is half a round trip",
        get_args(Place),
        (
            # From the row's place to the column's. What the tables leave out is that of the other direction.
            (0, 15, 19, 11, 11, 24, 23, 11, 28, 24, 17),
            (15, 0, 30, 11, 22, 26, 24, 19, 20, 12, 16),
            (20, 30, 0, 26, 13, 41, 39, 19, 42, 39, 32),
            (11, 11, 26, 0, 17, 18, 25, 12, 28, 20, 8),
            (11, 21, 13, 17, 0, 31, 28, 11, 32, 30, 23),
            (23, 21, 35, 14, 27, 0, 35, 21, 38, 30, 9),
            (23, 24, 37, 25, 28, 39, 0, 30, 11, 31, 30),
            (12, 18, 18, 11, 10, 25, 30, 0, 36, 27, 16),
            (25, 20, 40, 27, 31, 42, 10, 36, 0, 26, 32),
            (24, 12, 40, 20, 31, 33, 29, 28, 26, 0, 24),
            (17, 16, 33, 9, 24, 13, 30, 16, 32, 24, 0),
        ),
    )
}
