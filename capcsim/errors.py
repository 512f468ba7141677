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
    └── RecordError             a run's directory is damaged, foreign or in use

Each message says what was wrong, where, and what to do about it, on one line. The command line turns
a CapcsimError into exit code 2; anything else is a fault of ours and exits with 1.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CapcsimError(Exception):
    """The root: something that the user can mend."""


class ScenarioError(CapcsimError):
    """A scenario, an override or the data that it names cannot be used.

    `key` is the dotted path (`privacy.sigma`), `value` what was found there, `allowed` what may stand there.
    """

    def __init__(self, key: str, value: object, allowed: str, *, source: str = "") -> None:
        self.key, self.value, self.allowed, self.source = key, value, allowed, source
        super().__init__(key, value, allowed)

    def __str__(self) -> str:
        shown = repr(self.value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        where = f"{self.source}: " if self.source else ""
        found = "is missing" if self.value is None else f"= {shown}"
        return f"{where}{self.key} {found}: {self.allowed}"

    def in_source(self, source: str) -> "ScenarioError":
        """The same error, naming the file that it came from."""
        return ScenarioError(self.key, self.value, self.allowed, source=source)


class InputError(CapcsimError, ValueError):
    """An argument of a public function has a wrong shape, type or value."""


class BackendNotFound(CapcsimError):
    """No installed package offers a backend of this name."""

    def __init__(self, name: str, available: Iterable[str]) -> None:
        self.name = name
        there = sorted(available)
        close = get_close_matches(name, there, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        super().__init__(f"no backend is called {name!r}; installed: {', '.join(there) or 'none'}{hint}")


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
    """The other role of a two-party program stopped, or sent what the protocol does not expect."""


class RecordError(CapcsimError):
    """A run's directory is damaged, belongs to another scenario, or is being written by another process."""
