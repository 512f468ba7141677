"""Querying and answering party as two real processes over TLS, each with only what is its own."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from capcsim.backend import VOTE_RING_BITS
from capcsim.crypto.shares import reconstruct
from capcsim.learning.models import build_model
from capcsim.twoparty.channels import Identity
from capcsim.twoparty.voting import one_hot_argmax
from capcsim_hybrid import HybridBackend

SCRIPT = Path(__file__).parent / "party_process.py"


def start(role: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(SCRIPT), role, str(folder)], stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, timeout_s: float = 60.0) -> None:
    ends_s = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < ends_s, f"no {path.name} within {timeout_s} s"
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("querier", "answerer"):
        made = Identity.new(name)
        (tmp_path / f"{name}.crt").write_bytes(made.certificate)
        (tmp_path / f"{name}.key").write_bytes(made.key)
    x = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
    np.save(tmp_path / "x.npy", x)
    return tmp_path


@pytest.fixture
def parties(folder: Path) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    answerer = start("answer", folder)
    wait_for(folder / "port")
    querier = start("query", folder)
    yield querier, answerer
    for process in (querier, answerer):
        process.kill()
        process.communicate()


def test_two_processes_compute_the_votes_and_hold_only_their_own(folder: Path, parties: tuple) -> None:
    """What each of them holds at its end is asserted in the processes."""
    for process in parties:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    ours, theirs = (np.load(folder / f"{name}.npz") for name in ("querier", "answerer"))
    backend = HybridBackend(processes=False)
    prepared = backend.prepare(build_model("cryptonet-relu", (1, 28, 28), 10, (), seed=5), seed=0)
    expected = backend.reference(prepared, np.load(folder / "x.npy"))
    logits = np.stack([ours["logits"], theirs["logits"]])
    assert np.array_equal(reconstruct(logits, prepared.public.ring_bits), expected)
    votes = np.stack([ours["votes"], theirs["votes"]])
    assert np.array_equal(reconstruct(votes, VOTE_RING_BITS), one_hot_argmax(expected))


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_party_that_dies_ends_the_other_with_its_name(folder: Path, parties: tuple, victim: int) -> None:
    """Killed at the start of its work: the other one ends within seconds, and says who failed."""
    wait_for(folder / "connected")
    parties[victim].send_signal(signal.SIGKILL)
    survivor = parties[1 - victim]
    _, said = survivor.communicate(timeout=20)
    assert survivor.returncode != 0
    name = ("querying party", "answering party")[victim]
    assert f"PeerFailed: {name}" in said
