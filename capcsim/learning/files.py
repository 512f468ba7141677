"""Files of arrays, read without ever trusting them: no pickle is unpickled with full rights."""

import gzip
import io
import pickle
import pickletools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.samples import bad_file, listed, quoted

Arrays = dict[str, NDArray[Any]]
IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PARTS = ("", "_train", "_val", "_test")
NUMBERS = {"b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8"}
"""The types of numbers that a pickled array may have."""
MOST_TUPLES, MOST_MEMO = 1 << 14, 1 << 20
"""Tuples and memo places in a pickle: CPython overflows its stack hashing deeper ones, and allocates any place."""


def read_npz(path: Path) -> Arrays:
    """Every array of an npz file; raises ScenarioError."""
    name = "it"
    found: Arrays = {}
    try:
        if not is_zipfile(path):
            raise bad_file(path, "an npz file, which numpy.savez writes" if path.exists() else "no such file")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                found[name] = arrays[name]
    except ScenarioError:
        raise
    except OSError as error:
        raise bad_file(path, f"a readable npz file ({error.strerror or 'it is cut short'})") from None
    except Exception as error:  # damaged or hostile bytes may fail in any way
        objects = isinstance(error, ValueError) and "allow_pickle" in str(error)
        what = "holds Python objects: give it a type of numbers" if objects else "is damaged: write it again"
        raise bad_file(path, f"an npz file of plain arrays; {quoted(name)} {what} with numpy.savez") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise bad_file(
                path, f"an npz file of plain arrays; {quoted(name)} is none: write it again with numpy.savez"
            )
    return found


def together(path: Path, arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any], int | None]:
    """Samples and labels of all parts, and how many of them are for training; None where there is one part.

    The parts are x and y; or x_train, y_train, x_test, y_test (and val); or MedMNIST's train_images, train_labels
    and so on. Raises ScenarioError.
    """
    named = {_usual_name(name): array for name, array in arrays.items()}
    parts = [part for part in PARTS if f"x{part}" in named]
    mixed = ("" in parts and len(parts) > 1) or len(named) < len(arrays)
    if mixed or not parts or any(f"y{part}" not in named for part in parts):
        wanted = "arrays x and y, or x_train and y_train (and val, test)" + (", not both" if mixed else "")
        raise bad_file(path, f"{wanted}; it holds {listed(arrays)}")
    try:
        x = np.concatenate([named[f"x{part}"] for part in parts])
        y = np.concatenate([_column(named[f"y{part}"]) for part in parts])
    except (TypeError, ValueError):
        shapes = (f"{name}{part} is {_kind(named[f'{name}{part}'])}" for part in parts for name in "xy")
        raise bad_file(path, f"parts of one shape and type, a row each sample; {', '.join(shapes)}") from None
    for part in parts:
        samples, labels = len(named[f"x{part}"]), len(named[f"y{part}"])
        if samples != labels and len(parts) > 1:
            raise bad_file(path, f"as many labels in y{part} as samples in x{part}; it has {labels} for {samples}")
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
            raise bad_file(path, "a whole idx file; it does not begin with an idx header: get the file anew")
        values = np.frombuffer(content, IDX_DTYPES[code], offset=4 + 4 * axes)
        return values.reshape(shape).astype(values.dtype.newbyteorder("="))
    except OSError as error:
        raise bad_file(path, f"a readable idx file ({error.strerror or 'it is no whole gzip file'})") from None
    except (ValueError, EOFError, MemoryError, struct.error, zlib.error):
        raise bad_file(path, "a whole idx file; its content is not as its header says: get the file anew") from None


