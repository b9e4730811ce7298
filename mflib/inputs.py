"""Validation of matrices, ids and constructor arguments."""

import math
import operator
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike
from torch import Tensor

UserItems: TypeAlias = sp.spmatrix | sp.sparray
Ids: TypeAlias = ArrayLike | Tensor
Seed: TypeAlias = int | np.random.Generator | np.random.RandomState | None
MAX_SEED = 2**30  # a stream of a seed has the number 3 * seed + stream; torch uses 32 bits of it


# --- matrices -----------------------------------------------------------------------------------


def as_csr(user_items: UserItems) -> sp.csr_matrix:
    """Return a validated copy of a sparse matrix in canonical CSR form.

    Parameters
    ----------
    user_items : sparse matrix or array, shape (U, I)
        Real or boolean values. Duplicate entries are summed, in a type that holds the sum. (The
        CSR constructor of scipy sums duplicates itself, in the type it is given.) A stored 0 is
        dropped.

    Returns
    -------
    csr_matrix, shape (U, I)
        float32, or float64 where float32 cannot hold every value of the input type (float64,
        32-bit and 64-bit integers). Indices are sorted; no zeros are stored.

    Raises
    ------
    TypeError
        The matrix is dense, or does not hold real numbers.
    ValueError
        A value is NaN or infinite, or an index lies outside the shape.
    """
    if not sp.issparse(user_items):
        got = type(user_items).__name__
        hint = "convert it with scipy.sparse.csr_matrix"
        raise TypeError(f"expected a scipy sparse matrix (users x items), got {got}; {hint}")
    if user_items.dtype.kind not in "biuf":
        raise TypeError(f"expected a matrix of real numbers, got {user_items.dtype}")
    if user_items.ndim > 2:
        got = f"{user_items.ndim} dimensions"
        raise TypeError(f"expected a matrix (users x items), got {got}")
    if user_items.ndim == 1:  # a row of a sparse array
        user_items = user_items.reshape(1, -1)
    if user_items.format in ("csr", "csc", "bsr"):
        _check_indices(user_items)
    wide = np.result_type(user_items.dtype, np.float32).itemsize > 4
    # Cast before summing duplicates: in int8, 130 times 1 is -126.
    csr = sp.csr_matrix(user_items.astype(np.float64 if wide else np.float32))  # a copy
    csr.sum_duplicates()
    csr.eliminate_zeros()
    if not np.isfinite(csr.data).all():
        hint = "leave unknown entries out instead"
        raise ValueError(f"expected finite values in user_items, got NaN or infinity; {hint}")
    return csr


def _check_indices(matrix: UserItems) -> None:
    """Raise ValueError for indices outside the shape, which would crash torch."""
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        hint = "ids start at 0 and are contiguous"
        message = f"expected ids within the shape {matrix.shape}, got: {error}; {hint}"
        raise ValueError(message) from error


def likes_of(user_items: sp.csr_matrix) -> sp.csr_matrix:
    """Return the entries above 0 as booleans; raise ValueError if there are none."""
    likes = user_items > 0
    check_likes(likes.nnz, user_items.nnz)
    return likes


def check_likes(n_likes: int, n_entries: int) -> None:
    """Raise ValueError if no entry is a like (a value > 0)."""
    if not n_likes:
        got = f"{n_entries} values <= 0"
        raise ValueError(f"expected at least one like (a value > 0) to learn from, got {got}")


def as_values(matrix: sp.csr_matrix, dtype: torch.dtype) -> Tensor:
    """Return the stored values of a validated matrix as a CPU tensor of the model's ``dtype``.

    Raises
    ------
    ValueError
        A value overflows to infinity or underflows to 0 in ``dtype``.
    """
    values = torch.from_numpy(matrix.data).to(dtype)
    if not bool((values.isfinite() & (values != 0)).all()):
        magnitudes = np.abs(matrix.data)
        got = f"magnitudes from {magnitudes.min():g} to {magnitudes.max():g}"
        hint = "rescale the values or use dtype=torch.float64"
        raise ValueError(f"expected values that {dtype} can represent, got {got}; {hint}")
    return values


def transposed_hint(
    got: tuple[int, ...], expected: tuple[int, int], fitted: tuple[int, int]
) -> str:
    """Return a hint for an error message if a matrix looks transposed, otherwise "".

    ``got`` and ``expected`` are shapes of a matrix; ``fitted`` is the model's shape (U, I).
    """
    if got == expected[::-1] or (got[-1] == fitted[0] != fitted[1]):
        return "; it looks transposed: rows must be users and columns must be items, also in fit"
    return ""


# --- ids ----------------------------------------------------------------------------------------


