"""Figures of the notebooks and one style per model."""

import re
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mflib.inputs import positive_float, positive_int
from mflib.model import FactorModel

# One style per model in all figures: ``plot(x, y, **STYLES["ALS"])``. Colours are from the
# colour-blind-safe palette of Okabe and Ito; line and marker tell the models apart without colour.
STYLES: dict[str, dict[str, Any]] = {
    "SVD": {"color": "#0072B2", "linestyle": "-", "marker": "o", "markersize": 4},
    "ALS": {"color": "#D55E00", "linestyle": "-.", "marker": "s", "markersize": 4},
    "BPR": {"color": "#009E73", "linestyle": (0, (7, 2)), "marker": "^", "markersize": 5},
    "WARP": {"color": "#CC79A7", "linestyle": ":", "marker": "D", "markersize": 4},
    "Popularity": {"color": "#666666", "linestyle": "--", "marker": "", "markersize": 0},
}
COLORS: dict[str, str] = {name: style["color"] for name, style in STYLES.items()}
OTHER_STYLE: dict[str, Any] = {"color": "#000000", "linestyle": "-", "marker": "v", "markersize": 4}
LOWER_IS_BETTER = re.compile(r"MSE|MAE|LOSS|ERROR", re.IGNORECASE)
# In points. Text of this size fits in two panels side by side and is readable on a phone.
FONT_SIZE = 11
LINE_LENGTHS = {1: 60, 2: 32, 3: 32}  # characters of a title or label, by the number of panels


class Panel(Axes):
    """Axes that wrap long titles and x labels."""

    line_length = LINE_LENGTHS[1]

    def _wrapped(self, text: str) -> str:
        return "\n".join(fill(line, self.line_length) for line in text.split("\n"))

    def set_title(self, label: str, *args: Any, **options: Any) -> Any:
        return super().set_title(self._wrapped(label), *args, **options)

    def set_xlabel(self, xlabel: str, *args: Any, **options: Any) -> Any:
        return super().set_xlabel(self._wrapped(xlabel), *args, **options)


def axes(columns: int = 1, height: float = 3.2) -> tuple[plt.Figure, Any]:
    """Create a figure with panels side by side, without a frame at the top and right.

    Sets the font size of this and all later figures.

    Parameters
    ----------
    columns : int
        The number of panels.
    height : float
        In inches.

    Returns
    -------
    figure : Figure
    panels : Panel or array of Panel, shape (columns,)
        A single Panel if there is one column.
    """
    columns, height = positive_int("columns", columns), positive_float("height", height)
    plt.rc("font", size=FONT_SIZE)
    plt.rc("axes", titlesize="medium")
    plt.rc("legend", fontsize="medium")
    size = (3.4 * columns if columns > 1 else 6.3, height)
    figure, panels = plt.subplots(
        1, columns, figsize=size, layout="constrained", subplot_kw={"axes_class": Panel}
    )
    for panel in np.ravel(panels):
        panel.line_length = LINE_LENGTHS.get(columns, LINE_LENGTHS[3])
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def style_of(model: FactorModel) -> dict[str, Any]:
    """Return the style of the model's class, or of the nearest base class that has one."""
    names = [cls.__name__ for cls in type(model).__mro__]
    return next((STYLES[name] for name in names if name in STYLES), OTHER_STYLE)


def learning_curve(
    model: FactorModel, curve: pd.DataFrame, baseline: float, label: str
) -> plt.Figure:
    """Plot the training loss and, next to it, a held-out metric compared with a baseline.

    Parameters
    ----------
    model : FactorModel
        A fitted model; its ``history`` holds the training loss.
    curve : DataFrame, shape (n, 1)
        The metric, at n >= 1 of the finished iterations. The column is the name of the metric. The
        index is the iteration, counted from 1; 0 is the model before training.
    baseline : float
        The value of the metric to compare with.
    label : str
        The name of the baseline.

    Returns
    -------
    Figure

    Raises
    ------
    RuntimeError
        The model is not fitted.
    TypeError
        ``curve`` is not a DataFrame.
    ValueError
        ``curve`` does not have exactly one column of finite numbers and an index of finished
        iterations, or ``baseline`` is not finite.
    """
    history = getattr(model, "history", [])
    if not history:
        raise RuntimeError(f"expected a fitted model, got {model!r}; call fit(user_items) first")
    _check_curve(curve, len(history))
    if not np.isfinite(baseline):
        raise ValueError(f"expected a finite number for baseline, got {baseline!r}")
    name, style, metric = type(model).__name__, style_of(model), str(curve.columns[0])
    better = "lower" if LOWER_IS_BETTER.search(metric) else "higher"
    iterations = [step["iteration"] + 1 for step in history]
    losses = [step["loss"] for step in history]
    figure, (left, right) = axes(2)
    marker = style["marker"] if len(history) == 1 else ""  # a line through one point is invisible
    left.plot(iterations, losses, color=style["color"], marker=marker)
    left.set(xlabel="iteration", ylabel="training loss", title=f"{name} on the training data")
    right.plot(curve.index, curve.iloc[:, 0], **style, label=name)
    right.axhline(baseline, **STYLES["Popularity"], label=label)
    ylabel = f"{metric} ({better} is better)"
    right.set(xlabel="iteration", ylabel=ylabel, title=f"{name} on held-out data")
    right.legend(frameon=False)
    for panel in (left, right):
        whole = MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        panel.xaxis.set_major_locator(whole)
    return figure


def _check_curve(curve: pd.DataFrame, n_finished: int) -> None:
    """Raise an error unless ``curve`` holds one metric at some of the finished iterations."""
    if not isinstance(curve, pd.DataFrame):
        got = type(curve).__name__
        raise TypeError(f"expected a DataFrame with one column, the metric, for curve, got {got}")
    if curve.shape[1] != 1 or not len(curve):
        expected = "one column and at least one row"
        hint = "fill it in the callback of fit"
        raise ValueError(f"expected a curve with {expected}, got shape {curve.shape}; {hint}")
    if not np.isfinite(pd.to_numeric(curve.iloc[:, 0], errors="coerce")).all():
        got = curve.iloc[:, 0].tolist()
        raise ValueError(f"expected finite numbers in the curve, got {got}")
    if not curve.index.isin(range(n_finished + 1)).all():
        got = f"{curve.index.min()} to {curve.index.max()}"
        hint = "start with an empty curve and fill it in the callback of this fit"
        raise ValueError(
            f"expected iterations from 0 to {n_finished}, the last finished one, as the index of "
            f"the curve, got {got}; {hint}"
        )
