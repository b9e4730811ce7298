"""Metrics compared with loops over users and items, and with worked examples."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, Fixed, random_ratings

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

# --- ranking metrics ----------------------------------------------------------------------------


def metrics_of_user(scores, known, wanted, N):
    """Return precision, recall, ndcg, map and auc of one user; ties count against the model."""
    ranked = sorted(set(range(len(scores))) - known, key=lambda i: (-scores[i], i in wanted))
    hits = [rank for rank, i in enumerate(ranked[:N], 1) if i in wanted]
    ideal = sum(1 / np.log2(1 + rank) for rank in range(1, min(N, len(wanted)) + 1))
    pairs = [(i, j) for i in wanted for j in ranked if j not in wanted]
    return [
        len(hits) / N,
        len(hits) / len(wanted),
        sum(1 / np.log2(1 + rank) for rank in hits) / ideal,
        sum(n / rank for n, rank in enumerate(hits, 1)) / min(N, len(wanted)),
        np.mean([scores[i] > scores[j] for i, j in pairs]) if pairs else 0.5,
    ]


@pytest.mark.parametrize("levels", [3, 10**6], ids=["ties", "no ties"])
@pytest.mark.parametrize("N", [1, 4, 10, 40])
def test_ranking_metrics_equal_a_loop_over_users(levels, N, monkeypatch):
    likes = sp.csr_matrix(random_ratings(50, 30, 0.4) > 0)
    train, test = train_test_split(likes.astype(float), 0.7)
    scores = np.random.default_rng(5).integers(levels, size=(50, 30)).astype(float)
    got = ranking_metrics(Fixed(scores), train, test, N)
    expected = {
        u: metrics_of_user(scores[u], set(train[u].indices), set(test[u].indices), N)
        for u in range(50)
        if test[u].nnz
    }
    assert got.index.tolist() == list(expected)
    assert got.columns.tolist() == ["precision", "recall", "ndcg", "map", "auc"]
    assert np.allclose(got.to_numpy(), list(expected.values()), atol=1e-12)
    monkeypatch.setattr("mflib.sparse.BLOCK", 100)
    blocks = ranking_metrics(Fixed(scores), train, test, N)
    assert blocks.index.tolist() == got.index.tolist()
    assert np.allclose(blocks, got, atol=1e-12), "the size of the blocks must not matter"


def test_ranking_metrics_count_ties_against_the_model():
    train = sp.csr_matrix(np.array([[1, 0, 0, 0, 0, 0]]))
    test = sp.csr_matrix(np.array([[0, 1, 0, 0, 0, 0]]))
    row = ranking_metrics(Fixed(np.zeros((1, 6))), train, test, N=3).iloc[0]
    assert (row == 0).all()


def test_ranking_metrics_of_perfect_scores_are_1():
    wanted = np.array([[0, 1, 1, 0], [1, 0, 0, 0]])
    model = Fixed(wanted.astype(float))
    got = ranking_metrics(model, sp.csr_matrix((2, 4)), sp.csr_matrix(wanted), N=2)
    assert got[["recall", "ndcg", "map", "auc"]].to_numpy().tolist() == [[1] * 4, [1] * 4]
    assert got["precision"].tolist() == [1, 0.5]


def test_ranking_metrics_leave_out_known_dislikes():
    train = sp.csr_matrix(np.array([[1, -1, 0, 0]]))
    test = sp.csr_matrix(np.array([[0, 0, 0, 1]]))
    row = ranking_metrics(Fixed(np.array([[9.0, 8, 0, 1]])), train, test, N=1).iloc[0]
    assert row["precision"] == row["auc"] == 1


def test_ranking_metrics_ignore_dislikes_in_test():
    test = sp.csr_matrix(np.array([[0, 1, -1, 0], [0, 0, -1, 0]]))
    got = ranking_metrics(Fixed(np.ones((2, 4))), sp.csr_matrix((2, 4)), test, N=4)
    assert got.index.tolist() == [0], "user 1 has only a dislike"
    assert got["precision"].tolist() == [1 / 4]


def test_ranking_metrics_without_other_items_have_an_auc_of_half():
    train, test = sp.csr_matrix(np.array([[1.0, 0]])), sp.csr_matrix(np.array([[0, 1.0]]))
    row = ranking_metrics(Fixed(np.zeros((1, 2))), train, test, N=1).iloc[0]
    assert row.tolist() == [1, 1, 1, 1, 0.5]


def test_ranking_metrics_refuse_common_entries(ratings):
    train, test = train_test_split(ratings)
    model = ALL["ALS"]().fit(train)
    leaked = train.tolil()
    row, column = (int(ids[0]) for ids in test.nonzero())
    for value in (4.0, -1.0):
        leaked[row, column] = value
        with pytest.raises(ValueError, match="train and test without common entries, got an over"):
            ranking_metrics(model, leaked.tocsr(), test)


def test_ranking_metrics_refuse_a_test_part_without_likes(ratings):
    train, test = train_test_split(ratings)
    model = ALL["ALS"]().fit(train)
    with pytest.raises(ValueError, match="expected positive entries in test, got none"):
        ranking_metrics(model, train, -test)


@pytest.mark.parametrize("N", [0, 2.5, "3"])
def test_ranking_metrics_refuse_invalid_lengths(ratings, N):
    train, test = train_test_split(ratings)
    with pytest.raises(ValueError, match="expected a whole number >= 1 for N, got"):
        ranking_metrics(ALL["ALS"](iterations=1).fit(train), train, test, N=N)


def test_ranking_metrics_refuse_matrices_of_another_shape(ratings):
    model = ALL["ALS"]().fit(ratings)
    with pytest.raises(ValueError, match=r"train of the model's shape \(30, 25\), got \(5, 25\)$"):
        ranking_metrics(model, ratings[:5], ratings[:5])
    with pytest.raises(ValueError, match=r"test of the model's shape.*; it looks transposed"):
        ranking_metrics(model, ratings, ratings.T)
    with pytest.raises(RuntimeError, match="expected a fitted model"):
        ranking_metrics(ALL["ALS"](), ratings, ratings)


def test_auc_counts_more_pairs_than_fit_into_32_bits():
    """60,000 test items and as many others form 3.6 billion pairs."""
    n, model = 120_000, Fixed(np.ones((1, 1)))
    model.item_factors = torch.rand(n, 1, generator=torch.Generator().manual_seed(0)).double()
    model.item_biases = torch.zeros(n, dtype=torch.float64)
    test = sp.csr_matrix(np.arange(n)[None] % 2 == 0)
    (auc,) = ranking_metrics(model, sp.csr_matrix((1, n)), test)["auc"]
    ranks = model.item_factors[:, 0].argsort().argsort().numpy()[::2] + 1
    expected = (ranks.sum() - 60_000 * 60_001 / 2) / 60_000**2  # Mann and Whitney
    assert auc == pytest.approx(expected, abs=1e-6)


# --- rating errors ------------------------------------------------------------------------------


def test_rmse_and_mae_equal_their_definitions():
    assert rmse([1, 2, 3], [1, 4, 7]) == pytest.approx(np.sqrt((0 + 4 + 16) / 3))
    assert mae([1, 2, 3], [1, 4, 7]) == pytest.approx((0 + 2 + 4) / 3)
    assert mae([3, 1], [1, 3]) == 2, "errors of opposite sign must not cancel"


@pytest.mark.parametrize("error", [rmse, mae])
def test_rating_errors_refuse_arrays_that_do_not_match(error):
    with pytest.raises(ValueError, match="at least one rating to compare with, got none"):
        error([], [])
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(3, 1\)"):
        error([1, 2, 3], [[1], [2], [3]])
    with pytest.raises(ValueError, match="expected as many estimates as ratings"):
        error([1, 2, 3], [2])


# --- bootstrap ----------------------------------------------------------------------------------


def test_bootstrap_interval_agrees_with_the_central_limit_theorem():
    values = np.random.default_rng(3).exponential(size=4000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=half / 10)
    assert high == pytest.approx(values.mean() + half, abs=half / 10)
    narrow = bootstrap_interval(values, confidence=0.5)
    half = 0.674 * values.std() / np.sqrt(len(values))
    assert narrow[0] == pytest.approx(values.mean() - half, abs=half / 5)
    assert narrow[1] == pytest.approx(values.mean() + half, abs=half / 5)


def test_bootstrap_interval_depends_on_the_seed_only():
    values = np.random.default_rng(3).exponential(size=100)
    assert bootstrap_interval(values) == bootstrap_interval(values, random_state=0)
    assert bootstrap_interval(values) != bootstrap_interval(values, random_state=1)


def test_bootstrap_interval_of_constant_values_is_a_point():
    assert bootstrap_interval([0.5] * 7) == (0.5, 0.5)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0, 2.0]], 0.5])
def test_bootstrap_interval_refuses_invalid_values(values):
    with pytest.raises(ValueError, match="a 1-D array with one value per user, got shape"):
        bootstrap_interval(values)


@pytest.mark.parametrize("confidence", [95, 0, 1, "0.9"])
def test_bootstrap_interval_refuses_invalid_confidences(confidence):
    with pytest.raises(ValueError, match="a number between 0 and 1 for confidence, got"):
        bootstrap_interval([1.0], confidence=confidence)


# --- catalogue ----------------------------------------------------------------------------------

TRAIN = sp.csr_matrix(np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]))
SCORES = np.array([[9.0, 3, 2, 1], [9, 8, 2, 1], [1, 9, 2, 8]])


def test_catalogue_counts_the_recommended_items():
    """Users 0 and 2 are recommended item 1, user 1 item 2, which nobody has liked."""
    expected = {"coverage": 2 / 4, "popularity": (1 + 0 + 1) / 3}
    assert catalogue(Fixed(SCORES), TRAIN, N=1) == expected


def test_catalogue_ignores_padding():
    """User 0 has three items left, user 1 two, user 2 three."""
    expected = {"coverage": 1.0, "popularity": (1 + 0 + 1 + 0 + 1 + 2 + 1 + 0) / 8}
    assert catalogue(Fixed(SCORES), TRAIN, N=4) == expected


def test_catalogue_refuses_users_who_know_all_items():
    with pytest.raises(ValueError, match="got nothing to recommend"):
        catalogue(Fixed(SCORES), sp.csr_matrix(np.ones((3, 4))), N=1)


def test_catalogue_refuses_a_matrix_of_another_shape():
    with pytest.raises(ValueError, match=r"train of the model's shape \(3, 4\), got \(2, 4\)"):
        catalogue(Fixed(SCORES), TRAIN[:2], N=1)


# --- similar items ------------------------------------------------------------------------------

SERIES = {  # title: series, or "" for none
    "Star Wars: Episode IV (1977)": "Star Wars",
    "Star Wars: Episode V (1980)": "Star Wars",
    "Alien (1979)": "Alien",
    "Aliens (1986)": "Alien",
    "Alien 3 (1992)": "Alien",
    "Godfather, The (1972)": "Godfather",
    "Godfather: Part II, The (1974)": "Godfather",
    "Toy Story (1995)": "Toy Story",
    "Toy Story 2 (1999)": "Toy Story",
    "Sabrina (1954)": "",  # a remake is not a series
    "Sabrina (1995)": "",
    "Ocean's 11 (1960)": "",
    "Heat (1995)": "",
}


def test_series_of_finds_series_by_title():
    found = series_of(pd.Series(list(SERIES)))
    names = np.array(list(SERIES.values()))
    assert (found[names == ""] == -1).all()
    assert (found[names != ""] >= 0).all()
    for name in {*names} - {""}:
        assert len(set(found[names == name])) == 1, name
    assert len(set(found[names != ""])) == 4


@pytest.fixture
def movies():
    return pd.DataFrame(
        {
            "title": ["Jaws (1975)", "Jaws 2 (1978)", "Jaws 3 (1983)", "Heat (1995)", "Big (1988)"],
            "genres": ["Action|Horror", "Action|Horror", "Action", "Action|Crime", "Comedy"],
        }
    )


@pytest.fixture
def model():
    """Return a model in which each movie's nearest neighbour differs between cosine and l2."""
    vectors = [[1, 0], [10, 1], [0, 1], [0.1, 10], [-1, -1]]
    model = Fixed(np.zeros((1, 5)))
    model.item_factors = torch.tensor(vectors, dtype=torch.float64)
    return model


