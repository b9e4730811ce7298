"""Obtaining and loading MovieLens, on small data sets made here in the files' formats."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests

import mflib.data
from mflib.data import SOURCES, DataError, content_hash, load_movielens, obtain

RATINGS = [(2, 30, 5), (2, 10, 1), (7, 10, 4), (9, 20, 3), (9, 10, 4)]
FILES = {
    "ml-1m": (
        "".join(f"{u}::{i}::{r}::97830{u}\n" for u, i, r in RATINGS),
        "10::Amélie: A Film (2001)::Comedy|Romance\n20::Alien (1979)::Action|Horror\n"
        "30::Alien 3 (1992)::Sci-Fi\n40::X (1999)::War\n",
    ),
    "ml-100k": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + "".join(f"{u}\t{i}\t{r}\t88125{u}\n" for u, i, r in RATINGS),
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tAmélie: A Film\t2001\tComedy Romance\n20\tAlien\t1979\tAction Horror\n"
        "30\tAlien 3\t1992\tSci-Fi\n40\tunknown\tunknown\tunknown\n",
    ),
}


@pytest.fixture(params=sorted(FILES))
def name(request, tmp_path, monkeypatch):
    """The name of a data set whose expected content is that of RATINGS, with MFLIB_DATA in tmp_path."""
    monkeypatch.setenv("MFLIB_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MFLIB_DATASET", raising=False)
    for each, source in SOURCES.items():
        archive = tmp_path / f"{each}.zip"
        with zipfile.ZipFile(archive, "w") as files:
            for member, text in zip((source.ratings, source.movies), FILES[each], strict=True):
                files.writestr(member, text.encode(source.encoding))
            files.writestr("../escaped", "out of the folder")
            files.writestr("/tmp/mflib-escaped", "out of the folder")
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        content = content_hash(np.array(RATINGS))
        monkeypatch.setitem(SOURCES, each, source._replace(sha256=sha256, content=content, n_movies=4))
    return request.param


def served(monkeypatch, tmp_path, change=lambda content: content):
    """Downloads, by either way, deliver the archive after ``change``."""

    def fetch(source, folder):
        name = next(each for each in SOURCES if SOURCES[each] == source)
        copy = folder / "archive.zip"
        copy.write_bytes(change((tmp_path / f"{name}.zip").read_bytes()))
        return copy

    monkeypatch.setattr(mflib.data, "_download", fetch)


def place(name, ratings=None, movies=None) -> Path:
    """Put the files into the data folder by hand."""
    folder, source = mflib.data.data_dir() / name, SOURCES[name]
    folder.mkdir(parents=True)
    for member, text in zip((source.ratings, source.movies), (ratings, movies), strict=True):
        default = FILES[name][0 if member == source.ratings else 1]
        (folder / Path(member).name).write_text(default if text is None else text, encoding=source.encoding)
    return folder


def test_load(name, capsys):
    place(name)
    data = load_movielens(name)
    assert capsys.readouterr().out == f"MovieLens-{name[3:].upper()}: 5 ratings of 3 movies by 3 users\n"
    assert data.ratings.toarray().tolist() == [[1, 0, 5], [4, 0, 0], [4, 3, 0]]
    assert data.likes().toarray().tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert data.likes(5).nnz == 1
    assert data.user_ids.tolist() == [2, 7, 9]
    assert data.movie_ids.tolist() == [10, 20, 30]
    assert data.movies["title"].tolist() == ["Amélie: A Film (2001)", "Alien (1979)", "Alien 3 (1992)"]
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


def test_row_order_and_timestamps_do_not_matter(name):
    first = place(name)
    expected = load_movielens(name)
    lines = (first / Path(SOURCES[name].ratings).name).read_text().splitlines(keepends=True)
    head, rows = lines[: SOURCES[name].header], lines[SOURCES[name].header :]
    first.rename(first.with_name("old"))
    place(name, ratings="".join(head + [row.replace("97830", "1").replace("88125", "1") for row in rows[::-1]]))
    data = load_movielens(name)
    assert (data.ratings != expected.ratings).nnz == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("4", "x", 1), r"line \d: expected user, movie, rating, time between .*, got "),
        (lambda text: text[: text.rindex("9") - 8], r"line \d: expected user, movie, rating, time|got [45] ratings"),
        (lambda text: "".join(text.splitlines(keepends=True)[:-1]), "got 4 ratings with"),
        (lambda text: text + text.splitlines()[-1] + "\n", "got 6 ratings with"),
        (lambda text: text.replace("97", "1::9").replace("88", "1\t8"), r"got 5 ratings with"),
        (
            lambda text: text.rstrip("\n") + "\t1" + "::1\n",
            r"user, movie, rating, time between .*, got: .* line [56]",
        ),
        (lambda text: text.replace("7", "\x85", 1), r"line \d: expected .*, got '.*x85"),
        (lambda text: text + "\n7::1", r"line [67]: expected user, movie, rating, time between"),
        (lambda text: "", r"got 0 ratings"),
    ],
    ids=[
        "malformed",
        "cut",
        "short",
        "long",
        "wide",
        "a wide line",
        "x85",
        "an empty line",
        "empty",
    ],
)
def test_broken_ratings(name, change, says):
    folder = place(name, ratings=change(FILES[name][0]))
    with pytest.raises(DataError, match=says) as caught:
        load_movielens(name)
    assert str(folder / Path(SOURCES[name].ratings).name) in str(caught.value)
    assert f"move {folder} away, then run: python -m mflib.data {name}" in str(caught.value)


def test_broken_movies(name):
    folder = place(name, movies=FILES[name][1].replace("\n20", "\nxx", 1))
    with pytest.raises(DataError, match=r"line [23]: expected movie, title, (year, )?genres between"):
        load_movielens(name)
    file = folder / Path(SOURCES[name].movies).name
    file.write_text("".join(FILES[name][1].splitlines(keepends=True)[:-1]), SOURCES[name].encoding)
    with pytest.raises(DataError, match="expected 4 movies, got 3"):
        load_movielens(name)
    file.unlink()
    with pytest.raises(DataError, match="No such file"):
        load_movielens(name)


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


@pytest.mark.parametrize("change", [lambda c: c[:-20], lambda c: c + b"x", lambda c: b""], ids=["cut", "long", "empty"])
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
    assert (folder / Path(SOURCES[name].ratings).name).read_text() == "mine\n"


def test_no_permission(name, tmp_path, monkeypatch):
    (tmp_path / "data").write_text("a file where the folder should be")
    served(monkeypatch, tmp_path)
    with pytest.raises(DataError, match="set MFLIB_DATA to a folder you may write to"):
        obtain(name)


def test_no_network(name, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("network is unreachable")

    def no_pip(*args, **kwargs):
        raise subprocess.CalledProcessError(1, args, "", "ERROR: No matching distribution found")

    monkeypatch.setattr(mflib.data.pooch, "retrieve", unreachable)
    monkeypatch.setattr(mflib.data.subprocess, "run", no_pip)
    with pytest.raises(DataError, match="Check the network") as caught:
        obtain(name)
    assert SOURCES[name].archive in str(caught.value)
    assert ("unreachable" if "://" in SOURCES[name].archive else "No matching distribution") in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MFLIB_DATA", str(tmp_path))
    place("ml-1m", ratings="mine\n")
    monkeypatch.setattr(sys, "argv", ["mflib.data", "ml-1m"])
    with pytest.raises(SystemExit, match=r"error: .*ratings.dat, line 1: expected user, movie, rating, time"):
        mflib.data.main()
    monkeypatch.setattr(sys, "argv", ["mflib.data", "ml-25m"])
    with pytest.raises(SystemExit):
        mflib.data.main()
    assert "invalid choice: 'ml-25m'" in capsys.readouterr().err
