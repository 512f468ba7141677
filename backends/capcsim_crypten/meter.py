"""What a party sends, takes and computes: CrypTen's communicator, watched.

Every operation that CrypTen uses with two parties is written down as messages with their payload's bytes, once, at the
sender. Between two of them lies work: CPU seconds of the whole process, since gloo moves and adds up tensors in threads
of its own; these sleep while they wait. Operations that nobody measures are refused. What gloo and TCP add to a payload
is not counted, as it is not for our own channels.
"""

import pickle
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch

from capcsim.backend import Phase, Role, Scope
from capcsim.crypto.programs import Received, RoleLog, Sent, Work

UNMEASURED = ("send", "recv", "scatter", "reduce", "gather", "all_gather", "broadcast_obj", "barrier")
SIZE_BYTES = 4
"""CrypTen sends an object's size ahead."""


class Meter:
    """Watches one party's communicator; `roles` are the parties' by their ranks, the dealer's last.

    `tell` and `listen` send and take objects that are not counted.
    """

    def __init__(self, communicator: Any, roles: Sequence[Role]) -> None:
        self._roles, self._rank = tuple(roles), communicator.rank
        self._log: RoleLog = []
        self._phase = Phase.ONLINE
        self._since_s = time.process_time()
        self.tell: Callable[..., None] = communicator.send_obj
        self.listen: Callable[..., Any] = communicator.recv_obj
        for name in ("all_reduce", "broadcast", "isend", "irecv", "send_obj", "recv_obj"):
            setattr(communicator, name, self._watched(getattr(communicator, name), getattr(self, f"_{name}")))
        for name in UNMEASURED:
            setattr(communicator, name, _refused(name))

    def begin(self, phase: Phase) -> None:
        """Start a new log."""
        self._log, self._phase = [], phase
        self._since_s = time.process_time()

    def end(self) -> RoleLog:
        """The log since `begin`."""
        self._note_work()
        return self._log

    def sent(self, to: int, nbytes: int) -> None:
        """A message of so many bytes leaves for the party of this rank; empty ones do not."""
        if nbytes:
            self._note_work()
            self._log.append(Sent(nbytes, self._phase, self._roles[to]))

    def received(self, source: int, nbytes: int) -> None:
        """A message of so many bytes came from the party of this rank."""
        if nbytes:
            self._log.append(Received(self._roles[source]))

    def _watched(self, operation: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        @wraps(operation)
        def watched(*args: Any, **kwargs: Any) -> Any:
            note(*args, **kwargs)
            return operation(*args, **kwargs)

        return watched

    def _note_work(self) -> None:
        now_s = time.process_time()
        if now_s > self._since_s:
            self._log.append(Work(now_s - self._since_s, self._phase, Scope.PAIR))
        self._since_s = now_s

    def _all_reduce(self, tensors: Any, *_: Any, **__: Any) -> None:
        """Between the two parties: gloo's ring reduces and scatters, then gathers; each a chunk of half the tensor.

        The second message is a sum, and so has to wait for the other's first.
        """
        other = 1 - self._rank
        halves = [chunks_bytes(t) for t in (tensors if isinstance(tensors, list) else [tensors])]
        mine, theirs = (sum(chunk[rank] for chunk in halves) for rank in (self._rank, other))
        self.sent(other, theirs)
        self.received(other, mine)
        self.sent(other, mine)
        self.received(other, theirs)

    def _broadcast(self, tensor: torch.Tensor, src: int, group: Any = None, **_: Any) -> None:
        """Among the parties; or, within a group of their own, from the dealer to the first party."""
        nbytes = _bytes(tensor)
        if self._rank != src:
            self.received(src, nbytes)
            return
        for rank in (0,) if group is not None else range(len(self._roles)):
            if rank != src and self._roles[rank] is not Role.DEALER:
                self.sent(rank, nbytes)

    def _isend(self, tensor: torch.Tensor, dst: int) -> None:
        self.sent(dst, _bytes(tensor))

    def _irecv(self, tensor: torch.Tensor, src: int) -> None:
        self.received(src, _bytes(tensor))

    def _send_obj(self, thing: Any, dst: int, group: Any = None) -> None:  # noqa: ARG002
        self.sent(dst, SIZE_BYTES + len(pickle.dumps(thing)))

    def _recv_obj(self, src: int, group: Any = None) -> None:  # noqa: ARG002
        self.received(src, SIZE_BYTES)


def chunks_bytes(tensor: torch.Tensor) -> tuple[int, int]:
    """How gloo's ring of two splits a tensor: the bytes of the chunks that ranks 0 and 1 add up.

    Two segments a rank, each a whole number of elements (gloo/allreduce.cc, ring).
    """
    total, element = _bytes(tensor), tensor.element_size()
    segment = -(-total // (4 * element)) * element
    first = min(total, 2 * segment)
    return first, total - first


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.nelement() * tensor.element_size()


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"communicator.{name} is not measured, so its cost would be missing")

    return refuse
