"""Steps 1a and 1b in the clear: the answering party sees the input and evaluates its model on it.

Security "none", because of that. The logits are secret-shared all the same, so that every later step is the
real one: the argmax and the release are garbled circuits, as for every backend.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import Capabilities, Phase, Prepared, Role, Scope, Shares, Step, Transcript
from capcsim.crypto.shares import share
from capcsim.errors import InputError
from capcsim.fixed_point import LAYERS, Network, compile_model, encode
from capcsim.twoparty.programs import Mark, Recv, Send, Steps, run_local
from capcsim.twoparty.voting import YAO, TappedVoting, VotingSession, argmax_programs, release_programs


@dataclass(frozen=True)
class PlaintextSession:
    """One pair. `prepared` is None for the pair of a querying party and the privacy guardian."""

    querier: int
    prepared: Prepared | None
    voting: VotingSession


class PlaintextBackend(TappedVoting):
    """Plaintext inference on the fixed-point network that the exact backends share."""

    name: ClassVar[str] = "plaintext"
    capabilities: ClassVar[Capabilities] = Capabilities(
        security="none",
        exact=True,
        leaks={Role.QUERIER: "nothing", Role.ANSWERER: "the query and every logit"},
        layers=LAYERS,
        needs=("numpy", "torch"),
        argmax=YAO,
        release=YAO,
        offers=frozenset({"programs", "saturation", "tap"}),
    )

    def prepare(self, model: Any, *, seed: int) -> Prepared:  # noqa: ARG002 (nothing here is random)
        """Compile to integer layers; raises UnsupportedModel."""
        network = compile_model(model)
        return Prepared(network.public, network)

    def reference(self, prepared: Prepared, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Logits int64[B, C] with the model's fraction bits; raises InputError for a bad `x`."""
        network: Network = prepared.private
        return network.evaluate(network.encode(x))

    def saturation(self, prepared: Prepared, x: NDArray[np.float32]) -> float:
        """The share of inputs and ReLU units that were clamped."""
        network: Network = prepared.private
        return network.saturation(x)

    def open(self, querier: int, prepared: Prepared | None) -> tuple[PlaintextSession, Transcript]:
        """Inference needs no set-up; steps 1c and 3 need their base transfers."""
        voting, transcript = self.open_voting(Role.GUARDIAN if prepared is None else Role.ANSWERER)
        return PlaintextSession(querier, prepared, voting), transcript

    def infer(self, session: PlaintextSession, x: NDArray[np.float32]) -> tuple[Shares, Transcript]:
        """Steps 1a and 1b; raises InputError for a bad `x`."""
        if session.prepared is None:
            raise InputError("this session is the privacy guardian's, who has no model; open one with a model")
        network: Network = session.prepared.private
        public = network.public
        encode(x, public)
        querier, answerer = self.programs(Step.INFER)
        outputs, transcript = run_local(
            (Role.QUERIER, Role.ANSWERER),
            (querier(public, x), answerer(network)),
            step=Step.INFER,
            tap=self.tap,
        )
        return Shares(np.stack(outputs), public.ring_bits, public.fraction_bits), transcript

    def programs(self, step: Step) -> tuple[Callable[..., Steps], Callable[..., Steps]]:
        """The role generators of infer, argmax and release; raises InputError for another step."""
        match step:
            case Step.INFER:
                return _infer_querier, _infer_answerer
            case Step.ARGMAX:
                return argmax_programs()
            case Step.RELEASE:
                return release_programs()
        raise InputError(f"step {step} has no two-party program here; ask for infer, argmax or release")

    def close(self) -> None:
        """Nothing is held."""


def _infer_querier(public: Any, x: NDArray[np.float32]) -> Steps:
    yield Mark(Phase.ONLINE, Scope.QUERY)
    encoded = encode(x, public).tobytes()
    yield Mark(scope=Scope.PAIR)
    yield Send(encoded)
    logits = yield Recv()
    return np.frombuffer(logits, np.uint64).reshape(len(x), public.classes)


def _infer_answerer(network: Network) -> Steps:
    encoded = yield Recv()
    x = np.frombuffer(encoded, np.int32).reshape(-1, *network.public.input_shape)
    logits = share(network.evaluate(x), network.public.ring_bits)
    yield Send(logits[0].tobytes())
    return logits[1]
