"""Rating errors, per-user ranking metrics, catalogue coverage, quality of similar items."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike

from mflib.inputs import (
    Ids,
    Seed,
    UserItems,
    as_csr,
    as_ids,
    positive_int,
    seed_of,
    share,
    transposed_hint,
)
from mflib.model import FactorModel
from mflib.ranking import Metric
from mflib.sparse import row_blocks
from mflib.training import thread_pool

ARTICLE = r", (the|a|an|le|la|les|das|der|die)$"
NUMBER = r" (part )?([2-9]|1\d|i{1,3}|iv|v|vi{1,3}|ix|x)( 1/2)?$"


def rmse(estimates: ArrayLike, ratings: ArrayLike) -> float:
    """Return the root mean squared error of n >= 1 estimates, in stars."""
    return float(np.sqrt(np.mean(_errors(estimates, ratings) ** 2)))


def mae(estimates: ArrayLike, ratings: ArrayLike) -> float:
    """Return the mean absolute error of n >= 1 estimates, in stars."""
    return float(np.mean(np.abs(_errors(estimates, ratings))))


def _errors(estimates: ArrayLike, ratings: ArrayLike) -> np.ndarray:
    """Return estimates - ratings; raise ValueError unless they have the same non-empty shape."""
    estimates, ratings = np.asarray(estimates, np.float64), np.asarray(ratings, np.float64)
    if estimates.shape != ratings.shape:  # numpy would broadcast
        got = f"shapes {estimates.shape} and {ratings.shape}"
        raise ValueError(f"expected as many estimates as ratings, got {got}")
    if not ratings.size:
        raise ValueError("expected at least one rating to compare with, got none")
    return estimates - ratings


def ranking_metrics(
    model: FactorModel, train: UserItems, test: UserItems, N: int = 10
) -> pd.DataFrame:
    """Evaluate how high a model ranks the items of ``test`` among all items not in ``train``.

    Use ``.mean()`` of the result for the usual averages over users. Ties count against the model: a
    test item is ranked below all other items with the same score.

    Parameters
    ----------
    model : FactorModel
        A fitted model of U users and I items.
    train, test : scipy sparse matrices, shape (U, I)
        Without common entries; only positive entries of ``test`` count.
    N : int
        The length of the list.

    Returns
    -------
    DataFrame
        A row for each user with at least one positive test entry, indexed by user id. A *hit* is a
        test item among the first N.

        - precision: number of hits / N;
        - recall: number of hits / number of test items;
        - ndcg: sum of 1 / log2(1 + rank) over the hits, divided by its maximum;
        - map: sum over the hits of the precision up to their rank, divided by min(N, number of test
          items);
        - auc: the share of pairs (test item, other item) in the right order; 0.5 without pairs.

    Raises
    ------
    ValueError
        The shapes are not the model's, an entry is in both matrices, ``test`` has no positive
        entry, or N is not a whole number >= 1.
    """
    N = positive_int("N", N)
    known, wanted = as_csr(train), as_csr(test) > 0
    _check_shape(model, known, "train")
    _check_shape(model, wanted, "test")
    if known.multiply(wanted).nnz:
        got = "an overlap: test items have leaked"
        raise ValueError(f"expected train and test without common entries, got {got}")
    if not wanted.nnz:
        raise ValueError("expected positive entries in test, got none")
    users = np.flatnonzero(np.diff(wanted.indptr))
    blocks = [users[block] for block in row_blocks(len(users), numbers_per_row=wanted.shape[1])]

    def evaluate(block: np.ndarray) -> pd.DataFrame:
        return _evaluate(model, block, known[block], wanted[block], N)

    with thread_pool() as threads:  # numpy releases the interpreter lock while it sorts
        return pd.concat(threads.map(evaluate, blocks))


def _check_shape(model: FactorModel, matrix: sp.csr_matrix, name: str) -> None:
    """Raise ValueError unless the matrix has the shape of the fitted model."""
    fitted = (len(model._factors("user")), len(model._factors("item")))
    if matrix.shape != fitted:
        got = f"{matrix.shape}{transposed_hint(matrix.shape, fitted, fitted)}"
        raise ValueError(f"expected {name} of the model's shape {fitted}, got {got}")


def _evaluate(
    model: FactorModel, users: np.ndarray, known: sp.csr_matrix, wanted: sp.csr_matrix, N: int
) -> pd.DataFrame:
    """Return the metrics of B users, given their rows of both matrices, shape (B, I)."""
    n_rows, n_items = wanted.shape
    scores = model.scores(users).cpu().numpy()  # B x I
    if np.isnan(scores).any():  # numpy sorts NaN last, which would look like a rank
        raise ValueError("expected finite factors, got NaN: have they been changed since fit?")
    count = np.diff(wanted.indptr).astype(np.int64)  # B; int32 would not hold count * others
    rows = np.repeat(np.arange(n_rows), count)
    test_scores = np.full((n_rows, count.max()), -np.inf, scores.dtype)  # padded with -inf
    test_scores[rows, np.arange(len(rows)) - wanted.indptr[rows]] = scores[rows, wanted.indices]
    test_scores = -np.sort(-test_scores, axis=1)
    scores[rows, wanted.indices] = -np.inf
    scores[known.nonzero()] = -np.inf
    scores.sort(axis=1)
    # The number of items, neither in train nor in test, that score at least as high.
    ahead = np.stack(
        [n_items - np.searchsorted(*pair) for pair in zip(scores, test_scores, strict=True)]
    )
    place = np.arange(1, test_scores.shape[1] + 1)  # rank among the user's test items
    real = place <= count[:, None]
    rank = ahead + place
    hit = real & (rank <= N)
    ideal = np.cumsum(1 / np.log2(1 + np.arange(1, N + 1)))[np.minimum(N, count) - 1]
    n_others = n_items - count - np.diff(known.indptr)
    wrong = (ahead * real).sum(1) / np.maximum(count * n_others, 1)
    metrics = {
        "precision": hit.sum(1) / N,
        "recall": hit.sum(1) / count,
        "ndcg": (hit / np.log2(1 + rank)).sum(1) / ideal,
        "map": (hit * place / rank).sum(1) / np.minimum(N, count),
        "auc": np.where(n_others > 0, 1 - wrong, 0.5),
    }
    return pd.DataFrame(metrics, index=pd.Index(users, name="user"))


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, random_state: Seed = 0
) -> tuple[float, float]:
    """Return the bootstrap percentile interval of a mean over users (Efron 1979).

    Parameters
    ----------
    values : array, shape (n,)
        One value per user: a metric, or the difference of two models in a metric.
    confidence : float
        The share of 1,000 resampled means inside the interval.
    random_state : int, numpy generator or None

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        There are no values, one is NaN, or ``confidence`` is not between 0 and 1.
    """
    values, rng = np.asarray(values, np.float64), np.random.default_rng(seed_of(random_state))
    if values.ndim != 1 or not values.size or np.isnan(values).any():
        got = f"shape {values.shape} with {np.isnan(values).sum()} NaN"
        raise ValueError(f"expected a 1-D array with one value per user, got {got}")
    confidence = share("confidence", confidence)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(1000)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high


def catalogue(model: FactorModel, train: UserItems, N: int = 10) -> dict[str, float]:
    """Describe the N recommendations for all users: catalogue coverage and mean popularity.

    Parameters
    ----------
    model : FactorModel
        A fitted model of U users and I items.
    train : scipy sparse matrix, shape (U, I)
        The users' interactions, which are not recommended.
    N : int

    Returns
    -------
    dict
        "coverage", the share of all items recommended to at least one user, and "popularity", the
        mean number of training interactions of a recommended item.

    Raises
    ------
    ValueError
        The shape is not the model's, or nothing is left to recommend.
    """
    known = as_csr(train)
    _check_shape(model, known, "train")
    ids, _ = model.recommend(np.arange(known.shape[0]), known, N)
    shown = ids[ids >= 0]
    if not shown.size:
        raise ValueError("expected an unknown item for at least one user, got nothing to recommend")
    count = np.bincount(known.indices, minlength=known.shape[1])
    coverage = len(np.unique(shown)) / known.shape[1]
    return {"coverage": coverage, "popularity": float(count[shown].mean())}


def series_of(titles: pd.Series) -> np.ndarray:
    """Return the film series of each movie, inferred from the titles.

    A title is reduced to a stem: without parentheses (the year), its article, everything from the
    first colon on, and a number at the end (2, III, Part II). Movies whose stems are equal up to a
    plural s form a series if at least one of them had a colon or a number.

    Parameters
    ----------
    titles : Series of n titles

    Returns
    -------
    int64 array, shape (n,)
        The same number for the movies of a series; -1 for movies outside any series.
    """
    whole = titles.str.lower().str.replace(r"\s*\([^)]*\)", "", regex=True)
    whole = whole.str.replace(ARTICLE, "", regex=True)
    stem = whole.str.replace(r":.*", "", regex=True).str.replace(ARTICLE, "", regex=True)
    stem = stem.str.replace(NUMBER, "", regex=True)
    singular = stem.str.removesuffix("s")
    stem = singular.where(singular.isin(stem), stem)
    shortened = stem.str.len() + 1 < whole.str.len()
    in_series = stem.duplicated(keep=False) & shortened.groupby(stem).transform("any")
    return np.where(in_series, pd.factorize(stem)[0], -1)


def similarity_quality(
    model: FactorModel,
    movies: pd.DataFrame,
    items: Ids,
    metrics: Sequence[Metric] = ("cosine", "l2"),
    N: int = 10,
) -> dict[str, float]:
    """Measure how well the nearest neighbours among some movies agree with genres and series.

    Parameters
    ----------
    model : FactorModel
        A fitted model.
    movies : DataFrame
        A row for each item of the model: title, genres (separated by "|").
    items : ids
        At least two movies; only these are neighbours.
    metrics : sequence
        See ``similar_items``.
    N : int
        The number of neighbours, at most the number of other movies.

    Returns
    -------
    dict
        For each of ``metrics``

        - "genres, …": the mean Jaccard similarity of the genres of a movie and its neighbours;
        - "series, …": the share of the other movies of a movie's series (see ``series_of``) that
          are among its neighbours, averaged over the movies in a series; NaN if there are none.

    Raises
    ------
    ValueError
        There are fewer than two movies.
    """
    items = np.unique(as_ids(items, "item", len(movies)))
    if len(items) < 2:
        raise ValueError(f"expected at least two movies to compare, got {len(items)}")
    N = min(positive_int("N", N), len(items) - 1)
    genres = movies["genres"].str.get_dummies("|").to_numpy(bool)  # I x genres
    series = np.full(len(movies), -1)
    series[items] = series_of(movies["title"].iloc[items])
    item_genres, in_series = genres[items][:, None], series[items] >= 0
    others_in_series = np.bincount(series[items][in_series])[series[items][in_series]] - 1
    quality = {}
    for metric in metrics:
        nearest, _ = model.similar_items(items, N + 1, items=items, metric=metric)
        nearest = nearest[:, 1:]  # without the movie itself, which comes first
        both = item_genres & genres[nearest]  # n x N x genres
        either = item_genres | genres[nearest]
        hits = (series[nearest] == series[items][:, None]).sum(1)[in_series]
        share_found = (hits / others_in_series).mean() if in_series.any() else np.nan
        quality[f"genres, {metric}"] = float((both.sum(2) / np.maximum(either.sum(2), 1)).mean())
        quality[f"series, {metric}"] = float(share_found)
    return quality
