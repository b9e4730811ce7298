"""What comes in from outside, checked: matrices and ids; and the blocks that bound memory."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike
from torch import Tensor

UserItems: TypeAlias = sp.spmatrix | sp.sparray
Ids: TypeAlias = ArrayLike | Tensor
BLOCK = 2**22  # numbers held at once: users x items never are


def as_csr(user_items: UserItems) -> sp.csr_matrix:
    """A checked copy of a sparse matrix in canonical form.

    Parameters
    ----------
    user_items
        Any scipy sparse matrix or array, users x items, of real numbers or bools. Entries given
        twice are summed, in a type that holds the sum (but scipy itself sums what its CSR
        constructor is given twice, in the type it is given); a stored 0 is an empty cell.

    Returns
    -------
    CSR matrix, float32, or float64 where float32 does not hold every value of the type that came in
    (float64, integers of 32 and 64 bits). Indices are sorted and no 0 is stored.

    Raises
    ------
    TypeError
        The matrix is not sparse, or does not hold real numbers.
    ValueError
        A value is NaN or infinite, or an id lies outside the shape.
    """
    if not sp.issparse(user_items):
        got = type(user_items).__name__
        hint = "scipy.sparse.csr_matrix makes one"
        raise TypeError(f"expected a scipy sparse matrix, users x items, got {got}; {hint}")
    if user_items.dtype.kind not in "biuf":
        raise TypeError(f"expected a matrix of real numbers, got {user_items.dtype}")
    wide = np.result_type(user_items.dtype, np.float32).itemsize > 4
    if user_items.ndim > 2:
        raise TypeError(f"expected a matrix, users x items, got {user_items.ndim} dimensions")
    if user_items.ndim == 1:  # a row of a sparse array
        user_items = user_items.reshape(1, -1)
    if user_items.format in ("csr", "csc", "bsr"):
        _check_indices(user_items)
    # cast before the sum: in int8, 130 times 1 is -126
    csr = sp.csr_matrix(user_items.astype(np.float64 if wide else np.float32))  # a copy
    csr.sum_duplicates()
    csr.eliminate_zeros()
    if not np.isfinite(csr.data).all():
        hint = "leave unknown cells out instead"
        raise ValueError(f"expected finite values in user_items, got NaN or infinity; {hint}")
    return csr


def shards(source: Path) -> Iterator[sp.csr_matrix]:
    """The matrix of a file that scipy.sparse.save_npz wrote, or those of a folder, one at a time.

    Each is checked and has the next users, in the order of the files' names, and all items.
    ValueError: there is no such matrix, or they do not fit each other.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.npz"))
    if len({len(file.name) for file in files}) != 1:  # 10.npz would come before 9.npz
        got = ", ".join(file.name for file in files) or "nothing"
        expected = "an .npz, or a folder of some with names of one length, as 00.npz and 01.npz"
        raise ValueError(f"expected {source} to be {expected}, got {got}")
    width = None
    for file in files:
        try:
            shard = as_csr(sp.load_npz(file))
        except Exception as error:  # scipy raises many kinds on what it has not written
            expected = "a sparse matrix that scipy.sparse.save_npz wrote"
            raise ValueError(f"expected {file} to hold {expected}, got: {error}") from error
        width = shard.shape[1] if width is None else width
        if shard.shape[1] != width:
            expected = f"{width} columns in {file}, as in {files[0]}"
            raise ValueError(f"expected {expected}, got {shard.shape[1]}")
        yield shard


def _check_indices(matrix: UserItems) -> None:
    """ValueError if ids lie outside the shape: scipy does not look, and torch would crash."""
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        hint = "ids start at 0 and are contiguous"
        message = f"expected ids within the shape {matrix.shape}, got: {error}; {hint}"
        raise ValueError(message) from error


def cells_of(source: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """How many cells each user and each item has in all ``shards``, and a SHA-256 of all of them.

    ValueError if none is liked. The hash does not depend on how the users are cut into shards.
    """
    of_users, of_items, likes = [], np.zeros(1, np.int64), 0
    ids, values = hashlib.sha256(), hashlib.sha256()
    for shard in shards(source):
        ids.update(shard.indices.astype(np.int64))
        values.update(shard.data.astype(np.float64))
        of_users.append(shard.getnnz(1).astype(np.int64))
        of_items = of_items + shard.getnnz(0)
        likes += int(np.count_nonzero(shard.data > 0))
    _check_likes(likes, int(of_items.sum()))
    users = np.concatenate(of_users)
    whole = hashlib.sha256(users.tobytes() + ids.digest() + values.digest())
    return users, of_items, whole.hexdigest()


def likes_of(user_items: sp.csr_matrix) -> sp.csr_matrix:
    """The cells above 0, as bools; ValueError if there are none."""
    likes = user_items > 0
    _check_likes(likes.nnz, user_items.nnz)
    return likes


def _check_likes(likes: int, cells: int) -> None:
    if not likes:
        got = f"{cells} values of at most 0"
        raise ValueError(f"expected values above 0, the likes, to learn from, got {got}")


def interactions(user_items: sp.csr_matrix) -> tuple[Tensor, Tensor]:
    """The ids of all stored cells, row by row.

    Parameters
    ----------
    user_items
        CSR matrix of U x I with n stored cells.

    Returns
    -------
    users, items
        int64 tensors of n ids.
    """
    cells = user_items.tocoo()
    users, items = (torch.from_numpy(ids.astype(np.int64)) for ids in (cells.row, cells.col))
    return users, items


def as_ids(ids: Ids, what: str, size: int | None = None) -> np.ndarray:
    """Checked ids.

    Parameters
    ----------
    ids
        One id or n of them: integers, a list, a numpy array, a torch tensor, …
    what
        What they number, "user" or "item", for the messages.
    size
        How many of these exist; without it any number will do.

    Returns
    -------
    int64 array of n ids.

    Raises
    ------
    TypeError
        They are not integers in one dimension.
    IndexError
        An id is negative, or ``size`` or more.
    """
    if isinstance(ids, Tensor):
        ids = ids.detach().cpu().numpy()
    array = np.atleast_1d(np.asarray(ids))
    if array.ndim > 1 or (array.size and array.dtype.kind not in "iu"):
        got = f"{array.dtype} of shape {array.shape}"
        raise TypeError(f"expected one {what} id or an array of them, got {got}")
    if size is not None and array.size and (array.min() < 0 or array.max() >= size):
        got = f"{array.min()} to {array.max()}"
        hint = "ids are contiguous: userid() and itemid() of the data translate"
        raise IndexError(f"expected {what} ids from 0 to {size - 1}, got {got}; {hint}")
    return array.astype(np.int64)


def row_blocks(n_rows: int, numbers_per_row: int) -> Iterator[slice]:
    """Consecutive slices of rows for which no more than ``BLOCK`` numbers are held at once.

    There is one at least, perhaps empty, so that results can be joined.
    """
    size = max(1, BLOCK // numbers_per_row)
    return (slice(start, min(start + size, n_rows)) for start in range(0, max(n_rows, 1), size))


def transposed_hint(
    got: tuple[int, ...], expected: tuple[int, int], fitted: tuple[int, int]
) -> str:
    """A hint for a message, where the shapes show that users and items are exchanged, else "".

    ``got`` and ``expected`` are the shapes of a matrix, ``fitted`` is that of the model, U x I.
    """
    if got == expected[::-1] or (got[-1] == fitted[0] != fitted[1]):
        return "; it looks transposed: rows are users and columns are items, in fit, too"
    return ""
