"""What a run tells, as one typed value: `capcsim run --json` prints it, table, figures and report read it.

Its metrics are defined in `capcsim.study.metrics`, and `capcsim.study.summing_up` makes it; besides them stands what a
reader must know to believe them.
"""

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from capcsim.errors import RecordError
from capcsim.record import Record

Basis: TypeAlias = Literal["measured", "estimated", "simulated", "assumed"]
"""Where a figure comes from; `capcsim.study.metrics` says what each means."""
PerClass: TypeAlias = tuple[float | None, ...]


class Part(BaseModel):
    """A part of the result; nothing in it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(Part):
    """One metric's value; `low` and `high` bound what is uncertain in it, None where nothing says how much."""

    value: float | int | None
    low: float | None
    high: float | None
    basis: Basis
    unit: str


class Gaps(Part):
    """The gaps between the groups of the protected attribute, 0 where the model treats both alike."""

    equal_opportunity: float
    equalized_odds: float


class Querier(Part):
    """One querying party; what is no metric is a fact about its queries, its models or its account."""

    querier: int
    name: str
    labels_bought: int
    labels_wanted: int
    charges: int
    charges_without_label: int
    labels: tuple[int, ...]
    label_accuracy: float | None
    vote_agreement: float | None
    accuracy_before: float | None
    accuracy_after: float | None
    balanced_before: float | None
    balanced_after: float | None
    gain: float | None
    gain_deviation: float | None
    class_accuracy_before: PerClass
    class_accuracy_after: PerClass
    queries_per_class: tuple[int, ...]
    fairness_before: Gaps | None
    fairness_after: Gaps | None
    fairness_missing: str | None
    epsilon: float
    simulated_s: float
    latency_median_s: float | None
    latency_max_s: float | None
    bytes: int
    unanswered: int
    stopped: str


# Keys that had another name before the metric had one, and still have it.
FORMER_NAMES = {"labels_bought": "labels", "simulated_s": "makespan_s", "latency_median_s": "latency_p50_s"}
OF_A_QUERIER = (
    *("labels_bought", "label_accuracy", "vote_agreement", "accuracy_before", "accuracy_after", "balanced_before"),
    *("balanced_after", "gain", "epsilon", "simulated_s", "latency_median_s", "latency_max_s", "bytes"),
)


class Mean(Part):
    """Accuracies of all querying parties."""

    label_accuracy: float | None
    accuracy_before: float | None
    accuracy_after: float | None
    balanced_before: float | None
    balanced_after: float | None
    gain: float | None


class Execution(Part):
    """How much real cryptography gave the transcripts, and whether it agreed with the reference."""

    mode: str
    pairs: int
    pairs_executed: int
    pairs_executed_earlier: int
    strata: int
    strata_reused: int
    votes_compared: int
    saturation: float | None
    votes_disagreeing: int
    disagreement_upper_bound_95: float | None
    exact: bool
    spread: tuple[dict[str, Any], ...]


class PrivacySpent(Part):
    """Whom epsilon protects, from whom, by which noise and analysis, and what was spent besides."""

    mechanism: str
    noise_votes: float
    threshold: int | None
    threshold_noise_votes: float | None
    noise: str
    moved_votes: int
    epsilon_budget: float
    delta: float
    budget_scope: str
    unit: str
    corrupted_parties: int
    analysis: str
    releasable: bool
    labels_affordable_data_independent: int
    charges_without_label: int
    charges_cut_short: int
    book: dict[str, Any] | None
    epsilon_if_queriers_collude: float
    epsilon_of_most_exposed_party: float


class Compared(Part):
    """Another way of learning."""

    accuracy: float | None
    balanced: float | None
    bytes: int | None
    note: str


class Busiest(Part):
    """The core and the link with the highest utilisation, which need not be what a label waits for."""

    core: str
    core_utilisation: float
    link: str
    link_utilisation: float


class Critical(Part):
    """A part of the critical path: what the last label waited for so long."""

    kind: str
    name: str
    seconds: float


class Waiting(Part):
    """Votes that were declined or did not come, and the batches that waited for the latter."""

    batches: int
    batches_incomplete: int
    votes_asked: int
    votes_declined: int
    votes_missing: int


class Cost(Part):
    """What the simulated work and traffic cost at the scenario's prices."""

    core_h: float
    sent_gb: float
    price: float
    currency: str


class FairnessTerms(Part):
    """What fairness compares: the positive class of equal opportunity, and the two groups."""

    positive: int
    positive_name: str
    groups: tuple[str, ...]


class Curve(Part):
    """Data-independent epsilon against labels: the bound, and the analytic Gaussian's for continuous noise."""

    labels: tuple[float, ...]
    epsilon: tuple[float, ...]
    analytic: tuple[float | None, ...]


class Result(Part):
    """Everything that a run tells."""

    title: str
    record: str
    seed: int
    backend: str
    security: str
    argmax: str
    release: str
    parties: int
    voters: int
    classes: int
    metrics: dict[str, Figure]
    stages: dict[str, int]
    execution: Execution
    privacy: PrivacySpent
    queriers: tuple[Querier, ...]
    mean: Mean
    data: str
    data_note: str
    data_notes: tuple[str, ...]
    fairness: FairnessTerms | None
    names: dict[str, tuple[str, ...]]
    retrainings: int
    classes_fallen: float | None
    baselines: dict[str, Compared]
    makespan_s: float
    bytes: int
    busiest: Busiest
    critical: tuple[Critical, ...]
    waiting: Waiting
    cost: Cost
    warnings: tuple[str, ...] = ()


def read_result(record: Record) -> Result:
    """What a complete run told; raises RecordError for one that did not end."""
    record.check_complete()
    try:
        return Result.model_validate(record.manifest["summary"])
    except (KeyError, ValidationError):
        raise RecordError(f"{record.folder}: its summary is damaged, or of another version; run it anew") from None
