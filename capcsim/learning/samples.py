"""Samples with their labels, checked: what every source of data becomes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError

FEATURE_LIMIT = 16.0
"""Features must lie in [-16, 16], the public range of the fixed-point inputs."""
LONGEST = 600
"""Characters of an error that may quote a file."""
NAMED = 58
"""Characters of a path in an error, whose end says more than its beginning."""
LISTED = 6
"""Names that an error or a note lists; of more it tells the number."""
FEW_LEVELS = 64
"""Images of bytes reach higher than this; bytes that do not may be numbers that nobody wants divided by 255."""
Missing = Literal["error", "median"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples `x` float32[N, *shape] within [-16, 16], and labels `y` int64[N] from 0 to classes - 1.

    The first `training` samples are the set's own training part, the others its test part; None where the set has
    no such parts. `site` int64[N] numbers the sites that samples come from, `protected` int64[N] is a binary
    attribute such as sex. NaN in `x` is a missing feature. `notes` are sentences that must be said wherever results
    appear, `names` the values behind the numbers of `classes`, `sites` and `protected`.
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: int
    training: int | None = None
    site: NDArray[np.int64] | None = None
    protected: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of all that is computed with; its notes and names are told only."""
        digest = sha256(f"{self.x.shape} {self.classes} {self.training}".encode())
        for array in (self.x, self.y, self.site, self.protected):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape: (features,) or (channels, height, width)."""
        return self.x.shape[1:]

    @property
    def note(self) -> str:
        """All notes in a line."""
        return " ".join(self.notes)


def impute(x: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Samples with each missing feature set to its median over `own`, a party's own training samples.

    A feature that the party never measured becomes 0. Both are float32[n, *shape].
    """
    if not np.isnan(x).any():
        return x
    measured = ~np.isnan(own).all(axis=0)
    medians = np.zeros(own.shape[1:], np.float32)
    medians[measured] = np.nanmedian(own[:, measured], axis=0)
    return np.where(np.isnan(x), medians, x)


def check_features(
    path: Path, x: NDArray[np.generic], missing: Missing, rows: str = "samples", columns: Sequence[str] = ()
) -> NDArray[np.float32]:
    """Features as float32 of the same shape, uint8 scaled to [0, 1]; raises ScenarioError.

    `columns` are the names of a table's columns, one for each feature.
    """
    if x.size == 0:
        raise bad_file(path, f"at least one sample with a feature; there is no sample in an x of shape {x.shape}")
    if x.dtype.kind not in "fiub" or x.ndim < 2:
        raise bad_file(path, f"x numeric with at least two axes; it is {x.dtype} of shape {x.shape}")
    with np.errstate(over="ignore"):
        scaled = x.astype(np.float32)
    if x.dtype == np.uint8:
        scaled /= 255
    _check_finite(path, x, missing, rows, columns)
    _check_range(path, x, scaled, columns)
    return scaled


