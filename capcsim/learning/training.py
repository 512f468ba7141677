"""Training many small models: a process with one thread each, or one batched ensemble on a GPU.

On processors a model's weights depend on its task alone, not on the number of workers. On a GPU they differ from
these by rounding, and only there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from capcsim.errors import CapcsimError
from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.models import Classifier, Model, build_model, fit_trees, is_network
from capcsim.learning.parallel import Engine, run_all
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
    engine: Engine = "loky",
    checkpoints: Checkpoints | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Model]:
    """Trained models in the order of the tasks; `advance` is called with 1 for each that is done.

    What `checkpoints` has is not trained again, and what is trained goes there at once: a killed run goes on where it
    was. Networks are trained in one batch where there is a GPU.
    """
    on_gpu = torch.cuda.is_available()
    how = "ensemble, cuda" if on_gpu else "processes"
    trained: dict[int, Model] = {}
    for index, task in enumerate(tasks):
        known = checkpoints.load(task, models, how) if checkpoints else None
        if known is not None:
            trained[index] = known
            advance(1)
    left = [index for index in range(len(tasks)) if index not in trained]
    batched = [index for index in left if on_gpu and is_network(tasks[index].kind)]
    alone = [index for index in left if index not in set(batched)]
    for index, model in _each(tasks, batched, alone, models, workers, engine):
        trained[index] = model
        if checkpoints:
            checkpoints.store(tasks[index], models, how, model)
        advance(1)
    return [trained[index] for index in range(len(tasks))]


def _each(
    tasks: Sequence[TrainingTask],
    batched: Sequence[int],
    alone: Sequence[int],
    models: Models,
    workers: int,
    engine: Engine,
) -> Iterator[tuple[int, Model]]:
    if batched:
        from capcsim.learning.batched import train_batched

        for place, model in train_batched([tasks[index] for index in batched], models, device="cuda"):
            yield batched[place], model
    # Processes, not threads: torch's optimiser spends its time in Python on models this small.
    jobs = ((tasks[index], models) for index in alone)
    yield from zip(alone, run_all(train, jobs, workers=workers, engine=engine), strict=True)


def train(task: TrainingTask, models: Models) -> Model:
    """Fit one model, a network by Adam on the cross-entropy; the same task gives the same weights in any process."""
    with one_thread():
        if task.kind == "adaboost" or task.kind == "random-forest":
            return fit_trees(task.kind, task.x, task.y, task.classes, models, task.seed)
        model = untrained(task, models)
        laid_out = layout() if task.x.ndim == 4 else torch.contiguous_format
        model.to(memory_format=laid_out)  # type: ignore[call-overload]
        fit(model, task, models)
        return finished(model.to(memory_format=torch.contiguous_format), task)  # type: ignore[call-overload]


def layout() -> torch.memory_format:
    """Channels last where it is safe: convolutions of so few channels are a third faster that way.

    Without AVX-512, torch 2.13's gradient of a strided 1 x 1 convolution with channels last writes beyond its memory
    (batch 16, 6 to 13 channels, 32 x 32).
    """
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.channels_last if wide else torch.contiguous_format


def fit(model: Classifier, task: TrainingTask, models: Models) -> None:
    """Go on training a network on a task's samples, by Adam from its start."""
    # Copies: what comes from another process may be read-only, which torch does not take.
    x, y = torch.tensor(task.x), torch.tensor(task.y)
    optimiser = torch.optim.Adam(
        model.parameters(), lr=models.learning_rate, weight_decay=models.weight_decay, fused=True
    )
    for batch in batches(task, models):
        # One sample has no variance, which a batch norm in training mode refuses.
        model.train(len(batch) > 1)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


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
