"""What a run tells: its tables, and the summary that `capcsim run --json` prints."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.caveats import caveats
from capcsim.learning.baselines import Baseline
from capcsim.learning.datasets import Dataset
from capcsim.learning.metrics import Quality, average, deviation, share_fallen
from capcsim.privacy.accountant import Accountant
from capcsim.protocol.flow import UNANSWERED
from capcsim.protocol.noise import mechanism_of
from capcsim.record import TABLES, Record
from capcsim.scenario import Scenario
from capcsim.simulation.world import QueryRow, Simulated
from capcsim.study.books import Spent, accountant_of
from capcsim.study.walk import Walked

CURVE_POINTS = 13


@dataclass(frozen=True)
class Outcome:
    """Everything that came out of one run; `booked` is what the book of runs tells of a run in it."""

    scenario: Scenario
    dataset: Dataset
    walked: Walked
    booked: Mapping[str, Any] | None = None

    @property
    def simulated(self) -> Simulated:
        """The world's."""
        return self.walked.happened.simulated

    @property
    def spent(self) -> Spent:
        """The ledger's."""
        return self.walked.happened.spent

    @property
    def rows(self) -> Sequence[NDArray[np.int64]]:
        """The samples of each querying party's queries."""
        return self.walked.asked.rows


def write_tables(record: Record, outcome: Outcome) -> None:
    """Tables `queries`, `compute`, `messages`, `metrics`; `votes` was written when the votes were cast."""
    record.write_table("queries", _query_columns(outcome))
    log = outcome.simulated.log
    logs: dict[str, Sequence[Any]] = {"compute": log.compute, "messages": log.messages}
    for name, rows in logs.items():
        record.write_table(name, {column: [getattr(row, column) for row in rows] for column in TABLES[name]})
    record.write_table("metrics", _metric_columns(outcome))


def summarise(record: Record, outcome: Outcome) -> dict[str, Any]:
    """The manifest's results: the summary, and what the figures need besides the tables."""
    scenario, simulated = outcome.scenario, outcome.simulated
    queriers = [_querier(outcome, querier) for querier in range(scenario.parties.queriers)]
    averaged = ("label_accuracy", "accuracy_before", "accuracy_after", "balanced_before", "balanced_after", "gain")
    summary = {
        "title": scenario.title_as_run,
        "record": str(record.folder),
        "seed": scenario.seed,
        "backend": scenario.protocol.backend,
        "security": outcome.walked.capabilities.security,
        "argmax": outcome.walked.capabilities.argmax,
        "release": outcome.walked.capabilities.release,
        "parties": scenario.parties.count,
        "voters": scenario.voters,
        "classes": outcome.dataset.classes,
        "execution": _execution(outcome),
        "privacy": _privacy(outcome),
        "queriers": queriers,
        "mean": {key: _mean([row[key] for row in queriers]) for key in averaged},
        "data": outcome.dataset.name,
        "data_note": outcome.dataset.note,
        "data_notes": list(outcome.dataset.notes),
        "fairness": _fairness_terms(outcome.dataset),
        "names": {role: list(names) for role, names in outcome.dataset.names.items()},
        "retrainings": scenario.models.retrainings,
        "classes_fallen": share_fallen(list(map(average, outcome.walked.judged.before)), list(map(average, outcome.walked.judged.after))),
        "baselines": {name: _baseline(baseline) for name, baseline in outcome.walked.judged.baselines.items()},
        "makespan_s": simulated.makespan_s,
        "bytes": sum(simulated.sent_bytes.values()),
        "busiest": _busiest(simulated),
        "waiting": _waiting(outcome),
        "cost": _cost(outcome),
    }
    summary["warnings"] = caveats(summary)
    utilisation = {"cores": simulated.core_utilisation, "links": simulated.link_utilisation}
    return {
        "summary": summary,
        "utilisation": utilisation,
        "sent_bytes": simulated.sent_bytes,
        "epsilon_curve": _epsilon_curve(outcome),
    }


