"""What the notebooks show: tables, the projector's files read back, the explorer's callbacks driven."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings

from mflib import ALS
from mflib.data import MovieLens
from mflib.metrics import ranking_metrics
from mflib.plots import explorer, export_projector, judged, liked_movies, nearest_movies, similar_movies, similarity
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


def driven(capsys, model, data):
    """The explorer, and a function that types into one of its controls and returns what is then shown."""
    shown = explorer(model, data, sp.csr_matrix(data.likes()), least=int(data.likes().getnnz(0).min()) + 1)

    def type_in(place: int, value) -> str:
        capsys.readouterr()
        shown.children[place].value = value
        return capsys.readouterr().out

    return shown, type_in


def test_explorer_finds_a_movie_and_its_neighbours(data, model, capsys):
    shown, type_in = driven(capsys, model, data)
    assert "Toy Story 2 (1999)" in capsys.readouterr().out, "it starts with the neighbours of Toy Story"
    assert list(shown.children[0].options) == FILMS
    rarest = data.likes().getnnz(0).argmin()
    ids, _ = model.similar_items(1, 3, filter_items=[1, rarest])
    neighbours = type_in(0, "Toy Story 2 (1999)").split("title")[0]
    assert FILMS[rarest] not in neighbours, "too few likes"
    assert sorted((FILMS[i] for i in ids), key=neighbours.find) == [FILMS[i] for i in ids]
    assert type_in(0, "Big (1988)").split("title")[0] != neighbours


def test_explorer_shows_history_and_recommendations(data, model, capsys):
    _, type_in = driven(capsys, model, data)
    _, known, recommended = type_in(1, 12).split("title")
    ids, _ = model.recommend(2, data.likes()[2])
    assert all(data.movies["title"][i] in recommended for i in ids)
    assert all(data.movies["title"][i] in known for i in data.likes()[2].indices)


def test_explorer_answers_what_does_not_exist(data, model, capsys):
    _, type_in = driven(capsys, model, data)
    assert "got 'toy', which 0 have; perhaps one of ['Toy Story (1995)', 'Toy Story 2 (1999)']" in type_in(0, "toy")
    assert "Alien (1979)" in type_in(0, "Big"), "it goes on"
    assert "one of the 40 user ids of toy, got 7" in type_in(1, 7)
