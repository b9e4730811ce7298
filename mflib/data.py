"""MovieLens: obtain it (``python -m mflib.data [ml-1m|ml-100k]``), verify it, load it."""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import requests
import scipy.sparse as sp


class DataError(RuntimeError):
    """A data set is missing, broken or cannot be obtained; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and what it must contain."""

    archive: str  # a URL, or the requirement of a wheel that carries the data (it is never installed)
    sha256: str  # of the archive
    ratings: str  # the two files inside the archive
    movies: str
    separator: str
    encoding: str
    header: int  # lines
    content: str  # content_hash of the ratings
    n_movies: int


SOURCES = {
    "ml-1m": Source(
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        *("ml-1m/ratings.dat", "ml-1m/movies.dat", "::", "latin-1", 0),
        *("4006295d92ab367f0bc4893d8764771af8ee6d207f5905de2a7c1e10a9ec2ad2", 3883),
    ),
    "ml-100k": Source(
        "recbole==1.2.1",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        "recbole/dataset_example/ml-100k/ml-100k.inter",
        "recbole/dataset_example/ml-100k/ml-100k.item",
        *("\t", "utf-8", 1),
        *("79ad05663c1993f612231b6e0d94bbe019a1d24560058c71c8abadb98c764f0b", 1682),
    ),
}


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Ratings with contiguous ids: users 0 … U-1, items 0 … I-1 (the rated movies).

    ``ratings``: scipy CSR, float32, U x I, 1 … 5 stars; ``movies``: DataFrame with a row per item id and the columns
    title (with the year) and genres; ``user_ids``, ``movie_ids``: int64, the ids in the files by contiguous id.
    """

    name: str
    ratings: sp.csr_matrix
    movies: pd.DataFrame
    user_ids: np.ndarray
    movie_ids: np.ndarray

    def likes(self, threshold: float = 4.0) -> sp.csr_matrix:
        """Implicit feedback: ones (float32, U x I) where the rating is at least ``threshold``."""
        likes = sp.csr_matrix(self.ratings >= threshold, dtype=np.float32)
        likes.sort_indices()
        return likes

    def itemid(self, title: str) -> int:
        """The item id of the movie called ``title``, with or without its year; KeyError if not exactly one is."""
        titles = self.movies["title"]
        found = titles.index[(titles == title) | (titles.str.replace(r" \(\d{4}\)$", "", regex=True) == title)]
        if len(found) != 1:
            near = titles[found if len(found) else titles.str.contains(title, case=False, regex=False)]
            hint = f"perhaps one of {near.tolist()[:5]}" if len(near) else "look it up in the table movies"
            raise KeyError(f"expected the title of one movie, got {title!r}, which {len(found)} have; {hint}")
        return int(found[0])

    def userid(self, original: int) -> int:
        """The contiguous id of the user with the id ``original`` in the data set's files, else KeyError."""
        if original not in self.user_ids:
            raise KeyError(f"expected one of the {len(self.user_ids)} user ids of {self.name}, got {original}")
        return int(np.searchsorted(self.user_ids, original))

    def example_user(self) -> int:
        """The user all notebooks look at: number 4 of MovieLens-1M, who likes action and science fiction;
        elsewhere, of those with 15 to 40 likes, the one with the largest share of these genres."""
        if self.name == "ml-1m":
            return self.userid(4)
        likes, wanted = self.likes(), self.movies["genres"].str.contains("Action|Sci-Fi").to_numpy(np.float32)
        count = np.diff(likes.indptr)
        return int(np.where((count >= 15) & (count <= 40), likes @ wanted / np.maximum(count, 1), -1).argmax())


def data_dir() -> Path:
    """The folder of the data sets: MFLIB_DATA, by default ``data`` beside the package."""
    return Path(os.environ.get("MFLIB_DATA") or Path(__file__).resolve().parents[1] / "data")


def load_movielens(name: str | None = None) -> MovieLens:
    """Load ``name``, else what MFLIB_DATASET names, else ml-1m if it is there, else ml-100k.

    Prints a line that says what was loaded. Raises DataError if the data set is missing or is not what
    GroupLens published, ValueError for an unknown name.
    """
    name = name or os.environ.get("MFLIB_DATASET") or ("ml-1m" if (data_dir() / "ml-1m").is_dir() else "ml-100k")
    data = _read(name, data_dir() / name)
    users, items = data.ratings.shape
    print(f"{_title(name)}: {data.ratings.nnz:,} ratings of {items:,} movies by {users:,} users")
    return data


