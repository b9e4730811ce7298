"""What more than one notebook shows: learning curves, similar movies, a user's likes and recommendations."""

import matplotlib.pyplot as plt
import pandas as pd
import scipy.sparse as sp

from mflib.data import MovieLens
from mflib.model import FactorModel

# One colour per model in all figures, from the colour-blind-safe palette of Okabe and Ito.
COLORS = {"SVD": "#0072B2", "ALS": "#D55E00", "BPR": "#009E73", "WARP": "#CC79A7", "Popularity": "#666666"}


def learning_curve(model: FactorModel, curve: pd.DataFrame, baseline: float, label: str) -> plt.Figure:
    """Training loss per iteration (left) and a held-out metric with a horizontal baseline (right).

    ``curve``: index iteration (from 1), one column, named as the metric; ``label`` names the baseline.
    """
    name, color = type(model).__name__, COLORS[type(model).__name__]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot([h["iteration"] + 1 for h in model.history], [h["loss"] for h in model.history], color=color)
    left.set(xlabel="iteration", ylabel="training loss", title=f"{name} on the training data")
    right.plot(curve.index, curve.iloc[:, 0], color=color, marker="o", markersize=3, label=name)
    right.axhline(baseline, color=COLORS["Popularity"], linestyle="--", label=label)
    right.set(xlabel="iteration", ylabel=curve.columns[0], title=f"{name} on held-out data")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def similar_movies(model: FactorModel, data: MovieLens, title: str, N: int = 10) -> pd.DataFrame:
    """The N movies nearest to ``title``, by cosine and by Euclidean distance side by side."""
    itemid, columns = data.itemid(title), {}
    for metric, sign in (("cosine", 1), ("l2", -1)):
        ids, values = model.similar_items(itemid, N, filter_items=[itemid], metric=metric)
        columns[f"by {metric}"] = data.movies["title"].loc[ids].to_list()
        columns[metric] = (sign * values).round(3)
    return pd.DataFrame(columns, index=pd.RangeIndex(1, len(ids) + 1, name=title))


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
