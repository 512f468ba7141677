"""The summary on the terminal."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from capcsim.report.layout import new_table
from capcsim.study.result import Compared, Execution, Gaps, PrivacySpent, Querier, Result

UNITS = {"party": "parties", "record": "records"}


def summary(found: Result) -> RenderableType:
    """One row for each querying party, and under it what the figures rest on."""
    table = new_table(f"{escape(found.title)}\n{escape(as_run(found))}")
    table.add_column("querier", no_wrap=True)
    for column in ("labels", "label acc", "before", "after", "epsilon", "latency", "simulated", "bytes"):
        table.add_column(column, justify="right")
    for row in found.queriers:
        table.add_row(escape(row.name), *_cells(row))
    mean = found.mean
    accuracies = [fraction(each) for each in (mean.label_accuracy, mean.accuracy_before, mean.accuracy_after)]
    table.add_section()
    last = ("", "", seconds(found.makespan_s), size(found.bytes))
    table.add_row("all", "", *accuracies, *last, style="bold")
    return Group(table, *(Text(line) for line in notes(found)))


def as_run(found: Result) -> str:
    """What ran, whatever the title says."""
    return ran(found.parties, found.voters, len(found.queriers), found.data, found.seed)


def ran(parties: int, voters: int, asking: int, data: str, seed: int) -> str:
    """So many parties with so many models, of which some ask, on which data."""
    models = f" with {voters} models" if voters != parties else ""
    return f"{parties} parties{models}, {asking} of which ask{'s' * (asking == 1)}; data: {data}; seed {seed}"


def notes(found: Result) -> list[str]:
    """What a reader must know to believe the table, a sentence a line."""
    return [*facts(found), *found.warnings]


def facts(found: Result) -> list[str]:
    """What the figures rest on, a sentence a line."""
    privacy = found.privacy
    paper = [_analysis(privacy)] if privacy.analysis != "data-independent" else []
    lines = [_security(found), _noise(privacy), *paper, _execution(found.execution), _bottleneck(found)]
    if found.cost.price:
        lines.append(f"At the scenario's prices: {found.cost.price:.3g} {found.cost.currency}.")
    lines += _unlabelled(found)
    reasons: dict[str, list[str]] = {}
    for row in found.queriers:
        reasons.setdefault(row.stopped, []).append(str(row.querier))
    lines += [f"Party {', '.join(parties)}: {reason}." for reason, parties in reasons.items()]
    return lines + _learning(found)


def seconds(value: float) -> str:
    """A duration with a unit that suits it."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1 or unit == "ms":
            return f"{value * factor:.3g} {unit}" if value * factor < 1000 else f"{value * factor:,.0f} {unit}"
    raise AssertionError("the last unit takes every value")


def size(nbytes: int) -> str:
    """A number of bytes with a decimal unit."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def change(before: float | None, after: float | None) -> str:
    """What was gained, or a dash."""
    return "-" if before is None or after is None else f"{after - before:+.3f}"


def fraction(value: float | None) -> str:
    """Three digits, or a dash where there is no value."""
    return "-" if value is None else f"{value:.3f}"


def bought(row: Querier) -> str:
    """A querying party's labels, how many it wanted where it got fewer, and what was charged without a label."""
    wanted = f" of {row.labels_wanted}" if row.labels_bought < row.labels_wanted else ""
    lost = f" (+{row.charges_without_label} charged)" if row.charges_without_label else ""
    return f"{row.labels_bought}{wanted}{lost}"


def _cells(row: Querier) -> list[str]:
    accuracies = [fraction(each) for each in (row.label_accuracy, row.accuracy_before, row.accuracy_after)]
    latency = "-" if row.latency_median_s is None else seconds(row.latency_median_s)
    costs = (f"{row.epsilon:.3f}", latency, seconds(row.simulated_s), size(row.bytes))
    return [bought(row), *accuracies, *costs]


def _security(found: Result) -> str:
    steps = f"argmax: {found.argmax}; release: {found.release}"
    return f"Backend {found.backend}, security: {found.security}; {steps}."


def _noise(privacy: PrivacySpent) -> str:
    kind = "Laplace noise, scale" if privacy.mechanism == "lnmax" else "Gaussian noise, sigma"
    test = ""
    if privacy.threshold is not None:
        test = f" (an answer needs {privacy.threshold} votes, with noise {privacy.threshold_noise_votes:g})"
    warning = " SEEDED FOR SIMULATION: IT PROTECTS NOBODY." if privacy.noise != "real" else ""
    unit = f"a {privacy.unit}"
    if privacy.corrupted_parties > 1:
        unit = f"{privacy.corrupted_parties} {UNITS[privacy.unit]} together"
    return (
        f"Discrete {kind} {privacy.noise_votes:g}{test};{warning} epsilon protects {unit} of the answering"
        f" parties ({privacy.analysis}, delta {privacy.delta:g}, budget {privacy.epsilon_budget:g} per"
        f" {privacy.budget_scope}); if all queriers pooled their labels it would be"
        f" {privacy.epsilon_if_queriers_collude:.3f}, and {privacy.epsilon_of_most_exposed_party:.3f} for the"
        " answering party whose votes were counted most."
    )


