"""What more than one notebook shows: figures, tables, the displayed kernels, the projector's files, the explorer."""

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
from IPython.display import Markdown, display

from mflib.data import MovieLens
from mflib.metrics import bootstrap_interval, similarity_quality
from mflib.model import FactorModel, Ids

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
    """Training loss; a held-out metric (``curve``: index iteration from 1, one column) beside a labelled baseline."""
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
    """What ``ranking_metrics`` returned for each model -> its means, with the 95 % bootstrap interval of NDCG."""
    rows = {name: per_user.mean() for name, per_user in metrics.items()}
    table = pd.DataFrame(rows).T[["ndcg", "precision", "recall", "map", "auc"]].round(3)
    low_high = [bootstrap_interval(per_user["ndcg"]) for per_user in metrics.values()]
    table.insert(1, "95 % interval of ndcg", [f"{low:.3f} to {high:.3f}" for low, high in low_high])
    return table


def similar_movies(model: FactorModel, data: MovieLens, title: str, N: int = 10, items: Ids = None) -> pd.DataFrame:
    """The N movies nearest to ``title`` (among ``items``), by cosine and by Euclidean distance side by side."""
    itemid, columns = data.itemid(title), {}
    for metric, sign in (("cosine", 1), ("l2", -1)):
        ids, values = model.similar_items(itemid, N, filter_items=[itemid], items=items, metric=metric)
        columns[f"by {metric}"] = data.movies["title"].loc[ids].to_list()
        columns[metric] = (sign * values).round(3)
    return pd.DataFrame(columns, index=pd.RangeIndex(1, len(ids) + 1, name=title))


def nearest_movies(
    model: FactorModel, data: MovieLens, titles: Sequence[str] = FILMS, N: int = 3, items: Ids = None
) -> pd.DataFrame:
    """The N movies nearest to each of ``titles``: a row by cosine and a row by Euclidean distance."""
    tables = {title: similar_movies(model, data, title, N, items) for title in titles}
    rows = {(title, metric): table[f"by {metric}"] for title, table in tables.items() for metric in ("cosine", "l2")}
    return pd.DataFrame(rows).T


def similarity(models: dict[str, FactorModel], data: MovieLens, likes: sp.csr_matrix, least: int = 20) -> pd.DataFrame:
    """``similarity_quality`` by both metrics for each model, of the movies with ``least`` or more ``likes`` (U x I)."""
    items = np.flatnonzero(likes.getnnz(0) >= least)
    rows = {name: similarity_quality(model, data.movies, items) for name, model in models.items()}
    return pd.DataFrame(rows).T.round(3)


def liked_movies(data: MovieLens, likes: sp.csr_matrix, userid: int, N: int = 10) -> pd.DataFrame:
    """N of the movies that ``likes`` (U x I) holds for a user, with title and genres, best rated first."""
    ids = likes[userid].indices
    table = data.movies.loc[ids, ["title", "genres"]].assign(stars=data.ratings[userid, ids].toarray()[0].astype(int))
    return table.sort_values("stars", ascending=False, kind="stable").head(N).reset_index(drop=True)


def recommended_movies(
    model: FactorModel, data: MovieLens, known: sp.csr_matrix, userid: int, N: int = 10
) -> pd.DataFrame:
    """The N recommendations for a user who has what ``known`` (U x I) holds, with title, genres and score."""
    ids, scores = model.recommend(userid, known[userid], N)
    return data.movies.loc[ids, ["title", "genres"]].assign(score=scores.round(3)).reset_index(drop=True)


def export_projector(model: FactorModel, data: MovieLens, folder: str | os.PathLike) -> None:
    """Write the item factors, with titles and genres, for TensorBoard's projector (``--logdir folder``), into
    ``folder`` / class name: whole or not at all, in place of an earlier export."""
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


def explorer(model: FactorModel, data: MovieLens, likes: sp.csr_matrix, least: int = 20) -> widgets.interactive:
    """Type a title: the movie's neighbours, among those with ``least`` or more of ``likes`` (U x I). Type the
    number of a user, as in the files: what ``likes`` holds of that user, and recommendations."""
    often = np.flatnonzero(likes.getnnz(0) >= least)

    def look(movie: str, user: int) -> None:
        try:
            userid, nearest = data.userid(user), similar_movies(model, data, movie, items=often)
        except KeyError as unknown:
            print(unknown.args[0])
        else:
            display(nearest, liked_movies(data, likes, userid), recommended_movies(model, data, likes, userid))

    movie = widgets.Combobox(value=FILMS[0], options=data.movies["title"].tolist(), description="movie")
    user = widgets.IntText(value=data.user_ids[data.example_user()], description="user")
    return widgets.interactive(look, movie=movie, user=user)
