"""The peers in the settings that a small search found good, in one shape for one evaluation.

Run with OPENBLAS_NUM_THREADS=1, as ``make bench`` does and implicit advises: its solvers thread
themselves.
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
from mflib.inputs import Ids
from mflib.metrics import rmse
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
    """A model of given factors, item biases, user biases and mean, for the evaluation of a peer."""

    def __init__(self, P, Q, b_i=None, b_u=None, mu: float = 0.0):
        super().__init__(factors=P.shape[1])
        b_u, b_i = (np.zeros(len(W), W.dtype) if b is None else b for W, b in ((P, b_u), (Q, b_i)))
        self.user_factors, self.item_factors = torch.as_tensor(P), torch.as_tensor(Q)
        self.user_biases, self.item_biases = torch.as_tensor(b_u), torch.as_tensor(b_i)
        self.global_bias = mu


class Ease(FactorModel):
    """The dense linear model of Steck 2019: a weight for each pair of items, in closed form.

    The ceiling of the table; quadratic in the items, so it is no part of the package.
    """

    def __init__(self, train: sp.csr_matrix, regularization: float = 500.0):
        super().__init__()
        gram = (train.T @ train).toarray().astype(np.float64)
        inverse = np.linalg.inv(gram + regularization * np.eye(len(gram)))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        self.train, self.weights = train, weights.astype(np.float32)
        self.user_factors, self.item_factors = (torch.zeros(n, 1) for n in train.shape)

    def scores(self, users: Ids) -> torch.Tensor:
        return torch.from_numpy(self.train[np.asarray(users)] @ self.weights)


def implicit_als(train: sp.csr_matrix, callback: Callback = None, **options) -> Given:
    defaults = {"regularization": 50, "alpha": 3, "iterations": 15, "random_state": 0}
    peer = AlternatingLeastSquares(64, num_threads=THREADS, **defaults | options)
    return _implicit(peer, train, callback)


def implicit_bpr(train: sp.csr_matrix, callback: Callback = None, **options) -> Given:
    defaults = {"learning_rate": 0.01, "regularization": 0.01, "iterations": 100, "random_state": 0}
    peer = BayesianPersonalizedRanking(64, num_threads=THREADS, **defaults | options)
    return _implicit(peer, train, callback)


def _implicit(peer, train: sp.csr_matrix, callback: Callback) -> Given:
    def model() -> Given:
        return Given(peer.user_factors, peer.item_factors)

    told = (lambda *_: callback(model())) if callback else None
    peer.fit(train, show_progress=False, callback=told)
    return model()


def lightfm(
    train: sp.csr_matrix, loss: str, epochs: int, callback: Callback = None, random_state: int = 0
) -> Given:
    peer = LightFM(64, loss=loss, learning_rate=0.05, random_state=random_state)
    matrix = train.tocoo()
    for _ in range(epochs):
        peer.fit_partial(matrix, num_threads=THREADS)
        model = Given(peer.user_embeddings, peer.item_embeddings, peer.item_biases)
        if callback:
            callback(model)
    return model


def surprise_svd(
    train: sp.csr_matrix, epochs: int = 40, random_state: int = 0
) -> tuple[float, Given]:
    """The seconds of its fit, and the model.

    Users and items without ratings have zeros, as they have there.
    """
    coo = train.tocoo()
    table = pd.DataFrame({"user": coo.row, "item": coo.col, "rating": coo.data.astype(float)})
    reader = surprise.Reader(rating_scale=(1, 5))
    trainset = surprise.Dataset.load_from_df(table, reader).build_full_trainset()
    peer = surprise.SVD(
        n_factors=64, n_epochs=epochs, lr_all=0.005, reg_all=0.05, random_state=random_state
    )
    start = time.perf_counter()
    peer.fit(trainset)
    seconds = time.perf_counter() - start
    P, Q = (np.zeros((n, 64)) for n in train.shape)
    b_u, b_i = map(np.zeros, train.shape)
    users = [trainset.to_raw_uid(user) for user in range(trainset.n_users)]
    items = [trainset.to_raw_iid(item) for item in range(trainset.n_items)]
    P[users], Q[items], b_u[users], b_i[items] = peer.pu, peer.qi, peer.bu, peer.bi
    return seconds, Given(P, Q, b_i, b_u, trainset.global_mean)


def surprise_rmse(peer: Given, test: sp.csr_matrix) -> float:
    """As Surprise estimates: no less than one star and no more than five."""
    coo = test.tocoo()
    return rmse(np.clip(peer.predict(coo.row, coo.col), 1, 5), coo.data)
