"""How good a model is: errors of ratings, and per-user ranking metrics on held-out items."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike

from mflib.model import BLOCK, FactorModel, as_csr

ARTICLE = r", (the|a|an|le|la|les|das|der|die)$"


def rmse(estimates: ArrayLike, ratings: ArrayLike) -> float:
    """Root mean squared error, in stars; both n."""
    return float(np.sqrt(np.mean((np.asarray(estimates, np.float64) - np.asarray(ratings, np.float64)) ** 2)))


def mae(estimates: ArrayLike, ratings: ArrayLike) -> float:
    """Mean absolute error, in stars; both n."""
    return float(np.mean(np.abs(np.asarray(estimates, np.float64) - np.asarray(ratings, np.float64))))


def ranking_metrics(model: FactorModel, train: sp.spmatrix, test: sp.spmatrix, N: int = 10) -> pd.DataFrame:
    """Rank all items but those of ``train`` and see where those of ``test`` stand; take ``.mean()`` of it.

    ``train``, ``test``: scipy sparse, U x I, without a common cell (ValueError); only positive cells of ``test`` count.
    A row for each user with at least one of them, float64, indexed by user id:

    - precision: hits among the first N, divided by N;
    - recall: hits among the first N, divided by the number of test items;
    - ndcg: sum of 1 / log2(1 + rank) over the hits among the first N, divided by its maximum;
    - map: mean over the ranks of the hits of the precision up to there, divided by min(N, test items);
    - auc: share of the pairs (test item, other item) in the right order; .5 where there is no pair.

    Ties count against the model: a test item ranks behind all other items of the same score.
    """
    train, test = as_csr(train), as_csr(test) > 0
    if train.shape != test.shape or train.shape != (len(model.user_factors), len(model.item_factors)):
        raise ValueError(f"expected train and test of the model's shape, got {train.shape} and {test.shape}")
    if train.multiply(test).nnz:
        raise ValueError("expected train and test without a common cell, got an overlap: test items have leaked")
    if N < 1 or not test.nnz:
        raise ValueError(f"expected N of at least 1 and positive cells in test, got N = {N} and {test.nnz} cells")
    users = np.flatnonzero(np.diff(test.indptr))
    size = max(1, BLOCK // test.shape[1])
    blocks = [users[start : start + size] for start in range(0, len(users), size)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy sorts without holding the interpreter
        return pd.concat(pool.map(lambda block: _evaluate(model, block, train[block], test[block], N), blocks))


def _evaluate(model: FactorModel, users: np.ndarray, train: sp.csr_matrix, test: sp.csr_matrix, N: int) -> pd.DataFrame:
    n_users, n_items = test.shape
    scores = model.scores(torch.from_numpy(users).to(model.device)).cpu().numpy()  # B x I
    count = np.diff(test.indptr)  # B
    rows = np.repeat(np.arange(n_users), count)
    own = np.full((n_users, count.max()), -np.inf, scores.dtype)  # scores of the test items, padded
    own[rows, np.arange(len(rows)) - test.indptr[rows]] = scores[rows, test.indices]
    own = -np.sort(-own, axis=1)
    scores[rows, test.indices] = -np.inf
    scores[train.nonzero()] = -np.inf
    scores.sort(axis=1)
    # ahead: how many items that are neither known nor to be found score at least as high
    ahead = np.stack([n_items - np.searchsorted(*pair) for pair in zip(scores, own, strict=True)])
    place = np.arange(1, own.shape[1] + 1)  # the place among the user's test items, best first
    real = place <= count[:, None]
    rank = ahead + place
    hit = real & (rank <= N)
    best = np.cumsum(1 / np.log2(1 + np.arange(1, N + 1)))[np.minimum(N, count) - 1]
    others = n_items - count - np.diff(train.indptr)
    wrong = (ahead * real).sum(1) / np.maximum(count * others, 1)
    metrics = {
        "precision": hit.sum(1) / N,
        "recall": hit.sum(1) / count,
        "ndcg": (hit / np.log2(1 + rank)).sum(1) / best,
        "map": (hit * place / rank).sum(1) / np.minimum(N, count),
        "auc": np.where(others > 0, 1 - wrong, 0.5),
    }
    return pd.DataFrame(metrics, index=pd.Index(users, name="user"))


def bootstrap_interval(values: ArrayLike, confidence: float = 0.95, random_state: int = 0) -> tuple[float, float]:
    """The percentile interval of the mean of ``values`` (n: per user, or the difference of two models per user) when
    the users are drawn anew, 1,000 times (Efron 1979)."""
    values, rng = np.asarray(values, np.float64), np.random.default_rng(random_state)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(1000)]
    return tuple(np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist())


def catalogue(model: FactorModel, train: sp.spmatrix, N: int = 10) -> dict[str, float]:
    """What the N recommendations for all users are made of: coverage, the share of all items that anybody is
    recommended, and popularity, the mean number of training interactions of a recommended item."""
    train = as_csr(train)
    ids, _ = model.recommend(np.arange(train.shape[0]), train, N)
    shown = ids[ids >= 0]
    count = np.bincount(train.indices, minlength=train.shape[1])
    return {"coverage": len(np.unique(shown)) / train.shape[1], "popularity": float(count[shown].mean())}


def series_of(titles: pd.Series) -> np.ndarray:
    """The series that each movie belongs to -> int64, n; -1: none.

    A title loses its parentheses (the year), article, all from the first colon on, and a number at the end (2, III,
    Part II). Movies of which the same is left, but for a plural s, are a series if one of them had a colon or a number.
    """
    whole = titles.str.lower().str.replace(r"\s*\([^)]*\)", "", regex=True).str.replace(ARTICLE, "", regex=True)
    stem = whole.str.replace(r":.*", "", regex=True).str.replace(ARTICLE, "", regex=True)
    stem = stem.str.replace(r" (part )?([2-9]|1\d|i{1,3}|iv|v|vi{1,3}|ix|x)( 1/2)?$", "", regex=True)
    singular = stem.str.removesuffix("s")
    stem = singular.where(singular.isin(stem), stem)
    shortened = stem.str.len() + 1 < whole.str.len()
    found = stem.duplicated(keep=False) & shortened.groupby(stem).transform("any")
    return np.where(found, pd.factorize(stem)[0], -1)


def similarity_quality(
    model: FactorModel, movies: pd.DataFrame, items: np.ndarray, metrics: Sequence[str] = ("cosine", "l2"), N: int = 10
) -> dict[str, float]:
    """How well the N nearest of each of ``items`` (ids, int64, n), among them, agree with the data's ``movies``.

    For each of ``metrics``: "genres", the mean share of common genres (Jaccard) of a movie and its neighbours;
    "series": of the others of a movie's series (see ``series_of``), the share among its neighbours; NaN without series.
    """
    N = min(N, len(items) - 1)  # there are no more neighbours
    genres, series = movies["genres"].str.get_dummies("|").to_numpy(bool), np.full(len(movies), -1)
    series[items] = series_of(movies["title"].iloc[items])
    own, judged, quality = genres[items][:, None], series[items] >= 0, {}
    size = np.bincount(series[items][judged])[series[items][judged]]
    for metric in metrics:
        nearest, _ = model.similar_items(items, N + 1, items=items, metric=metric)
        others = nearest != items[:, None]
        others[others.all(1), -1] = False  # a movie that is not among its own N + 1 nearest has equals
        nearest = nearest[others].reshape(len(items), N)
        both, either = own & genres[nearest], own | genres[nearest]  # n x N x genres
        hits = (series[nearest] == series[items][:, None]).sum(1)[judged]
        quality[f"genres, {metric}"] = float((both.sum(2) / either.sum(2)).mean())
        quality[f"series, {metric}"] = float((hits / (size - 1)).mean())
    return quality
