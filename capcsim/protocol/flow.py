"""How queries travel among many parties (paper, section 3.2): one generator, without a clock, a network or processes.

`flow` yields lists of commands and is sent one event at a time, so that many batches can be under way. Whoever drives
it lets each command happen in its own way, in simulated time, on real pairs, by hand, and answers SetUp with Ready, Ask
with Collected and Open with Opened, each in its own time and in any order. Settle, Lapse, Stop and End need no answer;
after End nothing follows. Arrived and Lapsed come by themselves, for turns that are open. The order of the steps stands
here and nowhere else: commands carry those that they are made of.
"""

from bisect import insort
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol, TypeAlias

from capcsim.backend import Step
from capcsim.protocol.admission import Admission
from capcsim.protocol.aggregate import Aggregate

SET_UP = (Step.SETUP,)
PAIR = (Step.INFER, Step.ARGMAX, Step.AGGREGATE)
"""Of a querying and an answering party: 1a and 1b, 1c, and the share that it hands in to the guardian."""
OPENING = (Step.AGGREGATE, Step.RELEASE)
"""Of a querying party and the guardian: the counted set is fixed, then step 3."""
UNANSWERED = "unanswered: its largest count with noise stayed below the threshold"
GUARDIAN = None
"""Stands among the voters with whom a querying party sets up."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How batches travel: at most `batch` queries each.

    The guardian waits for `deadline_s`, and needs that `quorum` of the votes that nobody declined.
    """

    batch: int
    quorum: float
    deadline_s: float | None

    def needed(self, asked: int) -> int:
        """How many of so many votes are enough; a billionth less, so that 0.56 of 25 is 14 in floating point too."""
        return max(1, ceil(self.quorum * asked - 1e-9))


@dataclass(frozen=True, slots=True)
class Turn:
    """What one querying party does in a round: it sets up with `partners`, then asks `queries`, of `answering` voters.

    It has so many `lanes`, and in each of them a session with everybody; `first_batch` numbers its batches on from the
    rounds before. Where its turn is `open`, a query can be asked once it has Arrived; else all are there.
    """

    querier: int
    queries: range
    answering: tuple[int, ...]
    partners: tuple[int | None, ...]
    lanes: int = 1
    first_batch: int = 0
    open: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """One set of a querying party's sessions, which run one batch at a time."""

    querier: int
    number: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries of one querying party that travel together."""

    lane: Lane
    number: int
    queries: range
    answering: tuple[int, ...]

    @property
    def querier(self) -> int:
        """Whose they are."""
        return self.lane.querier


@dataclass(frozen=True, slots=True)
class SetUp:
    """Keys and base transfers of a lane's sessions with voters, and the guardian."""

    lane: Lane
    partners: tuple[int | None, ...]
    steps: tuple[Step, ...] = field(default_factory=lambda: SET_UP)


@dataclass(frozen=True, slots=True)
class Ask:
    """Let every voter that is there answer a batch and hand its share in; the guardian waits until the deadline."""

    batch: Batch
    deadline_s: float | None
    steps: tuple[Step, ...] = field(default_factory=lambda: PAIR)


@dataclass(frozen=True, slots=True)
class Open:
    """Bring a batch's labels, which are charged and drawn already, to the querying party."""

    batch: Batch
    counted: tuple[int, ...]
    found: Aggregate = field(compare=False)
    steps: tuple[Step, ...] = field(default_factory=lambda: OPENING)


@dataclass(frozen=True, slots=True)
class Settle:
    """A batch is over: of each query its label, -1 where there is none, and `whys` then says why."""

    batch: Batch
    counted: tuple[int, ...]
    declined: int
    labels: tuple[int, ...]
    whys: tuple[str, ...]
    opened: int = 0


@dataclass(frozen=True, slots=True)
class Lapse:
    """These queries have lapsed before they were sent: nothing was asked, and nothing is charged."""

    querier: int
    queries: range


@dataclass(frozen=True, slots=True)
class Stop:
    """A querying party asks no further, although it would, and why."""

    querier: int
    why: str


@dataclass(frozen=True, slots=True)
class End:
    """All have asked what they may, and have been answered."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A lane is set up."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class Collected:
    """The guardian waits no longer for a batch: whose shares are there, and who declined it."""

    batch: Batch
    present: tuple[int, ...]
    declined: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """The querying party has the labels of a batch."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Arrived:
    """A querying party's queries are there up to number `until`, which is not counted."""

    querier: int
    until: int


@dataclass(frozen=True, slots=True)
class Lapsed:
    """A querying party does not want its queries up to number `until` any more, if they were not sent."""

    querier: int
    until: int


Command: TypeAlias = SetUp | Ask | Open | Settle | Lapse | Stop | End
Event: TypeAlias = Ready | Collected | Opened | Arrived | Lapsed
Flow: TypeAlias = Generator[list[Command], Event, None]


class Opener(Protocol):
    """Steps 2 and 3 of a batch for the voters that are counted; an Aggregator is one."""

    def __call__(self, querier: int, queries: Sequence[int], counted: Sequence[int]) -> Aggregate:
        """Charge, draw and open."""


@dataclass(slots=True)
class _Asking:
    """How far one querying party is in its turn."""

    turn: Turn
    next_query: int
    next_batch: int
    arrived: int
    idle: list[Lane] = field(default_factory=list)
    stopped: bool = False

    @property
    def expects_queries(self) -> bool:
        """Whether more of its queries will arrive."""
        return not self.stopped and self.arrived < self.turn.queries.stop


