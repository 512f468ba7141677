"""A whole conversation of one pair, from set-up to shares of votes, for roles in processes of their own.

Run the two programs with `capcsim.twoparty.channels.run_socket`: each process loads only what is its own. The querying
one never sees a weight, the answering one never holds the secret key.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.fixed_point import compile_model
from capcsim.twoparty.programs import Steps
from capcsim.twoparty.voting import argmax_programs
from capcsim.twoparty.yao import set_up_evaluator, set_up_garbler
from capcsim_hybrid.inference import infer_answerer, infer_querier
from capcsim_hybrid.linear import SecretKeys
from capcsim_hybrid.model import HybridModel
from capcsim_hybrid.options import POOL_BYTES, check_options
from capcsim_hybrid.parameters import context
from capcsim_hybrid.plan import Plan
from capcsim_hybrid.sessions import set_up_answerer, set_up_querier


def querying_party(
    x: NDArray[np.float32], *, security: int = 8192, order: str = "ahead", pool_bytes: int = POOL_BYTES
) -> Steps:
    """Steps 1a to 1c for x float32[B, *shape]; returns its shares of logits and votes, uint64[B, C] each.

    Raises InputError for an option that is none, before anything is sent.
    """
    check_options(security, order, pool_bytes)
    garbler = yield from set_up_garbler()
    state = yield from set_up_querier(
        lambda parameters: SecretKeys(context(parameters)), security, order, pool_bytes, garbler
    )
    logits = yield from infer_querier(state, x)
    votes = yield from argmax_programs()[0](garbler, logits, state.plan.network.ring_bits)
    return logits, votes


def answering_party(model: Any, *, security: int = 8192, pool_bytes: int = POOL_BYTES) -> Steps:
    """The other side, for a torch module or scikit-learn estimator; raises UnsupportedModel before it sends."""
    check_options(security, pool_bytes=pool_bytes)
    network = compile_model(model)
    prepared = HybridModel(network, *Plan.of(network, security))
    evaluator = yield from set_up_evaluator()
    state = yield from set_up_answerer(prepared, pool_bytes, evaluator)
    logits = yield from infer_answerer(state)
    votes = yield from argmax_programs()[1](evaluator, logits, network.public.ring_bits)
    return logits, votes
