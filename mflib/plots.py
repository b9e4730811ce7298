"""What more than one notebook shows: figures, tables, the displayed kernels, the projector's files, the explorer."""

import html
import inspect
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp
from IPython.display import Markdown
from numpy.typing import ArrayLike

from mflib.data import MovieLens
from mflib.metrics import bootstrap_interval, similarity_quality
from mflib.model import FactorModel

# One colour per model in all figures, from the colour-blind-safe palette of Okabe and Ito.
COLORS = {"SVD": "#0072B2", "ALS": "#D55E00", "BPR": "#009E73", "WARP": "#CC79A7", "Popularity": "#666666"}
FILMS = ("Toy Story", "Blade Runner", "Aliens", "Cinema Paradiso", "Hoop Dreams")  # in both data sets


def axes(columns: int = 1, height: float = 3.2) -> tuple[plt.Figure, plt.Axes | np.ndarray]:
    """A figure with ``columns`` pairs of axes side by side, without frames."""
    figure, pairs = plt.subplots(1, columns, figsize=(4.5 * max(columns, 1.4), height), layout="constrained")
    for pair in np.atleast_1d(pairs):
        pair.spines[["top", "right"]].set_visible(False)
    return figure, pairs


def learning_curve(model: FactorModel, curve: pd.DataFrame, baseline: float, label: str) -> plt.Figure:
    """Training loss per iteration (left) and a held-out metric with a horizontal baseline (right).

    ``curve``: index iteration (from 1), one column, named as the metric; ``label`` names the baseline.
    """
    name, color = type(model).__name__, COLORS[type(model).__name__]
    figure, (left, right) = axes(2)
    left.plot([h["iteration"] + 1 for h in model.history], [h["loss"] for h in model.history], color=color)
    left.set(xlabel="iteration", ylabel="training loss", title=f"{name} on the training data")
    right.plot(curve.index, curve.iloc[:, 0], color=color, marker="o", markersize=3, label=name)
    right.axhline(baseline, color=COLORS["Popularity"], linestyle="--", label=label)
    right.set(xlabel="iteration", ylabel=curve.columns[0], title=f"{name} on held-out data")
    right.legend(frameon=False)
    return figure


def source(*functions: Callable) -> Markdown:
    """The code of functions of the package, as it is run."""
    return Markdown("```python\n" + "\n\n".join(map(inspect.getsource, functions)) + "```")


