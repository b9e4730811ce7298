"""Tests of the notebooks' tables, widgets (by driving their controls) and projector files."""

import dataclasses
import errno
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings

from mflib import ALS, BPR, bpr, notebook, svd, warp
from mflib.data import MovieLens
from mflib.metrics import bootstrap_interval, ranking_metrics, similarity_quality
from mflib.notebook import (
    be_the_user,
    explorer,
    export_projector,
    judged,
    liked_movies,
    recommended_movies,
    set_up,
    similar_movies,
    similarity,
    source,
    try_check,
)
from mflib.sampling import train_test_split

TITLES = ["Toy Story (1995)", "Toy Story 2 (1999)", "Alien (1979)", "Heat <b> (1995)", "Big (1988)"]


@pytest.fixture
def data():
    """Return a data set of 40 users with the original ids 10, 11, … and five movies."""
    genres = ["Animation", "Animation", "Sci-Fi", "Crime", "Comedy"]
    return MovieLens(
        name="toy",
        ratings=random_ratings(40, 5, 0.6, seed=1).astype(np.float32),
        movies=pd.DataFrame({"title": TITLES, "genres": genres}),
        user_ids=np.arange(10, 50),
        movie_ids=np.arange(1, 6),
        times=sp.csr_matrix((40, 5), dtype=np.int64),
    )


@pytest.fixture
def model(data):
    return ALS(3, regularization=0.1).fit(data.likes(), show_progress=False)


@pytest.fixture
def other_model():
    """Return a model of another data set, with six items."""
    return ALS(3).fit(random_ratings(40, 6, 0.6), show_progress=False)


def message_of(function, *arguments) -> str:
    """Return the message of the KeyError that a look-up raises."""
    with pytest.raises(KeyError) as error:
        function(*arguments)
    return error.value.args[0]


# --- set-up and source --------------------------------------------------------------------------


def test_set_up_configures_tables_and_figures(monkeypatch):
    commands = []

    class Shell:
        run_line_magic = staticmethod(lambda *command: commands.append(command))

    monkeypatch.setattr(notebook, "get_ipython", Shell)
    with pd.option_context("display.max_colwidth", 5):
        set_up()
        assert pd.get_option("display.max_colwidth") is None
    assert commands == [("config", 'InlineBackend.figure_format = "retina"')]


def test_set_up_works_outside_ipython(monkeypatch):
    monkeypatch.setattr(notebook, "get_ipython", lambda: None)
    with pd.option_context("display.max_colwidth", 5):
        set_up()
        assert pd.get_option("display.max_colwidth") is None


def test_source_shows_the_code_of_all_functions():
    shown = source(bpr.bpr_step, svd.svd_step).data
    assert shown.startswith("```python\ndef bpr_step(")
    assert shown.endswith("\n```")
    assert shown.count("\n\ndef ") == 1
    assert "\n\ndef svd_step(" in shown


def test_source_cuts_docstrings_to_their_first_line():
    def short(x):
        """Return x."""
        return x

    def long(x):
        """Return x.

        In full.
        """
        return x  # unchanged

    def none(x):
        return x

    shown = source(short, long, none).data
    code = '    """Return x."""\n    return x'
    assert f"def short(x):\n{code}\n" in shown
    assert f"def long(x):\n{code}  # unchanged\n" in shown
    assert "def none(x):\n    return x\n" in shown


def test_source_leaves_out_type_annotations():
    def typed(
        x: int,
        *more: float,
        name: str = "a",  # a comment
    ) -> int:
        y: int = x
        return y

    expected = "def typed(x, *more, name='a'):\n    y: int = x\n    return y\n"
    assert source(typed).data == f"```python\n{expected}```"


def test_source_breaks_a_long_signature():
    shown = source(warp.warp_step).data
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.startswith("```python\ndef warp_step(\n    P, Q, users, known, rows,")


# --- tables -------------------------------------------------------------------------------------


def test_similar_movies_lists_the_similar_items_of_the_model(data, model):
    table = similar_movies(model, data, "Alien", N=3)
    assert table.columns.tolist() == ["by cosine", "cosine", "by l2", "l2"]
    assert table.index.tolist() == [1, 2, 3]
    assert table.index.name == "Alien"
    for metric, sign in (("cosine", 1), ("l2", -1)):
        ids, values = model.similar_items(2, 3, filter_items=[2], metric=metric)
        assert table[f"by {metric}"].tolist() == [TITLES[i] for i in ids]
        assert table[metric].tolist() == pytest.approx((sign * values).tolist(), abs=0.0005)
    assert (table["l2"] > 0).all(), "l2 distances are shown as positive numbers"
    assert "Alien (1979)" not in table.to_numpy()


