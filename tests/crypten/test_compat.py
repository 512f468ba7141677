"""Each of CrypTen's traps: that it is there, and that what stands against it works."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from capcsim.backend import Role, Step
from capcsim.twoparty.programs import RoleLog
from capcsim_crypten import CryptenBackend, compat

WORDS = np.arange(-(1 << 18), 1 << 18, dtype=np.int64)


def version() -> str:
    return str(compat.crypten().__version__)


def test_it_imports_although_torch_has_moved_a_module(elsewhere: Callable[..., Any]) -> None:
    command = [sys.executable, "-W", "ignore", "-c", "import crypten"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "No module named 'torch.onnx._internal.registration'" in done.stderr
    assert elsewhere(version) == "0.4.1"


def decoded_by_crypten() -> Any:
    import torch

    return compat.crypten().encoder.FixedPointEncoder(16).decode(torch.from_numpy(WORDS)).numpy()


def test_words_are_decoded_exactly(elsewhere: Callable[..., Any]) -> None:
    assert np.array_equal(compat.decode(WORDS) * 65536, WORDS)
    wrong = elsewhere(decoded_by_crypten) - WORDS / 65536
    assert wrong.min() < -0.99, "CrypTen decodes right: our own decoder can go"


def encoded_by_crypten(values: Any) -> Any:
    import torch

    encoder = compat.crypten().encoder.FixedPointEncoder(16)
    ours = torch.from_numpy(compat.encoded(values))
    return (
        encoder.encode(values).numpy(),
        encoder.encode(torch.from_numpy(values)).numpy(),
        encoder.encode(ours).numpy(),
    )


def test_numbers_are_rounded_to_the_nearest(elsewhere: Callable[..., Any]) -> None:
    values = np.array([0.5, -0.7, 1e-5, -3.14159, 200.123456])
    as_array, as_tensor, ours = elsewhere(encoded_by_crypten, values)
    assert np.array_equal(ours, np.rint(values * 65536))
    assert not np.array_equal(as_array, ours)
    assert not np.array_equal(as_tensor, ours)


def environment(_: Any, *names: str) -> tuple[list[str | None], RoleLog]:
    return [os.environ.get(name) for name in names], []


def test_only_the_parties_have_crypten_and_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never the one that lets gloo pass tensors through shared memory."""
    backend = CryptenBackend()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    before = dict(os.environ)
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    outputs, _ = backend._parties.run(Step.INFER, dict.fromkeys(backend._parties.roles, (environment, names)))
    assert outputs == {Role.ANSWERER: ["0", "2", None], Role.QUERIER: ["1", "2", None]}
    assert dict(os.environ) == before
    assert "crypten" not in sys.modules
    backend.close()