def judged(metrics: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row of mean ranking metrics for each model, with the 95 % bootstrap interval of NDCG over users.

    ``metrics``: what ``ranking_metrics`` returned, by the name of the model.
    """
    rows = {name: per_user.mean() for name, per_user in metrics.items()}
    table = pd.DataFrame(rows).T[["ndcg", "precision", "recall", "map", "auc"]].round(3)
    low_high = [bootstrap_interval(per_user["ndcg"]) for per_user in metrics.values()]
    table.insert(1, "95 % interval of ndcg", [f"{low:.3f} to {high:.3f}" for low, high in low_high])
    return table


def similar_movies(
    model: FactorModel, data: MovieLens, title: str, N: int = 10, items: ArrayLike | None = None
) -> pd.DataFrame:
    """The N movies nearest to ``title`` (among ``items``), by cosine and by Euclidean distance side by side."""
    itemid, columns = data.itemid(title), {}
    for metric, sign in (("cosine", 1), ("l2", -1)):
        ids, values = model.similar_items(itemid, N, filter_items=[itemid], items=items, metric=metric)
        columns[f"by {metric}"] = data.movies["title"].loc[ids].to_list()
        columns[metric] = (sign * values).round(3)
    return pd.DataFrame(columns, index=pd.RangeIndex(1, len(ids) + 1, name=title))


def nearest_movies(
    model: FactorModel, data: MovieLens, titles: Sequence[str] = FILMS, N: int = 3, items: ArrayLike | None = None
) -> pd.DataFrame:
    """The N movies nearest to each of ``titles``: a row by cosine and a row by Euclidean distance."""
    tables = {title: similar_movies(model, data, title, N, items) for title in titles}
    rows = {(title, metric): table[f"by {metric}"] for title, table in tables.items() for metric in ("cosine", "l2")}
    return pd.DataFrame(rows).T


def similarity(models: dict[str, FactorModel], data: MovieLens, likes: sp.csr_matrix, least: int = 20) -> pd.DataFrame:
    """The two numbers of ``similarity_quality``, by cosine and by Euclidean distance, for each model.

    ``likes`` (U x I) says which movies are judged: those with at least ``least`` of them.
    """
    items = np.flatnonzero(np.diff(likes.tocsc().indptr) >= least)
    rows = {
        name: {
            f"{what}, {metric}": value
            for metric in ("cosine", "l2")
            for what, value in similarity_quality(model, data.movies, items, metric).items()
        }
        for name, model in models.items()
    }
    return pd.DataFrame(rows).T.round(3)


def liked_movies(data: MovieLens, likes: sp.csr_matrix, userid: int, N: int = 10) -> pd.DataFrame:
    """N of the movies that ``likes`` (U x I) holds for a user, with title and genres, best rated first."""
    ids = likes[userid].indices
    stars = data.ratings[userid].toarray()[0][ids].astype(int)
    table = data.movies.loc[ids, ["title", "genres"]].assign(stars=stars)
    return table.sort_values("stars", ascending=False, kind="stable").head(N).reset_index(drop=True)


def recommended_movies(
    model: FactorModel, data: MovieLens, user_items: sp.csr_matrix, userid: int, N: int = 10
) -> pd.DataFrame:
    """The N recommendations for a user who has ``user_items`` (U x I), with title, genres and score."""
    ids, scores = model.recommend(userid, user_items[userid], N)
    return data.movies.loc[ids, ["title", "genres"]].assign(score=scores.round(3)).reset_index(drop=True)


def export_projector(model: FactorModel, data: MovieLens, folder: str | os.PathLike) -> None:
    """Write the item factors, with titles and genres, for the embedding projector of TensorBoard.

    They are in ``folder`` / class name, whole or not at all, in place of an earlier export;
    ``tensorboard --logdir folder`` shows them.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes a second, which only this function should cost

    name, folder = type(model).__name__, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        with SummaryWriter(new) as writer:
            labels = data.movies[["title", "genres"]].to_numpy().tolist()
            writer.add_embedding(model.item_factors, labels, metadata_header=["title", "genres"], tag="items")
        if (folder / name).exists():
            (folder / name).rename(old)
        new.rename(folder / name)


class Explorer(widgets.VBox):
    """Type a part of a title and choose a movie: its neighbours. Type the number of a user: history, recommendations.

    ``user_items`` (U x I) is what the users are known to have. Users have the numbers of the data set's files.
    """

    def __init__(self, model: FactorModel, data: MovieLens, user_items: sp.csr_matrix):
        self.model, self.data, self.user_items = model, data, user_items
        self.search = widgets.Text(value="Toy Story", description="title")
        self.movie = widgets.Dropdown(description="movie", layout={"width": "30em"})
        self.user = widgets.IntText(value=data.user_ids[data.example_user()], description="user")
        self.neighbours, self.profile = widgets.HTML(), widgets.HTML()
        self.search.observe(self._find, "value")
        self.movie.observe(self._look_around, "value")
        self.user.observe(self._look_at_user, "value")
        super().__init__([self.search, self.movie, self.neighbours, self.user, self.profile])
        self._find()
        self._look_at_user()

    def _find(self, change: object = None) -> None:
        titles = self.data.movies["title"]
        found = titles[titles.str.contains(self.search.value.strip(), case=False, regex=False)].head(50)
        self.movie.options = [(title, itemid) for itemid, title in found.items()]
        if found.empty:
            self.neighbours.value = f"<p>No title contains “{html.escape(self.search.value)}”: try a part of it.</p>"
        else:
            self.movie.index = 0

    def _look_around(self, change: object = None) -> None:
        if self.movie.value is not None:
            ids, cosines = self.model.similar_items(self.movie.value, 10, filter_items=[self.movie.value])
            table = self.data.movies.loc[ids, ["title", "genres"]].assign(cosine=cosines.round(3))
            self.neighbours.value = _html(table)

    def _look_at_user(self, change: object = None) -> None:
        if self.user.value not in self.data.user_ids:
            first, last = self.data.user_ids[[0, -1]]
            self.profile.value = f"<p>There is no user {self.user.value}: the numbers go from {first} to {last}.</p>"
            return
        userid = self.data.userid(self.user.value)
        liked = _html(liked_movies(self.data, self.user_items, userid))
        recommended = _html(recommended_movies(self.model, self.data, self.user_items, userid))
        self.profile.value = f"<p>Known of this user:</p>{liked}<p>Recommended:</p>{recommended}"


def _html(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0).replace("<th>", '<th style="text-align: left">')
