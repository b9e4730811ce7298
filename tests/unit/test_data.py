"""Downloading, verifying and loading MovieLens, on small data sets in the formats of the files."""

import dataclasses
import hashlib
import re
import struct
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pandas as pd
import pytest
import requests
import scipy.sparse as sp

import mflib.data
from mflib.data import (
    GENRES_100K,
    SOURCES,
    DataError,
    MovieLens,
    data_dir,
    load_movielens,
    obtain,
)

RATINGS = [  # user, movie, rating, time
    (2, 30, 5, 9001),
    (2, 10, 1, 9002),
    (7, 40, 5, 9003),
    (7, 10, 4, 9004),
    (9, 20, 3, 9005),
    (9, 10, 4, 9006),
]
MOVIES = [  # id, title, year, genres; nobody has rated the last movie
    (10, "Amélie: A Film", "2001", ["Comedy", "Romance"]),
    (20, "Alien", "1979", ["Action", "Horror"]),
    (30, "Alien 3", "1992", ["Sci-Fi"]),
    (40, "None", "unknown", ["unknown"]),
    (100, '"X', "1999", ["War"]),
]
HEADERS = {  # header lines of the ratings file and of the movies file
    "ml-1m": ("", ""),
    "ml-100k": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n",
    ),
}


def ratings_text(name, rows=RATINGS) -> str:
    separator = SOURCES[name].separator
    return HEADERS[name][0] + "".join(separator.join(map(str, row)) + "\n" for row in rows)


def movie_texts(name, row) -> list[str]:
    """Return the text columns of a movie as they are written in the file."""
    _, title, year, genres = row
    if name == "ml-100k":
        return [title, year, " ".join(genres)]
    return [title if year == "unknown" else f"{title} ({year})", "|".join(genres)]


def movies_text(name, rows=MOVIES) -> str:
    separator = SOURCES[name].separator
    lines = [separator.join([str(row[0]), *movie_texts(name, row)]) + "\n" for row in rows]
    return HEADERS[name][1] + "".join(lines)


def ratings_bytes() -> bytes:
    """Return the bytes from which the content hash of RATINGS is computed."""
    rows = [(u, i, stars, time if stars >= 4 else 0) for u, i, stars, time in sorted(RATINGS)]
    return b"".join(struct.pack("<4i", *row) for row in rows)


def movies_bytes(name) -> bytes:
    """Return the bytes from which the content hash of MOVIES is computed."""
    ids = b"".join(struct.pack("<i", row[0]) for row in MOVIES)
    return ids + "\t".join(text for row in MOVIES for text in movie_texts(name, row)).encode()


@pytest.fixture
def small_sources(tmp_path, monkeypatch):
    """Make RATINGS and MOVIES the valid content of both data sets; set MFLIB_DATA in tmp_path."""
    monkeypatch.setenv("MFLIB_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MFLIB_DATASET", raising=False)
    for name, source in SOURCES.items():
        archive = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(archive, "w") as files:
            files.writestr(source.ratings, ratings_text(name).encode(source.encoding))
            files.writestr(source.movies, movies_text(name).encode(source.encoding))
            files.writestr(str(Path(source.ratings).with_name("users.dat")), "not needed")
        small = dataclasses.replace(
            source,
            archive_sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
            ratings_sha256=hashlib.sha256(ratings_bytes()).hexdigest(),
            movies_sha256=hashlib.sha256(movies_bytes(name)).hexdigest(),
        )
        monkeypatch.setitem(SOURCES, name, small)


@pytest.fixture(params=sorted(SOURCES))
def name(request, small_sources):
    """Return the name of each small data set in turn."""
    return request.param


