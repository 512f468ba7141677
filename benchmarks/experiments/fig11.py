"""Figure 11 of the paper: how right the labels are against the noise, for one ensemble.

Run: python benchmarks/experiments/fig11.py --dataset mnist [--quick] [--json]
Choosing sigma by looking at such a curve looks at private votes: it is not covered by any epsilon.
"""

from typing import Any

import numpy as np
from common import AFTER, Collaboration, command, finish, parser, say, setting_of, spread, start
from matplotlib.figure import Figure

DRAWS = 10
SHARES_OF_K = (0.004, 0.01, 0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.28, 0.4, 0.6, 0.8, 1.2)
"""Values of sigma, as shares of the number of parties: figure 11's range for K = 250 is about 1 to 200."""
PAPER_SIGMA = {"mnist": 40.0, "fashion_mnist": 40.0, "svhn": 40.0, "cifar10": 7.0}


def main() -> None:
    arguments = parser(__doc__).parse_args()
    setting = setting_of(arguments)
    started_s = start(arguments, f"fig11-{arguments.dataset}")
    curves: list[dict[str, Any]] = []
    sigmas = sorted({*(max(0.1, round(share * setting.parties, 1)) for share in SHARES_OF_K), setting.sigma})
    for seed in range(1, arguments.seeds + 1):
        say(f"seed {seed}: {setting.parties} parties")
        work = Collaboration(setting, seed, arguments)
        asked = work.select(setting.selection, setting.labels)
        votes = work.vote(asked)
        right = [[work.right(asked, work.labels(votes, sigma, draw)) for draw in range(DRAWS)] for sigma in sigmas]
        without = work.right(asked, [work.counts(cast).argmax(axis=1) for cast in votes])
        curves.append({"seed": seed, "votes": work.save_votes("fig11", votes), "without_noise": without})
        curves[-1] |= {"label_accuracy": [spread(values) for values in right]}
    means = np.array([[each["mean"] for each in curve["label_accuracy"]] for curve in curves]).mean(axis=0)
    without = float(np.mean([curve["without_noise"] for curve in curves]))
    epsilons = [work.epsilon(setting.labels, sigma) if sigma >= 1 else None for sigma in sigmas]
    rows = [
        f"| {arguments.dataset}, K = {setting.parties}: sigma | label accuracy | lost to noise, points |"
        f" epsilon of {setting.labels} labels (data-independent) | the paper's choice |",
        "|---|---|---|---|---|",
    ]
    for sigma, mean, epsilon in zip(sigmas, means, epsilons, strict=True):
        chosen = "sigma of the paper" if sigma == PAPER_SIGMA[arguments.dataset] and not arguments.quick else ""
        shown = "" if epsilon is None else f"{epsilon:.2f}"
        rows.append(f"| {sigma:g} | {mean:.4f} | {100 * (without - mean):.2f} | {shown} | {chosen} |")
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(sigmas, 100 * means, marker="o", color=AFTER)
    axes.axhline(100 * without, linestyle="--", color="#9aa5b1", label="without noise")
    axes.axvline(setting.sigma, color="#d1495b", linewidth=1, label=f"sigma {setting.sigma:g}")
    axes.set_xscale("log")
    axes.set_xlabel("sigma, votes")
    axes.set_ylabel("labels that are right, %")
    axes.set_title(f"{arguments.dataset}, {setting.parties} parties", loc="left")
    axes.legend()
    found = {
        "dataset": arguments.dataset,
        "data_note": work.ensemble.dataset.note,
        "setting": setting.__dict__,
        "sigma": sigmas,
        "label_accuracy": means.tolist(),
        "without_noise": without,
        "epsilon_data_independent": epsilons,
        "paper_sigma": PAPER_SIGMA[arguments.dataset],
        "curves": curves,
    }
    finish(arguments, "fig11", found, figure, rows, started_s)


if __name__ == "__main__":
    command(main)
