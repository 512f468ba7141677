"""How far a long command is, on the error stream: bars on a terminal, elsewhere lines that never stop coming."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from time import monotonic
from typing import Protocol

from rich.console import Console

SILENCE_S = 4.0
"""The longest time without a line; told to be 5 s, of which a busy machine gets one."""
Advance = Callable[[float], None]


class Shown(Protocol):
    """One way of showing progress."""

    def start(self) -> None:
        """Begin to show."""

    def stop(self) -> None:
        """Show no more."""

    def stage(self, title: str, total: int) -> Advance:
        """A stage of `total` steps begins, and the one before is over."""


class Stages:
    """What a command does, stage by stage, and how long the stage will still take.

    `quiet` is for commands that print JSON: then only somebody at a terminal is told. `bars` are not for commands that
    print something else meanwhile.
    """

    def __init__(self, err: Console, *, quiet: bool, bars: bool = True) -> None:
        self._err = err
        self._quiet = quiet and not err.is_terminal
        self._shown: Shown = Nothing() if self._quiet else Bars(err) if bars and err.is_terminal else Lines(err)

    def __enter__(self) -> "Stages":
        self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.stop()

    def note(self, text: str) -> None:
        """Say something besides the stages."""
        if not self._quiet:
            self._err.print(text, markup=False, highlight=False, soft_wrap=True)

    def stage(self, title: str, total: int = 1) -> Advance:
        """Begin a stage of `total` steps; call the answer with the number of steps that are done."""
        return self._shown.stage(title, max(total, 1))


class Nothing:
    """For those who do not watch."""

    def start(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    def stage(self, title: str, total: int) -> Advance:  # noqa: ARG002
        """Nothing."""
        return lambda _: None


class Bars:
    """A bar for each stage."""

    def __init__(self, err: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeftColumn

        left = (TextColumn("left"), TimeLeftColumn(compact=True))
        self._task: TaskID | None = None
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), *left)
        self._bars = Progress(*columns, console=err, redirect_stdout=False)

    def start(self) -> None:
        """Begin to draw."""
        self._bars.start()

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._end()
        self._bars.stop()

    def stage(self, title: str, total: int) -> Advance:
        """A bar of its own."""
        self._end()
        task = self._task = self._bars.add_task(title, total=total)
        return lambda done: self._bars.advance(task, done)

    def _end(self) -> None:
        """Stop the clock of the stage before, whose single step may not have been told."""
        if self._task is not None:
            if self._bars.tasks[-1].total == 1:
                self._bars.update(self._task, completed=1)
            self._bars.stop_task(self._task)


@dataclass(slots=True)
class Stage:
    """One stage, and how much of it is done."""

    title: str
    total: int
    begun_s: float
    done: float = 0.0

    def __str__(self) -> str:
        return f"{self.title} ({self.total})" if self.total > 1 else self.title

    def told(self, now_s: float) -> str:
        """How far it is."""
        so_far_s = now_s - self.begun_s
        done = min(int(self.done), self.total)
        count = f" {done} of {self.total}" if self.total > 1 else ""
        if not 0 < self.done < self.total:
            return f"{self.title}{count}, {duration(so_far_s)} so far"
        return f"{self.title}{count}, about {duration(so_far_s * (self.total - self.done) / self.done)} left"


class Lines:
    """A line for each stage, and one more whenever there has been none for a while."""

    def __init__(self, err: Console) -> None:
        self._err, self._lock, self._over = err, Lock(), Event()
        self._stage: Stage | None = None
        self._said_s = monotonic()
        self._thread = Thread(target=self._watch, name="capcsim progress", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Say no more."""
        self._over.set()
        self._thread.join()

    def stage(self, title: str, total: int) -> Advance:
        """Say that it begins."""
        stage = Stage(title, total, monotonic())
        with self._lock:
            self._stage = stage
            self._say(str(stage))

        def advance(done: float) -> None:
            stage.done += done

        return advance

    def _watch(self) -> None:
        while not self._over.wait(max(self._said_s + SILENCE_S - monotonic(), 0.05)):
            with self._lock:
                if self._stage is not None and monotonic() >= self._said_s + SILENCE_S:
                    self._say(self._stage.told(monotonic()))

    def _say(self, text: str) -> None:
        self._said_s = monotonic()
        self._err.print(text, markup=False, highlight=False, soft_wrap=True)


def duration(time_s: float) -> str:
    """Some time in words, rounded."""
    if time_s < 90:
        return f"{time_s:.0f} s"
    return f"{time_s / 60:.0f} min" if time_s < 5400 else f"{time_s / 3600:.1f} h"
