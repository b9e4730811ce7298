"""WARP: weighted approximate-rank pairwise loss, which cares for the top of the list."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.model import Epoch, FactorModel, interactions, sgd
from mflib.sampling import ORDER, generator

LIKES_PER_ROW = 32  # a step sums over them, and too large a sum diverges
WIDE = 20_000  # for more items than this, to score only the drawn ones is faster than to score all
ROUND = 10  # draws at a time
Scores = Callable[[Tensor, Tensor], Tensor]


def scorer(p_block: Tensor, Q: Tensor, liked: Tensor) -> Scores:
    """The function (rows, items; int64) -> scores p·q, -inf in the ``liked`` cells: row * I + item, sorted."""
    if len(Q) <= WIDE:
        products = (p_block @ Q.T).view(-1).index_fill_(0, liked, -torch.inf)  # B I
        return lambda rows, items: products.index_select(0, (rows * len(Q) + items).view(-1)).view_as(items)

    def scores(rows: Tensor, items: Tensor) -> Tensor:
        cells = rows * len(Q) + items
        place = torch.searchsorted(liked, cells).clamp_(max=len(liked) - 1)  # torch.isin takes twenty times as long
        known = liked.index_select(0, place.view(-1)).view_as(cells) == cells
        q = Q.index_select(0, items.view(-1)).view(*items.shape, Q.shape[1])
        return (p_block.index_select(0, rows) * q).sum(-1).masked_fill_(known, -torch.inf)

    return scores


def first_violations(scores: Scores, rows: Tensor, limits: Tensor, draws: Tensor) -> Tensor:
    """How many draws each positive needs until one scores above its limit -> int64, n; 0: none did.

    Positive k belongs to row ``rows[k]`` (int64, n) of ``scores``, has the limit ``limits[k]`` (n) and the candidates
    ``draws[:, k]`` (int64, D x n), tried from the top down. Who has found one is spared the later rounds.
    """
    needed = torch.zeros_like(rows)
    for start in range(0, len(draws), ROUND):
        k = (needed == 0).nonzero()[:, 0]  # who still searches
        violates, first = (scores(rows[k], draws[start : start + ROUND].index_select(1, k)) > limits[k]).max(0)
        needed[k] = torch.where(violates, start + 1 + first, 0)
    return needed


def warp_step(
    P: Tensor, Q: Tensor, users: Tensor, liked: Tensor, rows: Tensor, positives: Tensor, draws: Tensor,
    rank_weights: Tensor, margin: float, learning_rate: float, regularization: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One step of gradient descent on positives of a block of users; updates P, Q in place.

    Positive k is the liked item ``positives[k]`` of ``users[rows[k]]``. Its candidates ``draws[:, k]`` are tried in
    order until one, j, that the user does not like violates the margin: s_j > s_i - margin. After d draws the rank of
    i is taken to be floor((I - 1) / d), and the step minimises, over the positives that found a violation,

        sum  L(rank) (margin - s_i + s_j) + lambda/2 (|p_u|^2 + |q_i|^2 + |q_j|^2),    s = p_u·q

    P (U x F), Q (I x F); users (int64, B); liked (int64): row * I + item of *all* that these users like, sorted; rows,
    positives (int64, n); draws (int64, D x n), uniform over all items; rank_weights L (I). Gradients are summed at the
    values the step started with. Returns the losses without the penalty and the draws needed (n; 0: nothing found).

    The rank is biased: with v violating items d is geometric, and E[(I - 1) / d] = (I - 1) v / (I - v) ln(I / v) for D
    without bound, nearly always above v: a rank of 1 is taken for about ln I. With D draws no rank below (I - 1) / D is
    ever taken, and (1 - v / I)^D of the positives find nothing. Weston, Bengio, Usunier 2011, algorithm 1.
    """
    p_block = P.index_select(0, users)  # B x F
    p, qi = p_block.index_select(0, rows), Q.index_select(0, positives)  # n x F
    limits = (p * qi).sum(1) - margin  # n
    scores = scorer(p_block, Q, liked)
    needed = first_violations(scores, rows, limits, draws)

    k = needed.nonzero()[:, 0]  # the positives that found a violation, after d draws
    d, rows, i, p, qi = (t.index_select(0, k) for t in (needed, rows, positives, p, qi))
    j = draws.view(-1).index_select(0, (d - 1) * len(needed) + k)
    qj, weight = Q.index_select(0, j), rank_weights.index_select(0, (len(Q) - 1) // d)
    losses = torch.zeros_like(limits).index_copy_(0, k, weight * (scores(rows, j) - limits.index_select(0, k)))
    step, shrink = (learning_rate * weight)[:, None], learning_rate * regularization
    step_p = step * p
    P.index_add_(0, users.index_select(0, rows), (qi - qj).mul_(step).sub_(p, alpha=shrink))
    Q.index_add_(0, i, torch.sub(step_p, qi, alpha=shrink))
    Q.index_add_(0, j, torch.add(step_p, qj, alpha=shrink).neg_())
    return losses, needed


@dataclass(eq=False, kw_only=True)
class WARP(FactorModel):
    """Scores p_u·q_i are trained so that liked items stand at the top of the list.

    Minimises the sum over the liked items of L(rank): rank counts the items that are not liked and come within
    ``margin`` of the liked one, and L(r) = 1 + 1/2 + ... + 1/r grows ever more slowly. ``warp_step`` estimates it from
    at most ``max_draws`` draws. An iteration visits all likes in random blocks of ``batch_size`` rows, each of up to 32
    likes of one user. Values above 0 are likes (Weston, Bengio, Usunier, "WSABIE: Scaling Up to Large Vocabulary Image
    Annotation", IJCAI 2011).
    """

    learning_rate: float = 0.01
    regularization: float = 0.55
    margin: float = 1.0
    max_draws: int = 50
    decay: float = 0.88
    iterations: int = 30
    batch_size: int = 128
    init_std: float = 0.03

    def _prepare(self, user_items: sp.csr_matrix) -> Epoch:
        likes = user_items > 0
        n_items = likes.shape[1]
        self._draw(likes.shape, self.init_std)
        users, liked = interactions(likes)
        order = torch.randperm(likes.nnz, generator=generator(self.random_state, ORDER))
        shuffled = liked[order[users[order].argsort(stable=True)]]  # within each user
        place = torch.arange(likes.nnz) - torch.from_numpy(likes.indptr)[users]  # among the user's likes
        first = (place % LIKES_PER_ROW == 0).nonzero()[:, 0]
        user_of = users[first]  # of the rows that an iteration visits
        parts = sp.csr_matrix((likes.data, shuffled.numpy(), np.append(first, likes.nnz)), (len(first), n_items))
        harmonic = torch.arange(1, n_items, dtype=torch.float64).reciprocal().cumsum(0)
        rank_weights = torch.cat([torch.zeros(1), harmonic]).to(self.device, self.dtype)  # L(0), L(1), …

        def step(chosen: Tensor, learning_rate: float, rng: torch.Generator) -> Tensor:
            users = user_of[chosen]
            known_rows, known = interactions(likes[users.numpy()])
            rows, positives = interactions(parts[chosen.numpy()])
            draws = torch.randint(n_items, (self.max_draws, len(rows)), generator=rng)
            block = (users, known_rows * n_items + known, rows, positives, draws)
            rest = (rank_weights, self.margin, learning_rate, self.regularization)
            return warp_step(self.user_factors, self.item_factors, *(t.to(self.device) for t in block), *rest)[0]

        return sgd(self, len(user_of), step)
