"""What holds for any input: shapes, empty rows, stored zeros, unsorted and duplicate entries."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from known_answers import ALL

from mflib.inputs import as_csr
from mflib.metrics import ranking_metrics
from mflib.ranking import top
from mflib.sampling import Unliked, generator, train_test_split

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def matrices(draw) -> sp.csr_matrix:
    """Any sparse matrix with a positive entry: one user, one item, all or nothing liked, explicit
    zeros, entries out of order or given twice, integers, bools or floats."""
    users, items = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    n = draw(st.integers(1, 40))
    cells = [
        draw(st.lists(st.integers(0, size - 1), min_size=n, max_size=n)) for size in (users, items)
    ]
    values = draw(st.lists(st.sampled_from([0, 1, 1, 3, 5]), min_size=n - 1, max_size=n - 1))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int32, np.int8, bool]))
    order = np.argsort(
        cells[0], kind="stable"
    )  # rows in order, columns as they come, duplicates kept
    indptr = np.searchsorted(np.array(cells[0])[order], np.arange(users + 1))
    values, columns = np.array([*values, 2])[order].astype(dtype), np.array(cells[1])[order]
    return sp.csr_matrix((values, columns, indptr), (users, items))


@pytest.mark.parametrize("name", sorted(ALL))
@quick
@given(matrix=matrices(), factors=st.sampled_from([1, 3, 20]), seed=st.integers(0, 2**31))
def test_any_matrix_is_learned(name, matrix, factors, seed):
    before = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    all_or_nothing = np.isin((as_csr(matrix) > 0).getnnz(1), (0, matrix.shape[1])).all()
    if name in ("BPR", "WARP") and all_or_nothing:
        with pytest.raises(ValueError, match="expected users who like some items"):
            ALL[name]().fit(matrix)
        return
    model = ALL[name](factors=factors, iterations=2, random_state=seed).fit(matrix)
    for old, new in zip(before, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        assert np.array_equal(old, new), "the input was changed"
    canonical, dense = as_csr(matrix), np.zeros(matrix.shape)
    np.add.at(
        dense,
        (np.repeat(np.arange(len(dense)), np.diff(matrix.indptr)), matrix.indices),
        matrix.data,
    )
    assert (canonical.toarray() == dense).all(), "entries given twice are summed"
    assert torch.isfinite(model.user_factors).all()
    assert torch.isfinite(model.item_factors).all()
    users = np.arange(matrix.shape[0])
    ids, scores = model.recommend(users, canonical, N=matrix.shape[1] + 1)
    for user in users:
        got = ids[user][ids[user] >= 0]
        assert sorted([*got, *canonical[user].indices]) == list(range(matrix.shape[1]))
        assert np.isfinite(scores[user][: len(got)]).all()
    assert np.isfinite(model.similar_items(np.arange(matrix.shape[1]), N=matrix.shape[1])[1]).all()
    again = ALL[name](factors=factors, iterations=2, random_state=seed).fit(canonical)
    assert torch.equal(model.item_factors, again.item_factors), (
        "the form of the matrix must not matter"
    )


@quick
@given(matrix=matrices(), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_any_split_is_a_partition_and_can_be_judged(matrix, share, seed):
    train, test = train_test_split(matrix, share, seed)
    canonical = as_csr(matrix)
    assert (train + test != canonical).nnz == 0
    assert train.nnz + test.nnz == canonical.nnz, "no cell is in both parts"
    again, _ = train_test_split(canonical, share, seed)
    assert (train != again).nnz == 0, "the order of the entries must not matter"
    if as_csr(train).nnz and (test > 0).nnz:
        metrics = ranking_metrics(ALL["Popularity"]().fit(train), train, test, N=3)
        assert len(metrics) == ((test > 0).getnnz(1) > 0).sum()
        assert metrics.notna().all(axis=None)
        assert metrics.ge(0).all(axis=None)
        assert metrics.le(1 + 1e-12).all(axis=None)


@quick
@given(matrix=matrices(), seed=st.integers(0, 2**31))
def test_negatives_are_never_liked(matrix, seed):
    likes = as_csr(as_csr(matrix) > 0)
    unliked = Unliked(likes)
    users = torch.arange(matrix.shape[0]).repeat(20)
    users = users[unliked.count[users] > 0]
    drawn = unliked.sample(users, generator(seed, 0))
    assert ((drawn >= 0) & (drawn < matrix.shape[1])).all()
    assert likes.toarray()[users, drawn].sum() == 0


@quick
@given(
    rows=st.lists(
        st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=6, max_size=6), min_size=1
    ),
    N=st.integers(1, 8),
)
def test_top_is_the_stable_sort(rows, N):
    scores = torch.tensor(rows)
    expected = scores.sort(dim=1, descending=True, stable=True)
    ids, values = top(scores, N)
    assert torch.equal(ids, expected.indices[:, :N])
    assert torch.equal(values, expected.values[:, :N])
