"""Growth: an epoch of each model and an evaluation on a generated set of the shape of MovieLens-32M.

Prints, beside the same on MovieLens-1M, the seconds, the nanoseconds per interaction and the peak resident size.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP
from mflib.data import load_movielens
from mflib.metrics import ranking_metrics
from mflib.sampling import train_test_split

USERS, ITEMS, INTERACTIONS = 200_948, 84_432, 32_000_000


def generated(seed: int = 0) -> sp.csr_matrix:
    """Ratings 3 to 5 whose users and items both follow a long tail; about INTERACTIONS of them, U x I, float32."""
    rng = np.random.default_rng(seed)
    activity = rng.pareto(1.3, USERS) + 0.15
    counts = np.minimum(np.round(activity * INTERACTIONS * 1.19 / activity.sum()).astype(int) + 1, ITEMS // 4)
    popularity = np.cumsum(1 / np.arange(10, ITEMS + 10) ** 0.9)
    parts = []
    for block in tqdm(np.array_split(np.arange(USERS), 50), "generating"):
        users = np.repeat(block, counts[block])
        items = np.searchsorted(popularity, rng.random(len(users)) * popularity[-1])
        cells = np.unique(users * ITEMS + items)
        rows = sp.csr_matrix(
            (rng.integers(3, 6, len(cells)).astype(np.float32), (cells // ITEMS - block[0], cells % ITEMS)),
            shape=(len(block), ITEMS),
        )
        parts.append(rows)
    return sp.vstack(parts, format="csr")


def epoch(model, matrix: sp.csr_matrix) -> float:
    return model.fit(matrix, show_progress=False).history[-1]["seconds"]


def measure(matrix: sp.csr_matrix, title: str) -> dict[str, float]:
    """Seconds of an iteration of each model and of the evaluation of 2,000 users."""
    train, test = train_test_split(matrix, 0.8)
    seconds = {}
    for Model in tqdm((SVD, ALS, BPR, WARP), title):
        model = Model(iterations=1)
        seconds[Model.__name__] = epoch(model, train)
        if Model is ALS:
            some = np.random.default_rng(0).choice(matrix.shape[0], 2000, replace=False)
            chosen = sp.diags_array(np.isin(np.arange(matrix.shape[0]), some).astype(np.float32))
            start = time.perf_counter()
            ranking_metrics(model, train, sp.csr_matrix(chosen @ test))
            seconds["evaluation of 2,000 users"] = time.perf_counter() - start
    return seconds


def main() -> None:
    torch.set_num_threads(2)
    rows, sizes = {}, {}
    for title, matrix in (("MovieLens-1M", load_movielens("ml-1m").ratings), ("generated", None)):
        matrix = generated() if matrix is None else matrix
        rows[title], sizes[title] = measure(matrix, title), round(0.8 * matrix.nnz)
        print(f"{title}: {matrix.nnz:,} interactions, {matrix.shape[0]:,} users, {matrix.shape[1]:,} items")
    table = pd.DataFrame(rows)
    per = table.iloc[[0, 1, 3, 4]] / pd.Series(sizes) * 1e9
    per["ratio"] = per["generated"] / per["MovieLens-1M"]
    print(f"\nseconds\n{table.round(2).to_string()}\n\nnanoseconds per interaction\n{per.round(1).to_string()}\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak resident size: {peak:.1f} GiB")
    sys.exit(0 if peak < 8 else "expected a peak below 8 GiB")


if __name__ == "__main__":
    main()
