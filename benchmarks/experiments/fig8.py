"""Figures 2 and 5 to 8 of the paper: each class's accuracy before and after the collaboration.

Run: python benchmarks/experiments/fig8.py --dataset mnist [--mixed] [--baselines] [--quick] [--json]
The gain is told for three numbers of labels: what the paper's epsilon buys by the analysis that looks at no vote, what
it buys by the paper's own one, which looks at the votes and is not releasable, and the about 550 that it bought in the
paper. Beside them, the gain if every label were right tells what noise and wrong votes cost.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from common import (
    AFTER,
    BEFORE,
    GAIN,
    SETTINGS,
    Collaboration,
    Setting,
    asked_name,
    command,
    epsilons,
    finish,
    gain_cell,
    labels_of,
    parser,
    per_class,
    points,
    pooled,
    say,
    setting_of,
    spread,
    start,
)
from matplotlib.figure import Figure

from capcsim.learning.baselines import compare
from capcsim.learning.ensemble import nothing_bought
from capcsim.learning.metrics import average, share_fallen
from capcsim.seeds import Seeds

PAPER_GAIN = {
    ("cifar10", False): 0.0409,
    ("svhn", False): 0.0192,
    ("svhn", True): 0.0264,
    ("mnist", False): 0.045,
    ("fashion_mnist", False): 0.029,
}
"""Mean gains by data set and whether architectures are mixed: figures 2 and 8."""
PAPER_FALLEN = 0.0667
RIGHT = "if all were right"


def run_seed(work: Collaboration) -> dict[str, Any]:
    """One whole collaboration: gains for every number of labels."""
    setting = work.setting
    asked = work.select(setting.selection, setting.pool)
    votes = work.vote(asked)
    labels = work.labels(votes, setting.sigma)
    before = work.ensemble.retrain([nothing_bought() for _ in asked], work.train, "training for comparison")
    truth = [work.ensemble.dataset.y[rows] for rows in asked]
    bought = {name: (count, labels) for name, count in work.affordable(votes).items()}
    bought |= {asked_name(setting): (setting.labels, labels), RIGHT: (setting.labels, truth)}
    found: dict[str, Any] = {
        "seed": work.seed,
        "votes": work.save_votes("fig8", asked, votes),
        "trained_s": work.trained_s,
        "accuracy_before": fmean(pooled(before)),
        "per_class_before": per_class(before),
    }
    for name, (count, answers) in bought.items():
        after = work.retrain(asked, answers, count)
        gains = [new - old for new, old in zip(pooled(after), pooled(before), strict=True)]
        found[name] = {
            "labels": count,
            "epsilon": None if name == RIGHT else work.epsilons(votes, count),
            "label_accuracy": work.right([rows[:count] for rows in asked], [each[:count] for each in answers]),
            "label_accuracy_without_noise": work.right(
                [rows[:count] for rows in asked], [work.counts(cast[:, :count]).argmax(axis=1) for cast in votes]
            ),
            "accuracy_after": fmean(pooled(after)),
            "per_class_after": per_class(after),
            "gain": spread(gains),
            "gain_by_querier": [
                fmean(pooled([new])) - fmean(pooled([old])) for new, old in zip(after, before, strict=True)
            ],
            "classes_fallen": share_fallen(list(map(average, before)), list(map(average, after))),
        }
    found["baselines"] = {
        name: {"accuracy": fmean([each.accuracy for each in baseline.qualities]) if baseline.qualities else None}
        | {"bytes": baseline.sent_bytes, "note": baseline.note}
        for name, baseline in compare(work.ensemble, work.scenario.models, Seeds(work.seed)).items()
    }
    return found


def paper_cell(arguments: Any, gain: float | None) -> str:
    """The paper's gain, with its epsilon and what hinders a comparison."""
    if gain is None:
        return "-"
    hindered = "; --quick is not comparable" if arguments.quick else ""
    return f"{points(gain)} (epsilon {SETTINGS[arguments.dataset].epsilon:g}, data-dependent{hindered})"


