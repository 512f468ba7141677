"""CrypTen's parties over a relay: their gloo connections pass through it, and what they send is read there.

gloo's processes hand each other their addresses in a store of PyTorch's. Here the one that will connect reads the
relay's address instead. No root, no namespace, and nothing changed in gloo or CrypTen.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from relay import Chunk, Control

from capcsim.backend import Phase, Role, Step, Transcript
from capcsim.twoparty.helper import Task
from capcsim.twoparty.programs import RoleLog
from capcsim_crypten import CryptenBackend, gloo, party
from capcsim_crypten.parties import Parties

HERE = bytes([127, 0, 0, 1])
TOLD_S = 0.05
"""How long after they are told the parties begin: by then all of them know."""


class TimedParties(Parties):
    """Parties that begin a step at one moment, and whose connections pass through a relay if there is one.

    `took_s` is from that moment until the last of the two was done.
    """

    def __init__(self, provider: Any, relay: str | None = None) -> None:
        super().__init__(provider, timeout_s=600.0)
        self.took_s = 0.0
        self._relay = relay

    def run(self, step: Step, calls: Mapping[Role, Task], *, keep: bool = False) -> tuple[dict[Role, Any], Transcript]:
        """As the parent class does; `took_s` is of outputs that are not kept there."""
        if keep:
            return super().run(step, calls, keep=keep)
        start_s = time.monotonic() + TOLD_S
        waiting: dict[Role, Task] = {role: (timed, (start_s, call, *given)) for role, (call, given) in calls.items()}
        outputs, transcript = super().run(step, waiting)
        self.took_s = max(ended_s for role, (ended_s, _) in outputs.items() if role is not Role.DEALER) - start_s
        return {role: output for role, (_, output) in outputs.items()}, transcript

    def _joining(self, rank: int, store: Path) -> Task:
        if self._relay is None:
            return super()._joining(rank, store)
        return start, (rank, str(store), self._provider, self._relay)


def timed_backend(relay: str | None = None, *, provider: str = "first-party") -> tuple[CryptenBackend, TimedParties]:
    """The backend, and its parties."""
    backend, parties = CryptenBackend(provider=provider), TimedParties(provider, relay)
    backend._parties = parties
    return backend, parties


def start(rank: int, store: str, provider: Any, relay: str) -> tuple[party.Party, RoleLog]:
    """`party.start` over a relay."""
    import torch.distributed as dist

    dist.register_rendezvous_handler("delayed", partial(_meet, relay=relay))
    return party.start(rank, f"delayed://{store}", provider)


def timed(
    own: party.Party, start_s: float, work: Callable[..., Any], *arguments: Any
) -> tuple[tuple[float, Any], RoleLog]:
    """Do a party's part of a step at `start_s`, by time.monotonic(); returns when it was done, and its output."""
    ended_s: list[float] = []
    end = own.end

    def noted_end() -> RoleLog:
        ended_s.append(time.monotonic())
        return end()

    own.end = noted_end  # type: ignore[method-assign]
    try:
        time.sleep(max(0.0, start_s - time.monotonic()))
        output, log = work(own, *arguments)
    finally:
        del own.end
    return ((ended_s or [time.monotonic()])[0], output), log


def operate(own: party.Party, operation: str, elements: int) -> tuple[None, RoleLog]:
    """One of OPERATIONS on words of 8 bytes, as CrypTen uses it between its two parties."""
    import torch

    own.meter.begin(Phase.ONLINE)
    OPERATIONS[operation](own, torch.zeros(elements, dtype=torch.long))
    return None, own.end()


def _exchange(own: party.Party, tensor: Any) -> None:
    requests = own.communicator.isend(tensor, 1 - own.rank), own.communicator.irecv(tensor.clone(), 1 - own.rank)
    for request in requests:
        request.wait()


def _one_way(own: party.Party, tensor: Any) -> None:
    communicator = own.communicator
    (communicator.irecv(tensor, 0) if own.rank else communicator.isend(tensor, 1)).wait()


def _object(own: party.Party, tensor: Any) -> None:
    if own.rank:
        own.communicator.recv_obj(0)
    else:
        own.communicator.send_obj(bytes(8 * len(tensor)), 1)


