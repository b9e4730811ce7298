"""What is in an archive, file by file; nothing is written to where a name in it says."""

import io
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

WHOLE = 2 * 2**30  # bytes of all that is taken out of one
PART = 2**28  # bytes of what one student's archives may give, all together
MANY = 20_000  # files of one student
CLASS = 20 * MANY  # files in an archive of many students
NAME = 500  # characters, folders included
NOT_PLAIN = "is a link, or no file; hand in the file"
TOO_MANY = f"and what follows is not read: expected at most {MANY} files"


class Member(NamedTuple):
    """A file in an archive: its content, or where that is, or what is wrong with it.

    What nobody wants has neither.
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
    share: Callable[[str], str],
    most: int,
) -> Iterator[Member]:
    """The files in an archive; of those that are ``wanted``, up to so many bytes, the content.

    ``kind``: its name. ``share``: whose a file is; what one has too much of costs nobody else
    anything, be it files or, in ``most``, bytes. Raises whatever the readers raise on a corrupt
    archive, ValueError if there is too much in it.
    """
    files, taken = Counter(), Counter()
    for name, read in _zip(source) if kind.lower().endswith(".zip") else _tar(source):
        whose = share(name)
        files[whose] += 1
        if files.total() > CLASS or taken.total() > WHOLE:
            raise ValueError(f"expected at most {CLASS} files and {WHOLE} bytes")
        if files[whose] > MANY:
            if files[whose] == MANY + 1:
                yield Member(name[:NAME], problem=TOO_MANY)
        elif len(name) > NAME:
            yield Member(f"{name[:NAME]}…", problem=f"expected a name of at most {NAME} characters")
        elif read is None:
            yield Member(name, problem=NOT_PLAIN)
        elif not (bytes_wanted := wanted(name)):
            yield Member(name)
        elif taken[whose] > most:
            yield Member(name, problem=f"expected at most {most} bytes in all")
        else:
            try:
                found = Member(name, read(bytes_wanted))
            except Exception as error:  # as above, of one file
                found = Member(name, problem=str(error)[:300] or type(error).__name__)
            taken[whose] += len(found.content or b"")
            yield found


def _zip(source: Path | bytes) -> Iterator[tuple[str, Callable[[int], bytes] | None]]:
    archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    for entry in archive.infolist():
        if not entry.is_dir() and not entry.filename.endswith("\\"):
            link = stat.S_ISLNK(entry.external_attr >> 16)
            yield entry.filename, None if link else partial(_of_zip, archive, entry)


def _tar(source: Path | bytes) -> Iterator[tuple[str, Callable[[int], bytes] | None]]:
    archive = tarfile.open(  # noqa: SIM115  # its files are read later
        **{"fileobj": io.BytesIO(source)} if isinstance(source, bytes) else {"name": source}
    )
    for entry in archive:
        if archive.offset > WHOLE:
            raise ValueError(f"expected at most {WHOLE} bytes")
        if not entry.isdir():
            yield entry.name, partial(_of_tar, archive, entry) if entry.isreg() else None


def _of_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    return bounded(archive.open(entry), most)


def _of_tar(archive: tarfile.TarFile, entry: tarfile.TarInfo, most: int) -> bytes:
    return bounded(archive.extractfile(entry), most)


def bounded(stream: io.BufferedIOBase, most: int) -> bytes:
    """All of a stream; ValueError if that is more than ``most`` bytes."""
    with stream:  # the size in a header may lie
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"expected at most {most} bytes")
    return content
