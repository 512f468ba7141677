"""Long transcripts in fewer nodes, for simulations of many pairs.

A backend that streams sends thousands of messages for one batch; a simulation of hundreds of pairs would spend its time
on them. Here a run of one role's work and messages, in which it waits for nobody, becomes one stretch of work and one
message, as long as that is a small part of the transcript. Every second, byte and dependency stays. What may be lost
is overlap: a receiver gets the merged message later than it would have got the first of its parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.costs.transcripts import cpu_s, sent_bytes

FEW_NODES = 200
"""A transcript of so many nodes stays as it is."""
PARTS = 24
"""A merged node has at most this part of all seconds of its role, or of all bytes of its direction."""


@dataclass
class _Run:
    """Consecutive nodes of one role that become at most two: work, then a message."""

    first: int
    labels: tuple[Step, Phase]
    role: Role
    after: set[int]
    seconds: float = 0.0
    receiver: Role | None = None
    nbytes: int = 0
    alone: Compute | Message | None = None
    members: dict[int, bool] = field(default_factory=dict)
    """The old nodes, and whether each is a message."""
    before: set[int] = field(default_factory=set)
    """The first nodes of this run and of all that it waits for, which name them."""

    @property
    def computes(self) -> bool:
        """Whether there is any work in it."""
        return not all(self.members.values())


def condensed(transcript: Transcript) -> Transcript:
    """The same work and bytes in fewer nodes; nodes of scope QUERIER and QUERY stay as they are."""
    if len(transcript) <= FEW_NODES:
        return transcript
    most_s, most_bytes = cpu_s(transcript), sent_bytes(transcript)
    runs: list[_Run] = []
    under_way: dict[Role, _Run] = {}
    of: list[_Run] = []  # the run of each node so far
    for index, node in enumerate(transcript):
        role = node.role if isinstance(node, Compute) else node.sender
        run, needs = under_way.get(role), [of[other] for other in node.after]
        if run is None or not _takes(run, node, needs, most_s, most_bytes):
            run = _Run(index, (node.step, node.phase), role, set(), alone=None if node.scope is Scope.PAIR else node)
            run.before = {index}.union(*(other.before for other in needs))
            runs.append(run)
            under_way[role] = run
        _take(run, index, node)
        of.append(run)
    return _written(runs)


def _takes(
    run: _Run,
    node: Compute | Message,
    needs: Sequence[_Run],
    most_s: dict[str, float],
    most_bytes: dict[str, int],
) -> bool:
    """Whether a run may go on with a node that waits for these runs: with all of them behind it, and for not too long.

    A run that began before what the node waits for would have to begin later: what two roles do at the same time would
    come one after the other.
    """
    if run.alone is not None or node.scope is not Scope.PAIR or run.labels != (node.step, node.phase):
        return False
    if any(other.first not in run.before for other in needs):
        return False
    if isinstance(node, Compute):
        return (run.seconds + node.seconds) * PARTS <= most_s[run.role] or not node.seconds
    direction = f"{node.sender}->{node.receiver}"
    same = run.receiver in (None, node.receiver)
    return same and (run.receiver is None or (run.nbytes + node.nbytes) * PARTS <= most_bytes[direction])


def _take(run: _Run, index: int, node: Compute | Message) -> None:
    run.after |= {other for other in node.after if other not in run.members}
    run.members[index] = isinstance(node, Message)
    if isinstance(node, Compute):
        run.seconds += node.seconds
    else:
        run.receiver, run.nbytes = node.receiver, run.nbytes + node.nbytes


def _written(runs: list[_Run]) -> Transcript:
    """The runs' nodes, in the order in which they begin: nobody waits for what begins later."""
    nodes: list[Compute | Message] = []
    place: dict[int, int] = {}  # of each old node: the new one that it is part of
    for run in runs:
        after = tuple(sorted({place[index] for index in run.after}))
        labels = *run.labels, run.alone.scope if run.alone else Scope.PAIR
        work = message = -1
        if run.computes:
            work = len(nodes)
            nodes.append(Compute(run.role, run.seconds, *labels, after))
        if run.receiver is not None:
            message = len(nodes)
            nodes.append(Message(run.role, run.receiver, run.nbytes, *labels, (work,) if run.computes else after))
        place |= {index: message if sent else work for index, sent in run.members.items()}
    return tuple(nodes)
