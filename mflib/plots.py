"""Figures of the notebooks and one style per model."""

import re
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mflib.inputs import positive_float, positive_int
from mflib.model import FactorModel

# One style per model in all figures: ``plot(x, y, **STYLES["ALS"])``. Colours are from the
# colour-blind-safe palette of Okabe and Ito; line and marker distinguish the models without colour.
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
    figure = plt.figure(figsize=size, layout="constrained")
    # Each panel has its own part of the figure, so that a narrow page can cut between them. The
    # frame is invisible; it keeps notebooks from trimming the figure to a part of it.
    figure.add_artist(Rectangle((0, 0), 1, 1, fill=False, edgecolor="none"))
    parts = figure.subfigures(1, columns, squeeze=False, wspace=0.02).ravel()
    panels = [part.subplots(subplot_kw={"axes_class": Panel}) for part in parts]
    for panel in panels:
        panel.line_length = LINE_LENGTHS.get(columns, LINE_LENGTHS[3])
        panel.spines[["top", "right"]].set_visible(False)
    return figure, np.array(panels) if columns > 1 else panels[0]


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
    right.plot(curve.index, curve.iloc[:, 0], **style | {"linestyle": "-"}, label=name)
    right.axhline(baseline, **STYLES["Popularity"], label=label)
    if better == "higher":  # these metrics are shares: 0 is the worst
        right.set_ylim(bottom=0)
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


def pair_on_score_axis(
    liked: Sequence[float], others: Sequence[float], i: int, negatives: tuple[int, int]
) -> plt.Figure:
    """Draw how one step of BPR moves a liked movie up and another movie down, for two pairs.

    Parameters
    ----------
    liked, others : sequences of float
        The scores of the movies that one user likes and of those that the user has not liked.
    i : int
        The index of the liked movie of both pairs.
    negatives : tuple of int
        The index of the other movie in the left and in the right panel.

    Returns
    -------
    Figure
    """
    figure, panels = axes(2, height=3.6)
    panels[1].sharey(panels[0])
    for panel, j in zip(panels, negatives, strict=True):
        x = liked[i] - others[j]
        g = 1 / (1 + np.exp(x))
        for scores, place, push, label, color, marker, fillstyle in (
            (liked, i, g, "$i$, liked", COLORS["BPR"], "^", "full"),
            (others, j, -g, "$j$, not liked", "black", "o", "none"),
        ):
            style = {"color": color, "marker": marker, "fillstyle": fillstyle, "markersize": 8}
            rest, start, end = np.delete(scores, place), scores[place], scores[place] + push
            panel.plot([0, 1], [rest, rest], linestyle="", alpha=0.35, **style)
            panel.plot([0, 1], [start, end], linestyle="", **style)
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 2, "shrinkA": 7, "shrinkB": 7}
            panel.annotate("", (1, end), (0, start), arrowprops=arrow)
            panel.text(-0.14, start, label[:3], ha="right", va="center")
            panel.text(1.14, end, label, ha="left", va="center")
        order = "Wrong order, strong push" if x < 0 else "Right order, weak push"
        panel.set(title=f"{order}\n$x = {x:.1f}$, $g = {g:.2f}$", xlim=(-0.4, 2.1))
        panel.set_xticks([0, 1], ["before", "after"])
    panels[0].set_ylabel("score for one user")
    return figure


def pair_losses() -> plt.Figure:
    """Plot three losses of a pair, and the force of each, over the difference x of its scores."""
    x = np.linspace(-3, 3, 601)
    g = 1 / (1 + np.exp(x))
    figure, (left, right) = axes(2)
    for name, loss, force, linestyle, color in (
        ("wrong or not", x <= 0, 0 * x, ":", "#666666"),
        ("$-\\ln σ(x)$, BPR", np.logaddexp(0, -x), g, "-", COLORS["BPR"]),
        ("hinge", np.maximum(0, 1 - x), x < 1, "--", COLORS["WARP"]),
    ):
        left.plot(x, loss, linestyle=linestyle, color=color, label=name)
        right.plot(x, force, linestyle=linestyle, color=color)
    label = "x, how far i is above j"
    left.set(xlabel=label, ylabel="loss", title="Loss of a pair")
    right.set(xlabel=label, ylabel="force: minus the slope", title="Force on the pair")
    left.legend(frameon=False)
    return figure


