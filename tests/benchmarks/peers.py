"""The compared models in one shape: how to fit them, what a search may set.

Run with OPENBLAS_NUM_THREADS=1, as ``make bench`` does and implicit advises: its solvers use
threads of their own.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import cornac
import numpy as np
import pandas as pd
import scipy.sparse as sp
import surprise
import torch
from cornac.models.bpr import recom_bpr
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from lightfm import LightFM
from scipy.sparse.linalg import svds
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP
from mflib.data import load_movielens
from mflib.inputs import Ids
from mflib.metrics import ranking_metrics, rmse
from mflib.model import FactorModel
from mflib.sampling import train_test_split

SEEDS = (0, 1, 2)
Callback = Callable[[FactorModel, int], None]  # a model, the number of finished iterations

data = load_movielens("ml-1m")
likes = data.likes()


def explicit_split(seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    return train_test_split(data.ratings, 0.9, seed)


def implicit_split(seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    return train_test_split(likes, 0.8, seed)


class Given(FactorModel):
    """A model of given factors, item biases, user biases and mean, for the evaluation of a peer."""

    stars = (-np.inf, np.inf)

    def __init__(self, P, Q, b_i=None, b_u=None, mu: float = 0.0):
        super().__init__(factors=P.shape[1])
        b_u, b_i = (np.zeros(len(W), W.dtype) if b is None else b for W, b in ((P, b_u), (Q, b_i)))
        self.user_factors, self.item_factors = torch.as_tensor(P), torch.as_tensor(Q)
        self.user_biases, self.item_biases = torch.as_tensor(b_u), torch.as_tensor(b_i)
        self.global_bias = mu

    def predict(self, userids: Ids, itemids: Ids) -> np.ndarray:
        return np.clip(super().predict(userids, itemids), *self.stars)


class Ease(FactorModel):
    """The dense linear model of Steck 2019: a weight for each pair of items, in closed form.

    Quadratic in the items, so it is no part of the package.
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


def truncated_svd(train: sp.csr_matrix, rows: float, columns: float) -> Given:
    """Return the best matrix of rank 64 for all entries, empty ones as zeros.

    This is PureSVD of Cremonesi, Koren, Turrin ("Performance of Recommender Algorithms on Top-N
    Recommendation Tasks", RecSys 2010). Before, rows and columns are divided by their number of
    likes to the power of ``rows`` and ``columns``; after, columns are multiplied back. Rows are
    not: that does not change the order of a user's items.
    """
    by_user, by_item = (
        np.maximum(train.getnnz(axis), 1.0) ** exponent
        for axis, exponent in ((1, rows), (0, columns))
    )
    scaled = sp.diags(1 / by_user) @ train.astype(np.float64) @ sp.diags(1 / by_item)
    U, singular, Vt = svds(scaled, 64, v0=np.ones(min(train.shape)))
    return Given(U * singular, Vt.T * by_item[:, None])


def closed_form(build: Callable, train, callback: Callback | None = None, seed=0, **settings):
    """Fit a model without iterations."""
    settings.pop("iterations")
    model = build(train, **settings)
    if callback:
        callback(model, 1)
    return model


def ours(build: Callable, train, callback: Callback | None = None, seed: int = 0, **settings):
    model = build(random_state=seed, **settings)

    def after_iteration(iteration: int, *_: float) -> None:
        callback(model, iteration + 1)

    return model.fit(train, show_progress=False, callback=callback and after_iteration)


def of_implicit(build: Callable, train, callback: Callback | None = None, seed=0, **settings):
    peer = build(64, num_threads=torch.get_num_threads(), random_state=seed, **settings)

    def model() -> Given:
        return Given(peer.user_factors, peer.item_factors)

    def after_iteration(iteration: int, *_: float) -> None:
        callback(model(), iteration + 1)

    peer.fit(train, show_progress=False, callback=callback and after_iteration)
    return model()