def test_similar_movies_ranks_only_the_given_items(data, model):
    table = similar_movies(model, data, "Alien", items=[0, 2, 4])
    assert len(table) == 2
    for metric in ("cosine", "l2"):
        assert set(table[f"by {metric}"]) == {TITLES[0], TITLES[4]}


def test_similar_movies_shows_no_negative_zero(data, model):
    model.item_factors[0] = model.item_factors[2]
    distance = similar_movies(model, data, "Alien", N=1)["l2"].iloc[0]
    assert distance == 0
    assert not np.signbit(distance)


def test_judged_shows_means_and_the_interval_of_ndcg():
    rng = np.random.default_rng(0)
    names = ["precision", "recall", "ndcg", "map", "auc"]  # in the order of ranking_metrics
    per_user = {
        model: pd.DataFrame(rng.random((30, 5)) * [1, 2, 3, 4, 5], columns=names)
        for model in ("WARP", "ALS")
    }
    table = judged(per_user)
    assert table.index.tolist() == ["WARP", "ALS"]
    headings = ["NDCG@10", "95 % interval", "precision@10", "recall@10", "MAP@10", "AUC"]
    assert table.columns.tolist() == headings
    for model, metrics in per_user.items():
        for heading in headings[:1] + headings[2:]:
            metric = heading.partition("@")[0].lower()
            assert table.loc[model, heading] == round(metrics[metric].mean(), 3)
        low, high = bootstrap_interval(metrics["ndcg"], confidence=0.95)
        assert table.loc[model, "95 % interval"] == f"{low:.3f} to {high:.3f}"


def test_judged_accepts_the_result_of_ranking_metrics(data):
    train, test = train_test_split(data.likes(), 0.7)
    per_user = ranking_metrics(ALS(3).fit(train, show_progress=False), train, test)
    row = judged({"ALS": per_user}).loc["ALS"]
    low, high = map(float, row["95 % interval"].split(" to "))
    assert low < row["NDCG@10"] < high


def test_judged_rejects_an_empty_comparison():
    with pytest.raises(ValueError, match="at least one model, got none"):
        judged({})


def test_similarity_measures_movies_with_enough_likes(data, model):
    count = data.likes().getnnz(0)
    other = ALS(2, random_state=1).fit(data.likes(), show_progress=False)
    for min_likes in sorted(count)[:3]:
        table = similarity({"ALS": model, "other": other}, data, data.likes(), int(min_likes))
        for name, each in (("ALS", model), ("other", other)):
            expected = similarity_quality(each, data.movies, np.flatnonzero(count >= min_likes))
            assert table.columns.tolist() == list(expected)
            values = list(expected.values())
            assert table.loc[name].tolist() == pytest.approx(values, abs=5e-4, nan_ok=True)


def test_similarity_of_all_movies_finds_the_whole_series(data, model):
    """All five movies are among the ten nearest."""
    table = similarity({"ALS": model}, data, data.likes(), min_likes=0)
    columns = ["genres, cosine", "series, cosine", "genres, l2", "series, l2"]
    assert table.columns.tolist() == columns
    assert table.loc["ALS", "series, cosine"] == table.loc["ALS", "series, l2"] == 1


def test_liked_movies_lists_the_best_rated_first(data):
    userid = int(np.diff(data.likes().indptr).argmax())
    table = liked_movies(data, data.likes(), userid)
    assert table.columns.tolist() == ["title", "genres", "stars"]
    assert table.index.tolist() == list(range(1, len(table) + 1)), "ranks start at 1"
    assert set(table["stars"]) == {4, 5}
    assert table["stars"].dtype.kind == "i", "whole stars are shown without a decimal point"
    assert table["stars"].is_monotonic_decreasing
    assert len(table) == data.likes()[userid].nnz
    ids = [TITLES.index(title) for title in table["title"]]
    assert data.ratings[userid].toarray()[0, ids].tolist() == table["stars"].tolist()
    assert table["genres"].tolist() == data.movies.loc[ids, "genres"].tolist()
    assert liked_movies(data, data.likes(), userid, N=2).equals(table[:2])