def as_ids(ids: Ids, kind: str, count: int | None = None) -> np.ndarray:
    """Return validated ids.

    Parameters
    ----------
    ids : int, list, array or tensor
        One id or n ids.
    kind : {"user", "item"}
        The kind of id, for error messages.
    count : int, optional
        The number of existing users or items. None accepts any integer.

    Returns
    -------
    int64 array, shape (n,)

    Raises
    ------
    TypeError
        The ids are not integers, or have more than one dimension.
    IndexError
        An id is negative, or >= ``count``.
    """
    if isinstance(ids, Tensor):
        ids = ids.detach().cpu().numpy()
    array = np.atleast_1d(np.asarray(ids))
    if array.ndim > 1 or (array.size and array.dtype.kind not in "iu"):
        got = f"{array.dtype} of shape {array.shape}"
        raise TypeError(f"expected one {kind} id or a 1-D array of them, got {got}")
    if count is not None and array.size and (array.min() < 0 or array.max() >= count):
        got = f"{array.min()} to {array.max()}"
        hint = "ids are contiguous: userid() and itemid() of the data set convert original ids"
        raise IndexError(f"expected {kind} ids from 0 to {count - 1}, got {got}; {hint}")
    return array.astype(np.int64)


# --- arguments ----------------------------------------------------------------------------------


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` as an int; raise ValueError unless it is a whole number >= 1."""
    number = _number(value)
    if not (number >= 1 and number.is_integer()):
        raise ValueError(f"expected a whole number >= 1 for {name}, got {value!r}")
    return int(value)  # not int(number): a float cannot hold every integer


def positive_float(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise ValueError unless it is finite and > 0."""
    number = _number(value)
    if not 0 < number < math.inf:
        raise ValueError(f"expected a finite number > 0 for {name}, got {value!r}")
    return number


def nonnegative_float(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise ValueError unless it is finite and >= 0."""
    number = _number(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"expected a finite number >= 0 for {name}, got {value!r}")
    return number


def share(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise ValueError unless 0 < value < 1."""
    number = _number(value)
    if not 0 < number < 1:
        raise ValueError(f"expected a number between 0 and 1 for {name}, got {value!r}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return ``value`` as a bool; raise ValueError unless it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"expected True or False for {name}, got {value!r}")
    return bool(value)


def _number(value: Any) -> float:
    """Return ``value`` as a float: NaN if it is not a number, infinity if it is too large."""
    try:
        return math.nan if isinstance(value, str | bytes | bool | np.bool_) else float(value)
    except OverflowError:  # an int of more than 308 digits
        return math.inf
    except (TypeError, ValueError):
        return math.nan


def float_dtype(name: str, value: Any) -> torch.dtype:
    """Return torch.float32 or torch.float64, given as a torch or numpy type or by name."""
    dtype = value
    if value is not None and not isinstance(value, torch.dtype):
        try:
            dtype = getattr(torch, np.dtype(value).name, None)
        except TypeError:
            dtype = None
    if dtype not in (torch.float32, torch.float64):
        reason = "half precision loses the small steps of training"
        raise ValueError(f"expected float32 or float64 for {name}, got {value!r}; {reason}")
    return dtype


def available_device(name: str, value: Any) -> str:
    """Return the name of a device on which this machine can compute."""
    expected = f"expected an available device, such as 'cpu' or 'cuda', for {name}"
    try:
        device = torch.empty(0, device=value).device
    except (RuntimeError, TypeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{expected}, got {value!r}: {reason}") from error
    if device.type == "meta":
        raise ValueError(f"{expected}, got {value!r}: tensors on 'meta' hold no data")
    return str(device)


def seed_or_generator(name: str, value: Any) -> Seed:
    """Return None or a numpy generator unchanged, anything else as a validated seed."""
    if value is None or isinstance(value, np.random.Generator | np.random.RandomState):
        return value  # each fit draws a seed from it
    return seed_of(value, name)


def seed_of(random_state: Seed, name: str = "random_state") -> int:
    """Return a seed: ``random_state`` itself, or a new one drawn from a numpy generator or None.

    Raises
    ------
    ValueError
        ``random_state`` has another type, or is an integer outside 0 … 2**30 - 1.
    """
    if random_state is None:
        random_state = np.random.default_rng()
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(MAX_SEED))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(MAX_SEED))
    try:
        seed = operator.index(random_state)
    except TypeError:
        seed = -1
    if not 0 <= seed < MAX_SEED:
        expected = "a whole number from 0 to 2**30 - 1, None or a numpy generator"
        raise ValueError(f"expected {expected} for {name}, got {random_state!r}")
    return seed
