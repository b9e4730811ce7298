"""Validation of matrices in any form, ids of any type, and scalar arguments."""

import fractions

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mflib import ALS, SVD
from mflib.inputs import (
    as_csr,
    as_ids,
    as_values,
    available_device,
    flag,
    float_dtype,
    likes_of,
    nonnegative_float,
    positive_float,
    positive_int,
    seed_or_generator,
    share,
    transposed_hint,
)

# --- matrices -----------------------------------------------------------------------------------


def with_duplicates(dtype, form):
    """Return a matrix with one entry given 130 times and another twice, all of value 1."""
    rows, columns = np.repeat([0, 1], [130, 2]), np.repeat([2, 0], [130, 2])
    data = np.ones(132, dtype)
    if form == "coo":
        return sp.coo_matrix((data, (rows, columns)), (2, 3))
    if form == "csr":
        return sp.csr_matrix((data, columns, [0, 130, 132]), (2, 3))
    return sp.csc_array((data, np.repeat([1, 0], [2, 130]), [0, 2, 2, 132]), (2, 3))


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float32, np.float64])
def test_as_csr_sums_duplicates_without_overflow(dtype, form):
    """In int8 the sum would be -126, in bool 1."""
    got = as_csr(with_duplicates(dtype, form))
    assert got.toarray().tolist() == [[0, 0, 130], [2, 0, 0]]
    assert got.has_canonical_format


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float64, "f8"),
        (np.longdouble, "f8"),
        (np.int64, "f8"),
        (np.int32, "f8"),
        (np.uint64, "f8"),
        (np.int16, "f4"),
        (np.uint8, "f4"),
        (bool, "f4"),
        (np.float32, "f4"),
    ],
)
def test_as_csr_chooses_a_type_that_holds_every_value(dtype, expected):
    got = as_csr(sp.csr_matrix(np.array([[1, 0, 2]], np.int16)).astype(dtype))
    assert got.dtype == np.dtype(expected)
    assert got.toarray().tolist() == [[1, 0, 1 if dtype is bool else 2]]


@pytest.mark.parametrize("value", [0.1, 2**24 + 1, -(2**31)])
def test_as_csr_keeps_full_precision(value):
    assert as_csr(sp.csr_matrix(np.array([[value]]))).data.tolist() == [value]


def test_as_csr_drops_zeros():
    matrix = sp.csr_matrix((np.array([0.0, 1, -1, 5]), [0, 1, 1, 2], [0, 4]), (1, 3))
    got = as_csr(matrix)
    assert got.nnz == 1, "stored zeros and sums of zero are not entries"
    assert got.toarray().tolist() == [[0, 0, 5]]


@pytest.mark.parametrize("form", ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"])
def test_as_csr_accepts_every_sparse_format_and_copies(form):
    dense = np.array([[0.0, 2, 1], [0, 0, 0], [3, 0, -1]])
    for kind in (sp.csr_matrix, sp.csr_array):
        matrix = kind(dense).asformat(form)
        got = as_csr(matrix)
        assert isinstance(got, sp.csr_matrix)
        assert got.toarray().tolist() == dense.tolist()
        assert got.has_sorted_indices
        got.data[:] = 9
        assert matrix.toarray().tolist() == dense.tolist(), "the input must not be changed"


def test_as_csr_sorts_the_columns():
    matrix = sp.csr_matrix((np.array([1.0, 2, 3]), [2, 0, 1], [0, 3]), (1, 3))
    got = as_csr(matrix)
    assert got.indices.tolist() == [0, 1, 2]
    assert got.data.tolist() == [2, 3, 1]
    assert matrix.indices.tolist() == [2, 0, 1], "the input must not be changed"


def test_as_csr_accepts_a_row_of_a_sparse_array():
    array = sp.csr_array(np.array([[1.0, 0, 2], [0, 3, 0]]))
    assert as_csr(array[0]).toarray().tolist() == [[1, 0, 2]]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones((3, 3)), TypeError, r"a scipy sparse matrix \(users x items\), got ndarray"),
        (torch.ones(3, 3), TypeError, "got Tensor; convert it with scipy.sparse.csr_matrix"),
        (None, TypeError, "got NoneType"),
        (sp.csr_matrix(np.array([[1j]])), TypeError, "real numbers, got complex128"),
        (sp.coo_array(np.ones((2, 2, 2))), TypeError, r"\(users x items\), got 3 dimensions"),
        (sp.csr_matrix(np.array([[1.0, np.nan]])), ValueError, "got NaN or infinity"),
        (sp.csr_matrix(np.array([[1.0, np.inf]])), ValueError, "got NaN or infinity"),
        (sp.csr_matrix(np.array([[1.0, -np.inf]], np.float32)), ValueError, "NaN or infinity"),
    ],
)
def test_as_csr_refuses_invalid_matrices(bad, error, message):
    with pytest.raises(error, match=message):
        as_csr(bad)