def of_lightfm(
    loss: str, train, callback: Callback | None = None, *, iterations, alpha, seed=0, **settings
) -> Given:
    settings |= {"item_alpha": alpha, "user_alpha": alpha, "random_state": seed}
    peer = LightFM(64, loss=loss, **settings)
    for iteration in range(1, iterations + 1):
        peer.fit_partial(train, num_threads=torch.get_num_threads())
        model = Given(peer.user_embeddings, peer.item_embeddings, peer.item_biases)
        if callback:
            callback(model, iteration)
    return model


def cornac_dataset(train: sp.csr_matrix) -> cornac.data.Dataset:
    entries, ids = train.tocoo(), ({i: i for i in range(n)} for n in train.shape)
    return cornac.data.Dataset(*train.shape, *ids, (entries.row, entries.col, entries.data))


def of_cornac(train, callback: Callback | None = None, *, iterations, seed=0, **settings) -> Given:
    """Fit Cornac's BPR, with a callback in place of its progress bar.

    With a seed it takes one thread, without one all processors.
    """
    seed = seed if torch.get_num_threads() == 1 else None
    peer = cornac.models.BPR(k=64, max_iter=iterations, seed=seed, **settings)

    def model() -> Given:
        return Given(peer.u_factors, peer.i_factors, peer.i_biases)

    def trange(iterations: int, **_) -> tqdm:
        bar = tqdm(range(iterations), disable=True)
        epoch = itertools.count(1)
        bar.set_postfix = lambda *_: callback and callback(model(), next(epoch))
        return bar

    with mock.patch.object(recom_bpr, "trange", trange):
        peer.fit(train)
    return model()


def surprise_trainset(ratings: sp.csr_matrix) -> tuple[surprise.Trainset, tuple[int, int]]:
    coo = ratings.tocoo()
    table = pd.DataFrame({"user": coo.row, "item": coo.col, "rating": coo.data.astype(float)})
    reader = surprise.Reader(rating_scale=(1, 5))
    return surprise.Dataset.load_from_df(table, reader).build_full_trainset(), ratings.shape


def of_surprise(train, callback: Callback | None = None, *, iterations, seed=0, **settings):
    """Fit Surprise's SVD, which has no callback.

    Users and items without ratings have zeros, as they have there.
    """
    trainset, shape = train
    peer = surprise.SVD(n_factors=64, n_epochs=iterations, random_state=seed, **settings)
    peer.fit(trainset)
    P, Q = (np.zeros((n, 64)) for n in shape)
    b_u, b_i = map(np.zeros, shape)
    users = [trainset.to_raw_uid(user) for user in range(trainset.n_users)]
    items = [trainset.to_raw_iid(item) for item in range(trainset.n_items)]
    P[users], Q[items], b_u[users], b_i[items] = peer.pu, peer.qi, peer.bu, peer.bi
    model = Given(P, Q, b_i, b_u, trainset.global_mean)
    model.stars = (1, 5)  # as Surprise estimates
    if callback:
        callback(model, iterations)
    return model


# What a number between 0 and 1 stands for in the range of a hyperparameter.


def log(low: float, high: float) -> Callable[[float], float]:
    return lambda x: float(f"{low * (high / low) ** x:.2g}")


def linear(low: float, high: float) -> Callable[[float], float]:
    return lambda x: float(f"{low + (high - low) * x:.2g}")


def one_of(*values: Any) -> Callable[[float], Any]:
    return lambda x: values[min(int(x * len(values)), len(values) - 1)]


