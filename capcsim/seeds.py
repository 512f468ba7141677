"""Everything that must be reproducible draws from here; protocol secrets never do.

One seed names a run. Each use spawns its own stream from it by (use, indices), so that adding a party,
a worker or a new use of randomness leaves every other stream as it was.
"""

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class Seeds:
    """Independent random streams of one run, each found by its use and the indices of what it is for.

    >>> Seeds(7).integer("train", 3) == Seeds(7).integer("train", 3)
    True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generator(self, use: str, *indices: int) -> "np.random.Generator":
        """A numpy Generator for `use`, say ("train", party)."""
        import numpy as np

        return np.random.default_rng(self._sequence(use, indices))

    def integer(self, use: str, *indices: int) -> int:
        """One 63-bit integer, to seed a library that takes an integer."""
        return int(self._sequence(use, indices).generate_state(1, "uint64")[0] >> 1)

    def _sequence(self, use: str, indices: tuple[int, ...]) -> "np.random.SeedSequence":
        import numpy as np

        # crc32 turns the name into a number that is the same in every process, unlike hash().
        return np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(use.encode()), *indices))
