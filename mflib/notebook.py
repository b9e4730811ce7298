"""What notebooks show besides figures: tables, displayed kernels, the projector, widgets."""

import copy
import inspect
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
import scipy.sparse as sp
from IPython import get_ipython
from IPython.display import Markdown, display

from mflib.als import ALS
from mflib.data import MovieLens
from mflib.inputs import Ids
from mflib.metrics import bootstrap_interval
from mflib.model import FactorModel
from mflib.ranking import Metric
from mflib.metrics import similarity_quality

FILMS = ("Toy Story", "Blade Runner", "Aliens", "Cinema Paradiso", "Hoop Dreams")  # in both sets
HEADS = {
    "ndcg": "NDCG@10",
    "precision": "precision@10",
    "recall": "recall@10",
    "map": "MAP@10",
    "auc": "AUC",
}
METRICS: tuple[Metric, Metric] = ("cosine", "l2")


def source(*functions: Callable) -> Markdown:
    """The code of functions of the package, as it is run."""
    return Markdown("```python\n" + "\n\n".join(map(inspect.getsource, functions)) + "```")


def set_up() -> None:
    """Show titles whole and figures at twice the resolution."""
    pd.set_option("display.max_colwidth", None)
    if shell := get_ipython():
        shell.run_line_magic("config", 'InlineBackend.figure_format = "retina"')


