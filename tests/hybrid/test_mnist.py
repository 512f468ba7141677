"""Trained models on MNIST. Slow, and skipped where CAPCSIM_DATA names no folder with mnist.npz.

mnist.npz holds x_train, y_train, x_test, y_test as uint8, images 28 x 28.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capcsim.crypto.shares import reconstruct
from capcsim.learning.models import build_model
from capcsim_hybrid import HybridBackend

FILE = Path(os.environ.get("CAPCSIM_DATA", "no folder")) / "mnist.npz"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILE.exists(), reason="CAPCSIM_DATA names no folder with mnist.npz"),
]


def images(part: str) -> tuple[Any, Any]:
    with np.load(FILE) as stored:
        return stored[f"x_{part}"][:, None].astype(np.float32) / 255, stored[f"y_{part}"].astype(np.int64)


def trained(kind: Any) -> Any:
    """Two passes over the training images."""
    model = build_model(kind, (1, 28, 28), 10, (), seed=0)
    x, y = map(torch.from_numpy, images("train"))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for rows in torch.split(torch.randperm(len(y), generator=generator), 128):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    return model.eval()


@pytest.mark.parametrize("kind", ["cryptonet-relu", "lenet"])
def test_a_trained_model_keeps_its_accuracy_and_equals_its_reference(kind: Any) -> None:
    backend, model, (x, y) = HybridBackend(), trained(kind), images("test")
    try:
        prepared = backend.prepare(model, seed=0)
        integer = backend.reference(prepared, x).argmax(axis=1)
        loss = np.mean(model.predict(x) == y) - np.mean(integer == y)
        assert backend.saturation(prepared, x[:1000]) < 1e-3
        assert loss <= 0.002
        session, _ = backend.open(0, prepared)
        shares, _ = backend.infer(session, x[:1000])
        opened = reconstruct(shares.values, shares.ring_bits)
        assert np.array_equal(opened, backend.reference(prepared, x[:1000]))
    finally:
        backend.close()