def warp_search(
    others: np.ndarray, liked: dict[str, float], draws: list[list[int]], margin: float = 1.0
) -> plt.Figure:
    """Draw WARP's search for a violating movie, for two liked movies of one user.

    Parameters
    ----------
    others : array, shape (n,)
        The scores of the movies that the user has not liked.
    liked : dict
        The score of the liked movie of each panel, by the first line of the panel's title.
    draws : list of lists
        For each panel the indices into ``others`` that are drawn. Only the last one violates.
    margin : float

    Returns
    -------
    Figure
    """
    figure, panels = axes(2, height=3.9)
    low, high, end = np.min(others) - 0.3, np.max(others) + 0.6, max(map(len, draws)) + 0.5
    for panel, (title, score), drawn in zip(panels, liked.items(), draws, strict=True):
        n, d, limit = len(others), len(drawn), score - margin
        panel.axhspan(limit, high, color="#E5E5E5")
        panel.text(end - 0.1, high - 0.1, "violates", ha="right", va="top")
        panel.axhline(limit, color="black", linestyle="--", linewidth=1)
        panel.axhline(score, color=COLORS["WARP"])
        panel.plot(0 * others, others, "o", color="black", mfc="white", markersize=5)
        panel.plot(0, score, "D", color=COLORS["WARP"], markersize=9)
        panel.plot(range(1, d), others[drawn[:-1]], "x", color="black", markersize=8, mew=2)
        panel.plot(d, others[drawn[-1]], "o", color="black", markersize=9)
        names = [(-0.8, score + 0.25, "$i$"), (d - 0.1, others[drawn[-1]] + 0.35, "$j$")]
        names += [(end + 0.1, score, "$s_{ui}$"), (end + 0.1, limit, "$s_{ui} - m$")]
        for x, y, name in names:
            panel.text(x, y, name, va="center")
        k, L = n // d, (1 / np.arange(1, n // d + 1)).sum()
        panel.set_title(f"{title}:\nd = {d}, rank ≈ ⌊{n}/{d}⌋ = {k},\nweight L = {L:.2f}")
        panel.set(xlabel="draw", ylabel="score", xlim=(-1, end), ylim=(low, high))
        panel.set_xticks(range(int(end) + 1), ["all", *range(1, int(end) + 1)])
    return figure


def search_lengths(needed: dict[int, np.ndarray], max_draws: int) -> plt.Figure:
    """Plot how many draws the searches of WARP need, as shares over the iterations.

    Parameters
    ----------
    needed : dict
        For each iteration the number of draws of each search, 0 where none of ``max_draws`` draws
        violates.
    max_draws : int
        At least 6.

    Returns
    -------
    Figure
    """
    bounds = [1, 2, 6, max_draws + 1]
    names = ["first draw", "draws 2 to 5", f"draws 6 to {max_draws}", f"none in {max_draws} draws"]
    counts = [np.histogram(draws, bounds)[0] / len(draws) for draws in needed.values()]
    shares = np.array([[*found, 1 - found.sum()] for found in counts]).T
    iterations = list(needed)
    colors = ["#F5E1EC", "#DFB0CC", "#A8578A", "#33182A"]  # grey: light to dark
    figure, panel = axes(1)
    panel.stackplot(iterations, shares, colors=colors, edgecolor="white", linewidth=0.7)
    middle = shares[:, -1].cumsum() - shares[:, -1] / 2
    for name, height in zip(names, middle, strict=True):
        panel.text(iterations[-1] * 1.02, height, name, va="center")
    panel.set(xlabel="iteration", ylabel="share of the likes", ylim=(0, 1))
    panel.set(title="When is the first violation found?", xlim=(0, iterations[-1]))
    return figure


