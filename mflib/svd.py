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
    weights: Tensor,
    learning_rate: float,
    regularization: float,
) -> Tensor:
    """Take one step of gradient descent on a batch, updating P, Q, b_u and b_i in place.

    The step minimises, over the entries (u, i) of the batch with rating r and weight w,

        sum  1/2 w (r - mu - b_u - b_i - p_u·q_i)^2 + lambda/2 (b_u^2 + b_i^2 + |p_u|^2 + |q_i|^2)

    All gradients use the values before the step. A user moves at the rate
    min(learning_rate, 1 / n), where n is the number of the user's entries in the batch; an entry of
    weight w > 1 counts as 4 w - 3. The same holds for an item. For a batch of one entry this is the
    classical update (Koren, Bell, Volinsky 2009).

    Parameters
    ----------
    P, Q : tensors, shapes (U, F) and (I, F)
        Factors.
    b_u, b_i : tensors, shapes (U,) and (I,)
        Biases.
    mu : float
        The global mean.
    entries : Entries, shape (U, I)
        The n positions (u, i) of the batch: ``entries.rows`` and ``entries.columns``.
    ratings, weights : tensors, shape (n,)
        r and w of each entry.
    learning_rate, regularization : float
        The step length, and lambda.

    Returns
    -------
    tensor, shape (n,)
        1/2 w (error)^2 of each entry, without the penalty.
    """
    load = (4 * weights - 3).clamp(min=1)  # n
    rate_u = row_rates(learning_rate, entries.row_sums(load), BOUND)  # U
    rate_i = row_rates(learning_rate, entries.column_sums(load), BOUND)  # I
    keep_u = 1 - rate_u * regularization * entries.row_counts  # shrinkage by the penalty
    keep_i = 1 - rate_i * regularization * entries.column_counts

    users, items = entries.rows, entries.columns  # n
    estimates = mu + b_u.index_select(0, users) + b_i.index_select(0, items) + entries.dot(P, Q)
    error = ratings - estimates
    pull = weights * error
    step_u, step_i = pull * rate_u.index_select(0, users), pull * rate_i.index_select(0, items)

    step_Q = entries.transposed(step_i) @ P  # I x F, from P before its update
    P.mul_(keep_u[:, None]).addmm_(entries.matrix(step_u), Q)
    Q.mul_(keep_i[:, None]).add_(step_Q)
    b_u.mul_(keep_u).add_(entries.row_sums(step_u))
    b_i.mul_(keep_i).add_(entries.column_sums(step_i))
    return pull * error / 2


@dataclass(eq=False, kw_only=True)
class SVD(FactorModel):
    """Estimate ratings as mu + b_u + b_i + p_u·q_i: mean, biases and an interaction.

    Minimises the squared error of the known ratings with an L2 penalty (see ``svd_step``) by
    mini-batch SGD (Funk 2006; Koren, Bell, Volinsky, "Matrix Factorization Techniques for
    Recommender Systems", IEEE Computer 2009).

    With ``unobserved_weight`` w > 0, each batch also has one random entry for each of its ratings,
    drawn uniformly from all U x I, with target 0 and weight w U I / n for n ratings in all. In
    expectation every entry of the matrix then counts as a zero of weight w, and mu is 0. The
    ranking improves, but the rating error grows.

    A stored 0 counts as unknown; shift a rating scale that includes 0.

    Parameters
    ----------
    learning_rate : float
        The learning rate of the first iteration.
    regularization : float
        lambda, the weight of the penalty.
    unobserved_weight : float
        w, the expected weight of each of the U I entries as a zero.
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
    unobserved_weight: float = 0.0
    decay: float = 0.86
    iterations: int = 35
    batches: int = 32
    init_std: float = 0.02

    def _validate(self) -> None:
        super()._validate()
        for name in ("learning_rate", "regularization", "unobserved_weight", "init_std"):
            setattr(self, name, nonnegative_float(name, getattr(self, name)))
        self.decay = positive_float("decay", self.decay)
        self.batches = positive_int("batches", self.batches)

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        self._initialise(user_items, self.init_std)
        ratings = as_values(user_items, self.dtype)
        if not self.unobserved_weight:
            self.global_bias = float(user_items.data.mean(dtype="float64"))
        rng = generator(self.seed, TRAINING)
        batches = [
            {
                "entries": entries.to(self.device),
                "ratings": ratings[part].to(self.device),
                "weights": torch.ones(len(part), dtype=self.dtype, device=self.device),
            }
            for part, entries in partition(user_items, self.batches, rng)
        ]
        if not self.unobserved_weight:
            return epochs(self, batches, rng)
        weight = self.unobserved_weight * user_items.shape[0] * user_items.shape[1] / len(ratings)
        return epochs(self, batches, rng, lambda batch, rng: with_zeros(batch, weight, rng))

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


def with_zeros(batch: Batch, weight: float, rng: torch.Generator) -> Batch:
    """Return a batch extended by as many random entries of the matrix, as weighted zeros."""
    known: Entries = batch["entries"]
    rows, columns = (
        torch.randint(size, (len(known),), generator=rng, device="cpu") for size in known.shape
    )
    rows = torch.cat([known.rows.cpu().long(), rows])
    order = rows.argsort(stable=True)
    columns = torch.cat([known.columns.cpu().long(), columns])
    ratings, weights = batch["ratings"], batch["weights"]
    return {
        "entries": Entries.at(rows[order], columns[order], known.shape).to(ratings.device),
        "ratings": torch.cat([ratings, torch.zeros_like(ratings)])[order],
        "weights": torch.cat([weights, torch.full_like(weights, weight)])[order],
    }
