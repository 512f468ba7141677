"""What a user would compare with: pooling all data in the open, and federated averaging."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TypeAlias

import numpy as np
import torch

from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.ensemble import Ensemble
from capcsim.learning.metrics import Quality
from capcsim.learning.models import Model, Network
from capcsim.learning.parallel import Engine, run_all
from capcsim.learning.tasks import TrainingTask, finished, one_thread, untrained
from capcsim.learning.training import fit, train_all
from capcsim.paths import source_digest
from capcsim.scenario import Models
from capcsim.seeds import Seeds

SAMPLES_SEEN = 500_000
"""Pooled data are many: so many samples are enough, though never fewer than one epoch."""
CLIENT_SHARE, FEWEST_CLIENTS, LOCAL_EPOCHS = 0.1, 10, 5
"""Federated averaging: a tenth of the clients a round, five epochs each (McMahan et al. 2017)."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """How good another way's models are for each querying party, and what was sent for them, where that is known.

    `note` says what it is, or, without qualities, why it cannot be had.
    """

    qualities: tuple[Quality, ...]
    sent_bytes: int | None
    note: str


RunAll: TypeAlias = Callable[[list[tuple[Network, TrainingTask, Models]]], Iterator[dict[str, torch.Tensor]]]


def baseline_steps(models: Models) -> int:
    """How many steps `compare` has: rounds of averaging, and the pooling."""
    return ("pooling" in models.baselines) + models.fedavg_rounds * ("fedavg" in models.baselines)


def compare(
    ensemble: Ensemble,
    models: Models,
    seeds: Seeds,
    advance: Callable[[int], None] = lambda _: None,
    *,
    workers: int = 1,
    engine: Engine = "loky",
) -> dict[str, Baseline]:
    """The baselines that a scenario asks for, on the parties' own data; `advance` counts `baseline_steps`."""
    tasks = [ensemble.task(party) for party in range(ensemble.owners[-1] + 1)]
    found = {}
    if "pooling" in models.baselines:
        found["pooling"] = _pooling(ensemble, tasks, models)
        advance(1)
    if "fedavg" in models.baselines:
        run = partial(run_all, _trained_here, workers=workers, engine=engine)
        found["fedavg"] = _fedavg(ensemble, tasks, models, seeds, advance, run)
    return found


def _pooling(ensemble: Ensemble, tasks: Sequence[TrainingTask], models: Models) -> Baseline:
    pooled = [pooled_task(tasks, tasks[querier]) for querier in ensemble.queriers]
    trained: dict[str, Model] = {}
    settings = pooled_models(models, len(pooled[0].y))
    for task in pooled:
        if task.kind not in trained:
            (trained[task.kind],) = train_all([task], settings, workers=1, checkpoints=Checkpoints())
    qualities = tuple(ensemble.judge(q, trained[tasks[q].kind]) for q in ensemble.queriers)
    return Baseline(qualities, None, "all parties' data in one place, without any protection")


def _fedavg(
    ensemble: Ensemble,
    tasks: Sequence[TrainingTask],
    models: Models,
    seeds: Seeds,
    advance: Callable[[int], None],
    run: RunAll,
) -> Baseline:
    if len(set(models.kinds)) > 1 or not tasks[0].is_network:
        advance(models.fedavg_rounds)
        return Baseline(
            (), None, "not possible: it averages weights, so that all parties need one kind of network (not trees)"
        )
    kept, everything = Checkpoints(), pooled_task(tasks, tasks[0])
    how = _averaged_how(tasks, models, seeds)
    common = kept.load(everything, models, how)
    if common is None:
        common = federated_averaging(tasks, models, seeds, advance, run)
        kept.store(everything, models, how, common)
    else:
        advance(models.fedavg_rounds)
    qualities = tuple(ensemble.judge(querier, common) for querier in ensemble.queriers)
    note = f"{models.fedavg_rounds} rounds without differential privacy; every party ends with the same network"
    size = sum(value.numel() * 4 for value in common.state_dict().values())
    return Baseline(qualities, 2 * _clients(tasks) * models.fedavg_rounds * size, note)


def _averaged_how(tasks: Sequence[TrainingTask], models: Models, seeds: Seeds) -> str:
    """What the common network depends on, besides the pooled samples and what every network does."""
    source = source_digest(("capcsim.learning.baselines",))
    sizes = sha256(repr([len(task.y) for task in tasks]).encode()).hexdigest()
    return f"fedavg {source} {models.fedavg_rounds} {seeds.integer('fedavg')} {sizes}"


def pooled_task(tasks: Sequence[TrainingTask], like: TrainingTask) -> TrainingTask:
    """Train one model of the kind of `like` on all parties' samples: what no party's privacy survives."""
    x, y = np.concatenate([task.x for task in tasks]), np.concatenate([task.y for task in tasks])
    return replace(like, x=x, y=y)


def pooled_models(models: Models, samples: int) -> Models:
    """The hyperparameters for so many pooled samples: fewer epochs."""
    epochs = min(models.epochs, max(1, round(SAMPLES_SEEN / samples)))
    return models.model_copy(update={"epochs": epochs})


def federated_averaging(
    tasks: Sequence[TrainingTask],
    models: Models,
    seeds: Seeds,
    advance: Callable[[int], None] = lambda _: None,
    run: RunAll | None = None,
) -> Network:
    """One network for all parties, averaged over some clients' copies after each round of local epochs.

    It needs one kind of network for everybody. Every client of a round receives and sends all weights as float32.
    """
    run = run or partial(run_all, _trained_here, workers=1)
    common = untrained(tasks[0], models)
    local = models.model_copy(update={"epochs": LOCAL_EPOCHS})
    for round_ in range(models.fedavg_rounds):
        chosen = seeds.generator("fedavg", round_).choice(len(tasks), _clients(tasks), replace=False)
        clients = [replace(tasks[index], seed=seeds.integer("fedavg", round_, int(index))) for index in chosen]
        copies = list(run([(common, client, local) for client in clients]))
        common.load_state_dict(_mean(copies, [len(client.y) for client in clients]))
        advance(1)
    everybody = replace(tasks[0], y=np.unique(np.concatenate([task.y for task in tasks])))
    return finished(common, everybody)


def _clients(tasks: Sequence[TrainingTask]) -> int:
    """How many clients train in a round."""
    return min(len(tasks), max(FEWEST_CLIENTS, round(CLIENT_SHARE * len(tasks))))


def _trained_here(common: Network, task: TrainingTask, local: Models) -> dict[str, torch.Tensor]:
    """A client's copy of the common network after its local epochs."""
    with one_thread():
        model = untrained(task, local)
        model.load_state_dict(common.state_dict())
        fit(model, task, local)
        return model.state_dict()


def _mean(copies: Sequence[dict[str, torch.Tensor]], sizes: Sequence[int]) -> dict[str, torch.Tensor]:
    """The mean of the clients' weights, each weighted with its number of samples."""
    shares = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    return {
        name: sum(share * each[name].double() for share, each in zip(shares, copies, strict=True)).to(value.dtype)
        for name, value in copies[0].items()
    }
