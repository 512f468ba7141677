"""What the stages work with and no result depends on: processes, words to whoever waits, values made before."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args

import numpy as np
from pydantic import BaseModel

from capcsim.errors import InputError
from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.models import Model
from capcsim.learning.parallel import Engine
from capcsim.learning.tasks import TrainingTask
from capcsim.learning.training import train_all
from capcsim.scenario import Models
from capcsim.study.stages import Memory

MOST_WORKERS = 4096


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


@dataclass(frozen=True)
class Means:
    """Joblib's `engine` with so many `workers` trains; with `measure` no transcript of an earlier run is used."""

    progress: Progress = field(default_factory=Silent)
    workers: int = 1
    engine: Engine = "loky"
    measure: bool = False
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        """Raise InputError for a number of processes, or an engine, that there is not."""
        if not isinstance(self.workers, int) or not 1 <= self.workers <= MOST_WORKERS:
            raise InputError(f"workers = {self.workers!r}: a whole number from 1 to {MOST_WORKERS}")
        if self.engine not in get_args(Engine):
            raise InputError(f"engine = {self.engine!r}: choose one of {', '.join(get_args(Engine))}")

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
