"""Generated ratings of many shapes, for test_shapes.py and for the search of the defaults."""

import itertools

import numpy as np
import scipy.sparse as sp

KINDS = ("plain", "popular item", "heavy user", "both", "skewed")
NAMED = [
    (200, 100, 0.3, "both"),
    (943, 300, 0.1, "both"),
    (2000, 100, 0.3, "both"),
    (5000, 50, 0.3, "both"),
    (300, 5000, 0.005, "skewed"),
    (10, 5000, 0.5, "plain"),
]


def shapes():
    """Return (users, items, density, kind): all kinds in turn, with 8 to 15,000 ratings."""
    sizes = itertools.product((10, 30, 150, 700, 5000), repeat=2)
    grid = itertools.product(sizes, (0.005, 0.03, 0.15, 0.5))
    small = [(u, i, d) for (u, i), d in grid if 8 <= u * i * d <= 15_000]
    return NAMED + [(*shape, KINDS[k % 5]) for k, shape in enumerate(small)]


def ratings_of(users: int, items: int, density: float, kind: str) -> sp.csr_matrix:
    """Return ratings 1 … 5 at about density * users * items positions, of one of ``KINDS``."""
    rng = np.random.default_rng(0)
    n = int(users * items * density)
    if kind == "skewed":
        weights = 1 / np.arange(1, users + 1) ** 0.5, 1 / np.arange(1, items + 1)
        row, column = (rng.choice(len(w), n, p=w / w.sum()) for w in weights)
    else:
        row, column = rng.integers(users, size=n), rng.integers(items, size=n)
    if kind in ("popular item", "both", "skewed"):
        row, column = np.append(row, np.arange(users)), np.append(column, np.zeros(users, int))
    if kind in ("heavy user", "both", "skewed"):
        of_heavy_user = np.flatnonzero(np.arange(items) % 10 != 9)
        row = np.append(row, np.full(len(of_heavy_user), users // 2))
        column = np.append(column, of_heavy_user)
    ratings = sp.csr_matrix((np.ones(len(row)), (row, column)), (users, items))
    ratings.data[:] = rng.integers(1, 6, ratings.nnz)
    return ratings