def factorization(ratings: pd.DataFrame, P: pd.DataFrame, Q: pd.DataFrame) -> plt.Figure:
    """Draw a rating matrix with gaps next to the product of two small matrices that fills them.

    Parameters
    ----------
    ratings : DataFrame, shape (U, I)
        NaN where the rating is unknown. The index and the columns are the names of the users and
        of the movies.
    P, Q : DataFrames, shapes (U, F) and (I, F)
        The columns are the names of the factors.

    Returns
    -------
    Figure
    """
    figure, panel = axes(1, height=3.7)
    (n_users, n_movies), n_factors = ratings.shape, len(P.columns)
    at_P, at_Q, top = n_movies + 1.3, n_movies + n_factors + 1.6, -n_factors - 0.3
    gaps = ratings.isna().to_numpy()
    _matrix(panel, 0, 0, ratings.to_numpy(), "{:.0f}", gaps)
    _matrix(panel, at_P, 0, P.to_numpy(), "{:g}")
    _matrix(panel, at_Q, top, Q.T.to_numpy(), "{:g}")
    _matrix(panel, at_Q, 0, (P @ Q.T).to_numpy(), "{:.1f}", gaps)
    for row, name in enumerate(ratings.index):
        panel.text(-0.2, row + 0.5, name, ha="right", va="center")
    for row, name in enumerate(["$Q^⊤$", *P.columns]):
        panel.text(at_Q + n_movies + 0.2, top + row - 0.4, name, va="center")
    for column, name in enumerate(P.columns):
        panel.text(at_P + column + 0.5, -0.15, name, rotation=90, ha="center", va="bottom")
    for column, name in enumerate(ratings.columns):
        for left, above in ((0.3, -0.1), (at_Q + 0.3, top - 0.1)):
            panel.text(left + column, above, name, rotation=50, rotation_mode="anchor")
    middles = {"$R$": n_movies / 2, "$P$": at_P + n_factors / 2, "$P Q^⊤$": at_Q + n_movies / 2}
    for name, middle in middles.items():
        panel.text(middle, n_users + 0.5, name, ha="center", va="center")
    panel.text(n_movies + 0.65, n_users / 2, "≈", ha="center", va="center")
    panel.set(xlim=(-1.6, at_Q + n_movies + 2), ylim=(n_users + 1, top - 2.7), aspect="equal")
    panel.axis("off")
    return figure


def _matrix(
    panel: Axes, left: float, top: float, values: np.ndarray, form: str, mark: Any = None
) -> None:
    """Write numbers into a grid with y downwards; marked entries are bold with a thick frame."""
    mark = np.zeros(values.shape, bool) if mark is None else mark
    for (row, column), value in np.ndenumerate(values):
        known = np.isfinite(value)
        marked = known and mark[row, column]
        shade = plt.get_cmap("Blues")(0.1 * value) if known else "white"
        edge: dict[str, Any] = {"edgecolor": "black" if marked else "white", "linewidth": 1.5}
        at, text = (left + column, top + row), form.format(value) if known else "?"
        panel.add_patch(plt.Rectangle(at, 1, 1, facecolor=shade, zorder=1 + marked, **edge))
        middle: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 3}
        panel.text(at[0] + 0.5, at[1] + 0.5, text, weight="bold" if marked else None, **middle)