@pytest.mark.parametrize("shift", [1, 1000, -1])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_array, sp.bsr_matrix])
def test_as_csr_refuses_indices_outside_the_shape(shift, form):
    """Scipy accepts such a matrix, and torch's kernels would crash on it."""
    good = form(np.array([[1.0, 0, 2], [0, 3, 4], [1, 1, 1]]))
    bad = form((good.data, good.indices + shift, good.indptr), shape=good.shape)
    with pytest.raises(ValueError, match=r"within the shape \(3, 3\), got: .*; ids start at 0"):
        as_csr(bad)


def test_likes_of_returns_the_values_above_zero():
    likes = likes_of(sp.csr_matrix(np.array([[1.0, -1, 0], [0.5, 0, 0]])))
    assert likes.toarray().tolist() == [[True, False, False], [True, False, False]]
    assert likes.nnz == 2, "dislikes must not be stored"
    with pytest.raises(ValueError, match=r"at least one like .* to learn from, got 2 values <= 0"):
        likes_of(sp.csr_matrix(np.array([[-1.0, -1, 0]])))


def test_transposed_hint_is_given_only_where_the_matrix_looks_transposed():
    hint = "; it looks transposed: rows must be users and columns must be items, also in fit"
    assert transposed_hint((25, 30), (30, 25), (30, 25)) == hint
    assert transposed_hint((1, 30), (1, 25), (30, 25)) == hint
    assert transposed_hint((5, 25), (30, 25), (30, 25)) == ""
    assert transposed_hint((1, 7), (1, 25), (30, 25)) == ""


@pytest.mark.parametrize("value", [1e-50, 1e39, -1e39, -1e-50])
def test_as_values_refuses_values_that_the_type_cannot_represent(value):
    """In float32 they would silently become 0 or infinity; float64 holds them."""
    matrix = as_csr(sp.csr_matrix(np.array([[1.0, value]])))
    message = r"expected values that torch.float32 can represent, got magnitudes from .*; rescale"
    with pytest.raises(ValueError, match=message):
        as_values(matrix, torch.float32)
    got = as_values(matrix, torch.float64)
    assert got.tolist() == [1.0, value]
    assert got.dtype == torch.float64


def test_as_values_reports_the_smallest_and_largest_magnitude():
    matrix = as_csr(sp.csr_matrix(np.array([[-1e39, 2.0, 1e-50]])))
    with pytest.raises(ValueError, match=r"magnitudes from 1e-50 to 1e\+39; rescale the values"):
        as_values(matrix, torch.float32)


def test_as_values_accepts_the_limits_of_float32():
    limits = np.finfo(np.float32)
    values = [float(limits.max), -float(limits.max), float(limits.smallest_subnormal), 0.1]
    got = as_values(as_csr(sp.csr_matrix(np.array([values]))), torch.float32)
    assert got.tolist() == np.array(values, np.float32).tolist()
    assert got.dtype == torch.float32


@pytest.mark.parametrize("model", [SVD, ALS])
@pytest.mark.parametrize("value", [1e-50, 1e39])
def test_fit_refuses_values_that_the_type_cannot_represent(model, value):
    matrix = sp.csr_matrix(np.array([[1.0, 0.0], [0.0, value]]))
    with pytest.raises(ValueError, match=r"torch.float32 can represent, got magnitudes from"):
        model(2, iterations=1).fit(matrix)


# --- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids", [3, np.int32(3), [3], (3,), np.array([3], np.uint8), torch.tensor(3), torch.tensor([3])]
)
def test_as_ids_accepts_integers_of_any_type(ids):
    got = as_ids(ids, "item", 4)
    assert got.tolist() == [3]
    assert got.dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([4], IndexError, "item ids from 0 to 3, got 4 to 4; ids are contiguous"),
        ([1, -1], IndexError, "got -1 to 1"),
        (1.5, TypeError, "expected one item id or a 1-D array of them, got float64"),
        ([[1]], TypeError, r"got int64 of shape \(1, 1\)"),
        ([True], TypeError, "got bool"),
        ("1", TypeError, "got <U1"),
        (None, TypeError, "got object"),
        ([2**64], TypeError, "got object"),
        (torch.tensor([1.5]), TypeError, "got float32"),
    ],
)
def test_as_ids_refuses_invalid_ids(ids, error, message):
    with pytest.raises(error, match=message):
        as_ids(ids, "item", 4)


def test_as_ids_accepts_an_empty_list_and_an_unknown_count():
    assert as_ids([], "item", 4).tolist() == []
    assert as_ids([], "item", 4).dtype == np.int64
    assert as_ids([10**9, -1], "item").tolist() == [10**9, -1]


def test_as_ids_returns_a_copy():
    ids = np.array([1, 2])
    as_ids(ids, "item", 4)[0] = 3
    assert ids.tolist() == [1, 2]


