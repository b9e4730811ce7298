"""BPR: Bayesian personalized ranking, a pairwise loss on implicit feedback."""

from collections.abc import Iterator
from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.inputs import likes_of, nonnegative_float, positive_float, positive_int
from mflib.model import FactorModel
from mflib.sampling import TRAINING, Unliked, generator
from mflib.sparse import Entries, csr_tensor, partition, sampled_product
from mflib.training import Batch, epochs, row_rates

BOUND = 4.0  # upper limit of a row's learning rate times its occurrences in a batch


def bpr_step(
    P: Tensor,
    Q: Tensor,
    b: Tensor,
    likes: Entries,
    negatives: Tensor,
    learning_rate: float,
    user_regularization: float,
    item_regularization: float,
) -> Tensor:
    """Take one step of gradient descent on a batch of triples, updating P, Q and b in place.

    The step minimises, over the triples (u, i, j) of the batch, with x = b_i - b_j + p_u·(q_i -
    q_j),

        sum  -ln sigma(x) + lambda_U/2 |p_u|^2 + lambda_I/2 (|q_i|^2 + |q_j|^2 + b_i^2 + b_j^2)

    All gradients use the values before the step. A user with n_u triples in the batch
    moves at the rate min(learning_rate, 4 / n_u); an item that occurs n_i times, as i or as j, at
    min(learning_rate, 4 / n_i). For a batch of one triple this is the update of Rendle et al. 2009,
    figure 4, with item biases added.

    Parameters
    ----------
    P, Q : tensors, shapes (U, F) and (I, F)
        Factors.
    b : tensor, shape (I,)
        Biases of the items.
    likes : Entries, shape (U, I)
        The m pairs (u, i) of a user and a liked item: ``likes.rows`` and ``likes.columns``.
    negatives : integer tensor, shape (m,)
        The other item j of each pair.
    learning_rate, user_regularization, item_regularization : float
        The step length, lambda_U and lambda_I.

    Returns
    -------
    tensor, shape (m,)
        -ln sigma(x) of each triple, without the penalty.
    """
    others = likes.with_columns(negatives)
    users, i, j = likes.rows, likes.columns, others.columns  # m each
    n_u = likes.row_counts.to(P.dtype)
    n_i = (likes.column_counts + others.column_counts).to(P.dtype)
    rate_u, rate_i = row_rates(learning_rate, n_u, BOUND), row_rates(learning_rate, n_i, BOUND)
    keep_u = 1 - rate_u * user_regularization * n_u  # shrinkage by the penalty
    keep_i = 1 - rate_i * item_regularization * n_i

    x = b.index_select(0, i) - b.index_select(0, j) + likes.dot(P, Q) - others.dot(P, Q)
    g = torch.sigmoid(-x)  # m; near 1 for pairs in the wrong order, near 0 in the right one
    step_u = g * rate_u.index_select(0, users)
    step_i, step_j = g * rate_i.index_select(0, i), g * rate_i.index_select(0, j)

    step_Q = likes.transposed(step_i) @ P  # I x F, from P before its update
    step_Q.addmm_(others.transposed(step_j), P, alpha=-1)
    P.mul_(keep_u[:, None]).addmm_(likes.matrix(step_u), Q)
    P.addmm_(others.matrix(step_u), Q, alpha=-1)
    Q.mul_(keep_i[:, None]).add_(step_Q)
    b.mul_(keep_i).add_(likes.column_sums(step_i)).sub_(others.column_sums(step_j))
    return torch.nn.functional.softplus(-x)


