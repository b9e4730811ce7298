"""Figures, and only figures."""

from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mflib.model import FactorModel

# One style per model in all figures: a colour from the colour-blind-safe palette of Okabe and Ito,
# and a line and a marker that tell the models apart without colour. ``plot(x, y, **STYLES["ALS"])``
STYLES: dict[str, dict[str, Any]] = {
    "SVD": {"color": "#0072B2", "linestyle": "-", "marker": "o", "markersize": 4},
    "ALS": {"color": "#D55E00", "linestyle": "-.", "marker": "s", "markersize": 4},
    "BPR": {"color": "#009E73", "linestyle": (0, (7, 2)), "marker": "^", "markersize": 5},
    "WARP": {"color": "#CC79A7", "linestyle": ":", "marker": "D", "markersize": 4},
    "Popularity": {"color": "#666666", "linestyle": "--", "marker": "", "markersize": 0},
}
COLORS: dict[str, str] = {name: style["color"] for name, style in STYLES.items()}
LOWER_IS_BETTER = ("RMSE", "MAE")  # of all other metrics, higher is
# Points. Two panels side by side have room for text of this size, and where they are as wide as a
# phone, it is still readable.
TEXT = 11
LETTERS = {1: 60, 2: 32, 3: 32}  # of a title or a label in a line, by the number of panels


class Panel(Axes):
    """Axes whose title and labels go on in another line where they are too long."""

    letters = LETTERS[1]

    def set_title(self, label: str, *args: Any, **options: Any) -> Any:
        return super().set_title(fill(label, self.letters), *args, **options)

    def set_xlabel(self, xlabel: str, *args: Any, **options: Any) -> Any:
        return super().set_xlabel(fill(xlabel, self.letters), *args, **options)


def axes(columns: int = 1, height: float = 3.2) -> tuple[plt.Figure, Any]:
    """A figure with ``columns`` pairs of axes side by side, without frames.

    Sets the size of the text of this and of later figures.
    """
    plt.rc("font", size=TEXT)
    plt.rc("axes", titlesize="medium")
    plt.rc("legend", fontsize="medium")
    size = (3.4 * columns if columns > 1 else 6.3, height)
    figure, pairs = plt.subplots(
        1, columns, figsize=size, layout="constrained", subplot_kw={"axes_class": Panel}
    )
    for pair in np.ravel(pairs):
        pair.letters = LETTERS.get(columns, LETTERS[3])
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
    name, metric = type(model).__name__, curve.columns[0]
    better = "lower" if metric in LOWER_IS_BETTER else "higher"
    figure, (left, right) = axes(2)
    iterations = [step["iteration"] + 1 for step in model.history]
    left.plot(iterations, [step["loss"] for step in model.history], color=COLORS[name])
    left.set(xlabel="iteration", ylabel="training loss", title=f"{name} on the training data")
    right.plot(curve.index, curve.iloc[:, 0], **STYLES[name], label=name)
    right.axhline(baseline, **STYLES["Popularity"], label=label)
    ylabel = f"{metric} ({better} is better)"
    right.set(xlabel="iteration", ylabel=ylabel, title=f"{name} on held-out data")
    right.legend(frameon=False)
    return figure
