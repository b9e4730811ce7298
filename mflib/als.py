"""ALS: alternating least squares on implicit feedback, with confidences instead of negatives."""

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

from mflib.inputs import (
    UserItems,
    as_values,
    flag,
    likes_of,
    nonnegative_float,
    positive_float,
    positive_int,
)
from mflib.model import FactorModel, Side
from mflib.sparse import csr_tensor, row_blocks, sampled_product
from mflib.training import torch_settings, worker_threads

WIDTH = 2**13  # columns per block, few enough for their factors to stay in the cache

# Torch warns once per process that CSR support is in beta. Trigger the warning here, where no other
# thread runs: warning filters are not thread-safe.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    torch.sparse_csr_tensor(
        [0, 1], [0], [1.0], (1, 1), check_invariants=True, device="cpu", dtype=torch.float64
    )


class Block(NamedTuple):
    """The stored entries of several rows in a block of columns."""

    columns: slice
    excess: Tensor  # c - 1, sparse CSR, rows x columns
    weighted_preference: Tensor  # c times the preference, for the same entries, shape (nnz,)


class RowsToSolve(NamedTuple):
    """The input for solving several users or several items."""

    rows: slice
    blocks: list[Block]
    penalty: Tensor  # lambda_u, shape (rows, 1)


def over_entries(
    blocks: list[Block],
    X: Tensor,
    Y: Tensor,
    value: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Return the sum of value(x_u·y_i, excess, weighted) y_i over the stored entries of each row u.

    Parameters
    ----------
    blocks : list of Block
        The entries, a block of columns at a time.
    X, Y : tensors, shapes (rows, F) and (columns, F)
    value : callable
        A function of three tensors of shape (nnz,): products, excess, weighted preference.

    Returns
    -------
    tensor, shape (rows, F)
    """
    total = torch.zeros_like(X)
    for columns, excess, weighted_preference in blocks:
        xy = sampled_product(excess, X, Y[columns])
        values = value(xy, excess.values(), weighted_preference)
        E = csr_tensor(excess.crow_indices(), excess.col_indices(), values, excess.shape)
        total.addmm_(E, Y[columns])
    return total


def conjugate_gradient(
    X: Tensor, Y: Tensor, blocks: list[Block], penalty: Tensor, steps: int
) -> None:
    """Move all rows of X towards their least-squares solution given Y, in place.

    Row u solves A_u x_u = h_u with A_u = Y'Y + lambda_u E + Y'(C_u - E)Y and h_u = Y'C_u p_u (Hu,
    Koren, Volinsky 2008, eq. 4). It takes a few steps from the current x_u (Takács, Pilászy, Tikk
    2011), each of nnz F + rows F^2 operations. A row that is already solved, such as a zero row
    without entries, stays as it is.

    Parameters
    ----------
    X, Y : tensors, shapes (rows, F) and (columns, F)
        X is updated.
    blocks : list of Block
        The entries of these rows.
    penalty : tensor, shape (rows, 1)
        lambda_u of each row.
    steps : int
    """
    gram, tiny = Y.T @ Y, torch.finfo(X.dtype).tiny  # F x F
    # h_u and A_u x_u need the same products: one pass computes the residual h_u - A_u x_u.
    residual = over_entries(blocks, X, Y, lambda xy, excess, weighted: weighted - excess * xy)
    residual = residual - X @ gram - penalty * X  # rows x F
    direction = residual
    rr = (residual * residual).sum(1, keepdim=True)  # rows x 1
    for step in range(steps):
        curved = over_entries(blocks, direction, Y, lambda xy, excess, _: excess * xy)
        curved = direction @ gram + penalty * direction + curved  # A_u times the direction
        # The direction of a solved row is zero, and 0 / 0 would be NaN.
        length = rr / (direction * curved).sum(1, keepdim=True).clamp_min(tiny)
        X += length * direction
        if step < steps - 1:
            residual = residual - length * curved
            before, rr = rr, (residual * residual).sum(1, keepdim=True)
            direction = residual + rr / before.clamp_min(tiny) * direction


def cholesky(X: Tensor, Y: Tensor, blocks: list[Block], penalty: Tensor) -> None:
    """Set all rows of X to their least-squares solution given Y, in place.

    Solves the systems of ``conjugate_gradient`` exactly. It stores all of them at once (rows x F^2
    numbers), so ``ALS`` passes few rows at a time. A sparse product yields row f of all matrices A,
    starting at the diagonal.

    Parameters
    ----------
    X, Y, blocks, penalty
        See ``conjugate_gradient``.

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
    b = over_entries(blocks, X, Y, lambda xy, excess, weighted: weighted)  # rows x F
    # The lower triangles lack the stored entries; they are not read.
    R, failed = torch.linalg.cholesky_ex(A, upper=True)
    if failed.any():
        hint = "raise the regularization"
        raise FloatingPointError(f"expected systems of full rank, got a singular one; {hint}")
    X.copy_(torch.cholesky_solve(b[:, :, None], R, upper=True)[:, :, 0])


