"""What a party sends, takes and computes: CrypTen's communicator, watched.

Every operation that CrypTen uses with two parties is written down as the messages that gloo makes of it
(`capcsim_crypten.gloo`), with gloo's own headers and without TCP's. Between two of them lies work: CPU seconds of the
whole process, since gloo moves and adds up tensors in threads of its own; these sleep while they wait. Operations that
nobody measures are refused.
"""

import pickle
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch

from capcsim.backend import Phase, Role, Scope
from capcsim.twoparty.programs import Received, RoleLog, Work
from capcsim_crypten import gloo

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

    def gives(self, to: int, nbytes: int) -> None:
        """A payload goes to the party of this rank, past the communicator."""
        self._note(gloo.gives(self._roles[to], nbytes, self._phase))

    def takes(self, source: int) -> None:
        """A payload comes from the party of this rank, past the communicator."""
        self._note(gloo.takes(self._roles[source], self._phase))

    def takes_object(self, source: int) -> None:
        """An object came from the party of this rank, by `listen`."""
        self._recv_obj(source)

    def meets(self) -> None:
        """All wait for all, past the communicator."""
        self._note(gloo.barrier(self._roles, self._rank, self._phase))

    def _watched(self, operation: Callable[..., Any], note: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(operation)
        def watched(*args: Any, **kwargs: Any) -> Any:
            when_done = note(*args, **kwargs)
            request = operation(*args, **kwargs)
            return _Request(request, lambda: self._note(when_done)) if when_done else request

        return watched

    def _note(self, messages: RoleLog) -> None:
        """Messages, after the work that lies before them; writing them down is nobody's work."""
        self._note_work()
        self._log += messages
        self._since_s = time.process_time()

    def _note_work(self) -> None:
        now_s = time.process_time()
        if now_s > self._since_s:
            self._log.append(Work(now_s - self._since_s, self._phase, Scope.PAIR))
        self._since_s = now_s

    def _all_reduce(self, tensors: Any, *_: Any, **__: Any) -> None:
        """Between the two parties."""
        sizes = [(_bytes(t), t.element_size()) for t in (tensors if isinstance(tensors, list) else [tensors])]
        self._note(gloo.all_reduce(self._roles[1 - self._rank], self._rank, sizes, self._phase))

    def _broadcast(self, tensor: torch.Tensor, src: int, group: Any = None, **_: Any) -> None:
        """Between the two parties; or, within a group of their own, from the dealer to the first party."""
        if self._rank == src:
            self.gives(0 if group is not None else 1 - src, _bytes(tensor))
        else:
            self.takes(src)

    def _isend(self, tensor: torch.Tensor, dst: int) -> RoleLog:
        return gloo.gives(self._roles[dst], _bytes(tensor), self._phase)

    def _irecv(self, tensor: torch.Tensor, src: int) -> RoleLog:  # noqa: ARG002
        self._note(gloo.expects(self._roles[src], self._phase))
        return [Received(self._roles[src])]

    def _send_obj(self, thing: Any, dst: int, group: Any = None) -> None:  # noqa: ARG002
        self.gives(dst, SIZE_BYTES)
        self.gives(dst, len(pickle.dumps(thing)))

    def _recv_obj(self, src: int, group: Any = None) -> None:  # noqa: ARG002
        self.takes(src)
        self.takes(src)


class _Request:
    """An operation under way: what it waits for is noted when its caller waits."""

    def __init__(self, request: Any, note: Callable[[], None]) -> None:
        self._request, self._note_end = request, note

    def wait(self) -> Any:
        """Wait until it is done."""
        self._note_end()
        return self._request.wait()


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.nelement() * tensor.element_size()


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"communicator.{name} is not measured, so its cost would be missing")

    return refuse
