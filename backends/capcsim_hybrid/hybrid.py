"""The hybrid backend: homomorphic encryption for linear layers, garbled circuits for all others.

Two-party security against semi-honest parties, without a dealer. The answering party's role runs in a process of
its own where there are two cores: SEAL's binding holds the interpreter's lock, and so the two parties have a core
each. TenSEAL, numba and what else does the work are loaded on first use.

Why BFV with a plaintext modulus of 2^k, where the paper has CKKS and a prime field for its circuits: additive shares
mod 2^k are exact, so the whole network equals an integer reference bit for bit and a wrong vote is a bug, not noise.
CKKS rounds at random, and its decrypted noise is known to leak. A garbled ReLU mod a prime needs about 256 ANDs, one
mod 2^k fewer than 110, since reduction is dropping wires. What a plaintext modulus of 2^k gives up is packing into
slots; products of polynomials need none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf, log2
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import (
    Capabilities,
    Compute,
    Phase,
    Prepared,
    Progress,
    Role,
    Scope,
    Shares,
    Step,
    Transcript,
)
from capcsim.errors import InputError
from capcsim.fixed_point import LAYERS, compile_model, encode
from capcsim.twoparty.programs import Steps, chained
from capcsim.twoparty.runners import Far, LocalRunner, ProcessRunner, Runner
from capcsim.twoparty.voting import YAO, TappedVoting, VotingSession, argmax_programs, release_programs
from capcsim_hybrid.options import POOL_BYTES, check_options

if TYPE_CHECKING:
    from capcsim_hybrid.linear import SecretKeys
    from capcsim_hybrid.model import HybridModel
    from capcsim_hybrid.parameters import Parameters
    from capcsim_hybrid.sessions import QuerierState

PAIR = (Role.QUERIER, Role.ANSWERER)


@dataclass
class HybridSession:
    """One pair; `near` and `far` are None for the pair of a querying party and the privacy guardian.

    `margin_bits` is how well the flood hides the weights in one query, in the layouts of the worst batch.
    `ahead` has the transcripts of the batches that lie ready, by serial number.
    """

    voting: VotingSession
    near: QuerierState | None
    far: Far | None
    margin_bits: float
    ahead: dict[int, Transcript] = field(default_factory=dict)

    def sides(self) -> tuple[QuerierState, Far]:
        """Both; raises InputError for the guardian's session."""
        if self.near is None or self.far is None:
            raise InputError("this session is the privacy guardian's, who has no model; open one with a model")
        return self.near, self.far