OPERATIONS: dict[str, Callable[[party.Party, Any], Any]] = {
    "all_reduce": lambda own, tensor: own.communicator.all_reduce(tensor),
    "all_reduce of two": lambda own, tensor: own.communicator.all_reduce([tensor, tensor], batched=True),
    "all_reduce of three": lambda own, tensor: own.communicator.all_reduce([tensor, tensor, tensor], batched=True),
    "broadcast": lambda own, tensor: own.communicator.broadcast(tensor, 0),
    "isend, irecv": _one_way,
    "isend and irecv both ways": _exchange,
    "send_obj, recv_obj": _object,
}

_kept: list[Any] = []
"""PyTorch's C++ side does not keep a Python store alive."""


def _meet(url: str, *, relay: str, **_: Any) -> Iterator[tuple[Any, int, int]]:
    import torch.distributed as dist

    class DelayedStore(dist.Store):  # type: ignore[misc]
        """Another store; a peer's address is the relay's for the one that connects to it."""

        def __init__(self, inner: Any, rank: int) -> None:
            super().__init__()
            self._inner, self._rank, self._control = inner, rank, Control(relay)
            self._own: dict[str, int] = {}

        def set(self, key: str, value: bytes) -> None:
            place = _port_at(value)
            if place:
                self._own[key.rpartition("/")[0]] = _port(value, place)
                # The key has the rank within a group of some.
                self._inner.set(f"owner of {_port(value, place)}", str(self._rank))
            self._inner.set(key, value)

        def get(self, key: str) -> bytes:
            value: bytes = self._inner.get(key)
            place = _port_at(value)
            # Of two gloo processes with one address, the one whose port is the larger as the machine reads it connects.
            if not place or _order(self._own[key.rpartition("/")[0]]) <= _order(port := _port(value, place)):
                return value
            front = self._control.front(port, self._rank, int(self._inner.get(f"owner of {port}")))
            # An address below its own, so that this one stays the one that connects.
            return value[:place] + struct.pack(">H", front) + bytes(4) + value[place + 6 :]

        def add(self, key: str, amount: int) -> int:
            return int(self._inner.add(key, amount))

        def wait(self, keys: list[str], *timeout: Any) -> None:
            self._inner.wait(keys, *timeout)

        def check(self, keys: list[str]) -> bool:
            return bool(self._inner.check(keys))

        def delete_key(self, key: str) -> bool:
            return bool(self._inner.delete_key(key))

        def has_extended_api(self) -> bool:
            return False

    place = urlsplit(url)
    rank, size = (int(parse_qs(place.query)[name][0]) for name in ("rank", "world_size"))
    _kept.append(DelayedStore(dist.FileStore(place.path, size), rank))
    yield _kept[-1], rank, size


def _port_at(value: bytes) -> int | None:
    """Where the port stands in what gloo stores of itself: before the IPv4 address, behind the family."""
    place = value.find(HERE) - 2
    family = struct.pack("=H", socket.AF_INET)
    return place if place >= 2 and value[place - 2 : place] == family else None


def _port(value: bytes, place: int) -> int:
    return int(struct.unpack_from(">H", value, place)[0])


def _order(port: int) -> int:
    return int(struct.unpack("=H", struct.pack(">H", port))[0])


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of gloo's, header included: when its first byte came to the relay, between which ranks."""

    received_s: float
    sender: int
    receiver: int
    opcode: int
    nbytes: int


PAYLOAD, ANNOUNCED, READY = 1, 2, 3
"""gloo's opcodes (transport/tcp/pair.h)."""


def frames(chunks: Sequence[Chunk]) -> list[Frame]:
    """The messages in what was captured, which begins and ends between two of them."""
    found: list[Frame] = []
    streams: dict[tuple[int, int], list[Chunk]] = {}
    for chunk in chunks:
        streams.setdefault((chunk.connection, chunk.sender), []).append(chunk)
    for stream in streams.values():
        data = b"".join(chunk.data for chunk in stream)
        starts = [0]
        for chunk in stream:
            starts.append(starts[-1] + len(chunk.data))
        place, current = 0, 0
        while place < len(data):
            while starts[current + 1] <= place:
                current += 1
            nbytes, opcode = struct.unpack_from("=QQ", data, place)
            assert nbytes >= gloo.HEADER_BYTES, "a stream that does not begin with a header"
            first = stream[current]
            found.append(Frame(first.received_s, first.sender, first.receiver, opcode, nbytes))
            place += nbytes
        assert place == len(data), "a message without its end"
    return sorted(found, key=lambda frame: frame.received_s)


def rank_of(role: Role) -> int:
    """A role's rank among CrypTen's parties."""
    return party.RANKS.index(role)
