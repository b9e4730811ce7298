"""What notebooks show: tables, the projector's files read back, the widgets' callbacks driven."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings

from mflib import ALS, bpr, svd
from mflib.data import MovieLens
from mflib.metrics import bootstrap_interval, ranking_metrics
from mflib.notebook import (
    be_the_user,
    explorer,
    export_projector,
    judged,
    liked_movies,
    nearest_movies,
    recommended_movies,
    similar_movies,
    similarity,
    source,
)
from mflib.sampling import train_test_split
from mflib.metrics import similarity_quality

FILMS = ["Toy Story (1995)", "Toy Story 2 (1999)", "Alien (1979)", "Heat <b> (1995)", "Big (1988)"]


@pytest.fixture
def data():
    """Forty users with the numbers 10, 11, … and five movies."""
    ratings = random_ratings(40, 5, 0.6, seed=1).astype(np.float32)
    genres = ["Animation", "Animation", "Sci-Fi", "Crime", "Comedy"]
    movies = pd.DataFrame({"title": FILMS, "genres": genres})
    times = sp.csr_matrix((40, 5), dtype=np.int64)
    return MovieLens("toy", ratings, movies, np.arange(10, 50), np.arange(1, 6), times)


@pytest.fixture
def model(data):
    return ALS(3, regularization=0.1).fit(data.likes(), show_progress=False)


def test_source_is_the_code_as_it_is_run():
    shown = source(bpr.bpr_step, svd.svd_step).data
    assert shown.startswith("```python\ndef bpr_step(")
    assert shown.endswith("\n```")
    assert shown.count("\n\ndef ") == 1
    assert "\n\ndef svd_step(" in shown


def test_similar_movies_are_those_of_the_model(data, model):
    table = similar_movies(model, data, "Alien", N=3)
    assert table.columns.tolist() == ["by cosine", "cosine", "by l2", "l2"]
    assert table.index.tolist() == [1, 2, 3]
    assert table.index.name == "Alien"
    for metric, sign in (("cosine", 1), ("l2", -1)):
        ids, values = model.similar_items(2, 3, filter_items=[2], metric=metric)
        assert table[f"by {metric}"].tolist() == [FILMS[i] for i in ids]
        assert np.allclose(table[metric], sign * values, atol=0.0005)
    assert (table["l2"] > 0).all(), "a distance"
    assert "Alien (1979)" not in table.to_numpy()


def test_similar_movies_among_some(data, model):
    table = similar_movies(model, data, "Alien", items=[0, 2, 4])
    assert len(table) == 2
    for metric in ("cosine", "l2"):
        assert set(table[f"by {metric}"]) == {FILMS[0], FILMS[4]}


def test_nearest_movies_are_the_similar_ones_in_rows(data, model):
    films = ["Big", "Alien"]
    rows = nearest_movies(model, data, films, N=2, items=[0, 1, 2, 4])
    assert rows.index.tolist() == [(film, metric) for film in films for metric in ("cosine", "l2")]
    assert rows.columns.tolist() == [1, 2]
    for film in films:
        table = similar_movies(model, data, film, N=2, items=[0, 1, 2, 4])
        for metric in ("cosine", "l2"):
            assert rows.loc[(film, metric)].tolist() == table[f"by {metric}"].tolist()


def test_judged_shows_means_with_the_interval_of_ndcg():
    rng = np.random.default_rng(0)
    names = ["precision", "recall", "ndcg", "map", "auc"]  # in the order of ranking_metrics
    per_user = {
        model: pd.DataFrame(rng.random((30, 5)) * [1, 2, 3, 4, 5], columns=names)
        for model in ("WARP", "ALS")
    }
    table = judged(per_user)
    assert table.index.tolist() == ["WARP", "ALS"]
    heads = ["NDCG@10", "95 % interval", "precision@10", "recall@10", "MAP@10", "AUC"]
    assert table.columns.tolist() == heads
    for model, metrics in per_user.items():
        for head in heads[:1] + heads[2:]:
            metric = head.partition("@")[0].lower()
            assert table.loc[model, head] == round(metrics[metric].mean(), 3)
        low, high = bootstrap_interval(metrics["ndcg"], confidence=0.95)
        assert table.loc[model, "95 % interval"] == f"{low:.3f} to {high:.3f}"


def test_judged_takes_what_ranking_metrics_returns(data):
    train, test = train_test_split(data.likes(), 0.7)
    per_user = ranking_metrics(ALS(3).fit(train, show_progress=False), train, test, N=2)
    row = judged({"ALS": per_user}).loc["ALS"]
    low, high = map(float, row["95 % interval"].split(" to "))
    assert low < row["NDCG@10"] < high


def test_similarity_judges_movies_with_enough_likes(data, model):
    count = data.likes().getnnz(0)
    other = ALS(2, random_state=1).fit(data.likes(), show_progress=False)
    for least in sorted(count)[:3]:
        table = similarity({"ALS": model, "other": other}, data, data.likes(), int(least))
        for name, each in (("ALS", model), ("other", other)):
            expected = similarity_quality(each, data.movies, np.flatnonzero(count >= least))
            assert table.columns.tolist() == list(expected)
            assert np.allclose(table.loc[name], list(expected.values()), atol=5e-4, equal_nan=True)
    whole = similarity({"ALS": model}, data, data.likes(), least=int(count.min()))
    assert whole.columns.tolist() == [
        "genres, cosine",
        "series, cosine",
        "genres, l2",
        "series, l2",
    ]
    assert whole.loc["ALS", "series, cosine"] == 1, "all five movies are among the ten nearest"


def test_liked_movies_best_first(data):
    userid = int(np.diff(data.likes().indptr).argmax())
    table = liked_movies(data, data.likes(), userid)
    assert table.columns.tolist() == ["title", "genres", "stars"]
    assert table.index.tolist() == list(range(1, len(table) + 1)), "ranks begin at 1"
    assert set(table["stars"]) == {4, 5}
    assert table["stars"].dtype.kind == "i", "whole stars have no point"
    assert table["stars"].is_monotonic_decreasing
    assert len(table) == data.likes()[userid].nnz
    ids = [FILMS.index(title) for title in table["title"]]
    assert data.ratings[userid].toarray()[0, ids].tolist() == table["stars"].tolist()
    assert table["genres"].tolist() == data.movies.loc[ids, "genres"].tolist()
    assert liked_movies(data, data.likes(), userid, N=2).equals(table[:2])


def test_half_stars_are_shown(data):
    stars = sp.csr_matrix(np.array([[3.5, 5, 0, 4.5, 3]], np.float32))
    halves = dataclasses.replace(data, ratings=stars, user_ids=np.arange(1))
    table = liked_movies(halves, halves.likes(3.5), 0)
    assert table["stars"].tolist() == [5, 4.5, 3.5]
    assert "4.5" in table.to_string()


def test_a_user_without_likes_has_an_empty_table(data):
    nothing = sp.csr_matrix(data.ratings.shape, dtype=np.float32)
    assert liked_movies(data, nothing, 0).shape == (0, 3)


def test_recommended_movies_are_those_of_the_model(data, model):
    likes = data.likes()
    table = recommended_movies(model, data, likes, 2, N=2)
    ids, scores = model.recommend(2, likes[2], 2)
    assert table.columns.tolist() == ["title", "genres", "score"]
    assert table.index.tolist() == [1, 2], "ranks begin at 1"
    assert table["title"].tolist() == [FILMS[i] for i in ids]
    assert table["genres"].tolist() == data.movies.loc[ids, "genres"].tolist()
    assert table["score"].tolist() == scores.round(3).tolist()
    assert not set(table["title"]) & {FILMS[i] for i in likes[2].indices}


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
    header, *labels = metadata.splitlines()
    assert header == "title\tgenres"
    assert [line.split("\t") for line in labels] == data.movies.to_numpy().tolist()
    assert config.count("tensor_path") == 1


def driven(capsys, model, data):
    """The explorer, and a function that types into a control of it and returns what is shown."""
    likes = sp.csr_matrix(data.likes())
    shown = explorer(model, data, likes, least=int(likes.getnnz(0).min()) + 1)

    def type_in(place: int, value) -> str:
        capsys.readouterr()
        shown.children[place].value = value
        return capsys.readouterr().out

    return shown, type_in


def test_explorer_finds_a_movie_and_its_neighbours(data, model, capsys):
    shown, type_in = driven(capsys, model, data)
    shown.update()  # ipywidgets 7 waits until it is displayed
    start = capsys.readouterr().out
    assert "Toy Story 2 (1999)" in start, "it starts with the neighbours of Toy Story"
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
    hint = "perhaps one of ['Toy Story (1995)', 'Toy Story 2 (1999)']"
    assert f"got 'toy', which 0 have; {hint}" in type_in(0, "toy")
    assert "Alien (1979)" in type_in(0, "Big"), "it goes on"
    assert "one of the 40 user ids of toy, got 7" in type_in(1, 7)


@pytest.fixture
def as_user(data, model, capsys):
    """Types into a control of the widget, by its name, and returns what is shown."""
    shown = be_the_user(model, data)
    controls = {control.description: control for control in shown.children[:-1]}

    def type_in(**values) -> str:
        capsys.readouterr()
        for name, value in values.items():
            controls[name.replace("_", " ")].value = value
        return capsys.readouterr().out

    for box in ("movie 1", "movie 2"):
        controls[box].value = ""  # neither of the first films is among the five
    return type_in


def row_of(*ids) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(ids)), ([0] * len(ids), ids)), (1, len(FILMS)))


def test_the_user_gets_what_the_model_recommends_to_a_new_user(as_user, model):
    as_user(movie_1="Alien (1979)")
    shown = as_user(movie_2="Big")
    ids, scores = model.recommend(0, row_of(2, 4), recalculate_user=True)
    places = [shown.find(f"{FILMS[i]}  ") for i in ids]
    assert -1 not in places
    assert places == sorted(places), "best first"
    for itemid, score in zip(ids, scores, strict=True):
        _, shares = model.explain(0, row_of(2, 4), itemid)
        assert f"{score:.2f}" in shown
        for liked, share in shares:
            assert f"{FILMS[liked]} ({share:.2f})" in shown, "because of which of them"


def test_sliders_act_on_the_users_own_system_alone(as_user, model):
    trained = model.item_factors.clone()
    as_user(movie_1="Alien")
    before = as_user(movie_2="Big")
    after = as_user(α=20.0, λ=10.0)
    assert after != before
    other = dataclasses.replace(model, alpha=20.0, regularization=10.0)
    other.user_factors, other.item_factors = model.user_factors, model.item_factors
    other.user_biases, other.item_biases = model.user_biases, model.item_biases
    other.global_bias = model.global_bias
    _, scores = other.recommend(0, row_of(2, 4), recalculate_user=True)
    assert all(f"{score:.2f}" in after.rpartition("title")[2] for score in scores)
    assert (model.alpha, model.regularization) == (4.0, 0.1), "the model itself stays"
    assert torch.equal(model.item_factors, trained), "the movies stay"


def test_the_user_is_told_what_is_missing(as_user):
    assert "Type the title of a movie that you like." in as_user(movie_3=" ")
    said = as_user(movie_3="toy")
    assert "perhaps one of ['Toy Story (1995)', 'Toy Story 2 (1999)']" in said
    assert "because" not in said
    assert "look it up in the table movies" in as_user(movie_3="No such movie")
    once = as_user(movie_3="Alien")
    assert "because you like" in once, "it goes on"
    assert as_user(movie_4="Alien (1979)") == once, "the same movie twice counts once"
