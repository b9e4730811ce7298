"""ALS: alternating least squares on implicit feedback, with confidences in place of negatives."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.model import Epoch, FactorModel

WIDTH = 2**13  # columns of a block of cells: their factors stay in the cache while all rows pass by
Blocks = list[tuple[slice, Tensor, Tensor]]


def over_cells(blocks: Blocks, X: Tensor, Y: Tensor, value: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """The sum over the stored cells of each row of value(x_u·y_i, c - 1, c p) y_i -> rows x F."""
    total = torch.zeros_like(X)
    for columns, extra, target in blocks:
        cells = torch.sparse.sampled_addmm(extra, X, Y[columns].T, beta=0)
        cells.values().copy_(value(cells.values(), extra.values(), target))
        total.addmm_(cells, Y[columns])
    return total


def conjugate_gradient(X: Tensor, Y: Tensor, blocks: Blocks, penalty: Tensor, steps: int) -> None:
    """Move all rows of X at once towards their least-squares solution given Y; updates X in place.

    Row u solves A x_u = b with A = Y'Y + lambda_u E + Y'(C_u - E)Y and b = Y'C_u p_u (Hu, Koren, Volinsky 2008, eq. 4),
    by ``steps`` steps from where it stands (Takács, Pilászy, Tikk 2011), each for nnz F + rows F^2 operations.

    X (rows x F), Y (columns x F); ``blocks``: for each slice of ``WIDTH`` columns its stored cells, c - 1 as
    a sparse CSR tensor and c p of the same cells (nnz); ``penalty``: lambda_u of each row (rows x 1).
    """
    gram, tiny = Y.T @ Y, torch.finfo(X.dtype).tiny  # F x F
    # b and A x_u need the same products, so the residual takes one
    r = over_cells(blocks, X, Y, lambda product, extra, target: target - extra * product) - X @ gram - penalty * X
    p, rr = r, (r * r).sum(1, keepdim=True)  # rows x F, rows x 1
    for step in range(steps):
        Ap = p @ gram + penalty * p + over_cells(blocks, p, Y, lambda product, extra, _: extra * product)
        length = rr / (p * Ap).sum(1, keepdim=True).clamp_min(tiny)  # 0 where the row is solved
        X += length * p
        if step < steps - 1:
            r = r - length * Ap
            before, rr = rr, (r * r).sum(1, keepdim=True)
            p = r + rr / before.clamp_min(tiny) * p


def cholesky(X: Tensor, Y: Tensor, blocks: Blocks, penalty: Tensor) -> None:
    """Set all rows of X to their least-squares solution given Y; arguments as in ``conjugate_gradient``.

    A sparse product finds row f of all A (rows x F^2 numbers) from the diagonal on. FloatingPointError: A is singular.
    """
    A = Y.T @ Y + penalty[:, :, None] * torch.eye(Y.shape[1], dtype=Y.dtype, device=Y.device)  # rows x F x F
    for columns, extra, _ in blocks:
        for f, y_f in enumerate(Y[columns].T):
            A[:, f, f:] += extra @ (y_f[:, None] * Y[columns, f:])
    b = over_cells(blocks, X, Y, lambda product, extra, target: target)  # rows x F
    R, failed = torch.linalg.cholesky_ex(A, upper=True)
    if failed.any():
        raise FloatingPointError("expected systems of full rank, got a singular one; raise the regularization")
    X.copy_(torch.cholesky_solve(b[:, :, None], R, upper=True)[:, :, 0])


@dataclass(eq=False, kw_only=True)
class ALS(FactorModel):
    """Preferences p (1: liked, 0: not) are estimated as x_u·y_i, each cell weighted by its confidence.

    Minimises, over *all* U x I cells,

        sum c_ui (p_ui - x_u·y_i)^2 + sum lambda_u |x_u|^2 + sum lambda_i |y_i|^2,    c = 1 + alpha |r|

    where r is the stored value, 0 elsewhere, and p = 1 where r > 0. A negative r is a dislike: p = 0 with more
    confidence than an empty cell. An iteration solves a linear system for each user with Y fixed, then one for each
    item with X fixed (Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008), by
    ``cg_steps`` steps of conjugate gradients or, without ``use_cg``, exactly. ``extrapolation`` w > 0 first moves Y by
    w times its last change: .5 needs a fifth fewer iterations, too much lets the loss rise.

    lambda_u is ``regularization`` times n_u^v for the n_u stored cells of u and v = ``frequency_scaling``; likewise
    lambda_i (Rendle, Krichene, Zhang, Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks",
    RecSys 2022). v = 0 is the paper of 2008, and the library implicit, if its alpha (c = alpha r) is this alpha + 1.
    """

    regularization: float = 5.0
    alpha: float = 4.0
    frequency_scaling: float = 0.5
    iterations: int = 15
    use_cg: bool = True
    cg_steps: int = 3
    extrapolation: float = 0.0
    init_std: float = 0.1

    def _prepare(self, user_items: sp.csr_matrix) -> Epoch:
        self._draw(user_items.shape, self.init_std)
        solve = partial(conjugate_gradient, steps=self.cg_steps) if self.use_cg else cholesky
        user_side, item_side = self._cells(user_items), self._cells(user_items.T)
        change = torch.zeros_like(self.item_factors)  # by the last sweep over the items

        def epoch(iteration: int) -> float:
            start = self.item_factors.add_(change, alpha=self.extrapolation).clone()
            solve(self.user_factors, self.item_factors, *user_side)
            solve(self.item_factors, self.user_factors, *item_side)
            torch.sub(self.item_factors, start, out=change)
            return self._loss(*item_side, user_side[1])

        return epoch

    def _cells(self, r: sp.spmatrix) -> tuple[Blocks, Tensor]:
        """c - 1 as a sparse CSR tensor with c p at its cells, for each ``WIDTH`` columns; the rows' penalties."""
        count, r, blocks = torch.from_numpy(r.getnnz(1)).to(self.device, self.dtype).clamp(min=1), r.tocsc(), []
        for start in range(0, r.shape[1], WIDTH):
            columns = slice(start, start + WIDTH)
            block = r[:, columns].tocsr()  # its indices are sorted
            r_ui = torch.from_numpy(block.data).to(self.device, self.dtype)
            ids = (torch.from_numpy(ids).long().to(self.device) for ids in (block.indptr, block.indices))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # torch says so once
                extra = torch.sparse_csr_tensor(*ids, self.alpha * r_ui.abs(), block.shape, check_invariants=False)
            blocks.append((columns, extra, (r_ui > 0) * (1 + extra.values())))
        return blocks, (self.regularization * count**self.frequency_scaling)[:, None]

    def _loss(self, blocks: Blocks, item_penalty: Tensor, user_penalty: Tensor) -> float:
        """The objective at the cost of the stored cells: over all cells, sum (x_u·y_i)^2 is tr(X'X Y'Y)."""
        X, Y = self.user_factors, self.item_factors
        XX, YY = (W.T @ W for W in (X.double(), Y.double()))
        loss = (XX * YY).sum() + ((user_penalty * X**2).sum() + (item_penalty * Y**2).sum()).double()
        for columns, extra, target in blocks:
            product = torch.sparse.sampled_addmm(extra, Y, X[columns].T, beta=0).values()
            loss += (target - 2 * target * product + extra.values() * product**2).sum(dtype=torch.float64)
        return float(loss)

    def _fold_in(self, user_items: sp.csr_matrix) -> Tensor:
        """The exact factors of users with ``user_items`` (B x I), given the item factors -> B x F."""
        X = self.item_factors.new_zeros(user_items.shape[0], self.factors)
        cholesky(X, self.item_factors, *self._cells(user_items))
        return X
