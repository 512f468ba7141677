"""CrypTen 0.4.1 (Knott et al. 2021) as a backend: additive shares mod 2^64, Beaver triples, comparisons in bits.

The roles run in processes of their own, which import CrypTen; this one does not. Everything is interactive and runs
when the input is known: CrypTen has no phase ahead.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import VOTE_RING_BITS, Capabilities, Phase, Prepared, Role, Shares, Step, Transcript
from capcsim.errors import InputError
from capcsim.fixed_point import Network, compile_model, encode
from capcsim.twoparty.programs import chained
from capcsim.twoparty.voting import YAO, Voting, VotingSession
from capcsim_crypten.compat import PRECISION_BITS, Provider
from capcsim_crypten.plan import CRYPTEN_LAYERS, Plan

if TYPE_CHECKING:
    from capcsim.twoparty.helper import Far
    from capcsim_crypten.deviations import Deviations
    from capcsim_crypten.parties import Parties

PAIRWISE = "CrypTen's pairwise comparisons"
ARGMAX = {"crypten": PAIRWISE, "yao": YAO}
TIMEOUT_S = 3600.0
TWISTER = "its masks are a Mersenne Twister's, which whoever knows enough of them (of its own data, say) can predict"
FIRST_PARTY = Capabilities(
    security="trusted first party",
    exact=False,
    leaks={
        Role.QUERIER: f"the architecture; {TWISTER}",
        Role.ANSWERER: "the query, every activation and every logit: it makes the masks that hide them",
    },
    layers=CRYPTEN_LAYERS,
    needs=("numpy", "torch", "crypten"),
    argmax=PAIRWISE,
    release=YAO,
    offers=frozenset({"details", "saturation"}),
)
CAPABILITIES: dict[Provider, Capabilities] = {
    "first-party": FIRST_PARTY,
    "third-party": replace(
        FIRST_PARTY,
        security="semi-honest with trusted dealer",
        leaks={
            Role.QUERIER: f"the architecture; {TWISTER}",
            Role.ANSWERER: f"how many queries are asked together; {TWISTER}",
            Role.DEALER: "the sizes of all layers; together with either party, everything",
        },
    ),
}


@dataclass(eq=False)
class CryptenModel:
    """A compiled network, how it is read as real numbers, what its logits can be off by, and how far off they were."""

    network: Network
    plan: Plan
    tolerance: float
    deviations: Deviations


@dataclass
class CryptenSession:
    """One pair; `prepared` is None for the querying party and the guardian.

    `voting` is there for steps that Yao's protocol computes; `shared` stands for the weights' shares, by role.
    """

    prepared: Prepared | None
    voting: VotingSession | None
    shared: dict[Role, Far]

    def model(self) -> CryptenModel:
        """Raises InputError for the guardian's session."""
        if self.prepared is None:
            raise InputError("this session is the privacy guardian's, who has no model; open one with a model")
        model: CryptenModel = self.prepared.private
        return model


