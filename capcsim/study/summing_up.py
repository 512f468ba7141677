"""A walk through the stages as a Result."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import nan
from statistics import fmean
from typing import Any

import numpy as np

from capcsim.learning.baselines import Baseline
from capcsim.learning.metrics import Quality, average, deviation, share_fallen
from capcsim.learning.samples import Dataset
from capcsim.privacy.accountant import Accountant
from capcsim.protocol.flow import UNANSWERED
from capcsim.simulation.world import QueryRow, Simulated
from capcsim.study.books import accountant_of
from capcsim.study.caveats import caveats
from capcsim.study.metrics import BY_NAME, View, value
from capcsim.study.result import (
    FORMER_NAMES,
    OF_A_QUERIER,
    Busiest,
    Compared,
    Cost,
    Critical,
    Curve,
    Execution,
    FairnessTerms,
    Figure,
    Gaps,
    Mean,
    PerClass,
    PrivacySpent,
    Querier,
    Result,
    Waiting,
)
from capcsim.study.walk import Walked

PARTS = 10
"""Parts of the critical path that are told."""
NOBODY = Quality(nan, (), nan)
"""What is judged without data."""


def result_of(walked: Walked, record: str, stages: Mapping[str, int], booked: Mapping[str, Any] | None) -> Result:
    """A walk as it is told; `record` is where it is kept, `booked` what the book of runs says of it."""
    scenario, dataset, capabilities = walked.scenario, walked.dataset, walked.capabilities
    view, judged = View(walked, range(scenario.parties.queriers)), walked.judged
    told = Result(
        title=scenario.title_as_run,
        record=record,
        seed=scenario.seed,
        backend=scenario.protocol.backend,
        security=capabilities.security,
        argmax=capabilities.argmax,
        release=capabilities.release,
        parties=scenario.parties.count,
        voters=scenario.voters,
        classes=dataset.classes,
        metrics=figures(view),
        stages=dict(stages),
        execution=_execution(walked),
        privacy=_privacy(walked, booked),
        queriers=tuple(_querier(walked, querier) for querier in view.queriers),
        mean=Mean(**{name: value(name, view) for name in Mean.model_fields}),
        data=dataset.name,
        data_note=dataset.note,
        data_notes=dataset.notes,
        fairness=_fairness_terms(dataset),
        names=dict(dataset.names),
        retrainings=scenario.models.retrainings,
        classes_fallen=share_fallen(view.qualities("before"), view.qualities("after")) if view.learns else None,
        baselines={name: _compared(baseline) for name, baseline in judged.baselines.items()},
        makespan_s=view.makespan_s,
        bytes=value("bytes", view),
        busiest=_busiest(walked.simulated),
        critical=_critical(walked.simulated),
        waiting=_waiting(walked),
        cost=Cost(
            core_h=view.cpu_s / 3600,
            sent_gb=(value("bytes", view) or 0) / 1e9,
            price=value("price", view),
            currency=scenario.prices.currency,
        ),
    )
    return told.model_copy(update={"warnings": tuple(caveats(told))})


def figures(view: View) -> dict[str, Figure]:
    """Every metric of a view, with its basis."""
    units = {"currency": view.walked.scenario.prices.currency}
    return {
        name: Figure(value=each.of(view), low=None, high=None, basis=each.basis, unit=units.get(each.unit, each.unit))
        for name, each in BY_NAME.items()
    }


def epsilon_curve(walked: Walked, points: int = 13) -> Curve:
    """Up to the account with most charges; more points where the curve bends most."""
    own = accountant_of(walked.scenario)
    accountant, most = Accountant(own.mechanism, own.delta), max(walked.spent.charges)
    labels = sorted({round(most * x**2) for x in np.linspace(0, 1, points)})
    return Curve(
        labels=labels,
        epsilon=[accountant.epsilon(n) for n in labels],
        analytic=[accountant.epsilon_analytic(n) for n in labels],
    )


def _querier(walked: Walked, querier: int) -> Querier:
    view = View(walked, (querier,))
    before, after = walked.judged.before[querier], walked.judged.after[querier]
    gains = [new.accuracy - old.accuracy for old, new in zip(before, after, strict=True)]
    asked = [view.truth(row) for row in view.rows] if view.learns else []
    old, new = (average(each) if each else NOBODY for each in (before, after))
    return Querier(
        querier=querier,
        name=walked.scenario.members[querier].name,
        **{name: value(FORMER_NAMES.get(name, name), view) for name in OF_A_QUERIER},
        labels_wanted=walked.scenario.wanted(querier),
        charges=walked.spent.charges[querier],
        charges_without_label=walked.spent.unlabelled[querier],
        labels=[row.label for row in view.rows],
        gain_deviation=deviation(gains) if gains else None,
        class_accuracy_before=_numbers(old.per_class),
        class_accuracy_after=_numbers(new.per_class),
        queries_per_class=np.bincount(asked, minlength=walked.dataset.classes).tolist(),
        fairness_before=gaps(old),
        fairness_after=gaps(new),
        fairness_missing=_unfair(walked.dataset, old, new),
        unanswered=sum(row.why == UNANSWERED for row in view.rows),
        stopped=_stopped(walked, querier, view.rows),
    )


def gaps(found: Quality) -> Gaps | None:
    """None without a protected attribute, or where a group lacks samples."""
    if found.equal_opportunity is None or found.equalized_odds is None:
        return None
    return Gaps(equal_opportunity=found.equal_opportunity, equalized_odds=found.equalized_odds)


def _unfair(dataset: Dataset, before: Quality, after: Quality) -> str | None:
    """Why there is no fairness to tell; None where there is."""
    if dataset.protected is None:
        return "the data have no protected attribute; data.protected names a table's"
    return before.unfair or after.unfair or None


def _fairness_terms(dataset: Dataset) -> FairnessTerms | None:
    if dataset.protected is None or dataset.classes != 2:
        return None
    names = dataset.names.get("classes", ("0", "1"))
    return FairnessTerms(positive=1, positive_name=names[1], groups=dataset.names.get("protected", ("0", "1")))


def _compared(found: Baseline) -> Compared:
    accuracies = [quality.accuracy for quality in found.qualities]
    balanced = [quality.balanced_accuracy for quality in found.qualities]
    means = [fmean(each) if each else None for each in (accuracies, balanced)]
    return Compared(accuracy=means[0], balanced=means[1], bytes=found.sent_bytes, note=found.note)


def _numbers(values: Sequence[float]) -> PerClass:
    """JSON has no NaN: a class without a sample has no accuracy."""
    return tuple(None if np.isnan(each) else each for each in values)


def _stopped(walked: Walked, querier: int, rows: Sequence[QueryRow]) -> str:
    """Why a querying party asked no further, and how many labels it has of those that it wanted."""
    wanted, bought = walked.scenario.wanted(querier), sum(row.label >= 0 for row in rows)
    lost = sum("no quorum" in row.why for row in rows)
    without = f"; {lost} stayed without a label for lack of a quorum" if lost else ""
    unanswered = sum(row.why == UNANSWERED for row in rows)
    without += f"; {unanswered} stayed unanswered, below the threshold" if unanswered else ""
    reason = walked.simulated.stopped.get(querier)
    if reason is None and len(rows) < wanted:
        reason = walked.spent.refusal[querier]
    short = f"; it bought {bought} of {wanted} labels" if bought < wanted else ""
    return (reason or f"asked all {wanted} queries") + without + short


def _execution(walked: Walked) -> Execution:
    measured, voters = walked.priced.measured, walked.asked.voters
    agreement = measured.agreement + measured.earlier
    own = Counter(voter.party for voter in voters)
    asked = {(row.querier, row.batch) for row in walked.simulated.queries}
    return Execution(
        mode=walked.scenario.protocol.execute,
        pairs=sum(len(voters) - own[querier] for querier, _ in asked),
        pairs_executed=measured.agreement.pairs,
        pairs_executed_earlier=measured.earlier.pairs,
        strata=len(measured.samples),
        strata_reused=measured.reused_strata,
        votes_compared=agreement.votes,
        saturation=walked.saturation,
        votes_disagreeing=agreement.disagreements,
        disagreement_upper_bound_95=agreement.upper_bound(),
        exact=walked.capabilities.exact,
        spread=measured.spread(),
    )


def _privacy(walked: Walked, booked: Mapping[str, Any] | None) -> PrivacySpent:
    privacy, spent, accountant = walked.scenario.privacy, walked.spent, accountant_of(walked.scenario)
    mechanism = accountant.mechanism
    most = max(map(walked.scenario.wanted, range(walked.scenario.parties.queriers)))
    affordable = Accountant(mechanism, privacy.delta).affordable(privacy.epsilon, most)
    told = privacy.model_dump(include={"mechanism", "noise", "delta", "budget_scope", "unit", "analysis"})
    return PrivacySpent(
        **told,
        noise_votes=mechanism.scale,
        threshold=mechanism.threshold,
        threshold_noise_votes=mechanism.test_noise and mechanism.test_noise.scale,
        moved_votes=mechanism.moved_votes,
        epsilon_budget=privacy.epsilon,
        corrupted_parties=privacy.corrupted_parties,
        releasable=privacy.noise == "real" and accountant.releasable,
        labels_affordable_data_independent=affordable,
        charges_without_label=sum(spent.unlabelled),
        charges_cut_short=spent.torn,
        book=None if booked is None else dict(booked),
        epsilon_if_queriers_collude=spent.epsilon_coalition,
        epsilon_of_most_exposed_party=spent.epsilon_most_exposed,
    )


def _busiest(simulated: Simulated) -> Busiest:
    cores, links = simulated.core_utilisation, simulated.link_utilisation
    core, link = max(cores, key=cores.__getitem__), max(links, key=links.__getitem__)
    return Busiest(core=core, core_utilisation=cores[core], link=link, link_utilisation=links[link])


def _critical(simulated: Simulated) -> tuple[Critical, ...]:
    """The longest parts of the critical path."""
    parts = list(simulated.critical_s.items())[:PARTS]
    return tuple(Critical(kind=found.kind, name=found.name, seconds=seconds) for found, seconds in parts)


def _waiting(walked: Walked) -> Waiting:
    own = Counter(voter.party for voter in walked.asked.voters)
    rows = {(row.querier, row.batch): row for row in walked.simulated.queries}
    asked = {key: len(walked.asked.voters) - own[key[0]] for key in rows}
    missing = [asked[key] - row.declined - len(row.counted) for key, row in rows.items()]
    return Waiting(
        batches=len(rows),
        batches_incomplete=sum(number > 0 for number in missing),
        votes_asked=sum(asked.values()),
        votes_declined=sum(row.declined for row in rows.values()),
        votes_missing=sum(missing),
    )
