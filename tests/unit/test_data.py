"""Obtaining and loading MovieLens, on small data sets made here in the files' formats."""

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
from mflib.data import SOURCES, DataError, MovieLens, data_dir, load_movielens, obtain

RATINGS = [(2, 30, 5), (2, 10, 1), (7, 10, 4), (9, 20, 3), (9, 10, 4)]
TIMES = {"ml-1m": 978300, "ml-100k": 881250}  # of a user's ratings, less the user's id
FILES = {  # of ratings and of movies; nobody has rated the last movie
    "ml-1m": (
        "".join(f"{u}::{i}::{r}::97830{u}\n" for u, i, r in RATINGS),
        "10::Amélie: A Film (2001)::Comedy|Romance\n20::Alien (1979)::Action|Horror\n"
        "30::Alien 3 (1992)::Sci-Fi\n100::X (1999)::War\n",
    ),
    "ml-100k": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + "".join(f"{u}\t{i}\t{r}\t88125{u}\n" for u, i, r in RATINGS),
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tAmélie: A Film\t2001\tComedy Romance\n20\tAlien\t1979\tAction Horror\n"
        "30\tAlien 3\t1992\tSci-Fi\n100\tunknown\tunknown\tunknown\n",
    ),
}
HASHED = {  # the movies as their hash covers them
    "ml-1m": FILES["ml-1m"][1].replace("::", "\t"),
    "ml-100k": FILES["ml-100k"][1].partition("\n")[2],
}


@pytest.fixture(params=sorted(FILES))
def name(request, tmp_path, monkeypatch):
    """The name of a data set whose right content is that of FILES, with MFLIB_DATA in tmp_path."""
    monkeypatch.setenv("MFLIB_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MFLIB_DATASET", raising=False)
    triples = struct.pack("<15i", *(number for triple in sorted(RATINGS) for number in triple))
    liked = [(user, movie) for user, movie, stars in sorted(RATINGS) if stars >= 4]
    for each, source in SOURCES.items():
        archive = tmp_path / f"{each}.zip"
        with zipfile.ZipFile(archive, "w") as files:
            for member, text in zip((source.ratings, source.movies), FILES[each], strict=True):
                files.writestr(member, text.encode(source.encoding))
            files.writestr("../escaped", "out of the folder")
            files.writestr("/tmp/mflib-escaped", "out of the folder")
        times = b"".join(struct.pack("<3i", u, i, TIMES[each] + u) for u, i in liked)
        right = dataclasses.replace(
            source,
            sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
            ratings_hash=hashlib.sha256(triples).hexdigest(),
            times_hash=hashlib.sha256(times).hexdigest(),
            movies_hash=hashlib.sha256(HASHED[each].encode()).hexdigest(),
        )
        monkeypatch.setitem(SOURCES, each, right)
    return request.param


def served(monkeypatch, tmp_path, change=lambda content: content):
    """Downloads, by either way, deliver the archive after ``change``."""

    def fetch(source, folder):
        name = next(each for each in SOURCES if SOURCES[each] == source)
        copy = folder / "archive.zip"
        copy.write_bytes(change((tmp_path / f"{name}.zip").read_bytes()))
        return copy

    monkeypatch.setattr(mflib.data, "_download", fetch)


def files_of(name) -> tuple[Path, Path]:
    """Where the ratings and the movies belong."""
    folder, source = data_dir() / name, SOURCES[name]
    return folder / Path(source.ratings).name, folder / Path(source.movies).name


def place(name, ratings=None, movies=None, encoding=None, newline="\n") -> Path:
    """Put the files into the data folder by hand."""
    texts = [FILES[name][0] if ratings is None else ratings]
    texts += [FILES[name][1] if movies is None else movies]
    for file, text in zip(files_of(name), texts, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding or SOURCES[name].encoding, newline=newline)
    return data_dir() / name


def reversed_lines(name, text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[: SOURCES[name].header] + lines[SOURCES[name].header :][::-1])


def assert_same(data: MovieLens, expected: MovieLens):
    assert data.ratings.toarray().tolist() == expected.ratings.toarray().tolist()
    assert data.times.toarray().tolist() == expected.times.toarray().tolist()
    pd.testing.assert_frame_equal(data.movies, expected.movies)
    assert data.user_ids.tolist() == expected.user_ids.tolist()
    assert data.movie_ids.tolist() == expected.movie_ids.tolist()