def judged(metrics: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The means of what ``ranking_metrics`` returned for each model, by name, with N = 10.

    Beside NDCG@10 stands its 95 % bootstrap interval.
    """
    means = pd.DataFrame({name: per_user.mean() for name, per_user in metrics.items()}).T
    table = means[list(HEADS)].rename(columns=HEADS).round(3)
    intervals = [bootstrap_interval(per_user["ndcg"]) for per_user in metrics.values()]
    table.insert(1, "95 % interval", [f"{low:.3f} to {high:.3f}" for low, high in intervals])
    return table


def similar_movies(
    model: FactorModel, data: MovieLens, title: str, N: int = 10, items: Ids | None = None
) -> pd.DataFrame:
    """The N movies nearest to ``title``, by cosine and by Euclidean distance side by side.

    With ``items`` (ids), only these movies are candidates.
    """
    itemid = data.itemid(title)
    columns: dict[str, object] = {}
    for metric in METRICS:
        ids, values = model.similar_items(
            itemid, N, filter_items=[itemid], items=items, metric=metric
        )
        columns[f"by {metric}"] = data.movies["title"].loc[ids].to_list()
        columns[metric] = (values if metric == "cosine" else -values).round(3)
    return pd.DataFrame(columns, index=pd.RangeIndex(1, len(ids) + 1, name=title))


def nearest_movies(
    model: FactorModel,
    data: MovieLens,
    titles: Sequence[str] = FILMS,
    N: int = 3,
    items: Ids | None = None,
) -> pd.DataFrame:
    """The N movies nearest to each title: a row by cosine and a row by Euclidean distance."""
    rows = {}
    for title in titles:
        table = similar_movies(model, data, title, N, items)
        for metric in METRICS:
            rows[title, metric] = table[f"by {metric}"]
    return pd.DataFrame(rows).T


def similarity(
    models: dict[str, FactorModel], data: MovieLens, likes: sp.csr_matrix, least: int = 20
) -> pd.DataFrame:
    """``similarity_quality`` of each model for the movies with ``least`` or more likes (U x I)."""
    items = np.flatnonzero(likes.getnnz(0) >= least)
    rows = {name: similarity_quality(model, data.movies, items) for name, model in models.items()}
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def liked_movies(data: MovieLens, likes: sp.csr_matrix, userid: int, N: int = 10) -> pd.DataFrame:
    """N of the movies that ``likes`` (U x I) holds for a user, best rated first."""
    ids = likes[userid].indices
    stars = data.ratings[userid, ids].toarray()[0]
    stars = stars.astype(int) if (stars % 1 == 0).all() else stars  # half stars stay halves
    table = data.movies.loc[ids, ["title", "genres"]].assign(stars=stars)
    return _ranked(table.sort_values("stars", ascending=False, kind="stable").head(N))


def recommended_movies(
    model: FactorModel, data: MovieLens, known: sp.csr_matrix, userid: int, N: int = 10
) -> pd.DataFrame:
    """The N recommendations for a user who has what ``known`` (U x I) holds, with scores."""
    ids, scores = model.recommend(userid, known[userid], N)
    return _ranked(data.movies.loc[ids, ["title", "genres"]].assign(score=scores.round(3)))


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index(pd.RangeIndex(1, len(table) + 1))


def export_projector(model: FactorModel, data: MovieLens, folder: str | os.PathLike) -> None:
    """Write the item factors, with titles and genres, for TensorBoard's projector.

    They go into ``folder`` / class name, whole or not at all, in place of an earlier export; look
    with ``tensorboard --logdir folder``.
    """
    from torch.utils.tensorboard import SummaryWriter  # a second that only this function costs

    name, folder = type(model).__name__, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        header = ["title", "genres"]
        with SummaryWriter(new) as writer:
            labels = data.movies[header].to_numpy().tolist()
            writer.add_embedding(model.item_factors, labels, metadata_header=header, tag="items")
        if (folder / name).exists():
            (folder / name).rename(old)
        new.rename(folder / name)


def explorer(
    model: FactorModel, data: MovieLens, likes: sp.csr_matrix, least: int = 20
) -> widgets.interactive:
    """Type a title: the movie's neighbours. Type a user: their history and recommendations.

    Neighbours are looked for among the movies with ``least`` or more ``likes`` (U x I); users have
    the numbers of the files.
    """
    often = np.flatnonzero(likes.getnnz(0) >= least)

    def look(movie: str, user: int) -> None:
        try:
            userid, nearest = data.userid(user), similar_movies(model, data, movie, items=often)
        except KeyError as unknown:
            print(unknown.args[0])
        else:
            history = liked_movies(data, likes, userid)
            display(nearest, history, recommended_movies(model, data, likes, userid))

    titles = data.movies["title"].tolist()
    movie = widgets.Combobox(value=FILMS[0], options=titles, description="movie")
    user = widgets.IntText(value=data.user_ids[data.example_user()], description="user")
    return widgets.interactive(look, movie=movie, user=user)


def be_the_user(model: ALS, data: MovieLens) -> widgets.interactive:
    """Type titles that you like: your recommendations, each with the two likes that speak for it.

    alpha and lambda are those of your own system, which a copy of the model solves: nothing is
    trained again, and the movies keep their factors.
    """
    titles = data.movies["title"].tolist()

    def answer(alpha: float, regularization: float, **typed: str) -> None:
        try:
            liked = sorted({data.itemid(title) for title in typed.values() if title.strip()})
        except KeyError as unknown:
            print(unknown.args[0])
            return
        if not liked:
            print("Type the title of a movie that you like.")
            return
        row = sp.csr_matrix((np.ones(len(liked)), ([0] * len(liked), liked)), (1, len(titles)))
        yours = copy.copy(model)
        yours.alpha, yours.regularization = alpha, regularization
        ids, scores = yours.recommend(0, row, recalculate_user=True)
        reasons = []
        for itemid in ids:
            _, shares = yours.explain(0, row, itemid, N=2)
            reasons.append(", ".join(f"{titles[j]} ({share:.2f})" for j, share in shares))
        table = data.movies.loc[ids, ["title"]].assign(score=scores.round(2))
        display(_ranked(table.assign(**{"because you like (share)": reasons})))

    films = [*FILMS[1:3], "", ""]
    boxes = {
        f"movie_{n}": widgets.Combobox(value=film, options=titles, description=f"movie {n}")
        for n, film in enumerate(films, 1)
    }
    alpha = widgets.FloatSlider(model.alpha, min=0, max=40, step=1, description="α")
    regularization = widgets.FloatLogSlider(model.regularization, min=-1, max=3, description="λ")
    return widgets.interactive(answer, **boxes, alpha=alpha, regularization=regularization)
