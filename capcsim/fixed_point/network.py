"""A compiled model: its public structure, which may travel, and its owner's weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from capcsim.backend import PublicModel
from capcsim.errors import InputError, UnsupportedModel
from capcsim.fixed_point.bounds import RING_SIZES_BITS, ring_bits
from capcsim.fixed_point.layers import (
    LOCAL,
    RELU_BITS,
    WEIGHTED,
    Array,
    Input,
    Node,
    Relu,
    add_bias,
    apply_local,
    apply_nonlinear,
    apply_weights,
    largest,
)
from capcsim.fixed_point.layers import Weights as Weights
from capcsim.fixed_point.structure import check_nodes, window_values

MAX_BYTES = 1 << 24
"""The longest description of a network that `from_bytes` reads."""
CHUNK_VALUES = 1 << 21
"""How many values of the widest layer are held at once: the memory of an evaluation, near the processor."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a query becomes integers: x * 2^fraction_bits, rounded, saturated to [low, high].

    `low` and `high`, in encoded units, are one number for all features or one for each, row-major.
    """

    fraction_bits: int
    rounding: Literal["nearest", "floor"]
    low: tuple[int, ...]
    high: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PublicNetwork(PublicModel):
    """All that the other side learns of a model: its layers, without a weight, and how inputs are encoded.

    `layers` are all nodes but the input; `fraction_bits` are the logits'.
    """

    layers: tuple[Annotated[Node, Field(discriminator="kind")], ...]
    encoding: Encoding

    @classmethod
    def of(cls, nodes: tuple[Node, ...], encoding: Encoding, *, ring_bits: int, fraction_bits: int) -> Self:
        """The network of these nodes; what follows from them is filled in."""
        return cls(
            layers=nodes[1:],
            input_shape=nodes[0].shape,
            classes=nodes[-1].shape[0],
            ring_bits=ring_bits,
            fraction_bits=fraction_bits,
            encoding=encoding,
        )

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The input and the layers: a node's `sources` are positions here."""
        return (Input(self.input_shape), *self.layers)

    def to_bytes(self) -> bytes:
        """JSON, in one canonical form."""
        return _adapter().dump_json(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "PublicNetwork":
        """What `to_bytes` wrote, by whomever; raises InputError for anything that is not a sound network."""
        if len(data) > MAX_BYTES:
            raise InputError(f"a model's structure has {len(data)} bytes; at most {MAX_BYTES} are read")
        try:
            network: PublicNetwork = _adapter().validate_json(data)
            _check(network)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"a model's structure is damaged at {where or 'its start'}: {first['msg']}") from None
        except ValueError as error:
            raise InputError(f"a model's structure is unsound: {error}") from None
        if network.to_bytes() != data:
            raise InputError("a model's structure is not in its canonical form; take it from to_bytes")
        return network


@cache
def _adapter() -> TypeAdapter[PublicNetwork]:
    return TypeAdapter(PublicNetwork)


def _check(network: PublicNetwork) -> None:
    """What the types do not say; raises ValueError."""
    if network.ring_bits not in RING_SIZES_BITS:
        raise ValueError(f"ring_bits = {network.ring_bits}; allowed: {', '.join(map(str, RING_SIZES_BITS))}")
    if not 0 <= network.fraction_bits < network.ring_bits:
        raise ValueError(f"logits with {network.fraction_bits} fraction bits mod 2^{network.ring_bits}")
    check_nodes(network.nodes, network.ring_bits)
    _check_encoding(network.encoding, int(np.prod(network.input_shape)), network.ring_bits)
    if network.classes != network.layers[-1].shape[0]:
        raise ValueError(f"{network.classes} classes, and {network.layers[-1].shape[0]} logits")


def _check_encoding(encoding: Encoding, features: int, ring_bits: int) -> None:
    if not 0 <= encoding.fraction_bits < ring_bits:
        raise ValueError(f"inputs with {encoding.fraction_bits} fraction bits mod 2^{ring_bits}")
    if len(encoding.low) != len(encoding.high) or len(encoding.low) not in (1, features):
        raise ValueError(f"{len(encoding.low)} and {len(encoding.high)} limits for {features} features")
    limit = 1 << min(ring_bits - 1, 31)
    if not all(-limit < low <= high < limit for low, high in zip(encoding.low, encoding.high, strict=True)):
        raise ValueError("a feature's range is empty or too wide")


def encode(x: NDArray[np.float32], public: PublicNetwork) -> NDArray[np.int32]:
    """Inputs float32[B, *input_shape] as integers, saturated to the model's public range; raises InputError."""
    scaled, (low, high) = _scaled(x, public), _limits(public)
    return np.clip(scaled, low, high).astype(np.int32)


