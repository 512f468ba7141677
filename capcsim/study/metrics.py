"""Each metric once: its name, unit, definition and basis, and how it follows from a walk through the stages.

Table, JSON, report and docs/metrics.md are made from METRICS; `python -m capcsim.study.metrics` prints the latter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capcsim.learning.metrics import Quality, average
from capcsim.scenario import NoData
from capcsim.simulation.log import Log
from capcsim.simulation.world import QueryRow
from capcsim.study.result import Basis
from capcsim.study.walk import Walked

BASES: dict[Basis, str] = {
    "measured": "by running the real thing on this host: models on samples that nobody trained on, real cryptography",
    "estimated": "by a fit to such measurements, with its error",
    "simulated": "by the simulated world, out of measured transcripts",
    "assumed": "from a figure that the scenario names, such as a price",
}


@dataclass(frozen=True)
class View:
    """A walk as some of its querying parties see it: one, or all of them."""

    walked: Walked
    queriers: Sequence[int]

    @cached_property
    def rows(self) -> list[QueryRow]:
        """What became of their queries."""
        return [row for row in self.walked.simulated.queries if row.querier in self.queriers]

    @cached_property
    def released(self) -> list[QueryRow]:
        """Their queries with a label."""
        return [row for row in self.rows if row.label >= 0]

    @property
    def log(self) -> Log:
        """What was worked and sent."""
        return self.walked.simulated.log

    @cached_property
    def places(self) -> NDArray[np.bool_]:
        """Where they and others worked for them."""
        return np.array([location.querier in self.queriers for location in self.log.locations], np.bool_)

    @cached_property
    def latencies_s(self) -> NDArray[np.float64]:
        """From the submission of a query to its label, of those that have one."""
        return np.array([row.labelled_s - row.submitted_s for row in self.released])

    @property
    def makespan_s(self) -> float:
        """The time at which their last query was over."""
        return max((row.labelled_s for row in self.rows), default=0.0)

    @property
    def cpu_s(self) -> float:
        """All work for them, on every machine."""
        return float(self.log.busy_s[self.places].sum())

    def truth(self, row: QueryRow) -> int:
        """The true class of what a query asks about, which no party knows."""
        return int(self.walked.dataset.y[self.walked.asked.rows[row.querier][row.query]])

    def plurality(self, row: QueryRow) -> int:
        """The class with most of the counted votes; the lowest wins a tie."""
        ballots = self.walked.priced.ballots[row.querier][list(row.counted), row.query]
        return int(np.bincount(ballots, minlength=self.walked.dataset.classes).argmax())

    def qualities(self, moment: Literal["before", "after"]) -> list[Quality]:
        """Of each querying party's model on its evaluation set, the mean over the seeds of its training.

        None without data.
        """
        found = [getattr(self.walked.judged, moment)[querier] for querier in self.queriers]
        return [average(each) for each in found if each]

    @property
    def learns(self) -> bool:
        """Whether there are data to learn from."""
        return not isinstance(self.walked.scenario.data, NoData)


@dataclass(frozen=True)
class Metric:
    """One figure of a run; `of` gives it for any view, None where there is none."""

    name: str
    unit: str
    basis: Basis
    definition: str
    of: Callable[[View], float | int | None]


def _share(view: View, right: Callable[[QueryRow], int]) -> float | None:
    if not view.learns:
        return None
    return _share_of(view, right)


def _expected(view: View) -> float | None:
    return None if view.learns else _share_of(view, view.truth)


def _share_of(view: View, right: Callable[[QueryRow], int]) -> float | None:
    return float(np.mean([row.label == right(row) for row in view.released])) if view.released else None


def _latency_s(share: float) -> Callable[[View], float | None]:
    return lambda view: float(np.quantile(view.latencies_s, share)) if len(view.latencies_s) else None


def _mean(moment: Literal["before", "after"], measure: str) -> Callable[[View], float | None]:
    def mean(view: View) -> float | None:
        found = [getattr(each, measure) for each in view.qualities(moment)]
        return float(np.mean(found)) if found else None

    return mean


def _gain(view: View) -> float | None:
    before, after = (_mean(moment, "accuracy")(view) for moment in MOMENTS)
    return None if before is None or after is None else after - before


def _per_hour(view: View) -> float | None:
    return 3600 * len(view.released) / view.makespan_s if view.makespan_s else None


def _price(view: View) -> float:
    prices = view.walked.scenario.prices
    return view.cpu_s / 3600 * prices.per_core_hour + _bytes(view) / 1e9 * prices.per_gb_sent


def _bytes(view: View) -> int:
    return int(view.log.bytes[view.places].sum())


MOMENTS: tuple[Literal["before"], Literal["after"]] = ("before", "after")
LATENCY = "time from the submission of a query to its label, over the queries that got one"
METRICS: tuple[Metric, ...] = (
    Metric("labels", "labels", "simulated", "queries whose label was released", lambda view: len(view.released)),
    Metric(
        "label_accuracy", "share", "simulated", "right labels among those released, against the true class; over all"
        " labels, whoever bought them", lambda view: _share(view, view.truth),
    ),
    Metric(
        "label_accuracy_expected", "share", "assumed", "the same where there are no data: released labels that are the"
        " class of which the scenario lets votes be, with its probability and independently of each other", _expected,
    ),
    Metric(
        "vote_agreement", "share", "simulated", "released labels that are the plurality of the counted votes, which"
        " the argmax without noise would give", lambda view: _share(view, view.plurality),
    ),
    Metric(
        "accuracy_before", "share", "measured", "accuracy of a querying party's model on its evaluation samples, before"
        " it asks; mean over querying parties and seeds of training", _mean("before", "accuracy"),
    ),
    Metric(
        "accuracy_after", "share", "measured", "the same after it retrained on its own samples and the labels that it"
        " bought", _mean("after", "accuracy"),
    ),
    Metric("gain", "share", "measured", "accuracy_after less accuracy_before", _gain),
    Metric(
        "balanced_before", "share", "measured", "as accuracy_before, but the mean over the classes of each class's"
        " recall", _mean("before", "balanced_accuracy"),
    ),
    Metric(
        "balanced_after", "share", "measured", "the same after retraining", _mean("after", "balanced_accuracy")
    ),
    Metric(
        "epsilon", "1", "simulated", "an upper bound on epsilon, at the scenario's delta, for all that was charged to a"
        " querying party's account; the largest of them", lambda view: max(map(view.walked.spent.epsilon.__getitem__,
        view.queriers)),
    ),
    Metric("makespan_s", "s", "simulated", "time until the last query was over", lambda view: view.makespan_s),
    Metric("latency_p50_s", "s", "simulated", f"median {LATENCY}", _latency_s(0.5)),
    Metric("latency_p95_s", "s", "simulated", f"95th percentile of the {LATENCY}", _latency_s(0.95)),
    Metric("latency_p99_s", "s", "simulated", f"99th percentile of the {LATENCY}", _latency_s(0.99)),
    Metric("latency_max_s", "s", "simulated", f"longest {LATENCY}", _latency_s(1.0)),
    Metric("labels_per_hour", "labels/h", "simulated", "labels by the makespan", _per_hour),
    Metric("bytes", "bytes", "simulated", "sent from one machine to another, counted at the sender", _bytes),
    Metric("cpu_s", "s", "simulated", "work of all cores, on all machines", lambda view: view.cpu_s),
    Metric("price", "currency", "assumed", "cpu_s and bytes at the scenario's prices", _price),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}


def value(name: str, view: View) -> float | int | None:
    """One metric of a view."""
    return BY_NAME[name].of(view)


def page() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Every figure that a run tells, each defined once, in `capcsim/study/metrics.py`, which makes this page.",
        "",
        "| metric | unit | basis | definition |",
        "|---|---|---|---|",
        *(f"| `{each.name}` | {each.unit} | {each.basis} | {each.definition} |" for each in METRICS),
        "",
        "Where a figure comes from (`basis`):",
        "",
        *(f"* *{basis}*: {meaning}." for basis, meaning in BASES.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
