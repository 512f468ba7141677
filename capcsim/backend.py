"""The interface between CaPC and the cryptography that runs it. Types, and the one way to ask what is offered.

A backend evaluates one answering party's model on one querying party's inputs so that both end with
additive shares (steps 1a to 1c of the paper, section 3.2), and lets the privacy guardian and the
querying party open one noisy argmax (step 3). Every call also returns a `Transcript`: what was computed
and what was sent, as it was measured while it ran. `capcsim.twoparty.voting.Voting` brings `argmax` and
`release` for a backend that only infers; `capcsim.conformance` is the test kit that a backend must pass.

What else a backend has, it declares by name in `Capabilities.offers`: each `Offer` in `OFFERS` has a protocol that
says what it then must have. Nothing is tried: `AHEAD.of(backend)` is the backend, or None where it declares nothing.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

VOTE_RING_BITS = 32
"""Votes are one-hot shares mod 2^32 for every backend, so that votes of different backends add up."""


SECURITY = ("none", "semi-honest", "semi-honest with trusted dealer", "trusted first party")
"""What `Capabilities.security` may say."""


class Role(StrEnum):
    """Who computes or sends."""

    QUERIER = "querier"
    ANSWERER = "answerer"
    GUARDIAN = "guardian"
    DEALER = "dealer"


class Step(StrEnum):
    """The protocol's steps: infer is 1a and 1b, argmax 1c, aggregate 2, release 3."""

    SETUP = "setup"
    INFER = "infer"
    ARGMAX = "argmax"
    AGGREGATE = "aggregate"
    RELEASE = "release"


class Phase(StrEnum):
    """When work can be done: once, before the input is known, or only when it is known."""

    SETUP = "setup"
    OFFLINE = "offline"
    ONLINE = "online"


class Scope(StrEnum):
    """How often a node of a transcript runs: once per querier, once per query batch, or once per pair."""

    QUERIER = "querier"
    QUERY = "query"
    PAIR = "pair"


@dataclass(frozen=True, slots=True)
class Compute:
    """A stretch of one role's work: single-thread CPU seconds, waiting excluded.

    `after` holds the indices, in the transcript, of the nodes that must end first.
    """

    role: Role
    seconds: float
    step: Step
    phase: Phase
    scope: Scope
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One payload on its way; its bytes are counted once, at the sender. Always one pair's own."""

    sender: Role
    receiver: Role
    nbytes: int
    step: Step
    phase: Phase
    scope: Scope
    after: tuple[int, ...]


Transcript: TypeAlias = tuple[Compute | Message, ...]
"""A directed acyclic graph for one pair: each node waits for the earlier nodes in its `after`."""

Program: TypeAlias = Generator[Any, Any, Any]
"""One role of a two-party program; `capcsim.twoparty.programs` says what it may yield."""

Tap: TypeAlias = Callable[[Role, Role, bytes], None]
"""Called with (sender, receiver, payload) for each message: how tests and the walkthrough look inside."""

Progress: TypeAlias = Callable[[float], None]
"""Called with the share of the work that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Additive shares in Z_2^ring_bits of fixed-point numbers.

    `values` is uint64[2, B, C]; axis 0 is (querying party, the other), B queries, C classes. The sum over
    axis 0 mod 2^ring_bits, read as a signed number, is the value times 2^fraction_bits.
    """

    values: NDArray[np.uint64]
    ring_bits: int
    fraction_bits: int


@dataclass(frozen=True, slots=True)
class ReleaseNoise:
    """What the privacy guardian adds in step 3; it alone knows these numbers.

    `votes` int64[B, C] is added to the counts before the argmax. With a `threshold` (Confident-GNMax) a
    query is answered only if its largest count plus `top` (int64[B], drawn apart) reaches it. `ring_bits` is
    public: counts, noise and their sums are known to fit in it as signed numbers.
    """

    votes: NDArray[np.int64]
    threshold: int | None = None
    top: NDArray[np.int64] | None = None
    ring_bits: int = VOTE_RING_BITS


@dataclass(frozen=True, slots=True)
class Release:
    """What the querying party, and nobody else, learns in step 3.

    `labels` int64[B], -1 where unanswered; `answered` bool[B], all true without a threshold.
    """

    labels: NDArray[np.int64]
    answered: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do and whom it protects from whom, without importing what it needs.

    `security` is one of SECURITY;
    `exact` says whether `infer` equals `reference` bit for bit; `leaks` maps a role to what it learns of
    the other side; `layers` are the model layers that `prepare` takes; `needs` are the top-level import
    names that it needs; `argmax` and `release` say by what means steps 1c and 3 are computed; `offers` are names
    of OFFERS, what it has besides the methods of `Backend`.
    """

    security: str
    exact: bool
    leaks: dict[Role, str]
    layers: tuple[str, ...]
    needs: tuple[str, ...]
    argmax: str
    release: str
    offers: frozenset[str] = frozenset()


class Layer(Protocol):
    """One layer of a prepared model: a frozen value without a weight. Its text, `str(layer)`, names it in tables.

    In `sources` 0 is the model's input and i the output of `layers[i - 1]`; `shape` is the output's, without the
    batch. What else its cost depends on (kernel, stride, padding, trees, depth) are attributes that each kind has of
    its own, as the classes in `capcsim.fixed_point.layers` have.
    """

    @property
    def kind(self) -> str:
        """What it does."""

    @property
    def sources(self) -> tuple[int, ...]:
        """What it takes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """What it gives."""


