"""A helper process and the private pipe to it: started once, told what to do, ended with its owner at the latest.

`capcsim.twoparty.role_process` is what runs in it. Commands and outputs pass by pickle, which is safe between
processes of our own and nowhere else. It is a fresh interpreter, neither a fork nor an import of `__main__`.
"""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

from capcsim.backend import Phase
from capcsim.errors import HostError, InputError, PeerFailed
from capcsim.twoparty.programs import RoleLog, Steps
from capcsim.twoparty.role_process import Command, Kept, Reply

Call: TypeAlias = tuple[Callable[..., Steps], tuple[Any, ...]]
"""A role's generator function and its arguments."""

Task: TypeAlias = tuple[Callable[..., tuple[Any, RoleLog]], tuple[Any, ...]]
"""A function that does all its work by itself, and its arguments; it returns its output and its log."""

AGAIN = "open the session again"
STOP_S = 2.0
"""How long the helper process has to end by itself, and again after SIGTERM."""
BUFFER_BYTES = 1 << 20
"""What a role may be ahead in the kernel, where the system allows as much."""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""A transcript's seconds are of one thread. Set before any library is loaded, this holds for those loaded later too."""


@dataclass(frozen=True, eq=False)
class Far:
    """A value that lives with the far role: pass it as an argument of a far call of the runner that gave it."""

    home: object = field(repr=False)
    held: Any = field(repr=False)


class Helper:
    """One helper process, from its start to its end; `name` is for errors. Commands are answered in order."""

    def __init__(self, name: str) -> None:
        self.released: deque[int] = deque()
        self._name, self._owner = name, os.getpid()
        self._asked = self._answered = self._numbers = 0
        command = [sys.executable, "-P", "-m", "capcsim.twoparty.role_process"]
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(_search_path(tuple(sys.path)))}
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(None)
        try:
            with theirs:
                # A process group of its own: Ctrl-C is for us to decide, also while the process still starts.
                self._process = subprocess.Popen(  # noqa: S603 (this very interpreter)
                    [*command, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    process_group=0,
                )
        except OSError as error:
            self._socket.close()
            raise HostError.at(f"the process of the {name}", error) from None
        self._pipe = Connection(os.dup(self._socket.fileno()))

    @property
    def process(self) -> int:
        """Its number in the operating system."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether this process cannot use it any more; a forked copy must not talk on its parent's pipe."""
        return self._pipe.closed or self._owner != os.getpid() or self._process.poll() is not None

    @property
    def pipe(self) -> Connection:
        """Readable when a reply has come, or when the process died: for multiprocessing.connection.wait."""
        return self._pipe

    def place(self, value: Any) -> Far:
        """Hand over a value; raises what the process raised."""
        number = self._next_number()
        self._tell(Command(_search_path(tuple(sys.path)), [], number), self._pickled(value))
        reply = self.reply()
        if reply and reply.failure:
            raise reply.failure.error(self._name)
        return self.far(number)

    def begin(self, call: Call, phase: Phase, peer: str, *, keep: bool) -> tuple[socket.socket, int | None]:
        """Start a role there; returns our end of its connection, and the number of the output that it keeps."""
        body, number = self._call(call), self._next_number() if keep else None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                for end in (ours, theirs):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
                self._tell(Command(_search_path(tuple(sys.path)), [], number, phase, peer), body, theirs)
            except BaseException:
                ours.close()
                raise
        return ours, number

    def start(self, task: Task, *, keep: bool) -> int | None:
        """Start a function there, whose reply comes later; returns the number of the output if it is kept."""
        body, number = self._call(task), self._next_number() if keep else None
        self._tell(Command(_search_path(tuple(sys.path)), [], number, calls=True), body)
        return number

    def reply(self, patience_s: float | None = None) -> Reply | None:
        """The reply to the last command; None if it does not come in time. Raises PeerFailed if the process died."""
        pickled = self._last_reply(patience_s)
        return pickle.loads(pickled) if pickled else None  # noqa: S301 (from our own process)

    def far(self, number: int) -> Far:
        """What stands for a value that the process keeps; it is dropped there when nobody here has it any more."""
        far = Far(self, number)
        # Only noted: this may be called from any thread, in the middle of anything.
        weakref.finalize(far, self.released.append, number).atexit = False
        return far

    def stop(self) -> None:
        """End the process; more than once is no error."""
        ours = self._owner == os.getpid()
        if ours and not self._pipe.closed:
            with contextlib.suppress(OSError):  # the process has gone already
                self._socket.shutdown(socket.SHUT_RDWR)  # closing is not enough where a forked process has a copy
        self._pipe.close()
        self._socket.close()
        if not ours:
            return
        for insist in (None, self._process.terminate, self._process.kill):
            if insist:
                insist()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
                return

    def _tell(self, command: Command, body: bytes, connection: socket.socket | None = None) -> None:
        self._last_reply()  # that of an aborted run, if any: while it is unread, the process may not read either
        while self.released:
            command.drop.append(self.released.popleft())
        self._asked += 1
        with self._whole_messages():
            self._pipe.send_bytes(pickle.dumps(command))
            self._pipe.send_bytes(body)
            if connection:
                socket.send_fds(self._socket, [b"c"], [connection.fileno()])

    def _last_reply(self, patience_s: float | None = None) -> bytes | None:
        pickled = None
        while self._answered < self._asked:
            # An interruption here does no harm; while a message is read or written, it costs the process.
            if not self._pipe.poll(patience_s):
                return None
            with self._whole_messages():
                pickled = self._pipe.recv_bytes()
            self._answered += 1
        return pickled

    @contextlib.contextmanager
    def _whole_messages(self) -> Iterator[None]:
        """What is interrupted in the middle of a message cannot go on. Raises PeerFailed if the process died."""
        try:
            yield
        except (EOFError, OSError):
            self.stop()
            raise PeerFailed(f"the process of the {self._name} {_how(self._process.returncode or 0)}", AGAIN) from None
        except BaseException:
            self.stop()
            raise

    def _call(self, call: Call | Task) -> bytes:
        function, arguments = call
        if getattr(function, "__module__", None) == "__main__":
            raise InputError(f"{function} is defined in __main__, which the {self._name} does not import")
        return self._pickled((function, tuple(map(self._sendable, arguments))))

    def _pickled(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # whatever a foreign object raises
            raise InputError(f"this cannot be handed to the process of the {self._name}: {error}") from error

    def _sendable(self, argument: Any) -> Any:
        if not isinstance(argument, Far):
            return argument
        if argument.home is self:
            return Kept(argument.held)
        if isinstance(argument.home, Helper) and argument.home.ended:
            raise PeerFailed(f"the process of the {self._name} that kept this value has ended", AGAIN)
        raise InputError("this value lives with another runner; open the session with this one")

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


def _how(code: int) -> str:
    """How a process ended, by its exit code."""
    if code >= 0:
        return f"ended with exit code {code}"
    short = " (as a system that runs out of memory does)" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{short}"


@lru_cache(maxsize=1)
def _search_path(entries: tuple[str, ...]) -> list[str]:
    """sys.path as it holds in another process."""
    return [str(Path(entry).absolute()) for entry in entries]
