"""WARP: weighted approximate-rank pairwise loss, which cares for the top of the list."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.matrices import interactions, likes_of
from mflib.model import FactorModel
from mflib.parameters import NotNegative, Positive, Size
from mflib.sampling import TRAINING, generator
from mflib.training import Batch, epochs

LIKES_PER_ROW = 32  # a step sums over them, and too large a sum diverges
WIDE = 20_000  # for more items than this, to score only the drawn ones is faster than to score all
Scores = Callable[[Tensor, Tensor], Tensor]


def scorer(p_block: Tensor, Q: Tensor, known: Tensor) -> Scores:
    """The function (rows, items; int64) -> scores p·q, -inf where the user has the item.

    Parameters
    ----------
    p_block
        The factors of the rows' users, B x F.
    Q
        The factors of all items, I x F.
    known
        row * I + item of all that these users like, int64, ascending.
    """
    if len(Q) <= WIDE:
        products = (p_block @ Q.T).view(-1).index_fill_(0, known, -torch.inf)  # B * I

        def score(rows: Tensor, items: Tensor) -> Tensor:
            cells = rows * len(Q) + items
            return products.index_select(0, cells.view(-1)).view_as(cells)

    else:

        def score(rows: Tensor, items: Tensor) -> Tensor:
            cells = rows * len(Q) + items
            # known is searched for them: torch.isin takes twenty times as long
            place = torch.searchsorted(known, cells).clamp_(max=len(known) - 1)
            is_known = known.index_select(0, place.view(-1)).view_as(cells) == cells
            q = Q.index_select(0, items.view(-1)).view(*items.shape, Q.shape[1])
            return (p_block.index_select(0, rows) * q).sum(-1).masked_fill_(is_known, -torch.inf)

    return score


def first_violations(scores: Scores, rows: Tensor, limits: Tensor, draws: Tensor) -> Tensor:
    """How many draws each positive needs until one scores above its limit.

    They are tried in rounds that end with the 4th, 16th, 64th, …; who has found one is spared the
    later rounds.

    Parameters
    ----------
    scores
        As ``scorer`` returns it.
    rows, limits
        The row (int64) and the limit of each positive, n.
    draws
        The candidates of each positive, tried from the top down, int64, D x n.

    Returns
    -------
    int64, n; 0 where none of the draws does.
    """
    needed, searching = torch.zeros_like(rows), torch.arange(len(rows), device=rows.device)
    start, end = 0, 4
    while start < len(draws):
        candidates = draws[start:end].index_select(1, searching)
        violates = scores(rows, candidates) > limits
        found, first = violates.max(0)
        needed.index_copy_(0, searching, torch.where(found, start + 1 + first, 0))
        still = (~found).nonzero()[:, 0]
        searching, rows, limits = (t.index_select(0, still) for t in (searching, rows, limits))
        start, end = end, 4 * end
    return needed


def warp_step(
    P: Tensor,
    Q: Tensor,
    users: Tensor,
    known: Tensor,
    rows: Tensor,
    positives: Tensor,
    draws: Tensor,
    rank_weights: Tensor,
    margin: float,
    learning_rate: float,
    regularization: float,
) -> tuple[Tensor, Tensor]:
    """One step of gradient descent on positives of a block of users; updates P, Q in place.

    Positive k is the liked item i = ``positives[k]`` of the user u = ``users[rows[k]]``. Its
    candidates ``draws[:, k]`` are tried in order until one, j, that the user does not like violates
    the margin: s_j > s_i - margin. After d draws the rank of i is taken to be floor((I - 1) / d),
    and the step minimises, over the positives that found a violation,

        sum  L(rank) (margin - s_i + s_j) + lambda/2 (|p_u|^2 + |q_i|^2 + |q_j|^2),    s = p_u·q

    Gradients are summed at the values the step started with (Weston, Bengio, Usunier 2011,
    algorithm 1).

    The rank is biased: with v violating items d is geometric, and E[(I - 1) / d] =
    (I - 1) v / (I - v) ln(I / v) for D without bound, nearly always above v: a rank of 1 is taken
    for about ln I. With D draws no rank below (I - 1) / D is ever taken, and (1 - v / I)^D of the
    positives find nothing.

    Parameters
    ----------
    P, Q
        Factors, U x F and I x F.
    users
        The user of each row of the block, int64, B; one may come twice.
    known
        row * I + item of *all* that the user of each row likes, int64, ascending.
    rows, positives
        The row and the liked item of each positive, int64, n.
    draws
        Uniform over all items, int64, D x n.
    rank_weights
        L(0), L(1), …, L(I - 1).
    margin, learning_rate
        The margin; the length of the step.
    regularization
        lambda.

    Returns
    -------
    losses, needed
        The losses without the penalty and the draws needed, n each; 0 where nothing was found.
    """
    p_block = P.index_select(0, users)  # B x F
    p, qi = p_block.index_select(0, rows), Q.index_select(0, positives)  # n x F
    limits = (p * qi).sum(1) - margin  # n
    scores = scorer(p_block, Q, known)
    needed = first_violations(scores, rows, limits, draws)  # n

    found = needed.nonzero()[:, 0]  # from here on, only the m positives that found a violation
    rows, liked, needed_draws = (t.index_select(0, found) for t in (rows, positives, needed))
    p, qi = p.index_select(0, found), qi.index_select(0, found)  # m x F
    violating = draws.view(-1).index_select(0, (needed_draws - 1) * len(needed) + found)
    qj = Q.index_select(0, violating)  # m x F
    weight = rank_weights.index_select(0, (len(Q) - 1) // needed_draws)
    excess = scores(rows, violating) - limits.index_select(0, found)
    losses = torch.zeros_like(limits).index_copy_(0, found, weight * excess)

    step, shrink = (learning_rate * weight)[:, None], learning_rate * regularization
    step_p = step * p
    P.index_add_(0, users.index_select(0, rows), (qi - qj).mul_(step).sub_(p, alpha=shrink))
    Q.index_add_(0, liked, torch.sub(step_p, qi, alpha=shrink))
    Q.index_add_(0, violating, torch.add(step_p, qj, alpha=shrink).neg_())
    return losses, needed


def cut_into_rows(
    likes: sp.csr_matrix, rng: torch.Generator, length: int = LIKES_PER_ROW
) -> tuple[np.ndarray, sp.csr_matrix]:
    """Cut the likes of each user, in random order, into rows of at most ``length``.

    Four users with 3, 0, 1 and 5 likes and rows of 2 give six rows:

        users  0  0  3  …       user 0 has a row of 2 likes and one of 1, user 1 none,
        likes  2  1  …          user 2 one of 1, user 3 rows of 2, 2 and 1

    so that users = [0, 0, 2, 3, 3, 3] and the rows have 2, 1, 1, 2, 2, 1 likes.

    Parameters
    ----------
    likes
        CSR matrix, U x I.
    rng
        The generator that the order is drawn from.
    length
        How many likes a row holds at most.

    Returns
    -------
    users, rows
        The user of each row (int64, R) and CSR matrix, R x I, of the row's likes.
    """
    users, items = interactions(likes)
    order = torch.randperm(likes.nnz, generator=rng)
    within_users = order[users[order].argsort(stable=True)]
    place = torch.arange(likes.nnz) - torch.from_numpy(likes.indptr)[users]  # among the user's
    first = (place % length == 0).nonzero()[:, 0]  # of each row
    cells = (likes.data, items[within_users].numpy(), np.append(first, likes.nnz))
    return users[first].numpy(), sp.csr_matrix(cells, (len(first), likes.shape[1]))


def harmonic_numbers(n: int) -> Tensor:
    """L(0), …, L(n - 1), where L(r) = 1 + 1/2 + ... + 1/r: float64, n."""
    reciprocals = torch.arange(1, n, dtype=torch.float64).reciprocal()
    return torch.cat([torch.zeros(1, dtype=torch.float64), reciprocals.cumsum(0)])


class LikesInRows:
    """What an epoch visits: rows of likes of one user each, with draws for every like.

    The rows are cut once for all epochs, which visit them in other orders.
    """

    def __init__(
        self, likes: sp.csr_matrix, max_draws: int, dtype: torch.dtype, rng: torch.Generator
    ):
        self.likes, self.max_draws = likes, max_draws
        self.user_of, self.likes_by_row = cut_into_rows(likes, rng)
        self.rank_weights = harmonic_numbers(likes.shape[1]).to(dtype)

    def __len__(self) -> int:
        return len(self.user_of)

    def batch(self, chosen: Tensor, rng: torch.Generator) -> Batch:
        n_items = self.likes.shape[1]
        users = self.user_of[chosen.numpy()]
        known_rows, known_items = interactions(self.likes[users])
        rows, positives = interactions(self.likes_by_row[chosen.numpy()])
        draws = torch.randint(n_items, (self.max_draws, len(rows)), generator=rng)
        return {
            "users": torch.from_numpy(users),
            "known": known_rows * n_items + known_items,
            "rows": rows,
            "positives": positives,
            "draws": draws,
            "rank_weights": self.rank_weights,
        }


@dataclass(eq=False, kw_only=True)
class WARP(FactorModel):
    """Scores p_u·q_i are trained so that liked items stand at the top of the list.

    Minimises the sum over the liked items of L(rank): rank counts the items that are not liked and
    come within ``margin`` of the liked one, and L(r) = 1 + 1/2 + ... + 1/r grows ever more slowly.
    ``warp_step`` estimates it from at most ``max_draws`` draws. An iteration visits all likes in
    random blocks of ``batch_size`` rows, each of up to 32 likes of one user (Weston, Bengio,
    Usunier, "WSABIE: Scaling Up to Large Vocabulary Image Annotation", IJCAI 2011). Values above 0
    are likes; all others are not.

    Parameters
    ----------
    learning_rate
        That of the first iteration.
    regularization
        lambda, the weight of the penalty.
    margin
        How far ahead of the others a liked item is to be.
    max_draws
        After how many draws the search for a violation gives up.
    decay
        What the learning rate is multiplied by after each iteration.
    batch_size
        Rows of likes in a step.
    init_std
        Standard deviation of the first factors.
    """

    learning_rate: NotNegative = 0.01
    regularization: NotNegative = 0.55
    margin: NotNegative = 1.0
    max_draws: Size = 50
    decay: Positive = 0.88
    iterations: Size = 30
    batch_size: Size = 128
    init_std: Positive = 0.03

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        likes = likes_of(user_items)
        n_items = likes.shape[1]
        if np.isin(likes.getnnz(1), (0, n_items)).all():
            got = f"only users who like all {n_items} items, or none"
            raise ValueError(f"expected users who like some items, got {got}")
        self._initialise(likes, self.init_std)
        rng = generator(self.seed, TRAINING)
        return epochs(self, LikesInRows(likes, self.max_draws, self.dtype, rng), rng)

    def _step(self, batch: Batch, learning_rate: float) -> Tensor:
        losses, _ = warp_step(
            P=self.user_factors,
            Q=self.item_factors,
            margin=self.margin,
            learning_rate=learning_rate,
            regularization=self.regularization,
            **batch,
        )
        return losses
