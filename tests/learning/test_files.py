"""Files of arrays: what is read, and that nothing in them is ever called."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capcsim.errors import ScenarioError
from capcsim.learning import images
from capcsim.learning.datasets import load_dataset
from capcsim.learning.files import read_idx, read_pickled_arrays
from capcsim.learning.images import JPEG_NOTE
from capcsim.scenario import ImageData
from tests.learning.tables_of import data_of

SIZES: dict[str, Any] = {"train_per_party": 1, "pool_per_querier": 1, "evaluation": 1}
IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def jpeg(level: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_claiming(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = header.ljust((len(header) + 11) // 64 * 64 + 64 - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(32)


def refused(source: Any, says: str, **where: Any) -> None:
    with pytest.raises(ScenarioError, match=says) as caught:
        load_dataset(data_of(source=source, **where, **SIZES))
    assert str(caught.value).isprintable(), "one line, with nothing that a terminal would obey"


@pytest.mark.parametrize("shape", [f"({10**15},)", f"({10**30},)", "(-5, 2)", "((((((", "-" * 900])
def test_an_array_of_an_npz_file_that_claims_too_much(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_claiming(shape))
        archive.writestr("y.npy", npy(LABELS))
    refused("npz", "an npz file of plain arrays", path=path)


@pytest.mark.parametrize("raw", ["x", "y"])
def test_an_npz_file_with_something_else_than_an_array(tmp_path: Path, raw: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **{"y": LABELS} if raw == "x" else {"x": IMAGES})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(raw, b"hello")
    refused("npz", f"an npz file of plain arrays; '{raw}' is none", path=path)


@pytest.mark.parametrize("damage", ["encrypted", "unknown compression", "lzma"])
def test_an_npz_file_that_cannot_be_unpacked(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA if damage == "lzma" else zipfile.ZIP_STORED) as archive:
        archive.writestr("x.npy", npy(IMAGES))
        archive.writestr("y.npy", npy(LABELS))
    content = bytearray(path.read_bytes())
    entry = content.find(b"PK\x01\x02")
    if damage == "lzma":
        content[60:90] = bytes(range(200, 230))
    elif damage == "encrypted":
        content[6], content[entry + 8] = 1, 1
    else:
        content[8], content[entry + 10] = 99, 99
    path.write_bytes(content)
    refused("npz", "an npz file of plain arrays", path=path)


def test_an_npz_file_of_all_and_of_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    parts = {f"{name}{part}": value for part in ("_train", "_test") for name, value in (("x", IMAGES), ("y", LABELS))}
    np.savez(path, x=np.concatenate([IMAGES, IMAGES]), y=np.concatenate([LABELS, LABELS]), **parts)
    refused("npz", "x and y, or x_train and y_train .*, not both; it holds 'x', 'y'", path=path)
    np.savez(path, train_images=IMAGES, **parts)
    refused("npz", "not both", path=path)


def test_parts_with_fewer_labels_than_samples(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS[:5], x_test=IMAGES[:5], y_test=LABELS)
    refused("npz", "as many labels in y_train as samples in x_train; it has 5 for 6", path=path)
    np.savez(path, x=IMAGES, y=LABELS.astype("M8[s]"), x_test=IMAGES)
    refused("npz", "it holds", path=path)


def test_parts_of_types_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES.astype("M8[s]"), y_test=LABELS)
    refused("npz", "parts of one shape and type", path=path)


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
    found = load_dataset(data_of(source=source, folder=tmp_path / "sets", **SIZES))
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


def write_cifar(folder: Path, content: bytes) -> None:
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(exist_ok=True)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (batches / name).write_bytes(content)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifars_batches_are_read(tmp_path: Path, protocol: int) -> None:
    write_cifar(tmp_path, pickle.dumps(cifar_batch(0), protocol=protocol))
    found = load_dataset(ImageData(source="cifar10", folder=tmp_path, **SIZES))
    assert (found.shape, found.training, len(found.y), found.note) == ((3, 32, 32), 20, 24, "")
    assert found.x[0, 1, 0, 3] * 255 == pytest.approx((1024 + 3) % 251)


def test_a_batch_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
    byte = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNNJ" + b"\xff" * 4
    byte += b"J" + b"\xff" * 4 + b"K\0tb"
    data = cifar_batch(0)[b"data"]
    state = b"(K\1(K\4M\x00\x0ct" + byte + b"\x89" + text(data.tobytes()) + b"tb"
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\2}(" + text(b"data") + array + state + text(b"labels") + b"](K\0K\1K\0K\1eu.")
    found = read_pickled_arrays(path)
    assert (found[b"data"] == data).all()
    assert found[b"labels"] == [0, 1, 0, 1]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "array", [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6, dtype=">i4"), np.array([[True, False]])]
)
def test_pickled_arrays_of_any_numbers(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    path = tmp_path / "arrays"
    path.write_bytes(pickle.dumps({b"a": array}, protocol=protocol))
    found = read_pickled_arrays(path)[b"a"]
    assert found.dtype == array.dtype
    assert (found == array).all()


@pytest.mark.parametrize(
    "labels", [list("abcd"), {1: 2}, None, 3, [[1], [2, 3]], [2**70] * 4, [0, 1], [0, 1, 0, 10], [0.5] * 4, [True] * 4]
)
def test_a_batch_whose_labels_are_none(tmp_path: Path, labels: Any) -> None:
    write_cifar(tmp_path, pickle.dumps(cifar_batch(0) | {b"labels": labels}, protocol=2))
    refused("cifar10", "data_batch_1.*: labels from 0 to 9, one an image", folder=tmp_path)


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


def forged(state: Any, shape: tuple[Any, ...] = (4,), name: bytes = b"u1") -> bytes:
    """An array whose type of numbers is given any state."""

    def of(value: Any) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
    number = b"cnumpy\ndtype\nU\2" + name + b"K\0K\1\x87R" + of(state) + b"b"
    return b"\x80\2}U\4data" + array + b"(K\1" + of(shape) + number + b"\x89U\x08" + b"A" * 8 + b"tbs."


@pytest.mark.parametrize(
    "content",
    [
        forged((4, "|", None, ("a",), {}, 8, 1, 63, None), (1,), b"V8"),
        forged((3, "|", None, None, None, -1, -1, 63), name=b"O8"),
        forged((3, "x", None, None, None, -1, -1, 0), (8,)),
        forged(None, (8,)),
        forged((3, "|"), (9,)),
        forged((3, "|"), (2**70,)),
        forged((3, "|"), (-1,)),
        forged((3, "|"), (2.0, 4.0)),
        b"\x80\2}Pabc\n.",
        b"\x80\2}K\1" + b"\x85" * 2_000_000 + b"K\1s.",
        b"\x80\2}r\xff\xff\xff\x7f.",
        b"\x80\2c_codecs\nencode\nN}U\x0c__defaults__K\1s\x86b.",
        b"\x80\2cnumpy\ndtype\n)\x81.",
        b"\x80\2cnumpy\nndarray\n)R.",
    ],
    ids=[
        *("flags", "object", "order", "no state", "long", "huge", "negative", "fraction"),
        *("persistent", "deep", "memo", "function", "new", "ndarray"),
    ],
)
def test_a_forged_pickle_crashes_nothing(tmp_path: Path, content: bytes) -> None:
    write_cifar(tmp_path, content)
    refused("cifar10", "data_batch_1.*a pickle of plain arrays", folder=tmp_path)


def test_a_forged_type_of_numbers_keeps_its_byte_order_only(tmp_path: Path) -> None:
    path = tmp_path / "forged"
    path.write_bytes(forged((4, ">", None, ("a",), {}, 8, 1, 63, None), name=b"u2"))
    assert read_pickled_arrays(path)[b"data"].tolist() == [0x4141] * 4


def test_svhns_digit_0_is_numbered_10_and_the_extra_set_joins_the_training_set(tmp_path: Path) -> None:
    from scipy.io import savemat

    x = np.zeros((32, 32, 3, 3), np.uint8)
    x[5, 6, 1] = [10, 20, 30]
    for name in ("train", "extra", "test"):
        savemat(tmp_path / f"{name}_32x32.mat", {"X": x, "y": np.array([[10], [1], [2]])})
    found = load_dataset(ImageData(source="svhn", folder=tmp_path, **SIZES))
    assert (found.shape, found.training, found.classes) == ((3, 32, 32), 6, 3)
    assert found.y[:3].tolist() == [0, 1, 2]
    assert found.x[1, 1, 5, 6] * 255 == pytest.approx(20)
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB 5.0, cut")
    with pytest.raises(ScenarioError, match=r"a \.mat file of SVHN"):
        load_dataset(ImageData(source="svhn", folder=tmp_path, **SIZES))


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((32, 32, 3, 2), np.uint8), [[np.nan], [1]], "y of the digits 1 to 10"),
        (np.zeros((32, 32, 3, 2), np.uint8), [[11], [1]], "y of the digits 1 to 10"),
        (np.zeros((32, 32, 3, 2), np.uint8), np.array([["a"], [1]], object), "X and y must be numbers"),
        (np.zeros((32, 32, 3)), [[1], [2]], r"X of bytes \[32, 32, 3, 2\]; it is float64"),
    ],
)
def test_a_mat_file_of_something_else(tmp_path: Path, x: Any, y: Any, says: str) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "train_32x32.mat", {"X": x, "y": np.array(y)})
    refused("svhn", f"a .mat file of SVHN.*{says}", folder=tmp_path)


def test_a_mat_file_that_crashes_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "READ_MAT", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (tmp_path / "train_32x32.mat").write_bytes(b"")
    refused("svhn", "it crashes the reader", folder=tmp_path)


def test_medmnists_names_are_understood(tmp_path: Path) -> None:
    parts = {f"{part}_images": IMAGES for part in ("train", "val", "test")}
    labels = {f"{part}_labels": LABELS[:, None] for part in ("train", "val", "test")}
    np.savez(tmp_path / "breastmnist.npz", **parts, **labels)
    found = load_dataset(ImageData(source="breastmnist", folder=tmp_path, **SIZES))
    assert (found.shape, found.training, len(found.y)) == ((1, 4, 4), 6, 18)


def test_jpeg_files_are_decoded_and_said_to_be_such(tmp_path: Path) -> None:
    files = [jpeg(level) for level in (0, 100, 200)]
    part = {"jpeg": np.frombuffer(b"".join(files), np.uint8), "len": np.array([len(file) for file in files])}
    arrays = {f"{name}_{of}": value for of in ("train", "test") for name, value in part.items()}
    labels = {f"y_{of}": np.array([0, 1, 1]) for of in ("train", "test")}
    np.savez(tmp_path / "cifar10_jpeg_bytes.npz", **arrays, **labels)
    found = load_dataset(ImageData(source="cifar10", folder=tmp_path, **SIZES))
    assert found.note == JPEG_NOTE
    assert found.x[1].mean() * 255 == pytest.approx(100, abs=1)
    np.savez(tmp_path / "cifar10_jpeg_bytes.npz", **{**arrays, "len_train": part["len"] - 9}, **labels)
    refused("cifar10", "whole JPEG files", folder=tmp_path)
    huge = bytearray(files[0])
    size = huge.find(b"\xff\xc0") + 5
    for claimed in (b"\xff" * 4, b"\x30\0\x30\0", b"\0\x40\0\x40"):
        huge[size : size + 4] = claimed
        content = np.frombuffer(bytes(huge) + b"".join(files[1:]), np.uint8)
        np.savez(tmp_path / "cifar10_jpeg_bytes.npz", **{**arrays, "jpeg_train": content}, **labels)
        refused("cifar10", "whole JPEG files", folder=tmp_path)
    for lengths in (np.array(3), part["len"] * 1.0, part["len"].astype(str), part["len"] * -1):
        np.savez(tmp_path / "cifar10_jpeg_bytes.npz", **{**arrays, "len_train": lengths}, **labels)
        refused("cifar10", "whole JPEG files with their lengths", folder=tmp_path)


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist", "cifar10", "svhn", "pathmnist", "heart"])
def test_a_missing_set_says_what_to_get_and_where(tmp_path: Path, source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ScenarioError, match=rf"data\.source = '{source}': .* does not hold it: it needs .*http"
    ) as caught:
        load_dataset(data_of(source=source, folder=tmp_path, **SIZES))
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("CAPCSIM_DATA", raising=False)
    with pytest.raises(ScenarioError, match=r"name it with --data DIR or CAPCSIM_DATA; it needs .*http"):
        load_dataset(data_of(source=source, **SIZES))
    monkeypatch.setenv("CAPCSIM_DATA", str(tmp_path))
    with pytest.raises(ScenarioError, match="does not hold it"):
        load_dataset(data_of(source=source, **SIZES))
