"""MovieLens: obtain it (``python -m mflib.data [ml-1m|ml-100k]``), verify it, load it."""

import argparse
import csv
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import requests
import scipy.sparse as sp

LIKED = 4  # stars that are a like; only of such ratings are the times verified


class DataError(RuntimeError):
    """A data set is missing, broken or cannot be obtained; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, what its two files look like and what they must contain."""

    title: str
    archive: str  # a URL, or the requirement of a wheel that carries the data: never installed
    sha256: str  # of the archive
    ratings: str  # the file in the archive
    movies: str
    separator: str
    encoding: str
    header: int  # lines
    texts: tuple[str, ...]  # columns of the movies, after the id
    ratings_hash: str
    times_hash: str
    movies_hash: str


SOURCES = {
    "ml-1m": Source(
        title="MovieLens-1M",
        archive="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ratings="ml-1m/ratings.dat",
        movies="ml-1m/movies.dat",
        separator="::",
        encoding="latin-1",
        header=0,
        texts=("title", "genres"),
        ratings_hash="4006295d92ab367f0bc4893d8764771af8ee6d207f5905de2a7c1e10a9ec2ad2",
        times_hash="f586045a015ff1f7b23284716987ed3c75b5713d1f1366c85779b84afa4cf74d",
        movies_hash="27736172f994cb702f6aac86245c31adae56d23a988ce3f58c0ab637cb5d52c8",
    ),
    "ml-100k": Source(
        title="MovieLens-100K",
        archive="recbole==1.2.1",
        sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        ratings="recbole/dataset_example/ml-100k/ml-100k.inter",
        movies="recbole/dataset_example/ml-100k/ml-100k.item",
        separator="\t",
        encoding="utf-8",
        header=1,
        texts=("title", "year", "genres"),
        ratings_hash="79ad05663c1993f612231b6e0d94bbe019a1d24560058c71c8abadb98c764f0b",
        times_hash="bf78a902fbca7845ce2b57f49c3ae60cd465dc65630568fa3f4117c0ee66b61c",
        movies_hash="238dd59c1f0022c1661f8d5351d912a6d5435dd7a0b9297d668f112301355fe4",
    ),
}


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Ratings with contiguous ids: users 0 … U-1, items 0 … I-1 (the rated movies)."""

    name: str
    ratings: sp.csr_matrix  # U x I, float32, 1 … 5 stars
    movies: pd.DataFrame  # a row per item id: title (with the year), genres
    user_ids: np.ndarray  # int64, the ids in the files
    movie_ids: np.ndarray
    times: sp.csr_matrix  # U x I, int64, seconds since 1970, of the ratings of 4 stars and more

    def likes(self, threshold: float = LIKED) -> sp.csr_matrix:
        """Implicit feedback: the known ratings of at least ``threshold``.

        Returns a CSR matrix of ones, float32, U x I.
        """
        likes = self.ratings.copy()  # a comparison of the whole matrix would like unknown cells
        likes.data = (likes.data >= threshold).astype(np.float32)
        likes.eliminate_zeros()
        return likes

    def itemid(self, title: str) -> int:
        """The item id of the movie called ``title``, with or without its year.

        KeyError if not exactly one movie is called so.
        """
        titles = self.movies["title"]
        without_year = titles.str.replace(r" \(\d{4}\)$", "", regex=True)
        found = titles.index[(titles == title) | (without_year == title)]
        if len(found) == 1:
            return int(found[0])
        near = (
            titles[found]
            if len(found)
            else titles[titles.str.contains(title, case=False, regex=False)]
        )
        hint = (
            f"perhaps one of {near.tolist()[:5]}" if len(near) else "look it up in the table movies"
        )
        got = f"{title!r}, which {len(found)} have"
        raise KeyError(f"expected the title of one movie, got {got}; {hint}")

    def userid(self, original: int) -> int:
        """The contiguous id of the user ``original`` of the data set's files; KeyError if none."""
        if original not in self.user_ids:
            expected = f"one of the {len(self.user_ids)} user ids of {self.name}"
            raise KeyError(f"expected {expected}, got {original}")
        return int(np.searchsorted(self.user_ids, original))

    def example_user(self) -> int:
        """The user all notebooks look at: number 4 of MovieLens-1M, who likes action and sci-fi.

        Elsewhere, of those with 15 to 40 likes, the one with the largest share of these genres.
        """
        if self.name == "ml-1m":
            return self.userid(4)
        likes = self.likes()
        wanted = self.movies["genres"].str.contains("Action|Sci-Fi").to_numpy(np.float32)
        count = np.diff(likes.indptr)
        share = likes @ wanted / np.maximum(count, 1)
        return int(np.where((count >= 15) & (count <= 40), share, -1).argmax())