def serve(monkeypatch, tmp_path, change=lambda content: content):
    """Let pooch and pip deliver the small archives; ``change`` alters or interrupts a download."""

    def deliver(name, file):
        assert data_dir() in file.parents, "rename works within a file system only"
        content = (tmp_path / f"{name}.zip").read_bytes()
        file.write_bytes(content[:100])
        file.write_bytes(change(content))
        return str(file)

    def retrieve(url, known_hash, fname, path, progressbar):
        assert url == SOURCES["ml-1m"].archive
        assert known_hash == f"sha256:{SOURCES['ml-1m'].archive_sha256}"
        return deliver("ml-1m", Path(path) / fname)

    def pip(command, check, **kwargs):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        assert command[-1] == SOURCES["ml-100k"].archive
        deliver("ml-100k", Path(command[command.index("--dest") + 1]) / "data.whl")

    monkeypatch.setattr(mflib.data.pooch, "retrieve", retrieve)
    monkeypatch.setattr(mflib.data.subprocess, "run", pip)


def files_of(name) -> tuple[Path, Path]:
    """Return the paths of the ratings and the movies of a data set."""
    folder, source = data_dir() / name, SOURCES[name]
    return folder / Path(source.ratings).name, folder / Path(source.movies).name


def place(name, ratings=None, movies=None, encoding=None, newline="\n") -> Path:
    """Write the files of a data set, by default the valid ones, and return its folder."""
    texts = [ratings_text(name) if ratings is None else ratings]
    texts += [movies_text(name) if movies is None else movies]
    for file, text in zip(files_of(name), texts, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding or SOURCES[name].encoding, newline=newline)
    return data_dir() / name


def load_error(name) -> str:
    """Return the message of the DataError; check that it tells the user how to recover."""
    with pytest.raises(DataError) as caught:
        load_movielens(name)
    remedy = f"; move {data_dir() / name} away, then run: python -m mflib.data {name}"
    assert str(caught.value).endswith(remedy)
    return str(caught.value)


def hash_error(file, expected, rows) -> str:
    """Return the start of the message for a file with another content hash."""
    return f"{file}: expected content hash {expected}, got {rows} rows with "


def assert_same(data: MovieLens, expected: MovieLens):
    for got, wanted in [(data.ratings, expected.ratings), (data.times, expected.times)]:
        assert got.nnz == wanted.nnz
        assert got.toarray().tolist() == wanted.toarray().tolist()
    pd.testing.assert_frame_equal(data.movies, expected.movies)
    assert data.user_ids.tolist() == expected.user_ids.tolist()
    assert data.movie_ids.tolist() == expected.movie_ids.tolist()


# --- load ---------------------------------------------------------------------------------------


def test_load_returns_ratings_movies_and_times(name, capsys):
    place(name)
    data = load_movielens(name)
    title = f"MovieLens-{name[3:].upper()}"
    assert capsys.readouterr().out == f"{title}: 6 ratings of 4 movies by 3 users\n"
    assert data.ratings.toarray().tolist() == [[1, 0, 5, 0], [4, 0, 0, 5], [4, 3, 0, 0]]
    assert data.ratings.dtype == np.float32
    assert data.likes().toarray().tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0]]
    assert data.times.toarray().tolist() == [[0, 0, 9001, 0], [9004, 0, 0, 9003], [9006, 0, 0, 0]]
    assert data.times.nnz == 4, "no zeros are stored"
    assert data.user_ids.tolist() == [2, 7, 9]
    assert data.movie_ids.tolist() == [10, 20, 30, 40]
    assert data.user_ids.dtype == data.movie_ids.dtype == data.times.dtype == np.int64
    titles = ["Amélie: A Film (2001)", "Alien (1979)", "Alien 3 (1992)", "None"]
    assert data.movies["title"].tolist() == titles
    genres = ["Comedy|Romance", "Action|Horror", "Sci-Fi", "unknown"]
    assert data.movies["genres"].tolist() == genres
    assert list(data.movies.columns) == ["title", "genres"]


