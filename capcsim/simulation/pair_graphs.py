"""The steps of a pair as one graph: each role goes from one step to the next on its own, as it would in life.

It does not wait for the other to be through. Work of scope QUERIER or QUERY runs once, in a graph of its own, and the
pairs that share it wait for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from capcsim.backend import Compute, Message, Role, Scope, Step, Transcript
from capcsim.errors import RecordError
from capcsim.simulation.engine.engine import Engine, Node
from capcsim.simulation.engine.graphs import GATE, MESSAGE, WORK
from capcsim.simulation.topology import ROLE_NUMBERS

MEASURE_AGAIN = "its costs were not measured so: begin another run, with --measure"
SharedNode: TypeAlias = tuple[Scope, Step, int]
"""Work that runs once, and its place among its step's of that scope."""
ENDS = (Role.GUARDIAN, Role.QUERIER)
"""A graph's latches are counted down when these are through."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A template, its gates, and what they wait for: shared work, or that a role may begin.

    `ends` are the roles of ENDS for which it has something to do, `directions` those in which messages go; `nodes` are
    those of the transcripts, None for gates.
    """

    template: int
    shared: tuple[tuple[int, SharedNode], ...]
    begins: tuple[tuple[int, Role], ...]
    ends: frozenset[Role]
    roles: frozenset[Role]
    directions: frozenset[tuple[Role, Role]]
    nodes: tuple[Compute | Message | None, ...]

    def parts(self) -> Iterator[tuple[Compute | Message, Role]]:
        """Each node with each role that takes part in it."""
        return ((node, role) for node in self.nodes if node is not None for role in _roles(node))


def joined(engine: Engine, transcripts: Sequence[Transcript], begins: Sequence[Role] = ()) -> Graph:
    """One transcript a step, one after the other for each role; those of `begins` do not begin by themselves."""
    built = _Built()
    for role in begins:
        built.through[role] = built.gate((), held=True)
    gates = tuple((number, role) for role, number in built.through.items())
    for transcript in transcripts:
        built.add(transcript)
    for latch, role in enumerate(ENDS):
        if role in built.through:
            built.gate((built.through[role],), latch=latch)
    return built.graph(engine, gates)


def shared_work(engine: Engine, transcript: Transcript, scope: Scope) -> Graph:
    """A transcript's work of one scope, each node with a latch of its own.

    Raises RecordError where it waits for work of a pair.
    """
    built, latch, keys = _Built(), 0, shared_keys(transcript)
    for number, (node, key) in enumerate(zip(transcript, keys, strict=True)):
        if key is None or node.scope is not scope:
            built.places.append(-1)
            continue
        after = []
        for before in node.after:
            known = keys[before]
            if known is None:
                shared = f"node {number} of a transcript of step {node.step} is shared by pairs"
                raise RecordError(f"{shared}, and waits for one; {MEASURE_AGAIN}")
            after.append(built.places[before] if known[0] is scope else built.wait(known))
        built.places.append(built.node(node, after, latch=latch))
        latch += 1
    return built.graph(engine, ())


def shared_keys(transcript: Transcript) -> list[SharedNode | None]:
    """Of each node the shared work that it is, or None."""
    counts = dict.fromkeys(Scope, 0)
    found: list[SharedNode | None] = []
    for node in transcript:
        found.append(None if node.scope is Scope.PAIR else (node.scope, node.step, counts[node.scope]))
        counts[node.scope] += 1
    return found


class _Built:
    """A graph that grows: `through` has the gate that each role has passed when it is through with the steps so far.

    `places` are those of a transcript's nodes in the graph.
    """

    def __init__(self) -> None:
        self.through: dict[Role, int] = {}
        self.places: list[int] = []
        self._nodes: list[Node] = []
        self._sources: list[Compute | Message | None] = []
        self._shared: list[tuple[int, SharedNode]] = []

    def gate(self, after: Sequence[int], *, held: bool = False, latch: int = -1) -> int:
        """A node that takes no time."""
        return self._append(Node(GATE, after=tuple(after), held=held, latch=latch), None)

    def wait(self, key: SharedNode) -> int:
        """A gate that waits for shared work."""
        number = self.gate((), held=True)
        self._shared.append((number, key))
        return number

    def node(self, node: Compute | Message, after: Sequence[int], latch: int = -1) -> int:
        """A transcript's node."""
        if isinstance(node, Compute):
            made = Node(WORK, ROLE_NUMBERS[node.role], amount=node.seconds, after=tuple(after), latch=latch)
        else:
            ends = ROLE_NUMBERS[node.sender], ROLE_NUMBERS[node.receiver]
            made = Node(MESSAGE, *ends, node.nbytes, tuple(after), latch)
        return self._append(made, node)

    def add(self, transcript: Transcript) -> None:
        """One step more."""
        self.places, earlier = [], dict(self.through)
        own: dict[Role, list[int]] = {}
        for node, key in zip(transcript, shared_keys(transcript), strict=True):
            after = [self.places[before] for before in node.after]
            actor = _actor(node)
            if key is not None:
                self.places.append(self.wait(key))
            else:
                if actor in earlier and all(_actor(transcript[before]) is not actor for before in node.after):
                    after.append(earlier[actor])
                self.places.append(self.node(node, after))
            # A role is through when its work is done and what it was sent has come; what it sent may be on its way.
            own.setdefault(node.role if isinstance(node, Compute) else node.receiver, []).append(self.places[-1])
        for role, nodes in own.items():
            before = [earlier[role]] if role in earlier else []
            self.through[role] = self.gate([*before, *self._last(nodes)])

    def graph(self, engine: Engine, begins: tuple[tuple[int, Role], ...]) -> Graph:
        """As the engine has it from now on."""
        nodes = [node for node in self._sources if node is not None]
        directions = frozenset((node.sender, node.receiver) for node in nodes if isinstance(node, Message))
        roles = frozenset(role for node in nodes for role in _roles(node))
        template = engine.template(self._nodes)
        ends = frozenset(ENDS) & self.through.keys()
        return Graph(template, tuple(self._shared), begins, ends, roles, directions, tuple(self._sources))

    def _last(self, nodes: Sequence[int]) -> Iterator[int]:
        """Those of some nodes that none of the others waits for."""
        waited = {before for number in nodes for before in self._nodes[number].after}
        return (number for number in nodes if number not in waited)

    def _append(self, node: Node, source: Compute | Message | None) -> int:
        self._nodes.append(node)
        self._sources.append(source)
        return len(self._nodes) - 1


def _roles(node: Compute | Message) -> tuple[Role, ...]:
    return (node.role,) if isinstance(node, Compute) else (node.sender, node.receiver)


def _actor(node: Compute | Message) -> Role:
    """Who does it: the one that computes, or sends."""
    return node.role if isinstance(node, Compute) else node.sender
