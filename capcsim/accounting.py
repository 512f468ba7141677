"""`capcsim account` and `capcsim tune`: votes from a file or a run's record, a mechanism, every analysis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from capcsim.errors import InputError, RecordError
from capcsim.privacy.conversions import check_delta
from capcsim.privacy.mechanisms import (
    MOST_MOVED,
    PARAMETERS,
    Adjacency,
    Mechanism,
    NoiseKind,
    build,
)
from capcsim.privacy.vote_files import read_votes
from capcsim.privacy.votes import VoteCounts

if TYPE_CHECKING:
    # Loaded when they are needed, so that what is wrong with an option is told at once.
    from rich.console import RenderableType

    from capcsim.privacy.analysis import Account
    from capcsim.privacy.tuning import Tuning
    from capcsim.record import Record

MOST_LABELS = 1 << 15
LARGEST_PLAIN = 1e9
Choice = TypeVar("Choice", Adjacency, NoiseKind)


@dataclass(frozen=True)
class Accounted:
    """What was found, of which mechanism, and what to know about it, a sentence a line."""

    account: "Account"
    mechanism: Mechanism
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `capcsim account --json` prints."""
        return {**self.account.to_json(), "notes": list(self.notes)}

    def table(self) -> "RenderableType":
        """Every analysis in a table, and the notes under it."""
        from rich.console import Group
        from rich.text import Text

        from capcsim.report.layout import new_table

        account = self.account
        size = f"{account.queries} quer{'y' if account.queries == 1 else 'ies'} of {account.classes} classes"
        table = new_table(f"{self.title}, {size}, delta {account.delta:g}")
        for column in ("analysis", "epsilon", "may be published"):
            right = column == "epsilon"
            table.add_column(column, justify="right" if right else "left", no_wrap=right)
        for name, epsilon, kind in account.rows():
            shown = "-" if epsilon is None else f"{epsilon:.4f}" if epsilon < LARGEST_PLAIN else f"{epsilon:.4e}"
            table.add_row(name, shown, kind)
        return Group(table, *map(Text, self.notes))

    def __str__(self) -> str:
        from capcsim.report.layout import printed

        return printed(self.table())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from capcsim.report.layout import as_html

        return as_html(self.table())

    @property
    def title(self) -> str:
        """The mechanism in words."""
        return self.mechanism.title


def parse_mechanism(
    votes: Path | VoteCounts,
    name: str | None,
    parameters: Mapping[str, float | None],
    *,
    adjacency: str,
    group_size: int | None,
) -> Mechanism:
    """The mechanism that options describe; a run's own where no name is given. Raises InputError or RecordError."""
    given = {key: value for key, value in parameters.items() if value is not None}
    if name is None:
        if isinstance(votes, VoteCounts) or not votes.is_dir():
            raise InputError(f"--mechanism: give one of {', '.join(PARAMETERS)} for a file of votes")
        if given or group_size is not None:
            raise InputError("--mechanism: name it to give it parameters; without it a run's own is used")
        from capcsim.protocol.noise import mechanism_of
        from capcsim.scenario import parse_scenario

        return mechanism_of(parse_scenario(_record(votes).manifest["scenario"]))
    if name not in PARAMETERS:
        raise InputError(f"--mechanism {name}: choose one of {', '.join(PARAMETERS)}")
    for key in PARAMETERS[name]:
        if key not in given:
            raise InputError(f"--{key} is missing: a number of votes for {name}")
    for key in given:
        if key not in PARAMETERS[name]:
            raise InputError(f"--{key} {given[key]:g}: {name} has no such parameter")
    if group_size is not None and not (isinstance(group_size, int) and 0 < group_size <= MOST_MOVED):
        raise InputError(f"--group-size {group_size}: the protected unit casts at least one vote and at most 2^31")
    unit = (1 if group_size is None else group_size, _choice(Adjacency, "--adjacency", adjacency))
    if "threshold" in given:
        given["threshold"] = _whole(given["threshold"])
    return build(name, given, *unit)


def account_of(
    source: Path | VoteCounts,
    mechanism: Mechanism,
    delta: float | None,
    *,
    noise: str | None = None,
    budget: float | None = None,
    figures: Path | None = None,
    header: bool | None = None,
    begin: Callable[[str], object] = str,
) -> Accounted:
    """Account for votes, or those of a file or a run's directory; raises a CapcsimError.

    `header` says whether the first line of a text file is one, where its reader cannot know; `begin` is told when the
    work begins.
    """
    told = None if isinstance(source, VoteCounts) or not source.is_dir() else _record(source).manifest["scenario"]
    privacy = told["privacy"] if told else {}
    kind = NoiseKind.DISCRETE if told else NoiseKind.CONTINUOUS
    if noise is not None:
        kind = _choice(NoiseKind, "--noise", noise)
    if delta is None and not privacy:
        raise InputError("--delta is missing: strictly between 0 and 1")
    delta = float(privacy["delta"]) if delta is None else delta
    check_delta(delta)
    if budget is not None and not budget > 0:
        raise InputError(f"--budget {budget:g}: an epsilon above 0")
    votes = source if isinstance(source, VoteCounts) else load_votes(source, header)
    begin("accounting")

    from capcsim.privacy.analysis import analyse, epsilon_curves

    seeded = told is not None and privacy["noise"] != "real"
    account = replace(analyse(votes, mechanism, delta, kind), seeded=seeded)
    notes = _notes(votes, mechanism, kind)
    if seeded:
        notes.insert(0, "THIS RUN'S NOISE WAS SEEDED: IT PROTECTED NOBODY, AND NO EPSILON HOLDS FOR IT.")
    if told and told["parties"]["queriers"] > 1:
        notes.append("All querying parties' queries are taken together: what they would know if they pooled them.")
    if budget is not None:
        notes.append(_bought(mechanism, delta, budget))
    if figures is not None:
        from capcsim.report.privacy import draw_epsilon

        curves = epsilon_curves(votes, mechanism, delta, kind)
        notes.append(f"Figure: {draw_epsilon(curves, mechanism.name, delta, figures)}")
    return Accounted(account, mechanism, tuple(notes))


