"""Data sets with a known answer, and models with settings that find it in a second."""

import numpy as np
import scipy.sparse as sp
import torch

from mflib import ALS, BPR, SVD, WARP, Popularity

IMPLICIT = {
    "ALS": lambda **kw: ALS(**{"factors": 3, "regularization": 0.5} | kw),
    "ALS-exact": lambda **kw: ALS(**{"factors": 3, "regularization": 0.5, "use_cg": False} | kw),
    "BPR": lambda **kw: BPR(**{"factors": 6, "batches": 4} | kw),
    "WARP": lambda **kw: WARP(**{"factors": 6, "regularization": 0.1} | kw),
}
ALL = IMPLICIT | {
    "SVD": lambda **kw: SVD(**{"factors": 6, "iterations": 20, "batches": 4} | kw),
    "Popularity": lambda **kw: popularity(**kw),
}


def popularity(factors: int = 1, iterations: int = 1, **kw) -> Popularity:
    """Return a Popularity model; the numbers of factors and iterations are ignored."""
    return Popularity(**kw)


def checkerboard(n: int = 20) -> sp.csr_matrix:
    """Return n x n likes: user u likes all items of the same parity except item u."""
    board = (np.add.outer(np.arange(n), np.arange(n)) % 2 == 0).astype(np.float32)
    np.fill_diagonal(board, 0)
    return sp.csr_matrix(board)


def random_ratings(users: int, items: int, density: float, seed: int = 0) -> sp.csr_matrix:
    """Return ratings 1 … 5 at about density * users * items random positions."""
    rng = np.random.default_rng(seed)
    known = rng.random((users, items)) < density
    return sp.csr_matrix(np.where(known, rng.integers(1, 6, known.shape), 0).astype(np.float64))


class Fixed(Popularity):
    """A model with the given scores, an array of shape (U, I)."""

    def __init__(self, scores: np.ndarray):
        super().__init__()
        self.user_factors = torch.from_numpy(scores)
        self.item_factors = torch.eye(scores.shape[1], dtype=torch.float64)
        self.user_biases, self.item_biases = (
            torch.zeros(n, dtype=torch.float64) for n in scores.shape
        )
        self.global_bias = 0.0
