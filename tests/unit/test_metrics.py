"""Metrics against naive loops, one user and one item at a time."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, random_ratings

from mflib import Popularity
from mflib.metrics import (
    bootstrap_interval,
    catalogue,
    mae,
    ranking_metrics,
    rmse,
    series_of,
    similarity_quality,
)
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


def test_without_anything_to_find_nothing_is_judged(ratings):
    train, test = train_test_split(ratings)
    model = ALL["ALS"]().fit(train)
    with pytest.raises(ValueError, match="positive cells in test, got N = 10 and 0 cells"):
        ranking_metrics(model, train, -test)
    with pytest.raises(ValueError, match="expected N of at least 1"):
        ranking_metrics(model, train, test, N=0)


def test_shapes_must_fit(ratings):
    model = ALL["ALS"]().fit(ratings)
    with pytest.raises(ValueError, match="the model's shape"):
        ranking_metrics(model, ratings[:5], ratings[:5])


def test_rmse_and_mae():
    assert rmse([1, 2, 3], [1, 4, 7]) == pytest.approx(np.sqrt((0 + 4 + 16) / 3))
    assert mae([1, 2, 3], [1, 4, 7]) == pytest.approx((0 + 2 + 4) / 3)


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
    assert catalogue(Fixed(scores), train, N=1) == {"coverage": 2 / 4, "popularity": (1 + 0 + 1) / 3}


TITLES = {
    "Star Wars: Episode IV (1977)": "a",
    "Star Wars: Episode V (1980)": "a",
    "Alien (1979)": "b",
    "Aliens (1986)": "b",
    "Alien 3 (1992)": "b",
    "Godfather, The (1972)": "c",
    "Godfather: Part II, The (1974)": "c",
    "Toy Story (1995)": "d",
    "Toy Story 2 (1999)": "d",
    "Sabrina (1954)": "",  # made twice, no series
    "Sabrina (1995)": "",
    "Ocean's 11 (1960)": "",
    "Heat (1995)": "",
}


def test_series_of_titles():
    found = series_of(pd.Series(list(TITLES)))
    names = np.array(list(TITLES.values()))
    assert (found[names == ""] == -1).all()
    for name in "abcd":
        assert len(set(found[names == name])) == 1
    assert len(set(found[names != ""])) == 4


def test_similarity_quality_by_hand():
    movies = pd.DataFrame(
        {
            "title": ["Jaws (1975)", "Jaws 2 (1978)", "Jaws 3 (1983)", "Heat (1995)", "Big (1988)"],
            "genres": ["Action|Horror", "Action|Horror", "Action", "Action|Crime", "Comedy"],
        }
    )
    model = Fixed(np.zeros((1, 5)))
    model.item_factors = torch.tensor([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, -1]], dtype=torch.float64)
    items = np.array([0, 1, 2, 3])  # the nearest: 1, 0, 3, 2
    got = similarity_quality(model, movies, items, N=1)
    assert got["genres, cosine"] == pytest.approx((1 + 1 + 1 / 2 + 1 / 2) / 4)
    assert got["series, cosine"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3), (
        "Jaws and Jaws 2 find each other, Jaws 3 neither"
    )
    everything = similarity_quality(model, movies, items, N=3)
    assert everything["series, cosine"] == 1, "all the others are among the three nearest"
    assert similarity_quality(model, movies, items) == everything, "of four movies no more than three are neighbours"