def test_liked_movies_breaks_ties_by_lowest_id(data):
    """The ids of a row may be unsorted, and the matrix may have any sparse format."""
    n = 50  # enough for an unstable sort to change the order
    stars = sp.csr_matrix(np.tile(np.float32([4, 5]), n // 2)[None])
    titles = [f"Movie {i}" for i in range(n)]
    movies = pd.DataFrame({"title": titles, "genres": "Drama"})
    many = dataclasses.replace(data, ratings=stars, movies=movies, user_ids=np.arange(1))
    backwards = sp.csr_matrix((np.ones(n), np.arange(n)[::-1].copy(), [0, n]), (1, n))
    for likes in (backwards, stars.tocoo(), stars.tocsc(), sp.csr_array(stars)):
        table = liked_movies(many, likes, 0, N=n)
        assert table["title"].tolist() == titles[1::2] + titles[::2], "5 stars, then 4"


def test_liked_movies_shows_half_stars(data):
    stars = sp.csr_matrix(np.array([[3.5, 5, 0, 4.5, 3]], np.float32))
    halves = dataclasses.replace(data, ratings=stars, user_ids=np.arange(1))
    table = liked_movies(halves, halves.likes(3.5), 0)
    assert table["stars"].tolist() == [5, 4.5, 3.5]
    assert "4.5" in table.to_string()


def test_liked_movies_of_a_user_without_likes_is_empty(data):
    nothing = sp.csr_matrix(data.ratings.shape, dtype=np.float32)
    table = liked_movies(data, nothing, 0)
    assert table.columns.tolist() == ["title", "genres", "stars"]
    assert table.empty


def test_recommended_movies_lists_the_recommendations_of_the_model(data, model):
    likes = data.likes()
    table = recommended_movies(model, data, likes, 2, N=2)
    ids, scores = model.recommend(2, likes[2], 2)
    assert table.columns.tolist() == ["title", "genres", "score"]
    assert table.index.tolist() == [1, 2], "ranks start at 1"
    assert table["title"].tolist() == [TITLES[i] for i in ids]
    assert table["genres"].tolist() == data.movies.loc[ids, "genres"].tolist()
    assert table["score"].tolist() == scores.round(3).tolist()
    assert not set(table["title"]) & {TITLES[i] for i in likes[2].indices}


def test_recommended_movies_of_a_user_who_knows_all_movies_is_empty(data, model):
    everything = sp.csr_matrix(np.ones(data.ratings.shape))
    assert recommended_movies(model, data, everything, 0).empty


@pytest.mark.parametrize("N", [0, -1, 1.5, "3", None])
def test_tables_reject_an_invalid_length(data, model, N):
    likes, message = data.likes(), re.escape(f"expected a whole number >= 1 for N, got {N!r}")
    with pytest.raises(ValueError, match=message):
        liked_movies(data, likes, 0, N)
    with pytest.raises(ValueError, match=message):
        recommended_movies(model, data, likes, 0, N)
    with pytest.raises(ValueError, match=message):
        similar_movies(model, data, "Alien", N)


@pytest.mark.parametrize(
    ("userid", "error"), [(-1, IndexError), (40, IndexError), ([0, 1], TypeError), (1.5, TypeError)]
)
def test_tables_reject_an_invalid_user(data, model, userid, error):
    with pytest.raises(error, match=r"expected (user ids from 0 to 39|one user id)"):
        liked_movies(data, data.likes(), userid)
    with pytest.raises(error, match=r"expected (user ids from 0 to 39|one user id)"):
        recommended_movies(model, data, data.likes(), userid)


def test_tables_reject_interactions_of_another_data_set(data, model):
    likes = data.likes()
    with pytest.raises(ValueError, match=r"shape \(40, 5\) \(toy\), got \(40, 4\)"):
        liked_movies(data, likes[:, :4], 0)
    with pytest.raises(ValueError, match=r"got \(5, 40\); it looks transposed"):
        recommended_movies(model, data, likes.T, 0)
    for function in (similarity, explorer):
        models = model if function is explorer else {"ALS": model}
        with pytest.raises(ValueError, match=r"shape \(40, 5\) \(toy\), got \(2, 5\)"):
            function(models, data, likes[:2])


def uses_of_a_model(data, tmp_path):
    """Return a call for each function that takes a model."""
    likes = data.likes()
    return {
        "similar_movies": lambda model: similar_movies(model, data, "Alien"),
        "similarity": lambda model: similarity({"ALS": model}, data, likes),
        "recommended_movies": lambda model: recommended_movies(model, data, likes, 0),
        "export_projector": lambda model: export_projector(model, data, tmp_path / "new"),
        "explorer": lambda model: explorer(model, data, likes),
        "be_the_user": lambda model: be_the_user(model, data),
    }


def test_every_function_rejects_an_unfitted_model(data, tmp_path):
    for call in uses_of_a_model(data, tmp_path).values():
        with pytest.raises(RuntimeError, match=r"expected a fitted model, got ALS\("):
            call(ALS())
    assert not any(tmp_path.iterdir()), "nothing is written"


def test_every_function_rejects_a_model_of_another_data_set(data, other_model, tmp_path):
    """Otherwise its items would be shown with the titles of other movies."""
    for call in uses_of_a_model(data, tmp_path).values():
        with pytest.raises(
            ValueError, match="a model with the 5 movies of toy, got a model with 6"
        ):
            call(other_model)
    assert not any(tmp_path.iterdir()), "nothing is written"


# --- TensorBoard --------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_export_projector_writes_factors_and_labels(data, model, tmp_path):
    export_projector(ALS(2).fit(data.likes(), False), data, tmp_path / "new" / "folder")
    export_projector(model, data, tmp_path / "new" / "folder")  # replaces the first export
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["ALS"]
    (tensors,), (metadata,), (config,) = (
        [path.read_text(encoding="utf-8") for path in tmp_path.rglob(name)]
        for name in ("tensors.tsv", "metadata.tsv", "projector_config.pbtxt")
    )
    factors = torch.tensor([[float(x) for x in line.split("\t")] for line in tensors.splitlines()])
    assert factors.shape == model.item_factors.shape
    assert torch.allclose(factors, model.item_factors, atol=1e-6)
    header, *labels = metadata.splitlines()
    assert header == "title\tgenres"
    assert [line.split("\t") for line in labels] == data.movies.to_numpy().tolist()
    assert config.count("tensor_path") == 1


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_export_projector_keeps_the_earlier_export_if_writing_fails(
    data, model, tmp_path, monkeypatch, error
):
    from torch.utils.tensorboard import SummaryWriter

    export_projector(model, data, tmp_path)
    before = contents(tmp_path)

    def fail(self, *arguments, **options):
        raise error

    monkeypatch.setattr(SummaryWriter, "add_embedding", fail)
    with pytest.raises(type(error)):
        export_projector(model, data, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("earlier", [True, False])
def test_export_projector_restores_the_earlier_export_if_renaming_fails(
    data, model, tmp_path, monkeypatch, earlier
):
    if earlier:
        export_projector(model, data, tmp_path)
    before = contents(tmp_path)
    rename = Path.rename

    def fail(path, target):
        if path.name == "new":
            raise PermissionError("in use")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError, match="in use"):
        export_projector(model, data, tmp_path)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["ALS"] * earlier


def test_export_projector_does_not_replace_a_saved_model(data, model, tmp_path):
    model.save(tmp_path / "ALS")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="expected nothing or an earlier export in"):
        export_projector(model, data, tmp_path)
    assert contents(tmp_path) == before


def test_export_projector_does_not_replace_a_folder_of_other_files(data, model, tmp_path):
    (tmp_path / "ALS").mkdir()
    (tmp_path / "ALS" / "homework.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="choose another folder"):
        export_projector(model, data, tmp_path)
    assert contents(tmp_path) == {str(Path("ALS") / "homework.txt"): b"mine"}


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_export_projector_uses_the_cache_folder_if_the_folder_is_read_only(
    data, model, tmp_path, monkeypatch, capsys, code
):
    shared, cache = tmp_path / "shared" / "projector", tmp_path / "cache"
    mkdir = Path.mkdir

    def refuse(path, *arguments, **options):
        if shared in (path, *path.parents):
            raise OSError(code, os.strerror(code))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(notebook.pooch, "os_cache", lambda name: cache / name)
    monkeypatch.setenv("MFLIB_PROGRESS", "1")
    export_projector(model, data, shared)
    export = cache / "mflib" / "projector"
    assert [path.name for path in export.iterdir()] == ["ALS"]
    message = f"{shared} cannot be written to ({os.strerror(code)}); the files are in {export}\n"
    assert capsys.readouterr().out == message
    monkeypatch.setenv("MFLIB_PROGRESS", "0")
    export_projector(model, data, shared)
    assert capsys.readouterr().out == "", "the stored output is the same on every machine"


def test_export_projector_reports_a_full_disk(data, model, tmp_path, monkeypatch):
    def fail(path, *arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match="No space left"):
        export_projector(model, data, tmp_path / "new")


# --- widgets ------------------------------------------------------------------------------------


@pytest.fixture
def explore(data, model, capsys):
    """Return the explorer and a function that sets controls by name and returns the output."""
    likes = data.likes()
    widget = explorer(model, data, likes, min_likes=int(likes.getnnz(0).min()) + 1)
    return widget, controls_of(widget, capsys)


def controls_of(widget, capsys):
    controls = {control.description: control for control in widget.children[:-1]}

    def enter(**values) -> str:
        capsys.readouterr()
        for name, value in values.items():
            controls[name.replace("_", " ")].value = value
        return capsys.readouterr().out

    return enter


def test_explorer_starts_with_movies_similar_to_toy_story(explore, capsys):
    widget, _ = explore
    capsys.readouterr()
    widget.update()  # ipywidgets 7 waits until the widget is displayed
    assert "Toy Story 2 (1999)" in capsys.readouterr().out
    assert list(widget.children[0].options) == TITLES


def test_explorer_lists_similar_movies_that_have_enough_likes(explore, data, model):
    _, enter = explore
    rarest = data.likes().getnnz(0).argmin()
    ids, _ = model.similar_items(1, 3, filter_items=[1, rarest])
    similar = enter(movie=" Toy Story 2 (1999) ").split("title")[0]  # surrounded by spaces
    assert TITLES[rarest] not in similar
    assert all(TITLES[i] in similar for i in ids)
    assert sorted((TITLES[i] for i in ids), key=similar.find) == [TITLES[i] for i in ids]
    assert enter(movie="Big (1988)").split("title")[0] != similar


def test_explorer_shows_history_and_recommendations(explore, data, model):
    _, enter = explore
    _, history, recommended = enter(user=12).split("title")
    ids, _ = model.recommend(2, data.likes()[2])
    assert all(data.movies["title"][i] in recommended for i in ids)
    assert all(data.movies["title"][i] in history for i in data.likes()[2].indices)


def test_explorer_reports_unknown_input_and_continues(explore, data):
    _, enter = explore
    shown = enter(movie="toy")
    assert message_of(data.itemid, "toy") in shown
    assert "Toy Story 2 (1999)" in shown, "a suggestion"
    assert "Type the title of a movie." in enter(movie=" ")
    assert "Alien (1979)" in enter(movie="Big")
    assert message_of(data.userid, 7) in enter(user=7)
    assert message_of(data.userid, -1) in enter(user=-1)


@pytest.fixture
def as_user(data, model, capsys):
    """Return a function that sets controls of the widget by name and returns the output."""
    enter = controls_of(be_the_user(model, data), capsys)
    enter(movie_1="", movie_2="")  # neither of the initial movies is among the five
    return enter


def row_of(*ids) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(ids)), ([0] * len(ids), ids)), (1, len(TITLES)))