def test_load(name, capsys):
    place(name)
    data = load_movielens(name)
    title = f"MovieLens-{name[3:].upper()}"
    assert capsys.readouterr().out == f"{title}: 5 ratings of 3 movies by 3 users\n"
    assert data.ratings.toarray().tolist() == [[1, 0, 5], [4, 0, 0], [4, 3, 0]]
    assert data.likes().toarray().tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert data.likes(5).nnz == 1
    of = TIMES[name]
    assert data.times.toarray().tolist() == [[0, 0, of + 2], [of + 7, 0, 0], [of + 9, 0, 0]]
    assert data.user_ids.tolist() == [2, 7, 9]
    assert data.movie_ids.tolist() == [10, 20, 30]
    assert data.user_ids.dtype == data.movie_ids.dtype == np.int64
    titles = ["Amélie: A Film (2001)", "Alien (1979)", "Alien 3 (1992)"]
    assert data.movies["title"].tolist() == titles
    assert data.movies["genres"].tolist() == ["Comedy|Romance", "Action|Horror", "Sci-Fi"]


def test_titles_and_ids(name):
    place(name)
    data = load_movielens(name)
    assert data.itemid("Alien") == data.itemid("Alien (1979)") == 1
    assert data.userid(9) == 2
    with pytest.raises(KeyError, match="got 'alien', which 0 have; perhaps one of"):
        data.itemid("alien")
    with pytest.raises(KeyError, match="look it up in the table movies"):
        data.itemid("Aliens")
    with pytest.raises(KeyError, match="one of the 3 user ids"):
        data.userid(4)


def test_which_data_set_is_loaded(name, monkeypatch):
    with pytest.raises(DataError, match=r"run: python -m mflib\.data ml-100k"):
        load_movielens()
    place("ml-100k")
    assert load_movielens().name == "ml-100k"
    place("ml-1m")
    assert load_movielens().name == "ml-1m", "the data set of the assignment comes first"
    monkeypatch.setenv("MFLIB_DATASET", "ml-100k")
    assert load_movielens().name == "ml-100k"
    assert load_movielens("ml-1m").name == "ml-1m", "the argument comes before the environment"
    with pytest.raises(ValueError, match="expected a data set among"):
        load_movielens("ml-25m")


def at_another_time(name, ratings: str, of: int) -> str:
    """The file of ratings where those of ``of`` stars were given at another time."""
    separator = SOURCES[name].separator
    lines = ratings.splitlines(keepends=True)
    return "".join(
        line.replace(f"{separator}{of}{separator}", f"{separator}{of}{separator}1")
        for line in lines
    )


def test_times_of_likes_are_verified_and_no_others(name):
    place(name)
    expected = load_movielens(name)
    place(name, at_another_time(name, FILES[name][0], of=1))
    assert_same(load_movielens(name), expected)
    place(name, at_another_time(name, FILES[name][0], of=5))
    with pytest.raises(DataError, match="expected times of ratings of 4 and more with hash"):
        load_movielens(name)


def test_order_and_line_ends_do_not_matter(name):
    place(name)
    expected = load_movielens(name)
    ratings, movies = (reversed_lines(name, text) for text in FILES[name])
    place(name, ratings)
    assert_same(load_movielens(name), expected)
    place(name, movies=movies)
    assert_same(load_movielens(name), expected)
    place(name, ratings, movies, newline="\r\n")
    assert b"\r\n" in files_of(name)[1].read_bytes()
    assert_same(load_movielens(name), expected)