def read_pickled_arrays(path: Path) -> dict[bytes, Any]:
    """A pickled dictionary of arrays, lists and strings, as CIFAR-10 comes; raises ScenarioError.

    Only what builds numpy arrays may be named in it: anything else is refused before it is called.
    """
    try:
        stored = path.read_bytes()
        _check_opcodes(stored)
        content = _ArraysOnly(io.BytesIO(stored), encoding="bytes").load()
        if isinstance(content, dict):
            return {key: value.real() if isinstance(value, _Array) else value for key, value in content.items()}
    except OSError as error:
        raise bad_file(path, f"a readable file ({error.strerror or 'it is cut short'})") from None
    except Exception as error:  # damaged or hostile bytes may fail in any way
        why = str(error) if isinstance(error, pickle.UnpicklingError) else "it is damaged"
        raise bad_file(path, f"a pickle of plain arrays ({why}): get the file anew") from None
    raise bad_file(path, f"a pickled dictionary; it holds a {type(content).__name__}")


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can name numpy's arrays and nothing else (docs.python.org, "Restricting Globals").

    What it gives for a name is a stand-in of ours: a pickle may set the state of numpy's own objects to anything.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The few names that a pickled array needs."""
        place = module.replace("numpy._core.", "numpy.core."), name
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): _no_call,
            ("numpy", "dtype"): _Number,
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy.core.numeric", "_frombuffer"): _from_buffer,
            ("_codecs", "encode"): _latin1,
        }
        if place not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return _Sealed(allowed[place])


class _Sealed:
    """A function that a pickle may call, but neither change nor take apart."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


class _Number:
    """Stands in for numpy's dtype: a type of numbers and its byte order."""

    __slots__ = ("_name", "_order")

    def __init__(self, name: Any, *_options: Any) -> None:
        self._name, self._order = _text(name), "="
        if self._name not in NUMBERS:
            raise pickle.UnpicklingError("only arrays of numbers are allowed in it")

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("a type of numbers without a byte order is in it")
        self._order = order

    def real(self) -> np.dtype[Any]:
        """The dtype that it stands for."""
        return np.dtype(self._order + self._name)


class _Array:
    """Stands in for numpy's ndarray, which would believe any shape."""

    __slots__ = ("_state",)

    def __init__(self, *state: Any) -> None:
        self._state = state

    def __setstate__(self, state: Any) -> None:
        _, shape, number, fortran, content = state
        self._state = (shape, number, "F" if fortran else "C", content)

    def real(self) -> NDArray[Any]:
        """The array that it stands for."""
        shape, number, order, content = self._state
        if not (isinstance(number, _Number) and isinstance(content, bytes | bytearray) and isinstance(shape, tuple)):
            raise pickle.UnpicklingError("only arrays of numbers are allowed in it")
        if not all(type(axis) is int and 0 <= axis <= len(content) for axis in shape):
            raise pickle.UnpicklingError("the shape of an array is not that of its content")
        return np.frombuffer(content, number.real()).reshape(shape, order=order).copy()


def _check_opcodes(content: bytes) -> None:
    tuples = 0
    for opcode, argument, _ in pickletools.genops(content):
        tuples += opcode.name.startswith(("TUPLE", "FROZENSET"))
        if tuples > MOST_TUPLES or ("PUT" in opcode.name and not 0 <= int(argument or 0) < MOST_MEMO):
            raise pickle.UnpicklingError("it is built as no array is")


def _no_call(*_arguments: Any) -> Any:
    raise pickle.UnpicklingError("an array that is not whole is in it")


def _reconstruct(_kind: Any, *_options: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, number: Any, shape: Any, order: Any) -> _Array:
    return _Array(shape, number, "F" if order == "F" else "C", content)


def _latin1(text: str, encoding: Any) -> bytes:
    if _text(encoding) != "latin1":
        raise pickle.UnpicklingError("an encoding other than latin1 is in it")
    return text.encode("latin1")


def _text(value: Any) -> str:
    """A string of Python 2 or 3."""
    found = value.decode("latin1") if isinstance(value, bytes) else value
    if not isinstance(found, str):
        raise pickle.UnpicklingError("a name that is no text is in it")
    return found


def _usual_name(name: str) -> str:
    """MedMNIST's "train_images" as "x_train"."""
    part, _, what = name.rpartition("_")
    letter = {"images": "x", "labels": "y"}.get(what)
    return f"{letter}_{part}" if letter and part else name


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} of {array.shape}"


def _column(y: NDArray[Any]) -> NDArray[Any]:
    """MedMNIST's labels [N, 1] as [N]."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