def test_load_chooses_the_data_set(small_sources, monkeypatch):
    message = f"expected MovieLens-100K in {data_dir() / 'ml-100k'}, but it does not exist; run: "
    with pytest.raises(DataError, match=re.escape(f"{message}python -m mflib.data ml-100k")):
        load_movielens()
    place("ml-100k")
    assert load_movielens().name == "ml-100k"
    place("ml-1m")
    assert load_movielens().name == "ml-1m", "MovieLens-1M comes first"
    monkeypatch.setenv("MFLIB_DATASET", "ml-100k")
    assert load_movielens().name == "ml-100k"
    assert load_movielens("ml-1m").name == "ml-1m", "the argument overrides the environment"
    with pytest.raises(ValueError, match=r"expected a data set among .*, got 'ml-25m'"):
        load_movielens("ml-25m")


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_data_dir_is_next_to_the_package_by_default(value, monkeypatch):
    monkeypatch.delenv("MFLIB_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("MFLIB_DATA", value)
    assert data_dir() == Path(mflib.data.__file__).resolve().parents[1] / "data"


def test_data_dir_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for value, expected in [("movies", "movies"), ("~/movies", "home/movies")]:
        monkeypatch.setenv("MFLIB_DATA", value)
        assert data_dir() == tmp_path / expected


def test_load_ignores_line_order_and_line_endings(name):
    place(name)
    expected = load_movielens(name)
    ratings = ratings_text(name, RATINGS[::-1])
    movies = movies_text(name, MOVIES[::-1])
    place(name, ratings)
    assert_same(load_movielens(name), expected)
    place(name, movies=movies)
    assert_same(load_movielens(name), expected)
    place(name, ratings, movies, newline="\r\n")
    assert b"\r\n" in files_of(name)[1].read_bytes()
    assert_same(load_movielens(name), expected)


def test_load_accepts_ratings_with_a_decimal_point(name):
    place(name)
    expected = load_movielens(name)
    place(name, ratings_text(name, [(2, 30, "5.0", 9001), *RATINGS[1:]]))
    assert_same(load_movielens(name), expected)


def original_movies(rows=MOVIES) -> str:
    """Return GroupLens' u.item with these movies."""
    lines = []
    for number, title, year, genres in rows:
        flags = "|".join(str(int(genre in genres)) for genre in GENRES_100K)
        shown = f"{title} ({year})" if year.isdigit() else "unknown"
        lines.append(f"{number}|{shown}|01-Jan-1995||http://x/{number}|{flags}\n")
    return "".join(lines)


def place_original(movies: str | None = None) -> Path:
    """Write GroupLens' own files of MovieLens-100K; return their folder."""
    folder = data_dir() / "ml-100k"
    folder.mkdir(parents=True)
    header = HEADERS["ml-100k"][0]
    (folder / "u.data").write_text(ratings_text("ml-100k").removeprefix(header), "utf-8")
    (folder / "u.item").write_text(original_movies() if movies is None else movies, "latin-1")
    return folder


# RecBole spells the title of the movie without one in this way.
RECBOLE = [row if row[2].isdigit() else (row[0], "unkonwn", "unkonwn", row[3]) for row in MOVIES]


def test_load_reads_the_original_files_of_movielens_100k(small_sources, monkeypatch):
    content = b"".join(struct.pack("<i", row[0]) for row in RECBOLE)
    content += "\t".join(t for row in RECBOLE for t in movie_texts("ml-100k", row)).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    changed = dataclasses.replace(SOURCES["ml-100k"], movies_sha256=sha256)
    monkeypatch.setitem(SOURCES, "ml-100k", changed)
    folder = place("ml-100k", movies=movies_text("ml-100k", RECBOLE))
    expected = load_movielens("ml-100k")
    folder.rename(folder.with_name("converted"))
    place_original()
    assert_same(load_movielens("ml-100k"), expected)
    assert obtain("ml-100k") == folder


@pytest.mark.parametrize(
    ("movies", "problem"),
    [
        ("1|Alien (1979)|01-Jan-1995||x|0\n", r"u\.item, line 1: expected 24 columns separated"),
        (original_movies(MOVIES[1:]), r"u\.item: expected content hash"),
        (original_movies().replace("Alien 3", "Alien 4"), r"u\.item: expected content hash"),
    ],
)
def test_load_refuses_modified_original_files(small_sources, movies, problem):
    place_original(movies)
    assert re.search(problem, load_error("ml-100k"))


@pytest.mark.parametrize("inner", ["twice", "recbole/dataset_example/ml-100k"])
def test_load_advises_to_move_the_files_of_a_nested_folder(name, inner):
    folder = place(name)
    folder.rename(folder.with_name("unpacked"))
    (folder / inner).parent.mkdir(parents=True)
    folder.with_name("unpacked").rename(folder / inner)
    for read in (load_movielens, obtain):
        with pytest.raises(DataError) as caught:
            read(name)
        advice = f"; the data are in {folder / inner}: move its files to {folder}"
        assert str(caught.value).endswith(advice)


def test_load_advises_to_unpack_an_archive(name):
    folder = data_dir() / name
    folder.mkdir(parents=True)
    (folder / f"{name}.zip").touch()
    with pytest.raises(DataError, match=rf"; unpack {name}\.zip there, so that .* exists$"):
        load_movielens(name)


def test_load_says_that_a_relative_folder_depends_on_the_current_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MFLIB_DATA", "elsewhere")
    advice = f"MFLIB_DATA=elsewhere is relative to {tmp_path}; use an absolute path, or run: "
    with pytest.raises(DataError, match=re.escape(advice)):
        load_movielens(name)


# --- verify -------------------------------------------------------------------------------------


def with_another_time(stars: int) -> list[tuple]:
    return [(*row[:3], row[3] + 100) if row[2] == stars else row for row in RATINGS]


@pytest.mark.parametrize("stars", [1, 3])
def test_load_ignores_times_of_dislikes(name, stars):
    place(name)
    expected = load_movielens(name)
    place(name, ratings_text(name, with_another_time(stars)))
    assert_same(load_movielens(name), expected)


@pytest.mark.parametrize("stars", [4, 5])
def test_load_refuses_modified_times_of_likes(name, stars):
    place(name, ratings_text(name, with_another_time(stars)))
    expected = hash_error(files_of(name)[0], SOURCES[name].ratings_sha256, 6)
    assert load_error(name).startswith(expected)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(("x", 40, 5, 9003), id="text"),
        pytest.param((7, "4\x850", 5, 9003), id="a line break of str.splitlines"),
        pytest.param((7, 40, "5.5", 9003), id="half a star"),
        pytest.param((7, 40, 2**32 + 5, 9003), id="5 after overflow of int32"),
        pytest.param((7, 40, "", 9003), id="an empty column"),
        pytest.param((7, 40, 5), id="a missing column"),
        pytest.param(("",), id="an empty line"),
    ],
)
def test_load_reports_the_malformed_line(name, row):
    place(name, ratings_text(name, [*RATINGS[:2], row, *RATINGS[3:]]))
    separator, line = SOURCES[name].separator, SOURCES[name].header + 3
    columns = f"expected user, movie, rating, time separated by {separator!r}"
    expected = f"{files_of(name)[0]}, line {line}: {columns}, got {separator.join(map(str, row))!r}"
    assert load_error(name).startswith(f"{expected};")


