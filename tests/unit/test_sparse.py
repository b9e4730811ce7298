"""Sparse patterns and products compared with dense computations; partitions; blocks of rows."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings

from mflib.sampling import TRAINING, generator
from mflib.sparse import Entries, csr_tensor, interactions, partition, row_blocks, sampled_product

CASES = {  # shape, rows, columns
    "sorted": ((3, 4), [0, 0, 1, 2], [0, 3, 1, 2]),
    "unsorted columns": ((3, 4), [0, 0, 1, 2, 2], [2, 0, 1, 3, 0]),
    "duplicates": ((3, 4), [0, 0, 1, 1, 1], [3, 3, 2, 2, 2]),
    "empty rows and columns": ((5, 6), [1, 3, 3], [1, 4, 1]),
    "one entry at the end": ((4, 3), [3], [2]),
    "no entries": ((4, 3), [], []),
    "more entries than positions": ((2, 2), [0, 0, 0, 1, 1, 1], [0, 1, 0, 0, 1, 1]),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    """Return the shape, rows and columns of some entries, in the order of the arguments."""
    shape, rows, columns = request.param
    return shape, torch.tensor(rows, dtype=torch.int64), torch.tensor(columns, dtype=torch.int64)


def dense(entries, values):
    """Return the values as a dense matrix; duplicate entries are summed."""
    matrix = torch.zeros(entries.shape, dtype=torch.float64)
    for r, c, value in zip(entries.rows.tolist(), entries.columns.tolist(), values, strict=True):
        matrix[r, c] += value
    return matrix


def assert_consistent(entries):
    """Check every attribute of the entries against their rows and columns."""
    (n_rows, n_columns), rows, columns = entries.shape, entries.rows, entries.columns
    order = entries.column_order.long()
    row_counts = torch.bincount(rows.long(), minlength=n_rows)
    column_counts = torch.bincount(columns.long(), minlength=n_columns)
    assert entries.row_counts.tolist() == row_counts.tolist()
    assert entries.column_counts.tolist() == column_counts.tolist()
    assert entries.row_pointers.tolist() == [0, *row_counts.cumsum(0).tolist()]
    assert entries.column_pointers.tolist() == [0, *column_counts.cumsum(0).tolist()]
    assert rows.tolist() == sorted(rows.tolist())
    assert order.sort().values.tolist() == list(range(len(entries)))
    assert columns[order].tolist() == sorted(columns.tolist())
    assert entries.rows_by_column.tolist() == rows[order].tolist()
    indices = [value for name, value in vars(entries).items() if name != "shape"]
    assert {index.dtype for index in indices} == {torch.int32}


def test_entries_keep_the_given_positions(case):
    shape, rows, columns = case
    entries = Entries.at(rows, columns, shape)
    assert entries.rows.tolist() == rows.tolist()
    assert entries.columns.tolist() == columns.tolist()
    assert len(entries) == len(rows)
    assert entries.shape == shape


def test_entries_reject_unsorted_rows():
    """Their values would belong to other positions."""
    with pytest.raises(ValueError, match="expected rows in ascending order"):
        Entries.at(torch.tensor([1, 0]), torch.tensor([2, 2]), (3, 4))


def test_entries_have_consistent_indices_in_both_orientations(case):
    shape, rows, columns = case
    assert_consistent(Entries.at(rows, columns, shape))


def test_entries_products_equal_dense_products(case, draw):
    shape, rows, columns = case
    entries = Entries.at(rows, columns, shape)
    P, Q, values = draw(shape[0], 3), draw(shape[1], 3), draw(len(rows))
    E = dense(entries, values)
    close = {"rtol": 1e-14, "atol": 1e-14}
    scores = (P @ Q.T)[entries.rows.long(), entries.columns.long()]
    torch.testing.assert_close(entries.dot(P, Q), scores, **close)
    torch.testing.assert_close(entries.matrix(values) @ Q, E @ Q, **close)
    torch.testing.assert_close(entries.transposed(values) @ P, E.T @ P, **close)
    torch.testing.assert_close(torch.addmm(P, entries.matrix(values), Q), P + E @ Q, **close)
    torch.testing.assert_close(entries.row_sums(values), E.sum(1), **close)
    torch.testing.assert_close(entries.column_sums(values), E.sum(0), **close)


def test_entries_with_columns_keep_the_rows(case):
    shape, rows, columns = case
    entries = Entries.at(rows, columns, shape)
    others = (entries.columns.long() + 1).flip(0) % shape[1]
    moved = entries.with_columns(others)
    assert moved.rows.tolist() == entries.rows.tolist()
    assert moved.columns.tolist() == others.tolist()
    assert moved.shape == shape
    assert_consistent(moved)


def test_entries_do_not_share_memory_with_their_input():
    rows, columns = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([2, 0], dtype=torch.int32)
    entries = Entries.at(rows, columns, (2, 3))
    rows.zero_(), columns.zero_()
    assert entries.rows.tolist() == [0, 1]
    assert entries.columns.tolist() == [2, 0]


def test_entries_to_moves_every_tensor():
    """The device "meta" needs no accelerator; its tensors have shapes but no values."""
    entries = Entries.at(torch.tensor([0, 1]), torch.tensor([2, 2]), (3, 4))
    moved = entries.to("meta")
    tensors = {name: value for name, value in vars(moved).items() if name != "shape"}
    assert {value.device.type for value in tensors.values()} == {"meta"}
    for name, value in tensors.items():
        assert value.shape == getattr(entries, name).shape, name
    assert moved.shape == entries.shape


def test_entries_to_keeps_the_values_in_their_places(case):
    shape, rows, columns = case
    entries = Entries.at(rows, columns, shape)
    same = entries.to("cpu")
    for name, value in vars(entries).items():
        assert torch.equal(torch.as_tensor(getattr(same, name)), torch.as_tensor(value)), name


def test_sampled_product_ignores_the_values_of_the_pattern(draw):
    X, Y = draw(3, 2), draw(4, 2)
    pointers, columns = torch.tensor([0, 2, 2, 3]), torch.tensor([3, 0, 1])
    pattern = csr_tensor(pointers, columns, draw(3) + 100, (3, 4))
    expected = (X @ Y.T)[[0, 0, 2], [3, 0, 1]]
    torch.testing.assert_close(sampled_product(pattern, X, Y), expected, rtol=1e-14, atol=1e-14)


def places_of(matrix, parts, seed=0):
    """Return the places of the entries of each part as lists."""
    return [part.tolist() for part, _ in partition(matrix, parts, generator(seed, TRAINING))]


@pytest.mark.parametrize("parts", [1, 2, 7, 32])
def test_partition_holds_every_entry_once_in_parts_of_equal_size(parts):
    matrix = random_ratings(20, 15, 0.3)
    assert parts < 3 or matrix.nnz % parts, "some parts must be larger than others"
    found = places_of(matrix, parts)
    sizes = [len(part) for part in found]
    assert len(found) == parts
    assert max(sizes) - min(sizes) <= 1
    assert sorted(place for part in found for place in part) == list(range(matrix.nnz))
    assert all((np.diff(part) > 0).all() for part in found), "places must be ascending"


def test_partition_gives_the_positions_of_the_places():
    matrix = random_ratings(20, 15, 0.3)
    users, items = interactions(matrix)
    for places, entries in partition(matrix, 4, generator(0, TRAINING)):
        assert entries.shape == matrix.shape
        assert entries.rows.tolist() == users[places].tolist()
        assert entries.columns.tolist() == items[places].tolist()


def test_partition_of_fewer_entries_than_parts_has_one_entry_per_part():
    matrix = sp.csr_matrix(np.array([[1, 0, 1], [0, 1, 0]]))
    assert sorted(places_of(matrix, 8)) == [[0], [1], [2]]


def test_partition_is_random_and_depends_on_the_generator_only():
    matrix = random_ratings(20, 15, 0.3)
    first = places_of(matrix, 4)
    assert first == places_of(matrix, 4)
    assert first != places_of(matrix, 4, seed=1)
    # A part with every fourth entry, or with consecutive entries, would have equal gaps.
    assert len(set(np.diff(first[0]).tolist())) > 4


def test_partition_ignores_the_default_device_of_torch():
    matrix = random_ratings(20, 15, 0.3)
    expected = places_of(matrix, 4)
    with torch.device("meta"):
        assert places_of(matrix, 4) == expected


def test_products_ignore_the_default_device_of_torch(draw):
    entries = Entries.at(torch.tensor([0, 1]), torch.tensor([2, 2]), (3, 4))
    P, Q = draw(3, 2), draw(4, 2)
    expected = entries.dot(P, Q)
    with torch.device("meta"):
        assert torch.equal(entries.dot(P, Q), expected)


def test_interactions_are_listed_row_by_row():
    users, items = interactions(sp.csr_matrix(np.array([[0, 2.0, 1], [0, 0, 0], [3, 0, 0]])))
    assert users.tolist() == [0, 0, 2]
    assert items.tolist() == [1, 2, 0]
    assert users.dtype == items.dtype == torch.int64


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 21])
def test_row_blocks_cover_all_rows_once_within_the_bound(rows, monkeypatch):
    monkeypatch.setattr("mflib.sparse.BLOCK", 7 * 100 + 50)
    blocks = list(row_blocks(rows, 100))
    assert [row for block in blocks for row in range(rows)[block]] == list(range(rows))
    assert max(block.stop - block.start for block in blocks) <= 7
    assert len(blocks) == max(1, -(-rows // 7))


def test_row_blocks_hold_at_least_one_row(monkeypatch):
    monkeypatch.setattr("mflib.sparse.BLOCK", 750)
    assert list(row_blocks(3, 10**6)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
