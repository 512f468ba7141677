"""Transcripts as data: sums over them, and their form in JSON."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step, Transcript
from capcsim.errors import RecordError

Json = list[list[Any]]


def cpu_s(transcript: Transcript) -> dict[str, float]:
    """CPU seconds of each role."""
    total: dict[str, float] = defaultdict(float)
    for node in transcript:
        if isinstance(node, Compute):
            total[node.role] += node.seconds
    return dict(total)


def cpu_spread(transcripts: Sequence[Transcript]) -> dict[str, dict[str, float]]:
    """How far apart repeats lie: the least, the median and the most CPU seconds of each role."""
    rows = [cpu_s(transcript) for transcript in transcripts]
    return {role: spread([row.get(role, 0.0) for row in rows]) for role in sorted(set().union(*rows))}


def spread(values: Sequence[float]) -> dict[str, float]:
    """The least, the median and the most."""
    return {"low": min(values), "median": median(values), "high": max(values)}


def sent_bytes(transcript: Transcript) -> dict[str, int]:
    """Bytes of each direction, as "querier->answerer"."""
    total: dict[str, int] = defaultdict(int)
    for node in transcript:
        if isinstance(node, Message):
            total[f"{node.sender}->{node.receiver}"] += node.nbytes
    return dict(total)


def rounds(transcript: Transcript) -> int:
    """Changes of direction on the chain of messages that has most of them."""
    # For each node: the most changes on a chain that ends in it, by the sender of the chain's last message.
    chains: list[dict[Role, int]] = []
    for node in transcript:
        before: dict[Role, int] = {}
        for index in node.after:
            for sender, changes in chains[index].items():
                before[sender] = max(before.get(sender, 0), changes)
        if isinstance(node, Message):
            changed = max((n + (sender is not node.sender) for sender, n in before.items()), default=0)
            before = {node.sender: changed}
        chains.append(before)
    return max((changes for chain in chains for changes in chain.values()), default=0)


def of_phase(transcript: Transcript, phase: Phase) -> tuple[Compute | Message, ...]:
    """The nodes of one phase, for summing; their `after` still counts in the whole transcript."""
    return tuple(node for node in transcript if node.phase is phase)


def to_json(transcript: Transcript) -> Json:
    """One list a node."""
    return [
        [node.role, node.seconds, node.step, node.phase, node.scope, list(node.after)]
        if isinstance(node, Compute)
        else [node.sender, node.receiver, node.nbytes, node.step, node.phase, node.scope, list(node.after)]
        for node in transcript
    ]


def from_json(nodes: Iterable[list[Any]]) -> Transcript:
    """The inverse of `to_json`; raises RecordError."""
    try:
        return tuple(_node(number, fields) for number, fields in enumerate(nodes))
    except (IndexError, TypeError, ValueError) as error:
        raise RecordError(f"a stored transcript is damaged: {error}; measure again with --measure") from error


def _node(number: int, fields: list[Any]) -> Compute | Message:
    *first, step, phase, scope, after = fields
    if not all(isinstance(index, int) and 0 <= index < number for index in after):
        raise ValueError(f"node {number} waits for nodes {after}")
    if not 0 <= first[-1] < math.inf:
        raise ValueError(f"node {number} takes {first[-1]}")
    labels = (Step(step), Phase(phase), Scope(scope), tuple(after))
    if len(first) == 2:
        return Compute(Role(first[0]), float(first[1]), *labels)
    sender, receiver, nbytes = first
    return Message(Role(sender), Role(receiver), int(nbytes), *labels)
