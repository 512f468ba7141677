"""Every error that capcsim raises on purpose.

    CapcsimError
    ├── ScenarioError           what was asked for is wrong: a file, a key, an override, a data set
    ├── InputError              an array or value handed to a function is wrong (also a ValueError)
    ├── BackendNotFound         no backend of that name; lists those that there are
    ├── BackendUnavailable      the backend is there, something that it needs is not
    ├── ConformanceError        a backend computed something else than its reference says
    ├── UnsupportedModel        a backend cannot evaluate a model; raised before any cryptography
    ├── PrivacyBudgetExceeded   the next label would pass the budget; nothing was charged
    ├── PeerFailed              the other role of a two-party program died or broke the protocol
    │   └── PeerFault           the other role's program raised what nobody foresaw
    ├── WorkerFailed            a process that worked for this one died
    ├── HostError               the host refuses: a full or read-only disk, a name too long, a closed output, no memory
    └── RecordError             a run's directory is damaged, foreign or in use
        └── BookUnavailable     the book of runs cannot be read or written

Each message says what was wrong, where, and what to do about it, on one line. The command line turns
a CapcsimError into exit code 2, but into 1 where a process died, which is no mistake of the user's; anything
else is a fault of ours and exits with 1. What need not end the work is a CapcsimWarning.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from datetime import date, time
from difflib import get_close_matches
from typing import Self


def closest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence, which asks whether what is nearest was meant; nothing where nothing is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class CapcsimError(Exception):
    """The root: something that the user can mend."""


class ScenarioError(CapcsimError):
    """A scenario, an override or the data that it names cannot be used.

    `key` is the dotted path (`privacy.sigma`), a command's option (`--set`) or argument (`SCENARIO`), `value` what was
    found there (None: nothing), `allowed` what may stand there. `others` are what else is wrong: all of it is told on
    the one line.
    """

    def __init__(
        self, key: str, value: object, allowed: str, *, source: str = "", others: Sequence["ScenarioError"] = ()
    ) -> None:
        self.key, self.value, self.allowed, self.source, self.others = key, value, allowed, source, tuple(others)
        super().__init__(key, value, allowed)

    def __str__(self) -> str:
        problems = (self, *self.others)
        missing = [problem for problem in problems if problem.value is None]
        told = [_missing(missing)] if missing else []
        told += [problem._wrong() for problem in problems if problem.value is not None]
        return (f"{self.source}: " if self.source else "") + "; also ".join(told)

    def _wrong(self) -> str:
        joint = " " if self.key.startswith("--") or self.key.isupper() else " = "
        return f"{self.key}{joint}{_shown(self.value)}: {self.allowed}"

    def in_source(self, source: str) -> "ScenarioError":
        """The same error, naming the file that it came from."""
        return ScenarioError(self.key, self.value, self.allowed, source=source, others=self.others)


def _missing(problems: Sequence[ScenarioError]) -> str:
    """All keys that are missing, and what each of them is."""
    if len(problems) == 1:
        return f"{problems[0].key} is missing: {problems[0].allowed}"
    *first, last = [problem.key for problem in problems]
    what = "; ".join(f"{problem.key.rsplit('.')[-1]} is {problem.allowed}" for problem in problems)
    return f"{', '.join(first)} and {last} are missing: {what}"


def _shown(value: object) -> str:
    """A value on one line, as TOML has it where Python differs, shortened to 60 characters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a number of {round(value.bit_length() * 0.30103)} digits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class InputError(CapcsimError, ValueError):
    """An argument of a public function has a wrong shape, type or value."""


class BackendNotFound(CapcsimError):
    """No installed package offers a backend of this name."""

    def __init__(self, name: str, available: Iterable[str]) -> None:
        self.name = name
        there = sorted(available)
        installed = ", ".join(there) or "none"
        super().__init__(f"no backend is called {name!r}; installed: {installed}{closest(name, there)}")


class BackendUnavailable(CapcsimError):
    """A backend is installed but cannot be used; `install` is the command, or the words, that mend it."""

    def __init__(self, name: str, why: str, install: str) -> None:
        self.name, self.install = name, install
        super().__init__(f"backend {name!r} cannot be used: {why}; remedy: {install}")


class ConformanceError(CapcsimError):
    """A backend broke its own promise; `capcsim check` tells more."""

    def __init__(self, name: str, what: str) -> None:
        self.name = name
        super().__init__(f"backend {name!r} broke its promise: {what} (see: capcsim check {name})")


