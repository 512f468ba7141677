"""Trained networks, kept by what they depend on: data, hyperparameters, seed, source, torch.

A network is a npz file of plain arrays. Ensembles of trees are not kept: they train in less time than a pickle of
theirs could be trusted in.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from capcsim.errors import RecordError
from capcsim.learning.models import Classifier, Model, build_model
from capcsim.paths import cache_folder, source_digest
from capcsim.scenario import Models

if TYPE_CHECKING:
    from capcsim.learning.training import TrainingTask

SOURCES = tuple(f"capcsim.learning.{name}" for name in ("architectures", "batched", "models", "training"))
HYPERPARAMETERS = {"hidden", "width", "epochs", "batch_size", "learning_rate", "weight_decay"}
MOST_BYTES = 8 << 30
"""What the folder may hold; the networks that were used longest ago go first."""


class Checkpoints:
    """The user's folder of trained networks. A damaged file counts as absent.

    Raises RecordError where the folder cannot be written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder() / "models"
        self._identity = f"{torch.__version__} {source_digest(SOURCES)}"
        self._bytes: int | None = None

    def load(self, task: "TrainingTask", models: Models, how: str) -> Classifier | None:
        """The network that this task gave before, or None; `how` says by which way of training."""
        if task.kind == "adaboost" or task.kind == "random-forest":
            return None
        path = self._path(task, models, how)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            whole = all(bool(torch.isfinite(value).all()) for value in state.values())
        except Exception:  # damaged bytes may fail in any way
            return None
        model = build_model(task.kind, task.x.shape[1:], task.classes, models.hidden, task.seed, models.width)
        types = {name: value.dtype for name, value in model.state_dict().items()}
        if not whole or types != {name: value.dtype for name, value in state.items()}:
            return None
        try:
            model.load_state_dict(state)
            os.utime(path)
        except (OSError, RuntimeError):
            return None
        return model.eval()

    def store(self, task: "TrainingTask", models: Models, how: str, model: Model) -> None:
        """Keep a trained network; the file appears whole or not at all."""
        if not isinstance(model, Classifier):
            return
        path = self._path(task, models, how)
        fresh = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            np.savez(fresh, **{name: value.numpy() for name, value in model.state_dict().items()})
            fresh.replace(path)
            self._make_room(path.stat().st_size)
        except OSError as error:
            why = f"cannot be written ({error.strerror}); set CAPCSIM_CACHE to a folder that can"
            raise RecordError(f"{self._folder}: {why}") from None

    def _make_room(self, added: int) -> None:
        if self._bytes is None:
            self._bytes = sum(path.stat().st_size for path in self._folder.glob("*.npz"))
        else:
            self._bytes += added
        if self._bytes <= MOST_BYTES:
            return
        for path in sorted(self._folder.glob("*.npz"), key=lambda path: path.stat().st_mtime):
            if self._bytes <= MOST_BYTES // 2:
                break
            self._bytes -= path.stat().st_size
            path.unlink(missing_ok=True)

    def _path(self, task: "TrainingTask", models: Models, how: str) -> Path:
        wanted = models.model_dump(mode="json", include=HYPERPARAMETERS)
        shape = [task.kind, task.x.shape, task.classes, task.seed, how, self._identity]
        digest = hashlib.sha256(json.dumps([wanted, *shape]).encode())
        digest.update(task.x.tobytes())
        digest.update(task.y.tobytes())
        return self._folder / f"{digest.hexdigest()[:32]}.npz"