def _scaled(x: NDArray[np.float32], public: PublicNetwork) -> Array:
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiu":
        found = f"numpy array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise InputError(f"inputs are a {found}; give a numpy array of float32, for a torch tensor x.numpy()")
    if x.shape[1:] != public.input_shape or len(x) == 0:
        shape = ", ".join(map(str, public.input_shape))
        raise InputError(f"inputs have shape {x.shape}; the model takes (B, {shape})")
    if not np.isfinite(x).all():
        raise InputError("inputs hold a NaN or an infinity; clean or impute them first")
    scaled = x.astype(np.float64) * (1 << public.encoding.fraction_bits)
    return np.rint(scaled) if public.encoding.rounding == "nearest" else np.floor(scaled)


def _limits(public: PublicNetwork) -> tuple[Array, Array]:
    """Low and high, ready to meet [B, *input_shape]."""
    shape = (1,) if len(public.encoding.low) == 1 else public.input_shape
    low, high = (np.array(limits, np.float64).reshape(shape) for limits in (public.encoding.low, public.encoding.high))
    return low, high


@dataclass(frozen=True)
class Network:
    """A compiled model: its public part, and the weights of its Linear and Conv2d nodes by their positions."""

    public: PublicNetwork
    weights: dict[int, Weights]

    @classmethod
    def of(
        cls, nodes: tuple[Node, ...], weights: dict[int, Weights], encoding: Encoding, *, fraction_bits: int
    ) -> Self:
        """The network of these nodes, in the smallest ring; raises UnsupportedModel."""
        bits = ring_bits(nodes, weights, (min(encoding.low), max(encoding.high)), fraction_bits)
        public = PublicNetwork.of(nodes, encoding, ring_bits=bits, fraction_bits=fraction_bits)
        try:
            _check(public)
        except ValueError as error:
            raise UnsupportedModel("model", str(error)) from error
        return cls(public, weights)

    def encode(self, x: NDArray[np.float32]) -> NDArray[np.int32]:
        """Inputs float32[B, *input_shape] as integers; raises InputError."""
        return encode(x, self.public)

    def evaluate(self, encoded: NDArray[np.int32]) -> NDArray[np.int64]:
        """Logits int64[B, C] with the public part's fraction bits; the same for every way of batching."""
        logits = np.empty((len(encoded), self.public.classes), np.int64)
        for rows in self._chunks(len(encoded)):
            for _, _, output in self._run(encoded[rows].astype(np.float64)):
                last = output
            logits[rows] = last
        return logits

    def saturation(self, x: NDArray[np.float32]) -> float:
        """The share of ReLU units and inputs that lay outside their ranges (a ReLU's: above), over all of `x`.

        float32[B, *input_shape]; raises InputError.
        """
        scaled, (low, high) = _scaled(x, self.public), _limits(self.public)
        clamped = int(((scaled < low) | (scaled > high)).sum())
        units = scaled.size
        for rows in self._chunks(len(x)):
            for node, sources, output in self._run(np.clip(scaled[rows], low, high)):
                if isinstance(node, Relu):
                    limit = float(1 << (node.drop_bits + RELU_BITS))
                    clamped += int((largest(node.pool, sources[0]) >= limit).sum())
                    units += output.size
        return clamped / units

    def _chunks(self, batch: int) -> Iterator[slice]:
        """Rows that are evaluated together, so that the windows of 10,000 images need no gigabytes."""
        widest = max(window_values(node) for node in self.public.nodes)
        step = max(1, CHUNK_VALUES // widest)
        return (slice(start, start + step) for start in range(0, batch, step))

    def _run(self, x: Array) -> Iterator[tuple[Node, list[Array], Array]]:
        """Every node with its sources' values and its own; a value is dropped after its last use."""
        nodes = self.public.nodes
        last_use = {source: position for position, node in enumerate(nodes) for source in node.sources}
        values = {0: x}
        for position, node in enumerate(nodes):
            sources = [values[source] for source in node.sources]
            output = x if isinstance(node, Input) else self._apply(position, node, sources)
            yield node, sources, output
            values[position] = output
            for source in node.sources:
                if last_use[source] == position:
                    values.pop(source, None)

    def _apply(self, position: int, node: Any, sources: list[Array]) -> Array:
        if isinstance(node, WEIGHTED):
            owned = self.weights[position]
            return add_bias(node, owned.bias, apply_weights(node, owned.weight, sources[0]))
        return apply_local(node, *sources) if isinstance(node, LOCAL) else apply_nonlinear(node, sources[0])
