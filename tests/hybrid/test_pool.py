from dataclasses import dataclass

import pytest

from capcsim.errors import PeerFailed
from capcsim_hybrid.pool import Pool


@dataclass
class Batch:
    batch: int
    stored_bytes: int = 10


def test_material_is_handed_out_once() -> None:
    pool: Pool[Batch] = Pool()
    pool.add(0, Batch(3))
    assert (pool.queries, pool.stored_bytes) == (3, 10)
    assert pool.take(0, 3).batch == 3
    assert (pool.queries, pool.stored_bytes) == (0, 0)
    with pytest.raises(PeerFailed, match="offline material 0 was used already or never made"):
        pool.take(0, 3)


def test_a_serial_number_is_never_used_again() -> None:
    pool: Pool[Batch] = Pool()
    pool.add(pool.next_serial, Batch(3))
    pool.take(0, 3)
    with pytest.raises(PeerFailed, match="was made already"):
        pool.add(0, Batch(3))
    assert pool.next_serial == 1


def test_material_of_another_size_is_gone_all_the_same() -> None:
    pool: Pool[Batch] = Pool()
    pool.add(0, Batch(3))
    with pytest.raises(PeerFailed, match="is for 3 queries, not 4"):
        pool.take(0, 4)
    with pytest.raises(PeerFailed, match="used already"):
        pool.take(0, 3)


def test_the_largest_that_fit_together_are_chosen() -> None:
    pool: Pool[Batch] = Pool()
    for serial, size in enumerate((2, 5, 4, 1)):
        pool.add(serial, Batch(size))
    assert pool.fitting(8) == [(1, 5), (0, 2), (3, 1)]
    assert pool.fitting(0) == []
