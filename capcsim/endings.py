"""How a command ends: its exit code, and one line for whatever came out of it.

0 well; 2 the user's mistake, or something that the host refuses; 1 a fault of ours, with its traceback, or a process
that died; 130 interrupted, by Ctrl-C or by a signal that asks a process to end. Nothing slow is loaded here, so that
it is in force before anything can go wrong.
"""

import atexit
import io
import logging
import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from capcsim.errors import CapcsimError, CapcsimWarning, HostError, PeerFailed, PeerFault, WorkerFailed
from capcsim.files import MANIFEST, withdrawing

AGAIN = "give the same command again"
OURS = "this is a fault of capcsim, not yours; please report it with the lines above"


class Interrupted(Exception):
    """Ctrl-C, with what there is to say about it."""


def end_with(command: Callable[[], int]) -> NoReturn:
    """Run a command, say how it ended, and exit with its code."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it has no cache either is our user's smallest worry
    with _signals(), warnings.catch_warnings():
        warnings.simplefilter("always", CapcsimWarning)
        warnings.showwarning = _warner()
        code = _run(command)
    # CPython kills itself by SIGINT at its end if a Ctrl-C once left code that was given to exec(), as dataclasses and
    # numba do, though it was caught later; the next exec() makes it forget that.
    exec("")  # noqa: S102
    # What is left is to end threads and processes: soon done, and no place for another traceback.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def say(text: str, colour: str = "") -> None:
    """A line on the error stream, in one of the terminal's colours ("31" is red)."""
    coloured = colour and sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\x1b[{colour}m{text}\x1b[0m" if coloured else text, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def keeping(folder: Path, *, named: bool) -> Iterator[None]:
    """Say what there is of a run that ends too early; a directory that was made for it, and has nothing in it, goes.

    `named` is whether the user gave its name.
    """
    try:
        with withdrawing(folder, named=named):
            yield
    except (Exception, KeyboardInterrupt) as error:
        begun = folder.joinpath(MANIFEST).exists()
        keeps = f"the same command with -o {folder} keeps its labels and charges"
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(keeps if begun else "") from None
        if begun and not named:
            say(f"capcsim: {keeps}")
        raise


def _run(command: Callable[[], int]) -> int:
    try:
        _hold_streams()
        _check_folder()
        code = command()
        sys.stdout.flush()
    except (KeyboardInterrupt, Interrupted) as error:
        return _told(130, f"interrupted{f'; {error}' if str(error) else ''}")
    except PeerFault as error:
        say(str(error))
        return _told(1, OURS)
    except (PeerFailed, WorkerFailed) as error:
        return _told(1, f"{error.what if isinstance(error, PeerFailed) else error}; {AGAIN}")
    except CapcsimError as error:
        return _told(2, str(error))
    except Exception as error:  # the last resort, which tells the user whose fault it is
        refused = HostError.of(error)
        if refused is not None:
            return _told(2, str(refused))
        traceback.print_exc()
        return _told(1, OURS)
    return code


def _told(code: int, text: str) -> int:
    say(f"capcsim: {text}", "31")
    return code


@contextmanager
def _signals() -> Iterator[None]:
    """Take what asks a process to end as Ctrl-C, unless it is ignored, as under nohup; and then as before."""
    asked = (number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)))
    ours = [number for number in asked if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _warner() -> Callable[..., None]:
    """Shows warnings; each of ours once, as a line."""
    told, others = set[str](), warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, CapcsimWarning):
            others(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            say(f"capcsim: warning: {message}", "33")

    return show


def _hold_streams() -> None:
    """Let no file get the number of a closed stream, and have the output say what it is when it fails."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest free number, which this takes
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = _text(io.FileIO(2, "w", closefd=False))
    if sys.stdout is None:
        sys.stdout = _text(io.FileIO(1, "w", closefd=False))
        raise HostError("standard output", "is closed", "open it, or send it to a file or to /dev/null")
    # Not what a test, or a caller, has put in their place.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Stream(1, "standard output"), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Stream(2, None), sys.stderr)


def _check_folder() -> None:
    """Libraries die in ways of their own where the current folder has been removed."""
    try:
        Path.cwd()
    except OSError as error:
        raise HostError("current folder", HostError.at("", error).reason, "go to one that is there") from None


class _Stream(io.FileIO):
    """A standard stream. One with a name raises HostError when it fails, and takes all that comes later.

    One without a name takes all from the first: that nobody hears what is told is no reason to end the work.
    """

    def __init__(self, number: int, name: str | None) -> None:
        super().__init__(number, "w", closefd=False)
        self._name, self._failed = name, False

    def write(self, data: Any) -> int:
        if self._failed:
            return len(data)
        try:
            while (written := super().write(data)) is None:  # not ready, where another process made it so
                select.select((), (self,), ())
        except OSError as error:
            self._failed = True
            if self._name is not None:
                raise HostError.at(self._name, error) from None
            return len(data)
        return written


def _text(raw: io.FileIO, like: TextIO | None = None) -> TextIO:
    """A text stream over a file; what its encoding lacks is shown by escapes."""
    with suppress(OSError, ValueError):
        if like is not None:
            like.flush()
    encoding, each_line = (None, True) if like is None else (like.encoding, getattr(like, "line_buffering", True))
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=each_line
    )