@dataclass(frozen=True)
class Contender:
    """A model of the comparison."""

    fit: Callable[..., FactorModel]  # (prepared data, callback, seed, **settings)
    iterations: int  # at most
    space: dict[str, Callable[[float], Any]]  # what a search may set
    prepare: Callable[[sp.csr_matrix], Any] = lambda train: train  # not timed
    of_ratings: bool = False

    def split(self, seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        return explicit_split(seed) if self.of_ratings else implicit_split(seed)

    def score(self, model: FactorModel, train: sp.csr_matrix, test: sp.csr_matrix) -> float:
        """Return NDCG@10, or the negative RMSE of ratings."""
        if not all(W.isfinite().all() for W in (model.user_factors, model.item_factors)):
            raise FloatingPointError("the factors are not finite")
        if self.of_ratings:
            held_out = test.tocoo()
            return -float(rmse(model.predict(held_out.row, held_out.col), held_out.data))
        return float(ranking_metrics(model, train, test)["ndcg"].mean())


BPR_SPACE = {
    "learning_rate": log(0.02, 1),
    "user_regularization": log(0.003, 0.3),
    "item_regularization": log(0.0003, 0.03),
}
LIGHTFM_SPACE = {"learning_rate": log(0.005, 0.2), "alpha": log(1e-7, 1e-4)}
CONTENDERS = {
    "SVD": Contender(
        partial(ours, SVD),
        40,
        {
            "learning_rate": log(0.01, 0.2),
            "regularization": log(0.01, 0.2),
            "init_std": log(0.01, 0.1),
        },
        of_ratings=True,
    ),
    "Surprise SVD": Contender(
        of_surprise,
        60,
        {
            "lr_all": log(0.002, 0.02),
            "reg_all": log(0.01, 0.2),
            "init_std_dev": log(0.01, 0.1),
            "iterations": one_of(10, 20, 30, 40, 50, 60),
        },
        surprise_trainset,
        of_ratings=True,
    ),
    "ALS": Contender(
        partial(ours, ALS),
        20,
        {"regularization": log(0.1, 20), "alpha": log(1, 30)},  # as below for 100 likes
    ),
    "implicit ALS": Contender(
        partial(of_implicit, AlternatingLeastSquares),
        20,
        {"regularization": log(1, 200), "alpha": log(1, 30)},
    ),
    "BPR": Contender(
        partial(ours, BPR),
        60,
        BPR_SPACE | {"draws": one_of(2, 4, 8)},
    ),
    "BPR, one draw": Contender(
        partial(ours, partial(BPR, draws=1)),
        60,
        BPR_SPACE,
    ),
    "Cornac BPR": Contender(
        of_cornac,
        200,
        {"learning_rate": log(0.002, 0.2), "lambda_reg": log(0.0003, 0.1)},
        cornac_dataset,
    ),
    "implicit BPR": Contender(
        partial(of_implicit, BayesianPersonalizedRanking),
        200,
        {"learning_rate": log(0.001, 0.1), "regularization": log(0.0003, 0.1)},
    ),
    "LightFM BPR": Contender(
        partial(of_lightfm, "bpr"),
        60,
        LIGHTFM_SPACE,
        sp.csr_matrix.tocoo,
    ),
    "WARP": Contender(
        partial(ours, WARP),
        40,
        {
            "learning_rate": log(0.002, 0.05),
            "regularization": log(0.05, 1),
            "max_draws": one_of(10, 50),
        },
    ),
    "LightFM WARP": Contender(
        partial(of_lightfm, "warp"),
        60,
        LIGHTFM_SPACE | {"max_sampled": one_of(10, 50)},
        sp.csr_matrix.tocoo,
    ),
    "truncated SVD, scaled": Contender(
        partial(closed_form, truncated_svd),
        1,
        {"rows": linear(0, 0.6), "columns": linear(0, 0.6)},
    ),
}


class Watch:
    """A callback that counts the seconds of training; those of ``look`` are left out."""

    def __init__(self, look: Callable[[FactorModel, int, float], None], clock=time.perf_counter):
        self.look, self.clock, self.seconds = look, clock, 0.0
        self.since = clock()

    def __call__(self, model: FactorModel, iteration: int) -> None:
        self.seconds += self.clock() - self.since
        self.look(model, iteration, self.seconds)
        self.since = self.clock()