class HybridBackend(TappedVoting):
    """BFV and Yao's protocol. See the package's docstring for what it does and does not protect.

    `security` is the polynomial degree: 8192, 16384 or 32768, all at 128 bits. `order` is "ahead" (work that does not
    depend on the input goes first) or "online" (the paper's order). `pool_bytes` bounds what the answering party
    keeps between the phases, beside the transformed weights. `processes` says whether it has a process of its own;
    None: where there are two cores.
    """

    name: ClassVar[str] = "hybrid"
    capabilities: Capabilities = Capabilities(
        security="semi-honest",
        exact=True,
        leaks={
            Role.QUERIER: "the architecture; the ring and the primes, which follow from the weights (3 bits at most)",
            Role.ANSWERER: "how many queries are asked together",
        },
        layers=LAYERS,
        needs=("numpy", "numba", "tenseal"),
        argmax=YAO,
        release=YAO,
        offers=frozenset({"programs", "ahead", "details", "saturation", "tap", "progress"}),
    )
    progress: Progress | None = None

    def __init__(
        self,
        *,
        security: int = 8192,
        order: str = "ahead",
        pool_bytes: int = POOL_BYTES,
        processes: bool | None = None,
    ) -> None:
        check_options(security, order, pool_bytes)
        if processes not in (None, True, False):
            raise InputError(f"processes = {processes!r}: true, false, or leave it out")
        if order == "online":
            self.capabilities = replace(self.capabilities, offers=self.capabilities.offers - {"ahead"})
        self._security, self._order, self._pool_bytes = security, order, pool_bytes
        apart = (os.cpu_count() or 1) > 1 if processes is None else processes
        self.runner: Runner = ProcessRunner("answering party") if apart else LocalRunner()
        self._keys: dict[tuple[int, Parameters], tuple[SecretKeys, float]] = {}
        self._placed: WeakKeyDictionary[HybridModel, Far] = WeakKeyDictionary()

    def prepare(self, model: Any, *, seed: int) -> Prepared:  # noqa: ARG002 (nothing here is random)
        """Compile to integer layers and choose parameters that hide the weights; raises UnsupportedModel.

        Raises InputError when one query alone would not fit the pool.
        """
        from capcsim_hybrid.model import HybridModel
        from capcsim_hybrid.plan import Plan

        network = compile_model(model)
        plan, margin_bits = Plan.of(network, self._security)
        if self._order == "ahead":
            plan.most_queries(self._pool_bytes)
        return Prepared(network.public, HybridModel(network, plan, margin_bits))

    def reference(self, prepared: Prepared, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Logits int64[B, C] in exact integers; raises InputError for a bad `x`."""
        network = prepared.private.network
        return network.evaluate(network.encode(x))  # type: ignore[no-any-return]

    def saturation(self, prepared: Prepared, x: NDArray[np.float32]) -> float:
        """The share of inputs and ReLU units that were clamped."""
        return float(prepared.private.network.saturation(x))

    def open(self, querier: int, prepared: Prepared | None) -> tuple[HybridSession, Transcript]:
        """Base transfers and, with a model, the querying party's public key; its key pair is made once."""
        if prepared is None:
            voting, transcript = self.open_voting(Role.GUARDIAN)
            return HybridSession(voting, None, None, inf), transcript
        from capcsim_hybrid.sessions import set_up_answerer, set_up_querier

        if not isinstance(prepared, Prepared) or not hasattr(prepared.private, "plan"):
            raise InputError(f"open takes what this backend's prepare returned, not a {type(prepared).__name__}")
        voting, base = self.open_voting(Role.ANSWERER)
        keys, seconds = self._keys_of(querier, prepared.private.plan.parameters)
        (near, far), exchange = self.runner.run(
            PAIR,
            (set_up_querier, (lambda _: keys, self._security, self._order, self._pool_bytes, voting.garbler)),
            (set_up_answerer, (self._place(prepared), self._pool_bytes, voting.evaluator)),
            step=Step.SETUP,
            phase=Phase.SETUP,
            keep=True,
            tap=self.tap,
        )
        generation = Compute(Role.QUERIER, seconds, Step.SETUP, Phase.SETUP, Scope.QUERIER, ())
        return HybridSession(voting, near, far, prepared.private.margin_bits), chained((generation,), base, exchange)

    def prepare_ahead(self, session: HybridSession, queries: int) -> Transcript:
        """The phase ahead for so many queries of one later `infer`; raises InputError when the pool is full."""
        from capcsim_hybrid.inference import fill_answerer, fill_querier

        near, far = session.sides()
        if type(queries) is not int or queries < 1:
            raise InputError(f"{queries!r} queries: give a positive whole number")
        (serial, _), transcript = self.runner.run(
            PAIR,
            (fill_querier, (near, queries)),
            (fill_answerer, (far,)),
            step=Step.INFER,
            phase=Phase.OFFLINE,
            tap=self.tap,
            progress=self.progress,
        )
        session.ahead[serial] = transcript
        return transcript

    def infer(self, session: HybridSession, x: NDArray[np.float32]) -> tuple[Shares, Transcript]:
        """Steps 1a and 1b, with what lies ready first; raises InputError for a bad `x`."""
        from capcsim_hybrid.inference import infer_answerer, infer_querier

        near, far = session.sides()
        public = near.plan.network
        encode(x, public)
        outputs, transcript = self.runner.run(
            PAIR,
            (infer_querier, (near, x)),
            (infer_answerer, (far,)),
            step=Step.INFER,
            tap=self.tap,
            progress=self.progress,
        )
        used = [serial for serial in session.ahead if serial not in near.pool]
        before = [session.ahead.pop(serial) for serial in used]
        return Shares(np.stack(outputs), public.ring_bits, public.fraction_bits), chained(*before, transcript)

    def details(self, session: HybridSession, queries: int) -> dict[str, Any]:
        """Parameters, and what is stored for a batch of so many queries."""
        near, _ = session.sides()
        plan = near.plan
        return {
            "parameters": str(plan.parameters),
            "order": self._order,
            "flood_margin_bits": round(session.margin_bits, 1),
            "flood_margin_bits_of_batch": round(session.margin_bits - log2(queries), 1),
            "pool_bytes": self._pool_bytes,
            "ahead_bytes_per_query": plan.ahead_bytes(1),
            "ready_queries": near.pool.queries,
            "ready_querier_bytes": near.pool.stored_bytes,
            "ready_answerer_bytes": plan.ahead_bytes(near.pool.queries),
            "encoded_weight_bytes": plan.weight_bytes(queries),
        }

    def programs(self, step: Step) -> tuple[Callable[..., Steps], Callable[..., Steps]]:
        """The role generators of setup, infer, argmax and release; raises InputError for another step."""
        from capcsim_hybrid.inference import infer_answerer, infer_querier
        from capcsim_hybrid.sessions import set_up_answerer, set_up_querier

        match step:
            case Step.SETUP:
                return set_up_querier, set_up_answerer
            case Step.INFER:
                return infer_querier, infer_answerer
            case Step.ARGMAX:
                return argmax_programs()
            case Step.RELEASE:
                return release_programs()
        raise InputError(f"step {step} has no two-party program here; ask for setup, infer, argmax or release")

    def close(self) -> None:
        """End the answering party's process."""
        self._placed.clear()
        self._keys.clear()
        self.runner.close()

    def _keys_of(self, querier: int, parameters: Parameters) -> tuple[SecretKeys, float]:
        """A querying party's key pair and the CPU seconds that it took."""
        from capcsim_hybrid.linear import SecretKeys
        from capcsim_hybrid.parameters import context

        key = (querier, parameters)
        if key not in self._keys:
            chosen = context(parameters)
            started_s = time.thread_time()
            self._keys[key] = (SecretKeys(chosen), time.thread_time() - started_s)
        return self._keys[key]

    def _place(self, prepared: Prepared) -> Far:
        """The model, handed to the answering party's process once."""
        model: HybridModel = prepared.private
        if model not in self._placed or not self.runner.keeps(self._placed[model]):
            self._placed[model] = self.runner.place(model)
        return self._placed[model]
