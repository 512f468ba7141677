"""Many models at once: batches through torch.func, checkpoints, engines, batches of one."""

import importlib.util
import io
import itertools
import os
import signal
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capcsim.errors import CapcsimWarning, InputError, WorkerFailed
from capcsim.learning import checkpoints as checkpoints_module
from capcsim.learning import training
from capcsim.learning.batched import train_batched
from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.datasets import load_dataset
from capcsim.learning.parallel import run_all
from capcsim.learning.tasks import TrainingTask
from capcsim.learning.training import train, train_all
from capcsim.scenario import Models, load_scenario

DIGITS = load_dataset(load_scenario("digits").data)
LARGE = np.repeat(np.repeat(DIGITS.x[:400], 4, axis=2), 4, axis=3)
FEW = Models(epochs=3, batch_size=16, learning_rate=0.002, width=0.1)


def tasks(kind: Any, sizes: list[int]) -> list[TrainingTask]:
    x = DIGITS.x if kind in ("logistic", "mlp", "adaboost", "random-forest") else LARGE
    ends = np.cumsum([0, *sizes])
    spans = itertools.pairwise(ends)
    return [TrainingTask(kind, x[a:b].copy(), DIGITS.y[a:b], 10, seed) for seed, (a, b) in enumerate(spans)]


@pytest.mark.parametrize("kind", ["mlp", "lenet", "vgg-5", pytest.param("resnet-8", marks=pytest.mark.slow)])
def test_a_batched_ensemble_gives_the_same_models_within_rounding(kind: Any) -> None:
    wanted = tasks(kind, [33, 20, 33])
    batched = dict(train_batched(wanted, FEW, device="cpu"))
    assert sorted(batched) == [0, 1, 2]
    x = DIGITS.x[1000:1200] if kind == "mlp" else LARGE[200:]
    start = training.untrained(wanted[0], FEW).eval().probabilities(x)
    for place, task in enumerate(wanted):
        alone = train(task, FEW)
        found = batched[place].probabilities(x)
        # Adam divides by the gradient's size, so that rounding shows where a gradient is nearly 0.
        assert np.abs(found - alone.probabilities(x)).max() < 2e-3
        if place == 0:
            assert np.abs(found - start).max() > 8e-3, "training should change more than rounding does"


@pytest.mark.parametrize("samples", [1, 17])
@pytest.mark.parametrize("kind", ["vgg-5", "resnet-8"])
def test_a_last_batch_of_one_sample_is_no_failure(kind: Any, samples: int) -> None:
    (task,) = tasks(kind, [samples])
    smallest = replace(task, x=task.x[:, :, :8, :8].copy())
    for model in (train(smallest, FEW), dict(train_batched([smallest], FEW, device="cpu"))[0]):
        assert np.isfinite(model.probabilities(smallest.x)).all()


def test_a_second_run_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tasks("vgg-5", [20, 20])
    first = train_all(wanted, FEW, workers=1, checkpoints=Checkpoints(tmp_path))
    assert len(list(tmp_path.glob("*.npz"))) == 2
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it trained again"))
    steps: list[int] = []
    again = train_all(wanted, FEW, workers=1, checkpoints=Checkpoints(tmp_path), advance=steps.append)
    assert steps == [1, 1]
    for one, other in zip(first, again, strict=True):
        assert (one.probabilities(LARGE[:50]) == other.probabilities(LARGE[:50])).all()


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tasks("logistic", [20, 20, 20])
    train_all(wanted[:2], FEW, workers=1, checkpoints=Checkpoints(tmp_path))
    trained: list[int] = []

    def counting(task: TrainingTask, models: Models) -> Any:
        trained.append(task.seed)
        return train(task, models)

    monkeypatch.setattr(training, "train", counting)
    train_all(wanted, FEW, workers=1, checkpoints=Checkpoints(tmp_path))
    assert trained == [2]


@pytest.mark.parametrize(
    "change",
    [
        lambda task, models: (replace(task, seed=9), models),
        lambda task, models: (replace(task, x=task.x + 1e-6), models),
        lambda task, models: (replace(task, y=task.y[::-1].copy()), models),
        lambda task, models: (replace(task, kind="mlp"), models),
        lambda task, models: (replace(task, classes=11), models),
        lambda task, models: (task, models.model_copy(update={"epochs": 4})),
        lambda task, models: (task, models.model_copy(update={"weight_decay": 0.1})),
        lambda task, models: (task, models.model_copy(update={"batch_size": 5})),
        lambda task, models: (task, models.model_copy(update={"learning_rate": 0.5})),
    ],
)
def test_a_checkpoint_belongs_to_all_that_it_depends_on(tmp_path: Path, change: Any) -> None:
    (task,) = tasks("logistic", [20])
    kept = Checkpoints(tmp_path)
    train_all([task], FEW, workers=1, checkpoints=kept)
    assert kept.load(task, FEW, "processes") is not None
    assert kept.load(*change(task, FEW), "processes") is None
    assert kept.load(task, FEW, "ensemble, cuda") is None


def archived(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def one_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3, np.float32))
    return file.getvalue()


