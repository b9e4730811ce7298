"""The peers in the settings that a small search found good, and everything in one shape for one evaluation.

Run with OPENBLAS_NUM_THREADS=1, as ``make bench`` does and implicit advises: its solvers thread themselves.
"""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp
import surprise
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from lightfm import LightFM

from mflib.data import load_movielens
from mflib.model import FactorModel
from mflib.sampling import train_test_split

THREADS = 2
torch.set_num_threads(THREADS)
SEEDS = (0, 1, 2)

data = load_movielens("ml-1m")
likes = data.likes()
Callback = Callable[[FactorModel], None] | None  # called after each iteration of a peer


def explicit_split(seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    return train_test_split(data.ratings, 0.9, seed)


def implicit_split(seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    return train_test_split(likes, 0.8, seed)


class Given(FactorModel):
    """A model of given factors and item biases, for the evaluation of a peer."""

    def __init__(self, P: np.ndarray, Q: np.ndarray, b: np.ndarray | None = None):
        super().__init__(factors=P.shape[1])
        arrays = (P, Q, np.zeros(len(P), P.dtype), np.zeros(len(Q), Q.dtype) if b is None else b)
        self.user_factors, self.item_factors, self.user_biases, self.item_biases = map(torch.as_tensor, arrays)
        self.global_bias = 0.0


class Ease(FactorModel):
    """The dense linear model of Steck 2019: a weight for each pair of items, I x I, in closed form. The ceiling of the
    table; quadratic in the items, so it is no part of the package."""

    def __init__(self, train: sp.csr_matrix, regularization: float = 500.0):
        super().__init__()
        gram = (train.T @ train).toarray().astype(np.float64)
        inverse = np.linalg.inv(gram + regularization * np.eye(len(gram)))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        self.train, self.weights = train, weights.astype(np.float32)
        self.user_factors, self.item_factors = (torch.zeros(n, 1) for n in train.shape)

    def scores(self, users: torch.Tensor, P: None = None) -> torch.Tensor:
        return torch.from_numpy(self.train[users.numpy()] @ self.weights)


def implicit_als(train: sp.csr_matrix, callback: Callback = None, **options) -> Given:
    options = {"regularization": 50, "alpha": 3, "iterations": 15} | options
    return _implicit(AlternatingLeastSquares(64, random_state=0, num_threads=THREADS, **options), train, callback)


def implicit_bpr(train: sp.csr_matrix, callback: Callback = None, **options) -> Given:
    options = {"learning_rate": 0.01, "regularization": 0.01, "iterations": 100} | options
    return _implicit(BayesianPersonalizedRanking(64, random_state=0, num_threads=THREADS, **options), train, callback)


def _implicit(peer, train: sp.csr_matrix, callback: Callback) -> Given:
    def model() -> Given:
        return Given(peer.user_factors, peer.item_factors)

    peer.fit(train, show_progress=False, callback=(lambda *_: callback(model())) if callback else None)
    return model()


def lightfm(
    train: sp.csr_matrix, loss: str, epochs: int, learning_rate: float = 0.05, callback: Callback = None
) -> Given:
    peer, matrix = LightFM(64, loss=loss, learning_rate=learning_rate, random_state=0), train.tocoo()
    for _ in range(epochs):
        peer.fit_partial(matrix, num_threads=THREADS)
        model = Given(peer.user_embeddings, peer.item_embeddings, peer.item_biases)
        if callback:
            callback(model)
    return model


def surprise_svd(train: sp.csr_matrix, epochs: int = 40) -> tuple[float, Callable]:
    """The seconds of its fit, and a function that estimates the ratings of pairs of ids."""
    coo = train.tocoo()
    table = pd.DataFrame({"user": coo.row, "item": coo.col, "rating": coo.data.astype(float)})
    trainset = surprise.Dataset.load_from_df(table, surprise.Reader(rating_scale=(1, 5))).build_full_trainset()
    peer = surprise.SVD(n_factors=64, n_epochs=epochs, lr_all=0.005, reg_all=0.05, random_state=0)
    start = time.perf_counter()
    peer.fit(trainset)
    seconds = time.perf_counter() - start

    def estimate(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        u = np.array([trainset._raw2inner_id_users.get(user, -1) for user in users])
        i = np.array([trainset._raw2inner_id_items.get(item, -1) for item in items])
        known_u, known_i = u >= 0, i >= 0
        biases = trainset.global_mean + peer.bu[u] * known_u + peer.bi[i] * known_i
        return np.clip(biases + (peer.pu[u] * peer.qi[i]).sum(1) * (known_u & known_i), 1, 5)

    return seconds, estimate