def test_load_reports_a_line_with_too_many_columns(name):
    place(name, ratings_text(name, [*RATINGS[:2], (*RATINGS[2], 1), *RATINGS[3:]]))
    message = load_error(name)
    assert message.startswith(f"{files_of(name)[0]}: expected user, movie, rating, time separated")
    assert f"in line {SOURCES[name].header + 3}, saw 5" in message


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no ratings"),
        pytest.param(RATINGS[:-1], id="a rating is missing"),
        pytest.param([*RATINGS, RATINGS[-1]], id="a rating twice"),
        pytest.param([(2, 30, 4, 9001), *RATINGS[1:]], id="another rating of a like"),
        pytest.param(
            [RATINGS[0], (2, 10, 2, 9002), *RATINGS[2:]], id="another rating of a dislike"
        ),
        pytest.param([(3, 30, 5, 9001), *RATINGS[1:]], id="another user"),
        pytest.param([(2, 20, 5, 9001), *RATINGS[1:]], id="another movie"),
        pytest.param([(*row[:3], 1, row[3]) for row in RATINGS], id="an extra column"),
    ],
)
def test_load_refuses_modified_ratings(name, rows):
    place(name, ratings_text(name, rows))
    expected = hash_error(files_of(name)[0], SOURCES[name].ratings_sha256, len(rows))
    assert load_error(name).startswith(expected)