def obtain(name: str) -> Path:
    """Download, verify and unpack a data set -> its folder; one that is there is verified and left alone.

    All happens in a temporary folder, renamed into place at the end: an interruption leaves nothing that
    looks like data. Raises DataError.
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
                raise DataError(f"{archive.name}: expected sha256 {source.sha256}, got {found}; download it again")
            unpacked = Path(temporary) / name
            unpacked.mkdir()
            with zipfile.ZipFile(archive) as files:
                for member in (source.ratings, source.movies):  # no other, by its bare name: nothing can escape
                    (unpacked / Path(member).name).write_bytes(files.read(member))
            _read(name, unpacked)
            unpacked.rename(folder)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}; set MFLIB_DATA to a folder you may write to") from error
    return folder


def content_hash(triples: np.ndarray) -> str:
    """sha256 of (user, movie, rating) rows (n x 3) as little-endian int32, sorted by user, then movie."""
    rows = triples[np.lexsort((triples[:, 1], triples[:, 0]))]
    return hashlib.sha256(np.ascontiguousarray(rows, "<i4").tobytes()).hexdigest()


def _title(name: str) -> str:
    return f"MovieLens-{name.removeprefix('ml-').upper()}"


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"expected a data set among {sorted(SOURCES)}, got {name!r}")
    return SOURCES[name]


def _download(source: Source, folder: Path) -> Path:
    """Fetch the archive into ``folder`` -> its file."""
    try:
        if "://" in source.archive:
            file = pooch.retrieve(source.archive, f"sha256:{source.sha256}", "archive.zip", folder, progressbar=True)
            return Path(file)
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, source.archive]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return next(folder.glob("*.whl"))
    except (requests.RequestException, ValueError, subprocess.CalledProcessError) as error:
        got = getattr(error, "stderr", None) or error  # what pip says, says more
        raise DataError(
            f"expected to download {source.archive}, got: {str(got).strip()[-500:]}\nCheck the network "
            f"(and that python -m pip works), or place the data set in {data_dir()} by hand: data/README.md says how"
        ) from error


def _read(name: str, folder: Path) -> MovieLens:
    """Parse and verify the two files in ``folder``; a DataError says what is wrong with which line."""
    source = _source(name)
    if not folder.exists():
        raise DataError(f"expected {_title(name)} in {folder}, got nothing there; run: python -m mflib.data {name}")
    ratings_file, movies_file = (folder / Path(member).name for member in (source.ratings, source.movies))
    remedy = f"move {folder} away, then run: python -m mflib.data {name}"
    try:
        triples, found = _read_ratings(ratings_file, source)
        if found != source.content:
            n = len(list(_records(ratings_file, source, 4)))  # raises if a line is malformed
            raise ValueError(f"{ratings_file}: expected content hash {source.content}, got {n:,} ratings with {found}")
        movies = pd.DataFrame(map(_movie, _records(movies_file, source, 1)), columns=["id", "title", "genres"])
        user_ids, users = np.unique(triples[:, 0], return_inverse=True)
        movie_ids, items = np.unique(triples[:, 1], return_inverse=True)
        if len(movies) != source.n_movies or not np.isin(movie_ids, movies["id"]).all():
            raise ValueError(f"{movies_file}: expected {source.n_movies} movies, got {len(movies)}")
    except (OSError, ValueError) as error:
        raise DataError(f"{error}; {remedy}") from error
    ratings = sp.csr_matrix((triples[:, 2].astype(np.float32), (users, items)))
    ratings.sort_indices()
    movies = movies.set_index("id").loc[movie_ids].reset_index(drop=True)
    return MovieLens(name, ratings, movies, user_ids, movie_ids)


def _read_ratings(file: Path, source: Source) -> tuple[np.ndarray, str]:
    """The (user, movie, rating) triples, int64, n x 3, and their content hash or why there is none."""
    # "::" read as ":" leaves an empty column between two others and is forty times faster.
    columns = [0, 1, 2] if len(source.separator) == 1 else [0, 2, 4]
    layout = {"sep": source.separator[0], "usecols": columns, "header": None, "skiprows": source.header}
    try:
        triples = pd.read_csv(file, dtype=np.int64, encoding=source.encoding, **layout).to_numpy()
    except ValueError as error:
        return np.empty((0, 3), np.int64), f"none: {error}"
    return triples, content_hash(triples)


def _records(file: Path, source: Source, numbers: int) -> Iterator[list[str]]:
    """The fields of each line, of which the first ``numbers`` must be numbers."""
    lines = file.read_text(source.encoding).rstrip("\n").split("\n")
    for number, line in enumerate(lines[source.header :], source.header + 1):
        fields = line.split(source.separator)
        if len(fields) < 3 or len(fields) < numbers or not all(map(str.isdigit, fields[:numbers])):
            kind = "user, movie, rating, time" if numbers == 4 else "movie, title, genres"
            raise ValueError(f"{file}, line {number}: expected {kind} between {source.separator!r}, got {line!r}")
        yield fields


def _movie(record: list[str]) -> tuple[int, str, str]:
    """(id, title with year, genres) of a line of either data set; the smaller has a column for the year."""
    movie, title, *year, genres = record
    return int(movie), f"{title} ({year[0]})" if year and year[0].isdigit() else title, genres.replace(" ", "|")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mflib.data", description="Obtain a MovieLens data set.")
    parser.add_argument("name", nargs="?", default="ml-100k", choices=sorted(SOURCES))
    name = parser.parse_args().name
    try:
        print(f"{_title(name)} is in {obtain(name)}")
    except DataError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