def hardest(P: Tensor, Q: Tensor, b: Tensor, likes: Entries, candidates: Tensor) -> Tensor:
    """Return the candidate with the highest score b_j + p_u·q_j for each like.

    Parameters
    ----------
    P, Q, b : tensors
        See ``bpr_step``.
    likes : Entries, shape (U, I)
        n pairs of a user and a liked item.
    candidates : integer tensor, shape (n, D)
        Items, a row for each like.

    Returns
    -------
    integer tensor, shape (n,)
        Ties go to the first candidate.
    """
    n, D = candidates.shape
    if D == 1:
        return candidates[:, 0]
    columns, pointers = candidates.reshape(-1), likes.row_pointers * D
    pattern = csr_tensor(pointers, columns.to(pointers.dtype), P.new_zeros(n * D), likes.shape)
    scores = sampled_product(pattern, P, Q) + b.index_select(0, columns)
    return candidates.gather(1, scores.view(n, D).argmax(1, keepdim=True))[:, 0]


@dataclass(eq=False, kw_only=True)
class BPR(FactorModel):
    """Rank each liked item above the items that the user has not liked, by b_i + p_u·q_i.

    Maximises the probability sigma(s_ui - s_uj) over all such pairs, with an L2 penalty (see
    ``bpr_step``), by mini-batch SGD. An iteration visits every like once, each with one item j that
    the user has not liked (Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian
    Personalized Ranking from Implicit Feedback", UAI 2009). In the paper j is drawn uniformly. Here
    it is the highest-scoring of ``draws`` uniform draws (Zhang, Chen, Wang, Yu, "Optimizing Top-N
    Collaborative Filtering via Dynamic Negative Item Sampling", SIGIR 2013). Values above 0 are
    likes; all others are not.

    Parameters
    ----------
    learning_rate : float
        The learning rate of the first iteration.
    user_regularization, item_regularization : float
        lambda_U and lambda_I, the weights of the penalty. More draws need larger values; with one
        draw, a search selected 0.05 and 0.003.
    draws : int
        The number of unliked items to draw; the highest-scoring one becomes j. 1 as in the paper.
    decay : float
        The factor that multiplies the learning rate after each iteration.
    batches : int
        The number of batches, and thus of steps, in an iteration.
    init_std : float
        The standard deviation of the initial factors.
    factors, iterations, random_state, dtype, device
        See ``FactorModel``.
    """

    learning_rate: float = 0.3
    user_regularization: float = 0.1
    item_regularization: float = 0.008
    draws: int = 4
    decay: float = 0.91
    iterations: int = 40
    batches: int = 32
    init_std: float = 0.1

    def _validate(self) -> None:
        super()._validate()
        for name in ("learning_rate", "user_regularization", "item_regularization", "init_std"):
            setattr(self, name, nonnegative_float(name, getattr(self, name)))
        self.decay = positive_float("decay", self.decay)
        for name in ("draws", "batches"):
            setattr(self, name, positive_int(name, getattr(self, name)))

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        likes = likes_of(user_items)
        unliked = Unliked(likes)
        # A user who likes everything has no negatives.
        trainable = sp.csr_matrix(sp.diags_array(unliked.count.numpy() > 0, dtype=bool) @ likes)
        trainable.eliminate_zeros()
        if not trainable.nnz:
            got = f"only users who like all {likes.shape[1]} items, or none"
            raise ValueError(f"expected users who like some but not all items, got {got}")
        self._initialise(likes, self.init_std)
        rng = generator(self.seed, TRAINING)
        parts = partition(trainable, self.batches, rng)
        batches = [{"likes": entries.to(self.device)} for _, entries in parts]

        def draw(batch: Batch, rng: torch.Generator) -> Batch:
            users = batch["likes"].rows.cpu().long().repeat_interleave(self.draws)
            candidates = unliked.sample(users, rng).view(-1, self.draws)
            return batch | {"candidates": candidates.to(self.device)}

        return epochs(self, batches, rng, draw)

    def _step(self, batch: Batch, learning_rate: float) -> Tensor:
        P, Q, b, likes = self.user_factors, self.item_factors, self.item_biases, batch["likes"]
        return bpr_step(
            P=P,
            Q=Q,
            b=b,
            likes=likes,
            negatives=hardest(P, Q, b, likes, batch["candidates"]),
            learning_rate=learning_rate,
            user_regularization=self.user_regularization,
            item_regularization=self.item_regularization,
        )