def data_dir() -> Path:
    """The folder of the data sets: MFLIB_DATA, by default ``data`` beside the package."""
    return Path(os.environ.get("MFLIB_DATA") or Path(__file__).resolve().parents[1] / "data")


def load_movielens(name: str | None = None) -> MovieLens:
    """Load a data set, and say so in a line.

    Parameters
    ----------
    name
        "ml-1m" or "ml-100k". Without it, what MFLIB_DATASET names, else MovieLens-1M if it is
        there, else MovieLens-100K.

    Raises
    ------
    DataError
        The data set is missing, or is not what GroupLens published.
    ValueError
        There is no data set of this name.
    """
    default = "ml-1m" if (data_dir() / "ml-1m").is_dir() else "ml-100k"
    name = name or os.environ.get("MFLIB_DATASET") or default
    data = _read(name, data_dir() / name)
    users, items = data.ratings.shape
    what = f"{data.ratings.nnz:,} ratings of {items:,} movies by {users:,} users"
    print(f"{SOURCES[name].title}: {what}")
    return data


def obtain(name: str) -> Path:
    """Download, verify and unpack a data set; one that is there is verified and left alone.

    All happens in a temporary folder, renamed at the end: an interruption leaves nothing behind,
    and of two processes that obtain at once each ends with the whole data set.

    Returns
    -------
    Its folder.

    Raises
    ------
    DataError
        It cannot be had, written or verified; the message says what to do.
    """
    source, folder = _source(name), data_dir() / name
    if folder.exists():
        _read(name, folder)
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as temporary:
            archive = _download(source, Path(temporary))
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
            if found != source.sha256:
                got = f"expected sha256 {source.sha256}, got {found}"
                raise DataError(f"{archive.name}: {got}; download it again")
            with zipfile.ZipFile(archive) as files:
                files.extractall(temporary, [source.ratings, source.movies])
            unpacked = (Path(temporary) / source.ratings).parent
            _read(name, unpacked)
            try:
                unpacked.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                _read(name, folder)  # another process was faster
    except OSError as error:
        hint = "set MFLIB_DATA to a folder you may write to"
        raise DataError(f"cannot write {folder}: {error}; {hint}") from error
    return folder


def triples_hash(triples: np.ndarray) -> str:
    """The sha256 of (user, movie, rating) or (user, movie, time) rows, n x 3, in any order.

    It is taken of little-endian int32, sorted by user, then movie.
    """
    rows = triples[np.lexsort((triples[:, 1], triples[:, 0]))]
    return hashlib.sha256(np.ascontiguousarray(rows, "<i4").tobytes()).hexdigest()


def movies_hash(movies: pd.DataFrame) -> str:
    """The sha256 of a table of movies by id, with its columns of text, whatever their order.

    It is taken of a line for each movie, id and texts between tabs, as UTF-8, sorted by id.
    """
    rows = sorted(movies.itertuples(name=None))
    lines = ("\t".join(map(str, row)) + "\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"expected a data set among {sorted(SOURCES)}, got {name!r}")
    return SOURCES[name]


def _download(source: Source, folder: Path) -> Path:
    """Fetch the archive into ``folder`` -> its file."""
    try:
        if "://" in source.archive:
            known = f"sha256:{source.sha256}"
            file = pooch.retrieve(source.archive, known, "zip", folder, progressbar=True)
            return Path(file)
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, source.archive]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return next(folder.glob("*.whl"))
    except (requests.RequestException, ValueError, subprocess.CalledProcessError) as error:
        got = getattr(error, "stderr", None) or error  # what pip says, says more
        raise DataError(
            f"expected to download {source.archive}, got: {str(got).strip()[-500:]}\n"
            f"Check the network (and that python -m pip works), or place the data set in "
            f"{data_dir()} by hand: data/README.md says how"
        ) from error


