"""Where the two roles of a program run: both in this process, or the far one in a process of its own.

`ProcessRunner` keeps one helper process, `capcsim.crypto.role_process`, so that the two roles use two cores. Commands
and outputs pass over a private pipe by pickle, which is safe between processes of our own and nowhere else. Each
run's messages have a connection of their own, so that an aborted run leaves nothing behind in it.
"""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from capcsim.backend import Phase, Role, Step, Transcript
from capcsim.crypto.channels import Channel, run_socket
from capcsim.crypto.programs import Progress, RoleLog, Steps, Tap, merge, run_local
from capcsim.crypto.role_process import Command, Kept, Reply
from capcsim.errors import InputError, PeerFailed

Call: TypeAlias = tuple[Callable[..., Steps], tuple[Any, ...]]
"""A role's generator function and its arguments."""

SILENCE_S = 3600.0
"""How long a role may work between two messages. A process that dies is noticed at once, without this."""
REASON_S = 10.0
"""How long we wait for the far role's own reason after it ended the connection."""
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


class Runner(Protocol):
    """Runs two roles, the near one here and the far one where it says. One run at a time."""

    def run(
        self,
        roles: tuple[Role, Role],
        near: Call,
        far: Call,
        *,
        step: Step,
        phase: Phase = Phase.ONLINE,
        keep: bool = False,
        tap: Tap | None = None,
        progress: Progress | None = None,
    ) -> tuple[tuple[Any, Any], Transcript]:
        """Both outputs and the transcript; raises what a role raised, or PeerFailed.

        `near` runs as roles[0], `far` as roles[1]. With `keep` the far output stays there and comes back as a Far.
        A Far among the far call's arguments, not inside them, is replaced by what it stands for.
        """

    def place(self, value: Any) -> Far:
        """Hand a value, a model say, to the far side once."""

    def keeps(self, value: Far) -> bool:
        """Whether the far side still has it: not when the process that had it has died."""

    def close(self) -> None:
        """End what was started; closing twice is no error."""


class LocalRunner:
    """Both roles in this process and thread, in turns."""

    def run(
        self,
        roles: tuple[Role, Role],
        near: Call,
        far: Call,
        *,
        step: Step,
        phase: Phase = Phase.ONLINE,
        keep: bool = False,
        tap: Tap | None = None,
        progress: Progress | None = None,
    ) -> tuple[tuple[Any, Any], Transcript]:
        """As Runner.run; `progress` gets the larger of both roles' shares."""
        programs = near[0](*near[1]), far[0](*map(self._opened, far[1]))
        outputs, transcript = run_local(roles, programs, step=step, phase=phase, tap=tap, progress=progress)
        return (outputs[0], self.place(outputs[1]) if keep else outputs[1]), transcript

    def place(self, value: Any) -> Far:
        """The value itself, in a box."""
        return Far(self, value)

    def keeps(self, value: Far) -> bool:
        """Always, of what it was given."""
        return value.home is self

    def close(self) -> None:
        """Nothing was started."""

    def _opened(self, argument: Any) -> Any:
        if not isinstance(argument, Far):
            return argument
        if argument.home is not self:
            raise InputError("this value lives with another runner; open the session with this one")
        return argument.held


class _Helper:
    """One helper process, from its start to its end. Commands are answered one by one, in order."""

    def __init__(self, name: str) -> None:
        self.released: deque[int] = deque()
        self._name, self._owner = name, os.getpid()
        self._asked = self._answered = self._numbers = 0
        self._seen_path, self._path = list[str](), list[str]()
        command = [sys.executable, "-P", "-m", "capcsim.crypto.role_process"]
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(self._search_path())}
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
            raise PeerFailed(f"the process of the {name} cannot be started ({error})") from None
        self._pipe = Connection(os.dup(self._socket.fileno()))

    @property
    def ended(self) -> bool:
        """Whether this process cannot use it any more; a forked copy must not talk on its parent's pipe."""
        return self._pipe.closed or self._owner != os.getpid() or self._process.poll() is not None

    def place(self, value: Any) -> Far:
        """Hand over a value; raises what the process raised."""
        number = self._next_number()
        self._tell(Command(self._search_path(), [], number), self._pickled(value))
        reply = self.reply()
        if reply and reply.failure:
            raise reply.failure.error(self._name)
        return self.far(number)

    def begin(self, call: Call, phase: Phase, peer: str, *, keep: bool) -> tuple[socket.socket, int | None]:
        """Start a role there; returns our end of its connection, and the number of the output that it keeps."""
        function, arguments = call
        if getattr(function, "__module__", None) == "__main__":
            raise InputError(f"{function} is defined in __main__, which the {self._name} does not import")
        body = self._pickled((function, tuple(map(self._sendable, arguments))))
        number = self._next_number() if keep else None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                for end in (ours, theirs):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
                self._tell(Command(self._search_path(), [], number, phase, peer), body, theirs)
            except BaseException:
                ours.close()
                raise
        return ours, number

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
            code = self._process.returncode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise PeerFailed(f"the process of the {self._name} {how}; open the session again") from None
        except BaseException:
            self.stop()
            raise

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
        if isinstance(argument.home, _Helper) and argument.home.ended:
            raise PeerFailed(f"the process of the {self._name} that kept this value has ended; open the session again")
        raise InputError("this value lives with another runner; open the session with this one")

    def _search_path(self) -> list[str]:
        """sys.path as it holds in another process."""
        if sys.path != self._seen_path:
            self._seen_path, self._path = [*sys.path], [str(Path(entry).absolute()) for entry in sys.path]
        return self._path

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


