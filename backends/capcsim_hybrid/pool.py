"""What was made ahead and waits for inputs: bounded, and handed out once."""

from typing import Generic, Protocol, TypeVar

from capcsim.errors import PeerFailed


class Stored(Protocol):
    """Material of one batch."""

    @property
    def batch(self) -> int:
        """How many queries it is for."""

    @property
    def stored_bytes(self) -> int:
        """What it takes while it waits."""


Material = TypeVar("Material", bound=Stored)


class Pool(Generic[Material]):
    """One side's materials by serial number; both sides use the same numbers."""

    def __init__(self) -> None:
        self._ready: dict[int, Material] = {}
        self._next = 0

    @property
    def next_serial(self) -> int:
        """A number that was never used here."""
        return self._next

    def add(self, serial: int, material: Material) -> None:
        """Keep material; raises PeerFailed for a number that is not new."""
        if serial < self._next:
            raise PeerFailed(f"offline material {serial} was made already", "set up a new session")
        self._next = serial + 1
        self._ready[serial] = material

    def take(self, serial: int, batch: int) -> Material:
        """Hand out material for a batch and forget it, before anything of it is sent; raises PeerFailed."""
        material = self._ready.pop(serial, None)
        if material is None:
            raise PeerFailed(f"offline material {serial} was used already or never made", "set up a new session")
        if material.batch != batch:
            raise PeerFailed(f"offline material {serial} is for {material.batch} queries, not {batch}")
        return material

    def fitting(self, queries: int) -> list[tuple[int, int]]:
        """Serials and sizes of materials for at most so many queries together, the largest first."""
        chosen = []
        for serial, material in sorted(self._ready.items(), key=lambda item: -item[1].batch):
            if material.batch <= queries:
                chosen.append((serial, material.batch))
                queries -= material.batch
        return chosen

    def __contains__(self, serial: int) -> bool:
        return serial in self._ready

    @property
    def queries(self) -> int:
        """How many queries lie ready."""
        return sum(material.batch for material in self._ready.values())

    @property
    def stored_bytes(self) -> int:
        """What all of it takes."""
        return sum(material.stored_bytes for material in self._ready.values())
