"""Metrics against naive loops, one user and one item at a time."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from conftest import ALL, random_ratings

from mflib import Popularity
from mflib.metrics import mae, ranking_metrics, rmse
from mflib.sampling import train_test_split


class Fixed(Popularity):
    """A model with given scores, U x I."""

    def __init__(self, scores):
        super().__init__(factors=scores.shape[1])
        self.user_factors, self.item_factors = torch.from_numpy(scores), torch.eye(scores.shape[1], dtype=torch.float64)
        self.user_biases, self.item_biases = (torch.zeros(n, dtype=torch.float64) for n in scores.shape)
        self.global_bias = 0.0


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
    expected = {u: naive(scores[u], set(train[u].indices), set(test[u].indices), N) for u in range(50) if test[u].nnz}
    assert got.index.tolist() == list(expected)
    assert got.columns.tolist() == ["precision", "recall", "ndcg", "map", "auc"]
    assert np.allclose(got.to_numpy(), list(expected.values()), atol=1e-12)
    monkeypatch.setattr("mflib.metrics.BLOCK", 100)
    assert ranking_metrics(Fixed(scores), train, test, N).equals(got), "the size of the blocks must not matter"


def test_constant_scores_find_nothing():
    train = sp.csr_matrix(np.array([[1, 0, 0, 0, 0, 0]]))
    test = sp.csr_matrix(np.array([[0, 1, 0, 0, 0, 0]]))
    row = ranking_metrics(Fixed(np.zeros((1, 6))), train, test, N=3).iloc[0]
    assert (row == 0).all(), "of equal scores, the test item comes last"


def test_perfect_scores_find_everything():
    wanted = np.array([[0, 1, 1, 0], [1, 0, 0, 0]])
    got = ranking_metrics(Fixed(wanted.astype(float)), sp.csr_matrix((2, 4)), sp.csr_matrix(wanted), N=2)
    assert got[["recall", "ndcg", "map", "auc"]].to_numpy().tolist() == [[1] * 4, [1] * 4]
    assert got["precision"].tolist() == [1, 0.5]


def test_known_items_are_excluded_also_when_disliked():
    train = sp.csr_matrix(np.array([[1, -1, 0, 0]]))
    test = sp.csr_matrix(np.array([[0, 0, 0, 1]]))
    row = ranking_metrics(Fixed(np.array([[9.0, 8, 0, 1]])), train, test, N=1).iloc[0]
    assert row["precision"] == row["auc"] == 1


def test_nobody_left_to_misrank():
    likes = sp.csr_matrix(np.array([[1.0, 0]]))
    row = ranking_metrics(Fixed(np.zeros((1, 2))), likes, sp.csr_matrix(np.array([[0, 1.0]])), N=1).iloc[0]
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


def test_shapes_must_fit(ratings):
    model = ALL["ALS"]().fit(ratings)
    with pytest.raises(ValueError, match="the model's shape"):
        ranking_metrics(model, ratings[:5], ratings[:5])


def test_rmse_and_mae():
    assert rmse([1, 2, 3], [1, 4, 7]) == pytest.approx(np.sqrt((0 + 4 + 16) / 3))
    assert mae([1, 2, 3], [1, 4, 7]) == pytest.approx(2)
