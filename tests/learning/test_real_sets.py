"""The real data sets, where CAPCSIM_DATA names a folder that has them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.learning.datasets import load_dataset
from capcsim.scenario import HeartData
from tests.learning.tables_of import data_of

FOLDER = Path(os.environ.get("CAPCSIM_DATA", "/nonexistent"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="CAPCSIM_DATA names no folder of data sets")
SIZES: dict[str, Any] = {"train_per_party": 1, "pool_per_querier": 1, "evaluation": 1}


def needs(name: str) -> None:
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not in CAPCSIM_DATA")


@pytest.mark.parametrize(
    ("source", "first"),
    [("mnist", [5, 0, 4, 1, 9]), ("fashion_mnist", [9, 0, 0, 3, 0])],
)
def test_the_grey_images(source: Any, first: list[int]) -> None:
    needs(f"{source}.npz")
    found = load_dataset(data_of(source=source, **SIZES))
    assert (found.x.shape, found.training, found.classes) == ((70_000, 1, 28, 28), 60_000, 10)
    assert found.y[:5].tolist() == first
    assert (found.x.min(), found.x.max()) == (0, 1)


@pytest.mark.parametrize(("source", "sizes"), [("pneumoniamnist", (4708, 5856)), ("breastmnist", (546, 780))])
def test_medical_images(source: Any, sizes: tuple[int, int]) -> None:
    needs(f"{source}.npz")
    found = load_dataset(data_of(source=source, **SIZES))
    assert ((found.training, len(found.y)), found.classes) == (sizes, 2)


def test_the_hospitals_of_heart() -> None:
    needs("heart_disease")
    found = load_dataset(HeartData(source="heart", missing="median", **SIZES))
    assert found.site is not None
    assert found.protected is not None
    assert np.bincount(found.site).tolist() == [303, 294, 123, 200]
    assert [int((found.y[found.site == site] == 0).sum()) for site in range(4)] == [164, 188, 8, 51]
    assert np.bincount(found.protected).tolist() == [194, 726]
    assert np.isnan(found.x[found.site == 2, 7]).all(), "Switzerland measured no cholesterol: its zeros are gaps"
    assert np.nanmax(np.abs(found.x)) == 1
