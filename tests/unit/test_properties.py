"""Properties that hold for any input: empty rows, stored zeros, unsorted and duplicate entries."""

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
from mflib.sampling import TRAINING, Unliked, generator, temporal_user_split, train_test_split
from mflib.sparse import Entries, partition

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**30 - 1)


@st.composite
def matrices(draw) -> sp.csr_matrix:
    """Draw any CSR matrix with a positive entry.

    It may have one user or one item, all or no entries liked, stored zeros, unsorted or duplicate
    entries, and integer, boolean or floating-point values.
    """
    users, items = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    n = draw(st.integers(1, 40))
    rows, columns = (
        np.array(draw(st.lists(st.integers(0, size - 1), min_size=n, max_size=n)))
        for size in (users, items)
    )
    values = draw(st.lists(st.sampled_from([0, 1, 1, 3, 5]), min_size=n - 1, max_size=n - 1))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int32, np.int8, bool]))
    order = np.argsort(rows, kind="stable")  # columns stay unsorted, duplicates are kept
    indptr = np.searchsorted(rows[order], np.arange(users + 1))
    data = np.array([*values, 2])[order].astype(dtype)
    return sp.csr_matrix((data, columns[order], indptr), (users, items))


def dense_sums(matrix: sp.csr_matrix) -> np.ndarray:
    """Return the matrix as a dense array of float64; duplicate entries are summed."""
    dense = np.zeros(matrix.shape)
    rows = np.repeat(np.arange(len(dense)), np.diff(matrix.indptr))
    np.add.at(dense, (rows, matrix.indices), matrix.data)
    return dense


