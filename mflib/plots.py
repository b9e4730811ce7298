"""Figures, and only figures."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mflib.model import FactorModel

# One colour per model in all figures, from the colour-blind-safe palette of Okabe and Ito.
COLORS = {
    "SVD": "#0072B2",
    "ALS": "#D55E00",
    "BPR": "#009E73",
    "WARP": "#CC79A7",
    "Popularity": "#666666",
}


def axes(columns: int = 1, height: float = 3.2) -> tuple[plt.Figure, Any]:
    """A figure with ``columns`` pairs of axes side by side, without frames."""
    size = (4.5 * max(columns, 1.4), height)
    figure, pairs = plt.subplots(1, columns, figsize=size, layout="constrained")
    for pair in np.ravel(pairs):
        pair.spines[["top", "right"]].set_visible(False)
    return figure, pairs


def learning_curve(
    model: FactorModel, curve: pd.DataFrame, baseline: float, label: str
) -> plt.Figure:
    """The training loss beside a held-out metric and a baseline of it.

    Parameters
    ----------
    model
        A fitted model.
    curve
        One column, the metric; the index is the iteration, counted from 1.
    baseline, label
        A line to compare with, and what it is.
    """
    name = type(model).__name__
    color = COLORS[name]
    figure, (left, right) = axes(2)
    iterations = [step["iteration"] + 1 for step in model.history]
    left.plot(iterations, [step["loss"] for step in model.history], color=color)
    left.set(xlabel="iteration", ylabel="training loss", title=f"{name} on the training data")
    right.plot(curve.index, curve.iloc[:, 0], color=color, marker="o", markersize=3, label=name)
    right.axhline(baseline, color=COLORS["Popularity"], linestyle="--", label=label)
    right.set(xlabel="iteration", ylabel=curve.columns[0], title=f"{name} on held-out data")
    right.legend(frameon=False)
    return figure