def rating_curves(
    models: dict[str, FactorModel], errors: dict[str, Sequence[float]], baseline: float
) -> plt.Figure:
    """Plot the training loss of several SVD models and, next to it, their held-out RMSE.

    Parameters
    ----------
    models : dict
        Up to four fitted models, by name.
    errors : dict
        The RMSE of each model after each iteration.
    baseline : float
        The RMSE of the movie means.

    Returns
    -------
    Figure
    """
    figure, (left, right) = axes(2)
    looks = [("-", COLORS["SVD"]), (":", COLORS["ALS"]), ("-.", "black"), ("--", COLORS["BPR"])]
    for (name, model), (line, color) in zip(models.items(), looks, strict=False):
        losses = [step["loss"] for step in model.history]
        iterations = range(1, len(losses) + 1)
        for panel, values in ((left, losses), (right, errors[name])):
            panel.plot(iterations, values, linestyle=line, color=color, linewidth=2)
            place: dict[str, Any] = {"xytext": (0, 4), "textcoords": "offset points", "ha": "right"}
            panel.annotate(name, (iterations[-1], values[-1]), color=color, **place)
    right.axhline(baseline, color=COLORS["Popularity"], linewidth=1)
    right.annotate("movie means", (1, baseline), (0, 4), textcoords="offset points")
    left.set(xlabel="iteration", ylabel="mean of $e^2 / 2$", title="Training ratings")
    right.set(xlabel="iteration", ylabel="RMSE in stars", title="Held-out ratings")
    right.margins(y=0.12)
    return figure


def movie_map(item_factors: np.ndarray, shown: np.ndarray, labels: dict[str, int]) -> plt.Figure:
    """Draw movies as points in the plane of their two factors, some with their titles.

    The plane is turned so that the movies spread most along the horizontal axis, and reflected so
    that the first labelled movie is at the upper right.

    Parameters
    ----------
    item_factors : array, shape (I, 2)
    shown : item ids
    labels : dict
        The ids of the movies to label, by title.

    Returns
    -------
    Figure
    """
    turn = np.linalg.svd(item_factors[shown], full_matrices=False)[2].T  # 2 x 2
    places, ids = item_factors @ turn, list(labels.values())
    places = places * np.where(places[ids[0]] < 0, -1, 1)
    width, high = np.abs(places[shown]).max(0) * (1.9, 1.1)
    figure, panel = axes(1, height=0.8 + 5.4 * high / width)
    for draw_line in (panel.axhline, panel.axvline):
        draw_line(0, color="silver", linewidth=0.8)
    panel.plot(*places[shown].T, "o", color="silver", markersize=3)
    panel.plot(*places[ids].T, "o", color=COLORS["SVD"], markersize=6)
    for title, i in labels.items():
        side, align = (7, "left") if places[i, 0] > 0 else (-7, "right")
        text = panel.annotate(title, places[i], (side, 0), textcoords="offset points")
        text.set(ha=align, va="center", bbox={"color": "white", "alpha": 0.7, "pad": 0.5})
    panel.set(xlabel="first factor", ylabel="second factor", aspect="equal")
    panel.set(xlim=(-width, width), ylim=(-high, high))
    return figure


def alternating_path(
    start: tuple[float, float] = (1.9, 2.5), c: float = 5.0, penalty: float = 0.5
) -> plt.Figure:
    """Draw twenty half-steps of alternating least squares for one user, one item and one factor.

    The contours are those of the objective c (1 - pq)^2 + lambda (p^2 + q^2).

    Parameters
    ----------
    start : tuple of float
        The values of p and q before the first half-step, which solves for p.
    c, penalty : float
        The confidence and lambda.
    """
    p, q = start
    path = [start]
    for step in range(20):
        if step % 2 == 0:
            p = c * q / (c * q**2 + penalty)
        else:
            q = c * p / (c * p**2 + penalty)
        path.append((p, q))
    figure, panel = axes(1, height=3.4)
    grid = np.linspace(0, 2.8, 281)
    P, Q = np.meshgrid(grid, grid)
    objective = c * (1 - P * Q) ** 2 + penalty * (P**2 + Q**2)
    levels = objective.min() + np.geomspace(0.02, 200, 14)
    panel.contour(P, Q, objective, levels=levels, colors="#aaaaaa", linewidths=0.8)
    panel.plot(*zip(*path, strict=True), **STYLES["ALS"] | {"linestyle": "-"})
    best = np.sqrt(1 - penalty / c)
    panel.plot(best, best, marker="*", markersize=15, color="black")
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    note: dict[str, Any] = {"textcoords": "offset points", "va": "center", "bbox": box}
    (x0, y0), (x1, _), (_, y2) = path[:3]
    panel.annotate("start", (x0, y0), (8, 0), **note)
    panel.annotate("1: solve for p", ((x0 + x1) / 2, y0), (0, 12), ha="center", **note)
    panel.annotate("2: solve for q", (x1, (y0 + y2) / 2), (10, 0), **note)
    panel.annotate("minimum", (best, best), (12, 2), **note)
    panel.set(xlabel="user factor p", ylabel="item factor q")
    return figure