@quick
@given(matrix=matrices())
def test_as_csr_sums_duplicates_of_any_matrix_and_leaves_it_unchanged(matrix):
    before = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    canonical = as_csr(matrix)
    assert (canonical.toarray() == dense_sums(matrix)).all()
    assert canonical.has_canonical_format
    assert (canonical.data != 0).all()
    for old, new in zip(before, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        assert np.array_equal(old, new)


@pytest.mark.parametrize("name", sorted(ALL))
@quick
@given(matrix=matrices(), factors=st.sampled_from([1, 3, 20]), seed=seeds)
def test_any_matrix_can_be_fitted_and_ranked(name, matrix, factors, seed):
    options = {"factors": factors, "iterations": 2} if name != "Popularity" else {}
    before = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    canonical, (n_users, n_items) = as_csr(matrix), matrix.shape
    if name in ("BPR", "WARP") and np.isin((canonical > 0).getnnz(1), (0, n_items)).all():
        with pytest.raises(ValueError, match="expected users who like some but not all items"):
            ALL[name](**options).fit(matrix)
        return
    model = ALL[name](**options, random_state=seed).fit(matrix)
    for old, new in zip(before, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        assert np.array_equal(old, new), "fit must not change its input"
    assert model.user_factors.isfinite().all()
    assert model.item_factors.isfinite().all()

    users, items = np.arange(n_users), np.arange(n_items)
    ids, scores = model.recommend(users, canonical, N=n_items + 1)
    assert ids.shape == scores.shape == (n_users, n_items), "not longer than the catalogue"
    expected = model.scores(users).numpy()
    for user in users:
        n = n_items - canonical[user].nnz
        assert sorted([*ids[user, :n], *canonical[user].indices]) == items.tolist()
        assert (ids[user, n:] == -1).all()
        assert np.allclose(scores[user, :n], expected[user, ids[user, :n]], rtol=1e-5, atol=1e-6)
        assert (np.diff(scores[user, :n]) <= 0).all()
    neighbours, similarities = model.similar_items(items, N=n_items)
    assert (np.sort(neighbours, 1) == items).all()
    assert (neighbours[:, 0] == items).all()
    assert (np.abs(similarities) <= 1 + 1e-6).all()

    again = ALL[name](**options, random_state=seed).fit(canonical)
    assert torch.equal(model.user_factors, again.user_factors), "the form must not matter"
    assert torch.equal(model.item_factors, again.item_factors), "the form must not matter"


@quick
@given(matrix=matrices(), share=st.floats(0.01, 0.99), seed=seeds)
def test_any_split_is_a_partition_and_can_be_evaluated(matrix, share, seed):
    train, test = train_test_split(matrix, share, seed)
    canonical = as_csr(matrix)
    assert (train + test != canonical).nnz == 0
    assert train.nnz + test.nnz == canonical.nnz, "no entry may be in both parts"
    assert train.nnz == round(share * canonical.nnz)
    again, _ = train_test_split(canonical, share, seed)
    assert (train != again).nnz == 0, "the order of the entries must not matter"
    if train.nnz and (test > 0).nnz:
        metrics = ranking_metrics(ALL["Popularity"]().fit(train), train, test, N=3)
        assert metrics.index.tolist() == np.flatnonzero((test > 0).getnnz(1)).tolist()
        assert metrics.notna().all(axis=None)
        assert metrics.ge(0).all(axis=None)
        assert metrics.le(1 + 1e-12).all(axis=None)


@quick
@given(matrix=matrices(), share=st.floats(0.01, 0.99), seed=seeds)
def test_any_temporal_split_keeps_the_earlier_interactions_of_each_user(matrix, share, seed):
    canonical = as_csr(matrix)
    times = canonical.copy()
    times.data = np.random.default_rng(seed).integers(1, 5, canonical.nnz).astype(np.float64)
    train, test = temporal_user_split(matrix, times, share, seed)
    assert (train + test != canonical).nnz == 0
    assert train.nnz + test.nnz == canonical.nnz
    when = times.toarray()
    for user in range(matrix.shape[0]):
        kept, held_out = train[user].indices, test[user].indices
        assert len(kept) >= share * (len(kept) + len(held_out)) - 1e-6
        if len(kept) and len(held_out):
            assert when[user, kept].max() <= when[user, held_out].min()


@quick
@given(matrix=matrices(), seed=seeds, method=st.sampled_from(["sample", "sample_exactly"]))
def test_negatives_of_any_matrix_are_never_liked(matrix, seed, method):
    likes = as_csr(matrix) > 0
    unliked = Unliked(likes)
    assert unliked.count.tolist() == (~likes.toarray()).sum(1).tolist()
    users = torch.arange(matrix.shape[0]).repeat_interleave(20)
    users = users[unliked.count[users] > 0]
    drawn = getattr(unliked, method)(users, generator(seed, TRAINING))
    assert drawn.shape == users.shape
    assert ((drawn >= 0) & (drawn < matrix.shape[1])).all()
    assert not likes.toarray()[users, drawn].any()


@quick
@given(matrix=matrices(), parts=st.integers(1, 50), seed=seeds)
def test_any_partition_holds_every_entry_once(matrix, parts, seed):
    found = [part for part, _ in partition(matrix, parts, generator(seed, TRAINING))]
    sizes = [len(part) for part in found]
    assert len(found) == min(parts, matrix.nnz)
    assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate(found).tolist()) == list(range(matrix.nnz))


@quick
@given(
    shape=st.tuples(st.integers(6, 9), st.integers(6, 9)),
    positions=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=36),
    seed=seeds,
)
def test_products_of_any_entries_equal_dense_products(shape, positions, seed):
    positions.sort(key=lambda position: position[0])
    rows, columns = (torch.tensor([p[k] for p in positions], dtype=torch.int64) for k in (0, 1))
    entries = Entries.at(rows, columns, shape)
    rng = torch.Generator().manual_seed(seed)
    P, Q, values = (
        torch.randn(*size, generator=rng, dtype=torch.float64)
        for size in ((shape[0], 2), (shape[1], 2), (len(positions),))
    )
    r, c = entries.rows.long(), entries.columns.long()
    assert sorted(zip(r.tolist(), c.tolist(), strict=True)) == sorted(positions)
    E = torch.zeros(shape, dtype=torch.float64).index_put_((r, c), values, accumulate=True)
    torch.testing.assert_close(entries.dot(P, Q), (P @ Q.T)[r, c])
    torch.testing.assert_close(entries.matrix(values) @ Q, E @ Q)
    torch.testing.assert_close(entries.transposed(values) @ P, E.T @ P)


@quick
@given(
    rows=st.lists(
        st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=6, max_size=6), min_size=1
    ),
    N=st.integers(1, 8),
)
def test_top_equals_a_stable_sort(rows, N):
    scores = torch.tensor(rows)
    expected = scores.sort(dim=1, descending=True, stable=True)
    ids, values = top(scores, N)
    assert torch.equal(ids, expected.indices[:, :N])
    assert torch.equal(values, expected.values[:, :N])
