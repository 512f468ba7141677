from typing import Any

import numpy as np
import pytest

from capcsim.crypto.shares import uniform
from capcsim.fixed_point.graph import ENCODING
from capcsim.fixed_point.layers import Input, Linear, Weights
from capcsim.fixed_point.network import Network, PublicNetwork
from capcsim_hybrid.model import HybridModel
from capcsim_hybrid.parameters import Parameters
from capcsim_hybrid.plan import Plan


@pytest.mark.parametrize("bits", [24, 37, 46])
@pytest.mark.parametrize("weight_bits", [0, 12, 36, 44])
def test_a_weighted_layer_on_shares_is_exact_however_large_the_weights(bits: int, weight_bits: int) -> None:
    """Compared with Python's integers; leaf votes of large forests are that heavy."""
    generator = np.random.default_rng(weight_bits)
    weight = generator.integers(-(1 << weight_bits), (1 << weight_bits) + 1, (3, 200)).astype(np.float64)
    bias = np.array([5.0, -7.0, 0.0])
    nodes = (Input((200,)), Linear((0,), (3,), 200))
    public = PublicNetwork.of(nodes, ENCODING, ring_bits=bits, fraction_bits=0)
    plan = Plan(public, Parameters(8192, (60, 60, 20), bits))
    model = HybridModel(Network(public, {1: Weights(weight, bias)}), plan, 40.0)
    share, mask = uniform((70, 200), bits), uniform((70, 3), bits)
    found = model.apply(1, share, mask)

    def exact(row: Any, out: int) -> int:
        total = sum(int(w) * int(x) for w, x in zip(weight[out], share[row], strict=True))
        return (total + int(mask[row, out]) + int(bias[out])) % (1 << bits)

    assert found.tolist() == [[exact(row, out) for out in range(3)] for row in range(70)]
