"""ALS: alternating least squares on implicit feedback, with confidences in place of negatives."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.matrices import UserItems, likes_of, row_blocks
from mflib.model import FactorModel, Side
from mflib.parameters import Flag, NotNegative, Positive, Size, size
from mflib.threads import workers

Gather = Callable[[Tensor, Side], None]  # a tensor with a row for each user, or item
WIDTH = 2**13  # columns of a block: their factors stay in the cache while all rows pass by

# Torch warns of this once per process. It does so here, where it is not heard and no other thread
# runs: filters of warnings are not made for threads.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=True)


class Cells(NamedTuple):
    """The stored cells of a block of columns, for a number of rows."""

    columns: slice
    excess: Tensor  # c - 1, sparse CSR, rows x columns
    weighted_preference: Tensor  # c p of the same cells, nnz


class RowsToSolve(NamedTuple):
    """What the kernels need to solve a number of users, or of items."""

    rows: slice
    blocks: list[Cells]
    penalty: Tensor  # lambda_u, rows x 1


def over_cells(
    blocks: list[Cells],
    X: Tensor,
    Y: Tensor,
    value: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """The sum over the stored cells (u, i) of each row u of value(x_u·y_i, c - 1, c p) y_i.

    Parameters
    ----------
    blocks
        The cells, a block of columns at a time.
    X, Y
        rows x F and columns x F.
    value
        A function of three tensors of nnz: the products, the excess, the weighted preference.

    Returns
    -------
    rows x F.
    """
    total = torch.zeros_like(X)
    for columns, excess, weighted_preference in blocks:
        cells = torch.sparse.sampled_addmm(excess, X, Y[columns].T, beta=0)
        cells.values().copy_(value(cells.values(), excess.values(), weighted_preference))
        total.addmm_(cells, Y[columns])
    return total


def conjugate_gradient(
    X: Tensor, Y: Tensor, blocks: list[Cells], penalty: Tensor, steps: int
) -> None:
    """Move all rows of X at once towards their least-squares solution given Y, in place.

    Row u solves A x_u = b with A = Y'Y + lambda_u E + Y'(C_u - E)Y and b = Y'C_u p_u (Hu, Koren,
    Volinsky 2008, eq. 4), by some steps from where it stands (Takács, Pilászy, Tikk 2011), each
    for nnz F + rows F^2 operations.

    Parameters
    ----------
    X, Y
        rows x F, updated, and columns x F.
    blocks
        The cells of these rows.
    penalty
        lambda_u of each row, rows x 1.
    steps
        How many.
    """
    gram, tiny = Y.T @ Y, torch.finfo(X.dtype).tiny  # F x F
    # b and A x_u need the same products, so the residual takes one
    residual = over_cells(blocks, X, Y, lambda xy, excess, cp: cp - excess * xy)
    residual = residual - X @ gram - penalty * X  # rows x F
    direction = residual
    rr = (residual * residual).sum(1, keepdim=True)  # rows x 1
    for step in range(steps):
        curved = over_cells(blocks, direction, Y, lambda xy, excess, _: excess * xy)
        curved = direction @ gram + penalty * direction + curved  # A times the direction
        # a solved row has no direction left, and 0 / 0 would be NaN
        length = rr / (direction * curved).sum(1, keepdim=True).clamp_min(tiny)
        X += length * direction
        if step < steps - 1:
            residual = residual - length * curved
            before, rr = rr, (residual * residual).sum(1, keepdim=True)
            direction = residual + rr / before.clamp_min(tiny) * direction


def cholesky(X: Tensor, Y: Tensor, blocks: list[Cells], penalty: Tensor) -> None:
    """Set all rows of X to their least-squares solution given Y, in place.

    The systems are those of ``conjugate_gradient``. They are held all at once, rows x F^2 numbers:
    ``ALS`` gives few rows at a time. A sparse product finds row f of all A from the diagonal on.

    Parameters
    ----------
    X, Y, blocks, penalty
        As in ``conjugate_gradient``.

    Raises
    ------
    FloatingPointError
        A system is singular.
    """
    identity = torch.eye(Y.shape[1], dtype=Y.dtype, device=Y.device)
    A = Y.T @ Y + penalty[:, :, None] * identity  # rows x F x F
    for columns, excess, _ in blocks:
        for f, y_f in enumerate(Y[columns].T):
            A[:, f, f:] += excess @ (y_f[:, None] * Y[columns, f:])
    b = over_cells(blocks, X, Y, lambda xy, excess, cp: cp)  # rows x F
    # the lower triangles lack the cells, and are not read
    R, failed = torch.linalg.cholesky_ex(A, upper=True)
    if failed.any():
        hint = "raise the regularization"
        raise FloatingPointError(f"expected systems of full rank, got a singular one; {hint}")
    X.copy_(torch.cholesky_solve(b[:, :, None], R, upper=True)[:, :, 0])


def weighted_cells(
    user_items: sp.csr_matrix,
    alpha: float,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> list[Cells]:
    """The interactions as the kernels want them: c - 1 = alpha |r| and c p where r is stored.

    ``user_items`` is a CSR matrix, rows x columns, or its transpose; blocks have ``WIDTH`` columns.
    """
    by_column, blocks = user_items.tocsc(), []
    for start in range(0, user_items.shape[1], WIDTH):
        columns = slice(start, start + WIDTH)
        r = by_column[:, columns].tocsr()  # its indices are sorted
        values = torch.from_numpy(r.data).to(device, dtype)
        pointers, indices = (torch.from_numpy(ids).to(device) for ids in (r.indptr, r.indices))
        excess = torch.sparse_csr_tensor(
            pointers, indices, alpha * values.abs(), r.shape, check_invariants=False
        )
        blocks.append(Cells(columns, excess, (values > 0) * (1 + excess.values())))
    return blocks


def balanced(indptr: np.ndarray, parts: int) -> list[slice]:
    """Consecutive slices of the rows of a CSR matrix, with about as many cells each.

    ``indptr`` is the matrix's; returns at most ``parts`` slices.
    """
    shares = np.linspace(0, indptr[-1], parts + 1)[1:-1]
    nearest = np.searchsorted((indptr[:-1] + indptr[1:]) / 2, shares)
    cuts = np.unique([0, *nearest, len(indptr) - 1]).tolist()
    return [slice(*pair) for pair in itertools.pairwise(cuts)]


def number_of_parts(cells: int) -> int:
    """In how many parts so many cells are solved: 8 for MovieLens-1M, 16 for 32M, 64 for 10^9.

    That is how many threads and processes can share in it. But each part takes Y'Y anew, which on
    MovieLens costs a percent of a sweep.
    """
    return 2 ** max(1, round(math.log2(cells) / 4 - 1.8))


def squares(W: Tensor) -> Tensor:
    """W'W, F x F, in float64, a block of rows at a time."""
    total = W.new_zeros(W.shape[1], W.shape[1], dtype=torch.float64)
    for rows in row_blocks(len(W), 8 * W.shape[1]):
        block = W[rows].double()
        total.addmm_(block.T, block)
    return total


