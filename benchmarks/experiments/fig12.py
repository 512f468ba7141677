"""Figures 4 and 12 of the paper: gain and best epsilon against the number of parties, the data being the same.

Run: python benchmarks/experiments/fig12.py --dataset mnist [--counts 150,200,250,300,400] [--quick] [--json]
The best epsilon is that of a fixed number of labels at the largest sigma that costs at most --loss of their accuracy.
Choosing sigma so looks at private votes: it is not covered by that epsilon.
"""

from statistics import fmean
from typing import Any

from common import (
    AFTER,
    BEFORE,
    GAIN,
    Collaboration,
    command,
    epsilons,
    finish,
    gain_cell,
    parser,
    points,
    pooled,
    positive,
    say,
    setting_of,
    spread,
    start,
    with_parties,
)
from matplotlib.figure import Figure

from capcsim.learning.ensemble import nothing_bought

PAPER = {
    "mnist": {150: (0.0411, 4.50), 200: (0.0333, 2.50), 250: (0.0450, 2.35), 300: (0.0469, 2.00), 400: (0.0839, 1.63)},
}
"""Gain and best epsilon by the number of parties: figure 12, by the paper's data-dependent analysis."""
SHARES_OF_K = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.24, 0.28, 0.32, 0.4)
DRAWS = 5


def best_sigma(work: Collaboration, asked: Any, votes: Any, loss: float) -> tuple[float, float]:
    """The largest sigma whose labels are at most `loss` less right than those without noise, and their accuracy.

    The smallest one where all lose more.
    """
    without = work.right(asked, [work.counts(cast).argmax(axis=1) for cast in votes])
    best: tuple[float, float] | None = None
    for share in SHARES_OF_K:
        sigma = share * work.setting.parties
        right = fmean(work.right(asked, work.labels(votes, sigma, draw + 1)) for draw in range(DRAWS))
        if best is not None and right < without - loss:
            break
        best = (sigma, right)
    assert best, "there are shares"
    return best


def run_one(work: Collaboration, loss: float) -> dict[str, Any]:
    """One number of parties and one seed."""
    setting = work.setting
    asked = work.select(setting.selection, setting.labels)
    votes = work.vote(asked)
    sigma, right = best_sigma(work, asked, votes, loss)
    before = work.ensemble.retrain([nothing_bought() for _ in asked], work.train, "training for comparison")
    after = work.retrain(asked, work.labels(votes, sigma), setting.labels)
    return {
        "seed": work.seed,
        "parties": setting.parties,
        "train_per_party": setting.train_per_party,
        "votes": work.save_votes(f"fig12-k{setting.parties}", asked, votes),
        "sigma": sigma,
        "label_accuracy": right,
        "best_epsilon": work.epsilons(votes, setting.labels, sigma),
        "accuracy_before": fmean(pooled(before)),
        "accuracy_after": fmean(pooled(after)),
        "gain": spread([new - old for new, old in zip(pooled(after), pooled(before), strict=True)]),
        "trained_s": work.trained_s,
    }


def rows_of(runs: list[dict[str, Any]], counts: list[int], dataset: str, labels: int) -> list[str]:
    """A line for each number of parties."""
    rows = [
        "| K | samples each | best sigma | label acc. |"
        f" best epsilon of {labels} labels: data-independent, Theorem 6 | paper's | before | after | {GAIN} |"
        " paper's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for count in counts:
        of = [run for run in runs if run["parties"] == count]
        gain, epsilon = PAPER.get(dataset, {}).get(count, (None, None))
        mean = {key: fmean(run[key] for run in of) for key, value in of[0].items() if isinstance(value, float)}
        cells = [
            str(count),
            str(of[0]["train_per_party"]),
            f"{mean['sigma']:g}",
            f"{mean['label_accuracy']:.3f}",
            epsilons([run["best_epsilon"] for run in of]),
            "-" if epsilon is None else f"{epsilon:.2f}",
            f"{mean['accuracy_before']:.4f}",
            f"{mean['accuracy_after']:.4f}",
            gain_cell([run["gain"] for run in of]),
            points(gain),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def draw(runs: list[dict[str, Any]], counts: list[int], known: dict[int, tuple[float, float]], title: str) -> Figure:
    """Gain, and best epsilon, against the number of parties, with what is `known` from the paper."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_count = [[run for run in runs if run["parties"] == count] for count in counts]
    theirs = [count for count in counts if count in known]
    left.plot(
        counts, [100 * fmean(run["gain"]["mean"] for run in of) for of in by_count], "o-", color=AFTER, label="ours"
    )
    for name, style in zip(runs[0]["best_epsilon"], ("o-", "o--"), strict=True):
        values = [fmean(run["best_epsilon"][name] for run in of) for of in by_count]
        right.plot(counts, values, style, color=AFTER, label=f"ours, {name}")
    for place, (axes, factor) in enumerate(((left, 100), (right, 1))):
        if theirs:
            values = [factor * known[count][place] for count in theirs]
            axes.plot(theirs, values, "s-", color=BEFORE, label="the paper")
        axes.set_xlabel("parties")
        axes.set_ylim(bottom=0)
        axes.legend()
    left.set_ylabel("gain in accuracy, points")
    right.set_ylabel("best epsilon")
    left.set_title(title, loc="left")
    return figure


def numbers(text: str) -> list[int]:
    """Numbers of parties with commas between, for argparse."""
    return [positive(part) for part in text.split(",")]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--counts", type=numbers, help="numbers of parties; else 150,200,250,300,400")
    options.add_argument("--loss", type=float, default=0.01, help="of label accuracy, that the best sigma may cost")
    arguments = options.parse_args()
    setting = setting_of(arguments)
    started_s = start(arguments, f"fig12-{arguments.dataset}")
    counts = arguments.counts or ([20, 40] if arguments.quick else [150, 200, 250, 300, 400])
    runs = []
    for count in counts:
        for seed in range(1, arguments.seeds + 1):
            say(f"K = {count}, seed {seed}")
            work = Collaboration(with_parties(setting, count), seed, arguments)
            runs.append(run_one(work, arguments.loss))
    found = {
        "dataset": arguments.dataset,
        "data_note": work.ensemble.dataset.note,
        "setting": setting.__dict__,
        "loss": arguments.loss,
        "paper": PAPER.get(arguments.dataset, {}),
        "runs": runs,
    }
    known = PAPER.get(arguments.dataset, {}) if not arguments.quick else {}
    figure = draw(runs, counts, known, f"{arguments.dataset}, {setting.labels} labels")
    rows = rows_of(runs, counts, arguments.dataset, setting.labels)
    finish(arguments, "fig12", found, figure, rows, started_s)


if __name__ == "__main__":
    command(main)
