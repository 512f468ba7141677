"""Files of arrays, read without ever trusting them: no pickle is unpickled with full rights."""

import gzip
import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.samples import bad_file

Arrays = dict[str, NDArray[Any]]
IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PARTS = ("", "_train", "_val", "_test")


def read_npz(path: Path) -> Arrays:
    """Every array of an npz file; raises ScenarioError."""
    try:
        if not is_zipfile(path):
            raise bad_file(path, "an npz file, which numpy.savez writes" if path.exists() else "no such file")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise bad_file(path, f"a readable npz file ({error.strerror or error})") from None
    except (ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise bad_file(path, f"an npz file of plain arrays ({error})") from None


def together(path: Path, arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any], int | None]:
    """Samples and labels of all parts, and how many of them are for training; None where there is one part.

    The parts are x and y; or x_train, y_train, x_test, y_test (and val); or MedMNIST's train_images, train_labels
    and so on. Raises ScenarioError.
    """
    named = {_usual_name(name): array for name, array in arrays.items()}
    parts = [part for part in PARTS if f"x{part}" in named]
    if not parts or any(f"y{part}" not in named for part in parts):
        raise bad_file(path, f"arrays x and y, or x_train and y_train; it holds {', '.join(arrays)}")
    try:
        x = np.concatenate([named[f"x{part}"] for part in parts])
        y = np.concatenate([_column(named[f"y{part}"]) for part in parts])
    except ValueError as error:
        raise bad_file(path, f"parts of one shape ({error})") from None
    split = "_train" in parts and "_test" in parts
    return x, y, len(named["x_train"]) if split else None


def read_idx(path: Path) -> NDArray[Any]:
    """An array in the idx format of MNIST, gzipped or not; raises ScenarioError."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        zeros, code, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
        if zeros or code not in IDX_DTYPES:
            raise ValueError("it does not begin with an idx header")
        values = np.frombuffer(content, IDX_DTYPES[code], offset=4 + 4 * axes)
        return values.reshape(shape).astype(values.dtype.newbyteorder("="))
    except OSError as error:
        raise bad_file(path, f"a readable idx file ({error.strerror or error})") from None
    except (ValueError, EOFError, struct.error, zlib.error) as error:
        raise bad_file(path, f"a whole idx file ({error})") from None


def read_pickled_arrays(path: Path) -> dict[bytes, Any]:
    """A pickled dictionary of arrays, lists and strings, as CIFAR-10 comes; raises ScenarioError.

    Only what builds numpy arrays may be named in it: anything else is refused before it is called.
    """
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError as error:
        raise bad_file(path, f"a readable file ({error.strerror or error})") from None
    except Exception as error:  # damaged or hostile bytes may fail in any way
        raise bad_file(path, f"a pickle of plain arrays ({error})") from None
    if not isinstance(content, dict):
        raise bad_file(path, f"a pickled dictionary; it holds a {type(content).__name__}")
    return content


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can name numpy's arrays and nothing else (docs.python.org, "Restricting Globals")."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names that a pickled array needs."""
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _number_dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")


def _number_dtype(name: str, *options: bool) -> Any:
    found = np.dtype(name, *options)
    if found.hasobject:
        raise pickle.UnpicklingError("only arrays of numbers are allowed in it")
    return found


def _empty_array(kind: Any, shape: Any, dtype: Any) -> NDArray[Any]:
    """What numpy's own _reconstruct does, for arrays of numbers only."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("only arrays of numbers are allowed in it")
    return np.ndarray(shape, _number_dtype(dtype))


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding} is not allowed in it")
    return text.encode("latin1")


def _usual_name(name: str) -> str:
    """MedMNIST's "train_images" as "x_train"."""
    part, _, what = name.rpartition("_")
    letter = {"images": "x", "labels": "y"}.get(what)
    return f"{letter}_{part}" if letter and part else name


def _column(y: NDArray[Any]) -> NDArray[Any]:
    """MedMNIST's labels [N, 1] as [N]."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