@dataclass(eq=False, kw_only=True)
class ALS(FactorModel):
    """Preferences p (1: liked, 0: not) are estimated as x_u·y_i, weighted by their confidence.

    Minimises, over *all* U x I cells,

        sum c_ui (p_ui - x_u·y_i)^2 + sum lambda_u |x_u|^2 + sum lambda_i |y_i|^2

    with c = 1 + alpha |r|, where r is the stored value, 0 elsewhere, and p = 1 where r > 0. A
    negative r is a dislike: p = 0 with more confidence than an empty cell. An iteration solves a
    linear system for each user with Y fixed, then one for each item with X fixed (Hu, Koren,
    Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008), by ``cg_steps``
    steps of conjugate gradients or, without ``use_cg``, exactly. ``extrapolation`` w > 0 first
    moves Y by w times its last change: .5 needs a fifth fewer iterations, too much lets the loss
    rise.

    lambda_u is ``regularization`` times n_u^v for the n_u stored cells of u and v =
    ``frequency_scaling``; likewise lambda_i. v = 0 is the paper of 2008, and on ones the library
    implicit, if its alpha (c = alpha r) is this alpha + 1. A penalty that grows with the row was
    proposed for implicit feedback by Rendle, Krichene, Zhang, Koren ("Revisiting the Performance of
    iALS on Item Recommendation Benchmarks", RecSys 2022); theirs is lambda (n_u + alpha_0 I)^v,
    which counts the empty cells, too, with their weight alpha_0. To leave these out is ours.

    Parameters
    ----------
    regularization, frequency_scaling
        lambda and v of the penalty.
    alpha
        How much more a stored value counts than an empty cell.
    use_cg, cg_steps
        Whether to solve by conjugate gradients, and by how many steps.
    extrapolation
        w, how far the items run ahead.
    init_std
        Standard deviation of the first factors.
    """

    regularization: NotNegative = 5.0
    alpha: NotNegative = 4.0
    frequency_scaling: NotNegative = 0.5
    iterations: Size = 15
    use_cg: Flag = True
    cg_steps: Size = 3
    extrapolation: NotNegative = 0.0
    init_std: Positive = 0.1

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        likes_of(user_items)  # there must be some; dislikes are learned from, too
        self._initialise(user_items, self.init_std)
        users, items = (
            [self._rows_to_solve(part, rows[part]) for part in self._parts(rows.getnnz(1))]
            for rows in (user_items, user_items.T.tocsr())
        )
        return self._sweeps(users, items, torch.zeros_like(self.item_factors), threads)

    def _sweeps(
        self,
        users: list[RowsToSolve],
        items: list[RowsToSolve],
        change: Tensor,
        threads: int,
        gather: Gather = lambda W, side: None,
    ) -> Iterator[float]:
        """Solve the users, then the items, without end. Each value is the loss after a sweep.

        ``change``, I x F, is kept at what the last sweep has added to the items. Where ``users``
        and ``items`` are not all, ``gather`` brings the rows that were found elsewhere.
        """
        with workers(threads) as pool:
            for _ in itertools.count():
                self.item_factors.add_(change, alpha=self.extrapolation)
                change.copy_(self.item_factors)  # until it is known
                self._solve(self.user_factors, self.item_factors, users, pool)
                gather(self.user_factors, "user")
                self._solve(self.item_factors, self.user_factors, items, pool)
                gather(self.item_factors, "item")
                torch.sub(self.item_factors, change, out=change)
                yield self._loss(users, items, pool, gather)

    def _solve(self, X: Tensor, Y: Tensor, parts: list[RowsToSolve], pool: Executor) -> None:
        def solve(part: RowsToSolve) -> None:
            rows, blocks, penalty = part
            if self.use_cg:
                conjugate_gradient(
                    X=X[rows], Y=Y, blocks=blocks, penalty=penalty, steps=self.cg_steps
                )
            else:
                cholesky(X=X[rows], Y=Y, blocks=blocks, penalty=penalty)

        for _ in pool.map(solve, parts):  # which raises what has been raised
            pass

    def _parts(self, cells: np.ndarray) -> list[slice]:
        """The users (or items), who have so many ``cells``, in parts that are solved apart.

        A product of matrices may give a row other bits in other company, so no part depends on how
        many threads or processes there are.
        """
        indptr = np.concatenate([[0], np.cumsum(cells)])
        parts = balanced(indptr, number_of_parts(indptr[-1]))
        if self.use_cg:
            return parts
        return [
            slice(part.start + few.start, part.start + few.stop)
            for part in parts
            for few in row_blocks(part.stop - part.start, self.factors**2)
        ]

    def _rows_to_solve(self, part: slice, cells: sp.csr_matrix) -> RowsToSolve:
        """A part of the users (or items), who have these cells."""
        blocks = weighted_cells(cells, self.alpha, self.dtype, self.device)
        return RowsToSolve(part, blocks, self._penalty(cells))

    def _penalty(self, user_items: sp.csr_matrix) -> Tensor:
        count = torch.from_numpy(user_items.getnnz(1)).to(self.item_factors)
        return (self.regularization * count.clamp(min=1) ** self.frequency_scaling)[:, None]

    def _loss(
        self,
        users: list[RowsToSolve],
        items: list[RowsToSolve],
        pool: Executor,
        gather: Gather,
    ) -> float:
        """The objective at the cost of the stored cells.

        Over all cells, the sum of (x_u·y_i)^2 is the trace of X'X Y'Y. What is added to it is
        summed for each row apart, so that no bit depends on which rows are found where.
        """
        X, Y = self.user_factors, self.item_factors

        def of_penalty(part: RowsToSolve, W: Tensor) -> Tensor:
            return (part.penalty * W[part.rows] ** 2).sum(1, dtype=torch.float64)

        def of_item(part: RowsToSolve) -> Tensor:
            total = of_penalty(part, Y)
            for columns, excess, cp in part.blocks:
                xy = torch.sparse.sampled_addmm(excess, Y[part.rows], X[columns].T, beta=0).values()
                cells = cp - 2 * cp * xy + excess.values() * xy**2  # c (p - xy)^2 - xy^2
                ends = excess.crow_indices().long()
                total += torch.segment_reduce(cells.double(), "sum", offsets=ends)
            return total

        of_users, of_items = (W.new_zeros(len(W), dtype=torch.float64) for W in (X, Y))
        for part in users:
            of_users[part.rows] = of_penalty(part, X)
        for part, losses in zip(items, pool.map(of_item, items), strict=True):
            of_items[part.rows] = losses
        gather(of_users, "user")
        gather(of_items, "item")
        of_all_cells = (squares(X) * squares(Y)).sum()
        return float(of_all_cells + of_users.sum() + of_items.sum())

    def _fold_in(self, rows: sp.csr_matrix, side: Side) -> Tensor:
        """The exact factors of users (or items) with the interactions ``rows``."""
        Y = self.item_factors if side == "user" else self.user_factors
        X = Y.new_zeros(rows.shape[0], Y.shape[1])
        for part in row_blocks(len(X), Y.shape[1] ** 2):
            blocks = weighted_cells(rows[part], self.alpha, Y.dtype, str(Y.device))
            cholesky(X=X[part], Y=Y, blocks=blocks, penalty=self._penalty(rows[part]))
        return X

    def explain(
        self, userid: int, user_items: UserItems, itemid: int, N: int = 10
    ) -> tuple[float, list[tuple[int, float]]]:
        """Why an item is recommended: the score as a sum over what the user likes.

        Solved exactly for the user, the score is y_i·x_u = sum c_uj y_i'A^-1 y_j over the liked j
        (Hu, Koren, Volinsky 2008, section 5), A as in ``conjugate_gradient``.

        Parameters
        ----------
        userid, itemid
            One id each; that of a new user may be any.
        user_items
            Scipy sparse matrix, what the user has: one row, 1 x I.
        N
            How many contributions to return.

        Returns
        -------
        score, contributions
            That of ``recommend(..., recalculate_user=True)``, and the N largest (itemid, share).

        Raises
        ------
        ValueError, IndexError
            As of ``recommend``.
        """
        self._ids(userid, "user", new=True)
        row, Y = self._checked_rows(user_items, 1, "user"), self.item_factors
        ids, r = (torch.from_numpy(part).to(Y.device) for part in (row.indices, row.data))
        y, excess = Y.index_select(0, ids), self.alpha * r.abs().to(Y)  # n x F, n
        A = Y.T @ Y + self._penalty(row) * torch.eye(len(Y.T)).to(Y) + (y.T * excess) @ y
        y_i = Y.index_select(0, self._ids(itemid, "item"))[0]
        shares = (1 + excess) * (y @ torch.linalg.solve(A, y_i))
        ids, shares = ids[r > 0], shares[r > 0]
        largest = shares.argsort(descending=True, stable=True)[: size("N", N)]
        contributions = zip(ids[largest].tolist(), shares[largest].tolist(), strict=True)
        return float(shares.sum()), list(contributions)
