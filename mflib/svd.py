"""SVD: biased matrix factorization of explicit ratings by stochastic gradient descent."""

from collections.abc import Iterator
from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.inputs import as_values, nonnegative_float, positive_float, positive_int
from mflib.model import FactorModel
from mflib.sampling import TRAINING, generator
from mflib.sparse import Entries, partition
from mflib.training import Batch, epochs, row_rates

BOUND = 1.0  # upper limit of a row's learning rate times its entries in a batch


def svd_step(
    P: Tensor,
    Q: Tensor,
    b_u: Tensor,
    b_i: Tensor,
    mu: float,
    entries: Entries,
    ratings: Tensor,
    learning_rate: float,
    regularization: float,
) -> Tensor:
    """Take one step of gradient descent on a batch, updating P, Q, b_u and b_i in place.

    The step minimises, over the entries (u, i) of the batch with rating r,

        sum  1/2 (r - mu - b_u - b_i - p_u·q_i)^2 + lambda/2 (b_u^2 + b_i^2 + |p_u|^2 + |q_i|^2)

    All gradients use the values before the step. A user with n_u entries in the batch moves at the
    rate min(learning_rate, 1 / n_u), and an item with n_i entries at min(learning_rate, 1 / n_i).
    For a batch of one entry this is the classical update (Koren, Bell, Volinsky 2009).

    Parameters
    ----------
    P, Q : tensors, shapes (U, F) and (I, F)
        Factors.
    b_u, b_i : tensors, shapes (U,) and (I,)
        Biases.
    mu : float
        The global mean.
    entries : Entries, shape (U, I)
        The m positions (u, i) of the batch: ``entries.rows`` and ``entries.columns``.
    ratings : tensor, shape (m,)
        r of each entry.
    learning_rate, regularization : float
        The step length, and lambda.

    Returns
    -------
    tensor, shape (m,)
        1/2 (error)^2 of each entry, without the penalty.
    """
    n_u, n_i = entries.row_counts.to(P.dtype), entries.column_counts.to(P.dtype)  # U, I
    rate_u, rate_i = row_rates(learning_rate, n_u, BOUND), row_rates(learning_rate, n_i, BOUND)
    keep_u = 1 - rate_u * regularization * n_u  # shrinkage by the penalty
    keep_i = 1 - rate_i * regularization * n_i

    users, items = entries.rows, entries.columns  # m each
    estimates = mu + b_u.index_select(0, users) + b_i.index_select(0, items) + entries.dot(P, Q)
    error = ratings - estimates
    step_u = error * rate_u.index_select(0, users)
    step_i = error * rate_i.index_select(0, items)

    step_Q = entries.transposed(step_i) @ P  # I x F, from P before its update
    P.mul_(keep_u[:, None]).addmm_(entries.matrix(step_u), Q)
    Q.mul_(keep_i[:, None]).add_(step_Q)
    b_u.mul_(keep_u).add_(entries.row_sums(step_u))
    b_i.mul_(keep_i).add_(entries.column_sums(step_i))
    return torch.square(error) / 2


@dataclass(eq=False, kw_only=True)
class SVD(FactorModel):
    """Estimate ratings as mu + b_u + b_i + p_u·q_i: mean, biases and an interaction.

    Minimises the squared error of the known ratings with an L2 penalty (see ``svd_step``) by
    mini-batch SGD (Funk 2006; Koren, Bell, Volinsky, "Matrix Factorization Techniques for
    Recommender Systems", IEEE Computer 2009).

    A stored 0 counts as unknown; shift a rating scale that includes 0.

    Parameters
    ----------
    learning_rate : float
        The learning rate of the first iteration.
    regularization : float
        lambda, the weight of the penalty.
    decay : float
        The factor that multiplies the learning rate after each iteration.
    batches : int
        The number of batches, and thus of steps, in an iteration.
    init_std : float
        The standard deviation of the initial factors.
    factors, iterations, random_state, dtype, device
        See ``FactorModel``.
    """

    learning_rate: float = 0.05
    regularization: float = 0.05
    decay: float = 0.86
    iterations: int = 35
    batches: int = 32
    init_std: float = 0.02

    def _validate(self) -> None:
        super()._validate()
        for name in ("learning_rate", "regularization", "init_std"):
            setattr(self, name, nonnegative_float(name, getattr(self, name)))
        self.decay = positive_float("decay", self.decay)
        self.batches = positive_int("batches", self.batches)

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        self._initialise(user_items, self.init_std)
        ratings = as_values(user_items, self.dtype)
        self.global_bias = float(user_items.data.mean(dtype="float64"))
        rng = generator(self.seed, TRAINING)
        parts = partition(user_items, self.batches, rng)
        batches = [
            {"entries": entries.to(self.device), "ratings": ratings[part].to(self.device)}
            for part, entries in parts
        ]
        return epochs(self, batches, rng)

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