def tune_on(
    path: Path,
    max_loss: float,
    figures: Path | None,
    header: bool | None = None,
    begin: Callable[[str], object] = str,
) -> tuple["Tuning", Path | None]:
    """The largest sigma that label accuracy bears, and its figure where a folder is given."""
    votes = load_votes(path, header)
    begin("tuning")

    from capcsim.privacy.tuning import tune

    found = tune(votes, max_loss=max_loss)
    if figures is None:
        return found, None
    from capcsim.report.privacy import draw_accuracy

    return found, draw_accuracy(found.to_json(), figures)


def load_votes(path: Path, header: bool | None = None) -> VoteCounts:
    """Votes from a file, or what a run's record says was released."""
    return released_votes(_record(path)) if path.is_dir() else read_votes(path, header=header)


def released_votes(record: "Record") -> VoteCounts:
    """The counted votes of every query that was opened, in the order of their release, by all querying parties.

    `lost` charges, of a run that was killed and resumed, have no label. Raises RecordError.
    """
    from capcsim.journal import read_journal

    record.check_complete()
    record.check_journals()
    table, queries = (record.read_table(name).to_pydict() for name in ("votes", "queries"))
    asked = zip(*(table[key] for key in ("querier", "query", "voter")), strict=True)
    cast = dict(zip(asked, table["vote"], strict=True))
    true = dict(zip(zip(queries["querier"], queries["query"], strict=True), queries["true_label"], strict=True))
    released = [entry for entry in read_journal(record.releases_path) if entry["kind"] == "release"]
    if not released:
        raise RecordError(f"{record.folder}: no label was released in this run")
    counts = np.zeros((len(released), record.manifest["summary"]["classes"]), np.int64)
    for row, entry in enumerate(released):
        for voter in (number for number, mark in enumerate(entry["counted"]) if mark == "1"):
            counts[row, cast[entry["querier"], entry["query"], voter]] += 1
    charged = sum(entry["kind"] in ("reserve", "torn") for entry in read_journal(record.ledger_path))
    return VoteCounts(
        counts,
        np.array([entry["label"] >= 0 for entry in released]),
        np.array([true[entry["querier"], entry["query"]] for entry in released], np.int64),
        lost=charged - len(released),
    )


def _record(folder: Path) -> "Record":

    from capcsim.record import Record

    return Record.load(folder)


def _bought(mechanism: Mechanism, delta: float, budget: float) -> str:
    """How many labels an epsilon pays for, in a sentence."""
    from capcsim.privacy.accountant import Accountant

    labels = Accountant(mechanism, delta).affordable(budget, MOST_LABELS)
    more = " or more" if labels == MOST_LABELS else ""
    return f"Epsilon {budget:g} pays for {labels}{more} labels with discrete noise, whatever the votes."


def _notes(votes: VoteCounts, mechanism: Mechanism, noise: NoiseKind) -> list[str]:
    notes = [
        f"Noise: {noise.value}. A unit moves {mechanism.moved_votes} vote{'s' * (mechanism.moved_votes > 1)}"
        f" ({mechanism.adjacency.value}). A data-dependent epsilon is itself private, and takes the queries as chosen"
        " beforehand."
    ]
    if not mechanism.answers_every_query:
        if votes.answered is None:
            notes.append("No column says which queries were answered: all are charged as answered.")
        else:
            notes.append(f"{int(votes.answered.sum())} queries were answered, the others charged for the test alone.")
    elif votes.answered is not None and not votes.answered.all():
        notes.append(f"{mechanism.name} has no threshold: every query is charged in full, answered or not.")
    if votes.lost:
        notes.append(f"{votes.lost} charges whose label was lost are added in full.")
    return notes


def _choice(kind: type[Choice], option: str, value: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{option} {value}: choose {' or '.join(kind)}") from None


def _whole(threshold: float) -> int:
    if threshold != threshold or abs(threshold) > 1 << 31 or threshold != int(threshold):
        raise InputError(f"--threshold {threshold:g}: a whole number of votes")
    return int(threshold)
