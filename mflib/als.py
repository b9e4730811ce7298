"""ALS: alternating least squares on implicit feedback, with confidences in place of negatives."""

import warnings
from dataclasses import KW_ONLY, dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.model import BLOCK, Epoch, FactorModel


def at_cells(cells: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """The sparse CSR tensor with x_u·y_i at the stored cells of the sparse CSR tensor ``cells``."""
    return torch.sparse.sampled_addmm(cells, X, Y.T, beta=0)


def conjugate_gradient(X: Tensor, Y: Tensor, extra: Tensor, target: Tensor, penalty: Tensor, steps: int) -> None:
    """Move all rows of X at once towards their least-squares solution given Y; updates X in place.

    Row u solves A x_u = b with A = Y'Y + lambda_u E + Y'(C_u - E)Y and b = Y'C_u p_u (Hu, Koren, Volinsky 2008, eq. 4).
    ``steps`` steps of conjugate gradients start from where the row stands (Takács, Pilászy, Tikk 2011). Y'Y serves
    all rows, so that a step costs nnz F + rows F^2, however many cells are empty.

    X (rows x F), Y (columns x F); ``extra``: c - 1 of the stored cells, sparse CSR tensor, rows x columns;
    ``target``: c p of the same cells (nnz); ``penalty``: lambda_u of each row (rows x 1).
    """
    gram, tiny = Y.T @ Y, torch.finfo(X.dtype).tiny  # F x F
    cells = at_cells(extra, X, Y)
    cells.values().mul_(-extra.values()).add_(target)  # b and A x_u need the same cells: one product for the residual
    r = cells @ Y - X @ gram - penalty * X  # rows x F
    p, rr = r, (r * r).sum(1, keepdim=True)
    for step in range(steps):
        cells = at_cells(extra, p, Y)
        cells.values().mul_(extra.values())
        Ap = p @ gram + penalty * p + cells @ Y
        length = rr / (p * Ap).sum(1, keepdim=True).clamp_min(tiny)  # 0 where the row is solved
        X += length * p
        if step < steps - 1:
            r = r - length * Ap
            before, rr = rr, (r * r).sum(1, keepdim=True)
            p = r + rr / before.clamp_min(tiny) * p


def cholesky(X: Tensor, Y: Tensor, extra: Tensor, target: Tensor, penalty: Tensor) -> None:
    """Set all rows of X to their least-squares solution given Y; arguments as in ``conjugate_gradient``.

    Rows are solved in batches of similar length, padded to the longest.
    """
    factors, gram = Y.shape[1], Y.T @ Y
    unit = torch.eye(factors, dtype=Y.dtype, device=Y.device)
    start, count = extra.crow_indices(), extra.crow_indices().diff()
    order, done = count.argsort(descending=True, stable=True), 0
    while done < len(order):
        longest = int(count[order[done]])
        rows = order[done : done + max(1, BLOCK // (max(longest, factors) * factors))]  # B
        done += len(rows)
        place = torch.arange(longest, device=Y.device)
        real = place < count[rows][:, None]  # B x longest
        cell = torch.where(real, start[rows][:, None] + place, 0).view(-1)
        y = Y.index_select(0, extra.col_indices().index_select(0, cell)).view(len(rows), longest, factors)
        weight, goal = (real * t.index_select(0, cell).view_as(real) for t in (extra.values(), target))  # B x longest
        A = gram + penalty[rows][:, :, None] * unit + (weight[:, :, None] * y).mT @ y  # B x F x F
        b = (goal[:, None, :] @ y).mT  # B x F x 1
        X[rows] = torch.cholesky_solve(b, torch.linalg.cholesky(A))[:, :, 0]


@dataclass(eq=False)
class ALS(FactorModel):
    """Preferences p (1: liked, 0: not) are estimated as x_u·y_i, each cell weighted by its confidence.

    Minimises, over *all* U x I cells,

        sum c_ui (p_ui - x_u·y_i)^2 + sum lambda_u |x_u|^2 + sum lambda_i |y_i|^2,    c = 1 + alpha |r|

    where r is the stored value, 0 elsewhere, and p = 1 where r > 0. A negative r is a dislike: p = 0 with more
    confidence than an empty cell. With Y fixed this is a linear system for each user, with X fixed one for each item;
    an iteration solves the one and then the other (Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback
    Datasets", ICDM 2008). ``use_cg`` takes ``cg_steps`` steps of conjugate gradients for all rows at once, otherwise
    each row is solved exactly. The loss in ``history`` is the objective.

    lambda_u is ``regularization`` times n_u^v for the n_u stored cells of u and v = ``frequency_scaling``; likewise
    lambda_i (Rendle, Krichene, Zhang, Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks",
    RecSys 2022). v = 0 is the paper of 2008, and the library implicit, but that its c is alpha r: on ones, its alpha is
    this alpha + 1.
    """

    factors: int = 64
    _: KW_ONLY
    regularization: float = 5.0
    alpha: float = 5.0
    frequency_scaling: float = 0.5
    iterations: int = 15
    use_cg: bool = True
    cg_steps: int = 3
    init_std: float = 0.1

    _remedy = "raise regularization or lower alpha"

    def _prepare(self, user_items: sp.csr_matrix) -> Epoch:
        self._draw(user_items.shape, self.init_std)
        user_side, item_side = self._cells(user_items), self._cells(user_items.T.tocsr())

        def epoch(iteration: int) -> float:
            self._solve(self.user_factors, self.item_factors, *user_side)
            self._solve(self.item_factors, self.user_factors, *item_side)
            return self._loss(*user_side, item_side[2])

        return epoch

    def _cells(self, r: sp.csr_matrix) -> tuple[Tensor, Tensor, Tensor]:
        """c - 1 as a sparse CSR tensor, c p at its cells, and the penalty of each row (rows x 1)."""
        r.sort_indices()
        start, columns = (torch.from_numpy(ids.astype(np.int64)).to(self.device) for ids in (r.indptr, r.indices))
        r_ui = torch.from_numpy(r.data).to(self.device, self.dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # torch says so once
            extra = torch.sparse_csr_tensor(start, columns, self.alpha * r_ui.abs(), r.shape, check_invariants=False)
        penalty = self.regularization * start.diff().clamp(min=1).to(self.dtype) ** self.frequency_scaling
        return extra, (1 + self.alpha * r_ui) * (r_ui > 0), penalty[:, None]

    def _solve(self, X: Tensor, Y: Tensor, *side: Tensor) -> None:
        if self.use_cg:
            conjugate_gradient(X, Y, *side, self.cg_steps)
        else:
            cholesky(X, Y, *side)

    def _loss(self, extra: Tensor, target: Tensor, penalty: Tensor, item_penalty: Tensor) -> float:
        """The objective at the cost of the stored cells: over all cells, sum (x_u·y_i)^2 is tr(X'X Y'Y)."""
        estimate = at_cells(extra, self.user_factors, self.item_factors).values().double()
        stored = (1 + extra.values()) * ((target > 0).double() - estimate) ** 2 - estimate**2
        XX, YY = (W.T @ W for W in (self.user_factors.double(), self.item_factors.double()))
        penalties = ((penalty * self.user_factors**2).sum() + (item_penalty * self.item_factors**2).sum()).double()
        return float(stored.sum() + (XX * YY).sum() + penalties)

    def _fold_in(self, user_items: sp.csr_matrix) -> Tensor:
        """The exact factors of users with ``user_items`` (B x I), given the item factors -> B x F."""
        X = self.item_factors.new_zeros(user_items.shape[0], self.factors)
        cholesky(X, self.item_factors, *self._cells(user_items))
        return X
