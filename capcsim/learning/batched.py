"""One batched ensemble: many networks of one form trained in the same steps, through torch.func.

Each network sees the same batches as it would alone, so that the result differs by rounding only.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from capcsim.learning.models import Network
from capcsim.learning.tasks import TrainingTask, batches, finished, untrained
from capcsim.scenario import Models

MOST_BYTES = 4 << 30
"""For the weights, gradients and moments of the networks that are trained together."""


def train_batched(tasks: Sequence[TrainingTask], models: Models, *, device: str) -> Iterator[tuple[int, Network]]:
    """Each task's place and its trained network; tasks of one kind and one number of samples go together."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, task in enumerate(tasks):
        groups.setdefault((task.kind, task.x.shape, task.classes), []).append(place)
    for places in groups.values():
        parameters = sum(each.numel() for each in untrained(tasks[places[0]], models).parameters())
        together = max(1, MOST_BYTES // (16 * parameters))
        for start in range(0, len(places), together):
            some = places[start : start + together]
            yield from zip(some, _train([tasks[place] for place in some], models, device), strict=True)


def _train(tasks: Sequence[TrainingTask], models: Models, device: str) -> list[Network]:
    """Adam on the sum of the networks' losses: each weight's gradient is that of its own network's loss."""
    networks = [untrained(task, models) for task in tasks]
    state, buffers = _stacked(networks, device)
    frame = networks[0]
    x, y = (torch.stack([torch.tensor(getattr(task, name)) for task in tasks]).to(device) for name in ("x", "y"))
    optimiser = torch.optim.Adam(state.values(), lr=models.learning_rate, weight_decay=models.weight_decay)
    own = torch.arange(len(tasks), device=device)[:, None]

    def loss(
        weights: dict[str, torch.Tensor], running: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(frame, (weights, running), (x,)), y)

    step = vmap(grad_and_value(loss))
    for rows in zip(*(batches(task, models) for task in tasks), strict=True):
        batch = torch.stack(rows).to(device)
        # One sample has no variance, which a batch norm in training mode refuses.
        frame.train(batch.shape[1] > 1)
        gradients, _ = step(state, buffers, x[own, batch], y[own, batch])
        for name, weight in state.items():
            weight.grad = gradients[name]
        optimiser.step()
    for index, network in enumerate(networks):
        found = {name: value[index].detach().cpu() for name, value in (state | buffers).items()}
        network.load_state_dict(found)
    return [finished(network, task) for network, task in zip(networks, tasks, strict=True)]


def _stacked(networks: Sequence[Network], device: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights and running statistics, with the networks along axis 0, on the device."""
    state, buffers = stack_module_state(list(networks))
    return (
        {name: value.detach().to(device).clone() for name, value in state.items()},
        {name: value.detach().to(device).clone() for name, value in buffers.items()},
    )