BROKEN_HEADER = b"\x93NUMPY\x01\x00\x20\x00" + b"((((((".ljust(31) + b"\n"


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"PK cut", b"not an archive", one_array(), archived(a=b"raw")),
        archived(**{"a.npy": BROKEN_HEADER}),
    ],
    ids=["empty", "cut", "foreign", "npy", "raw member", "header"],
)
def test_a_damaged_checkpoint_counts_as_absent(tmp_path: Path, damage: bytes) -> None:
    (task,) = tasks("logistic", [20])
    kept = Checkpoints(tmp_path)
    train_all([task], FEW, workers=1, checkpoints=kept)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(damage)
    assert kept.load(task, FEW, "processes") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.astype(str),
        lambda weights: weights.astype(np.complex64),
        lambda weights: weights * np.float32(np.nan),
        lambda weights: weights + np.float32(np.inf),
        lambda weights: weights[..., :1],
    ],
    ids=["strings", "complex", "nan", "infinite", "shape"],
)
def test_a_checkpoint_of_no_finite_weights_counts_as_absent(tmp_path: Path, change: Any) -> None:
    (task,) = tasks("logistic", [20])
    kept = Checkpoints(tmp_path)
    train_all([task], FEW, workers=1, checkpoints=kept)
    (path,) = tmp_path.glob("*.npz")
    with np.load(path) as arrays:
        weights = dict(arrays)
    np.savez(path, **{name: change(value) for name, value in weights.items()})
    assert kept.load(task, FEW, "processes") is None


def test_the_oldest_checkpoints_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tasks("logistic", [20, 20, 20, 20])
    kept = Checkpoints(tmp_path)
    train_all(wanted[:3], FEW, workers=1, checkpoints=kept)
    size = next(tmp_path.glob("*.npz")).stat().st_size
    for age, task in enumerate(reversed(wanted[:3])):
        os.utime(tmp_path / kept._file(task, FEW, "processes"), (1e9 - age, 1e9 - age))
    monkeypatch.setattr(checkpoints_module, "MOST_BYTES", 3 * size)
    train_all(wanted[3:], FEW, workers=1, checkpoints=Checkpoints(tmp_path))
    assert [kept.load(task, FEW, "processes") is not None for task in wanted] == [False, False, False, True]


def test_where_nothing_can_be_kept_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(CapcsimWarning, match="file: File exists; .*set CAPCSIM_CACHE"):
        trained = train_all(tasks("logistic", [20]), FEW, workers=1, checkpoints=Checkpoints(tmp_path / "file"))
    assert len(trained) == 1


def dies(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow  # and tests/test_environment.py kills one of a run
def test_a_process_that_is_killed_is_named() -> None:
    with pytest.raises(WorkerFailed, match=r"ended early \(SIGKILL\(-9\)\); if memory is short, take fewer --workers$"):
        list(run_all(dies, [(number,) for number in range(4)], workers=2))
    assert list(run_all(dies, [(5,), (6,)], workers=2)) == [5, 6], "the next ones start others"


def blocked_signals() -> set[int]:
    return set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def test_only_the_first_process_hears_ctrl_c() -> None:
    assert list(run_all(blocked_signals, [(), (), ()], workers=2)) == [{signal.SIGINT}] * 3
    assert signal.SIGINT not in blocked_signals()


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_an_engine_that_is_not_installed_says_how_to_get_it(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=rf"--engine {engine}: it is not installed; get it with: pip install"):
        list(run_all(abs, [(1,)], workers=1, engine=engine))


def test_nothing_to_do_needs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert list(run_all(abs, [], workers=1, engine="dask")) == []


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask is not installed")
@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_dask_gives_what_loky_gives() -> None:
    wanted = tasks("logistic", [20, 20])
    one, other = (train_all(wanted, FEW, workers=2, engine=engine) for engine in ("loky", "dask"))
    for a, b in zip(one, other, strict=True):
        assert (a.probabilities(DIGITS.x[:50]) == b.probabilities(DIGITS.x[:50])).all()


@pytest.mark.parametrize("kind", ["adaboost", "random-forest"])
def test_trees_learn_and_repeat(kind: Any) -> None:
    models = Models(trees=30, tree_depth=5)
    (task,) = tasks(kind, [400])
    (one,), (other,) = (train_all([task], models, workers=1) for _ in range(2))
    assert (one.predict(DIGITS.x[1000:]) == DIGITS.y[1000:]).mean() > 0.7
    assert (one.probabilities(DIGITS.x[1000:]) == other.probabilities(DIGITS.x[1000:])).all()
    assert one.probabilities(DIGITS.x[1000:1010]).sum(axis=1) == pytest.approx(np.ones(10))


def test_boosting_that_beats_chance_nowhere_leaves_one_tree() -> None:
    alike = TrainingTask("adaboost", np.ones((4, 2), np.float32), np.array([0, 1, 0, 1]), 2, 1)
    model = train(alike, Models())
    assert model.probabilities(alike.x) == pytest.approx(np.full((4, 2), 0.5))


def test_samples_come_in_another_order_every_epoch() -> None:
    (task,) = tasks("logistic", [20])
    steps = list(training.batches(task, Models(epochs=3, batch_size=20)))
    assert [sorted(step.tolist()) for step in steps] == [list(range(20))] * 3
    assert len({tuple(step.tolist()) for step in steps}) == 3


def test_read_only_samples_are_taken() -> None:
    (task,) = tasks("logistic", [20])
    task.x.flags.writeable = False
    assert torch.isfinite(torch.tensor(train(task, FEW).probabilities(task.x))).all()
