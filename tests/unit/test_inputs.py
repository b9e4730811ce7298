"""What comes in from outside: matrices in any form, ids of any kind, blocks of rows."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mflib.inputs import as_csr, as_ids, interactions, likes_of, row_blocks


def given_twice(dtype, form):
    """A cell of ones given 130 times, another 2 times, in a form that keeps them apart."""
    rows, columns = np.repeat([0, 1], [130, 2]), np.repeat([2, 0], [130, 2])
    data = np.ones(132, dtype)
    if form == "coo":
        return sp.coo_matrix((data, (rows, columns)), (2, 3))
    if form == "csr":
        return sp.csr_matrix((data, columns, [0, 130, 132]), (2, 3))
    return sp.csc_array((data, np.repeat([1, 0], [2, 130]), [0, 2, 2, 132]), (2, 3))


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float32, np.float64])
def test_what_is_given_twice_is_summed_without_overflow(form, dtype):
    """In int8 130 would become -126, in bool 1."""
    got = as_csr(given_twice(dtype, form))
    assert got.toarray().tolist() == [[0, 0, 130], [2, 0, 0]]
    assert got.has_canonical_format


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float64, "f8"),
        (np.longdouble, "f8"),
        (np.int64, "f8"),
        (np.int32, "f8"),
        (np.int16, "f4"),
        (np.uint8, "f4"),
        (bool, "f4"),
        (np.float32, "f4"),
    ],
)
def test_no_value_is_rounded(dtype, expected):
    got = as_csr(sp.csr_matrix(np.array([[1, 0, 2]], np.int16)).astype(dtype))
    assert got.dtype == np.dtype(expected)


def test_digits_of_float64_and_large_counts_are_kept():
    assert as_csr(sp.csr_matrix(np.array([[0.1]]))).data[0] == 0.1
    assert as_csr(sp.csr_matrix(np.array([[2**24 + 1]]))).data[0] == 2**24 + 1


def test_stored_zeros_are_empty_cells():
    matrix = sp.csr_matrix((np.array([0.0, 1, -1]), ([0, 0, 0], [0, 1, 1])), (1, 3))
    assert as_csr(matrix).nnz == 0, "what sums to zero, too"


def test_a_row_of_a_sparse_array_is_a_row():
    array = sp.csr_array(np.array([[1.0, 0, 2], [0, 3, 0]]))
    assert as_csr(array[0]).toarray().tolist() == [[1, 0, 2]]


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (np.ones((3, 3)), TypeError, "expected a scipy sparse matrix, users x items, got ndarray"),
        (torch.ones(3, 3), TypeError, "got Tensor; scipy.sparse.csr_matrix makes one"),
        (None, TypeError, "got NoneType"),
        (sp.csr_matrix(np.array([[1j]])), TypeError, "real numbers, got complex128"),
        (sp.csr_matrix(np.array([[1.0, np.nan]])), ValueError, "got NaN or infinity"),
        (sp.csr_matrix(np.array([[1.0, np.inf]])), ValueError, "got NaN or infinity"),
    ],
)
def test_matrices_refused(bad, error, says):
    with pytest.raises(error, match=says):
        as_csr(bad)


@pytest.mark.parametrize("shift", [1, 1000, -1])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_array, sp.bsr_matrix])
def test_ids_outside_the_shape_are_refused(shift, form):
    """Scipy takes such triples as they are, and torch's kernels would crash on them."""
    good = form(np.array([[1.0, 0, 2], [0, 3, 4], [1, 1, 1]]))
    bad = form((good.data, good.indices + shift, good.indptr), shape=good.shape)
    with pytest.raises(ValueError, match=r"within the shape \(3, 3\), got: .*; ids start at 0"):
        as_csr(bad)


def test_more_than_two_dimensions_are_refused():
    with pytest.raises(TypeError, match="users x items, got 3 dimensions"):
        as_csr(sp.coo_array(np.ones((2, 2, 2))))


def test_likes_are_above_zero():
    likes = likes_of(sp.csr_matrix(np.array([[1.0, -1, 0], [0.5, 0, 0]])))
    assert likes.toarray().tolist() == [[True, False, False], [True, False, False]]
    with pytest.raises(ValueError, match="the likes, to learn from, got 2 values of at most 0"):
        likes_of(sp.csr_matrix(np.array([[-1.0, -1, 0]])))


def test_interactions_row_by_row():
    users, items = interactions(sp.csr_matrix(np.array([[0, 2.0, 1], [0, 0, 0], [3, 0, 0]])))
    assert users.tolist() == [0, 0, 2]
    assert items.tolist() == [1, 2, 0]
    assert users.dtype == items.dtype == torch.int64


@pytest.mark.parametrize(
    "ids", [3, np.int32(3), [3], (3,), np.array([3], np.uint8), torch.tensor(3), torch.tensor([3])]
)
def test_ids_of_any_kind(ids):
    got = as_ids(ids, "item", 4)
    assert got.tolist() == [3]
    assert got.dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "error", "says"),
    [
        ([4], IndexError, "item ids from 0 to 3, got 4 to 4; ids are contiguous"),
        ([1, -1], IndexError, "got -1 to 1"),
        (1.5, TypeError, "expected one item id or an array of them, got float64"),
        ([[1]], TypeError, r"got int64 of shape \(1, 1\)"),
        ([True], TypeError, "got bool"),
        ("1", TypeError, "got <U1"),
        (torch.tensor([1.5]), TypeError, "got float32"),
    ],
)
def test_ids_refused(ids, error, says):
    with pytest.raises(error, match=says):
        as_ids(ids, "item", 4)


def test_no_ids_and_any_ids():
    assert as_ids([], "item", 4).tolist() == []
    assert as_ids([10**9], "item").tolist() == [10**9], "where nobody says how many there are"


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 21])
def test_blocks_cover_all_rows_once(rows, monkeypatch):
    monkeypatch.setattr("mflib.inputs.BLOCK", 7 * 100 + 50)
    blocks = list(row_blocks(rows, 100))
    assert [row for block in blocks for row in range(rows)[block]] == list(range(rows))
    assert max(block.stop - block.start for block in blocks) <= 7
    assert len(blocks) == max(1, -(-rows // 7))
    assert len(list(row_blocks(3, 10**6))) == 3, "a row at least, however much it holds"
