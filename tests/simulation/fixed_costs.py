"""Hand-made transcripts, so that every time of a collaboration has a closed form."""

from collections.abc import Callable, Sequence

from capcsim.backend import (
    Compute,
    Message,
    Phase,
    Role,
    Scope,
    Step,
    Transcript,
)
from capcsim.protocol.steps import Voter
from capcsim.simulation.world import Simulated

CLASSES = 3
INFER_S, ARGMAX_S, SUBMIT_S, COUNT_S, RELEASE_S, SETUP_S, ENCODE_S = 1.0, 0.5, 0.25, 0.125, 2.0, 4.0, 8.0
Simulate = Callable[..., Simulated]


class FixedCosts:
    """The same durations for everybody, and no bytes: times are sums of the constants above and latencies."""

    def transcript(self, step: Step, voter: Voter | None, querier: int, batch: int = -1, size: int = 0) -> Transcript:
        def work(role: Role, seconds: float, *after: int, scope: Scope = Scope.PAIR) -> Compute:
            return Compute(role, seconds, step, Phase.ONLINE, scope, after)

        def message(sender: Role, receiver: Role, *after: int) -> Message:
            return Message(sender, receiver, 0, step, Phase.ONLINE, Scope.PAIR, after)

        match step, voter is None:
            case Step.SETUP, _:
                return (Compute(Role.QUERIER, SETUP_S, step, Phase.SETUP, Scope.QUERIER, ()),)
            case Step.INFER, False:
                encode = work(Role.QUERIER, ENCODE_S, scope=Scope.QUERY)
                return (encode, message(Role.QUERIER, Role.ANSWERER, 0), work(Role.ANSWERER, INFER_S, 1))
            case Step.ARGMAX, False:
                return (work(Role.ANSWERER, ARGMAX_S), message(Role.ANSWERER, Role.QUERIER, 0))
            case Step.AGGREGATE, False:
                return (message(Role.ANSWERER, Role.GUARDIAN), work(Role.GUARDIAN, SUBMIT_S, 0))
            case Step.AGGREGATE, True:
                return (work(Role.GUARDIAN, COUNT_S), message(Role.GUARDIAN, Role.QUERIER, 0))
            case _:
                return (work(Role.GUARDIAN, RELEASE_S), message(Role.GUARDIAN, Role.QUERIER, 0))

    def transcripts(
        self, steps: Sequence[Step], voters: Sequence[Voter | None], querier: int, batch: int = -1, size: int = 0
    ) -> list[tuple[Transcript, ...]]:
        return [tuple(self.transcript(step, voter, querier, batch, size) for step in steps) for voter in voters]

    def group(self, voter: Voter | None) -> str:
        return "guardian" if voter is None else "one"


class SetUpByPair(FixedCosts):
    """No work of a set-up is shared between pairs."""

    def transcript(self, step: Step, voter: Voter | None, querier: int, batch: int = -1, size: int = 0) -> Transcript:
        if step is Step.SETUP:
            return (Compute(Role.QUERIER, SETUP_S, Step.SETUP, Phase.SETUP, Scope.PAIR, ()),)
        return super().transcript(step, voter, querier, batch, size)


class SilentQuerier(FixedCosts):
    """No node of a pair is the querying party's."""

    def transcript(self, step: Step, voter: Voter | None, querier: int, batch: int = -1, size: int = 0) -> Transcript:
        if voter is not None and step in (Step.INFER, Step.ARGMAX):
            worked_s = {Step.INFER: INFER_S, Step.ARGMAX: ARGMAX_S}[step]
            return (Compute(Role.ANSWERER, worked_s, step, Phase.ONLINE, Scope.PAIR, ()),)
        return super().transcript(step, voter, querier, batch, size)


class NoShare(FixedCosts):
    """The guardian has no node in a pair."""

    def transcript(self, step: Step, voter: Voter | None, querier: int, batch: int = -1, size: int = 0) -> Transcript:
        handed_in = voter is not None and step is Step.AGGREGATE
        return super().transcript(Step.ARGMAX if handed_in else step, voter, querier, batch, size)


class Stranger(FixedCosts):
    """An answering party's node where there is none."""

    def transcript(self, step: Step, voter: Voter | None, querier: int, batch: int = -1, size: int = 0) -> Transcript:
        if step is Step.RELEASE:
            return (Compute(Role.ANSWERER, RELEASE_S, Step.RELEASE, Phase.ONLINE, Scope.PAIR, ()),)
        return super().transcript(step, voter, querier, batch, size)


ONE_BATCH_S = ENCODE_S + INFER_S + ARGMAX_S + SUBMIT_S + COUNT_S + RELEASE_S


def ended_s(found: Simulated) -> float:
    """When the last query was over."""
    return max(row.labelled_s for row in found.queries)


def latencies(found: Simulated, querier: int = 0) -> list[float]:
    return [row.labelled_s - row.submitted_s for row in found.queries if row.querier == querier]
