"""What a round will ask of real pairs, learned by driving its flow dry: nothing is charged, drawn or sent.

Two extremes are driven: every label is bought, and none is, because every batch is lost. The one ends where the budget
does, the other where the querying parties' wishes do; between them lie the sizes that batches can have.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from capcsim.backend import Step
from capcsim.costs.measured import pair_group
from capcsim.privacy.mechanisms import Event
from capcsim.protocol.admission import Admission
from capcsim.protocol.aggregate import Aggregate
from capcsim.protocol.flow import (
    Ask,
    Collected,
    Command,
    Flow,
    Open,
    Opened,
    Ready,
    Rules,
    SetUp,
    Turn,
    flow,
)
from capcsim.protocol.flow import Event as FlowEvent
from capcsim.protocol.steps import Voter


@dataclass(frozen=True, slots=True)
class Pair:
    """One execution: a querying party's batch of queries, one voter or (None) the guardian, and its steps in order."""

    querier: int
    batch: int
    queries: range
    voter: Voter | None
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Foreseen:
    """Commands of a dry drive, in the order in which they came."""

    commands: tuple[Command, ...]

    def pairs(self, voters: Sequence[Voter]) -> list[Pair]:
        """Every execution of a querying party with a voter."""
        set_up = self._set_up_steps()
        return [
            Pair(ask.batch.querier, ask.batch.number, ask.batch.queries, voters[index], (*set_up, *ask.steps))
            for ask in self.commands
            if isinstance(ask, Ask)
            for index in ask.batch.answering
        ]

    def openings(self) -> list[Pair]:
        """Every execution of a querying party with the guardian."""
        set_up = self._set_up_steps()
        return [
            Pair(each.batch.querier, each.batch.number, each.batch.queries, None, (*set_up, *each.steps))
            for each in self.commands
            if isinstance(each, Open)
        ]

    def set_ups(self, voters: Sequence[Voter]) -> list[Pair]:
        """Every set-up by itself: a querying party may have no chance to ask whom it has set up with."""
        return [
            Pair(each.lane.querier, -1, range(0), None if index is None else voters[index], each.steps)
            for each in self.commands
            if isinstance(each, SetUp)
            for index in each.partners
        ]

    def sizes(self) -> tuple[tuple[int, int, int], ...]:
        """Querying party, number and size of every batch: what costs depend on besides the voters."""
        asked = [command.batch for command in self.commands if isinstance(command, Ask)]
        return tuple(sorted((batch.querier, batch.number, len(batch.queries)) for batch in asked))

    def _set_up_steps(self) -> tuple[Step, ...]:
        return next((command.steps for command in self.commands if isinstance(command, SetUp)), ())


def drive(driven: Flow, answer: Callable[[Command], FlowEvent | None]) -> Foreseen:
    """Let each command happen at once, in the order in which they come; `answer` gives its event."""
    seen: list[Command] = []
    events: deque[FlowEvent] = deque()
    commands = next(driven)
    while True:
        for command in commands:
            seen.append(command)
            if (event := answer(command)) is not None:
                events.append(event)
        if not events:
            return Foreseen(tuple(seen))
        commands = driven.send(events.popleft())


def foresee(turns: Sequence[Turn], rules: Rules, admission: Admission, *, loses: bool) -> list[Foreseen]:
    """A round driven dry: with every label bought, and, where queries can be lost, first with every batch lost."""
    outcomes = (False, True) if loses else (True,)
    there = [replace(turn, open=False) for turn in turns]
    return [
        _dry(some, replace(rules, batch=size), admission.scratch(), bought=bought)
        for some, size in [(there, rules.batch), *_smaller(there, rules.batch, any(turn.open for turn in turns))]
        for bought in outcomes
    ]


def _smaller(turns: Sequence[Turn], batch: int, needed: bool) -> Iterator[tuple[list[Turn], int]]:
    """One batch of each power of two: of queries that come by themselves there may be fewer than fill a batch."""
    for power in range(batch.bit_length() if needed else 0):
        if (size := 1 << power) < batch:
            short = [range(turn.queries.start, min(turn.queries.start + size, turn.queries.stop)) for turn in turns]
            yield [replace(turn, queries=some) for turn, some in zip(turns, short, strict=True)], size


def _dry(turns: Sequence[Turn], rules: Rules, admission: Admission, *, bought: bool) -> Foreseen:
    def opener(querier: int, queries: Sequence[int], counted: Sequence[int]) -> Aggregate:  # noqa: ARG001
        spent = {account: Counter({Event(): len(queries)}) for account in admission.accounts(querier)}
        return Aggregate(np.zeros(len(queries), np.int64), np.ones(len(queries), np.bool_), spent)

    def answer(command: Command) -> FlowEvent | None:
        match command:
            case SetUp(lane):
                return Ready(lane)
            case Ask(batch):
                return Collected(batch, batch.answering if bought else ())
            case Open(batch):
                return Opened(batch)
        return None

    return drive(flow(turns, rules, admission, opener), answer)


def merged(foreseen: Sequence[Foreseen], voters: Sequence[Voter]) -> list[Pair]:
    """Every execution that may occur, each once: with voters, then with the guardian."""
    pairs = [pair for each in foreseen for pair in (*each.pairs(voters), *each.openings())]
    asked = {_group(pair) for pair in pairs}
    only_set_up = [pair for each in foreseen for pair in each.set_ups(voters) if _group(pair) not in asked]
    every = pairs + only_set_up
    return list({(pair.querier, pair.queries, pair.voter and pair.voter.index): pair for pair in every}.values())


def _group(pair: Pair) -> str | None:
    return pair_group(pair.voter.prepared.public) if pair.voter else None
