"""Recommendations and similar movies, judged where the held-out part is."""

from functools import cache

import numpy as np
import scipy.sparse as sp
import torch

import mflib
from grading.execution.harness import FIT
from mflib.data import load_movielens
from mflib.sampling import train_test_split

LISTS = ("recommendations", "similar movies")


@cache
def hidden(
    dataset: str, secret: int
) -> tuple[dict[str, np.ndarray], sp.csr_matrix, object, np.ndarray]:
    """A split with permuted ids for the sandbox, by the secret of this run.

    The held-out part, the movies and their order stay here.
    """
    data, rng = load_movielens(dataset), np.random.default_rng(secret)
    users, items = (rng.permutation(n) for n in data.ratings.shape)
    train, test = train_test_split(
        data.ratings[users][:, items].tocsr(), 0.85, random_state=secret % 2**31
    )
    train.sort_indices()
    held_out = test.tocoo()
    arrays = {
        "data": train.data,
        "indices": train.indices,
        "indptr": train.indptr,
        "shape": np.array(train.shape),
    }
    arrays |= {"users": held_out.row.astype(np.int64), "items": held_out.col.astype(np.int64)}
    movies = data.movies.iloc[items].reset_index(drop=True)
    return arrays, test, movies, np.diff(train.tocsc().indptr)


def ndcg(ids: np.ndarray, wanted: sp.csr_matrix) -> float:
    """Mean NDCG@10 of lists (U x 10) over the users with at least one wanted item.

    A repeated item counts once.
    """
    found = []
    for user in np.flatnonzero(np.diff(wanted.indptr)):
        mine = wanted[user].indices
        _, first = np.unique(ids[user], return_index=True)
        hit = np.isin(ids[user], mine) & np.isin(np.arange(ids.shape[1]), first)
        best = (1 / np.log2(2 + np.arange(min(len(mine), ids.shape[1])))).sum()
        found.append((hit / np.log2(2 + np.arange(ids.shape[1]))).sum() / best)
    return float(np.mean(found))


def figures(
    task: str,
    dataset: str,
    secret: int,
    ids: np.ndarray,
    similar: np.ndarray,
    estimates: np.ndarray,
) -> dict[str, float]:
    """The measures of the recommendations and of the similar movies.

    RMSE for SVD, otherwise NDCG@10; the mean share of common genres.
    """
    arrays, test, movies, count = hidden(dataset, secret)
    shape = tuple(arrays["shape"])
    if ids.shape != (shape[0], 10) or similar.shape != (shape[1], 11):
        got = f"{ids.shape} and {similar.shape}"
        raise ValueError(f"expected lists of {shape[0]} x 10 and {shape[1]} x 11, got {got}")
    wanted = sp.csr_matrix(test >= 4, dtype=float)
    judged = np.flatnonzero(count >= 20)
    genres = movies["genres"].str.get_dummies("|").to_numpy(bool)
    near = similar[judged]
    own, others = genres[judged][:, None], genres[np.clip(near, 0, shape[1] - 1)]
    share = (own & others).sum(2) / np.maximum((own | others).sum(2), 1)
    real = (near != judged[:, None]) & (near >= 0)
    quality = float((share * real).sum() / max(1, real.sum())) if real.any(1).all() else 0.0
    if task == "svd":
        if estimates.shape != (test.nnz,):
            raise ValueError(f"expected {test.nnz} estimates, got the shape {estimates.shape}")
        error = np.asarray(estimates, float) - test.tocoo().data
        return {"recommendations": float(np.sqrt(np.mean(error**2))), "similar movies": quality}
    return {"recommendations": ndcg(ids, wanted), "similar movies": quality}


@cache
def reference_figures(
    task: str, dataset: str, secret: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The figures of knowing nothing, and of the reference."""
    arrays, _, _, count = hidden(dataset, secret)
    train = sp.csr_matrix(
        (arrays["data"], arrays["indices"], arrays["indptr"]), tuple(arrays["shape"])
    )
    known = train if task == "svd" else sp.csr_matrix(train >= 4, dtype=np.float64)
    n_users, n_items = train.shape
    rng = np.random.default_rng(0)
    random_lists = np.column_stack([np.arange(n_items), rng.integers(n_items, size=(n_items, 10))])
    popularity = mflib.Popularity(dtype=torch.float64).fit(known, False)
    popular, _ = popularity.recommend(np.arange(n_users), known, 10)
    means = np.where(count > 0, train.sum(0).A1 / np.maximum(count, 1), train.data.mean())
    means = means[arrays["items"]]
    model = getattr(mflib, task.upper())(dtype=torch.float64, **FIT[task])
    model.fit(known, show_progress=False)
    ids, _ = model.recommend(np.arange(n_users), known, 10)
    similar, _ = model.similar_items(np.arange(n_items), 11)
    best = figures(
        task, dataset, secret, ids, similar, model.predict(arrays["users"], arrays["items"])
    )
    return figures(task, dataset, secret, popular, random_lists, means), best


def share(value: float, nothing: float, best: float) -> float:
    """0 for knowing nothing, 1 for nearly what the reference reaches."""
    reached = np.clip((value - nothing) / (0.95 * (best - nothing)), 0, 1)
    return float(np.nan_to_num(reached, nan=0.0))


def judge_lists(
    task: str,
    dataset: str,
    secret: int,
    got: dict[str, np.ndarray],
    between: tuple[dict[str, float], dict[str, float]],
) -> tuple[dict[str, float], list[str]]:
    """By list, how much of what can be reached was; and what to say where it is not all.

    ``between``: see ``reference_figures``.
    """
    lists = (got["ids"], got["similar"], got["estimates"])
    found = figures(task, dataset, secret, *lists)
    nothing, best = between
    shares, reasons = {}, []
    for part, value in found.items():
        shares[part] = share(value, nothing[part], best[part])
        if shares[part] < 1:
            known = f"the reference has {best[part]:.3f} and {nothing[part]:.3f} is for nothing"
            reasons.append(f"{part}: {value:.3f}, where {known}")
    return shares, reasons
