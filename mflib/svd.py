"""SVD: biased matrix factorization of explicit ratings by stochastic gradient descent."""

from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.model import Epoch, FactorModel, interactions, sgd


def svd_step(
    P: Tensor, Q: Tensor, b_u: Tensor, b_i: Tensor, mu: float,
    users: Tensor, items: Tensor, ratings: Tensor, weights: Tensor, learning_rate: float, regularization: float,
) -> Tensor:  # fmt: skip
    """One step of gradient descent on a batch; updates P, Q, b_u, b_i in place.

    Minimises, over the rows (u, i, r, w) of the batch,

        sum  1/2 w (r - mu - b_u - b_i - p_u·q_i)^2 + lambda/2 (b_u^2 + b_i^2 + |p_u|^2 + |q_i|^2)

    P (U x F), Q (I x F), b_u (U), b_i (I); users, items (int64, B), ratings, weights (B). Gradients are summed at the
    values the batch started with: a batch of one row is the classical update (Koren, Bell, Volinsky 2009). Returns the
    loss of each row without the penalty (B).
    """
    p, q = P.index_select(0, users), Q.index_select(0, items)  # B x F
    bu, bi = b_u.index_select(0, users), b_i.index_select(0, items)  # B
    error = ratings - (mu + bu + bi + (p * q).sum(1))  # B
    step, shrink = learning_rate * weights * error, learning_rate * regularization
    P.index_add_(0, users, (step[:, None] * q).sub_(p, alpha=shrink))
    Q.index_add_(0, items, (step[:, None] * p).sub_(q, alpha=shrink))
    b_u.index_add_(0, users, step - shrink * bu)
    b_i.index_add_(0, items, step - shrink * bi)
    return weights * error**2 / 2


@dataclass(eq=False, kw_only=True)
class SVD(FactorModel):
    """Ratings are estimated as mu + b_u + b_i + p_u·q_i: their mean, what u and i add to it, what depends on both.

    Minimises the squared error of the known ratings with an L2 penalty (see ``svd_step``) by mini-batch SGD (Funk 2006;
    Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009).

    With ``unobserved_weight`` w > 0, each rating is joined by a cell drawn uniformly from all U x I, with the target 0
    and the weight w U I / n, so that every cell is a zero of weight w. Then mu = 0, the ranking gains, the error grows.
    """

    learning_rate: float = 0.05
    regularization: float = 0.05
    unobserved_weight: float = 0.0
    decay: float = 0.86
    iterations: int = 35
    batch_size: int = 4096
    init_std: float = 0.02

    def _prepare(self, user_items: sp.csr_matrix) -> Epoch:
        self._draw(user_items.shape, self.init_std)
        known = (*interactions(user_items), torch.from_numpy(user_items.data).to(self.dtype))
        cell_weight = self.unobserved_weight * user_items.shape[0] * user_items.shape[1] / user_items.nnz
        if not cell_weight:
            self.global_bias = float(user_items.data.mean(dtype="float64"))

        def step(rows: Tensor, learning_rate: float, rng: torch.Generator) -> Tensor:
            users, items, ratings = (t.index_select(0, rows).to(self.device) for t in known)
            weights = torch.ones_like(ratings)
            if cell_weight:
                cells = (torch.randint(n, rows.shape, generator=rng).to(self.device) for n in user_items.shape)
                users, items = (torch.cat(pair) for pair in zip((users, items), cells, strict=True))
                ratings = torch.cat([ratings, torch.zeros_like(ratings)])
                weights = torch.cat([weights, cell_weight * weights])
            model = (self.user_factors, self.item_factors, self.user_biases, self.item_biases, self.global_bias)
            return svd_step(*model, users, items, ratings, weights, learning_rate, self.regularization)

        return sgd(self, user_items.nnz, step)