def _querier(outcome: Outcome, querier: int) -> dict[str, Any]:
    rows = [row for row in outcome.simulated.queries if row.querier == querier]
    queries, labels = outcome.simulated.bought(querier)
    latencies_s = [row.labelled_s - row.submitted_s for row in rows if row.label >= 0]
    true = outcome.dataset.y[outcome.rows[querier][queries]]
    before, after = average(outcome.walked.judged.before[querier]), average(outcome.walked.judged.after[querier])
    paired = zip(outcome.walked.judged.before[querier], outcome.walked.judged.after[querier], strict=True)
    gains = [new.accuracy - old.accuracy for old, new in paired]
    asked = [int(outcome.dataset.y[outcome.rows[querier][row.query]]) for row in rows]
    messages = [message for message in outcome.simulated.log.messages if message.querier == querier]
    return {
        "querier": querier,
        "labels_bought": len(labels),
        "labels_wanted": outcome.scenario.queries.per_querier,
        "charges": outcome.spent.charges[querier],
        "charges_without_label": outcome.spent.unlabelled[querier],
        "labels": [row.label for row in rows],
        "label_accuracy": float((labels == true).mean()) if len(labels) else None,
        "accuracy_before": before.accuracy,
        "accuracy_after": after.accuracy,
        "balanced_before": before.balanced_accuracy,
        "balanced_after": after.balanced_accuracy,
        "gain": after.accuracy - before.accuracy,
        "gain_deviation": deviation(gains),
        "class_accuracy_before": _numbers(before.per_class),
        "class_accuracy_after": _numbers(after.per_class),
        "queries_per_class": np.bincount(asked, minlength=outcome.dataset.classes).tolist(),
        "fairness_before": _fairness(before),
        "fairness_after": _fairness(after),
        "fairness_missing": _unfair(outcome.dataset, before, after),
        "epsilon": outcome.spent.epsilon[querier],
        "simulated_s": max((row.labelled_s for row in rows), default=0.0),
        "latency_median_s": median(latencies_s) if latencies_s else None,
        "latency_max_s": max(latencies_s, default=None),
        "bytes": sum(message.nbytes for message in messages if message.network),
        "unanswered": sum(row.why == UNANSWERED for row in rows),
        "stopped": _stopped(outcome, querier, rows),
    }


def _fairness(found: Quality) -> dict[str, float] | None:
    """The gaps between the groups of the protected attribute; None without one, or where a group lacks samples."""
    if found.equal_opportunity is None or found.equalized_odds is None:
        return None
    return {"equal_opportunity": found.equal_opportunity, "equalized_odds": found.equalized_odds}


def _unfair(dataset: Dataset, before: Quality, after: Quality) -> str | None:
    """Why there is no fairness to tell; None where there is."""
    if dataset.protected is None:
        return "the data have no protected attribute; data.protected names a table's"
    return before.unfair or after.unfair or None


def _fairness_terms(dataset: Dataset) -> dict[str, Any] | None:
    """What fairness compares: the positive class of equal opportunity, and the two groups; None without any."""
    if dataset.protected is None or dataset.classes != 2:
        return None
    names = dataset.names.get("classes", ("0", "1"))
    return {"positive": 1, "positive_name": names[1], "groups": list(dataset.names.get("protected", ("0", "1")))}


def _baseline(found: Baseline) -> dict[str, Any]:
    return {
        "accuracy": _mean([quality.accuracy for quality in found.qualities]),
        "balanced": _mean([quality.balanced_accuracy for quality in found.qualities]),
        "bytes": found.sent_bytes,
        "note": found.note,
    }


def _numbers(values: Sequence[float]) -> list[float | None]:
    """JSON has no NaN: a class without a sample has no accuracy."""
    return [None if np.isnan(value) else value for value in values]


def _stopped(outcome: Outcome, querier: int, rows: Sequence[QueryRow]) -> str:
    """Why a querying party asked no further, and how many labels it has of those that it wanted."""
    wanted = outcome.scenario.queries.per_querier
    bought = sum(row.label >= 0 for row in rows)
    lost = sum("no quorum" in row.why for row in rows)
    without = f"; {lost} stayed without a label for lack of a quorum" if lost else ""
    unanswered = sum(row.why == UNANSWERED for row in rows)
    without += f"; {unanswered} stayed unanswered, below the threshold" if unanswered else ""
    reason = outcome.simulated.stopped.get(querier)
    if reason is None and len(rows) < wanted:
        reason = outcome.spent.refusal[querier]
    short = f"; it bought {bought} of {wanted} labels" if bought < wanted else ""
    return (reason or f"asked all {wanted} queries") + without + short


def _execution(outcome: Outcome) -> dict[str, Any]:
    """How much real cryptography gave the transcripts, and whether it agreed with the reference."""
    measured = outcome.walked.priced.measured
    agreement = measured.agreement + measured.earlier
    voters = Counter(voter.party for voter in outcome.walked.asked.voters)
    asked = {(row.querier, row.batch) for row in outcome.simulated.queries}
    return {
        "mode": outcome.scenario.protocol.execute,
        "pairs": sum(len(outcome.walked.asked.voters) - voters[querier] for querier, _ in asked),
        "pairs_executed": measured.agreement.pairs,
        "pairs_executed_earlier": measured.earlier.pairs,
        "strata": len(measured.samples),
        "strata_reused": measured.reused_strata,
        "votes_compared": agreement.votes,
        "saturation": outcome.walked.saturation,
        "votes_disagreeing": agreement.disagreements,
        "disagreement_upper_bound_95": agreement.upper_bound(),
        "exact": outcome.walked.capabilities.exact,
        "spread": measured.spread(),
    }