def test_load_refuses_an_empty_file(name):
    place(name, ratings="")
    expected = hash_error(files_of(name)[0], SOURCES[name].ratings_sha256, 0)
    assert load_error(name).startswith(expected)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(("xx", "Alien", "1979", ["Horror"]), id="text instead of the id"),
        pytest.param((20, "Alien", "1979", []), id="an empty column"),
    ],
)
def test_load_reports_malformed_movies(name, row):
    place(name, movies=movies_text(name, [MOVIES[0], row, *MOVIES[2:]]))
    columns = {"ml-1m": "movie, title, genres", "ml-100k": "movie, title, year, genres"}[name]
    line = SOURCES[name].header + 2
    expected = f"{files_of(name)[1]}, line {line}: expected {columns} separated by "
    assert load_error(name).startswith(expected)


@pytest.mark.parametrize("file", [0, 1], ids=["ratings", "movies"])
def test_load_reports_a_missing_file(name, file):
    place(name)
    files_of(name)[file].unlink()
    assert f"No such file or directory: '{files_of(name)[file]}'" in load_error(name)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(MOVIES[:-1], id="an unrated movie is missing"),
        pytest.param(MOVIES[1:], id="a rated movie is missing"),
        pytest.param([*MOVIES[:-1], MOVIES[0]], id="a copy in place of an unrated movie"),
        pytest.param([*MOVIES, MOVIES[-1]], id="a movie twice"),
        pytest.param(
            [(i, *row[1:]) for i, row in zip([20, 10, 30, 40, 100], MOVIES, strict=True)],
            id="ids swapped",
        ),
        pytest.param([*MOVIES[:2], (30, "Alien³", "1992", ["Sci-Fi"]), *MOVIES[3:]], id="title"),
        pytest.param([*MOVIES[:2], (30, "Alien 3", "1986", ["Sci-Fi"]), *MOVIES[3:]], id="year"),
        pytest.param([*MOVIES[:2], (30, "Alien 3", "1992", ["War"]), *MOVIES[3:]], id="genre"),
    ],
)
def test_load_refuses_modified_movies(name, rows):
    place(name, movies=movies_text(name, rows))
    expected = hash_error(files_of(name)[1], SOURCES[name].movies_sha256, len(rows))
    assert load_error(name).startswith(expected)


def test_load_refuses_latin_1_where_utf_8_is_expected(small_sources):
    place("ml-100k", encoding="latin-1")
    expected = f"{files_of('ml-100k')[1]}: expected text in utf-8, got: "
    assert load_error("ml-100k").startswith(expected)


def test_load_refuses_utf_8_where_latin_1_is_expected(small_sources):
    place("ml-1m", encoding="utf-8")
    message = load_error("ml-1m")
    expected = hash_error(files_of("ml-1m")[1], SOURCES["ml-1m"].movies_sha256, 5)
    assert message.startswith(expected)
    assert "its content or its encoding (latin-1) was changed" in message


@pytest.mark.parametrize(
    ("dataset", "shape", "count"),
    [("ml-100k", (943, 1682), 100_000), ("ml-1m", (6040, 3706), 1_000_209)],
)
def test_published_data_sets_have_their_known_content(dataset, shape, count):
    if not (data_dir() / dataset).exists():
        pytest.skip(f"no {data_dir() / dataset}; run: python -m mflib.data {dataset}")
    data = load_movielens(dataset)
    assert data.ratings.shape == shape == (len(data.user_ids), len(data.movie_ids))
    assert data.ratings.nnz == count
    assert set(data.ratings.data.tolist()) == {1, 2, 3, 4, 5}
    assert data.times.nnz == data.likes().nnz
    assert data.movies.index.equals(pd.RangeIndex(shape[1]))
    assert (np.diff(data.user_ids) > 0).all(), "ids are ascending and unique"
    assert (np.diff(data.movie_ids) > 0).all()
    assert data.movie_ids[data.itemid("Toy Story (1995)")] == 1
    assert data.movies.loc[data.itemid("Cinema Paradiso"), "genres"].split("|")[-1] == "Romance"
    assert 15 <= data.likes()[data.example_user()].nnz <= 40


