"""SVD: biased matrix factorization of explicit ratings by stochastic gradient descent."""

from collections.abc import Iterator
from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.matrices import interactions
from mflib.model import FactorModel
from mflib.parameters import NotNegative, Positive, Size
from mflib.sampling import TRAINING, generator
from mflib.training import Batch, epochs


def svd_step(
    P: Tensor,
    Q: Tensor,
    b_u: Tensor,
    b_i: Tensor,
    mu: float,
    users: Tensor,
    items: Tensor,
    ratings: Tensor,
    weights: Tensor,
    learning_rate: float,
    regularization: float,
) -> Tensor:
    """One step of gradient descent on a batch; updates P, Q, b_u, b_i in place.

    Minimises, over the rows (u, i, r, w) of the batch,

        sum  1/2 w (r - mu - b_u - b_i - p_u·q_i)^2 + lambda/2 (b_u^2 + b_i^2 + |p_u|^2 + |q_i|^2)

    Gradients are summed at the values the batch started with: a batch of one row is the classical
    update (Koren, Bell, Volinsky 2009).

    Parameters
    ----------
    P, Q
        Factors, U x F and I x F.
    b_u, b_i
        Biases, U and I.
    mu
        The mean of all ratings.
    users, items
        int64, B.
    ratings, weights
        r and w, of the factors' type, B.
    learning_rate
        The length of the step.
    regularization
        lambda.

    Returns
    -------
    The loss of each row without the penalty, B.
    """
    p, q = P.index_select(0, users), Q.index_select(0, items)  # B x F
    bu, bi = b_u.index_select(0, users), b_i.index_select(0, items)  # B
    error = ratings - (mu + bu + bi + (p * q).sum(1))  # B
    step = learning_rate * weights * error  # B
    shrink = learning_rate * regularization
    P.index_add_(0, users, (step[:, None] * q).sub_(p, alpha=shrink))
    Q.index_add_(0, items, (step[:, None] * p).sub_(q, alpha=shrink))
    b_u.index_add_(0, users, step - shrink * bu)
    b_i.index_add_(0, items, step - shrink * bi)
    return weights * error**2 / 2


class Ratings:
    """What an epoch visits: the known ratings, each joined by a cell drawn from all U x I.

    Parameters
    ----------
    ratings
        CSR matrix, U x I, with n stored cells.
    unobserved_weight
        The weight w of an unobserved cell. Without it no cells are drawn.
    dtype
        That of the factors.
    """

    def __init__(self, ratings: sp.csr_matrix, unobserved_weight: float, dtype: torch.dtype):
        self.shape = ratings.shape
        self.users, self.items = interactions(ratings)  # n
        self.values = torch.from_numpy(ratings.data).to(dtype)  # n
        self.cell_weight = unobserved_weight * self.shape[0] * self.shape[1] / ratings.nnz

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, chosen: Tensor, rng: torch.Generator) -> Batch:
        users, items = self.users.index_select(0, chosen), self.items.index_select(0, chosen)
        ratings = self.values.index_select(0, chosen)
        weights = torch.ones_like(ratings)
        if self.cell_weight:
            n_users, n_items = self.shape
            users = torch.cat([users, torch.randint(n_users, chosen.shape, generator=rng)])
            items = torch.cat([items, torch.randint(n_items, chosen.shape, generator=rng)])
            ratings = torch.cat([ratings, torch.zeros_like(ratings)])
            weights = torch.cat([weights, self.cell_weight * weights])
        return {"users": users, "items": items, "ratings": ratings, "weights": weights}


@dataclass(eq=False, kw_only=True)
class SVD(FactorModel):
    """Ratings are estimated as mu + b_u + b_i + p_u·q_i.

    That is their mean, what user and item add to it, and what depends on both. Minimises the
    squared error of the known ratings with an L2 penalty (see ``svd_step``) by mini-batch SGD (Funk
    2006; Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE
    Computer 2009).

    With ``unobserved_weight`` w > 0, each of the n ratings is joined by a cell drawn uniformly from
    all U x I, with the target 0 and the weight w U I / n, so that every cell is a zero of weight w.
    Then mu = 0, the ranking gains, the error grows.

    A stored 0 is an empty cell: shift a scale that has a 0.

    Parameters
    ----------
    learning_rate
        That of the first iteration.
    regularization
        lambda, the weight of the penalty.
    unobserved_weight
        The weight w of each of the U I cells as a zero.
    decay
        What the learning rate is multiplied by after each iteration.
    batch_size
        Ratings in a step.
    init_std
        Standard deviation of the first factors.
    """

    learning_rate: NotNegative = 0.05
    regularization: NotNegative = 0.05
    unobserved_weight: NotNegative = 0.0
    decay: Positive = 0.86
    iterations: Size = 35
    batch_size: Size = 4096
    init_std: NotNegative = 0.02

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        self._initialise(user_items, self.init_std)
        if not self.unobserved_weight:
            self.global_bias = float(user_items.data.mean(dtype="float64"))
        ratings = Ratings(user_items, self.unobserved_weight, self.dtype)
        return epochs(self, ratings, generator(self.seed, TRAINING))

    def _step(self, batch: Batch, learning_rate: float) -> Tensor:
        return svd_step(
            P=self.user_factors,
            Q=self.item_factors,
            b_u=self.user_biases,
            b_i=self.item_biases,
            mu=self.global_bias,
            learning_rate=learning_rate,
            regularization=self.regularization,
            **batch,
        )