def _privacy(outcome: Outcome) -> dict[str, Any]:
    privacy, spent = outcome.scenario.privacy, outcome.spent
    accountant = accountant_of(outcome.scenario)
    mechanism = accountant.mechanism
    published = Accountant(mechanism, privacy.delta)
    return {
        "mechanism": privacy.mechanism,
        "noise_votes": mechanism.scale,
        "threshold": privacy.threshold,
        "threshold_noise_votes": privacy.sigma1,
        "noise": privacy.noise,
        "moved_votes": mechanism.moved_votes,
        "epsilon_budget": privacy.epsilon,
        "delta": privacy.delta,
        "budget_scope": privacy.budget_scope,
        "unit": privacy.unit,
        "corrupted_parties": privacy.corrupted_parties,
        "analysis": privacy.analysis,
        "releasable": privacy.noise == "real" and accountant.releasable,
        "labels_affordable_data_independent": published.affordable(
            privacy.epsilon, outcome.scenario.queries.per_querier
        ),
        "charges_without_label": sum(spent.unlabelled),
        "charges_cut_short": spent.torn,
        "book": None if outcome.booked is None else dict(outcome.booked),
        "epsilon_if_queriers_collude": spent.epsilon_coalition,
        "epsilon_of_most_exposed_party": spent.epsilon_most_exposed,
    }


def _cost(outcome: Outcome) -> dict[str, Any]:
    """What the simulated work and traffic cost at the scenario's prices."""
    prices = outcome.scenario.prices
    core_h = outcome.simulated.core_s / 3600
    sent_gb = sum(outcome.simulated.sent_bytes.values()) / 1e9
    return {
        "core_h": core_h,
        "sent_gb": sent_gb,
        "price": core_h * prices.per_core_hour + sent_gb * prices.per_gb_sent,
        "currency": prices.currency,
    }


def _busiest(simulated: Simulated) -> dict[str, Any]:
    """The core and the link with the highest utilisation: where to look for the bottleneck."""
    cores, links = simulated.core_utilisation, simulated.link_utilisation
    core, link = max(cores, key=cores.__getitem__), max(links, key=links.__getitem__)
    return {"core": core, "core_utilisation": cores[core], "link": link, "link_utilisation": links[link]}


def _waiting(outcome: Outcome) -> dict[str, int]:
    """Votes that were declined or did not come, and the batches that waited for the latter."""
    voters = Counter(voter.party for voter in outcome.walked.asked.voters)
    rows = {(row.querier, row.batch): row for row in outcome.simulated.queries}
    counted = {key: len(row.counted) for key, row in rows.items()}
    asked = {key: len(outcome.walked.asked.voters) - voters[key[0]] for key in counted}
    missing = {key: asked[key] - rows[key].declined - counted[key] for key in counted}
    return {
        "batches": len(counted),
        "batches_incomplete": sum(number > 0 for number in missing.values()),
        "votes_asked": sum(asked.values()),
        "votes_declined": sum(row.declined for row in rows.values()),
        "votes_missing": sum(missing.values()),
    }


def _epsilon_curve(outcome: Outcome) -> dict[str, list[float | None]]:
    """Data-independent epsilon against labels, for the figure: the pessimistic bound, and the analytic Gaussian."""
    accountant = Accountant(mechanism_of(outcome.scenario), outcome.scenario.privacy.delta)
    most = max(outcome.spent.charges)
    # More points where the curve bends most.
    labels = sorted({round(most * x**2) for x in np.linspace(0, 1, CURVE_POINTS)})
    return {
        "labels": [float(n) for n in labels],
        "epsilon": [accountant.epsilon(n) for n in labels],
        "analytic": [accountant.epsilon_analytic(n) for n in labels],
    }


def _query_columns(outcome: Outcome) -> dict[str, list[Any]]:
    rows = outcome.simulated.queries
    samples = [int(outcome.rows[row.querier][row.query]) for row in rows]
    return {
        "querier": [row.querier for row in rows],
        "query": [row.query for row in rows],
        "batch": [row.batch for row in rows],
        "sample": samples,
        "label": [row.label for row in rows],
        "true_label": [int(outcome.dataset.y[sample]) for sample in samples],
        "counted": [list(row.counted) for row in rows],
        "submitted_s": [row.submitted_s for row in rows],
        "labelled_s": [row.labelled_s for row in rows],
        "why": [row.why for row in rows],
    }


def _metric_columns(outcome: Outcome) -> dict[str, list[Any]]:
    """Long form: (querier, moment, metric, class, value); class is -1 for a metric over all classes."""
    rows: list[tuple[int, str, str, int, float]] = []
    for moment, qualities in (("before", outcome.walked.judged.before), ("after", outcome.walked.judged.after)):
        for querier, by_seed in enumerate(qualities):
            found = average(by_seed)
            rows.append((querier, moment, "accuracy", -1, found.accuracy))
            rows.append((querier, moment, "balanced_accuracy", -1, found.balanced_accuracy))
            rows += [(querier, moment, "class_accuracy", i, value) for i, value in enumerate(found.per_class)]
            rows += [(querier, moment, name, -1, value) for name, value in (_fairness(found) or {}).items()]
            rows += [(querier, moment, f"accuracy, seed {i}", -1, each.accuracy) for i, each in enumerate(by_seed)]
    names = ("querier", "moment", "metric", "class", "value")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if there else None