# --- methods of MovieLens -----------------------------------------------------------------------


def movielens(ratings, name="toy", titles=None, genres=None) -> MovieLens:
    """Return a data set with these ratings (users x movies, 0 is unknown)."""
    csr = sp.csr_matrix(np.asarray(ratings, np.float32))
    users, items = csr.shape
    titles = titles or [f"Film {i}" for i in range(items)]
    movies = pd.DataFrame({"title": titles, "genres": genres or ["Drama"] * items})
    times = sp.csr_matrix(csr.shape, dtype=np.int64)
    return MovieLens(name, csr, movies, np.arange(users) * 3 + 1, np.arange(items) + 1, times)


TITLES = ["Alien (1979)", "Alien 3 (1992)", "Sabrina (1954)", "Sabrina (1995)"]
TITLES += ["Desperate Measures (1998)"] * 2 + ["unknown"]


@pytest.mark.parametrize(
    ("title", "itemid"),
    [
        ("Alien", 0),
        ("Alien (1979)", 0),
        ("Sabrina (1954)", 2),
        ("Sabrina (1995)", 3),
        ("unknown", 6),
    ],
)
def test_itemid_accepts_a_title_with_or_without_year(title, itemid):
    assert movielens(np.ones((1, 7)), titles=TITLES).itemid(title) == itemid


@pytest.mark.parametrize(
    ("title", "matches"),
    [
        ("Sabrina", {2: "Sabrina (1954)", 3: "Sabrina (1995)"}),
        ("Desperate Measures", dict.fromkeys([4, 5], "Desperate Measures (1998)")),
        ("Desperate Measures (1998)", dict.fromkeys([4, 5], "Desperate Measures (1998)")),
    ],
)
def test_itemid_refuses_a_title_of_two_movies(title, matches):
    message = f"got {title!r}, the title of 2 movies; add the year or use an id: {matches}"
    with pytest.raises(KeyError, match=re.escape(message)):
        movielens(np.ones((1, 7)), titles=TITLES).itemid(title)


@pytest.mark.parametrize(
    ("title", "hint"),
    [
        ("alien", "did you mean one of ['Alien (1979)', 'Alien 3 (1992)']?"),
        ("Alien (", "did you mean one of ['Alien (1979)']?"),
        ("Aliens", "look it up in the table movies"),
    ],
)
def test_itemid_suggests_similar_titles(title, hint):
    message = f"got {title!r}, the title of 0 movies; {hint}"
    with pytest.raises(KeyError, match=re.escape(message)):
        movielens(np.ones((1, 7)), titles=TITLES).itemid(title)


