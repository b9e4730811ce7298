"""Read the files in an archive; nothing is written to where a name in it points."""

import io
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

ARCHIVE_BYTES = 2 * 2**30  # taken out of one archive
STUDENT_BYTES = 2**28  # taken out of all archives of a student
STUDENT_FILES = 20_000
CLASS_FILES = 20 * STUDENT_FILES  # in an archive of many students
NAME = 500  # characters, folders included
NOT_PLAIN = "is a link, or no file; hand in the file"
TOO_MANY = f"and what follows is not read: expected at most {STUDENT_FILES} files"


class Member(NamedTuple):
    """A file in an archive: its content, or where that is, or what is wrong with it.

    A file that is not wanted has neither.
    """

    name: str
    content: bytes | Path | None = None
    problem: str = ""

    def read(self) -> bytes:
        if self.problem:
            raise ValueError(self.problem)
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content or b""


def unpacked(
    source: Path | bytes,
    kind: str,
    wanted: Callable[[str], int],
    owner_of: Callable[[str], str],
    most: int,
) -> Iterator[Member]:
    """Yield the files in an archive.

    Parameters
    ----------
    source : Path or bytes
        The archive.
    kind : str
        A name that ends in the archive's suffix.
    wanted : callable
        Returns how many bytes of the content of a file are wanted.
    owner_of : callable
        Returns whose a file is. Limits hold for each owner, so nobody uses up another's.
    most : int
        Bytes of one owner.

    Raises
    ------
    ValueError
        If there is too much in the archive. The readers raise other errors on a corrupt one.
    """
    n_files: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    for name, read in _zip(source) if kind.lower().endswith(".zip") else _tar(source):
        owner = owner_of(name)
        n_files[owner] += 1
        if n_files.total() > CLASS_FILES or n_bytes.total() > ARCHIVE_BYTES:
            raise ValueError(f"expected at most {CLASS_FILES} files and {ARCHIVE_BYTES} bytes")
        if n_files[owner] > STUDENT_FILES:
            if n_files[owner] == STUDENT_FILES + 1:
                yield Member(name[:NAME], problem=TOO_MANY)
        elif len(name) > NAME:
            yield Member(f"{name[:NAME]}…", problem=f"expected a name of at most {NAME} characters")
        elif read is None:
            yield Member(name, problem=NOT_PLAIN)
        elif not (bytes_wanted := wanted(name)):
            yield Member(name)
        elif n_bytes[owner] > most:
            yield Member(name, problem=f"expected at most {most} bytes in all")
        else:
            try:
                content = read(bytes_wanted)
                n_bytes[owner] += len(content)
                yield Member(name, content)
            except Exception as error:  # the readers raise many kinds on a corrupt file
                yield Member(name, problem=str(error)[:300] or type(error).__name__)


Entry = tuple[str, Callable[[int], bytes] | None]  # the reader of a plain file


def _zip(source: Path | bytes) -> Iterator[Entry]:
    archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    for entry in archive.infolist():
        if not entry.is_dir() and not entry.filename.endswith("\\"):
            link = stat.S_ISLNK(entry.external_attr >> 16)
            yield entry.filename, None if link else partial(_of_zip, archive, entry)


def _tar(source: Path | bytes) -> Iterator[Entry]:
    if isinstance(source, bytes):
        archive = tarfile.open(fileobj=io.BytesIO(source))  # noqa: SIM115  # read later
    else:
        archive = tarfile.open(source)  # noqa: SIM115
    for entry in archive:
        if archive.offset > ARCHIVE_BYTES:
            raise ValueError(f"expected at most {ARCHIVE_BYTES} bytes")
        if not entry.isdir():
            yield entry.name, partial(_of_tar, archive, entry) if entry.isreg() else None


def _of_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    return read_at_most(archive.open(entry), most)


def _of_tar(archive: tarfile.TarFile, entry: tarfile.TarInfo, most: int) -> bytes:
    file = archive.extractfile(entry)
    return b"" if file is None else read_at_most(file, most)


def read_at_most(stream: IO[bytes], most: int) -> bytes:
    """Return all of a stream; ValueError if that is more than ``most`` bytes."""
    with stream:  # the size in a header may be wrong
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"expected at most {most} bytes")
    return content
