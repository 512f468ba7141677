"""Files of arrays: what is read, and that nothing in them is ever called."""

import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.errors import ScenarioError
from capcsim.learning.datasets import load_dataset
from capcsim.learning.files import read_idx, read_pickled_arrays
from capcsim.learning.images import JPEG_NOTE
from capcsim.scenario import Data

SIZES: dict[str, Any] = {"train_per_party": 1, "pool_per_querier": 1, "evaluation": 1}
IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx_set(folder: Path, *, zipped: bool) -> None:
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for name, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
            content = idx(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("source", "place"), [("mnist", "."), ("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")]
)
def test_idx_files_are_found_and_read(tmp_path: Path, source: Any, place: str, zipped: bool) -> None:
    write_idx_set(tmp_path / "sets" / place, zipped=zipped)
    found = load_dataset(Data(source=source, folder=tmp_path / "sets", **SIZES))
    assert (found.shape, found.training, found.classes) == ((1, 4, 4), 6, 3)
    assert found.x[1, 0] * 255 == pytest.approx(IMAGES[1])
    assert found.y.tolist() == [*LABELS, *LABELS]


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", idx(IMAGES)[:-1], b"\x1f\x8b cut", gzip.compress(idx(IMAGES))[:-9], b"\1" + idx(IMAGES)[1:]],
)
def test_a_damaged_idx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(ScenarioError, match="a whole idx file") as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


def cifar_batch(first: int, count: int = 4) -> dict[bytes, Any]:
    data = (np.arange(count * 3072) % 251).astype(np.uint8).reshape(count, 3072)
    return {b"data": data, b"labels": [(first + i) % 2 for i in range(count)], b"filenames": [b"a.png"] * count}


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifars_batches_are_read(tmp_path: Path, protocol: int) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(cifar_batch(0), protocol=protocol))
    found = load_dataset(Data(source="cifar10", folder=tmp_path, **SIZES))
    assert (found.shape, found.training, len(found.y), found.note) == ((3, 32, 32), 20, 24, "")
    assert found.x[0, 1, 0, 3] * 255 == pytest.approx((1024 + 3) % 251)


class Call:
    """A pickle that calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "what",
    [
        lambda trap: Call(os.system, f"touch {trap}"),
        lambda trap: Call(eval, f"open({str(trap)!r}, 'w')"),
        lambda trap: Call(open, str(trap), "w"),
        lambda trap: Call(getattr, trap, "touch"),
        lambda trap: {b"data": np.array([Call(open, str(trap), "w")], object)},
        lambda trap: {b"data": np.array([1, "a"], object)},
        lambda trap: np.dtype("O"),
        lambda trap: [1, 2],
    ],
    ids=["system", "eval", "open", "getattr", "inside an array", "objects", "no dictionary", "list"],
)
def test_a_pickle_calls_nothing(tmp_path: Path, what: Callable[[Path], Any]) -> None:
    trap, path = tmp_path / "trap", tmp_path / "hostile"
    path.write_bytes(pickle.dumps(what(trap), protocol=2))
    with pytest.raises(ScenarioError, match=r"a pickle of plain arrays|a pickled dictionary"):
        read_pickled_arrays(path)
    assert not trap.exists()


def test_svhns_digit_0_is_numbered_10_and_the_extra_set_joins_the_training_set(tmp_path: Path) -> None:
    from scipy.io import savemat

    x = np.zeros((32, 32, 3, 3), np.uint8)
    x[5, 6, 1] = [10, 20, 30]
    for name in ("train", "extra", "test"):
        savemat(tmp_path / f"{name}_32x32.mat", {"X": x, "y": np.array([[10], [1], [2]])})
    found = load_dataset(Data(source="svhn", folder=tmp_path, **SIZES))
    assert (found.shape, found.training, found.classes) == ((3, 32, 32), 6, 3)
    assert found.y[:3].tolist() == [0, 1, 2]
    assert found.x[1, 1, 5, 6] * 255 == pytest.approx(20)
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB 5.0, cut")
    with pytest.raises(ScenarioError, match=r"a \.mat file of SVHN"):
        load_dataset(Data(source="svhn", folder=tmp_path, **SIZES))


def test_medmnists_names_are_understood(tmp_path: Path) -> None:
    parts = {f"{part}_images": IMAGES for part in ("train", "val", "test")}
    labels = {f"{part}_labels": LABELS[:, None] for part in ("train", "val", "test")}
    np.savez(tmp_path / "breastmnist.npz", **parts, **labels)
    found = load_dataset(Data(source="breastmnist", folder=tmp_path, **SIZES))
    assert (found.shape, found.training, len(found.y)) == ((1, 4, 4), 6, 18)


def test_jpeg_files_are_decoded_and_said_to_be_such(tmp_path: Path) -> None:
    import io

    from PIL import Image

    def jpeg(level: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(file, "JPEG")
        return file.getvalue()

    files = [jpeg(level) for level in (0, 100, 200)]
    part = {"jpeg": np.frombuffer(b"".join(files), np.uint8), "len": np.array([len(file) for file in files])}
    arrays = {f"{name}_{of}": value for of in ("train", "test") for name, value in part.items()}
    labels = {f"y_{of}": np.array([0, 1, 1]) for of in ("train", "test")}
    np.savez(tmp_path / "cifar10_jpeg_bytes.npz", **arrays, **labels)
    found = load_dataset(Data(source="cifar10", folder=tmp_path, **SIZES))
    assert found.note == JPEG_NOTE
    assert found.x[1].mean() * 255 == pytest.approx(100, abs=1)
    np.savez(tmp_path / "cifar10_jpeg_bytes.npz", **{**arrays, "len_train": part["len"] - 9}, **labels)
    with pytest.raises(ScenarioError, match="whole JPEG files"):
        load_dataset(Data(source="cifar10", folder=tmp_path, **SIZES))


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist", "cifar10", "svhn", "pathmnist", "heart"])
def test_a_missing_set_says_what_to_get_and_where(tmp_path: Path, source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ScenarioError, match=rf"data\.source = '{source}': .* does not hold it: it needs .*http"
    ) as caught:
        load_dataset(Data(source=source, folder=tmp_path, **SIZES))
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("CAPCSIM_DATA", raising=False)
    with pytest.raises(ScenarioError, match=r"name it with --data DIR or CAPCSIM_DATA; it needs .*http"):
        load_dataset(Data(source=source, **SIZES))
    monkeypatch.setenv("CAPCSIM_DATA", str(tmp_path))
    with pytest.raises(ScenarioError, match="does not hold it"):
        load_dataset(Data(source=source, **SIZES))