def test_userid_converts_original_ids():
    data = movielens(np.ones((3, 1)))
    assert [data.userid(original) for original in (1, 4, 7)] == [0, 1, 2]
    for unknown in (0, 2, 8):
        with pytest.raises(KeyError, match=f"one of the 3 user ids of toy, got {unknown};"):
            data.userid(unknown)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (-1, [[1, 1, 0, 1], [0, 1, 1, 0]]),
        (0, [[1, 1, 0, 1], [0, 1, 1, 0]]),
        (3, [[1, 1, 0, 0], [0, 0, 1, 0]]),
        (3.5, [[1, 1, 0, 0], [0, 0, 1, 0]]),
        (4, [[0, 1, 0, 0], [0, 0, 1, 0]]),
        (4.5, [[0, 0, 0, 0], [0, 0, 1, 0]]),
        (5, [[0, 0, 0, 0], [0, 0, 1, 0]]),
        (6, [[0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_likes_are_known_ratings_of_at_least_the_threshold(threshold, expected):
    stars = [[3.5, 4, 0, 1], [0, 0.5, 5, 0]]
    data = movielens(stars)
    likes = data.likes(threshold)
    assert likes.toarray().tolist() == expected
    assert likes.nnz == np.sum(expected), "only likes are stored"
    assert likes.dtype == np.float32
    assert data.ratings.toarray().tolist() == stars, "the ratings are unchanged"


def users_with_likes(*counts: tuple[int, int]) -> MovieLens:
    """Return users with (number of likes, number of likes of action or science fiction).

    Each of them dislikes 10 movies. One more user dislikes 40 action movies and likes 20 others.
    """
    genres = ["Action|Drama"] * 25 + ["Comedy|Sci-Fi"] * 25 + ["Drama"] * 50
    ratings = np.zeros((len(counts) + 1, 100))
    for user, (likes, favourites) in enumerate(counts):
        ratings[user, :favourites] = 4
        ratings[user, 50 : 50 + likes - favourites] = 5
        ratings[user, 90:] = 1
    ratings[-1, :40] = 3
    ratings[-1, 50:70] = 4
    return movielens(ratings, genres=genres)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param([(14, 14), (15, 12), (40, 20), (41, 41)], 1, id="15 likes are enough"),
        pytest.param([(14, 14), (15, 3), (40, 20), (41, 41)], 2, id="40 likes are not too many"),
        pytest.param([(30, 14), (20, 10), (16, 7)], 1, id="the share counts, not the number"),
        pytest.param([(26, 25), (40, 39)], 1, id="both genres count"),
        pytest.param([(20, 10), (30, 15), (40, 20)], 0, id="the first of several equal shares"),
    ],
)
def test_example_user_has_the_largest_share_of_the_genres(counts, expected):
    assert users_with_likes(*counts).example_user() == expected


def test_example_user_of_movielens_1m_is_user_4():
    data = dataclasses.replace(users_with_likes((20, 20), (20, 10), (20, 0)), name="ml-1m")
    assert data.user_ids[data.example_user()] == 4


# --- obtain -------------------------------------------------------------------------------------


def test_obtain_downloads_and_unpacks(name, tmp_path, monkeypatch):
    serve(monkeypatch, tmp_path)
    folder = obtain(name)
    assert folder == data_dir() / name
    assert load_movielens(name).ratings.nnz == 6
    assert [file.name for file in data_dir().iterdir()] == [name], "no temporary file is left"
    assert sorted(folder.iterdir()) == sorted(files_of(name)), "other files stay in the archive"


def test_obtain_does_not_download_again(name, tmp_path, monkeypatch):
    folder = place(name)
    serve(monkeypatch, tmp_path, change=lambda content: pytest.fail("downloaded again"))
    assert obtain(name) == folder


def test_obtain_keeps_a_damaged_data_set(name, tmp_path, monkeypatch):
    serve(monkeypatch, tmp_path)
    text = ratings_text(name, RATINGS[1:])
    folder = place(name, text)
    with pytest.raises(DataError, match="got 5 rows with") as caught:
        obtain(name)
    assert f"move {folder} away" in str(caught.value)
    assert files_of(name)[0].read_text(encoding="utf-8") == text


def test_obtain_works_in_two_threads_at_once(name, tmp_path, monkeypatch):
    both = Barrier(2, timeout=30)

    def wait_for_the_other(content):
        both.wait()  # both downloads have started before either of them is renamed
        return content

    serve(monkeypatch, tmp_path, wait_for_the_other)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(obtain, [name, name])) == [data_dir() / name] * 2
    assert load_movielens(name).ratings.nnz == 6
    assert [file.name for file in data_dir().iterdir()] == [name], "no temporary file is left"


def test_obtain_keeps_the_data_set_of_a_faster_process(name, tmp_path, monkeypatch):
    def overtake(content):
        (place(name) / "marker").touch()
        return content

    serve(monkeypatch, tmp_path, overtake)
    assert (obtain(name) / "marker").exists()
    assert load_movielens(name).ratings.nnz == 6
    assert [file.name for file in data_dir().iterdir()] == [name]


