"""How good a model is: errors of ratings, per-user ranking metrics, what a catalogue is used."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike

from mflib.matrices import UserItems, as_csr, row_blocks, transposed_hint
from mflib.model import FactorModel
from mflib.parameters import size
from mflib.sampling import Seed, seed_of
from mflib.threads import pool


def rmse(estimates: ArrayLike, ratings: ArrayLike) -> float:
    """Root mean squared error, in stars; both n, ValueError otherwise or if n is 0."""
    return float(np.sqrt(np.mean(_errors(estimates, ratings) ** 2)))


def mae(estimates: ArrayLike, ratings: ArrayLike) -> float:
    """Mean absolute error, in stars; both n, ValueError otherwise or if n is 0."""
    return float(np.mean(np.abs(_errors(estimates, ratings))))


def _errors(estimates: ArrayLike, ratings: ArrayLike) -> np.ndarray:
    estimates, ratings = np.asarray(estimates, np.float64), np.asarray(ratings, np.float64)
    if estimates.shape != ratings.shape:  # numpy would compare each with each
        got = f"shapes {estimates.shape} and {ratings.shape}"
        raise ValueError(f"expected as many estimates as ratings, got {got}")
    if not ratings.size:
        raise ValueError("expected at least one rating to compare with, got none")
    return estimates - ratings


def ranking_metrics(
    model: FactorModel, train: UserItems, test: UserItems, N: int = 10
) -> pd.DataFrame:
    """Rank all items but those of ``train`` and see where those of ``test`` stand.

    Take ``.mean()`` of the result. Ties count against the model: a test item ranks behind all other
    items of the same score.

    Parameters
    ----------
    model
        A fitted model of U users and I items.
    train, test
        Scipy sparse matrices, U x I, without a common cell; only positive cells of ``test`` count.
    N
        The length of the list.

    Returns
    -------
    A row for each user with at least one positive test cell, float64, indexed by user id:

    - precision: hits among the first N, divided by N;
    - recall: hits among the first N, divided by the number of test items;
    - ndcg: sum of 1 / log2(1 + rank) over the hits among the first N, divided by its maximum;
    - map: sum over the hits among the first N of the precision up to their rank, divided by min(N,
      number of test items);
    - auc: share of the pairs (test item, other item) in the right order; .5 where there is no pair.

    Raises
    ------
    ValueError
        The shapes are not the model's, a cell is in both matrices, ``test`` has no positive cell,
        or N is below 1.
    """
    N = size("N", N)
    known, wanted = as_csr(train), as_csr(test) > 0
    _check_shape(model, known, "train")
    _check_shape(model, wanted, "test")
    if known.multiply(wanted).nnz:
        got = "an overlap: test items have leaked"
        raise ValueError(f"expected train and test without a common cell, got {got}")
    if not wanted.nnz:
        raise ValueError("expected positive cells in test, got none")
    users = np.flatnonzero(np.diff(wanted.indptr))
    blocks = [users[block] for block in row_blocks(len(users), numbers_per_row=wanted.shape[1])]

    def evaluate(block: np.ndarray) -> pd.DataFrame:
        return _evaluate(model, block, known[block], wanted[block], N)

    with pool() as threads:  # numpy sorts without the interpreter
        return pd.concat(threads.map(evaluate, blocks))


def _check_shape(model: FactorModel, matrix: sp.csr_matrix, name: str) -> None:
    fitted = (len(model._factors("user")), len(model._factors("item")))
    if matrix.shape != fitted:
        got = f"{matrix.shape}{transposed_hint(matrix.shape, fitted, fitted)}"
        raise ValueError(f"expected {name} of the model's shape {fitted}, got {got}")


def _evaluate(
    model: FactorModel, users: np.ndarray, known: sp.csr_matrix, wanted: sp.csr_matrix, N: int
) -> pd.DataFrame:
    """The metrics of B users with their rows of both matrices, B x I."""
    n_rows, n_items = wanted.shape
    scores = model.scores(torch.from_numpy(users).to(model.device)).cpu().numpy()  # B x I
    count = np.diff(wanted.indptr).astype(np.int64)  # B; int32 would not hold count * others
    rows = np.repeat(np.arange(n_rows), count)
    own = np.full((n_rows, count.max()), -np.inf, scores.dtype)  # of the test items, padded
    own[rows, np.arange(len(rows)) - wanted.indptr[rows]] = scores[rows, wanted.indices]
    own = -np.sort(-own, axis=1)
    scores[rows, wanted.indices] = -np.inf
    scores[known.nonzero()] = -np.inf
    scores.sort(axis=1)
    # ahead: how many items that are neither known nor to be found score at least as high
    ahead = np.stack(
        [n_items - np.searchsorted(row, mine) for row, mine in zip(scores, own, strict=True)]
    )
    place = np.arange(1, own.shape[1] + 1)  # the place among the user's test items, best first
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
    """The percentile interval of a mean over users if the users were drawn anew (Efron 1979).

    Parameters
    ----------
    values
        n numbers, one per user: a metric, or the difference of two models in it.
    confidence
        The share of the 1,000 means of redrawn users that lie between the two numbers.

    Raises
    ------
    ValueError
        There are no values, one is NaN, or ``confidence`` is not between 0 and 1.
    """
    values, rng = np.asarray(values, np.float64), np.random.default_rng(seed_of(random_state))
    if values.ndim != 1 or not values.size or np.isnan(values).any():
        got = f"shape {values.shape} with {np.isnan(values).sum()} NaN"
        raise ValueError(f"expected a value for each of some users, got {got}")
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(1000)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high


def catalogue(model: FactorModel, train: UserItems, N: int = 10) -> dict[str, float]:
    """What the N recommendations for all users are made of.

    Parameters
    ----------
    train
        Scipy sparse matrix, U x I: what the users have, which is not recommended.

    Returns
    -------
    "coverage", the share of all items that anybody is recommended, and "popularity", the mean
    number of training interactions of a recommended item.

    Raises
    ------
    ValueError
        The shape is not the model's, or there is nothing left to recommend.
    """
    known = as_csr(train)
    _check_shape(model, known, "train")
    ids, _ = model.recommend(np.arange(known.shape[0]), known, N)
    shown = ids[ids >= 0]
    if not shown.size:
        raise ValueError("expected users who do not have every item, got nothing to recommend")
    count = np.bincount(known.indices, minlength=known.shape[1])
    coverage = len(np.unique(shown)) / known.shape[1]
    return {"coverage": coverage, "popularity": float(count[shown].mean())}