def _read(name: str, folder: Path) -> MovieLens:
    """Parse and verify the two files in ``folder``; a DataError says what is wrong with which."""
    source, remedy = _source(name), f"run: python -m mflib.data {name}"
    if not folder.exists():
        raise DataError(f"expected {source.title} in {folder}, got nothing there; {remedy}")
    try:
        table = _read_ratings(folder / Path(source.ratings).name, source)
        movies = _read_movies(folder / Path(source.movies).name, source)
    except (OSError, ValueError) as error:
        raise DataError(f"{error}; move {folder} away, then {remedy}") from error
    user_ids, users = np.unique(table["user"], return_inverse=True)
    movie_ids, items = np.unique(table["movie"], return_inverse=True)
    stars, liked = table["rating"].to_numpy(np.float32), (table["rating"] >= LIKED).to_numpy()
    ratings = sp.csr_matrix((stars, (users, items)))
    when = (table["time"].to_numpy()[liked], (users[liked], items[liked]))
    times = sp.csr_matrix(when, ratings.shape)
    movies = movies.loc[movie_ids].reset_index(drop=True)
    if "year" in movies:
        year = movies.pop("year")
        movies["title"] += (" (" + year + ")").where(year.str.isdigit(), "")
    movies["genres"] = movies["genres"].str.replace(" ", "|")
    return MovieLens(name, ratings, movies, user_ids, movie_ids, times)


def _read_ratings(file: Path, source: Source) -> pd.DataFrame:
    """The ratings: user, movie, rating, time; verified, but for the times of those below 4."""
    table = _table(file, source, ["user", "movie", "rating", "time"])
    if (found := triples_hash(table.to_numpy()[:, :3])) != source.ratings_hash:
        got = f"{len(table):,} ratings with {found}"
        raise ValueError(f"{file}: expected content hash {source.ratings_hash}, got {got}")
    liked = table.loc[table["rating"] >= LIKED, ["user", "movie", "time"]]
    if (found := triples_hash(liked.to_numpy())) != source.times_hash:
        expected = f"times of ratings of {LIKED} and more with hash {source.times_hash}"
        raise ValueError(f"{file}: expected {expected}, got {found}")
    return table


def _read_movies(file: Path, source: Source) -> pd.DataFrame:
    """The verified movies: an index of ids and the columns of text."""
    movies = _table(file, source, ["movie"], source.texts).set_index("movie")
    if (found := movies_hash(movies)) != source.movies_hash:
        got = f"{len(movies):,} movies with {found}"
        hint = f"was it saved in another encoding than {source.encoding}?"
        raise ValueError(f"{file}: expected content hash {source.movies_hash}, got {got}; {hint}")
    return movies


def _table(
    file: Path, source: Source, numbers: list[str], texts: tuple[str, ...] = ()
) -> pd.DataFrame:
    """The columns of a file: integers, then texts. A ValueError says where they are not."""
    try:
        text = file.read_text(source.encoding).replace(source.separator, "\t")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected text in {source.encoding}, got: {error}") from error
    names = [*numbers, *texts]
    expected = f"expected {', '.join(names)} between {source.separator!r}, got"
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep="\t",
            names=names,
            skiprows=source.header,
            dtype=dict.fromkeys(texts, str),
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            skip_blank_lines=False,
        )
    except pd.errors.ParserError as error:  # a line with more columns
        raise ValueError(f"{file}: {expected}: {error}") from error
    values = table[numbers].apply(pd.to_numeric, errors="coerce")
    table[numbers] = values.where((values % 1 == 0) & (values.abs() < 2**31))  # int32, as hashed
    wrong = (table.isna() | table.eq("")).any(axis=1)
    if wrong.any():
        line, lines = source.header + int(wrong.argmax()), text.split("\n")
        raise ValueError(f"{file}, line {line + 1}: {expected} {lines[line]!r}")
    return table.astype(dict.fromkeys(numbers, np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mflib.data", description="Obtain a MovieLens data set."
    )
    parser.add_argument("name", nargs="?", default="ml-100k", choices=sorted(SOURCES))
    name = parser.parse_args().name
    try:
        print(f"{SOURCES[name].title} is in {obtain(name)}")
    except DataError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