# --- arguments ----------------------------------------------------------------------------------

NOT_NUMBERS = ["3", b"3", "", True, np.True_, None, 1j, [3, 4], float("nan"), np.nan, {}]


@pytest.mark.parametrize("number", [positive_int, positive_float, nonnegative_float, share])
@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_number_checks_refuse_other_types(number, value):
    with pytest.raises(ValueError, match=r"expected .* number .* for alpha, got "):
        number("alpha", value)


@pytest.mark.parametrize("number", [positive_int, positive_float, nonnegative_float, share])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), -1, 10**400, -(10**400)])
def test_number_checks_refuse_negative_and_infinite_values(number, value):
    """10**400 overflows a float, which must not surface as an OverflowError."""
    with pytest.raises(ValueError, match=r"expected .* number .* for alpha, got "):
        number("alpha", value)


@pytest.mark.parametrize(
    "value", [7, 7.0, np.int64(7), np.float32(7), torch.tensor(7), fractions.Fraction(14, 2)]
)
def test_positive_int_accepts_whole_numbers_of_any_type(value):
    got = positive_int("N", value)
    assert got == 7
    assert type(got) is int


@pytest.mark.parametrize("value", [10**12, 2**53 + 1, 2**62 + 1])
def test_positive_int_keeps_large_numbers_exactly(value):
    assert positive_int("N", value) == value


@pytest.mark.parametrize("value", [0, 0.5, 7.5, np.float64(1) + 2**-50])
def test_positive_int_refuses_zero_and_fractions(value):
    with pytest.raises(ValueError, match="expected a whole number >= 1 for N, got"):
        positive_int("N", value)


@pytest.mark.parametrize("number", [positive_float, nonnegative_float])
@pytest.mark.parametrize("value", [3, np.float32(3), np.int8(3), torch.tensor(3.0)])
def test_float_checks_return_plain_floats(number, value):
    got = number("alpha", value)
    assert got == 3
    assert type(got) is float


def test_only_nonnegative_float_accepts_zero():
    assert nonnegative_float("alpha", 0) == 0
    assert nonnegative_float("alpha", 5e-324) == positive_float("alpha", 5e-324) == 5e-324
    with pytest.raises(ValueError, match="expected a finite number > 0 for alpha, got 0"):
        positive_float("alpha", 0)


@pytest.mark.parametrize("value", [0, 1, 1.5, 80])
def test_share_refuses_values_outside_the_open_interval(value):
    with pytest.raises(ValueError, match="a number between 0 and 1 for alpha, got"):
        share("alpha", value)
    assert share("alpha", np.float64(0.25)) == 0.25
    assert share("alpha", 1 - 2**-53) == 1 - 2**-53


@pytest.mark.parametrize("value", ["False", None, 0, 1, 2.0, [True]])
def test_flag_refuses_anything_but_booleans(value):
    assert flag("use_cg", np.False_) is False
    assert flag("use_cg", True) is True
    with pytest.raises(ValueError, match="expected True or False for use_cg, got"):
        flag("use_cg", value)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, torch.float64),
        (np.float64, torch.float64),
        ("float64", torch.float64),
        (np.dtype("f8"), torch.float64),
        (float, torch.float64),
        (torch.float32, torch.float32),
        (np.float32, torch.float32),
        ("f4", torch.float32),
    ],
)
def test_float_dtype_accepts_the_names_of_numpy_and_torch(dtype, expected):
    assert float_dtype("dtype", dtype) is expected


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.int64, np.float16, "float16", np.int32, "half", None, 3],
)
def test_float_dtype_refuses_other_types(dtype):
    with pytest.raises(ValueError, match="expected float32 or float64 for dtype, got"):
        float_dtype("dtype", dtype)


def test_available_device_returns_the_name():
    assert available_device("device", "cpu") == "cpu"
    assert available_device("device", torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "fpga", "hpu", 3.5, ""])
def test_available_device_refuses_devices_that_do_not_exist(device):
    message = "expected an available device, such as 'cpu' or 'cuda', for device, got"
    with pytest.raises(ValueError, match=message) as caught:
        available_device("device", device)
    assert "\n" not in str(caught.value), "the message must have one line; those of torch have many"


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_available_device_refuses_the_meta_device(device):
    with pytest.raises(ValueError, match=r"for device, got .*tensors on 'meta' hold no data"):
        available_device("device", device)


def test_seed_or_generator_returns_generators_unchanged():
    """A seed drawn in the constructor would be the same in every fit."""
    for value in (None, np.random.default_rng(1), np.random.RandomState(1)):
        assert seed_or_generator("random_state", value) is value
    assert type(seed_or_generator("random_state", np.int32(5))) is int
    with pytest.raises(ValueError, match="None or a numpy generator for random_state, got 'x'"):
        seed_or_generator("random_state", "x")