def test_obtain_verifies_the_data_set_of_a_faster_process(name, tmp_path, monkeypatch):
    text = ratings_text(name, RATINGS[1:])

    def overtake(content):
        place(name, text)
        return content

    serve(monkeypatch, tmp_path, overtake)
    with pytest.raises(DataError, match="got 5 rows with") as caught:
        obtain(name)
    assert f"move {data_dir() / name} away" in str(caught.value)
    assert files_of(name)[0].read_text(encoding="utf-8") == text
    assert [file.name for file in data_dir().iterdir()] == [name]


@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-20], lambda content: content + b"x", lambda content: b""],
    ids=["truncated", "too long", "empty"],
)
def test_obtain_refuses_a_damaged_archive(name, tmp_path, monkeypatch, change):
    serve(monkeypatch, tmp_path, change)
    expected = f"expected sha256 {SOURCES[name].archive_sha256}, got .*; download it again"
    with pytest.raises(DataError, match=expected):
        obtain(name)
    assert list(data_dir().iterdir()) == []


def test_obtain_refuses_an_archive_with_modified_ratings(name, tmp_path, monkeypatch):
    serve(monkeypatch, tmp_path)
    monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES[name], ratings_sha256="0"))
    with pytest.raises(DataError, match="expected content hash 0, got 6 rows with"):
        obtain(name)
    assert list(data_dir().iterdir()) == []


def test_obtain_leaves_nothing_behind_when_interrupted(name, tmp_path, monkeypatch):
    def interrupt(content):
        raise KeyboardInterrupt

    serve(monkeypatch, tmp_path, interrupt)
    with pytest.raises(KeyboardInterrupt):
        obtain(name)
    assert list(data_dir().iterdir()) == []


@pytest.mark.parametrize("operation", ["mkdir", "rename"])
def test_obtain_reports_a_folder_that_is_not_writable(name, operation, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("permission denied")

    serve(monkeypatch, tmp_path)
    data_dir().mkdir()
    monkeypatch.setattr(Path, operation, refuse)
    message = f"cannot write {data_dir() / name}: permission denied; set MFLIB_DATA to a writable"
    with pytest.raises(DataError, match=re.escape(message)):
        obtain(name)
    assert list(data_dir().iterdir()) == []


def test_obtain_reports_a_failed_download(name, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("network is unreachable")

    def no_package(*args, check, **kwargs):
        assert check
        raise subprocess.CalledProcessError(1, args, "", "ERROR: No matching distribution found\n")

    monkeypatch.setattr(mflib.data.pooch, "retrieve", unreachable)
    monkeypatch.setattr(mflib.data.subprocess, "run", no_package)
    reasons = {
        "ml-1m": "network is unreachable",
        "ml-100k": "ERROR: No matching distribution found",
    }
    message = f"expected to download {SOURCES[name].archive}, got: {reasons[name]}\nCheck the netw"
    with pytest.raises(DataError, match=re.escape(message)):
        obtain(name)
    assert list(data_dir().iterdir()) == []


# --- command line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"), [([], "ml-100k"), (["ml-100k"], "ml-100k"), (["ml-1m"], "ml-1m")]
)
def test_main_obtains_the_data_set(arguments, name, small_sources, tmp_path, monkeypatch, capsys):
    serve(monkeypatch, tmp_path)
    monkeypatch.setattr(sys, "argv", ["mflib.data", *arguments])
    mflib.data.main()
    assert capsys.readouterr().out == f"{SOURCES[name].title} is in {data_dir() / name}\n"
    assert load_movielens(name).name == name


def test_main_reports_a_damaged_data_set(name, monkeypatch):
    place(name, ratings_text(name, RATINGS[1:]))
    monkeypatch.setattr(sys, "argv", ["mflib.data", name])
    expected = f"error: {hash_error(files_of(name)[0], SOURCES[name].ratings_sha256, 5)}"
    with pytest.raises(SystemExit, match=f"^{re.escape(expected)}"):
        mflib.data.main()


def test_main_refuses_an_unknown_data_set(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mflib.data", "ml-25m"])
    with pytest.raises(SystemExit):
        mflib.data.main()
    assert "invalid choice: 'ml-25m'" in capsys.readouterr().err
