"""WARP: weighted approximate-rank pairwise loss, which focuses on the top of the list."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.inputs import likes_of, nonnegative_float, positive_float, positive_int
from mflib.model import FactorModel
from mflib.sampling import TRAINING, generator
from mflib.sparse import interactions
from mflib.training import Batch, epochs

LIKES_PER_ROW = 32  # a step sums the gradients of a row; with more likes training would diverge
WIDE = 20_000  # with more items than this, scoring only the drawn ones is faster than scoring all
Scores = Callable[[Tensor, Tensor], Tensor]


def scorer(p_block: Tensor, Q: Tensor, known: Tensor) -> Scores:
    """Return a function (rows, items) -> scores p·q, -inf where the user likes the item.

    Parameters
    ----------
    p_block : tensor, shape (B, F)
        The factors of the user of each row.
    Q : tensor, shape (I, F)
        The factors of all items.
    known : int64 tensor, ascending
        row * I + item, for each row and every item that its user likes.
    """
    if len(Q) <= WIDE:
        products = (p_block @ Q.T).view(-1).index_fill_(0, known, -torch.inf)  # B * I

        def score(rows: Tensor, items: Tensor) -> Tensor:
            pairs = rows * len(Q) + items
            return products.index_select(0, pairs.view(-1)).view_as(pairs)

    else:

        def score(rows: Tensor, items: Tensor) -> Tensor:
            pairs = rows * len(Q) + items
            # A binary search in known: torch.isin takes twenty times as long.
            place = torch.searchsorted(known, pairs).clamp_(max=len(known) - 1)
            is_known = known.index_select(0, place.view(-1)).view_as(pairs) == pairs
            q = Q.index_select(0, items.view(-1)).view(*items.shape, Q.shape[1])
            return (p_block.index_select(0, rows) * q).sum(-1).masked_fill_(is_known, -torch.inf)

    return score


def first_violations(scores: Scores, rows: Tensor, limits: Tensor, draws: Tensor) -> Tensor:
    """Return how many draws each positive needs until one scores above its limit.

    The draws are tried in rounds that end with the 4th, 16th, 64th, … draw. Positives that have
    found a violation skip the later rounds.

    Parameters
    ----------
    scores : callable
        See ``scorer``.
    rows : int64 tensor, shape (n,)
        The row of each positive.
    limits : tensor, shape (n,)
    draws : int64 tensor, shape (D, n)
        The candidates of each positive, tried from row 0 on.

    Returns
    -------
    int64 tensor, shape (n,)
        0 where no draw scores above the limit.
    """
    needed, searching = torch.zeros_like(rows), torch.arange(len(rows), device=rows.device)
    start, end = 0, 4
    while start < len(draws):
        candidates = draws[start:end].index_select(1, searching)
        violates = scores(rows, candidates) > limits
        found, first = violates.max(0)
        needed.index_copy_(0, searching, torch.where(found, start + 1 + first, 0))
        left = (~found).nonzero()[:, 0]
        searching, rows, limits = (t.index_select(0, left) for t in (searching, rows, limits))
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
    """Take one step of gradient descent on a block of users, updating P and Q in place.

    Positive k is the liked item i = ``positives[k]`` of the user u = ``users[rows[k]]``. Its
    candidates ``draws[:, k]`` are tried in order until one, j, that the user does not like violates
    the margin: s_j > s_i - margin. After d draws the rank of i is estimated as floor((I - 1) / d).
    The step minimises, over the positives that found a violation,

        sum  L(rank) (margin - s_i + s_j) + lambda/2 (|p_u|^2 + |q_i|^2 + |q_j|^2),    s = p_u·q

    All gradients use the values before the step (Weston, Bengio, Usunier 2011, algorithm 1).

    The rank estimate is biased. With v violating items, d is geometric, and E[(I - 1) / d] =
    (I - 1) v / (I - v) ln(I / v) for unlimited draws, nearly always above v: a rank of 1 is
    estimated as about ln I. With D draws no rank below (I - 1) / D is ever estimated, and a share
    (1 - v / I)^D of the positives finds no violation.

    Parameters
    ----------
    P, Q : tensors, shapes (U, F) and (I, F)
        Factors.
    users : int64 tensor, shape (B,)
        The user of each row of the block; a user may occur more than once.
    known : int64 tensor, ascending
        row * I + item, for each row and *every* item that its user likes.
    rows, positives : int64 tensors, shape (n,)
        The row and the liked item of each positive.
    draws : int64 tensor, shape (D, n)
        Candidates, drawn uniformly from all items.
    rank_weights : tensor, shape (I,)
        L(0), …, L(I - 1).
    margin, learning_rate, regularization : float
        The margin, the step length, and lambda.

    Returns
    -------
    losses, needed : tensors, shape (n,)
        The loss of each positive without the penalty, and the number of draws it needed (int64);
        both 0 where no violation was found.
    """
    p_block = P.index_select(0, users)  # B x F
    p, qi = p_block.index_select(0, rows), Q.index_select(0, positives)  # n x F
    limits = (p * qi).sum(1) - margin  # n
    scores = scorer(p_block, Q, known)
    needed = first_violations(scores, rows, limits, draws)  # n

    found = needed.nonzero()[:, 0]  # from here on only the m positives that found a violation
    rows, liked, needed_draws = (t.index_select(0, found) for t in (rows, positives, needed))
    p, qi = p.index_select(0, found), qi.index_select(0, found)  # m x F
    violating = draws[needed_draws - 1, found]
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
    """Cut the likes of each user, in random order, into rows with up to ``length`` likes.

    Four users with 3, 0, 1 and 5 likes and rows of length 2 give six rows:

        users  0  0  2  3  3  3       user 0 has a row of 2 likes and one of 1, user 1 has none,
        likes  2  1  1  2  2  1       user 2 has one of 1, user 3 has rows of 2, 2 and 1

    Parameters
    ----------
    likes : csr_matrix, shape (U, I)
    rng : torch.Generator
        Used to shuffle each user's likes.
    length : int

    Returns
    -------
    users : int64 array, shape (R,)
        The user of each row.
    rows : csr_matrix, shape (R, I)
        The likes of each row.
    """
    users, items = interactions(likes)
    order = torch.randperm(likes.nnz, generator=rng, device="cpu")
    by_user = order[users[order].argsort(stable=True)]
    place = torch.arange(likes.nnz, device="cpu") - torch.from_numpy(likes.indptr)[users]
    first = (place % length == 0).nonzero()[:, 0]  # the first like of each row
    entries = (likes.data, items[by_user].numpy(), np.append(first, likes.nnz))
    return users[first].numpy(), sp.csr_matrix(entries, (len(first), likes.shape[1]))


def harmonic_numbers(n: int) -> Tensor:
    """Return L(0), …, L(n - 1), where L(r) = 1 + 1/2 + ... + 1/r: float64, shape (n,)."""
    reciprocals = torch.arange(1, n, dtype=torch.float64, device="cpu").reciprocal()
    return torch.cat([reciprocals.new_zeros(1), reciprocals.cumsum(0)])


class Blocks:
    """The batches of WARP: blocks of rows of likes, cut once before training.

    A step sums the gradients of all likes of a row. Two rows of the same user are never in the same
    block, because the sum of their gradients would make the step too long.

    Parameters
    ----------
    likes : csr_matrix, shape (U, I)
    size : int
        The largest number of rows in a block.
    max_draws : int
        D, the number of candidates for each like.
    rng : torch.Generator
        Used to cut the likes into rows and to group the rows.
    device : str
        Where ``draw`` puts the tensors.

    Attributes
    ----------
    batches : list of dict
        The fixed part of each block: users, rows, positives (see ``warp_step``).
    """

    def __init__(
        self,
        likes: sp.csr_matrix,
        size: int,
        max_draws: int,
        rng: torch.Generator,
        device: str | torch.device = "cpu",
    ):
        self.likes, self.max_draws, self.device = likes, max_draws, device
        user_of, likes_by_row = cut_into_rows(likes, rng)
        # Dealing the rows out in turn puts rows of the same user into different blocks.
        shuffled = torch.randperm(likes.shape[0], generator=rng, device="cpu").numpy()
        by_user = np.argsort(shuffled[user_of], kind="stable")
        count = max(-(-len(by_user) // size), int(np.bincount(user_of).max()))
        self.batches: list[Batch] = []
        for part in (by_user[first::count] for first in range(count)):
            rows, positives = interactions(likes_by_row[part])
            users = torch.from_numpy(user_of[part])
            self.batches.append({"users": users, "rows": rows, "positives": positives})

    def draw(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return a block with its ``known`` likes and ``draws`` (see ``warp_step``)."""
        n_items = self.likes.shape[1]
        rows, items = interactions(self.likes[batch["users"].numpy()])
        shape = (self.max_draws, len(batch["rows"]))
        draws = torch.randint(n_items, shape, generator=rng, device="cpu")
        tensors = batch | {"known": rows * n_items + items, "draws": draws}
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}