def rated(text: str, stars: str) -> str:
    """The ratings, with other stars from user 2 for movie 30."""
    return re.sub(r"^2(::|\t)30\1(5)", rf"2\g<1>30\g<1>{stars}", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(
            lambda text: text.replace("4", "x", 1),
            r"line \d: expected user, movie, rating, time between .*, got ",
            id="malformed",
        ),
        pytest.param(
            lambda text: text[: text.rindex("9") - 8],
            r"line \d: expected user, movie, rating, time|got [45] ratings",
            id="cut",
        ),
        pytest.param(
            lambda text: "".join(text.splitlines(keepends=True)[:-1]),
            "got 4 ratings with",
            id="short",
        ),
        pytest.param(
            lambda text: text + text.splitlines()[-1] + "\n", "got 6 ratings with", id="long"
        ),
        pytest.param(
            lambda text: text.replace("97", "1::9").replace("88", "1\t8"),
            r"got 5 ratings with",
            id="wide",
        ),
        pytest.param(
            lambda text: text.rstrip("\n") + "\t1" + "::1\n",
            r"user, movie, rating, time between .*, got: .* line [56]",
            id="a wide line",
        ),
        pytest.param(
            lambda text: text.replace("7", "\x85", 1),
            r"line \d: expected .*, got '.*x85",
            id="x85",
        ),
        pytest.param(
            lambda text: text + "\n7::1",
            r"line [67]: expected user, movie, rating, time between",
            id="an empty line",
        ),
        pytest.param(lambda text: "", r"got 0 ratings", id="empty"),
        pytest.param(lambda text: rated(text, "4"), "got 5 ratings with", id="another rating"),
        pytest.param(
            lambda text: rated(text, "5.5"),
            r"line [12]: expected user, movie, rating, time .*5\.5",
            id="half a star more",
        ),
        pytest.param(
            lambda text: rated(text, str(2**32 + 5)),
            r"line [12]: expected user, movie, rating, time .*4294967301",
            id="5 in int32",
        ),
    ],
)
def test_broken_ratings(name, change, says):
    folder = place(name, ratings=change(FILES[name][0]))
    with pytest.raises(DataError, match=says) as caught:
        load_movielens(name)
    assert str(files_of(name)[0]) in str(caught.value)
    assert f"move {folder} away, then run: python -m mflib.data {name}" in str(caught.value)


def test_whole_stars_may_be_written_with_a_point(name):
    place(name)
    expected = load_movielens(name)
    place(name, rated(FILES[name][0], "5.0"))
    data = load_movielens(name)
    assert_same(data, expected)
    assert data.user_ids.dtype == np.int64


def test_broken_movies(name):
    place(name, movies=FILES[name][1].replace("\n20", "\nxx", 1))
    says = r"line [23]: expected movie, title, (year, )?genres between"
    with pytest.raises(DataError, match=says):
        load_movielens(name)
    files_of(name)[1].unlink()
    with pytest.raises(DataError, match="No such file"):
        load_movielens(name)


def swapped(text: str, one: str, other: str) -> str:
    return text.replace(one, "\0").replace(other, one).replace("\0", other)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        pytest.param(lambda lines: lines[:-1], 3, id="an unrated movie is missing"),
        pytest.param(lambda lines: lines[:-2] + lines[-1:], 3, id="a rated movie is missing"),
        pytest.param(
            lambda lines: lines[:-1] + lines[-2:-1], 4, id="a copy in place of an unrated movie"
        ),
        pytest.param(lambda lines: [*lines, lines[-1]], 5, id="a line twice"),
        pytest.param(
            lambda lines: swapped("".join(lines), "Amélie: A Film", "Alien 3"),
            4,
            id="titles swapped",
        ),
        pytest.param(lambda lines: swapped("".join(lines), "10", "20"), 4, id="ids swapped"),
        pytest.param(lambda lines: "".join(lines).replace("1979", "1986"), 4, id="another year"),
        pytest.param(lambda lines: "".join(lines).replace("Sci-Fi", "War"), 4, id="another genre"),
    ],
)
def test_movies_that_are_not_those_of_grouplens(name, change, count):
    text = FILES[name][1]
    changed = "".join(change(text.splitlines(keepends=True)))
    assert changed != text
    folder = place(name, movies=changed)
    expected, got = SOURCES[name].movies_hash, f"got {count} movies with"
    says = f"{files_of(name)[1]}: expected content hash {expected}, {got}"
    with pytest.raises(DataError, match=re.escape(says)) as caught:
        load_movielens(name)
    assert f"move {folder} away, then run: python -m mflib.data {name}" in str(caught.value)


def test_files_saved_in_another_encoding(name):
    own = SOURCES[name].encoding
    folder = place(name, encoding={"utf-8": "latin-1", "latin-1": "utf-8"}[own])
    with pytest.raises(DataError, match=r"another encoding than latin-1|text in utf-8") as caught:
        load_movielens(name)
    assert str(files_of(name)[1]) in str(caught.value)
    assert f"move {folder} away, then run: python -m mflib.data {name}" in str(caught.value)


