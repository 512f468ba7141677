"""The image sets of the paper and of MedMNIST, from files in a folder. Nothing is downloaded."""

import io
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.files import Arrays, read_idx, read_npz, read_pickled_arrays, together
from capcsim.learning.samples import Dataset, bad_file, check_features, check_labels
from capcsim.scenario import MedMnist

IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
IDX_FOLDERS = {
    "mnist": ("mnist", "MNIST/raw", "."),
    "fashion_mnist": ("fashion_mnist", "FashionMNIST/raw", "fashion"),
}
ORIGINS: dict[str, str] = {
    "mnist": "mnist.npz, or the four idx files in mnist/; get them from http://yann.lecun.com/exdb/mnist",
    "fashion_mnist": "fashion_mnist.npz, or the four idx files in fashion_mnist/; get them from"
    " https://github.com/zalandoresearch/fashion-mnist",
    "cifar10": "cifar10.npz, or the folder cifar-10-batches-py; get it from"
    " https://www.cs.toronto.edu/~kriz/cifar.html",
    "svhn": "train_32x32.mat and test_32x32.mat (and extra_32x32.mat); get them from"
    " http://ufldl.stanford.edu/housenumbers",
} | {name: f"{name}.npz; get it from https://medmnist.com" for name in get_args(MedMnist)}
JPEG_NOTE = (
    "JPEG-re-encoded CIFAR-10 (quality 75): its pixels are not the original ones, so accuracies are not comparable"
    " with published ones to the third decimal."
)


def load_images(name: str, folder: Path) -> Dataset:
    """One of ORIGINS, from its files in a folder; raises ScenarioError."""
    path, arrays, note = _find(name, folder)
    x, y, training = together(path, arrays)
    return Dataset(
        name, check_features(path, x, "error", "images"), *check_labels(path, y, len(x)), training=training, note=note
    )


def _find(name: str, folder: Path) -> tuple[Path, Arrays, str]:
    """The file that holds a set, its arrays, and what must be said of it."""
    npz = folder / f"{name}.npz"
    if npz.exists():
        return npz, read_npz(npz), ""
    if name in IDX_FOLDERS:
        for place in IDX_FOLDERS[name]:
            found = _idx_files(folder / place)
            if found:
                return folder / place, {part: read_idx(path) for part, path in found.items()}, ""
    if name == "cifar10":
        batches, jpeg = folder / "cifar-10-batches-py", folder / "cifar10_jpeg_bytes.npz"
        if batches.is_dir():
            return batches, _cifar_batches(batches), ""
        if jpeg.exists():
            return jpeg, _decoded(jpeg), JPEG_NOTE
    if name == "svhn" and (folder / "train_32x32.mat").exists():
        return folder / "train_32x32.mat", _svhn(folder), ""
    raise missing_set(name, folder, ORIGINS[name])


def missing_set(name: str, folder: Path, origin: str) -> ScenarioError:
    """The error for a named set that the folder does not hold."""
    return ScenarioError("data.source", name, f"{folder} does not hold it: it needs {origin}")


def _idx_files(folder: Path) -> dict[str, Path] | None:
    """The four files, gzipped or not; None unless all are there."""
    found = {}
    for part, name in IDX_FILES.items():
        there = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
        if not there:
            return None
        found[part] = there[0]
    return found


def _cifar_batches(folder: Path) -> Arrays:
    """The "python version": five batches and a test batch, rows of 3 x 32 x 32 bytes."""
    names = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
    arrays: Arrays = {}
    for part, files in names.items():
        images, labels = [], []
        for name in files:
            batch = read_pickled_arrays(folder / name)
            data = batch.get(b"data")
            if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
                raise bad_file(folder / name, "a batch of CIFAR-10: data of 3,072 bytes an image, and labels")
            images.append(data.reshape(-1, 3, 32, 32))
            labels.append(np.asarray(batch.get(b"labels", []), np.int64))
        arrays |= {f"x_{part}": np.concatenate(images), f"y_{part}": np.concatenate(labels)}
    return arrays


def _decoded(path: Path) -> Arrays:
    """Arrays jpeg_train (all files' bytes in a row), len_train, y_train, and the same for test."""
    try:
        from PIL import Image
    except ImportError:
        raise bad_file(path, "Pillow to decode it with: pip install pillow") from None
    stored = read_npz(path)
    arrays: Arrays = {}
    for part in ("train", "test"):
        try:
            content, lengths = stored[f"jpeg_{part}"].tobytes(), stored[f"len_{part}"].astype(np.int64)
            ends = np.cumsum(lengths)
            files = (content[end - size : end] for end, size in zip(ends, lengths, strict=True))
            images = [np.asarray(Image.open(io.BytesIO(file), formats=["JPEG"])) for file in files]
            arrays |= {f"x_{part}": np.stack(images), f"y_{part}": stored[f"y_{part}"]}
        except (KeyError, OSError, ValueError) as error:
            raise bad_file(path, f"whole JPEG files with their lengths ({error})") from None
    return arrays


def _svhn(folder: Path) -> Arrays:
    """The cropped digits; the paper adds the extra set to the training set, so it is added where it is there."""
    parts: dict[str, list[Any]] = {"train": ["train"], "test": ["test"]}
    if (folder / "extra_32x32.mat").exists():
        parts["train"].append("extra")
    arrays: Arrays = {}
    for part, names in parts.items():
        images, labels = zip(*(_mat(folder / f"{name}_32x32.mat") for name in names), strict=True)
        arrays |= {f"x_{part}": np.concatenate(images), f"y_{part}": np.concatenate(labels)}
    return arrays


def _mat(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """X [32, 32, 3, N] and y [N, 1] of one .mat file; the digit 0 is numbered 10 there."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["X", "y"])
        return np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2)), content["y"].reshape(-1).astype(np.int64) % 10
    except OSError as error:
        raise bad_file(path, f"a readable file ({error.strerror or error})") from None
    except Exception as error:  # scipy's reader fails in many ways on a damaged file
        raise bad_file(path, f"a .mat file of SVHN with X and y ({error})") from None
