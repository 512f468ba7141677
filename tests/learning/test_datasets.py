from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import load_dataset
from capcsim.scenario import ArrayData
from tests.learning.tables_of import data_of

SIZES: dict[str, Any] = {"train_per_party": 1, "pool_per_querier": 1, "evaluation": 1}


def npz(tmp_path: Path, **arrays: np.ndarray) -> ArrayData:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return ArrayData(source="npz", path=path, **SIZES)


@pytest.mark.parametrize(
    ("source", "samples", "shape", "classes"), [("digits", 1797, (1, 8, 8), 10), ("breast_cancer", 569, (30,), 2)]
)
def test_bundled_sets(source: Any, samples: int, shape: tuple[int, ...], classes: int) -> None:
    found = load_dataset(data_of(source=source, **SIZES))
    assert (len(found.x), found.shape, found.classes) == (samples, shape, classes)
    assert found.x.dtype == np.float32
    assert found.y.dtype == np.int64
    assert 0 <= found.x.min() <= found.x.max() <= 1


def test_an_npz_of_images_is_scaled_and_gets_a_channel_axis(tmp_path: Path) -> None:
    images = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    found = load_dataset(npz(tmp_path, x=images, y=np.array([0, 1, 1, 0], np.uint8)))
    assert found.shape == (1, 5, 6)
    assert found.x.max() == pytest.approx(119 / 255)
    colour = load_dataset(npz(tmp_path, x=np.zeros((2, 5, 6, 3)), y=np.array([0, 1])))
    assert colour.shape == (3, 5, 6)


def test_train_and_test_parts_are_put_together(tmp_path: Path) -> None:
    parts = {f"{a}_{part}": value for part in ("train", "test") for a, value in (("x", np.eye(2)), ("y", np.arange(2)))}
    found = load_dataset(npz(tmp_path, **parts))
    assert found.y.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": np.zeros(3)}, "arrays x and y.*it holds 'a'"),
        ({"x_train": np.zeros((2, 2)), "y": np.arange(2)}, "arrays x and y"),
        (
            {"x": np.array([[0.0], [np.nan]]), "y": np.arange(2)},
            "NaN in 1 of 2 samples, the first is 1; data.missing = 'median'",
        ),
        ({"x": np.array([[0.0], [-np.inf]]), "y": np.arange(2)}, "no NaN or infinity"),
        ({"x": np.array([[0.0], [100.0]]), "y": np.arange(2)}, "it reaches 100, so scale it first"),
        ({"x": np.zeros(2), "y": np.arange(2)}, "at least two axes"),
        ({"x": np.array([["a"], ["b"]]), "y": np.arange(2)}, "x numeric"),
        ({"x": np.zeros((2, 2)), "y": np.arange(3)}, r"y of shape \(2,\)"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 1j])}, "y of whole numbers or text; it is complex128"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, np.nan])}, "1 of y are NaN, the first is 1"),
        ({"x": np.zeros((2, 2)), "y": np.eye(2)}, r"it is \(2, 2\): y.argmax\(axis=1\) makes labels of 2 columns"),
        ({"x": np.zeros((2, 2)), "y": np.array(0)}, "y int64 of|y is int64 of"),
        (
            {"x": np.zeros((9, 2)), "y": np.linspace(0, 1, 9)},
            "labels; y has 9 different values in 9 rows, as a measure",
        ),
        ({"x": np.zeros((2, 0)), "y": np.arange(2)}, "no sample"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 0])}, "at least two classes; y has only 0"),
        ({"x": np.zeros((2, 1, 2, 3, 4)), "y": np.arange(2)}, "x of two axes .features., three or four"),
        ({"x": np.zeros((2, 1, 28, 1)), "y": np.arange(2)}, "channels may be first or last"),
        ({"x": np.zeros((2, 3, 3, 3)), "y": np.arange(2)}, "channels may be first or last"),
        ({"x": np.array([[{}]], object), "y": np.array([0])}, "plain arrays"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "no sample"),
    ],
)
def test_a_bad_npz_says_what_is_wrong(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(ScenarioError, match=f"data.path = .*{says}"):
        load_dataset(npz(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "npz file"),
        (lambda path: path.write_bytes(b"not an archive"), "an npz file"),
        (lambda path: path.write_bytes(b""), "an npz file"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut short"), "npz file"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "an npz file"),
    ],
    ids=["absent", "folder", "text", "empty", "cut", "npy"],
)
def test_a_file_that_is_no_npz(tmp_path: Path, write: Callable[[Path], Any], says: str) -> None:
    path = tmp_path / "mine.npz"
    write(path)
    with pytest.raises(ScenarioError, match=says):
        load_dataset(ArrayData(source="npz", path=path, **SIZES))
