"""Download (``python -m mflib.data [ml-1m|ml-100k]``), verify and load MovieLens."""

import argparse
import csv
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import requests
import scipy.sparse as sp

LIKED = 4  # the lowest rating that is a like


class DataError(RuntimeError):
    """A data set is missing, damaged or not available; the message tells the user what to do."""


@dataclass(frozen=True)
class Source:
    """The origin, file format and checksums of a data set."""

    title: str
    archive: str  # a URL, or the requirement of a wheel that contains the data
    archive_sha256: str
    ratings: str  # path in the archive
    movies: str
    separator: str
    encoding: str
    header: int  # number of lines
    text_columns: tuple[str, ...]  # of the movies, after the id
    ratings_sha256: str  # of the content, see content_hash
    movies_sha256: str

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Return the paths of the ratings and the movies in the folder of the data set."""
        return folder / Path(self.ratings).name, folder / Path(self.movies).name


SOURCES = {
    "ml-1m": Source(
        title="MovieLens-1M",
        archive="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        archive_sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ratings="ml-1m/ratings.dat",
        movies="ml-1m/movies.dat",
        separator="::",
        encoding="latin-1",
        header=0,
        text_columns=("title", "genres"),
        ratings_sha256="ce27e4394320768ba433cfc82ba84ec009667a85fd22075b898a2174a99bf52b",
        movies_sha256="a43f9fd89badccd128af690866a83c439ca75d35ff74f43eaafcbe44205d6bce",
    ),
    "ml-100k": Source(
        title="MovieLens-100K",
        archive="recbole==1.2.1",
        archive_sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        ratings="recbole/dataset_example/ml-100k/ml-100k.inter",
        movies="recbole/dataset_example/ml-100k/ml-100k.item",
        separator="\t",
        encoding="utf-8",
        header=1,
        text_columns=("title", "year", "genres"),
        ratings_sha256="e218dc0fcde2f8836cd8def18e71fd1095f9c626992cf48e115f2ec39326b44a",
        movies_sha256="dee2f1c928304ef88a6c131ce954de630a768337550e454003cd901ae3ce84b3",
    ),
}

ORIGINAL_100K = ("u.data", "u.item")  # GroupLens' own files of MovieLens-100K
GENRES_100K = (  # the columns of u.item after the first five
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Ratings of U users and the I movies that they rated, with contiguous ids.

    Attributes
    ----------
    name : str
        "ml-1m" or "ml-100k".
    ratings : csr_matrix, float32, shape (U, I)
        1 to 5 stars.
    movies : DataFrame
        The title (with the year) and the genres of each item, indexed by item id.
    user_ids, movie_ids : ndarray, int64, shape (U,) and (I,)
        The ids in the original files, ascending.
    times : csr_matrix, int64, shape (U, I)
        The times of the ratings of 4 and 5 stars, in seconds since 1970.
    """

    name: str
    ratings: sp.csr_matrix
    movies: pd.DataFrame
    user_ids: np.ndarray
    movie_ids: np.ndarray
    times: sp.csr_matrix

    def likes(self, threshold: float = LIKED) -> sp.csr_matrix:
        """Return the ratings of at least ``threshold`` as implicit feedback.

        Returns
        -------
        csr_matrix, float32, shape (U, I)
            1 for each like; nothing else is stored.
        """
        likes = self.ratings.copy()
        # Compare stored ratings only: with a threshold <= 0, `ratings >= threshold` is dense.
        likes.data = (likes.data >= threshold).astype(np.float32)
        likes.eliminate_zeros()
        return likes

    def itemid(self, title: str) -> int:
        """Return the item id of the movie with this title, with or without the year.

        Raises
        ------
        KeyError
            No movie has this title, or several movies have it.
        """
        titles = self.movies["title"]
        without_year = titles.str.replace(r" \(\d{4}\)$", "", regex=True)
        matches = titles[(titles == title) | (without_year == title)]
        if len(matches) == 1:
            return int(matches.index[0])
        similar = titles[titles.str.contains(title, case=False, regex=False)]
        if len(matches):
            hint = f"add the year or use an id: {matches.to_dict()}"
        elif len(similar):
            hint = f"did you mean one of {similar.tolist()[:5]}?"
        else:
            hint = "look it up in the table movies"
        got = f"{title!r}, the title of {len(matches)} movies"
        raise KeyError(f"expected the title of exactly one movie, got {got}; {hint}")

    def userid(self, original: int) -> int:
        """Return the contiguous id of a user id of the original files; KeyError if unknown."""
        if original not in self.user_ids:
            expected = f"one of the {len(self.user_ids)} user ids of {self.name}"
            raise KeyError(f"expected {expected}, got {original}; look it up in user_ids")
        return int(np.searchsorted(self.user_ids, original))

    def example_user(self) -> int:
        """Return the id of the user shown in all notebooks, a fan of action and science fiction.

        In MovieLens-1M this is user 4 of the original files. In other data sets it is the user with
        the largest share of these genres among those with 15 to 40 likes.
        """
        if self.name == "ml-1m":
            return self.userid(4)
        likes = self.likes()
        is_favourite = self.movies["genres"].str.contains("Action|Sci-Fi").to_numpy(np.float32)
        count = np.diff(likes.indptr)
        share = likes @ is_favourite / np.maximum(count, 1)
        return int(np.where((count >= 15) & (count <= 40), share, -1).argmax())