class CryptenBackend(Voting):
    """CrypTen for steps 1a to 1c, Yao's protocol for step 3. `deviations` says how far it is from exact.

    `provider` makes the triples: the answering party ("first-party", which then sees through every mask) or a dealer of
    its own ("third-party"). `argmax` is CrypTen's own ("crypten") or "yao". `timeout_s` bounds each call. Step 3 is
    always Yao's: CrypTen has neither a threshold nor a way to keep the label from the guardian.
    """

    name: ClassVar[str] = "crypten"
    capabilities: Capabilities = FIRST_PARTY

    def __init__(self, *, provider: str = "first-party", argmax: str = "crypten", timeout_s: float = TIMEOUT_S) -> None:
        from capcsim_crypten.parties import Parties

        chosen = next((known for known in get_args(Provider) if known == provider), None)
        if chosen is None:
            raise InputError(f"provider = {provider!r}: choose one of {', '.join(get_args(Provider))}")
        if argmax not in ARGMAX:
            raise InputError(f"argmax = {argmax!r}: choose one of {', '.join(ARGMAX)}")
        if not timeout_s > 0:
            raise InputError(f"timeout_s = {timeout_s}: must be positive")
        self.capabilities = replace(CAPABILITIES[chosen], argmax=ARGMAX[argmax])
        self._yao = argmax == "yao"
        self._parties: Parties = Parties(chosen, timeout_s=timeout_s)
        self._placed: WeakKeyDictionary[CryptenModel, Far] = WeakKeyDictionary()

    def prepare(self, model: Any, *, seed: int) -> Prepared:  # noqa: ARG002 (CrypTen takes no seed)
        """Compile to integer layers and read these as real numbers; raises UnsupportedModel."""
        from capcsim_crypten.deviations import Deviations, tolerance

        network = compile_model(model)
        plan = Plan.of(network)
        return Prepared(plan.public, CryptenModel(network, plan, tolerance(network, plan), Deviations()))

    def reference(self, prepared: Prepared, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Logits int64[B, C] of the same network in exact integers; raises InputError for a bad `x`."""
        model: CryptenModel = prepared.private
        return model.network.evaluate(model.network.encode(x)) << model.plan.reference_shift_bits

    def saturation(self, prepared: Prepared, x: NDArray[np.float32]) -> float:
        """The share of inputs and ReLU units that the reference clamps; CrypTen's ReLU does not."""
        return float(prepared.private.network.saturation(x))

    def open(self, querier: int, prepared: Prepared | None) -> tuple[CryptenSession, Transcript]:  # noqa: ARG002
        """Seeds and shares of the weights; base transfers for what Yao's protocol computes."""
        if prepared is None:
            guardian, transcript = self.open_voting(Role.GUARDIAN)
            return CryptenSession(None, guardian, {}), transcript
        from capcsim_crypten.party import open_pair

        model: CryptenModel = prepared.private
        zeros = {i: replace(w, weight=0 * w.weight, bias=0 * w.bias) for i, w in _weights(model).items()}
        calls = {
            Role.ANSWERER: (open_pair, (model.plan, self._place(model))),
            Role.QUERIER: (open_pair, (model.plan, zeros)),
        }
        shared, transcript = self._run(Step.SETUP, calls, keep=True)
        voting: VotingSession | None = None
        if self._yao:
            voting, base = self.open_voting(Role.ANSWERER)
            transcript = chained(base, transcript)
        return CryptenSession(prepared, voting, shared), transcript

    def infer(self, session: CryptenSession, x: NDArray[np.float32]) -> tuple[Shares, Transcript]:
        """Steps 1a and 1b; raises InputError for a bad `x`."""
        from capcsim_crypten.party import infer

        model = session.model()
        plan = model.plan
        real = plan.real(encode(x, plan.public), 0)
        calls = {
            Role.ANSWERER: (infer, (session.shared[Role.ANSWERER], 0 * real)),
            Role.QUERIER: (infer, (session.shared[Role.QUERIER], real)),
        }
        outputs, transcript = self._run(Step.INFER, calls)
        words = np.stack([outputs[Role.QUERIER], outputs[Role.ANSWERER]])
        # We hold both shares, as no party does, and so can tell what went wrong between them.
        model.deviations.note(model.network, plan, model.tolerance, x, (words[0] + words[1]).view(np.int64))
        values = (words << np.uint64(plan.crypten_shift_bits)) & np.uint64((1 << plan.public.ring_bits) - 1)
        return Shares(values, plan.public.ring_bits, plan.public.fraction_bits), transcript

    def argmax(self, session: CryptenSession, logits: Shares) -> tuple[Shares, Transcript]:  # type: ignore[override]
        """Step 1c: shares mod 2^32 of the one-hot argmax; the lowest index wins a tie."""
        if session.voting is not None:
            return super().argmax(session, logits)  # type: ignore[arg-type]
        from capcsim_crypten.party import argmax

        calls = {
            Role.ANSWERER: (argmax, (logits.values[1], logits.ring_bits)),
            Role.QUERIER: (argmax, (logits.values[0], logits.ring_bits)),
        }
        outputs, transcript = self._run(Step.ARGMAX, calls)
        words = np.stack([outputs[Role.QUERIER], outputs[Role.ANSWERER]])
        return Shares(words & np.uint64((1 << VOTE_RING_BITS) - 1), VOTE_RING_BITS, 0), transcript

    def details(self, session: CryptenSession, queries: int) -> dict[str, Any]:  # noqa: ARG002
        """How far from the reference this model's logits lay so far, in all of its sessions.

        `tolerance` is what tells a truncation that wrapped from one that did not.
        """
        model = session.model()
        return {"fraction_bits": PRECISION_BITS, "tolerance": model.tolerance, **asdict(model.deviations)}

    def processes(self) -> dict[Role, int]:
        """The process of each role, by its number in the operating system; none before the first session."""
        return self._parties.processes

    def close(self) -> None:
        """End the parties' processes."""
        self._placed.clear()
        self._parties.close()

    def _run(self, step: Step, calls: dict[Role, Any], *, keep: bool = False) -> tuple[dict[Role, Any], Transcript]:
        """Run a step in all processes, the dealer's too."""
        from capcsim_crypten.party import deal

        if Role.DEALER in self._parties.roles:
            calls[Role.DEALER] = (deal, (Phase.SETUP if step is Step.SETUP else Phase.ONLINE,))
        return self._parties.run(step, calls, keep=keep)

    def _place(self, model: CryptenModel) -> Far:
        """The weights, handed to the answering party's process once."""
        if model not in self._placed or not self._parties.keeps(self._placed[model]):
            self._placed[model] = self._parties.place(Role.ANSWERER, _weights(model))
        return self._placed[model]


def _weights(model: CryptenModel) -> dict[int, Any]:
    return model.plan.weights(model.network)