def test_be_the_user_shows_recommendations_for_a_new_user(as_user, model):
    as_user(movie_1="Alien (1979)")
    shown = as_user(movie_2=" Big ")
    ids, scores = model.recommend(0, row_of(2, 4), recalculate_user=True)
    places = [shown.find(f"{TITLES[i]}  ") for i in ids]
    assert -1 not in places
    assert places == sorted(places), "best first"
    for itemid, score in zip(ids, scores, strict=True):
        _, contributions = model.explain(0, row_of(2, 4), itemid)
        assert f"{score:.2f}" in shown
        for liked, share in contributions:
            assert f"{TITLES[liked]} ({share:.2f})" in shown, "the likes that contribute"


def test_be_the_user_counts_a_movie_once(as_user):
    once = as_user(movie_3="Alien")
    assert "because you like" in once
    assert as_user(movie_4="Alien (1979)") == once


def test_be_the_user_sliders_change_only_the_new_user(as_user, model):
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
    assert (model.alpha, model.regularization) == (4.0, 0.1)
    assert torch.equal(model.item_factors, trained)


@pytest.mark.parametrize(
    ("alpha", "regularization", "start"),
    [(100, 0.001, 0.001), (0, 50_000, 50_000), (4.5, 0.1, 0.1), (1, 0, 0.1)],
)
def test_be_the_user_sliders_start_at_the_model_parameters(data, alpha, regularization, start):
    model = ALS(2, alpha=alpha, regularization=regularization).fit(data.likes(), False)
    widget = be_the_user(model, data)
    values = {control.description: control.value for control in widget.children[:-1]}
    assert values["α"] == alpha
    assert values["λ"] == pytest.approx(start)