def data_dir() -> Path:
    """Return the folder of the data sets: MFLIB_DATA, or ``data`` next to the package."""
    default = Path(__file__).resolve().parents[1] / "data"
    return Path(os.environ.get("MFLIB_DATA") or default).expanduser().absolute()


def load_movielens(name: str | None = None) -> MovieLens:
    """Load a data set from ``data_dir()`` and print its size.

    Parameters
    ----------
    name : {"ml-1m", "ml-100k"}, optional
        By default the data set named by MFLIB_DATASET; without it MovieLens-1M if its folder
        exists, otherwise MovieLens-100K.

    Raises
    ------
    DataError
        The data set is missing or differs from the published one.
    ValueError
        The name is unknown.
    """
    default = "ml-1m" if (data_dir() / "ml-1m").is_dir() else "ml-100k"
    name = name or os.environ.get("MFLIB_DATASET") or default
    data = _read(name, data_dir() / name)
    users, items = data.ratings.shape
    size = f"{data.ratings.nnz:,} ratings of {items:,} movies by {users:,} users"
    print(f"{SOURCES[name].title}: {size}")
    return data


def obtain(name: str) -> Path:
    """Download, verify and unpack a data set; if its folder exists, only verify it.

    The work is done in a temporary folder that is renamed at the end. An interruption leaves
    nothing behind, and processes may obtain the same data set at the same time.

    Returns
    -------
    Path
        The folder of the data set.

    Raises
    ------
    DataError
        The data set cannot be downloaded, written or verified.
    """
    source, folder = _source(name), data_dir() / name
    if folder.exists():
        _read(name, folder)
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as temporary:
            archive = _download(source, Path(temporary))
            sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
            if sha256 != source.archive_sha256:
                got = f"expected sha256 {source.archive_sha256}, got {sha256}"
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
        hint = "set MFLIB_DATA to a writable folder"
        raise DataError(f"cannot write {folder}: {error}; {hint}") from error
    return folder


def content_hash(table: pd.DataFrame) -> str:
    """Return a sha256 of columns of integers, then of text, that ignores the order of the rows.

    The rows are sorted by their integers. The integers are hashed as little-endian int32, row by
    row, followed by the texts, row by row, as UTF-8 separated by tabs.
    """
    numbers = table.select_dtypes("number").to_numpy()
    texts = table.select_dtypes(exclude="number").to_numpy()
    order = np.lexsort(numbers.T[::-1])
    digest = hashlib.sha256(numbers[order].astype("<i4").tobytes())
    digest.update("\t".join(texts[order].ravel()).encode())
    return digest.hexdigest()


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"expected a data set among {sorted(SOURCES)}, got {name!r}")
    return SOURCES[name]