def test_similarity_quality_matches_a_worked_example(movies, model):
    """The fifth movie, Big, is not a candidate."""
    got = similarity_quality(model, movies, np.array([0, 1, 2, 3]), N=1)
    assert list(got) == ["genres, cosine", "series, cosine", "genres, l2", "series, l2"]
    # Nearest by cosine: 0 -> 1, 1 -> 0, 2 -> 3, 3 -> 2.
    assert got["genres, cosine"] == pytest.approx((1 + 1 + 1 / 2 + 1 / 2) / 4)
    assert got["series, cosine"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    # Nearest by l2: 0 -> 2, 1 -> 0, 2 -> 0, 3 -> 2.
    assert got["genres, l2"] == pytest.approx((1 / 2 + 1 + 1 / 2 + 1 / 2) / 4)
    assert got["series, l2"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 3)


def test_similarity_quality_of_all_neighbours_finds_each_series(movies, model):
    items = np.array([0, 1, 2, 3])
    everything = similarity_quality(model, movies, items, N=3)
    assert everything["series, cosine"] == everything["series, l2"] == 1
    assert similarity_quality(model, movies, items) == everything, "only three others exist"
    assert similarity_quality(model, movies, [2, 1, 0, 3, 3, 0]) == everything, (
        "duplicates are ignored"
    )


def test_similarity_quality_looks_for_series_among_the_given_movies_only(movies, model):
    """Only one movie of the series is given, so no series remains."""
    got = similarity_quality(model, movies, [0, 3, 4], metrics=["cosine"])
    assert np.isnan(got["series, cosine"])
    assert list(got) == ["genres, cosine", "series, cosine"]


def test_similarity_quality_accepts_movies_without_genres_or_series():
    movies = pd.DataFrame({"title": ["Heat (1995)", "Big (1988)"], "genres": ["", ""]})
    got = similarity_quality(Fixed(np.eye(2)), movies, np.arange(2))
    assert got["genres, cosine"] == 0
    assert np.isnan(got["series, cosine"])


def test_similarity_quality_refuses_invalid_items(movies, model):
    with pytest.raises(ValueError, match="expected at least two movies to compare, got 1"):
        similarity_quality(model, movies, [0, 0])
    with pytest.raises(IndexError, match="item ids from 0 to 4"):
        similarity_quality(model, movies, [4, 5])
