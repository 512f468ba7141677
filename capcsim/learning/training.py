"""Training many small models: one thread each, so that results do not depend on the number of workers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

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


def train_all(
    tasks: Sequence[TrainingTask],
    models: Models,
    *,
    workers: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Classifier]:
    """Trained models in the order of the tasks; `advance` is called with 1 for each that is done."""
    # Processes, not threads: torch's optimiser spends its time in Python on models this small.
    run = Parallel(n_jobs=workers, return_as="generator")
    trained = []
    for model in run(delayed(train)(task, models) for task in tasks):
        trained.append(model)
        advance(1)
    return trained


def train(task: TrainingTask, models: Models) -> Classifier:
    """Fit one model by Adam on the cross-entropy; the same task gives the same weights in any process."""
    model = build_model(task.kind, task.x.shape[1:], task.classes, models.hidden, task.seed)
    with _one_thread():
        generator = torch.Generator().manual_seed(task.seed)
        x, y = torch.from_numpy(task.x), torch.from_numpy(task.y)
        optimiser = torch.optim.Adam(model.parameters(), lr=models.learning_rate, weight_decay=models.weight_decay)
        for _ in range(models.epochs):
            for batch in torch.split(torch.randperm(len(y), generator=generator), models.batch_size):
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    return model.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
