"""BPR: Bayesian personalized ranking, a pairwise loss on implicit feedback."""

from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.model import Epoch, FactorModel, interactions, sgd
from mflib.sampling import Unliked


def bpr_step(
    P: Tensor, Q: Tensor, b: Tensor, users: Tensor, i: Tensor, j: Tensor, lr: float, reg_u: float, reg_i: float
) -> Tensor:
    """One step of gradient descent on a batch of triples; updates P, Q, b in place.

    Minimises, over the triples (u, i, j) of the batch, with x = b_i - b_j + p_u·(q_i - q_j),

        sum  -ln sigma(x) + lambda_U/2 |p_u|^2 + lambda_I/2 (|q_i|^2 + |q_j|^2 + b_i^2 + b_j^2)

    P (U x F), Q (I x F), b (I); users, liked items i, other items j (int64, B). Gradients are summed at the values the
    batch started with: a batch of one triple is the update of Rendle et al. 2009, fig. 4. Returns -ln sigma(x) (B).
    """
    p, qi, qj = P.index_select(0, users), Q.index_select(0, i), Q.index_select(0, j)  # B x F
    bi, bj = b.index_select(0, i), b.index_select(0, j)  # B
    difference = qi - qj  # B x F
    x = bi - bj + (p * difference).sum(1)  # B
    step = lr * torch.sigmoid(-x)  # B: sigma(-x) is how far the triple is from being learned
    step_p, shrink = step[:, None] * p, lr * reg_i  # B x F
    P.index_add_(0, users, difference.mul_(step[:, None]).sub_(p, alpha=lr * reg_u))
    Q.index_add_(0, i, torch.sub(step_p, qi, alpha=shrink))
    Q.index_add_(0, j, torch.add(step_p, qj, alpha=shrink).neg_())
    b.index_add_(0, i, step - shrink * bi)
    b.index_add_(0, j, -step - shrink * bj)
    return torch.nn.functional.softplus(-x)


@dataclass(eq=False, kw_only=True)
class BPR(FactorModel):
    """Scores b_i + p_u·q_i rank each liked item above an item that the user has not liked.

    Maximises the probability sigma(s_ui - s_uj) of that over all such pairs, with an L2 penalty (see ``bpr_step``), by
    mini-batch SGD: an iteration visits every like once, with one j drawn from what the user has not liked (Rendle,
    Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009).
    Values above 0 are likes.
    """

    learning_rate: float = 0.3
    user_regularization: float = 0.05
    item_regularization: float = 0.003
    decay: float = 0.94
    iterations: int = 60
    batch_size: int = 4096
    init_std: float = 0.1

    def _prepare(self, user_items: sp.csr_matrix) -> Epoch:
        likes = user_items > 0
        self._draw(likes.shape, self.init_std)
        unliked, (all_users, all_items) = Unliked(likes), interactions(likes)
        useful = (unliked.count.index_select(0, all_users) > 0).nonzero()[:, 0]  # who likes everything teaches nothing

        def step(chosen: Tensor, learning_rate: float, rng: torch.Generator) -> Tensor:
            rows = useful.index_select(0, chosen)
            users = all_users.index_select(0, rows)
            triples = (t.to(self.device) for t in (users, all_items.index_select(0, rows), unliked.sample(users, rng)))
            rest = (learning_rate, self.user_regularization, self.item_regularization)
            return bpr_step(self.user_factors, self.item_factors, self.item_biases, *triples, *rest)

        return sgd(self, len(useful), step)
