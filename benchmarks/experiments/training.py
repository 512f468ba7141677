"""How fast many small models train: ours against a plain loop in the same run, and again from what was kept.

Run: python benchmarks/experiments/training.py [--models 250] [--plain 20] [--quick] [--json]
The plain loop is what one would write first: one model after the other, torch's own threads, Adam as it comes. It
takes turns with ours, a tenth of the models at a time, so that both see the same machine.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import SETTINGS, command, positive, say

from capcsim.costs.cache import host, versions
from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.datasets import load_dataset
from capcsim.learning.models import build_model
from capcsim.learning.tasks import TrainingTask
from capcsim.learning.training import train_all
from capcsim.scenario import ImageData, Models

TURNS = 10


def plain(task: TrainingTask, models: Models) -> None:
    """A training loop without a thought of speed."""
    model = build_model("lenet", task.x.shape[1:], task.classes, models.hidden, task.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=models.learning_rate, weight_decay=models.weight_decay)
    samples = torch.utils.data.TensorDataset(torch.from_numpy(task.x), torch.from_numpy(task.y))
    for _ in range(models.epochs):
        for x, y in torch.utils.data.DataLoader(samples, models.batch_size, shuffle=True):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()


def measure(tasks: list[TrainingTask], models: Models, plain_models: int, workers: int) -> dict[str, float]:
    """Seconds per model, each the median over the turns; and of a second run from checkpoints, in all."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoints(Path(folder))
        train_all(tasks[:workers], models, workers=workers)  # starts the processes
        plain(tasks[0], models)
        turns = [tasks[turn::TURNS] for turn in range(TURNS)]
        for number, turn in enumerate(turns):
            say(f"turn {number + 1} of {TURNS}")
            started_s = time.perf_counter()
            train_all(turn, models, workers=workers, checkpoints=kept)
            ours.append((time.perf_counter() - started_s) / len(turn))
            some = turn[: max(1, plain_models // TURNS)]
            started_s = time.perf_counter()
            for task in some:
                plain(task, models)
            theirs.append((time.perf_counter() - started_s) / len(some))
        started_s = time.perf_counter()
        train_all(tasks, models, workers=workers, checkpoints=Checkpoints(Path(folder)))
        again_s = time.perf_counter() - started_s
    return {"ours_s": median(ours), "plain_s": median(theirs), "second_run_s": again_s}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--models", type=positive, default=250)
    options.add_argument("--plain", type=positive, default=20, help="models of the plain loop")
    options.add_argument("--data")
    options.add_argument("--workers", type=positive, default=2)
    options.add_argument("--quick", action="store_true", help="20 models")
    options.add_argument("--json", action="store_true")
    arguments = options.parse_args()
    setting, count = SETTINGS["mnist"], 20 if arguments.quick else arguments.models
    data = ImageData(source="mnist", folder=arguments.data, train_per_party=240, pool_per_querier=1, evaluation=1)
    dataset = load_dataset(data)
    rows = np.random.default_rng(0).permutation(60_000)[: count * 240].reshape(count, 240)
    tasks = [TrainingTask("lenet", dataset.x[own], dataset.y[own], 10, seed) for seed, own in enumerate(rows)]
    models = Models(
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        weight_decay=1e-4,
    )
    found = measure(tasks, models, arguments.plain, arguments.workers)
    found |= {"models": count, "ratio": found["plain_s"] / found["ours_s"], "workers": arguments.workers}
    if arguments.json:
        print(json.dumps({**found, "host": host(), "versions": versions()}, indent=2))
        return
    print(f"{count} LeNets, 240 images each, {setting.epochs} epochs, {arguments.workers} processes, s per model:")
    print(f"ours {found['ours_s']:.3f}, plain loop {found['plain_s']:.3f}: {found['ratio']:.2f} times as fast")
    print(f"a second run of all, from what was kept: {found['second_run_s']:.2f} s in all")


if __name__ == "__main__":
    command(main)
