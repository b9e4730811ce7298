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
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import requests
import scipy.sparse as sp


class DataError(RuntimeError):
    """A data set is missing, broken or cannot be obtained; the message says what to do."""


# archive: a URL, or the requirement of a wheel that carries the data (it is never installed); sha256: of the archive;
# ratings, movies: the files in it; header: lines; texts: columns of the movies; content: content_hash of the ratings
Source = namedtuple("Source", "title archive sha256 ratings movies separator encoding header texts content n_movies")
SOURCES = {
    "ml-1m": Source(
        "MovieLens-1M", "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        "ml-1m/ratings.dat", "ml-1m/movies.dat", "::", "latin-1", 0, ("title", "genres"),
        "4006295d92ab367f0bc4893d8764771af8ee6d207f5905de2a7c1e10a9ec2ad2", 3883,
    ),
    "ml-100k": Source(
        "MovieLens-100K", "recbole==1.2.1",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        "recbole/dataset_example/ml-100k/ml-100k.inter", "recbole/dataset_example/ml-100k/ml-100k.item",
        "\t", "utf-8", 1, ("title", "year", "genres"),
        "79ad05663c1993f612231b6e0d94bbe019a1d24560058c71c8abadb98c764f0b", 1682,
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Ratings with contiguous ids: users 0 … U-1, items 0 … I-1 (the rated movies)."""

    name: str
    ratings: sp.csr_matrix  # U x I, float32, 1 … 5 stars
    movies: pd.DataFrame  # a row per item id: title (with the year), genres
    user_ids: np.ndarray  # int64, the ids in the files
    movie_ids: np.ndarray

    def likes(self, threshold: float = 4.0) -> sp.csr_matrix:
        """Implicit feedback: ones (float32, U x I) where the rating is at least ``threshold``."""
        return sp.csr_matrix(self.ratings >= threshold, dtype=np.float32)

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
    """Load ``name``, else what MFLIB_DATASET names, else ml-1m if it is there, else ml-100k; says so in a line.

    DataError: the data set is missing or is not what GroupLens published; ValueError: an unknown name.
    """
    name = name or os.environ.get("MFLIB_DATASET") or ("ml-1m" if (data_dir() / "ml-1m").is_dir() else "ml-100k")
    data = _read(name, data_dir() / name)
    users, items = data.ratings.shape
    print(f"{SOURCES[name].title}: {data.ratings.nnz:,} ratings of {items:,} movies by {users:,} users")
    return data


def obtain(name: str) -> Path:
    """Download, verify and unpack a data set -> its folder; one that is there is verified and left alone.

    All happens in a temporary folder, renamed at the end: an interruption leaves nothing behind. Raises DataError.
    """
    source, folder = _source(name), data_dir() / name
    if folder.exists():
        _read(name, folder)
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as temporary:
            archive = _download(source, Path(temporary))
            if (found := hashlib.sha256(archive.read_bytes()).hexdigest()) != source.sha256:
                raise DataError(f"{archive.name}: expected sha256 {source.sha256}, got {found}; download it again")
            with zipfile.ZipFile(archive) as files:
                files.extractall(temporary, [source.ratings, source.movies])
            unpacked = (Path(temporary) / source.ratings).parent
            _read(name, unpacked)
            unpacked.rename(folder)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}; set MFLIB_DATA to a folder you may write to") from error
    return folder


def content_hash(triples: np.ndarray) -> str:
    """sha256 of (user, movie, rating) rows (n x 3) as little-endian int32, sorted by user, then movie."""
    rows = triples[np.lexsort((triples[:, 1], triples[:, 0]))]
    return hashlib.sha256(np.ascontiguousarray(rows, "<i4").tobytes()).hexdigest()


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"expected a data set among {sorted(SOURCES)}, got {name!r}")
    return SOURCES[name]


def _download(source: Source, folder: Path) -> Path:
    """Fetch the archive into ``folder`` -> its file."""
    try:
        if "://" in source.archive:
            return Path(pooch.retrieve(source.archive, f"sha256:{source.sha256}", "zip", folder, progressbar=True))
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
    source, remedy = _source(name), f"run: python -m mflib.data {name}"
    if not folder.exists():
        raise DataError(f"expected {source.title} in {folder}, got nothing there; {remedy}")
    ratings_file, movies_file = (folder / Path(member).name for member in (source.ratings, source.movies))
    try:
        triples = _table(ratings_file, source, ["user", "movie", "rating", "time"]).to_numpy()[:, :3]
        if (found := content_hash(triples)) != source.content:
            got = f"{len(triples):,} ratings with {found}"
            raise ValueError(f"{ratings_file}: expected content hash {source.content}, got {got}")
        movies = _table(movies_file, source, ["movie"], source.texts).set_index("movie")
        user_ids, users = np.unique(triples[:, 0], return_inverse=True)
        movie_ids, items = np.unique(triples[:, 1], return_inverse=True)
        if len(movies) != source.n_movies or not np.isin(movie_ids, movies.index).all():
            raise ValueError(f"{movies_file}: expected {source.n_movies} movies, got {len(movies)}")
    except (OSError, ValueError) as error:
        raise DataError(f"{error}; move {folder} away, then {remedy}") from error
    ratings = sp.csr_matrix((triples[:, 2].astype(np.float32), (users, items)))
    movies = movies.loc[movie_ids].reset_index(drop=True)
    if "year" in movies:
        movies["title"] += (" (" + movies["year"] + ")").where(movies.pop("year").str.isdigit(), "")
    movies["genres"] = movies["genres"].str.replace(" ", "|")
    return MovieLens(name, ratings, movies, user_ids, movie_ids)


def _table(file: Path, source: Source, numbers: list[str], texts: tuple[str, ...] = ()) -> pd.DataFrame:
    """The columns of a file: integers, then texts. A ValueError says where they are not."""
    text, names = file.read_text(source.encoding).replace(source.separator, "\t"), [*numbers, *texts]
    expected = f"expected {', '.join(names)} between {source.separator!r}, got"
    layout = {"sep": "\t", "names": names, "skiprows": source.header, "dtype": dict.fromkeys(texts, str)}
    layout |= {"quoting": csv.QUOTE_NONE, "keep_default_na": False, "skip_blank_lines": False}
    try:
        table = pd.read_csv(io.StringIO(text), **layout)
    except pd.errors.ParserError as error:  # a line with more columns
        raise ValueError(f"{file}: {expected}: {error}") from error
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    wrong = (table.isna() | table.eq("")).any(axis=1)
    if wrong.any():
        line, lines = source.header + wrong.argmax(), text.split("\n")
        raise ValueError(f"{file}, line {line + 1}: {expected} {lines[line]!r}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mflib.data", description="Obtain a MovieLens data set.")
    parser.add_argument("name", nargs="?", default="ml-100k", choices=sorted(SOURCES))
    name = parser.parse_args().name
    try:
        print(f"{SOURCES[name].title} is in {obtain(name)}")
    except DataError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
