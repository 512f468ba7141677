"""One model to train, as a value, and what every way of training shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from capcsim.errors import CapcsimError
from capcsim.learning.models import Network, build_model, is_network
from capcsim.learning.own import Own
from capcsim.scenario import Kind, Models

NetworkT = TypeVar("NetworkT", bound=Network)


@dataclass(frozen=True)
class TrainingTask:
    """One model to train: its kind, its samples x float32[n, *shape] and y int64[n], and its own seed.

    `own` makes a model of the user's own kind.
    """

    kind: Kind
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: int
    seed: int
    own: Own | None = None

    @property
    def is_network(self) -> bool:
        """Whether it gives a torch module."""
        return self.own.is_network if self.own else is_network(self.kind)

    @property
    def absent(self) -> NDArray[np.int64]:
        """The classes that it has no sample of."""
        return np.setdiff1d(np.arange(self.classes), self.y)


def batches(task: TrainingTask, models: Models) -> Iterator[torch.Tensor]:
    """The rows of every step, epoch after epoch: int64[at most batch_size], in an order of the task's own seed."""
    generator = torch.Generator().manual_seed(task.seed)
    for _ in range(models.epochs):
        yield from torch.split(torch.randperm(len(task.y), generator=generator), models.batch_size)


def untrained(task: TrainingTask, models: Models) -> Network:
    """The network with which a task begins; raises ScenarioError when its kind cannot take the data."""
    if task.own:
        return task.own.network(task.x.shape[1:], task.classes, task.seed, task.absent)
    if not is_network(task.kind):
        raise CapcsimError(f"{task.kind} is no network")
    return build_model(task.kind, task.x.shape[1:], task.classes, models.hidden, task.seed, models.width)


def finished(model: NetworkT, task: TrainingTask) -> NetworkT:
    """A trained network in eval mode, with the classes that its owner has no sample of ranked last."""
    model.rank_last(task.absent)
    model.eval()
    if task.own:
        task.own.check_ranks(model, task.x, task.absent)
    return model


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, and then as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
