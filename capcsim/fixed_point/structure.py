"""Whether nodes make a sound network: what the compiler has to obey, and what a peer cannot get around."""

from collections.abc import Sequence
from math import prod

from capcsim.fixed_point.layers import (
    NONLINEAR,
    Add,
    Conv2d,
    Input,
    Linear,
    Node,
    Pool,
    Relu,
    Shift,
    SumPool,
    TreePaths,
    Truncate,
    output_shape,
)

MAX_NODES = 1 << 12
MAX_VALUES = 1 << 24
"""The most elements of one value, for one query."""
MAX_WEIGHTS = 1 << 26
"""The most weights of one layer, and the most values in all windows of one layer, for one query."""
MAX_TOTAL = 1 << 27
"""The same over all layers of a network."""
MAX_SIZE = 1 << 12
"""The largest kernel, stride or padding."""
MAX_POOLED = 1 << 8
"""The most values of which one circuit takes the largest."""
MAX_CIRCUITS = 32
"""The most different nonlinear layers."""
MAX_TREE_DEPTH = 12


def check_nodes(nodes: Sequence[Node], ring_bits: int) -> None:
    """Raise ValueError with a sentence that names the first node that is wrong."""
    if not 2 <= len(nodes) <= MAX_NODES:
        raise ValueError(f"{len(nodes)} nodes, where 2 to {MAX_NODES} are allowed")
    for position in range(len(nodes)):
        try:
            _check_node(position, nodes, ring_bits)
        except ValueError as error:
            raise ValueError(f"node {position}: {error}") from None
    total = sum(prod(node.shape) + _work(node) for node in nodes)
    _require(total <= MAX_TOTAL, f"{total} values and weights, where {MAX_TOTAL} are allowed")
    circuits = {_circuit(node) for node in nodes if isinstance(node, NONLINEAR)}
    _require(len(circuits) <= MAX_CIRCUITS, f"{len(circuits)} different nonlinear layers, more than {MAX_CIRCUITS}")
    _require(len(nodes[-1].shape) == 1, "the last node does not give one row of logits per query")
    _require(nodes[-1].shape[0] >= 2, "fewer than two classes")


def _check_node(position: int, nodes: Sequence[Node], ring_bits: int) -> None:
    node = nodes[position]
    _require(isinstance(node, Input) == (position == 0), "the input, and only the input, comes first")
    _require(all(0 <= source < position for source in node.sources), "a source is not an earlier node")
    _require(len(node.sources) == _arity(node), "has a wrong number of sources")
    _require(bool(node.shape) and min(node.shape) >= 1, "an empty shape")
    _check_parameters(node, ring_bits)
    found = output_shape(node, [nodes[source].shape for source in node.sources])
    _require(found == node.shape, f"has shape {found}, not {node.shape}")
    _require(prod(node.shape) <= MAX_VALUES, f"has more than {MAX_VALUES} values")
    _require(_work(node) <= MAX_WEIGHTS, f"has more than {MAX_WEIGHTS} weights or values in windows")


def _check_parameters(node: Node, ring_bits: int) -> None:
    """Numbers that a shape does not show."""
    match node:
        case Linear():
            _require(len(node.shape) == 1 and node.inputs >= 1, "a linear layer gives one row")
        case Conv2d():
            _require(len(node.shape) == 3 and node.inputs >= 1, "a convolution gives feature maps")
            _check_window(node)
        case SumPool():
            _check_window(node)
        case Shift():
            _require(0 <= node.bits < ring_bits, f"shifts by {node.bits} bits mod 2^{ring_bits}")
        case Relu() | Truncate():
            # The sign and at least one more bit have to be left.
            _require(0 <= node.drop_bits <= ring_bits - 2, f"drops {node.drop_bits} bits mod 2^{ring_bits}")
            if node.pool:
                _check_window(node.pool)
                _require(prod(node.pool.kernel) <= MAX_POOLED, f"pools more than {MAX_POOLED} values")
                _require(isinstance(node, Relu) or node.pool.padding == (0, 0), "pads a max pool without a ReLU")
        case TreePaths():
            _require(1 <= node.depth <= MAX_TREE_DEPTH, f"has depth {node.depth}")
            _require(1 <= node.trees <= MAX_VALUES, f"has {node.trees} trees")
        case _:
            pass


def _check_window(window: Pool | SumPool | Conv2d) -> None:
    _require(all(1 <= n <= MAX_SIZE for n in (*window.kernel, *window.stride)), "a kernel or stride out of range")
    limits = (MAX_SIZE, MAX_SIZE) if isinstance(window, Conv2d) else tuple(size // 2 for size in window.kernel)
    fits = all(0 <= n <= limit for n, limit in zip(window.padding, limits, strict=True))
    _require(fits, "a padding out of range; a pool's is at most half its kernel")


def _circuit(node: Node) -> tuple[object, ...]:
    """What a circuit is built from."""
    match node:
        case Relu() | Truncate():
            return node.kind, node.pool and node.pool.kernel, node.drop_bits
        case TreePaths():
            return node.kind, node.depth
        case _:
            return (node.kind,)


def _arity(node: Node) -> int:
    return {Input: 0, Add: 2}.get(type(node), 1)


def _work(node: Node) -> int:
    """Weights, or values that windows hold, whichever is more."""
    match node:
        case Linear():
            return prod(node.weight_shape)
        case Conv2d():
            return max(prod(node.weight_shape), window_values(node))
        case SumPool() | Relu() | Truncate():
            return window_values(node)
        case _:
            return 0


def window_values(node: Node) -> int:
    """How many values a layer lays out for one query: those of all its windows."""
    match node:
        case Conv2d():
            return prod(node.shape[1:]) * node.inputs * prod(node.kernel)
        case SumPool():
            return prod(node.shape) * prod(node.kernel)
        case Relu() | Truncate() if node.pool:
            return prod(node.shape) * prod(node.pool.kernel)
        case _:
            return prod(node.shape)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)