def _unlabelled(found: Result) -> list[str]:
    """What an interrupted run had charged and could not use."""
    privacy, lines = found.privacy, []
    if privacy.charges_without_label:
        whose = ", ".join(
            f"party {row.querier}: {row.charges_without_label}" for row in found.queriers if row.charges_without_label
        )
        number = privacy.charges_without_label
        lines.append(f"{number} charge{'s' * (number > 1)} of an interrupted run bought no label ({whose}).")
    if privacy.charges_cut_short:
        number = privacy.charges_cut_short
        lines.append(
            f"{number} line{'s' * (number > 1)} of the ledger {'were' if number > 1 else 'was'} cut short: a charge to"
            " every account, since it may have been any's."
        )
    return lines


def _analysis(privacy: PrivacySpent) -> str:
    """What a data-dependent budget means, and what the other would buy."""
    return (
        "The budget was judged by the paper's analysis: its epsilon depends on private votes, bounds one direction, and"
        " is NOT RELEASABLE. By the data-independent one the same budget pays for"
        f" {privacy.labels_affordable_data_independent} labels an account."
    )


def _execution(execution: Execution) -> str:
    now, earlier = execution.pairs_executed, execution.pairs_executed_earlier
    when = f" ({now} now, {earlier} in earlier runs)" if earlier else ""
    text = f"Costs were measured on {now + earlier} pairs run for real{when}; the run has {execution.pairs} pairs"
    if not execution.votes_compared:
        return text + "."
    text += f"; {execution.votes_disagreeing} of {execution.votes_compared} votes differ from the reference"
    if not execution.exact:
        text += f" (95 % upper bound {execution.disagreement_upper_bound_95:.2g})"
    return text + "."


def _learning(found: Result) -> list[str]:
    """What the accuracies are means of, and what they compare with."""
    lines = list(found.data_notes)
    if found.retrainings > 1 and found.classes_fallen is not None:
        spread = ", ".join(f"{row.gain:+.3f} +- {row.gain_deviation:.3f}" for row in found.queriers)
        lines.append(f"Accuracies are means over {found.retrainings} seeds of training; gains: {spread}.")
    if found.classes_fallen is not None:
        lines.append(f"{100 * found.classes_fallen:.3g} % of the querying parties' class accuracies fell.")
    expected = found.metrics["label_accuracy_expected"].value
    if expected is not None:
        lines.append(f"Of the released labels {expected:.3f} would be right, if votes were so (assumed).")
    lines += _fairness(found)
    for role, names in found.names.items():
        shown = (f"{number} is {_as_written(name)}" for number, name in enumerate(names))
        lines.append(f"{role.capitalize()}: {', '.join(shown)}.")
    for name, baseline in found.baselines.items():
        lines.append(f"Baseline {name}: {_baseline(baseline, found.bytes)}.")
    return lines


def _fairness(found: Result) -> list[str]:
    """The gaps between the groups, or why there are none, where the data have such groups."""
    lines = []
    for row in found.queriers:
        old, new = row.fairness_before, row.fairness_after
        if old and new:
            gaps = [
                f"{name.replace('_', ' ')} {getattr(old, name):.3f} before, {getattr(new, name):.3f} after"
                for name in Gaps.model_fields
            ]
            lines.append(f"Party {row.querier}, gaps between the protected groups: {'; '.join(gaps)}.")
        elif "protected" in found.names and row.fairness_missing:
            lines.append(f"Party {row.querier}, gaps between the protected groups: none, {row.fairness_missing}.")
    terms = found.fairness
    if lines and terms:
        name = _as_written(terms.positive_name)
        lines.append(
            f"Equal opportunity looks at samples of class {terms.positive}, which is {name} and counts as positive;"
            " equalized odds at both classes."
        )
    return lines


def _as_written(name: str) -> str:
    """A name from the data, in quotes where it has blanks that nobody would see."""
    return name if name == " ".join(name.split()) and name.isprintable() and name else repr(name)


def _baseline(baseline: Compared, sent_bytes: int) -> str:
    if baseline.accuracy is None:
        return str(baseline.note)
    traffic = ""
    if baseline.bytes is not None:
        traffic = f", {size(baseline.bytes)} sent (this run: {size(sent_bytes)})"
    return f"accuracy {baseline.accuracy:.3f}, balanced {baseline.balanced:.3f}{traffic}; {baseline.note}"


def _critical(found: Result) -> str:
    """What the last label waited for."""
    if not found.critical:
        return ""
    of = {"cores": "cores of {}", "line": "line of {}", "latency": "latency {}", "waiting": "{}"}
    parts = ", ".join(f"{of[part.kind].format(part.name)} {seconds(part.seconds)}" for part in found.critical[:3])
    return f"The last label waited for: {parts}. "


def _bottleneck(found: Result) -> str:
    busiest, waiting = found.busiest, found.waiting
    text = (
        f"{_critical(found)}Busiest core: {busiest.core} ({100 * busiest.core_utilisation:.2g} %);"
        f" busiest link: {busiest.link} ({100 * busiest.link_utilisation:.2g} %)."
    )
    if waiting.votes_missing:
        text += (
            f" {waiting.batches_incomplete} of {waiting.batches} batches waited for the deadline;"
            f" {waiting.votes_missing} of {waiting.votes_asked} votes did not come in time."
        )
    if waiting.votes_declined:
        text += f" {waiting.votes_declined} of {waiting.votes_asked} votes were declined."
    return text
