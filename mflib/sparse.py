"""Sparse patterns, the two products that the kernels use, and row blocks that bound memory.

For a sparse matrix E (users x items) that is known only at some entries, the kernels need

- the *sampled product*: p_u·q_i at these entries, and nowhere else;
- the *sparse product*: E Q, which adds e_ui q_i to user u, and its counterpart E'P for the items.

Both cost O(F) per entry, and neither stores a dense users x items matrix. They replace gathering a
row of P and of Q for each entry and scattering the gradients back.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

BLOCK = 2**22  # numbers that a block of rows may hold at a time


def csr_tensor(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a sparse CSR tensor without checking its indices."""
    return torch.sparse_csr_tensor(
        pointers, columns, values, shape, check_invariants=False, device=values.device
    )


def sampled_product(pattern: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """Return x_r·y_c for each stored entry (r, c) of a CSR tensor, shape (n,).

    Parameters
    ----------
    pattern : sparse CSR tensor, shape (R, C)
        Only the positions of its n entries matter.
    X, Y : tensors, shapes (R, F) and (C, F)
    """
    columns = pattern.col_indices()
    if len(columns) > len(X) * len(Y):  # duplicates; torch refuses more entries than positions
        rows = torch.repeat_interleave(pattern.crow_indices().diff())
        return (X @ Y.T).view(-1).index_select(0, rows * len(Y) + columns)
    return torch.sparse.sampled_addmm(pattern, X, Y.T, beta=0).values()


@dataclass(frozen=True, eq=False)
class Entries:
    """The positions of n entries of a sparse matrix, in row order and in column order.

    A position may occur more than once. Values are separate tensors of shape (n,), in row order.

    Attributes
    ----------
    shape : tuple of int
        (R, C).
    rows, columns : int32 tensors, shape (n,)
        The position of each entry; ``rows`` is ascending.
    row_pointers, column_pointers : int32 tensors, shapes (R + 1,) and (C + 1,)
        Where the entries of each row (in row order) and of each column (in column order) begin.
    column_order : int32 tensor, shape (n,)
        The permutation from row order to column order.
    rows_by_column : int32 tensor, shape (n,)
        The rows in column order.
    """

    shape: tuple[int, int]
    rows: Tensor
    columns: Tensor
    row_pointers: Tensor
    column_pointers: Tensor
    column_order: Tensor
    rows_by_column: Tensor

    @classmethod
    def at(cls, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> "Entries":
        """Return the entries at the given positions.

        Parameters
        ----------
        rows, columns : integer tensors, shape (n,)
            ``rows`` must be ascending.
        shape : tuple of int

        Raises
        ------
        ValueError
            ``rows`` is not ascending.
        """
        r, c = (ids.cpu().numpy().astype(np.int32) for ids in (rows, columns))
        if (np.diff(r) < 0).any():
            raise ValueError("expected rows in ascending order; sort the entries by row first")
        row_pointers = np.searchsorted(r, np.arange(shape[0] + 1)).astype(np.int32)
        return cls._transposed(r, c, row_pointers, shape).to(rows.device)

    def with_columns(self, columns: Tensor) -> "Entries":
        """Return entries in the same rows but in other columns (integer tensor, shape (n,))."""
        c = columns.cpu().numpy().astype(np.int32)
        rows, pointers = self.rows.cpu().numpy(), self.row_pointers.cpu().numpy()
        return self._transposed(rows, c, pointers, self.shape).to(columns.device)

    @classmethod
    def _transposed(
        cls, rows: np.ndarray, columns: np.ndarray, pointers: np.ndarray, shape: tuple[int, int]
    ) -> "Entries":
        # The counting sort of scipy is ten times as fast as argsort.
        by_row = sp.csr_matrix((np.arange(len(rows), dtype=np.int32), columns, pointers), shape)
        by_column = by_row.tocsc()
        indices = (rows, columns, pointers, by_column.indptr, by_column.data, by_column.indices)
        return cls(shape, *map(torch.from_numpy, indices))

    def to(self, device: str | torch.device) -> "Entries":
        """Return the same entries on a device."""
        tensors = (value.to(device) for name, value in vars(self).items() if name != "shape")
        return Entries(self.shape, *tensors)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_counts(self) -> Tensor:
        """The number of entries in each row, int32, shape (R,)."""
        return self.row_pointers.diff()

    @property
    def column_counts(self) -> Tensor:
        """The number of entries in each column, int32, shape (C,)."""
        return self.column_pointers.diff()

    def dot(self, P: Tensor, Q: Tensor) -> Tensor:
        """Return the sampled product: p_r·q_c for each entry (r, c), shape (n,).

        Parameters
        ----------
        P, Q : tensors, shapes (R, F) and (C, F)
        """
        return sampled_product(self.matrix(P.new_zeros(len(self))), P, Q)

    def matrix(self, values: Tensor) -> Tensor:
        """Return the sparse CSR tensor E, shape (R, C), with ``values``, shape (n,)."""
        return csr_tensor(self.row_pointers, self.columns, values, self.shape)

    def transposed(self, values: Tensor) -> Tensor:
        """Return the transpose of ``matrix(values)`` as a sparse CSR tensor, shape (C, R)."""
        values = values.index_select(0, self.column_order)
        shape = (self.shape[1], self.shape[0])
        return csr_tensor(self.column_pointers, self.rows_by_column, values, shape)

    def row_sums(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` (shape (n,)) in each row, shape (R,)."""
        return values.new_zeros(self.shape[0]).index_add_(0, self.rows, values)

    def column_sums(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` (shape (n,)) in each column, shape (C,)."""
        return values.new_zeros(self.shape[1]).index_add_(0, self.columns, values)


def partition(
    matrix: sp.csr_matrix, parts: int, rng: torch.Generator
) -> list[tuple[Tensor, Entries]]:
    """Divide the stored entries of a matrix at random into parts of equal size.

    Parameters
    ----------
    matrix : csr_matrix with n stored entries
    parts : int
        The number of parts; no more than n are returned.
    rng : torch.Generator

    Returns
    -------
    list of (places, entries)
        For each part the places of its entries in ``matrix.data`` (int64 tensor, ascending) and
        their positions. Sizes differ by at most 1.
    """
    users, items = interactions(matrix)
    part_of = torch.randperm(matrix.nnz, generator=rng, device="cpu").numpy() % parts
    order = torch.from_numpy(np.argsort(part_of, kind="stable"))
    sizes = np.bincount(part_of).tolist()
    return [(p, Entries.at(users[p], items[p], matrix.shape)) for p in order.split(sizes)]


def interactions(user_items: sp.csr_matrix) -> tuple[Tensor, Tensor]:
    """Return the user and the item of each stored entry, row by row.

    Parameters
    ----------
    user_items : csr_matrix, shape (U, I), with n stored entries

    Returns
    -------
    users, items : int64 tensors, shape (n,)
    """
    entries = user_items.tocoo()
    users, items = (torch.from_numpy(ids.astype(np.int64)) for ids in (entries.row, entries.col))
    return users, items


def row_blocks(n_rows: int, numbers_per_row: int) -> Iterator[slice]:
    """Yield consecutive slices of rows, each of which needs at most ``BLOCK`` numbers.

    At least one slice is yielded, possibly empty, so that results can be concatenated.
    """
    size = max(1, BLOCK // numbers_per_row)
    return (slice(start, min(start + size, n_rows)) for start in range(0, max(n_rows, 1), size))