@dataclass(frozen=True, slots=True)
class PublicModel:
    """All of a prepared model that the other side may learn, and all that its cost depends on.

    A cost can be estimated from it alone, for a model that never ran.
    """

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    classes: int
    ring_bits: int
    fraction_bits: int

    def takes(self, layer: Layer) -> tuple[tuple[int, ...], ...]:
        """The shapes of what a layer takes, without the batch."""
        return tuple(self.layers[i - 1].shape if i else self.input_shape for i in layer.sources)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model made ready for a backend: what is public, and the weights that stay with its owner."""

    public: PublicModel
    private: Any


Session: TypeAlias = Any
"""What `open` returns for one pair; only the backend that made it looks inside."""


@runtime_checkable
class Backend(Protocol):
    """Confidential inference between a querying and an answering party, and the two small circuits after it.

    A class's `capabilities` are those with its options' defaults; an instance made with others may have its own.
    """

    name: ClassVar[str]
    capabilities: Capabilities

    def prepare(self, model: Any, *, seed: int) -> Prepared:
        """Check a torch module or scikit-learn estimator and make it ready; raises UnsupportedModel.

        Every check of the model is made here, before any cryptography.
        """

    def reference(self, prepared: Prepared, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Logits int64[B, C], scaled by 2^fraction_bits, in the protocol's own arithmetic, without cryptography.

        `x` is float32[B, *input_shape]; raises InputError for another shape, a NaN or an infinity.
        """

    def open(self, querier: int, prepared: Prepared | None) -> tuple[Session, Transcript]:
        """Set up one pair: the querying party with a model's owner, or (None) with the privacy guardian.

        Keys are made once per `querier`, its number in the collaboration.
        """

    def infer(self, session: Session, x: NDArray[np.float32]) -> tuple[Shares, Transcript]:
        """Steps 1a and 1b: shares of the logits of `x`, float32[B, *input_shape]; raises InputError."""

    def argmax(self, session: Session, logits: Shares) -> tuple[Shares, Transcript]:
        """Step 1c: shares mod 2^32 of the one-hot argmax; the lowest index wins a tie."""

    def release(
        self,
        session: Session,
        querier_sum: NDArray[np.uint64],
        guardian_sum: NDArray[np.uint64],
        noise: ReleaseNoise,
    ) -> tuple[Release, Transcript]:
        """Step 3 on the two sums of vote shares, uint64[B, C] mod 2^32, with the guardian's session.

        The label is the argmax of the counts plus `noise.votes`; the lowest index wins a tie.
        """

    def close(self) -> None:
        """Free what the backend holds (processes, files); calling it again does nothing."""


class TwoPartyBackend(Backend, Protocol):
    """Offers "programs": its roles can run as processes of their own."""

    def programs(self, step: Step) -> tuple[Callable[..., Program], Callable[..., Program]]:
        """The two role generators of infer, argmax, release and maybe setup: the querying party's, and the other's.

        Raises InputError for another step.
        """


class AheadBackend(Backend, Protocol):
    """Offers "ahead": it can do a part of `infer` before the inputs are known."""

    def prepare_ahead(self, session: Session, queries: int) -> Transcript:
        """The phase ahead for one later `infer` of so many queries, whose transcript has these nodes too.

        Raises InputError when there is no room to keep it.
        """


class DetailedBackend(Backend, Protocol):
    """Offers "details": it has more to tell of a session than a transcript can."""

    def details(self, session: Session, queries: int) -> dict[str, Any]:
        """Parameters and storage for a batch of so many queries, as JSON; units stand in the names."""


class SaturatingBackend(Backend, Protocol):
    """Offers "saturation": its arithmetic clamps what is out of range."""

    def saturation(self, prepared: Prepared, x: NDArray[np.float32]) -> float:
        """The share of inputs and activations of `x` that were clamped; raises InputError."""


class TappedBackend(Backend, Protocol):
    """Offers "tap": whoever sets it sees every message of every step; None, as at first, is nobody."""

    tap: Tap | None


class TellingBackend(Backend, Protocol):
    """Offers "progress": whoever sets it is told how far each call of `infer` is, and of `prepare_ahead`."""

    progress: Progress | None


T = TypeVar("T", bound=Backend)


@dataclass(frozen=True, slots=True)
class Offer(Generic[T]):
    """What a backend may have besides the methods of `Backend`: its name in `Capabilities.offers`, and its member."""

    name: str
    member: str

    def of(self, backend: Backend) -> T | None:
        """The backend as one that has it; None where it does not declare it."""
        return cast("T", backend) if self.name in backend.capabilities.offers else None

    def is_in(self, backend: Backend) -> bool:
        """Whether the member is there, declared or not: for the checks of what a backend says of itself."""
        return hasattr(backend, self.member)


PROGRAMS: Offer[TwoPartyBackend] = Offer("programs", "programs")
AHEAD: Offer[AheadBackend] = Offer("ahead", "prepare_ahead")
DETAILS: Offer[DetailedBackend] = Offer("details", "details")
SATURATION: Offer[SaturatingBackend] = Offer("saturation", "saturation")
TAP: Offer[TappedBackend] = Offer("tap", "tap")
PROGRESS: Offer[TellingBackend] = Offer("progress", "progress")
OFFERS: tuple[Offer[Any], ...] = (PROGRAMS, AHEAD, DETAILS, SATURATION, TAP, PROGRESS)
"""All that can be declared."""
