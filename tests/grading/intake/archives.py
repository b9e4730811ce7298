"""Read the files in an archive without ever writing to a path that the archive names."""

import io
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from grading.intake.names import LITTER, common_folders, owner_of, parts_of

ARCHIVE_BYTES = 2 * 2**30  # extracted from one archive
STUDENT_BYTES = 2**28  # extracted from all archives of a student
STUDENT_FILES = 20_000
CLASS_FILES = 20 * STUDENT_FILES  # in an archive of many students
NAME = 500  # characters, folders included
AS_MANY = -1  # a level: the folders that contain all files


class LeftOut(StrEnum):
    """Why a file is left out."""

    NOT_PLAIN = "is a link or no regular file; submit the file itself"
    TOO_MANY = f"and all later files are not read: expected at most {STUDENT_FILES} files"


class Member(NamedTuple):
    """A file in an archive: its content, the place of its content, or why there is none.

    Unwanted files and folders have none of the three. The name of a folder ends in "/".
    """

    name: str
    content: bytes | Path | None = None
    problem: str = ""
    date: float | None = None  # None if the archive has no date
    left_out: LeftOut | None = None

    def read(self) -> bytes:
        if self.problem:
            raise ValueError(self.problem)
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content or b""


def unpacked(
    source: Path | bytes,
    kind: str,
    wanted: Callable[[str], int],
    level: int | None,
    most: int,
) -> Iterator[Member]:
    """Yield the files and folders in an archive.

    Parameters
    ----------
    source : Path or bytes
        The archive.
    kind : str
        A name with the archive's suffix.
    wanted : callable
        Returns how many bytes of a file to read.
    level : int or None
        The number of folders above the students' folders. Limits apply to each student, so nobody
        uses up another's. ``AS_MANY`` counts them; None is for one student's archive.
    most : int
        The limit of bytes for one student.

    Raises
    ------
    ValueError
        If the archive exceeds the limits. Corrupt archives raise other errors.
    """
    n_files: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    entries: Iterable[Entry] = _zip(source) if kind.lower().endswith(".zip") else _tar(source)
    if level == AS_MANY:
        entries = list(entries)
        level = level_of_students(entry.name for entry in entries)
    for name, date, read in entries:
        owner = "" if level is None else owner_of(name, level)
        n_files[owner] += 1
        if n_files.total() > CLASS_FILES or n_bytes.total() > ARCHIVE_BYTES:
            raise ValueError(f"expected at most {CLASS_FILES} files and {ARCHIVE_BYTES} bytes")
        if n_files[owner] > STUDENT_FILES:
            if n_files[owner] == STUDENT_FILES + 1:
                yield Member(name[:NAME], left_out=LeftOut.TOO_MANY)
        elif name.endswith("/"):
            yield Member(name[-NAME:])
        elif len(name) > NAME:
            yield Member(f"{name[:NAME]}…", problem=f"expected at most {NAME} characters")
        elif read is None:
            yield Member(name, date=date, left_out=LeftOut.NOT_PLAIN)
        elif not (bytes_wanted := wanted(name)):
            yield Member(name, date=date)
        elif n_bytes[owner] > most:
            yield Member(name, problem=f"expected at most {most} bytes in all")
        else:
            try:
                content = read(bytes_wanted)
                n_bytes[owner] += len(content)
                yield Member(name, content, date=date)
            except Exception as error:  # the readers raise many kinds on a corrupt file
                yield Member(name, problem=str(error)[:300] or type(error).__name__)


class Entry(NamedTuple):
    """An entry of an archive."""

    name: str  # ends in "/" if it is a folder
    date: float | None
    read: Callable[[int], bytes] | None = None  # the reader of a regular file


def level_of_students(names: Iterable[str]) -> int:
    """Return how many nested folders contain all files of an archive, ignoring litter."""
    parts = (parts_of(name) for name in names if not name.endswith("/"))
    return common_folders("/".join(p) for p in parts if p and not any(map(LITTER.fullmatch, p)))


def _zip(source: Path | bytes) -> Iterator[Entry]:
    archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    for entry in archive.infolist():
        if entry.is_dir() or entry.filename.endswith("\\"):
            yield Entry(f"{entry.filename[:-1]}/", None)
            continue
        date = None
        if entry.date_time[0] > 1980:  # zip's placeholder for a missing date
            with suppress(ValueError, OverflowError):
                date = datetime(*entry.date_time).timestamp()
        link = stat.S_ISLNK(entry.external_attr >> 16)
        read = None if link else partial(_of_zip, archive, entry)
        yield Entry(entry.filename, date, read)


def _tar(source: Path | bytes) -> Iterator[Entry]:
    if isinstance(source, bytes):
        archive = tarfile.open(fileobj=io.BytesIO(source))  # noqa: SIM115  # read later
    else:
        archive = tarfile.open(source)  # noqa: SIM115
    for entry in archive:
        if archive.offset > ARCHIVE_BYTES:
            raise ValueError(f"expected at most {ARCHIVE_BYTES} bytes")
        if entry.isdir():
            yield Entry(f"{entry.name}/", None)
        else:
            read = partial(_of_tar, archive, entry) if entry.isreg() else None
            yield Entry(entry.name, float(entry.mtime) or None, read)


def _of_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    return read_at_most(archive.open(entry), most)


def _of_tar(archive: tarfile.TarFile, entry: tarfile.TarInfo, most: int) -> bytes:
    file = archive.extractfile(entry)
    return b"" if file is None else read_at_most(file, most)


def read_at_most(stream: IO[bytes], most: int) -> bytes:
    """Return the content of a stream; raise ValueError if it exceeds ``most`` bytes."""
    with stream:  # the size in a header may be wrong
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"expected at most {most} bytes")
    return content
