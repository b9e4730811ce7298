"""ALS: alternating least squares on implicit feedback, with confidences in place of negatives."""

import warnings
from dataclasses import KW_ONLY, dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.model import BLOCK, Epoch, FactorModel


def at_cells(cells: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """x_u·y_i at the stored cells of the sparse CSR tensor ``cells`` (rows x columns) -> nnz."""
    return torch.sparse.sampled_addmm(cells, X, Y.T, beta=0).values()


def with_values(cells: Tensor, values: Tensor) -> Tensor:
    """The sparse CSR tensor ``cells`` with other values (nnz)."""
    return csr_tensor(cells.crow_indices(), cells.col_indices(), values, cells.shape)


def csr_tensor(start: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse CSR tensor; torch announces once per process that these are "in beta"."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(start, columns, values, shape, check_invariants=False)


def conjugate_gradient(
    X: Tensor, Y: Tensor, confidence: Tensor, target: Tensor, regularization: float, steps: int
) -> None:
    """Move all rows of X at once towards their least-squares solution given Y; updates X in place.

    Row u solves A x_u = b with A = Y'Y + lambda E + Y'(C_u - E)Y and b = Y'C_u p_u (Hu, Koren, Volinsky
    2008, eq. 4). ``steps`` steps of conjugate gradients start from where the row stands (Takács, Pilászy,
    Tikk 2011). Y'Y serves all rows, so a step costs nnz F + rows F^2, however many cells are empty.

    X (rows x F), Y (columns x F); ``confidence``: c - 1 of the stored cells, sparse CSR tensor,
    rows x columns; ``target``: c p of the same cells (nnz).
    """
    gram = Y.T @ Y + regularization * torch.eye(Y.shape[1], dtype=Y.dtype, device=Y.device)  # F x F
    extra, tiny = confidence.values(), torch.finfo(X.dtype).tiny
    # b and A X need the same cells, so that one product gives the residual.
    r = with_values(confidence, target - extra * at_cells(confidence, X, Y)) @ Y - X @ gram  # rows x F
    p, rr = r, (r * r).sum(1, keepdim=True)
    for step in range(steps):
        Ap = p @ gram + with_values(confidence, extra * at_cells(confidence, p, Y)) @ Y
        length = rr / (p * Ap).sum(1, keepdim=True).clamp_min(tiny)  # 0 where the row is solved
        X += length * p
        if step < steps - 1:
            r = r - length * Ap
            previous, rr = rr, (r * r).sum(1, keepdim=True)
            p = r + rr / previous.clamp_min(tiny) * p


def cholesky(X: Tensor, Y: Tensor, confidence: Tensor, target: Tensor, regularization: float) -> None:
    """Set all rows of X to their least-squares solution given Y; arguments as in ``conjugate_gradient``.

    Rows are solved in batches of similar length, padded to the longest.
    """
    gram = Y.T @ Y + regularization * torch.eye(Y.shape[1], dtype=Y.dtype, device=Y.device)
    start, columns, extra = confidence.crow_indices(), confidence.col_indices(), confidence.values()
    count, order = start.diff().sort(descending=True, stable=True)
    done = 0
    while done < len(order):
        longest = int(count[done])
        rows = order[done : done + max(1, BLOCK // (max(longest, Y.shape[1]) * Y.shape[1]))]  # B
        done += len(rows)
        place = torch.arange(longest, device=Y.device)
        real = place < start.diff().index_select(0, rows)[:, None]  # B x longest
        cell = torch.where(real, start.index_select(0, rows)[:, None] + place, 0).view(-1)
        y = Y.index_select(0, columns.index_select(0, cell)).view(len(rows), longest, Y.shape[1])  # B x longest x F
        weight, goal = (real * t.index_select(0, cell).view_as(real) for t in (extra, target))  # B x longest
        A = gram + (weight[:, :, None] * y).mT @ y  # B x F x F
        b = (goal[:, None, :] @ y).mT  # B x F x 1
        X[rows] = torch.cholesky_solve(b, torch.linalg.cholesky(A))[:, :, 0]


@dataclass(eq=False)
class ALS(FactorModel):
    """Preferences p (1: liked, 0: not) are estimated as x_u·y_i, each cell weighted by its confidence.

    Minimises, over *all* U x I cells,

        sum c_ui (p_ui - x_u·y_i)^2 + lambda (sum |x_u|^2 + sum |y_i|^2),    c = 1 + alpha |r|

    where r is the stored value, 0 elsewhere, and p = 1 where r > 0. A negative r is a dislike: p = 0 with
    more confidence than an empty cell. With Y fixed this is a linear system for each user, with X fixed one
    for each item; an iteration solves the one and then the other (Hu, Koren, Volinsky, "Collaborative
    Filtering for Implicit Feedback Datasets", ICDM 2008). ``use_cg`` takes ``cg_steps`` steps of conjugate
    gradients for all rows at once, otherwise each row is solved exactly. The loss in ``history`` is the objective.

    The library implicit has c = alpha r: on ones, its alpha is this alpha + 1.
    """

    factors: int = 64
    _: KW_ONLY
    regularization: float = 50.0
    alpha: float = 2.0
    iterations: int = 15
    use_cg: bool = True
    cg_steps: int = 3
    init_std: float = 0.1

    _remedy = "raise regularization or lower alpha"

    def _prepare(self, user_items: sp.csr_matrix) -> Epoch:
        self._draw(user_items.shape, self.init_std)
        user_side, item_side = self._confidence(user_items), self._confidence(user_items.T.tocsr())

        def epoch(iteration: int) -> float:
            self._solve(self.user_factors, self.item_factors, *user_side)
            self._solve(self.item_factors, self.user_factors, *item_side)
            return self.loss(*user_side)

        return epoch

    def _confidence(self, r: sp.csr_matrix) -> tuple[Tensor, Tensor]:
        """c - 1 as a sparse CSR tensor, and c p at its cells."""
        r.sort_indices()
        start, columns = (torch.from_numpy(ids.astype(np.int64)).to(self.device) for ids in (r.indptr, r.indices))
        values = torch.from_numpy(r.data).to(self.device, self.dtype)
        cells = csr_tensor(start, columns, self.alpha * values.abs(), r.shape)
        return cells, (1 + self.alpha * values) * (values > 0)

    def _solve(self, X: Tensor, Y: Tensor, confidence: Tensor, target: Tensor) -> None:
        if self.use_cg:
            conjugate_gradient(X, Y, confidence, target, self.regularization, self.cg_steps)
        else:
            cholesky(X, Y, confidence, target, self.regularization)

    def loss(self, confidence: Tensor, target: Tensor) -> float:
        """The objective, at the cost of the stored cells: all others contribute x'(Y'Y)x in total."""
        X, Y = self.user_factors, self.item_factors
        estimate, extra, liked = at_cells(confidence, X, Y), confidence.values(), (target > 0).to(self.dtype)
        stored = ((1 + extra) * (liked - estimate) ** 2 - estimate**2).sum(dtype=torch.float64)
        everywhere = ((X.T @ X) * (Y.T @ Y)).sum(dtype=torch.float64)
        penalty = (X * X).sum(dtype=torch.float64) + (Y * Y).sum(dtype=torch.float64)
        return float(stored + everywhere + self.regularization * penalty)

    def _fold_in(self, user_items: sp.csr_matrix) -> Tensor:
        """The exact factors that ``user_items`` (B x I) would have, given the item factors -> B x F."""
        X = self.item_factors.new_zeros(user_items.shape[0], self.factors)
        cholesky(X, self.item_factors, *self._confidence(user_items), self.regularization)
        return X