def hits_by_popularity(
    models: dict[str, FactorModel], train: sp.csr_matrix, test: sp.csr_matrix
) -> plt.Figure:
    """Plot the share of the held-out likes that each model recommends, by the movie's popularity.

    Parameters
    ----------
    models : dict
        Fitted models, by name.
    train, test : csr_matrix, shape (U, I)
        The likes that the models have learned from, and the held-out likes.

    Returns
    -------
    Figure
        A line for each model, with the shares of the four classes of movies as its y data.
    """
    place = np.argsort(np.argsort(-train.getnnz(0), kind="stable"))  # I, 0 is the most liked
    kind = np.digitize(place, [100, 300, 1000])  # I
    labels = ["1 to 100", "101 to 300", "301 to 1,000", "after 1,000"]
    wanted = np.bincount(kind[test.indices], minlength=4)
    figure, panel = axes(1, height=3.6)
    for n, (name, model) in enumerate(models.items()):
        ids, _ = model.recommend(np.arange(train.shape[0]), train)
        users, places = (ids >= 0).nonzero()  # -1 fills up the list of a user with few items left
        listed = sp.csr_matrix((np.ones(len(users)), (users, ids[users, places])), test.shape)
        hits = np.bincount(kind[test.multiply(listed).tocsr().indices], minlength=4)
        shares = hits / np.maximum(wanted, 1)  # a small catalogue has fewer classes
        style = STYLES.get("Popularity" if name == "popularity" else name, OTHER_STYLE)
        style = style | {"linestyle": "", "markersize": 6, "marker": style["marker"] or "x"}
        x = np.arange(4) + 0.13 * (n - (len(models) - 1) / 2)
        panel.vlines(x, 0, shares, color=style["color"], linewidth=1)
        panel.plot(x, shares, **style, label=name, clip_on=False)
    panel.set(xticks=range(4), xticklabels=labels, ylim=(0, None), ylabel="share recommended")
    panel.set(xlabel="place of the movie by number of likes", title="Which likes are recommended?")
    panel.legend(frameon=False)
    return figure


def split_comparison(table: pd.DataFrame) -> plt.Figure:
    """Plot the NDCG@10 of several models on several splits, and their lead over popularity.

    Parameters
    ----------
    table : DataFrame
        A row for each split and model, indexed by both; the rows of "popularity" have no lead.
        Columns: "NDCG@10", "lead", and its interval, "low" and "high".

    Returns
    -------
    Figure
    """
    splits, models = (list(table.index.unique(level)) for level in (0, 1))
    figure, (left, right) = axes(2, height=3.6)
    for n, name in enumerate(models):
        rows = table.xs(name, level=1).loc[splits]
        style = STYLES.get("Popularity" if name == "popularity" else name, OTHER_STYLE)
        style = style | {"linestyle": "", "marker": style["marker"] or "x", "markersize": 6}
        x = np.arange(len(splits)) + 0.17 * (n - (len(models) - 1) / 2)
        left.plot(x, rows["NDCG@10"], **style, label=name)
        if name != "popularity":
            right.vlines(x, rows["low"], rows["high"], color=style["color"])
            right.plot(x, rows["lead"], **style)
    right.axhline(0, **STYLES["Popularity"])
    left.set(ylabel="NDCG@10", ylim=(0, None), title="Means")
    right.set(ylabel="NDCG@10 minus popularity's", title="Lead over popularity")
    left.legend(frameon=False, loc="upper right")
    for panel in (left, right):
        panel.set_xticks(range(len(splits)), [split.replace(" ", "\n") for split in splits])
        panel.set_xlim(-0.5, len(splits) - 0.5)
    return figure