def test_be_the_user_accepts_all_slider_positions(as_user):
    as_user(movie_1="Alien")
    for alpha in (0.0, 40.0):
        for regularization in (0.1, 1000.0):
            # Set another value first, because an unchanged control produces no output.
            as_user(α=1.0, λ=2.0)
            assert "because you like" in as_user(α=alpha, λ=regularization)


def test_be_the_user_reports_missing_or_unknown_titles_and_continues(as_user, data):
    assert "Type the title of a movie that you like." in as_user(movie_3=" ")
    shown = as_user(movie_3="toy")
    assert message_of(data.itemid, "toy") in shown
    assert "because" not in shown
    assert "because you like" in as_user(movie_3="Alien")


def test_be_the_user_reports_a_movie_without_factors(as_user, model):
    model.item_factors[2] = 0  # as for a movie without likes in the training data
    shown = as_user(movie_3="Alien")
    assert "not learned anything about this movie" in shown
    assert "because" not in shown
    assert "because you like" in as_user(movie_4="Big")


def test_be_the_user_shows_no_movies_to_a_user_who_likes_all(data, capsys):
    few = dataclasses.replace(
        data, ratings=data.ratings[:, :4], movies=data.movies[:4], movie_ids=data.movie_ids[:4]
    )
    enter = controls_of(be_the_user(ALS(2).fit(few.likes(), False), few), capsys)
    for n, title in enumerate(TITLES[:4], start=1):
        shown = enter(**{f"movie_{n}": title})
    assert "because you like" in shown, "an empty table"
    assert not re.search(r"\(\d{4}\)", shown)


