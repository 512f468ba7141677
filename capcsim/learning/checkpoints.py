"""Trained networks, kept by what they depend on: data, hyperparameters, seed, source, torch.

A network is a npz file of plain arrays. What scikit-learn fits is not kept: it trains in less time than a pickle of
it could be trusted in. Nor are models that were handed over from Python, whose source has no name.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capcsim.caches import Cache
from capcsim.learning.models import Model, Network, is_trees
from capcsim.learning.tasks import TrainingTask, untrained
from capcsim.paths import source_digest
from capcsim.scenario import Models

MODULES = ("architectures", "batched", "factories", "models", "own", "tasks", "training")
SOURCES = tuple(f"capcsim.learning.{name}" for name in MODULES)
HYPERPARAMETERS = {"hidden", "width", "epochs", "batch_size", "learning_rate", "weight_decay"}
TREES = {"trees", "tree_depth"}
MOST_BYTES = 8 << 30
"""What the folder may hold; the networks that were used longest ago go first."""


class Checkpoints:
    """The user's folder of trained networks, or another.

    A damaged file counts as absent; where none can be written, a CapcsimWarning says so.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._files = Cache("models", folder)
        self._bytes: int | None = None

    def load(self, task: TrainingTask, models: Models, how: str) -> Network | None:
        """The network that this task gave before, or None; `how` says by which way of training."""
        if not _is_kept(task):
            return None
        name = self._file(task, models, how)
        content = self._files.read(name)
        if content is None:
            return None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            whole = all(bool(torch.isfinite(value).all()) for value in state.values())
        except Exception:  # damaged bytes may fail in any way
            return None
        model = untrained(task, models)
        types = {name: value.dtype for name, value in model.state_dict().items()}
        if not whole or types != {name: value.dtype for name, value in state.items()}:
            return None
        try:
            model.load_state_dict(state)
        except RuntimeError:
            return None
        if self._files.folder is not None:
            with suppress(OSError):  # a folder that can only be read
                os.utime(self._files.folder / name)
        return model.eval()

    def store(self, task: TrainingTask, models: Models, how: str, model: Model) -> None:
        """Keep a trained network; the file appears whole or not at all."""
        if not isinstance(model, Network) or not _is_kept(task):
            return
        content = io.BytesIO()
        arrays: dict[str, Any] = {name: value.numpy() for name, value in model.state_dict().items()}
        np.savez(content, **arrays)
        if self._files.write(self._file(task, models, how), content.getvalue()):
            self._make_room(len(content.getvalue()))

    def _make_room(self, added: int) -> None:
        if self._bytes is None:
            self._bytes = sum(size for _, _, size in self._networks())
        else:
            self._bytes += added
        if self._bytes <= MOST_BYTES:
            return
        for _, path, size in sorted(self._networks()):
            if self._bytes <= MOST_BYTES // 2:
                break
            self._bytes -= size
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _networks(self) -> Iterator[tuple[float, Path, int]]:
        """When each was used last, its file and its bytes; another run may remove them at the same time."""
        for path in self._files.folder.glob("*.npz") if self._files.folder else ():
            with suppress(OSError):
                found = path.stat()
                yield found.st_mtime, path, found.st_size

    def _file(self, task: TrainingTask, models: Models, how: str) -> str:
        return f"{task_key(task, models, how)}.npz"


def _is_kept(task: TrainingTask) -> bool:
    """Whether a task gives a network, of which is known what it depends on."""
    return task.is_network and (task.own is None or task.own.is_kept)


def task_key(task: TrainingTask, models: Models, how: str) -> str:
    """What a trained model depends on, trees' hyperparameters included, as a digest of 32 hexadecimal digits."""
    named = HYPERPARAMETERS | TREES if is_trees(task.kind) else HYPERPARAMETERS
    wanted = models.model_dump(mode="json", include=named)
    identity = f"{torch.__version__} {source_digest(SOURCES)}{' ' + task.own.digest if task.own else ''}"
    digest = hashlib.sha256(
        json.dumps([wanted, task.kind, task.x.shape, task.classes, task.seed, how, identity]).encode()
    )
    digest.update(task.x.tobytes())
    digest.update(task.y.tobytes())
    return digest.hexdigest()[:32]
