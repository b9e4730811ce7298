"""Evaluate recommendations and similar movies outside the sandbox, with the held-out data."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

import mflib
from grading.execution.harness import FIT
from mflib.data import load_movielens
from mflib.sampling import train_test_split

LIST_PARTS = ("recommendations", "similar movies")
TRAINING_FRACTION = 0.85
RELEVANT = 4  # stars
MIN_RATINGS = 20  # of a movie whose similar movies are evaluated
ENOUGH = 0.95  # the fraction of the reference's gain that earns all points


class HiddenSplit(NamedTuple):
    """A split of the ratings, with permuted ids."""

    # entries of the training matrix, and users and items of the held-out ratings
    arrays: dict[str, np.ndarray]
    test: sp.csr_matrix
    movies: pd.DataFrame
    counts: np.ndarray  # training ratings of each movie


@dataclass(frozen=True)
class QualityRange:
    """The quality of each list part for a baseline and for the reference."""

    baseline: dict[str, float]
    reference: dict[str, float]


@cache
def hidden_split(dataset: str, secret: int) -> HiddenSplit:
    """Return the split for a run's secret; held-out ratings never enter the sandbox."""
    data, rng = load_movielens(dataset), np.random.default_rng(secret)
    users, items = (rng.permutation(n) for n in data.ratings.shape)
    train, test = train_test_split(
        data.ratings[users][:, items].tocsr(), TRAINING_FRACTION, random_state=secret % 2**31
    )
    train.sort_indices()
    held_out = test.tocoo()
    arrays = {
        "data": train.data,
        "indices": train.indices,
        "indptr": train.indptr,
        "shape": np.array(train.shape),
        "users": held_out.row.astype(np.int64),
        "items": held_out.col.astype(np.int64),
    }
    movies = data.movies.iloc[items].reset_index(drop=True)
    return HiddenSplit(arrays, test, movies, np.diff(train.tocsc().indptr))


def ndcg(ids: np.ndarray, relevant: sp.csr_matrix) -> float:
    """Return the mean NDCG@10 of lists (U x 10) over the users with at least one relevant item.

    A repeated item counts once.
    """
    values = []
    discounts = 1 / np.log2(2 + np.arange(ids.shape[1]))
    for user in np.flatnonzero(np.diff(relevant.indptr)):
        items = relevant[user].indices
        _, first = np.unique(ids[user], return_index=True)
        hit = np.isin(ids[user], items) & np.isin(np.arange(ids.shape[1]), first)
        best = discounts[: min(len(items), ids.shape[1])].sum()
        values.append((hit * discounts).sum() / best)
    return float(np.mean(values))


def measure(
    task: str,
    split: HiddenSplit,
    ids: np.ndarray,
    similar: np.ndarray,
    estimates: np.ndarray,
) -> dict[str, float]:
    """Return the quality of each list part.

    Recommendations: RMSE for SVD, otherwise NDCG@10. Similar movies: the mean Jaccard similarity
    of genres.
    """
    n_users, n_items = split.arrays["shape"]
    if ids.shape != (n_users, 10) or similar.shape != (n_items, 11):
        received = f"{ids.shape} and {similar.shape}"
        raise ValueError(f"expected lists of {n_users} x 10 and {n_items} x 11, got {received}")
    judged = np.flatnonzero(split.counts >= MIN_RATINGS)
    genres = split.movies["genres"].str.get_dummies("|").to_numpy(bool)
    near = similar[judged]
    own, others = genres[judged][:, None], genres[np.clip(near, 0, n_items - 1)]
    jaccard = (own & others).sum(2) / np.maximum((own | others).sum(2), 1)
    valid = (near != judged[:, None]) & (near >= 0)
    quality = float((jaccard * valid).sum() / max(1, valid.sum())) if valid.any(1).all() else 0.0
    if task == "svd":
        if estimates.shape != (split.test.nnz,):
            expected = f"expected {split.test.nnz} estimates"
            raise ValueError(f"{expected}, got the shape {estimates.shape}")
        error = np.asarray(estimates, float) - split.test.tocoo().data
        return {"recommendations": float(np.sqrt(np.mean(error**2))), "similar movies": quality}
    relevant = sp.csr_matrix(split.test >= RELEVANT, dtype=float)
    return {"recommendations": ndcg(ids, relevant), "similar movies": quality}


@cache
def quality_range(task: str, dataset: str, secret: int) -> QualityRange:
    """Return the qualities that earn no points and all points."""
    split = hidden_split(dataset, secret)
    arrays = split.arrays
    train = sp.csr_matrix(
        (arrays["data"], arrays["indices"], arrays["indptr"]), tuple(arrays["shape"])
    )
    known = train if task == "svd" else sp.csr_matrix(train >= RELEVANT, dtype=np.float64)
    n_users, n_items = train.shape
    rng = np.random.default_rng(0)
    random_lists = np.column_stack([np.arange(n_items), rng.integers(n_items, size=(n_items, 10))])
    popularity = mflib.Popularity(dtype=torch.float64).fit(known, False)
    popular, _ = popularity.recommend(np.arange(n_users), known, 10)
    means = train.sum(0).A1 / np.maximum(split.counts, 1)
    means = np.where(split.counts > 0, means, train.data.mean())[arrays["items"]]
    model = getattr(mflib, task.upper())(dtype=torch.float64, **FIT[task])
    model.fit(known, show_progress=False)
    ids, _ = model.recommend(np.arange(n_users), known, 10)
    similar, _ = model.similar_items(np.arange(n_items), 11)
    estimates = model.predict(arrays["users"], arrays["items"])
    return QualityRange(
        baseline=measure(task, split, popular, random_lists, means),
        reference=measure(task, split, ids, similar, estimates),
    )


def relative_quality(value: float, baseline: float, reference: float) -> float:
    """Return 0 at the baseline, 1 close to the reference, and linear values in between."""
    relative = np.clip((value - baseline) / (ENOUGH * (reference - baseline)), 0, 1)
    return float(np.nan_to_num(relative, nan=0.0))


def judge_lists(
    task: str, split: HiddenSplit, lists: dict[str, np.ndarray], between: QualityRange
) -> tuple[dict[str, float], list[str]]:
    """Return the relative quality of each list part, and a reason for each one below 1."""
    measured = measure(task, split, lists["ids"], lists["similar"], lists["estimates"])
    qualities, reasons = {}, []
    for part, value in measured.items():
        baseline, reference = between.baseline[part], between.reference[part]
        qualities[part] = relative_quality(value, baseline, reference)
        if qualities[part] < 1:
            known = f"the reference has {reference:.3f}, and {baseline:.3f} earns nothing"
            reasons.append(f"{part}: {value:.3f}, where {known}")
    return qualities, reasons