def test_be_the_user_rejects_a_model_that_cannot_fold_in(data):
    model = BPR(2, iterations=1).fit(data.likes(), show_progress=False)
    with pytest.raises(TypeError, match=r"expected an ALS model, got BPR\("):
        be_the_user(model, data)


def shift(x, by=1):
    """Add ``by`` to a list, in place."""
    x[:] = [value + by for value in x]


def shift_of_copy(x, by=1):
    x = [value + by for value in x]


def shift_to_the_left(x, by=1):
    x[:] = [value - by for value in x]


def check_shift(step):
    """Accept steps that add 2; pass arguments by name, the second one first."""
    x = [1, 5]
    step(by=2, x=x)
    assert x == [3, 7], f"expected [3, 7], got {x}"


def test_try_check_prints_which_versions_are_accepted(capsys):
    wrong = {"a copy moves": shift_of_copy, "the opposite sign": shift_to_the_left}
    # Versions may have their arguments in another order.
    right = {"the kernel": shift, "other order": lambda by, x: shift(x, by)}
    try_check(check_shift, shift, right, wrong)
    assert capsys.readouterr().out.splitlines() == [
        "accepted: the kernel",
        "accepted: other order",
        "refused: a copy moves",
        "refused: the opposite sign",
    ]


def test_try_check_passes_positions_as_names():
    seen = []
    try_check(lambda step: step([1], 2), shift, {"": lambda *, by, x: seen.append((x, by))}, {})
    assert seen == [([1], 2)]


def test_try_check_raises_the_error_of_a_check_on_a_right_version():
    with pytest.raises(AssertionError, match=r"expected \[3, 7\], got \[1, 5\]"):
        try_check(check_shift, shift, {"in fact wrong": shift_of_copy}, {})


def test_try_check_names_the_wrong_version_that_is_accepted(capsys):
    wrong = {"a copy moves": shift_of_copy, "in fact right": shift}
    with pytest.raises(AssertionError, match=r"expected the check to refuse .*: in fact right"):
        try_check(check_shift, shift, {}, wrong)
    assert capsys.readouterr().out.splitlines()[-1] == "accepted: in fact right"


def test_try_check_does_not_take_other_errors_for_a_refusal():
    def check(step):
        raise ValueError("a mistake in the check")

    with pytest.raises(ValueError, match="a mistake in the check"):
        try_check(check, shift, {}, {"any": shift_of_copy})
