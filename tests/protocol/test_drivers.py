"""World, bench and a driver by hand carry out one flow: equal requests, and a new step is one handler in each."""

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from capcsim.backend import Compute, Message, Phase, Role, Scope, Step
from capcsim.costs.foresee import drive
from capcsim.costs.measure import Handlers
from capcsim.protocol import flow as flow_module
from capcsim.protocol.admission import Admission
from capcsim.protocol.flow import (
    Ask,
    Command,
    Flow,
    Open,
    Settle,
    SetUp,
    Stop,
    flow,
)
from capcsim.scenario import Scenario
from capcsim.study.books import scratch_books
from capcsim.study.means import Means
from capcsim.study.trained import deal_out
from capcsim.study.walk import load_backend, walk
from tests.protocol.test_flow import happens
from tests.simulation.rows import rows

# What each driver was asked to do, by querying party.
Requests = dict[int, list[tuple[Any, ...]]]


def request(command: Command) -> tuple[int, tuple[Any, ...]] | None:
    match command:
        case SetUp(lane, partners, steps):
            return lane.querier, ("set up", lane, partners, steps)
        case Ask(batch, deadline_s, steps):
            return batch.querier, ("ask", batch.lane, batch.number, batch.queries, deadline_s, steps)
        case Open(batch, counted, _, steps):
            return batch.querier, ("open", batch.number, counted, steps)
        case Settle(batch, counted, declined, labels, whys):
            return batch.querier, ("settle", batch.number, counted, declined, len(labels), whys)
        case Stop(querier, why):
            return querier, ("stop", why)
    return None


class Watched:
    """A flow whose commands are noted as they are handed to whoever drives it."""

    def __init__(self, watched: Flow, found: Requests) -> None:
        self._flow, self._found = watched, found

    def __next__(self) -> list[Command]:
        return self._note(next(self._flow))

    def send(self, event: Any) -> list[Command]:
        return self._note(self._flow.send(event))

    def _note(self, commands: list[Command]) -> list[Command]:
        for noted in filter(None, map(request, commands)):
            self._found[noted[0]].append(noted[1])
        return commands


@pytest.fixture
def requests_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], dict[str, Requests]]:
    """The requests that world, bench and the driver by hand get from one scenario."""

    def run(scenario: Scenario) -> dict[str, Requests]:
        found: dict[str, Requests] = {name: defaultdict(list) for name in ("world", "bench", "hand")}
        made: list[tuple[Any, ...]] = []

        def watched(name: str) -> Any:
            def begin(turns: Any, rules: Any, admission: Admission, opener: Any) -> Any:
                if name == "world":
                    made.append((turns, rules, admission.scratch(), opener))
                return Watched(flow(turns, rules, admission, opener), found[name])

            return begin

        monkeypatch.setattr("capcsim.study.simulated.flow", watched("world"))
        monkeypatch.setattr("capcsim.costs.foresee.flow", watched("bench"))
        means = Means()
        with closing(load_backend(scenario)) as backend, scratch_books(scenario) as books:
            walk(deal_out(scenario, [backend], means), backend, books, means)
            drive(Watched(flow(*made[0]), found["hand"]), happens)  # type: ignore[arg-type]
        return found

    return run


def test_every_driver_gets_the_same_requests(
    requests_of: Callable[[Scenario], dict[str, Requests]], scenario: Callable[..., Scenario]
) -> None:
    """One batch at a time; of several, when each comes back is a matter of time."""
    found = requests_of(scenario())
    assert found["world"] == found["bench"] == found["hand"]
    assert [kind for kind, *_ in found["world"][0]] == ["set up", *["ask", "open", "settle"] * 3]


class Dummy(StrEnum):
    """A step that the protocol does not have."""

    BLIND = "blind"


def test_a_further_step_is_a_change_in_the_flow_and_one_handler_for_each_driver(
    requests_of: Callable[[Scenario], dict[str, Requests]],
    scenario: Callable[..., Scenario],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Between argmax and hand-in: the world replays what the bench's handler ran, and so needs none of its own."""
    monkeypatch.setenv("CAPCSIM_CACHE", str(tmp_path))
    blinded: list[Any] = []

    def blind(execution: Any) -> Any:
        blinded.append(execution)
        work = Compute(Role.ANSWERER, 0.5, Dummy.BLIND, Phase.ONLINE, Scope.PAIR, ())  # type: ignore[arg-type]
        return work, Message(Role.ANSWERER, Role.GUARDIAN, 7, Dummy.BLIND, Phase.ONLINE, Scope.PAIR, (0,))  # type: ignore[arg-type]

    before = Handlers.__init__

    def with_handler(self: Handlers, *arguments: Any) -> None:
        before(self, *arguments)
        self.of_pairs[Dummy.BLIND] = blind  # type: ignore[index]

    infer, argmax, hand_in = flow_module.PAIR
    monkeypatch.setattr(flow_module, "PAIR", (infer, argmax, Dummy.BLIND, hand_in))
    monkeypatch.setattr(Handlers, "__init__", with_handler)
    monkeypatch.setattr("capcsim.costs.measured.STEPS", (*Step, Dummy.BLIND))
    found = requests_of(scenario({"queries.per_querier": 3}))
    assert found["world"] == found["bench"] == found["hand"]
    assert Dummy.BLIND in found["world"][0][1][-1]
    assert blinded
    means = Means(measure=True)
    wanted = scenario({"queries.per_querier": 3})
    with closing(load_backend(wanted)) as backend, scratch_books(wanted) as books:
        log = walk(deal_out(wanted, [backend], means), backend, books, means).simulated.log
    done = Counter(row.step for row in rows(log.compute()))
    assert done[Dummy.BLIND] == 14, "two batches of one querying party each, seven answering parties"  # type: ignore[index]
    assert sum(row.nbytes for row in rows(log.messages()) if row.step == Dummy.BLIND) == 14 * 7