def by_hand(ratings: np.ndarray, name: str = "toy", genres: list[str] | None = None) -> MovieLens:
    """A data set of these ratings, users x movies; 0 is unknown."""
    users, items = ratings.shape
    genres = genres or ["Drama"] * items
    movies = pd.DataFrame({"title": [f"Film {i}" for i in range(items)], "genres": genres})
    csr = sp.csr_matrix(ratings.astype(np.float32))
    times = sp.csr_matrix(csr.shape, dtype=np.int64)
    return MovieLens(name, csr, movies, np.arange(1, users + 1), np.arange(1, items + 1), times)


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
    stars = np.array([[3.5, 4, 0, 1], [0, 0.5, 5, 0]])
    data = by_hand(stars)
    likes = data.likes(threshold)
    assert likes.toarray().tolist() == expected
    assert likes.nnz == np.sum(expected), "no cell is stored that is not liked"
    assert likes.dtype == np.float32
    assert data.ratings.toarray().tolist() == stars.tolist(), "the ratings stay as they are"


def watchers(*likes: tuple[int, int]) -> MovieLens:
    """Users with so many likes, so many of them of action or science fiction, and ten dislikes.

    After them comes one who dislikes 40 films of action and likes 20 others.
    """
    genres = ["Action|Drama", "Comedy|Sci-Fi"] * 25 + ["Drama"] * 50
    ratings = np.zeros((len(likes) + 1, 100))
    for user, (count, wanted) in enumerate(likes):
        ratings[user, :wanted] = 4
        ratings[user, 50 : 50 + count - wanted] = 5
        ratings[user, 90:] = 1
    ratings[-1, :40] = 3
    ratings[-1, 50:70] = 4
    return by_hand(ratings, genres=genres)


@pytest.mark.parametrize(
    ("likes", "expected"),
    [
        pytest.param([(14, 14), (15, 12), (40, 20), (41, 41)], 1, id="15 likes are enough"),
        pytest.param([(14, 14), (15, 3), (40, 20), (41, 41)], 2, id="40 are not too many"),
        pytest.param([(30, 14), (20, 10), (16, 7)], 1, id="the share decides, not the number"),
        pytest.param([(20, 10), (30, 15), (40, 20)], 0, id="of equals the first"),
    ],
)
def test_example_user(likes, expected):
    assert watchers(*likes).example_user() == expected


def test_example_user_of_movielens_1m_is_number_4():
    data = dataclasses.replace(watchers((20, 20), (20, 10), (20, 10), (20, 0)), name="ml-1m")
    assert data.user_ids[data.example_user()] == 4


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [("ml-100k", (943, 1682), 100_000), ("ml-1m", (6040, 3706), 1_000_209)],
)
def test_the_data_set_itself(name, shape, count):
    if not (data_dir() / name).exists():
        pytest.skip(f"no {data_dir() / name}: python -m mflib.data {name} obtains it")
    data = load_movielens(name)
    assert data.ratings.shape == shape == (len(data.user_ids), len(data.movie_ids))
    assert data.ratings.nnz == count
    assert set(data.ratings.data.tolist()) == {1, 2, 3, 4, 5}
    assert data.movies.index.equals(pd.RangeIndex(shape[1]))
    assert (np.diff(data.user_ids) > 0).all(), "no id twice"
    assert (np.diff(data.movie_ids) > 0).all()
    assert data.movie_ids[data.itemid("Toy Story (1995)")] == 1
    assert data.movies.loc[data.itemid("Cinema Paradiso"), "genres"].split("|")[-1] == "Romance"
    assert 15 <= data.likes()[data.example_user()].nnz <= 40


def test_obtain(name, tmp_path, monkeypatch):
    served(monkeypatch, tmp_path)
    folder = obtain(name)
    assert load_movielens(name).ratings.nnz == 5
    assert sorted(f.name for f in folder.parent.iterdir()) == [name], "nothing temporary is left"
    assert len(list(folder.iterdir())) == 2, "only the two files are unpacked"
    assert not (tmp_path / "escaped").exists()
    assert not Path("/tmp/mflib-escaped").exists()
    served(monkeypatch, tmp_path, change=lambda content: 1 / 0)
    assert obtain(name) == folder, "what is there is not downloaded again"