def _download(source: Source, folder: Path) -> Path:
    """Download the archive into ``folder`` and return its path."""
    try:
        if "://" in source.archive:
            known_hash = f"sha256:{source.archive_sha256}"
            return Path(pooch.retrieve(source.archive, known_hash, "zip", folder, progressbar=True))
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, source.archive]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return next(folder.glob("*.whl"))
    except (requests.RequestException, ValueError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error  # pip explains its failure in stderr
        raise DataError(
            f"expected to download {source.archive}, got: {str(reason).strip()[-500:]}\n"
            f"Check the network (and that python -m pip works), or place the data set in "
            f"{data_dir()} by hand as described in data/README.md"
        ) from error


def _read(name: str, folder: Path) -> MovieLens:
    """Parse and verify the two files in ``folder``."""
    source = _source(name)
    if not folder.exists():
        raise DataError(f"expected {source.title} in {folder}, but {_advice(name, folder)}")
    try:
        ratings, movies = _read_tables(source, folder)
    except (OSError, ValueError) as error:
        raise DataError(f"{error}; {_advice(name, folder)}") from error
    user_ids, users = np.unique(ratings["user"], return_inverse=True)
    movie_ids, items = np.unique(ratings["movie"], return_inverse=True)
    stars = sp.csr_matrix((ratings["rating"].to_numpy(np.float32), (users, items)))
    times = sp.csr_matrix((ratings["time"].to_numpy(), (users, items)))
    times.eliminate_zeros()
    movies = movies.set_index("movie").loc[movie_ids].reset_index(drop=True)
    if "year" in movies:
        year = movies.pop("year")
        movies["title"] += (" (" + year + ")").where(year.str.isdigit(), "")
    movies["genres"] = movies["genres"].str.replace(" ", "|")
    return MovieLens(name, stars, movies, user_ids, movie_ids, times)


def _read_tables(source: Source, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the ratings and the movies in ``folder``; ValueError unless they are the published.

    GroupLens' own files of MovieLens-100K are converted to the form of the others.
    """
    ratings_file, movies_file = source.files(folder)
    ratings_source = movies_source = source
    convert: Callable[[str], str] = str  # no change
    original = [folder / name for name in ORIGINAL_100K]
    if source is SOURCES["ml-100k"] and not ratings_file.exists() and original[0].exists():
        ratings_file, movies_file = original
        ratings_source = replace(source, header=0)
        movies_source = replace(source, header=0, encoding="latin-1")
        convert = _as_recbole
    columns = ["user", "movie", "rating", "time"]
    ratings = _read_table(ratings_file, ratings_source, columns)
    ratings.loc[ratings["rating"] < LIKED, "time"] = 0  # only the times of likes are verified
    _verify(ratings_file, ratings_source, ratings, source.ratings_sha256)
    movies = _read_table(movies_file, movies_source, ["movie"], source.text_columns, convert)
    _verify(movies_file, movies_source, movies, source.movies_sha256)
    return ratings, movies


def _as_recbole(text: str) -> str:
    """Convert u.item to the columns of ml-100k.item: id, title, year, genres.

    ValueError names the first line that is not one of u.item.
    """
    lines = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        movie, title, *_, flags = line.split("|", 5) if line.count("|") == 23 else ("",) * 6
        if not movie:
            columns = f"expected {5 + len(GENRES_100K)} columns separated by '|'"
            raise ValueError(f"u.item, line {number}: {columns}, got {line!r:.200}")
        match = re.fullmatch(r"(.*) \((.*)\)\s*", title)
        name, year = match.groups() if match else ("unkonwn", "unkonwn")  # spelt like this there
        chosen = [g for g, flag in zip(GENRES_100K, flags.split("|"), strict=True) if flag == "1"]
        lines.append("\t".join((movie, name, year, " ".join(chosen))))
    return "\n".join(lines) + "\n"


def _advice(name: str, folder: Path) -> str:
    """Return advice for a data set that is missing or differs from the published one."""
    run = f"run: python -m mflib.data {name}"
    given = Path(os.environ.get("MFLIB_DATA") or "/").expanduser()
    if not folder.exists():
        relative = f"MFLIB_DATA={given} is relative to {Path.cwd()}; use an absolute path, or "
        return f"it does not exist; {'' if given.is_absolute() else relative}{run}"
    wanted = SOURCES[name].files(folder)
    for file in sorted(folder.rglob("*")):
        if file.name in (wanted[0].name, ORIGINAL_100K[0]) and file.parent != folder:
            return f"the data are in {file.parent}: move its files to {folder}"
    archives = sorted(file.name for file in folder.glob("*.zip"))
    if archives and not wanted[0].exists():
        return f"unpack {archives[0]} there, so that {wanted[0]} exists"
    return f"move {folder} away, then {run}"


def _read_table(
    file: Path,
    source: Source,
    numbers: list[str],
    texts: tuple[str, ...] = (),
    convert: Callable[[str], str] = str,
) -> pd.DataFrame:
    """Return columns of int64, then of text; raise ValueError with the first malformed line.

    ``convert``: how to bring the text of the file into the form of ``source``.
    """
    try:
        text = convert(file.read_text(source.encoding))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected text in {source.encoding}, got: {error}") from error
    names = [*numbers, *texts]
    expected = f"expected {', '.join(names)} separated by {source.separator!r}, got"
    try:
        table = pd.read_csv(
            io.StringIO(text.replace(source.separator, "\t")),
            sep="\t",
            names=names,
            skiprows=source.header,
            dtype=dict.fromkeys(texts, str),
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            skip_blank_lines=False,
        )
    except pd.errors.ParserError as error:  # a line with too many columns
        raise ValueError(f"{file}: {expected}: {error}") from error
    values = table[numbers].apply(pd.to_numeric, errors="coerce")
    table[numbers] = values.where((values % 1 == 0) & (values.abs() < 2**31))  # hashed as int32
    malformed = (table.isna() | table.eq("")).any(axis=1)
    if malformed.any():
        line, lines = source.header + int(malformed.argmax()), text.split("\n")
        raise ValueError(f"{file}, line {line + 1}: {expected} {lines[line]!r}")
    return table.astype(dict.fromkeys(numbers, np.int64))


def _verify(file: Path, source: Source, table: pd.DataFrame, expected: str) -> None:
    """Raise ValueError unless ``content_hash(table)`` is as expected."""
    if (sha256 := content_hash(table)) != expected:
        got = f"{len(table):,} rows with {sha256}"
        hint = f"its content or its encoding ({source.encoding}) was changed"
        raise ValueError(f"{file}: expected content hash {expected}, got {got}; {hint}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mflib.data", description="Download and verify a MovieLens data set."
    )
    parser.add_argument("name", nargs="?", default="ml-100k", choices=sorted(SOURCES))
    name = parser.parse_args().name
    try:
        print(f"{SOURCES[name].title} is in {obtain(name)}")
    except DataError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
