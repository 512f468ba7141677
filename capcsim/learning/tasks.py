"""One model to train, as a value, and what every way of training shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from capcsim.errors import CapcsimError
from capcsim.learning.models import Classifier, build_model
from capcsim.scenario import ModelKind, Models


@dataclass(frozen=True)
class TrainingTask:
    """One model to train: its kind, its samples x float32[n, *shape] and y int64[n], and its own seed."""

    kind: ModelKind
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: int
    seed: int


def batches(task: TrainingTask, models: Models) -> Iterator[torch.Tensor]:
    """The rows of every step, epoch after epoch: int64[at most batch_size], in an order of the task's own seed."""
    generator = torch.Generator().manual_seed(task.seed)
    for _ in range(models.epochs):
        yield from torch.split(torch.randperm(len(task.y), generator=generator), models.batch_size)


def untrained(task: TrainingTask, models: Models) -> Classifier:
    """The network with which a task begins; raises ScenarioError when its kind cannot take the data."""
    if task.kind == "adaboost" or task.kind == "random-forest":
        raise CapcsimError(f"{task.kind} is no network")
    return build_model(task.kind, task.x.shape[1:], task.classes, models.hidden, task.seed, models.width)


def finished(model: Classifier, task: TrainingTask) -> Classifier:
    """A trained network in eval mode, with the classes that its owner has no sample of ranked last."""
    model.rank_last(np.setdiff1d(np.arange(task.classes), task.y))
    return model.eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, and then as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
