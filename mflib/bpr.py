"""BPR: Bayesian personalized ranking, a pairwise loss on implicit feedback."""

from collections.abc import Iterator
from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.matrices import interactions, likes_of
from mflib.model import FactorModel
from mflib.parameters import NotNegative, Positive, Size
from mflib.sampling import TRAINING, Unliked, generator
from mflib.training import Batch, epochs


def bpr_step(
    P: Tensor,
    Q: Tensor,
    b: Tensor,
    users: Tensor,
    positives: Tensor,
    negatives: Tensor,
    learning_rate: float,
    user_regularization: float,
    item_regularization: float,
) -> Tensor:
    """One step of gradient descent on a batch of triples; updates P, Q, b in place.

    Minimises, over the triples (u, i, j) of the batch, with x = b_i - b_j + p_u·(q_i - q_j),

        sum  -ln sigma(x) + lambda_U/2 |p_u|^2 + lambda_I/2 (|q_i|^2 + |q_j|^2 + b_i^2 + b_j^2)

    Gradients are summed at the values the batch started with: a batch of one triple is the update
    of Rendle et al. 2009, figure 4.

    Parameters
    ----------
    P, Q
        Factors, U x F and I x F.
    b
        Biases of the items, I.
    users, positives, negatives
        u, the liked i and the other j of each triple, int64, B.
    learning_rate
        The length of the step.
    user_regularization, item_regularization
        lambda_U and lambda_I.

    Returns
    -------
    -ln sigma(x) of each triple, B.
    """
    p = P.index_select(0, users)  # B x F
    qi, qj = Q.index_select(0, positives), Q.index_select(0, negatives)  # B x F
    bi, bj = b.index_select(0, positives), b.index_select(0, negatives)  # B
    difference = qi - qj  # B x F
    x = bi - bj + (p * difference).sum(1)  # B
    step = learning_rate * torch.sigmoid(-x)  # B: how far the triple is from being learned
    step_p = step[:, None] * p  # B x F
    shrink_p = learning_rate * user_regularization
    shrink_q = learning_rate * item_regularization
    step_difference = difference.mul_(step[:, None])  # difference is not needed again
    P.index_add_(0, users, step_difference.sub_(p, alpha=shrink_p))
    Q.index_add_(0, positives, torch.sub(step_p, qi, alpha=shrink_q))
    Q.index_add_(0, negatives, torch.add(step_p, qj, alpha=shrink_q).neg_())
    b.index_add_(0, positives, step - shrink_q * bi)
    b.index_add_(0, negatives, -step - shrink_q * bj)
    return torch.nn.functional.softplus(-x)


def hardest(P: Tensor, Q: Tensor, b: Tensor, users: Tensor, candidates: Tensor) -> Tensor:
    """The candidate with the highest score b_j + p_u·q_j, for each user.

    Parameters
    ----------
    P, Q, b
        As of ``bpr_step``.
    users
        int64, B.
    candidates
        Items, a column for each user, int64, D x B.

    Returns
    -------
    int64, B; of equals the first.
    """
    if len(candidates) == 1:
        return candidates[0]
    q = Q.index_select(0, candidates.view(-1)).view(*candidates.shape, -1)  # D x B x F
    scores = b[candidates] + q.mul_(P.index_select(0, users)).sum(2)  # D x B
    return candidates.gather(0, scores.argmax(0, keepdim=True))[0]


class Triples:
    """What an epoch visits: every like, with new items that the user has not liked.

    Parameters
    ----------
    likes
        CSR matrix, U x I. The likes of a user who likes everything teach nothing and are left out.
    draws
        How many items are drawn for each like.
    """

    def __init__(self, likes: sp.csr_matrix, draws: int):
        self.draws = draws
        users, items = interactions(likes)
        self.unliked = Unliked(likes)
        useful = (self.unliked.count.index_select(0, users) > 0).nonzero()[:, 0]
        self.users, self.items = users.index_select(0, useful), items.index_select(0, useful)

    def __len__(self) -> int:
        return len(self.users)

    def batch(self, chosen: Tensor, rng: torch.Generator) -> Batch:
        users = self.users.index_select(0, chosen)
        return {
            "users": users,
            "positives": self.items.index_select(0, chosen),
            "candidates": self.unliked.sample(users.repeat(self.draws), rng).view(-1, len(users)),
        }


@dataclass(eq=False, kw_only=True)
class BPR(FactorModel):
    """Scores b_i + p_u·q_i rank each liked item above an item that the user has not liked.

    Maximises the probability sigma(s_ui - s_uj) of that over all such pairs, with an L2 penalty
    (see ``bpr_step``), by mini-batch SGD: an iteration visits every like once, with a j from what
    the user has not liked (Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian
    Personalized Ranking from Implicit Feedback", UAI 2009). There j is one uniform draw; here it
    is the highest-scored of ``draws`` of them (Zhang, Chen, Wang, Yu, "Optimizing Top-N
    Collaborative Filtering via Dynamic Negative Item Sampling", SIGIR 2013). Values above 0 are
    likes; all others are not.

    Parameters
    ----------
    learning_rate
        That of the first iteration.
    user_regularization, item_regularization
        lambda_U and lambda_I, the weights of the penalty. More draws need larger ones: for a
        single draw 0.05 and 0.003 were found.
    draws
        Of how many items that the user has not liked the highest-scored is j; 1: as in the paper.
    decay
        What the learning rate is multiplied by after each iteration.
    batch_size
        Triples in a step.
    init_std
        Standard deviation of the first factors.
    """

    learning_rate: NotNegative = 0.3
    user_regularization: NotNegative = 0.1
    item_regularization: NotNegative = 0.008
    draws: Size = 4
    decay: Positive = 0.91
    iterations: Size = 40
    batch_size: Size = 4096
    init_std: NotNegative = 0.1

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        likes = likes_of(user_items)
        triples = Triples(likes, self.draws)
        if not len(triples):
            got = f"only users who like all {likes.shape[1]} items, or none"
            raise ValueError(f"expected users who like some items, got {got}")
        self._initialise(likes, self.init_std)
        return epochs(self, triples, generator(self.seed, TRAINING))

    def _step(self, batch: Batch, learning_rate: float) -> Tensor:
        P, Q, b, users = self.user_factors, self.item_factors, self.item_biases, batch["users"]
        return bpr_step(
            P=P,
            Q=Q,
            b=b,
            users=users,
            positives=batch["positives"],
            negatives=hardest(P, Q, b, users, batch["candidates"]),
            learning_rate=learning_rate,
            user_regularization=self.user_regularization,
            item_regularization=self.item_regularization,
        )