def draw(runs: list[dict[str, Any]], title: str) -> Figure:
    """Bars for each class, lines for the means."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    before = np.mean([run["per_class_before"] for run in runs], axis=0)
    bars = [("before", BEFORE, before, fmean(run["accuracy_before"] for run in runs))]
    for name, colour in zip(names_of(runs), ("#b9d7f2", "#6aa3dc", AFTER), strict=False):
        values = np.mean([run[name]["per_class_after"] for run in runs], axis=0)
        mean = fmean(run[name]["accuracy_after"] for run in runs)
        bars.append((f"{labels_of([run[name] for run in runs])} labels ({name})", colour, values, mean))
    width = 0.8 / len(bars)
    for place, (label, colour, values, mean) in enumerate(bars):
        axes.bar(np.arange(len(values)) + (place - 1) * width, 100 * values, width, color=colour, label=label)
        axes.axhline(100 * mean, color=colour, linestyle="--", linewidth=1)
    axes.set_xticks(range(len(before)))
    axes.set_xlabel("class")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(max(0, 100 * float(np.nanmin(before)) - 10), 100)
    axes.set_title(title, loc="left")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def rows_of(data: str, kinds: Sequence[str], setting: Setting, runs: list[dict[str, Any]], paper: str) -> list[str]:
    """A line for each number of labels."""
    rows = [
        "| data | kinds | K | sigma | labels (bought by) | epsilon: data-independent, Theorem 6 |"
        f" label acc. | before | after | {GAIN} |"
        " paper | fell, % (paper 6.67) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names_of(runs):
        of = [run[name] for run in runs]
        cells = [
            data,
            ", ".join(kinds),
            str(setting.parties),
            f"{setting.sigma:g}",
            f"{labels_of(of)} ({name})",
            "-" if name == RIGHT else epsilons([each["epsilon"] for each in of]),
            f"{fmean(each['label_accuracy'] for each in of):.3f}",
            f"{fmean(run['accuracy_before'] for run in runs):.4f}",
            f"{fmean(each['accuracy_after'] for each in of):.4f}",
            gain_cell([each["gain"] for each in of]),
            paper,
            f"{100 * fmean(each['classes_fallen'] for each in of):.1f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows + [_baseline_row(data, kinds, setting, name, runs) for name in runs[0]["baselines"]]


def _baseline_row(data: str, kinds: Sequence[str], setting: Setting, name: str, runs: list[dict[str, Any]]) -> str:
    """What another way of working together would give; its accuracy is not of several retrainings."""
    of = [run["baselines"][name] for run in runs]
    sent = "" if of[0]["bytes"] is None else f", {of[0]['bytes'] / 1e9:.2f} GB sent"
    after, gain = "-", "-"
    before = fmean(run["accuracy_before"] for run in runs)
    if of[0]["accuracy"] is not None:
        accuracy = fmean(each["accuracy"] for each in of)
        after, gain = f"{accuracy:.4f}", points(accuracy - before)
    what = f"{name}: {of[0]['note']}{sent}"
    cells = [data, ", ".join(kinds), str(setting.parties), "-", what, "-", "-", f"{before:.4f}", after, gain, "-", "-"]
    return f"| {' | '.join(cells)} |"


def names_of(runs: list[dict[str, Any]]) -> list[str]:
    """What labels were bought by."""
    return [name for name, value in runs[0].items() if isinstance(value, dict) and "gain" in value]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--mixed", action="store_true", help="three architectures dealt out to the parties")
    options.add_argument("--baselines", action="store_true", help="pooling and federated averaging beside it")
    arguments = options.parse_args()
    setting = setting_of(arguments)
    started_s = start(arguments, f"fig8-{arguments.dataset}{'-mixed' if arguments.mixed else ''}")
    kinds = setting.mixed_kinds if arguments.mixed else setting.kinds
    runs = []
    for seed in range(1, arguments.seeds + 1):
        say(f"seed {seed}: {setting.parties} parties, {', '.join(kinds)}")
        work = Collaboration(setting, seed, arguments, kinds=kinds)
        runs.append(run_seed(work))
    paper = PAPER_GAIN.get((arguments.dataset, arguments.mixed))
    data = arguments.dataset + (" (JPEG)" if work.ensemble.dataset.note else "")
    rows = rows_of(data, kinds, setting, runs, paper_cell(arguments, paper))
    figure = draw(runs, f"{arguments.dataset}, {setting.parties} parties, sigma {setting.sigma:g}")
    found = {
        "dataset": arguments.dataset,
        "data_note": work.ensemble.dataset.note,
        "setting": setting.__dict__,
        "kinds": kinds,
        "paper_gain": paper,
        "paper_fallen": PAPER_FALLEN,
        "runs": runs,
    }
    finish(arguments, "fig8", found, figure, rows, started_s)


if __name__ == "__main__":
    command(main)
