"""What the notebooks show: tables, the projector's files read back, the explorer's callbacks driven."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from conftest import random_ratings

from mflib import ALS
from mflib.data import MovieLens
from mflib.metrics import ranking_metrics
from mflib.plots import Explorer, export_projector, judged, liked_movies, nearest_movies, similar_movies, similarity
from mflib.sampling import train_test_split

FILMS = ["Toy Story (1995)", "Toy Story 2 (1999)", "Alien (1979)", "Heat <b> (1995)", "Big (1988)"]


@pytest.fixture
def data():
    """Forty users with the numbers 10, 11, … and five movies."""
    ratings = random_ratings(40, 5, 0.6, seed=1).astype(np.float32)
    movies = pd.DataFrame({"title": FILMS, "genres": ["Animation", "Animation", "Sci-Fi", "Crime", "Comedy"]})
    return MovieLens("toy", ratings, movies, np.arange(10, 50), np.arange(1, 6))


@pytest.fixture
def model(data):
    return ALS(3, regularization=0.1).fit(data.likes(), show_progress=False)


def test_similar_movies_are_those_of_the_model(data, model):
    table = similar_movies(model, data, "Alien", N=3)
    for metric, sign in (("cosine", 1), ("l2", -1)):
        ids, values = model.similar_items(2, 3, filter_items=[2], metric=metric)
        assert table[f"by {metric}"].tolist() == [FILMS[i] for i in ids]
        assert np.allclose(table[metric], sign * values, atol=0.0005)
    assert "Alien (1979)" not in table.to_numpy()
    rows = nearest_movies(model, data, ["Alien", "Big"], N=3)
    assert rows.loc[("Alien", "l2")].tolist() == table["by l2"].tolist()
    assert rows.index.tolist() == [(film, metric) for film in ("Alien", "Big") for metric in ("cosine", "l2")]


def test_judged_shows_means_with_an_interval_around_them(data):
    train, test = train_test_split(data.likes(), 0.7)
    per_user = ranking_metrics(ALS(3).fit(train, show_progress=False), train, test, N=2)
    row = judged({"ALS": per_user}).loc["ALS"]
    assert row["ndcg"] == round(per_user["ndcg"].mean(), 3)
    low, high = map(float, row["95 % interval of ndcg"].split(" to "))
    assert low < row["ndcg"] < high


def test_similarity_judges_movies_with_enough_likes(data, model):
    count = data.likes().sum(0).A1
    table = similarity({"ALS": model}, data, data.likes(), least=int(count.min()))
    assert table.columns.tolist() == ["genres, cosine", "series, cosine", "genres, l2", "series, l2"]
    assert table.loc["ALS", "series, cosine"] == 1, "all five movies are among the ten nearest"


def test_liked_movies_best_first(data):
    userid = int(np.diff(data.likes().indptr).argmax())
    table = liked_movies(data, data.likes(), userid)
    assert set(table["stars"]) <= {4, 5}
    assert table["stars"].is_monotonic_decreasing
    assert len(table) == data.likes()[userid].nnz


def test_projector_files_are_the_factors(data, model, tmp_path):
    for _ in range(2):  # the second replaces the first
        export_projector(model, data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ALS"]
    (tensors,), (metadata,), (config,) = (
        [path.read_text(encoding="utf-8") for path in tmp_path.rglob(name)]
        for name in ("tensors.tsv", "metadata.tsv", "projector_config.pbtxt")
    )
    factors = torch.tensor([[float(x) for x in line.split("\t")] for line in tensors.splitlines()])
    assert torch.allclose(factors, model.item_factors, atol=1e-6)
    assert metadata.splitlines()[0] == "title\tgenres"
    assert [line.split("\t") for line in metadata.splitlines()[1:]] == data.movies.to_numpy().tolist()
    assert config.count("tensor_path") == 1


def test_explorer_finds_a_movie_and_its_neighbours(data, model):
    explorer = Explorer(model, data, data.likes())
    assert [title for title, _ in explorer.movie.options] == FILMS[:2], "it starts with Toy Story"
    explorer.search.value = "toy story 2"
    assert explorer.movie.value == 1
    ids, _ = model.similar_items(1, 10, filter_items=[1])
    assert [explorer.neighbours.value.count(FILMS[i].replace("<b>", "&lt;b&gt;")) for i in ids] == [1] * 4
    before = explorer.neighbours.value
    explorer.search.value = "i"
    explorer.movie.value = 4
    assert explorer.neighbours.value != before
    assert "<b>" not in explorer.neighbours.value, "titles must be escaped"


def test_explorer_answers_what_does_not_exist(data, model):
    explorer = Explorer(model, data, data.likes())
    explorer.search.value = "<Matrix>"
    assert "No title contains “&lt;Matrix&gt;”" in explorer.neighbours.value
    assert explorer.movie.options == ()
    explorer.user.value = 7
    assert "There is no user 7: the numbers go from 10 to 49" in explorer.profile.value
    explorer.search.value, explorer.user.value = "Big", 12
    assert "<table" in explorer.neighbours.value
    assert "<table" in explorer.profile.value


def test_explorer_shows_history_and_recommendations(data, model):
    explorer = Explorer(model, data, sp.csr_matrix(data.likes()))
    explorer.user.value = 12
    ids, _ = model.recommend(2, data.likes()[2])
    known, recommended = explorer.profile.value.split("Recommended")
    assert all(data.movies["title"][i].split(" (")[0].replace("<b>", "&lt;b&gt;") in recommended for i in ids)
    assert known.count("<tr") == 1 + data.likes()[2].nnz
