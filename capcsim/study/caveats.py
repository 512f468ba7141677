"""What a reader of a run's summary might overlook, a sentence each: table, report and JSON tell the same."""

from collections.abc import Sequence
from math import exp, sqrt

from capcsim.privacy.mechanisms import PARAMETERS
from capcsim.study.result import Querier, Result

MOST_SATURATION = 1e-3
"""Clamped activations that need no word."""
CHANCE = 1.0
"""Two standard errors of a share over n labels are at most this by sqrt(n)."""
MOST_EPSILON = 10.0
"""Beyond e^10 = 22,000 an odds ratio is no protection to speak of."""


def caveats(found: Result) -> list[str]:
    """The warnings that a summary deserves."""
    lines = []
    if not any(row.labels_bought for row in found.queriers):
        lines.append(f"No label was bought: {_remedy(found.queriers)}.")
    lines += _epsilon(found)
    saturation = found.execution.saturation or 0
    if saturation > MOST_SATURATION:
        share = 100 * saturation
        lines.append(f"{share:.2g} % of inputs and activations lay outside the integers' range: scale the data.")
    mean = found.mean
    labels = sum(row.labels_bought for row in found.queriers) or 1
    right, before = mean.label_accuracy, mean.accuracy_before
    if right is not None and before is not None and right + CHANCE / sqrt(labels) < before:
        lines.append(
            "The bought labels are worse than the parties' own models are on all samples: the noise is large against"
            f" the number of votes ({found.voters}), or what was asked is hard."
        )
    return lines


def _remedy(rows: Sequence[Querier]) -> str:
    """What to do where no label was bought."""
    if any(row.unanswered for row in rows):
        return "no largest count reached the threshold: lower privacy.threshold, or ask more parties"
    if any("no quorum" in row.stopped or "lack of a quorum" in row.stopped for row in rows):
        return "too few votes had arrived by the deadline: raise protocol.deadline_s, or lower protocol.quorum"
    return "raise privacy.epsilon, or the noise"


def _epsilon(found: Result) -> list[str]:
    """An epsilon that is kept, but keeps nothing secret."""
    spent = max(row.epsilon for row in found.queriers)
    if spent <= MOST_EPSILON:
        return []
    privacy = found.privacy
    labels = max(row.labels_bought for row in found.queriers)
    noise = f"privacy.{PARAMETERS[privacy.mechanism][0]}"
    odds = f"a factor of {exp(spent):.0e}" if spent < 300 else "any factor"
    return [
        f"Epsilon {spent:.4g} for {labels} label{'s' * (labels != 1)} protects nobody: it lets whoever sees them change"
        f" the odds about a {privacy.unit} by {odds}. Raise {noise}, or lower privacy.epsilon to {MOST_EPSILON:g} or"
        " less."
    ]
