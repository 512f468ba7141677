"""The helper process of `capcsim.twoparty.runners.ProcessRunner`, and what passes over the pipe to it.

It runs far roles one after the other and keeps values between them. It ends when its parent closes the pipe or dies,
in the middle of a role too. Pickle is used on that pipe alone; a role's messages are frames of `channels`.
"""

import contextlib
import os
import pickle
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from capcsim.backend import Phase
from capcsim.errors import CapcsimError, CapcsimWarning, HostError, InputError, PeerFault
from capcsim.twoparty.channels import Channel, run_socket
from capcsim.twoparty.programs import RoleLog


@dataclass(frozen=True, slots=True)
class Kept:
    """In a command: the argument that the helper process keeps under this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Command:
    """What the helper process does next: drop values, then place one, call a function or, with a phase, run a role.

    The value, or the function with its arguments, follows pickled; then, for a role, its end of the connection.
    """

    path: list[str]
    drop: list[int]
    keep: int | None
    phase: Phase | None = None
    peer: str = ""
    calls: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on its way: as text and, if it is one of ours, what makes it again.

    Pickle alone cannot: it calls the class with `args`, and most of ours take other arguments than they keep there.
    `lost` says that only the connection failed, so that the other side knows why.
    """

    text: str
    pickled: bytes | None
    lost: bool

    @classmethod
    def of(cls, error: BaseException, *, lost: bool = False) -> "Failure":
        """From an exception."""
        text = "".join(traceback.format_exception(error))
        error = HostError.of(error) or error
        if not isinstance(error, CapcsimError):
            return cls(text, None, lost)
        with contextlib.suppress(Exception):  # an attribute that cannot travel
            return cls(text, pickle.dumps((type(error), error.args, error.__dict__)), lost)
        return cls(text, None, lost)

    def error(self, name: str) -> CapcsimError:
        """The exception again; a PeerFault with the traceback's text for what is none of ours."""
        if self.pickled is not None:
            with contextlib.suppress(Exception):  # a class that this process does not find
                kind, arguments, state = pickle.loads(self.pickled)  # noqa: S301 (from our own process)
                error: CapcsimError = kind.__new__(kind, *arguments)
                error.__dict__.update(state)
                error.add_note(f"raised in the process of the {name}:\n{self.text}")
                return error
        return PeerFault(f"{name}: an error in its process\n{self.text}")


@dataclass(frozen=True, slots=True)
class Reply:
    """The helper process's answer to one command."""

    output: Any = None
    log: RoleLog = field(default_factory=list)
    failure: Failure | None = None


def main(handle: int) -> None:
    """Serve the parent at the other end of this socket until it has closed its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    sys.stdout = sys.stderr  # the parent's output is its own
    warnings.simplefilter("ignore", CapcsimWarning)  # the parent says it
    os.set_inheritable(handle, False)
    with socket.socket(fileno=handle) as control, Connection(os.dup(handle)) as pipe:
        threading.Thread(target=_end_with_parent, args=(handle,), daemon=True).start()
        kept: dict[int, Any] = {}
        with contextlib.suppress(EOFError, OSError):  # the parent has gone
            while True:
                _answer(control, pipe, kept)


def _end_with_parent(handle: int) -> None:
    """A role may work for minutes without looking at the pipe; a parent that died wants no more of it."""
    parent, poll = os.getppid(), select.poll()
    poll.register(handle, 0)  # the other end's closing is always told
    # It is not closed while a process that the parent forked has a copy of it.
    while not poll.poll(1000) and os.getppid() == parent:
        pass
    os._exit(0)


def _answer(control: socket.socket, pipe: Connection, kept: dict[int, Any]) -> None:
    """Do one command. What it uses is gone when this returns, but for what is kept."""
    command: Command = pickle.loads(pipe.recv_bytes())  # noqa: S301 (from our own parent)
    body = pipe.recv_bytes()
    for number in command.drop:
        kept.pop(number, None)
    sys.path[:] = command.path
    if command.calls:
        reply = _call(command, body, kept)
    elif command.phase is None:
        reply = _place(command, body, kept)
    else:
        _, handles, _, _ = socket.recv_fds(control, 1, 1)
        if not handles:
            raise EOFError
        os.set_inheritable(handles[0], False)
        with Channel(socket.socket(fileno=handles[0]), command.peer) as channel:
            reply = _run(command, body, channel, command.phase, kept)
    pipe.send_bytes(_pickled(reply))


def _place(command: Command, body: bytes, kept: dict[int, Any]) -> Reply:
    try:
        value = pickle.loads(body)  # noqa: S301 (from our own parent)
    except Exception as error:  # whatever a foreign object raises
        return Reply(failure=Failure.of(error))
    if command.keep is not None:
        kept[command.keep] = value
    return Reply()


def _run(command: Command, body: bytes, channel: Channel, phase: Phase, kept: dict[int, Any]) -> Reply:
    log = RoleLog()
    try:
        function, arguments = _opened(body, kept)
        output = run_socket(function(*arguments), channel, log, phase=phase)
    except BaseException as error:  # SystemExit too: the parent is to hear of it, and this process goes on
        return Reply(failure=Failure.of(error, lost=channel.failed))
    return _kept_or_sent(command, output, log, kept)


def _call(command: Command, body: bytes, kept: dict[int, Any]) -> Reply:
    """A function that needs no connection, and returns its output and its log."""
    try:
        function, arguments = _opened(body, kept)
        output, log = function(*arguments)
    except BaseException as error:  # as above
        return Reply(failure=Failure.of(error))
    return _kept_or_sent(command, output, log, kept)


def _opened(body: bytes, kept: dict[int, Any]) -> tuple[Any, list[Any]]:
    """A function and its arguments, with what is kept here in its place."""
    function, arguments = pickle.loads(body)  # noqa: S301 (from our own parent)
    return function, [kept[value.number] if isinstance(value, Kept) else value for value in arguments]


def _kept_or_sent(command: Command, output: Any, log: RoleLog, kept: dict[int, Any]) -> Reply:
    if command.keep is None:
        return Reply(output, log)
    kept[command.keep] = output
    return Reply(None, log)


def _pickled(reply: Reply) -> bytes:
    try:
        return pickle.dumps(reply, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever a foreign object raises
        why = InputError(f"the far role's output cannot be handed over, only kept there: {error}")
        return pickle.dumps(Reply(failure=Failure.of(why)))


if __name__ == "__main__":
    # Under the name by which the parent's pickles know it.
    from capcsim.twoparty import role_process

    role_process.main(int(sys.argv[1]))
