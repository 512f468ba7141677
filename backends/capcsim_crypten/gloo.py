"""What gloo's operations put on the wire: the messages of one party, in order, and what each of them waits for.

Every transfer is a rendezvous. A receiver says that it is ready, a sender announces its payload, each in a header of
its own; the payload, behind a third header, leaves when the sender has it and has heard that the receiver is ready.
Where both come to it at the same time it takes two one-way latencies. After gloo's sources (transport/tcp/pair.cc,
allreduce.cc, broadcast.cc, barrier.cc; commit 70dc360), and held by the tests against what crosses a link with latency.
An announcement holds up nothing, and travels here with the next message in its direction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from capcsim.backend import Phase, Role
from capcsim.twoparty.programs import Grant, Received, RoleLog, Sent

HEADER_BYTES = 48
SEGMENT_BYTES = 1 << 20
"""The most that all_reduce sends in one piece; two of them are under way at a time."""
WORKERS = 2
"""How many operations that were started together run at a time, the others behind them (PyTorch's ProcessGroupGloo)."""

Size: TypeAlias = tuple[int, int]
"""A tensor's bytes, and its elements'."""


def gives(to: Role, nbytes: int, phase: Phase) -> RoleLog:
    """One payload to another, waiting until it has left."""
    return [Received(to, grant=True), Sent(2 * HEADER_BYTES + nbytes, phase, to)]


def expects(source: Role, phase: Phase) -> RoleLog:
    """Be ready for a payload of another; `Received` is when it is taken."""
    return [Grant(HEADER_BYTES, phase, source)]


def takes(source: Role, phase: Phase) -> RoleLog:
    """One payload of another."""
    return [*expects(source, phase), Received(source)]


def barrier(roles: Sequence[Role], rank: int, phase: Phase) -> RoleLog:
    """Empty payloads in a ring, to the next one, then to the next but one, and so on by powers of two."""
    log: RoleLog = []
    distance = 1
    while distance < len(roles):
        before, behind = roles[(rank - distance) % len(roles)], roles[(rank + distance) % len(roles)]
        log += [*expects(before, phase), *gives(behind, 0, phase), Received(before)]
        distance *= 2
    return log


def all_reduce(other: Role, rank: int, tensors: Sequence[Size], phase: Phase) -> RoleLog:
    """Tensors that two parties add up: each reduces its half of every one and gives it to the other.

    Those that are reduced together share the connection, and are laid out as one with the segments of all.
    """
    log: RoleLog = []
    for first in range(0, len(tensors), WORKERS):
        rings = [_segments(*size) for size in tensors[first : first + WORKERS]]
        for theirs in (1 - rank, rank):
            sends, receives = (_together(ring[chunk] for ring in rings) for chunk in (theirs, 1 - theirs))
            log += _exchange(other, sends, receives, phase)
    return log


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Segments that are sent at once: how many, and their bytes."""

    segments: int = 0
    nbytes: int = 0

    def __add__(self, other: "_Parcel") -> "_Parcel":
        return _Parcel(self.segments + other.segments, self.nbytes + other.nbytes)


def _segments(nbytes: int, element_bytes: int) -> tuple[list[int], list[int]]:
    """The bytes of the segments of both parties' halves, which may run out; at least two a half."""
    largest = element_bytes * max(1, SEGMENT_BYTES // element_bytes)
    each = max(2, -(-nbytes // (2 * largest)))
    size = -(-nbytes // (2 * each * element_bytes)) * element_bytes
    found = [min(size, max(0, nbytes - number * size)) for number in range(2 * each)]
    return found[:each], found[each:]


def _together(rings: Iterator[list[int]]) -> list[_Parcel]:
    """Segments with the same number in all rings as one parcel; two by two where nothing is sent behind them."""
    rows = zip_longest(*rings, fillvalue=0)
    parcels = [_Parcel(sum(nbytes > 0 for nbytes in row), sum(row)) for row in rows]
    return parcels if len(parcels) > 2 else [sum(parcels, _Parcel())]


def _exchange(other: Role, sends: Sequence[_Parcel], receives: Sequence[_Parcel], phase: Phase) -> RoleLog:
    """Parcels each way, two under way at a time."""
    log: RoleLog = []
    for number in range(len(sends) + 2):
        if number >= 2 and receives[number - 2].segments:
            log.append(Received(other))
        if number < len(sends):
            log += _step(other, sends[number], receives[number], phase)
    return log


def _step(other: Role, sent: _Parcel, received: _Parcel, phase: Phase) -> RoleLog:
    """Be ready for a parcel, and send one."""
    headers = HEADER_BYTES * sent.segments
    if not received.segments:
        return [Received(other, grant=True), Sent(2 * headers + sent.nbytes, phase, other)] if sent.segments else []
    log: RoleLog = [Grant(HEADER_BYTES * received.segments + headers, phase, other)]
    if sent.segments:
        # No wait: what the other sends comes behind the word that it is ready.
        log.append(Sent(headers + sent.nbytes, phase, other, granted=True))
    return log