def flow(turns: Sequence[Turn], rules: Rules, admission: Admission, opener: Opener) -> Flow:
    """One round of queries; what was settled, charged and stopped is in its commands."""
    round_ = _Round(turns, rules, admission, opener)
    commands = list(round_.begin())
    expected = sum(map(_expects_an_answer, commands))
    while expected or round_.expects_queries:
        event = yield commands
        commands = list(round_.react(event))
        expected += sum(map(_expects_an_answer, commands)) - _answers(event)
    yield [*commands, End()]


def _expects_an_answer(command: Command) -> bool:
    return isinstance(command, SetUp | Ask | Open)


def _answers(event: Event) -> bool:
    return isinstance(event, Ready | Collected | Opened)


class _Round:
    """What the events of one round lead to."""

    def __init__(self, turns: Sequence[Turn], rules: Rules, admission: Admission, opener: Opener) -> None:
        self._rules, self._admission, self._open = rules, admission, opener
        self._asking = {
            turn.querier: _Asking(
                turn, turn.queries.start, turn.first_batch, turn.queries.start if turn.open else turn.queries.stop
            )
            for turn in turns
        }
        self._waiting: dict[int, None] = {}  # querying parties, in the order in which they began to wait
        self._settling: dict[Batch, Settle] = {}

    @property
    def expects_queries(self) -> bool:
        """Whether queries will arrive that can still be asked."""
        return any(asking.expects_queries for asking in self._asking.values())

    def begin(self) -> Iterator[Command]:
        """Everybody sets up all lanes at once; who can pay for no label at all asks nobody to."""
        for querier, asking in self._asking.items():
            if not asking.turn.queries:
                continue
            if not self._admission.affordable(querier, 1):
                yield from self._hold(querier)
                continue
            for number in range(asking.turn.lanes):
                yield SetUp(Lane(querier, number), asking.turn.partners)

    def react(self, event: Event) -> Iterator[Command]:
        """What follows from one event."""
        match event:
            case Ready(lane):
                yield from self._free(lane)
            case Collected(batch, present, declined):
                yield from self._collected(batch, present, declined)
            case Opened(batch):
                yield from self._settle(self._settling.pop(batch))
            case Arrived(querier, until):
                self._asking[querier].arrived = until
                yield from self._send(querier)
            case Lapsed(querier, until):
                asking = self._asking[querier]
                lapsed = range(asking.next_query, max(until, asking.next_query))
                asking.next_query = lapsed.stop
                if lapsed:
                    yield Lapse(querier, lapsed)

    def _free(self, lane: Lane) -> Iterator[Command]:
        """A lane can take the next batch; the lowest does where there are several."""
        insort(self._asking[lane.querier].idle, lane)
        yield from self._send(lane.querier)

    def _send(self, querier: int) -> Iterator[Command]:
        """Batches, as long as there is an idle lane and room in the budget."""
        asking, rules = self._asking[querier], self._rules
        while asking.idle and not asking.stopped:
            left = asking.arrived - asking.next_query
            if left == 0:
                return
            size = self._admission.admit(querier, min(left, rules.batch))
            if size == 0:
                yield from self._hold(querier)
                return
            queries = range(asking.next_query, asking.next_query + size)
            batch = Batch(asking.idle.pop(0), asking.next_batch, queries, asking.turn.answering)
            asking.next_query, asking.next_batch = queries.stop, asking.next_batch + 1
            yield Ask(batch, rules.deadline_s)

    def _hold(self, querier: int) -> Iterator[Command]:
        """The account has no room: for now, while labels under way may still be lost, or for good."""
        if self._admission.waits(querier):
            self._waiting[querier] = None
            return
        self._asking[querier].stopped = True
        yield Stop(querier, self._admission.refusal(querier))

    def _collected(self, batch: Batch, present: Sequence[int], declined: Sequence[int]) -> Iterator[Command]:
        """Step 2: with a quorum the batch is charged and opened, in this same instant."""
        self._admission.arrived(batch.querier, len(batch.queries))
        counted, asked = tuple(sorted(present)), len(batch.answering) - len(declined)
        if len(counted) < self._rules.needed(asked):
            why = f"{len(counted)} of {asked} votes had arrived by the deadline: no quorum"
            yield from self._settle(_unlabelled(batch, counted, len(declined), why))
            return
        found = self._open(batch.querier, batch.queries, counted)
        self._admission.settle(found)
        labels = tuple(int(label) for label in found.labels)
        reasons = (UNANSWERED if opened else found.refusal for opened in found.opened)
        whys = tuple("" if label >= 0 else why for label, why in zip(labels, reasons, strict=True))
        settled = Settle(batch, counted, len(declined), labels, whys, int(found.opened.sum()))
        if settled.opened:
            self._settling[batch] = settled
            yield Open(batch, counted, found)
        else:
            yield from self._settle(settled)

    def _settle(self, settled: Settle) -> Iterator[Command]:
        """The batch is over; its querying party goes on, then those that wait for room in an account."""
        yield settled
        waiting, self._waiting = self._waiting, {}
        yield from self._free(settled.batch.lane)
        for querier in waiting:
            yield from self._send(querier)


def _unlabelled(batch: Batch, counted: tuple[int, ...], declined: int, why: str) -> Settle:
    size = len(batch.queries)
    return Settle(batch, counted, declined, (-1,) * size, (why,) * size)
