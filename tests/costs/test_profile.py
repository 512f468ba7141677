import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from capcsim.costs.profile import profile
from capcsim.crypto.library import argmax_circuit
from capcsim.errors import InputError
from capcsim_plaintext import PlaintextBackend

MODEL = torch.nn.Sequential(torch.nn.Linear(6, 4))
COST = {"wall_s", "cpu_s", "bytes", "rounds", "phases"}


def test_the_object_has_the_documented_form() -> None:
    found = profile(PlaintextBackend(), MODEL, "logistic", batch=3, repeats=2)
    assert json.loads(json.dumps(found)) == found
    keys = {"backend", "model", "batch", "security", "exact", "steps", "total", "setup", "agreement", "versions"}
    assert keys <= set(found)
    assert set(found["steps"]) == {"infer", "argmax", "release"}
    for cost in (*found["steps"].values(), found["total"], found["setup"]):
        assert set(cost) == COST
    assert set(found["steps"]["infer"]["cpu_s"]) == {"querier", "answerer"}
    assert set(found["steps"]["release"]["cpu_s"]) == {"querier", "guardian"}
    assert found["agreement"] == 1.0


def test_bytes_are_those_of_the_wire() -> None:
    found = profile(PlaintextBackend(), MODEL, "logistic", batch=3, repeats=1)["steps"]
    assert found["infer"]["bytes"] == {"querier->answerer": 3 * 6 * 4, "answerer->querier": 3 * 4 * 8}
    assert found["infer"]["phases"]["online"]["bytes"] == sum(found["infer"]["bytes"].values())
    argmax = found["argmax"]
    inputs, masks, seed = 4 * 37, 4 * 32, 16
    tables = 3 * 32 * argmax_circuit(4, 37).ands
    transfers = 16 * (-(-3 * inputs // 64) * 64)
    offline = transfers + tables + seed
    decode = -(-3 * masks // 8)
    assert argmax["phases"]["online"]["bytes"] == -(-3 * inputs // 8) + decode + 16 * 3 * 2 * inputs
    assert argmax["phases"]["offline"]["bytes"] == offline
    assert argmax["bytes"]["answerer->querier"] == transfers + -(-3 * inputs // 8)


def test_only_what_a_backend_declares_is_asked_for() -> None:
    class Silent(PlaintextBackend):
        capabilities = replace(PlaintextBackend.capabilities, offers=frozenset())

    assert profile(Silent(), MODEL, "logistic", batch=1, repeats=1)["details"] == {}
    assert profile(PlaintextBackend(), MODEL, "logistic", batch=1, repeats=1)["details"] == {"saturation": 0.0}


def test_totals_add_up() -> None:
    found = profile(PlaintextBackend(), MODEL, "logistic", batch=1, repeats=1)
    assert found["total"]["wall_s"] == pytest.approx(sum(step["wall_s"] for step in found["steps"].values()))
    assert found["total"]["rounds"] == sum(step["rounds"] for step in found["steps"].values())
    sent = np.sum([sum(step["bytes"].values()) for step in found["steps"].values()])
    assert sum(found["total"]["bytes"].values()) == sent


@pytest.mark.parametrize(("batch", "repeats"), [(0, 1), (1, 0), (-3, 2)])
def test_there_must_be_something_to_measure(batch: int, repeats: int) -> None:
    with pytest.raises(InputError, match="both must be at least 1"):
        profile(PlaintextBackend(), MODEL, "logistic", batch=batch, repeats=repeats)
