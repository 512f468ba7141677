"""Training many small models: a process with one thread each, or one batched ensemble on a GPU.

On processors a model's weights depend on its task alone, not on the number of workers. On a GPU they differ from
these by rounding, and only there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import nn

from capcsim.learning.batched import train_batched
from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.factories import refusing
from capcsim.learning.models import Model, Network, fit_trees, is_network, is_trees
from capcsim.learning.parallel import Engine, run_all
from capcsim.learning.tasks import TrainingTask, batches, finished, one_thread, untrained
from capcsim.scenario import Models


def train_all(
    tasks: Sequence[TrainingTask],
    models: Models,
    *,
    workers: int,
    engine: Engine = "loky",
    checkpoints: Checkpoints | None = None,
    advance: Callable[[int], None] = lambda _: None,
    trained: Callable[[int], None] = lambda _: None,
) -> list[Model]:
    """Trained models in the order of the tasks; `advance` is called with 1 for each that is done.

    `trained` is told how many had to be. What `checkpoints` has is not trained again, and what is trained goes there
    at once: a killed run goes on where it was. Our networks are trained in one batch where there is a GPU.
    """
    how, on_gpu = way(), torch.cuda.is_available()
    done: dict[int, Model] = {}
    for index, task in enumerate(tasks):
        known = checkpoints.load(task, models, how) if checkpoints else None
        if known is not None:
            done[index] = known
            advance(1)
    left = [index for index in range(len(tasks)) if index not in done]
    trained(len(left))
    batched = [index for index in left if on_gpu and is_network(tasks[index].kind)]
    alone = [index for index in left if index not in set(batched)]
    for index, model in _each(tasks, batched, alone, models, workers, engine):
        done[index] = model
        if checkpoints:
            checkpoints.store(tasks[index], models, how, model)
        advance(1)
    return [done[index] for index in range(len(tasks))]


def way() -> str:
    """How networks are trained here: what their weights depend on besides the task, by rounding."""
    return "ensemble, cuda" if torch.cuda.is_available() else "processes"


def _each(
    tasks: Sequence[TrainingTask],
    batched: Sequence[int],
    alone: Sequence[int],
    models: Models,
    workers: int,
    engine: Engine,
) -> Iterator[tuple[int, Model]]:
    if batched:
        for place, model in train_batched([tasks[index] for index in batched], models, device="cuda"):
            yield batched[place], model
    # Processes, not threads: torch's optimiser spends its time in Python on models this small.
    jobs = ((tasks[index], models) for index in alone)
    yield from zip(alone, run_all(train, jobs, workers=workers, engine=engine), strict=True)


def train(task: TrainingTask, models: Models) -> Model:
    """Fit one model, a network by Adam on the cross-entropy; the same task gives the same weights in any process."""
    with one_thread():
        if is_trees(task.kind):
            return fit_trees(task.kind, task.x, task.y, task.classes, models, task.seed)
        if task.own and not task.is_network:
            return task.own.fitted(task.x, task.y, task.classes, task.seed)
        model = untrained(task, models)
        # A forward method of the user's own may take what lies in memory as usual for granted.
        laid_out = layout() if task.x.ndim == 4 and not task.own else torch.contiguous_format
        model.to(memory_format=laid_out)  # type: ignore[call-overload]
        with refusing(task.kind, "it cannot be trained") if task.own else nullcontext():
            fit(model, task, models)
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return finished(model, task)


def layout() -> torch.memory_format:
    """Channels last where it is safe: convolutions of so few channels are a third faster that way.

    Without AVX-512, torch 2.13's gradient of a strided 1 x 1 convolution with channels last writes beyond its memory
    (batch 16, 6 to 13 channels, 32 x 32).
    """
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.channels_last if wide else torch.contiguous_format


def fit(model: Network, task: TrainingTask, models: Models) -> None:
    """Go on training a network on a task's samples, by Adam from its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)  # for what a network draws while it is trained, as dropout does
        _fit(model, task, models)


def _fit(model: Network, task: TrainingTask, models: Models) -> None:
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
