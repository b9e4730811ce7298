"""Metrics against naive loops, one user and one item at a time."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, Fixed, random_ratings

from mflib.metrics import bootstrap_interval, catalogue, mae, ranking_metrics, rmse
from mflib.sampling import train_test_split


def naive(scores, known, wanted, N):
    """precision, recall, ndcg, map, auc of one user; of equal scores, wanted items come last."""
    candidates = sorted(set(range(len(scores))) - known, key=lambda i: (-scores[i], i in wanted))
    hits = [rank for rank, i in enumerate(candidates[:N], 1) if i in wanted]
    ideal = sum(1 / np.log2(1 + rank) for rank in range(1, min(N, len(wanted)) + 1))
    pairs = [(i, j) for i in wanted for j in candidates if j not in wanted]
    return [
        len(hits) / N,
        len(hits) / len(wanted),
        sum(1 / np.log2(1 + rank) for rank in hits) / ideal,
        sum(n / rank for n, rank in enumerate(hits, 1)) / min(N, len(wanted)),
        np.mean([scores[i] > scores[j] for i, j in pairs]) if pairs else 0.5,
    ]


@pytest.mark.parametrize("levels", [3, 10**6], ids=["ties", "no ties"])
@pytest.mark.parametrize("N", [1, 4, 10, 40])
def test_ranking_metrics_are_the_naive_ones(levels, N, monkeypatch):
    likes = sp.csr_matrix(random_ratings(50, 30, 0.4) > 0)
    train, test = train_test_split(likes.astype(float), 0.7)
    scores = np.random.default_rng(5).integers(levels, size=(50, 30)).astype(float)
    got = ranking_metrics(Fixed(scores), train, test, N)
    expected = {
        u: naive(scores[u], set(train[u].indices), set(test[u].indices), N)
        for u in range(50)
        if test[u].nnz
    }
    assert got.index.tolist() == list(expected)
    assert got.columns.tolist() == ["precision", "recall", "ndcg", "map", "auc"]
    assert np.allclose(got.to_numpy(), list(expected.values()), atol=1e-12)
    monkeypatch.setattr("mflib.inputs.BLOCK", 100)
    blocks = ranking_metrics(Fixed(scores), train, test, N)
    assert np.allclose(blocks, got, atol=1e-12), "the size of the blocks must not matter"


def test_constant_scores_find_nothing():
    train = sp.csr_matrix(np.array([[1, 0, 0, 0, 0, 0]]))
    test = sp.csr_matrix(np.array([[0, 1, 0, 0, 0, 0]]))
    row = ranking_metrics(Fixed(np.zeros((1, 6))), train, test, N=3).iloc[0]
    assert (row == 0).all(), "of equal scores, the test item comes last"


def test_perfect_scores_find_everything():
    wanted = np.array([[0, 1, 1, 0], [1, 0, 0, 0]])
    got = ranking_metrics(
        Fixed(wanted.astype(float)), sp.csr_matrix((2, 4)), sp.csr_matrix(wanted), N=2
    )
    assert got[["recall", "ndcg", "map", "auc"]].to_numpy().tolist() == [[1] * 4, [1] * 4]
    assert got["precision"].tolist() == [1, 0.5]


def test_known_items_are_excluded_also_when_disliked():
    train = sp.csr_matrix(np.array([[1, -1, 0, 0]]))
    test = sp.csr_matrix(np.array([[0, 0, 0, 1]]))
    row = ranking_metrics(Fixed(np.array([[9.0, 8, 0, 1]])), train, test, N=1).iloc[0]
    assert row["precision"] == row["auc"] == 1


def test_nobody_left_to_misrank():
    likes = sp.csr_matrix(np.array([[1.0, 0]]))
    row = ranking_metrics(
        Fixed(np.zeros((1, 2))), likes, sp.csr_matrix(np.array([[0, 1.0]])), N=1
    ).iloc[0]
    assert row.tolist() == [1, 1, 1, 1, 0.5]


def test_leaked_test_items_are_refused(ratings):
    train, test = train_test_split(ratings)
    model = ALL["ALS"]().fit(train)
    leaked = train.tolil()
    row, column = (int(ids[0]) for ids in test.nonzero())
    leaked[row, column] = 4.0
    with pytest.raises(ValueError, match="without a common cell"):
        ranking_metrics(model, leaked.tocsr(), test)
    leaked[row, column] = -1.0
    with pytest.raises(ValueError, match="without a common cell"):
        ranking_metrics(model, leaked.tocsr(), test)


def test_without_anything_to_find_nothing_is_judged(ratings):
    train, test = train_test_split(ratings)
    model = ALL["ALS"]().fit(train)
    with pytest.raises(ValueError, match="positive cells in test, got none"):
        ranking_metrics(model, train, -test)
    with pytest.raises(ValueError, match="a whole number of at least 1 for N, got 0"):
        ranking_metrics(model, train, test, N=0)


def test_shapes_must_fit(ratings):
    model = ALL["ALS"]().fit(ratings)
    with pytest.raises(ValueError, match=r"train of the model's shape \(30, 25\), got \(5, 25\)$"):
        ranking_metrics(model, ratings[:5], ratings[:5])
    with pytest.raises(ValueError, match=r"test of the model's shape.*; it looks transposed"):
        ranking_metrics(model, ratings, ratings.T)
    with pytest.raises(RuntimeError, match="expected a fitted model"):
        ranking_metrics(ALL["ALS"](), ratings, ratings)


def test_auc_of_very_many_pairs():
    """60,000 test items and as many others are more pairs than an int32 can count."""
    n, model = 120_000, Fixed(np.ones((1, 1)))
    model.item_factors = torch.rand(n, 1, generator=torch.Generator().manual_seed(0)).double()
    model.item_biases = torch.zeros(n, dtype=torch.float64)
    test = sp.csr_matrix(np.arange(n)[None] % 2 == 0)
    (auc,) = ranking_metrics(model, sp.csr_matrix((1, n)), test)["auc"]
    assert auc == pytest.approx(0.5, abs=0.01)


def test_rmse_and_mae():
    assert rmse([1, 2, 3], [1, 4, 7]) == pytest.approx(np.sqrt((0 + 4 + 16) / 3))
    assert mae([1, 2, 3], [1, 4, 7]) == pytest.approx((0 + 2 + 4) / 3)
    for error in (rmse, mae):
        with pytest.raises(ValueError, match="at least one rating to compare with, got none"):
            error([], [])
        with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(3, 1\)"):
            error([1, 2, 3], [[1], [2], [3]])
        with pytest.raises(ValueError, match="expected as many estimates as ratings"):
            error([1, 2, 3], [2])


def test_bootstrap_interval_is_that_of_the_central_limit():
    values = np.random.default_rng(3).exponential(size=4000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=half / 10)
    assert high == pytest.approx(values.mean() + half, abs=half / 10)
    assert bootstrap_interval(values) == (low, high), "the same seed must draw the same users"
    assert bootstrap_interval(values, random_state=1) != (low, high)
    narrow = bootstrap_interval(values, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_catalogue_counts_what_is_recommended():
    train = sp.csr_matrix(np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]))
    scores = np.array([[9.0, 3, 2, 1], [9, 8, 2, 1], [1, 9, 2, 8]])
    assert catalogue(Fixed(scores), train, N=1) == {
        "coverage": 2 / 4,
        "popularity": (1 + 0 + 1) / 3,
    }
    everything = sp.csr_matrix(np.ones((3, 4)))
    with pytest.raises(ValueError, match="got nothing to recommend"):
        catalogue(Fixed(scores), everything, N=1)
    with pytest.raises(ValueError, match=r"train of the model's shape \(3, 4\), got \(2, 4\)"):
        catalogue(Fixed(scores), train[:2], N=1)


def test_an_interval_needs_values():
    for values in ([], [1.0, np.nan], [[1.0, 2.0]], 0.5):
        with pytest.raises(ValueError, match="a value for each of some users, got shape"):
            bootstrap_interval(values)
    with pytest.raises(ValueError, match="a confidence between 0 and 1, got 95"):
        bootstrap_interval([1.0], confidence=95)
