"""What was measured, by stratum; and the simulated world's view of it."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any, Self, TypeAlias

from capcsim.backend import PublicModel, Step, Transcript
from capcsim.costs.condense import condensed
from capcsim.costs.transcripts import cpu_spread, from_json, to_json
from capcsim.privacy.mechanisms import Mechanism
from capcsim.protocol.steps import Voter, release_bits
from capcsim.seeds import Seeds

STEPS = tuple(Step)
"""The place of a step in it is part of what a draw of samples depends on."""
Own: TypeAlias = dict[tuple[Step, int, int, int, int], Transcript]
"""By step, querying party, batch, its size, and voter."""


@dataclass
class Agreement:
    """How often real execution gave the vote that `reference` gives; each pair counts once."""

    pairs: int = 0
    votes: int = 0
    disagreements: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        votes, disagreements = self.votes + other.votes, self.disagreements + other.disagreements
        return Agreement(self.pairs + other.pairs, votes, disagreements)

    def upper_bound(self, confidence: float = 0.95) -> float | None:
        """Clopper-Pearson upper confidence bound on the rate of disagreement; None without a vote."""
        from scipy.stats import beta

        if self.votes == 0:
            return None
        if self.disagreements == self.votes:
            return 1.0
        return float(beta.ppf(confidence, self.disagreements + 1, self.votes - self.disagreements))


@dataclass(frozen=True, slots=True, order=True)
class Stratum:
    """What has the same cost: a step of one architecture (or of the guardian) at one batch size."""

    step: Step
    group: str
    size: int


@dataclass
class Measurements:
    """Samples by stratum; `own` has each pair's own transcripts where every pair was executed.

    `agreement` is of this run, `earlier` of the runs whose samples were used again.
    """

    samples: dict[Stratum, tuple[Transcript, ...]] = field(default_factory=dict)
    own: Own = field(default_factory=dict)
    agreement: Agreement = field(default_factory=Agreement)
    earlier: Agreement = field(default_factory=Agreement)
    reused_strata: int = 0

    def copy(self) -> "Measurements":
        """The same, to add to."""
        return replace(self, samples=dict(self.samples), own=dict(self.own))

    def to_json(self) -> dict[str, Any]:
        """For the run's record."""
        return {
            "samples": [[*astuple(key), [to_json(t) for t in found]] for key, found in self.samples.items()],
            "own": [[*key, to_json(transcript)] for key, transcript in self.own.items()],
            "agreement": asdict(self.agreement),
            "earlier": asdict(self.earlier),
            "reused_strata": self.reused_strata,
        }

    def spread(self) -> list[dict[str, Any]]:
        """How far apart the samples of each stratum lie; pairs that were executed besides are no repeats."""
        return [
            {
                "step": key.step.value,
                "group": key.group,
                "size": key.size,
                "samples": len(found),
                "cpu_s": cpu_spread(found),
            }
            for key, found in sorted(self.samples.items())
            if found
        ]

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            samples={
                Stratum(Step(step), name, size): tuple(map(from_json, found))
                for step, name, size, found in stored["samples"]
            },
            own={(Step(step), *key): from_json(nodes) for step, *key, nodes in stored["own"]},
            agreement=Agreement(**stored["agreement"]),
            earlier=Agreement(**stored["earlier"]),
            reused_strata=stored["reused_strata"],
        )


def pair_group(public: PublicModel) -> str:
    """The architecture: all that the cost of a pair depends on besides the batch."""
    shape = "x".join(map(str, public.input_shape))
    layers = ", ".join(map(str, public.layers))
    return f"{shape}: {layers}, mod 2^{public.ring_bits}, {public.fraction_bits} fraction bits"


def guardian_group(classes: int, voters: int, mechanism: Mechanism) -> str:
    """All that the cost of the guardian's steps depends on besides the batch: not how much noise there is."""
    tested = "" if mechanism.threshold is None else f", threshold {mechanism.threshold}"
    width = release_bits(mechanism, voters)
    return f"guardian: {classes} classes, {voters} voters, {mechanism.argmax.family} noise, mod 2^{width}{tested}"


