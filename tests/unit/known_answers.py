"""Known-answer data, and the models in the settings in which they find the known answers."""

import numpy as np
import scipy.sparse as sp
import torch

from mflib import ALS, BPR, SVD, WARP, Popularity

IMPLICIT = {
    "ALS": lambda **kw: ALS(**{"factors": 3, "regularization": 0.5} | kw),
    "ALS-exact": lambda **kw: ALS(**{"factors": 3, "regularization": 0.5, "use_cg": False} | kw),
    "BPR": lambda **kw: BPR(**{"factors": 6, "iterations": 200, "batch_size": 64} | kw),
    "WARP": lambda **kw: WARP(
        **{"factors": 6, "iterations": 100, "learning_rate": 0.01, "regularization": 0.1} | kw
    ),
}
ALL = IMPLICIT | {
    "SVD": lambda **kw: SVD(**{"factors": 6, "iterations": 20, "batch_size": 64} | kw),
    "Popularity": lambda **kw: Popularity(**kw),
}


def checkerboard(n: int = 20) -> sp.csr_matrix:
    """Even users like even items, odd users odd ones, but nobody the item with their own number."""
    board = (np.add.outer(np.arange(n), np.arange(n)) % 2 == 0).astype(np.float32)
    np.fill_diagonal(board, 0)
    return sp.csr_matrix(board)


def random_ratings(users: int, items: int, density: float, seed: int = 0) -> sp.csr_matrix:
    """Ratings 1 … 5 in about density * users * items cells."""
    rng = np.random.default_rng(seed)
    known = rng.random((users, items)) < density
    return sp.csr_matrix(np.where(known, rng.integers(1, 6, known.shape), 0).astype(np.float64))


class Fixed(Popularity):
    """A model with given scores, U x I."""

    def __init__(self, scores):
        super().__init__(factors=scores.shape[1])
        self.user_factors, self.item_factors = (
            torch.from_numpy(scores),
            torch.eye(scores.shape[1], dtype=torch.float64),
        )
        self.user_biases, self.item_biases = (
            torch.zeros(n, dtype=torch.float64) for n in scores.shape
        )
        self.global_bias = 0.0