class _TappedChannel(Channel):
    """Shows each payload to a tap."""

    def __init__(self, connection: socket.socket, name: str, roles: tuple[Role, Role], tap: Tap | None) -> None:
        super().__init__(connection, name)
        self._roles, self._tap = roles, tap

    def send(self, payload: bytes) -> None:
        super().send(payload)
        if self._tap:
            self._tap(self._roles[0], self._roles[1], payload)

    def receive(self) -> bytes:
        payload = super().receive()
        if self._tap:
            self._tap(self._roles[1], self._roles[0], payload)
        return payload


class ProcessRunner:
    """The near role in this process and thread, the far one in a helper process that is started when needed.

    `name` is the helper's, for errors; a role that works longer than `silence_s` between two messages counts as
    dead. After an aborted run both sides are ready for the next one. When the process died, the next run starts
    another, and what the first one kept is gone. Ends with this process, at the latest.
    """

    def __init__(self, name: str = "answering party", *, silence_s: float = SILENCE_S) -> None:
        self._name, self._silence_s = name, silence_s
        self._helper: _Helper | None = None
        self._stop: Callable[[], object] | None = None
        self._busy = threading.Lock()

    def run(
        self,
        roles: tuple[Role, Role],
        near: Call,
        far: Call,
        *,
        step: Step,
        phase: Phase = Phase.ONLINE,
        keep: bool = False,
        tap: Tap | None = None,
        progress: Progress | None = None,
    ) -> tuple[tuple[Any, Any], Transcript]:
        """As Runner.run; `progress` gets the near role's share, and `tap` sees what the near role sends and takes.

        A CapcsimError of the far role is raised here; any other exception there is a PeerFailed with its traceback.
        """
        with self._running() as helper:
            program, log = near[0](*near[1]), RoleLog()
            connection, number = helper.begin(far, phase, str(roles[0]), keep=keep)
            connection.settimeout(self._silence_s)
            channel = _TappedChannel(connection, self._name, roles, tap)
            try:
                output, reply = self._outcome(
                    helper, channel, lambda: run_socket(program, channel, log, progress, phase=phase), step, roles
                )
                transcript = merge(roles, (log, reply.log), step)
            except BaseException:
                if number is not None:
                    helper.released.append(number)
                raise
            return (output, reply.output if number is None else helper.far(number)), transcript

    def place(self, value: Any) -> Far:
        """Hand a value over once; raises PeerFailed, or InputError for one that cannot be pickled."""
        with self._running() as helper:
            return helper.place(value)

    def keeps(self, value: Far) -> bool:
        """Whether the process that was given it is still there."""
        return self._helper is not None and value.home is self._helper and not self._helper.ended

    def close(self) -> None:
        """End the helper process; a later run starts another."""
        if self._stop:
            self._stop()
        self._helper = self._stop = None

    def _outcome(
        self, helper: _Helper, channel: Channel, near: Callable[[], Any], step: Step, roles: tuple[Role, Role]
    ) -> tuple[Any, Reply]:
        """The near role's output and the far one's reply; raises the error that came first."""
        output, lost = None, None
        try:
            with channel:
                output = near()
        except PeerFailed as error:
            if not channel.failed:
                raise
            lost = error
        reply = helper.reply(REASON_S if lost else None)
        failure = reply.failure if reply else None
        if reply is None or (lost and failure and failure.lost):
            raise lost or PeerFailed(f"step {step}: the {self._name} gave no answer")
        if failure and not failure.lost:
            raise failure.error(self._name) from None
        if lost or failure:
            ended, other = roles if failure else roles[::-1]
            raise PeerFailed(f"step {step}: {ended} ended while {other} still sent, or waited for, a message")
        return output, reply

    @contextlib.contextmanager
    def _running(self) -> Iterator[_Helper]:
        """The helper process, started if there is none; raises InputError while it is in use."""
        if not self._busy.acquire(blocking=False):
            raise InputError(f"the process of the {self._name} is in use: one run at a time")
        try:
            if self._helper is None or self._helper.ended:
                self.close()
                self._helper = _Helper(self._name)
                self._stop = weakref.finalize(self, self._helper.stop)
            yield self._helper
        finally:
            self._busy.release()