class MeasuredCosts:
    """Answers the simulated world out of the measurements; which sample it gets is a matter of the seed.

    A batch of a size that was not foreseen (a budget that ran low in its middle) replays the next larger size. Long
    transcripts come condensed.
    """

    def __init__(self, measured: Measurements, seeds: Seeds) -> None:
        self._measured, self._seeds = measured, seeds
        self._guardian = next((key.group for key in measured.samples if key.step is Step.RELEASE), "")
        self._condensed: dict[int, Transcript] = {}
        self._groups: dict[int, str] = {}
        self._drew: dict[tuple[int, tuple[int, ...]], tuple[Transcript, ...]] = {}
        self._drawn: dict[tuple[object, ...], tuple[tuple[Transcript, ...], ...]] = {}
        self._sizes: dict[tuple[Step, str], list[int]] = {}
        for key in sorted(measured.samples):
            self._sizes.setdefault((key.step, key.group), []).append(key.size)

    def transcripts(
        self, steps: Sequence[Step], voters: Sequence[Voter | None], querier: int, batch: int = -1, size: int = 0
    ) -> list[tuple[Transcript, ...]]:
        """Of each voter, or (None) the guardian: one transcript a step, with a querying party, of so many queries."""
        indices = [-1 if voter is None else voter.index for voter in voters]
        drawn = [self._draws(step, querier, batch, max(indices, default=-1) + 2) for step in steps]
        if self._measured.own:
            return [
                tuple(
                    self._one(step, voter, (querier, batch, size, i), draws[i + 1])
                    for step, draws in zip(steps, drawn, strict=True)
                )
                for voter, i in zip(voters, indices, strict=True)
            ]
        found = []
        for voter, index in zip(voters, indices, strict=True):
            samples = self._of_group(steps, self.group(voter), size)
            drew = tuple([int(draws[index + 1] * len(some)) for some, draws in zip(samples, drawn, strict=True)])
            found.append(self._together(samples, drew))
        return found

    def group(self, voter: Voter | None) -> str:
        """Pairs of one architecture share the work of scopes QUERIER and QUERY; None is the guardian."""
        if voter is None:
            return self._guardian
        if voter.index not in self._groups:
            self._groups[voter.index] = pair_group(voter.prepared.public)
        return self._groups[voter.index]

    def _draws(self, step: Step, querier: int, batch: int, count: int) -> list[float]:
        """What decides which samples the guardian and each voter get, whoever of them is there."""
        drawn: list[float] = (
            self._seeds.generator("replay", STEPS.index(step), querier, batch + 1).random(count).tolist()
        )
        return drawn

    def _one(self, step: Step, voter: Voter | None, pair: tuple[int, int, int, int], drawn: float) -> Transcript:
        """A pair's own transcript where it was executed, else a sample."""
        own = self._measured.own.get((step, *pair))
        if own is not None:
            return self._short(own)
        [samples] = self._of_group((step,), self.group(voter), pair[2])
        return samples[int(drawn * len(samples))]

    def _together(self, samples: tuple[tuple[Transcript, ...], ...], drew: tuple[int, ...]) -> tuple[Transcript, ...]:
        """The same object for the same samples of the same steps."""
        key = id(samples), drew
        found = self._drew.get(key)
        if found is None:
            found = self._drew[key] = tuple(some[one] for some, one in zip(samples, drew, strict=True))
        return found

    def _of_group(self, steps: Sequence[Step], name: str, size: int) -> tuple[tuple[Transcript, ...], ...]:
        """The samples of each step, of the next larger size that was measured."""
        key = (*steps, name, size)
        if key not in self._drawn:
            self._drawn[key] = tuple(self._samples(step, name, size) for step in steps)
        return self._drawn[key]

    def _samples(self, step: Step, name: str, size: int) -> tuple[Transcript, ...]:
        sizes = self._sizes[step, name]
        measured = next((known for known in sizes if known >= size), sizes[-1])
        return tuple(map(self._short, self._measured.samples[Stratum(step, name, measured)]))

    def _short(self, transcript: Transcript) -> Transcript:
        """The same object for the same transcript, which `_measured` keeps alive."""
        if id(transcript) not in self._condensed:
            self._condensed[id(transcript)] = condensed(transcript)
        return self._condensed[id(transcript)]