def channels_first(path: Path, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Images as float32[N, channels, height, width], from any usual layout, and what must be said of that.

    Channels are the axis of at most four; else height and width are the two axes that are equal. Raises ScenarioError
    where that tells nothing.
    """
    if x.ndim == 2:
        return x, ""
    if x.ndim == 3:
        return x[:, None], ""
    if x.ndim > 4:
        raise bad_file(path, f"x of two axes (features), three or four (images); its shape is {x.shape}")
    first, middle, last = x.shape[1:]
    few_first, few_last = first <= 4, last <= 4
    if few_first == few_last:
        few_first, few_last = middle == last != first, first == middle != last
    if few_first == few_last and min(first, last) <= 4:
        allowed = "x of shape (samples, channels, height, width)"
        remedy = "save grey images as (samples, height, width), pad others to squares"
        raise bad_file(path, f"{allowed}; in {x.shape} channels may be first or last: {remedy}")
    if few_last:
        size = f"{last} channels of {first} x {middle}"
        turned = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        return turned, f"Images of shape {x.shape[1:]} are read as {size}, channels last."
    size = f"{first} channels of {middle} x {last}"
    plain = first <= 4 and not first == middle != last
    return x, "" if plain else f"Images of shape {x.shape[1:]} are read as {size}, channels first."


def levels_note(x: NDArray[np.generic]) -> str:
    """What must be said of bytes that do not look like an image's."""
    if x.dtype != np.uint8 or x.max(initial=0) >= FEW_LEVELS:
        return ""
    return f"x holds bytes, which are divided by 255; its largest is {x.max()}: store other numbers as float32."


def check_labels(path: Path, y: NDArray[np.generic], samples: int) -> tuple[NDArray[np.int64], int]:
    """Labels int64[N] and the number of classes; raises ScenarioError."""
    if y.shape != (samples,):
        raise bad_file(path, f"y of shape ({samples},), one label a sample; it is {y.shape}")
    if y.dtype.kind not in "iub":
        raise bad_file(path, f"y whole numbers from 0; it is {y.dtype}")
    if int(y.min()) < 0 or int(y.max()) >= samples:
        raise bad_file(path, f"y numbered from 0 to classes - 1; it runs from {y.min()} to {y.max()}")
    labels = y.astype(np.int64)
    classes = int(labels.max()) + 1
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(empty) or classes < 2:
        found = f"class {empty[0]} has none" if len(empty) else "there is only class 0"
        raise bad_file(path, f"at least two classes, numbered from 0, each with samples; {found}")
    return labels, classes


def bad_file(path: Path, allowed: str) -> ScenarioError:
    """The error for a file of samples that cannot be used: one line, whatever of the file stands in it."""
    place = str(path)
    return bad_key("data.path", place if len(place) <= NAMED else f"...{place[3 - NAMED :]}", allowed)


def bad_key(key: str, value: object, allowed: str) -> ScenarioError:
    """The error for a key that does not go with a file: one line, whatever of the file stands in it."""
    shown = "".join(sign if sign.isprintable() else " " for sign in allowed)
    return ScenarioError(key, value, (shown if len(shown) <= LONGEST else shown[: LONGEST - 3] + "...").strip())


def quoted(name: str) -> str:
    """A name from a file in quotes, so that its blanks are seen."""
    return repr(name if len(name) <= NAMED else f"{name[: NAMED - 3]}...")


def listed(names: Iterable[str]) -> str:
    """Names from a file in quotes, with commas between."""
    every = list(names)
    if not every:
        return "none"
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(map(quoted, every[:LISTED])) + more


def columns_called(names: Sequence[str]) -> str:
    """Columns of a file in a sentence."""
    return f"column{'s' * (len(names) > 1)} {listed(names)}"


def leave_out(names: Iterable[str]) -> str:
    """How columns are left out."""
    every = list(names)
    shown = ", ".join(map(quoted, every[:LISTED])) + (", ..." if len(every) > LISTED else "")
    return f"data.drop = [{shown}] leaves {'it' if len(every) == 1 else 'them'} out"


def _check_finite(path: Path, x: NDArray[Any], missing: Missing, rows: str, columns: Sequence[str]) -> None:
    """No infinity, and no NaN but where it may be missing; raises ScenarioError."""
    if x.dtype.kind != "f":
        return
    endless = np.isinf(x)
    infinite = bool(endless.any())
    bad = endless if infinite or missing == "median" else np.isnan(x)
    where = np.flatnonzero(bad.reshape(len(x), -1).any(axis=1))
    if not len(where):
        return
    remedy = "" if infinite else "data.missing = 'median' fills NaN in"
    if not columns:
        found = f"{'infinity' if infinite else 'NaN'} in {len(where)} of {len(x)} {rows}, the first is {where[0]}"
        raise bad_file(path, "; ".join(filter(None, ("no NaN or infinity in x", found, remedy))))
    names = [columns[i] for i in np.flatnonzero(bad.any(axis=0)).tolist()]
    found = f"{'infinity' if infinite else 'no value'} in {len(where)} of {len(x)} rows, the first is row {where[0]}"
    remedies = "; ".join(filter(None, (remedy, leave_out(names))))
    raise bad_file(path, f"numbers in {columns_called(names)}; {found}, counted from 0: {remedies}")


def _check_range(path: Path, x: NDArray[np.generic], scaled: NDArray[np.float32], columns: Sequence[str]) -> None:
    """All within the public range; raises ScenarioError, which tells the worst."""
    high, low = np.fmax.reduce(scaled, axis=None, initial=0), np.fmin.reduce(scaled, axis=None, initial=0)
    if max(high, -low) <= FEATURE_LIMIT:
        return
    worst = np.unravel_index(np.nanargmax(np.abs(scaled)), scaled.shape)
    reached = f"{float(x[worst]):g}"
    if not columns:
        feature = f" (feature {worst[1]})" if x.ndim == 2 else ""
        raise bad_file(path, f"x within [-16, 16]; it reaches {reached}, so scale it first; sample {worst[0]}{feature}")
    wide = np.fmax.reduce(np.abs(scaled), axis=0) > FEATURE_LIMIT
    names = [columns[int(worst[1])], *(columns[i] for i in np.flatnonzero(wide).tolist() if i != worst[1])]
    others = f", and {listed(names[1:])} reach{'es' * (len(names) == 2)} too far" if len(names) > 1 else ""
    found = f"column {quoted(names[0])} reaches {reached} (row {worst[0]}, counted from 0){others}"
    them = "it" if len(names) == 1 else "them"
    raise bad_file(path, f"features within [-16, 16]; {found}: scale {them} first, or {leave_out(names)}")
