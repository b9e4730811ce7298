"""How good similar movies are: series of titles, agreement of genres."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mflib.matrices import Ids, as_ids
from mflib.model import FactorModel
from mflib.parameters import size
from mflib.ranking import Metric

ARTICLE = r", (the|a|an|le|la|les|das|der|die)$"
NUMBER = r" (part )?([2-9]|1\d|i{1,3}|iv|v|vi{1,3}|ix|x)( 1/2)?$"


def series_of(titles: pd.Series) -> np.ndarray:
    """The series that each movie belongs to.

    A title loses its parentheses (the year), article, all from the first colon on, and a number at
    the end (2, III, Part II). Movies of which the same is left, but for a plural s, are a series if
    one of them had a colon or a number.

    Parameters
    ----------
    titles
        n titles.

    Returns
    -------
    int64, n: the same number for the movies of a series; -1 for those of none.
    """
    whole = titles.str.lower().str.replace(r"\s*\([^)]*\)", "", regex=True)
    whole = whole.str.replace(ARTICLE, "", regex=True)
    stem = whole.str.replace(r":.*", "", regex=True).str.replace(ARTICLE, "", regex=True)
    stem = stem.str.replace(NUMBER, "", regex=True)
    singular = stem.str.removesuffix("s")
    stem = singular.where(singular.isin(stem), stem)
    shortened = stem.str.len() + 1 < whole.str.len()
    found = stem.duplicated(keep=False) & shortened.groupby(stem).transform("any")
    return np.where(found, pd.factorize(stem)[0], -1)


def similarity_quality(
    model: FactorModel,
    movies: pd.DataFrame,
    items: Ids,
    metrics: Sequence[Metric] = ("cosine", "l2"),
    N: int = 10,
) -> dict[str, float]:
    """How well the nearest of some movies, among these, agree with what the data say of them.

    Parameters
    ----------
    model
        A fitted model.
    movies
        A row for each item of the model: title, genres (separated by "|").
    items
        Ids of n movies, at least two.
    metrics
        Those of ``similar_items``.
    N
        How many neighbours are looked at; there are no more than n - 1.

    Returns
    -------
    For each of ``metrics``

    - "genres, …": the mean share of common genres (Jaccard) of a movie and its neighbours;
    - "series, …": of the others of a movie's series (see ``series_of``), the share among its
      neighbours, mean over the movies that have a series; NaN if none has.

    Raises
    ------
    ValueError
        There are fewer than two movies.
    """
    items = np.unique(as_ids(items, "item", len(movies)))
    if len(items) < 2:
        raise ValueError(f"expected at least two movies to be neighbours, got {len(items)}")
    N = min(size("N", N), len(items) - 1)
    genres = movies["genres"].str.get_dummies("|").to_numpy(bool)  # I x genres
    series = np.full(len(movies), -1)
    series[items] = series_of(movies["title"].iloc[items])
    own, in_series = genres[items][:, None], series[items] >= 0
    others_in_series = np.bincount(series[items][in_series])[series[items][in_series]] - 1
    quality = {}
    for metric in metrics:
        nearest, _ = model.similar_items(items, N + 1, items=items, metric=metric)
        others = nearest != items[:, None]
        others[others.all(1), -1] = False  # equals have pushed it off its own list
        nearest = nearest[others].reshape(len(items), N)
        both, either = own & genres[nearest], own | genres[nearest]  # n x N x genres
        hits = (series[nearest] == series[items][:, None]).sum(1)[in_series]
        found = (hits / others_in_series).mean() if in_series.any() else np.nan
        quality[f"genres, {metric}"] = float((both.sum(2) / np.maximum(either.sum(2), 1)).mean())
        quality[f"series, {metric}"] = float(found)
    return quality