def weighted_entries(
    user_items: sp.csr_matrix,
    alpha: float,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> list[Block]:
    """Return c - 1 = alpha |r| and c times the preference, in blocks of columns.

    Parameters
    ----------
    user_items : csr_matrix, shape (rows, columns)
        The stored values are r.
    alpha : float
    dtype : torch.dtype
    device : str

    Returns
    -------
    list of Block
        Each has ``WIDTH`` columns.

    Raises
    ------
    ValueError
        A value of r or c overflows ``dtype``, or a value of r underflows to 0.
    """
    by_column, blocks = user_items.tocsc(), []
    for start in range(0, user_items.shape[1], WIDTH):
        columns = slice(start, start + WIDTH)
        r = by_column[:, columns].tocsr()  # its indices are sorted
        liked = torch.from_numpy(r.data > 0).to(device)
        excess = alpha * as_values(r, dtype).abs().to(device)
        if not excess.isfinite().all():
            got = f"alpha = {alpha:g} and values up to {abs(r.data).max():g}"
            raise ValueError(f"expected finite confidences 1 + alpha |r| in {dtype}, got {got}")
        pointers, indices = torch.from_numpy(r.indptr), torch.from_numpy(r.indices)
        E = csr_tensor(pointers, indices, excess, r.shape)
        blocks.append(Block(columns, E, liked * (1 + excess)))
    return blocks


def balanced(indptr: np.ndarray, parts: int) -> list[slice]:
    """Divide the rows of a CSR matrix into slices with about the same number of entries.

    Parameters
    ----------
    indptr : int array, shape (rows + 1,)
        The row pointers of the matrix.
    parts : int

    Returns
    -------
    list of slice
        At most ``parts`` consecutive slices.
    """
    shares = np.linspace(0, indptr[-1], parts + 1)[1:-1]
    nearest = np.searchsorted((indptr[:-1] + indptr[1:]) / 2, shares)
    cuts = np.unique([0, *nearest, len(indptr) - 1]).tolist()
    return [slice(*pair) for pair in itertools.pairwise(cuts)]


def number_of_parts(n_entries: int) -> int:
    """Return the number of parts to solve separately: 8 for MovieLens-1M, 16 for 32M, 64 for 10^9.

    The number of parts limits how many threads and processes can share the work. Each part computes
    Y'Y again, which takes 1 % of the time of a sweep on MovieLens.
    """
    return 2 ** max(1, round(math.log2(n_entries) / 4 - 1.8))


def gram_matrix(W: Tensor) -> Tensor:
    """Return W'W, shape (F, F), in float64, computed in blocks of rows."""
    total = W.new_zeros(W.shape[1], W.shape[1], dtype=torch.float64)
    for rows in row_blocks(len(W), 8 * W.shape[1]):
        block = W[rows].double()
        total.addmm_(block.T, block)
    return total


@dataclass(eq=False, kw_only=True)
class ALS(FactorModel):
    """Estimate preferences p (1: liked, 0: not) as x_u·y_i, weighted by their confidence.

    Minimises, over *all* U x I entries,

        sum c_ui (p_ui - x_u·y_i)^2 + sum lambda_u |x_u|^2 + sum lambda_i |y_i|^2

    with c = 1 + alpha |r|, where r is the stored value and 0 elsewhere, and p = 1 where r > 0. A
    negative r is a dislike: p = 0 with more confidence than an empty entry. An iteration solves a
    linear system for each user with Y fixed, then one for each item with X fixed (Hu, Koren,
    Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008), by ``cg_steps``
    steps of conjugate gradients or, without ``use_cg``, exactly. ``extrapolation`` w > 0 first
    moves Y by w times what the last iteration changed in it, which saves iterations; if w is too
    large, the loss rises.

    lambda_u is ``regularization`` times n_u^v for the n_u stored entries of u and v =
    ``frequency_scaling``; likewise lambda_i. v = 0 gives the penalty of the 2008 paper. With v = 0
    and all values 1, the model is the same as that of the library implicit (c = alpha r) if
    implicit's alpha is larger than ours by 1. Rendle, Krichene, Zhang, Koren ("Revisiting the
    Performance of iALS on Item Recommendation Benchmarks", RecSys 2022) proposed a penalty that
    grows with the number of entries: lambda (n_u + alpha_0 I)^v. Unlike ours, it also counts the
    empty entries, with their weight alpha_0.

    Parameters
    ----------
    regularization, frequency_scaling : float
        lambda and v of the penalty.
    alpha : float
        The additional confidence of a stored value of 1 compared with an empty entry.
    use_cg, cg_steps : bool, int
        Whether to solve by conjugate gradients, and in how many steps.
    extrapolation : float
        w, the multiple of the items' last change that is added before each iteration.
    init_std : float
        The standard deviation of the initial factors.
    factors, iterations, random_state, dtype, device
        See ``FactorModel``.
    """

    regularization: float = 5.0
    alpha: float = 4.0
    frequency_scaling: float = 0.5
    iterations: int = 10
    use_cg: bool = True
    cg_steps: int = 3
    extrapolation: float = 0.5
    init_std: float = 0.1

    def _validate(self) -> None:
        super()._validate()
        for name in ("regularization", "alpha", "frequency_scaling", "extrapolation"):
            setattr(self, name, nonnegative_float(name, getattr(self, name)))
        self.use_cg = flag("use_cg", self.use_cg)
        self.cg_steps = positive_int("cg_steps", self.cg_steps)
        self.init_std = positive_float("init_std", self.init_std)

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        likes_of(user_items)  # raises if there is no like; training also uses dislikes
        self._initialise(user_items, self.init_std)
        users, items = (
            [self._rows_to_solve(part, rows[part]) for part in self._parts(rows.getnnz(1))]
            for rows in (user_items, user_items.T.tocsr())
        )
        return self._sweeps(users, items, torch.zeros_like(self.item_factors), threads)

    def _sweeps(
        self, users: list[RowsToSolve], items: list[RowsToSolve], change: Tensor, threads: int
    ) -> Iterator[float]:
        """Solve the users, then the items, endlessly; yield the loss after each sweep.

        ``change``, shape (I, F), holds what the last sweep added to the items.
        """
        with worker_threads(threads) as pool:
            while True:
                self.item_factors.add_(change, alpha=self.extrapolation)
                change.copy_(self.item_factors)  # as this sweep starts, until the subtraction below
                self._solve("user", users, pool)
                self._solve("item", items, pool)
                torch.sub(self.item_factors, change, out=change)
                losses = self._losses("user", users, pool), self._losses("item", items, pool)
                # Over all entries, the sum of (x_u·y_i)^2 is the trace of X'X Y'Y.
                gram_P, gram_Q = gram_matrix(self.user_factors), gram_matrix(self.item_factors)
                of_all_entries = (gram_P * gram_Q).sum()
                yield float(of_all_entries + losses[0].sum() + losses[1].sum())

    def _solve(self, side: Side, parts: list[RowsToSolve], pool: Executor) -> None:
        """Solve the users, or the items, of all parts."""
        X, Y = self._factors(side), self._factors("item" if side == "user" else "user")

        def solve(part: RowsToSolve) -> None:
            rows, blocks, penalty = part
            if self.use_cg:
                conjugate_gradient(
                    X=X[rows], Y=Y, blocks=blocks, penalty=penalty, steps=self.cg_steps
                )
            else:
                cholesky(X=X[rows], Y=Y, blocks=blocks, penalty=penalty)

        list(pool.map(solve, parts))  # re-raises exceptions of the workers

    def _losses(self, side: Side, parts: list[RowsToSolve], pool: Executor) -> Tensor:
        """Return each row's part of the objective, in float64: penalty and, for items, entries.

        For a stored entry this is c (p - xy)^2 - xy^2. The sum of a row does not depend on the
        division into parts.
        """
        X, Y = self._factors(side), self._factors("item" if side == "user" else "user")

        def losses_of(part: RowsToSolve) -> Tensor:
            total = (part.penalty * X[part.rows] ** 2).sum(1, dtype=torch.float64)
            for columns, excess, weighted in part.blocks if side == "item" else ():
                xy = sampled_product(excess, X[part.rows], Y[columns])
                values = weighted - 2 * weighted * xy + excess.values() * xy**2
                ends = excess.crow_indices().long()
                total += torch.segment_reduce(values.double(), "sum", offsets=ends)
            return total

        losses = X.new_zeros(len(X), dtype=torch.float64)
        for part, part_losses in zip(parts, pool.map(losses_of, parts), strict=True):
            losses[part.rows] = part_losses
        return losses

    def _parts(self, counts: np.ndarray) -> list[slice]:
        """Divide the users (or items), which have ``counts`` entries, into parts.

        A matrix product may round a row differently depending on the other rows, so the parts
        depend on the data alone, not on the number of threads or processes.
        """
        indptr = np.concatenate([[0], np.cumsum(counts)])
        parts = balanced(indptr, number_of_parts(indptr[-1]))
        if self.use_cg:
            return parts
        return [
            slice(part.start + block.start, part.start + block.stop)
            for part in parts
            for block in row_blocks(part.stop - part.start, self.factors**2)
        ]

    def _rows_to_solve(self, part: slice, rows: sp.csr_matrix) -> RowsToSolve:
        """Return the input for a part of the users (or items), given their entries."""
        blocks = weighted_entries(rows, self.alpha, self.dtype, self.device)
        return RowsToSolve(part, blocks, self._penalty(rows))

    def _penalty(self, rows: sp.csr_matrix) -> Tensor:
        """Return lambda_u of each row, shape (rows, 1)."""
        count = torch.from_numpy(rows.getnnz(1)).to(self.item_factors)
        return (self.regularization * count.clamp(min=1) ** self.frequency_scaling)[:, None]

    def _fold_in(self, rows: sp.csr_matrix, side: Side) -> Tensor:
        """Return the exact factors of users (or items) with the interactions ``rows``."""
        Y = self.item_factors if side == "user" else self.user_factors
        X = Y.new_zeros(rows.shape[0], Y.shape[1])
        for part in row_blocks(len(X), Y.shape[1] ** 2):
            blocks = weighted_entries(rows[part], self.alpha, Y.dtype, Y.device)
            cholesky(X=X[part], Y=Y, blocks=blocks, penalty=self._penalty(rows[part]))
        return X

    def explain(
        self, userid: int, user_items: UserItems, itemid: int, N: int = 10
    ) -> tuple[float, list[tuple[int, float]]]:
        """Explain a recommendation: split the score into contributions of the user's likes.

        With the exact solution for the user, the score is y_i·x_u = sum c_uj y_i'A^-1 y_j over the
        liked items j (Hu, Koren, Volinsky 2008, section 5), with A as in ``conjugate_gradient``.

        Parameters
        ----------
        userid : int
            Ignored; only ``user_items`` matters. Present for compatibility with implicit.
        user_items : scipy sparse matrix, shape (1, I)
            The interactions of the user.
        itemid : int
        N : int
            The number of contributions to return.

        Returns
        -------
        score : float
            The score of ``recommend(..., recalculate_user=True)``.
        contributions : list of (itemid, share)
            The N largest.

        Raises
        ------
        TypeError, ValueError, IndexError
            See ``recommend``. TypeError is also raised if ``itemid`` is not a single id.
        FloatingPointError
            The system of the user is singular.
        """
        N = positive_int("N", N)
        row, Y = self._checked_rows(user_items, 1, "user"), self.item_factors
        if np.ndim(itemid):
            raise TypeError(f"expected one item id, got {itemid!r}")
        item = self._ids(itemid, "item")
        with torch_settings(Y.device):
            ids = torch.from_numpy(row.indices).to(Y.device)
            liked = torch.from_numpy(row.data > 0).to(Y.device)
            y = Y.index_select(0, ids)  # n x F
            excess = self.alpha * as_values(row, Y.dtype).abs().to(Y.device)  # n
            identity = torch.eye(Y.shape[1], dtype=Y.dtype, device=Y.device)
            A = Y.T @ Y + self._penalty(row) * identity + (y.T * excess) @ y
            R, failed = torch.linalg.cholesky_ex(A)
            if failed:
                hint = "raise the regularization"
                raise FloatingPointError(f"expected a system of full rank; {hint}")
            solution = torch.cholesky_solve(Y.index_select(0, item).T, R)[:, 0]  # A^-1 y_i
            shares = (1 + excess) * (y @ solution)
            ids, shares = ids[liked], shares[liked]
            largest = shares.argsort(descending=True, stable=True)[:N]
        contributions = zip(ids[largest].tolist(), shares[largest].tolist(), strict=True)
        return float(shares.sum()), list(contributions)
