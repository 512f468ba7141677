"""The processes of the two parties, and of a dealer, from their start to their end.

Each is a helper process as every backend's are. They talk to one another over gloo on the loopback interface, and to us
over their pipes. A party that fails, dies or falls silent leaves the others waiting for it: all are ended then, and the
next call starts others.
"""

import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from capcsim.backend import Role, Step, Transcript
from capcsim.errors import InputError, PeerFailed
from capcsim.twoparty.helper import AGAIN, Far, Helper, Task
from capcsim.twoparty.programs import RoleLog, merge
from capcsim.twoparty.role_process import Reply
from capcsim_crypten.compat import Provider

START_S = 120.0
"""How long the processes may take to import their libraries and to find one another."""
LOST_S = 1.0
"""A party that another waits for has died by then, if that is why the other failed."""
NAMES = {Role.ANSWERER: "answering party", Role.QUERIER: "querying party", Role.DEALER: "dealer"}


class Parties:
    """Starts the processes when they are first needed and keeps them warm; one call at a time.

    `timeout_s` bounds each call. Ends with this process, at the latest.
    """

    def __init__(self, provider: Provider, *, timeout_s: float) -> None:
        self._provider, self._timeout_s = provider, timeout_s
        self._helpers: dict[Role, Helper] = {}
        self._parties: dict[Role, Far] = {}
        self._stop: Callable[[], object] | None = None
        self._busy = threading.Lock()

    @property
    def roles(self) -> tuple[Role, ...]:
        """By rank."""
        from capcsim_crypten.party import RANKS

        return RANKS if self._provider == "third-party" else RANKS[:2]

    @property
    def processes(self) -> dict[Role, int]:
        """The process of each role, by its number in the operating system."""
        return {role: helper.process for role, helper in self._helpers.items()}

    def place(self, role: Role, value: Any) -> Far:
        """Hand a value to one party's process; it stays there as long as the Far is held."""
        self._start()
        return self._helpers[role].place(value)

    def keeps(self, value: Far) -> bool:
        """Whether the process that was given it is still there."""
        return any(value.home is helper and not helper.ended for helper in self._helpers.values())

    def run(self, step: Step, calls: Mapping[Role, Task], *, keep: bool = False) -> tuple[dict[Role, Any], Transcript]:
        """Call a function in every party's process at once; returns their outputs and the transcript.

        Each function gets its `Party` first. With `keep` the outputs stay there, and come back as Fars.
        Raises what a party raised, or PeerFailed, which names the party.
        """
        if not self._busy.acquire(blocking=False):
            raise InputError("CrypTen's party processes are in use: one call at a time")
        try:
            self._check_kept(value for _, given in calls.values() for value in given if isinstance(value, Far))
            self._start()
            tasks = {role: (call, (self._parties[role], *given)) for role, (call, given) in calls.items()}
            outputs, logs = self._call(step, tasks, self._timeout_s, keep=keep)
        finally:
            self._busy.release()
        roles = tuple(calls)
        return outputs, merge(roles, [logs[role] for role in roles], step)

    def close(self) -> None:
        """End the processes; a later call starts others."""
        if self._stop:
            self._stop()
        self._stop = None
        self._helpers, self._parties = {}, {}

    def _check_kept(self, values: Iterable[Far]) -> None:
        """Raises PeerFailed, with a name if it is known, when the process that had one of these has ended."""
        if not all(map(self.keeps, values)):
            dead = [NAMES[role] for role, helper in self._helpers.items() if helper.ended]
            whose = f"the process of the {' and the '.join(dead)} has" if dead else "the parties' processes have"
            raise PeerFailed(f"{whose} ended, and with it what was kept there", AGAIN)

    def _start(self) -> None:
        """Start all, unless all are there."""
        if self._helpers and not any(helper.ended for helper in self._helpers.values()):
            return
        self.close()
        helpers: dict[Role, Helper] = {}
        self._stop = weakref.finalize(self, _stop_all, helpers)
        self._helpers = helpers
        for role in self.roles:
            helpers[role] = Helper(NAMES[role])
        with tempfile.TemporaryDirectory(prefix="capcsim-") as folder:
            calls = {role: self._joining(rank, Path(folder) / "store") for rank, role in enumerate(self.roles)}
            self._parties, _ = self._call(Step.SETUP, calls, START_S, keep=True)

    def _joining(self, rank: int, store: Path) -> Task:
        """What makes a process the party of this rank; all of them find one another in the file `store`."""
        from capcsim_crypten.party import start

        return start, (rank, f"file://{store}", self._provider)

    def _call(
        self, step: Step, calls: Mapping[Role, Task], patience_s: float, *, keep: bool
    ) -> tuple[dict[Role, Any], dict[Role, RoleLog]]:
        """Outputs and logs; whatever goes wrong ends all processes."""
        try:
            numbers = {role: self._helpers[role].start(task, keep=keep) for role, task in calls.items()}
            replies = self._replies(step, list(calls), patience_s)
        except BaseException:
            self.close()
            raise
        outputs = {
            role: replies[role].output if number is None else self._helpers[role].far(number)
            for role, number in numbers.items()
        }
        return outputs, {role: reply.log for role, reply in replies.items()}

    def _replies(self, step: Step, roles: list[Role], patience_s: float) -> dict[Role, Reply]:
        """Every party's reply; raises the error that is the cause of the others."""
        ends_s = time.monotonic() + patience_s
        replies: dict[Role, Reply] = {}
        while missing := [role for role in roles if role not in replies]:
            pipes = {self._helpers[role].pipe: role for role in missing}
            ready = wait(list(pipes), max(0.0, ends_s - time.monotonic()))
            if not ready:
                silent = " and ".join(NAMES[role] for role in missing)
                raise PeerFailed(f"step {step}: {silent} gave no answer within {patience_s:g} s")
            for pipe in ready:
                role = pipes[pipe]  # type: ignore[index]
                reply = self._helpers[role].reply(0.0)
                if reply and reply.failure:
                    self._find_dead([other for other in missing if other is not role])
                    raise reply.failure.error(NAMES[role])
                if reply:
                    replies[role] = reply
        return replies

    def _find_dead(self, roles: list[Role]) -> None:
        """Raises PeerFailed, with its name, if one of these died: then another's failure only follows from that."""
        ends_s = time.monotonic() + LOST_S
        while time.monotonic() < ends_s:
            for role in roles:
                if self._helpers[role].ended:
                    self._helpers[role].reply(0.0)
            time.sleep(0.02)


def _stop_all(helpers: dict[Role, Helper]) -> None:
    for helper in helpers.values():
        helper.stop()
