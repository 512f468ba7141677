"""What the stages work with and no result depends on: processes, words to whoever waits, values made before."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from pydantic import BaseModel

from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.models import Model
from capcsim.learning.parallel import Engine
from capcsim.learning.tasks import TrainingTask
from capcsim.learning.training import train_all
from capcsim.scenario import Models

Stage: TypeAlias = Literal["trained", "asked", "priced", "simulated", "judged"]
STAGES: tuple[Stage, ...] = ("trained", "asked", "priced", "simulated", "judged")
T = TypeVar("T")


class Progress(Protocol):
    """How a study tells what it is doing."""

    def stage(self, title: str, total: int) -> Callable[[int], None]:
        """Begin a stage of `total` steps; call the answer with the number of steps that are done."""

    def note(self, text: str) -> None:
        """Say something besides the stages."""


class Silent:
    """Progress for those who do not watch."""

    def stage(self, title: str, total: int) -> Callable[[int], None]:  # noqa: ARG002
        """Do nothing."""
        return lambda _: None

    def note(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Named:
    """Progress with a name before each stage."""

    name: str
    progress: Progress

    def stage(self, title: str, total: int) -> Callable[[int], None]:
        """As of the whole."""
        return self.progress.stage(f"{self.name}: {title}", total)

    def note(self, text: str) -> None:
        """As of the whole."""
        self.progress.note(f"{self.name}: {text}")


class Memory:
    """Values of stages by the content that they were made from, in this process; it counts those made anew."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], Any] = {}
        self.made: Counter[str] = Counter()

    def value(self, stage: str, key: str, make: Callable[[], tuple[T, bool]]) -> T:
        """The value of a stage; `make` says besides whether anything of it had to be made, or all was on disk."""
        if (stage, key) not in self._values:
            self._values[stage, key], anew = make()
            self.made[stage] += anew
        value: T = self._values[stage, key]
        return value

    def known(self, stage: str, key: str) -> bool:
        """Whether a value was made before."""
        return (stage, key) in self._values

    def stages(self) -> dict[str, int]:
        """How many values of each stage were made anew."""
        return {stage: self.made[stage] for stage in STAGES}


@dataclass(frozen=True)
class Means:
    """Joblib's `engine` with so many `workers` trains; with `measure` no transcript of an earlier run is used."""

    progress: Progress = field(default_factory=Silent)
    workers: int = 1
    engine: Engine = "loky"
    measure: bool = False
    memory: Memory = field(default_factory=Memory)

    def named(self, name: str) -> "Means":
        """The same, for a part of a study that has a name."""
        return replace(self, progress=Named(name, self.progress))

    def trainer(self, models: Models) -> "Trainer":
        """Trains what is not on disk."""
        return Trainer(self, models)


class Trainer:
    """Models for tasks; `trained` counts those that were not on disk."""

    def __init__(self, means: Means, models: Models) -> None:
        self._means, self._models = means, models
        self.trained = 0

    def __call__(self, tasks: Sequence[TrainingTask], title: str) -> list[Model]:
        """In the order of the tasks."""
        return train_all(
            tasks,
            self._models,
            workers=self._means.workers,
            engine=self._means.engine,
            checkpoints=Checkpoints(),
            advance=self._means.progress.stage(title, len(tasks)),
            trained=self._count,
        )

    def _count(self, number: int) -> None:
        self.trained += number


def content_key(*parts: Any) -> str:
    """A digest of what goes into a value: arrays and bytes by content, sections by their keys, all else by its repr."""
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()[:32]


def _feed(digest: Any, part: Any) -> None:
    match part:
        case np.ndarray():
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        case bytes():
            digest.update(part)
        case BaseModel():
            digest.update(part.model_dump_json().encode())
        case list() | tuple():
            digest.update(f"{len(part)}(".encode())
            for each in part:
                _feed(digest, each)
        case _:
            digest.update(repr(part).encode())
    digest.update(b";")
