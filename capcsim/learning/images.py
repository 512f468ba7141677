"""The image sets of the paper and of MedMNIST, from files in a folder. Nothing is downloaded."""

import io
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.files import Arrays, read_idx, read_npz, read_pickled_arrays, together
from capcsim.learning.samples import Dataset, bad_file, channels_first, check_features, check_labels
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
CIFAR_CLASSES = 10
NO_NUMBERS = "no numbers"
READ_MAT = """
import sys, numpy
from scipy.io import loadmat
found = loadmat(sys.argv[1], variable_names=["X", "y"])
arrays = {name: numpy.asarray(found[name]) for name in ("X", "y")}
if any(array.dtype.kind not in "iuf" for array in arrays.values()):
    sys.exit("no numbers")
numpy.savez(sys.argv[2], **arrays)
"""
"""scipy's reader of .mat files, which damaged ones can crash: so it runs in a process of its own."""
JPEG_NOTE = (
    "JPEG-re-encoded CIFAR-10 (quality 75): its pixels are not the original ones, so accuracies are not comparable"
    " with published ones to the third decimal."
)


class BadImages(ValueError):
    """What is wrong with images, in our words."""


def load_images(name: str, folder: Path) -> Dataset:
    """One of ORIGINS, from its files in a folder; raises ScenarioError."""
    path, arrays, note = _find(name, folder)
    x, y, training = together(path, arrays)
    images, _ = channels_first(path, check_features(path, x, "error", "images"))
    notes = (note,) if note else ()
    return Dataset(name, images, *check_labels(path, y, len(x)), training=training, notes=notes)


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
            labels.append(_batch_labels(folder / name, batch.get(b"labels"), len(data)))
        arrays |= {f"x_{part}": np.concatenate(images), f"y_{part}": np.concatenate(labels)}
    return arrays


def _batch_labels(path: Path, stored: Any, images: int) -> NDArray[np.int64]:
    labels = stored.tolist() if isinstance(stored, np.ndarray) else stored
    whole = isinstance(labels, list) and all(type(label) is int and 0 <= label < CIFAR_CLASSES for label in labels)
    if not whole or len(labels) != images:
        raise bad_file(path, "a batch of CIFAR-10: labels from 0 to 9, one an image; get the file anew")
    return np.array(labels, np.int64)


def _decoded(path: Path) -> Arrays:
    """Arrays jpeg_train (all files' bytes in a row), len_train, y_train, and the same for test."""
    try:
        from PIL import Image
    except ImportError:
        raise bad_file(path, "Pillow to decode it with: pip install pillow") from None

    def decoded(file: bytes) -> NDArray[Any]:
        with Image.open(io.BytesIO(file), formats=["JPEG"]) as image:
            if image.size != (32, 32) or image.mode != "RGB":
                raise BadImages(f"one is {image.mode} of {image.width} x {image.height}, not RGB of 32 x 32")
            return np.asarray(image)

    stored = read_npz(path)
    arrays: Arrays = {}
    for part in ("train", "test"):
        try:
            files = _cut(stored[f"jpeg_{part}"], stored[f"len_{part}"])
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                arrays |= {f"x_{part}": np.stack([decoded(file) for file in files]), f"y_{part}": stored[f"y_{part}"]}
        except Exception as error:  # damaged or hostile bytes may fail in any way
            why = str(error) if isinstance(error, BadImages) else "they are damaged"
            raise bad_file(path, f"whole JPEG files with their lengths ({why}): get the file anew") from None
    return arrays


def _cut(content: NDArray[Any], lengths: NDArray[Any]) -> list[bytes]:
    """The files that lie in a row; raises BadImages."""
    if content.dtype != np.uint8 or lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise BadImages("bytes and a row of their lengths are needed")
    sizes = lengths.tolist()
    if min(sizes, default=0) < 1 or sum(sizes) != content.size:
        raise BadImages(f"the lengths are not those of {content.size} bytes")
    row, ends = content.tobytes(), np.cumsum(sizes).tolist()
    return [row[end - size : end] for end, size in zip(ends, sizes, strict=True)]


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
    content = _mat_arrays(path)
    x, y = content["X"], content["y"].reshape(-1)
    if x.dtype != np.uint8 or x.shape != (32, 32, 3, len(y)):
        raise bad_file(path, f"a .mat file of SVHN: X of bytes [32, 32, 3, {len(y)}]; it is {x.dtype} of {x.shape}")
    if not (np.isfinite(y) & (y == np.round(y)) & (y >= 0) & (y <= 10)).all():
        raise bad_file(path, "a .mat file of SVHN: y of the digits 1 to 10; it holds other values, so get it anew")
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), y.astype(np.int64) % 10


def _mat_arrays(path: Path) -> Arrays:
    with TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-c", READ_MAT, str(path.absolute()), str(arrays)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return read_npz(arrays)
    why = "X and y must be numbers" if NO_NUMBERS in done.stderr else "it is damaged"
    why = why if done.returncode > 0 else "it crashes the reader"
    raise bad_file(path, f"a .mat file of SVHN with X and y ({why}): get the file anew")