class UnsupportedModel(CapcsimError):
    """A backend cannot evaluate a model; `layer` names the layer, `why` the reason."""

    def __init__(self, layer: str, why: str) -> None:
        self.layer, self.why = layer, why
        super().__init__(f"unsupported model: {layer}: {why}")


class PrivacyBudgetExceeded(CapcsimError):
    """Releasing one more label would take epsilon past the budget; the ledger is unchanged."""

    def __init__(self, account: str, label: int, epsilon: float, budget: float) -> None:
        self.account, self.label, self.epsilon, self.budget = account, label, epsilon, budget
        super().__init__(
            f"privacy budget of {account}: label {label} would take epsilon to {epsilon:.4f}, past {budget:g}"
        )


class PeerFailed(CapcsimError):
    """The other role of a two-party program stopped, or sent what the protocol does not expect.

    `what` happened; `remedy` is what a caller can do to go on, where that is known.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what, self.remedy = what, remedy
        super().__init__(what, remedy)

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class PeerFault(PeerFailed):
    """The other role's program raised an exception that is none of ours; its traceback follows on lines of its own."""


class WorkerFailed(CapcsimError):
    """A process that this one started to share its work ended before the work was done."""


class HostError(CapcsimError):
    """The host refuses what capcsim needs of it; `place` is a path, a stream or a resource."""

    def __init__(self, place: str, reason: str, remedy: str) -> None:
        self.place, self.reason, self.remedy = place, reason, remedy
        super().__init__(place, reason, remedy)

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}; {self.remedy}"

    @classmethod
    def of(cls, error: BaseException) -> Self | None:
        """What an exception that nobody foresaw says about the host; None for nothing: it may be our fault."""
        text = " ".join(str(error).split())
        if isinstance(error, MemoryError):
            return cls("memory", "exhausted" + f" ({text})" * bool(text), _MORE_MEMORY)
        if isinstance(error, ImportError | RuntimeError):  # of libraries that are not written in Python
            number = next((number for words, number in _WORDS.items() if words in text), None)
            error = error if number is None else OSError(number, text)
        if not isinstance(error, OSError):
            return None
        if "temporary directory" in text:
            return cls("temporary files", "there is no folder for them", f"set TMPDIR to one, and {_AGAIN}")
        # A file that is not there may be one that we should have made.
        if error.errno == errno.ENOENT or not any(error.errno in numbers for numbers in _REMEDIES):
            return None
        place = _RESOURCES.get(error.errno or 0) if error.filename is None else os.fsdecode(error.filename)
        return None if place is None else cls.at(place, error)

    @classmethod
    def at(cls, place: object, error: OSError) -> Self:
        """From what the system said while something was done to a file or stream."""
        number = errno.EIO if error.errno is None else error.errno
        remedy = next((remedy for numbers, remedy in _REMEDIES.items() if number in numbers), _MEND)
        # Some libraries put words of their own in strerror.
        reason = str(error) if error.errno is None else os.strerror(number)
        return cls(str(place), " ".join(reason.split()), remedy)


class RecordError(CapcsimError):
    """A run's directory is damaged, belongs to another scenario, or is being written by another process."""


class CapcsimWarning(UserWarning):
    """What the user should know although the work goes on."""


_AGAIN = "give the same command again"
_MEND = f"mend that, and {_AGAIN}"
_MORE_MEMORY = f"free some, or take on less at once, and {_AGAIN}"
_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): f"make room and {_AGAIN}",
    (errno.EROFS, errno.EACCES, errno.EPERM): f"make it accessible or name another place, and {_AGAIN}",
    (errno.ENAMETOOLONG,): "choose a shorter name",
    (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP): "choose another name",
    (errno.EMFILE, errno.ENFILE): f"allow more open files (ulimit -n) and {_AGAIN}",
    (errno.EAGAIN,): f"end other processes or allow more, and {_AGAIN}",
    (errno.ENOMEM,): _MORE_MEMORY,
    (errno.EPIPE,): f"let its reader read to the end, and {_AGAIN}",
}
_RESOURCES = {
    errno.ENOSPC: "disk",
    errno.EDQUOT: "disk",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.ENOMEM: "memory",
    errno.EAGAIN: "processes",
}
_WORDS = {os.strerror(number): number for number in _RESOURCES} | {
    "can't start new thread": errno.EAGAIN,
    "can't allocate memory": errno.ENOMEM,
    "out of memory": errno.ENOMEM,
    "failed to map segment": errno.ENOMEM,
}


class BookUnavailable(RecordError):
    """The book of runs in the user's state folder cannot be read or written."""
