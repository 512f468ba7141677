"""Figures of the privacy analyses: epsilon against queries, accuracy against sigma. They take plain numbers."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from capcsim.report.figures import ACCENT, MUTED, STRONG, STYLE, Picture, save

LARGEST_PLAIN = 1e6
# Name of a curve: its label, colour and line. Dashed ones depend on private votes.
CURVES: dict[str, tuple[str, str, str]] = {
    "pure": ("pure composition", "#c9ced6", "-"),
    "advanced": ("advanced composition", "#7a7a7a", "-"),
    "rdp_mironov": ("RDP, Mironov's conversion", "#8fb8de", "-"),
    "rdp": ("RDP, improved conversion", "#4d8fcc", "-"),
    "pld": ("privacy loss distribution", STRONG, "-"),
    "analytic": ("analytic Gaussian", "#0b2545", ":"),
    "theorem6_mironov": ("Theorem 6, Mironov's conversion", "#e9a03b", "--"),
    "theorem6": ("Theorem 6, improved conversion", ACCENT, "--"),
    "exact": ("exact noisy argmax, both directions", "#2a9d8f", "--"),
}


def draw_epsilon(curves: Mapping[str, Sequence[float | None]], mechanism: str, delta: float, folder: Path) -> Path:
    """Epsilon against queries by every analysis of `curves`, on one axis; returns the PNG's path."""
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(9, 5.4), layout="constrained")
        axes = figure.subplots()
        last: dict[str, float] = {}
        queries = [float(number or 0) for number in curves["queries"]]
        for name, (label, colour, line) in CURVES.items():
            heights = [nan if value is None else value for value in curves.get(name, (None,))]
            if not isfinite(heights[-1]):
                continue
            last[name] = heights[-1]
            width = 2.6 if name == "analytic" else 1.8
            label = f"{label}: {heights[-1]:.2f}" if heights[-1] < LARGEST_PLAIN else f"{label}: {heights[-1]:.2e}"
            axes.plot(queries, heights, line, color=colour, linewidth=width, label=label)
        # Pure composition would squeeze the others against the axis.
        highest = max((value for name, value in last.items() if name != "pure"), default=0.0)
        axes.set_ylim(0, 1.05 * highest or 1.0)
        axes.set_xlim(left=0)
        axes.set_xlabel("queries")
        axes.set_ylabel(f"epsilon at delta = {delta:g}")
        axes.set_title(f"Epsilon of {mechanism} by analysis")
        axes.grid(alpha=0.3)
        title = f"after {queries[-1]:.0f} queries\n(dashed: depends on private\nvotes, not releasable)"
        axes.legend(
            *axes.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1.01, 1), title=title, alignment="left"
        )
        return _save(figure, folder, "epsilon-against-queries")


def draw_accuracy(tuning: Mapping[str, Any], folder: Path) -> Path:
    """Label accuracy against sigma and the sigma that was chosen; returns the PNG's path."""
    curve = tuning["curve"]
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(8, 4.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(curve["sigma"], curve["accuracy"], "o-", color=STRONG, markersize=4, label="expected label accuracy")
        best = tuning["accuracy_without_noise"]
        axes.axhline(best, color=MUTED, linewidth=1, label=f"without noise: {best:.3f}")
        axes.axhspan(
            best - tuning["max_loss"], best, color=MUTED, alpha=0.25, label=f"a loss of {tuning['max_loss']:g}"
        )
        axes.axvline(tuning["sigma"], color=ACCENT, linewidth=1.4, label=f"chosen: sigma {tuning['sigma']:g}")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("sigma, votes")
        axes.set_ylabel(f"share of labels equal to the {tuning['reference']}")
        axes.set_title("Label accuracy against noise (tuning on private votes is not private)")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
        return _save(figure, folder, "accuracy-against-sigma")


def _save(figure: Figure, folder: Path, name: str) -> Path:
    path = folder / f"{name}.png"
    save(figure, path)
    return path
