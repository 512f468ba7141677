"""Figure 11 of the paper: how right the labels are against the noise, for one ensemble.

Run: python benchmarks/experiments/fig11.py --dataset mnist [--quick] [--json]
Choosing sigma by looking at such a curve looks at private votes: it is not covered by any epsilon.
"""

from statistics import fmean
from typing import Any

import numpy as np
from common import AFTER, BEFORE, Collaboration, command, epsilons, finish, parser, say, setting_of, spread, start
from matplotlib.figure import Figure

DRAWS = 10
SHARES_OF_K = (0.004, 0.01, 0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.28, 0.4, 0.6, 0.8, 1.2)
"""Values of sigma, as shares of the number of parties: figure 11's range for K = 250 is about 1 to 200."""
PAPER_SIGMA = {"mnist": 40.0, "fashion_mnist": 40.0, "svhn": 40.0, "cifar10": 7.0}


def run_seed(work: Collaboration, sigmas: list[float]) -> dict[str, Any]:
    """Label accuracy for every sigma, over several draws of the noise, and what the labels would cost."""
    asked = work.select(work.setting.selection, work.setting.labels)
    votes = work.vote(asked)
    draws = [[work.right(asked, work.labels(votes, sigma, draw)) for draw in range(DRAWS)] for sigma in sigmas]
    return {
        "seed": work.seed,
        "votes": work.save_votes("fig11", asked, votes),
        "without_noise": work.right(asked, [work.counts(cast).argmax(axis=1) for cast in votes]),
        "label_accuracy": [spread(values) for values in draws],
        # Below a vote of noise epsilon is in the hundreds, and means nothing.
        "epsilon": [work.epsilons(votes, work.setting.labels, sigma) if sigma >= 1 else None for sigma in sigmas],
    }


def rows_of(arguments: Any, labels: int, parties: int, sigmas: list[float], runs: list[dict[str, Any]]) -> list[str]:
    """A line for each sigma."""
    without = fmean(run["without_noise"] for run in runs)
    rows = [
        f"| {arguments.dataset}, K = {parties}: sigma | label accuracy | lost to noise, points |"
        f" epsilon of {labels} labels: data-independent, Theorem 6 | the paper's choice |",
        "|---|---|---|---|---|",
    ]
    for place, sigma in enumerate(sigmas):
        mean = fmean(run["label_accuracy"][place]["mean"] for run in runs)
        chosen = "sigma of the paper" if sigma == PAPER_SIGMA[arguments.dataset] and not arguments.quick else ""
        cost = "" if runs[0]["epsilon"][place] is None else epsilons([run["epsilon"][place] for run in runs])
        rows.append(f"| {sigma:g} | {mean:.4f} | {100 * (without - mean):.2f} | {cost} | {chosen} |")
    return rows


def draw(runs: list[dict[str, Any]], sigmas: list[float], chosen: float, title: str) -> Figure:
    """Label accuracy against sigma."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    means = np.mean([[each["mean"] for each in run["label_accuracy"]] for run in runs], axis=0)
    axes.plot(sigmas, 100 * means, marker="o", color=AFTER)
    without = fmean(run["without_noise"] for run in runs)
    axes.axhline(100 * without, linestyle="--", color=BEFORE, label="without noise")
    axes.axvline(chosen, color="#d1495b", linewidth=1, label=f"sigma {chosen:g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("sigma, votes")
    axes.set_ylabel("labels that are right, %")
    axes.set_title(title, loc="left")
    axes.legend()
    return figure


def main() -> None:
    arguments = parser(__doc__).parse_args()
    setting = setting_of(arguments)
    started_s = start(arguments, f"fig11-{arguments.dataset}")
    sigmas = sorted({*(max(0.1, round(share * setting.parties, 1)) for share in SHARES_OF_K), setting.sigma})
    runs = []
    for seed in range(1, arguments.seeds + 1):
        say(f"seed {seed}: {setting.parties} parties")
        work = Collaboration(setting, seed, arguments)
        runs.append(run_seed(work, sigmas))
    found = {
        "dataset": arguments.dataset,
        "data_note": work.ensemble.dataset.note,
        "setting": setting.__dict__,
        "sigma": sigmas,
        "paper_sigma": PAPER_SIGMA[arguments.dataset],
        "runs": runs,
    }
    figure = draw(runs, sigmas, setting.sigma, f"{arguments.dataset}, {setting.parties} parties")
    rows = rows_of(arguments, setting.labels, setting.parties, sigmas, runs)
    finish(arguments, "fig11", found, figure, rows, started_s)


if __name__ == "__main__":
    command(main)