@dataclass(eq=False, kw_only=True)
class WARP(FactorModel):
    """Learn scores p_u·q_i that put liked items at the top of the list.

    Minimises the sum over the liked items of L(rank). The rank counts the items that are not liked
    and score within ``margin`` of the liked one or above it; L(r) = 1 + 1/2 + ... + 1/r, so
    errors near the top of the list matter most. ``warp_step`` estimates the rank from at most
    ``max_draws`` draws. An iteration visits all likes in random blocks of ``batch_size`` rows, each
    with up to 32 likes of one user (Weston, Bengio, Usunier, "WSABIE: Scaling Up to Large
    Vocabulary Image Annotation", IJCAI 2011). Values above 0 are likes; all others are not.

    Parameters
    ----------
    learning_rate : float
        The learning rate of the first iteration.
    regularization : float
        lambda, the weight of the penalty.
    margin : float
        By how much a liked item should outscore the others.
    max_draws : int
        The number of draws after which the search for a violation stops.
    decay : float
        The factor that multiplies the learning rate after each iteration.
    batch_size : int
        The number of rows of likes in a step.
    init_std : float
        The standard deviation of the initial factors.
    factors, iterations, random_state, dtype, device
        See ``FactorModel``.
    """

    learning_rate: float = 0.01
    regularization: float = 0.55
    margin: float = 1.0
    max_draws: int = 50
    decay: float = 0.88
    iterations: int = 30
    batch_size: int = 128
    init_std: float = 0.03

    def _validate(self) -> None:
        super()._validate()
        for name in ("learning_rate", "regularization", "margin"):
            setattr(self, name, nonnegative_float(name, getattr(self, name)))
        for name in ("decay", "init_std"):
            setattr(self, name, positive_float(name, getattr(self, name)))
        for name in ("max_draws", "batch_size"):
            setattr(self, name, positive_int(name, getattr(self, name)))

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        likes = likes_of(user_items)
        n_items = likes.shape[1]
        if np.isin(likes.getnnz(1), (0, n_items)).all():
            got = f"only users who like all {n_items} items, or none"
            raise ValueError(f"expected users who like some but not all items, got {got}")
        self._initialise(likes, self.init_std)
        rng = generator(self.seed, TRAINING)
        blocks = Blocks(likes, self.batch_size, self.max_draws, rng, self.device)
        weights = {"rank_weights": harmonic_numbers(n_items).to(self.device, self.dtype)}
        return epochs(self, blocks.batches, rng, lambda b, rng: blocks.draw(b, rng) | weights)

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