def test_two_that_obtain_at_once_both_have_it(name, tmp_path, monkeypatch):
    both = Barrier(2, timeout=30)

    def wait(content):
        both.wait()  # neither finds it there, each has downloaded before the other is done
        return content

    served(monkeypatch, tmp_path, wait)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(obtain, [name, name])) == [data_dir() / name] * 2
    assert load_movielens(name).ratings.nnz == 5
    assert [file.name for file in data_dir().iterdir()] == [name], "nothing temporary is left"


def test_what_a_faster_process_has_put_there_stays(name, tmp_path, monkeypatch):
    def overtake(content):
        (place(name) / "theirs").touch()
        return content

    served(monkeypatch, tmp_path, overtake)
    folder = obtain(name)
    assert (folder / "theirs").exists()
    assert load_movielens(name).ratings.nnz == 5
    assert [file.name for file in data_dir().iterdir()] == [name]


def test_what_a_faster_process_has_put_there_is_verified(name, tmp_path, monkeypatch):
    def overtake(content):
        place(name, ratings="theirs\n")
        return content

    served(monkeypatch, tmp_path, overtake)
    with pytest.raises(DataError, match=f"line 1.*move {data_dir() / name} away|got 0 ratings"):
        obtain(name)
    assert files_of(name)[0].read_text(encoding="utf-8") == "theirs\n"
    assert [file.name for file in data_dir().iterdir()] == [name]


@pytest.mark.parametrize(
    "change",
    [lambda c: c[:-20], lambda c: c + b"x", lambda c: b""],
    ids=["cut", "long", "empty"],
)
def test_damaged_downloads_are_refused(name, tmp_path, monkeypatch, change):
    served(monkeypatch, tmp_path, change)
    with pytest.raises(DataError, match=f"expected sha256 {SOURCES[name].sha256}, got"):
        obtain(name)
    assert list((tmp_path / "data").iterdir()) == []


def test_an_interrupted_download_leaves_nothing(name, tmp_path, monkeypatch):
    def interrupt(content):
        raise KeyboardInterrupt

    served(monkeypatch, tmp_path, interrupt)
    with pytest.raises(KeyboardInterrupt):
        obtain(name)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_broken_data_set_is_kept(name, tmp_path, monkeypatch):
    served(monkeypatch, tmp_path)
    folder = place(name, ratings="mine\n")
    with pytest.raises(DataError, match=f"move {folder} away"):
        obtain(name)
    assert files_of(name)[0].read_text(encoding="utf-8") == "mine\n"


def test_no_permission(name, tmp_path, monkeypatch):
    says = "cannot write .*; set MFLIB_DATA to a folder you may write to"
    served(monkeypatch, tmp_path)
    (tmp_path / "data").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(DataError, match=says):
        obtain(name)
    (tmp_path / "data").unlink()

    def refuse(*args):
        raise PermissionError("not here")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DataError, match=says):
        obtain(name)
    assert list((tmp_path / "data").iterdir()) == []


def test_no_network(name, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("network is unreachable")

    def no_pip(*args, **kwargs):
        raise subprocess.CalledProcessError(1, args, "", "ERROR: No matching distribution found")

    monkeypatch.setattr(mflib.data.pooch, "retrieve", unreachable)
    monkeypatch.setattr(mflib.data.subprocess, "run", no_pip)
    archive = SOURCES[name].archive
    with pytest.raises(DataError, match="Check the network") as caught:
        obtain(name)
    assert archive in str(caught.value)
    reason = "unreachable" if "://" in archive else "No matching distribution"
    assert reason in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_command_line(name, tmp_path, monkeypatch, capsys):
    served(monkeypatch, tmp_path)
    monkeypatch.setattr(sys, "argv", ["mflib.data", name])
    mflib.data.main()
    assert capsys.readouterr().out == f"{SOURCES[name].title} is in {data_dir() / name}\n"
    place("ml-1m", ratings="mine\n")
    monkeypatch.setattr(sys, "argv", ["mflib.data", "ml-1m"])
    says = r"error: .*ratings.dat, line 1: expected user, movie, rating, time"
    with pytest.raises(SystemExit, match=says):
        mflib.data.main()
    monkeypatch.setattr(sys, "argv", ["mflib.data", "ml-25m"])
    with pytest.raises(SystemExit):
        mflib.data.main()
    assert "invalid choice: 'ml-25m'" in capsys.readouterr().err
