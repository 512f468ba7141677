"""Small models and inputs on which backends are checked, and a batch's way through all steps."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import (
    Backend,
    Prepared,
    ReleaseNoise,
    Role,
    Shares,
    Step,
    Transcript,
)
from capcsim.conformance.transcripts import GUARDIAN_ROLES, PAIR_ROLES
from capcsim.crypto.shares import reconstruct
from capcsim.seeds import Seeds


def mlp(seed: int) -> Any:
    """6 features, 4 classes, a hidden layer."""
    from torch import nn

    return _seeded(seed, lambda: nn.Linear(6, 5), nn.ReLU, lambda: nn.Linear(5, 4))


def logistic(seed: int) -> Any:
    """6 features, 4 classes, one layer."""
    from torch import nn

    return _seeded(seed, lambda: nn.Linear(6, 4))


def convolution(seed: int) -> Any:
    """Images of 6 by 6 pixels, 4 classes."""
    from torch import nn

    model = _seeded(
        seed, lambda: nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU, nn.Flatten, lambda: nn.Linear(18, 4)
    )
    model.input_shape = (1, 6, 6)
    return model


def _seeded(seed: int, *layers: Callable[[], Any]) -> Any:
    """A torch Sequential whose layers are made under a seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(*(layer() for layer in layers)).eval()


def inputs(prepared: Prepared, batch: int) -> NDArray[np.float32]:
    """Inputs float32[batch, ...] of the model, the same each time."""
    generator = Seeds(0).generator("conformance", batch)
    return generator.uniform(-1, 1, (batch, *prepared.public.input_shape)).astype(np.float32)


def steps(backend: Backend, prepared: Prepared) -> Iterator[tuple[Step, Transcript, frozenset[Role]]]:
    """One batch from set-up to labels: each step's transcript, and the roles that it is between."""
    session, setup = backend.open(3, prepared)
    yield Step.SETUP, setup, PAIR_ROLES
    guardian, guardian_setup = backend.open(3, None)
    yield Step.SETUP, guardian_setup, GUARDIAN_ROLES
    logits, infer = backend.infer(session, inputs(prepared, 2))
    yield Step.INFER, infer, PAIR_ROLES
    votes, argmax = backend.argmax(session, logits)
    yield Step.ARGMAX, argmax, PAIR_ROLES
    noise = ReleaseNoise(np.zeros((2, prepared.public.classes), np.int64))
    _, release = backend.release(guardian, votes.values[0], votes.values[1], noise)
    yield Step.RELEASE, release, GUARDIAN_ROLES


def opened(shares: Shares) -> NDArray[np.int64]:
    """What is shared."""
    return reconstruct(shares.values, shares.ring_bits)
