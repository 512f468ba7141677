"""Where the two roles of a program run: both in this process, or the far one in a process of its own.

`ProcessRunner` keeps one helper process, `capcsim.twoparty.helper`, so that the two roles use two cores. Each run's
messages have a connection of their own, so that an aborted run leaves nothing behind in it.
"""

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from capcsim.backend import Phase, Progress, Role, Step, Tap, Transcript
from capcsim.errors import InputError, PeerFailed
from capcsim.twoparty.channels import Channel, run_socket
from capcsim.twoparty.helper import Call, Helper
from capcsim.twoparty.helper import Far as Far
from capcsim.twoparty.programs import RoleLog, merge, run_local
from capcsim.twoparty.role_process import Reply

SILENCE_S = 3600.0
"""How long a role may work between two messages. A process that dies is noticed at once, without this."""
REASON_S = 10.0
"""How long we wait for the far role's own reason after it ended the connection."""


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
        self._helper: Helper | None = None
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
        self, helper: Helper, channel: Channel, near: Callable[[], Any], step: Step, roles: tuple[Role, Role]
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
    def _running(self) -> Iterator[Helper]:
        """The helper process, started if there is none; raises InputError while it is in use."""
        if not self._busy.acquire(blocking=False):
            raise InputError(f"the process of the {self._name} is in use: one run at a time")
        try:
            if self._helper is None or self._helper.ended:
                self.close()
                self._helper = Helper(self._name)
                self._stop = weakref.finalize(self, self._helper.stop)
            yield self._helper
        finally:
            self._busy.release()
