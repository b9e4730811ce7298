"""What is in an archive, file by file; nothing is written to where a name in it says."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

WHOLE = 2 * 2**30  # bytes of all that is taken out of one
MANY = 20_000  # files in one, or in a folder
NAME = 500  # characters, folders included
NOT_PLAIN = "is a link, or no file; hand in the file"


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
    source: Path | bytes, kind: str, wanted: Callable[[str], int], most: int = WHOLE
) -> Iterator[Member]:
    """The files in an archive; of those that are ``wanted``, up to so many bytes, the content.

    ``kind``: its name. Raises whatever the readers raise on a corrupt one, ValueError if there is
    too much in it.
    """
    left = most
    members = _zip if kind.lower().endswith(".zip") else _tar
    for n, (name, read) in enumerate(members(source)):
        if n >= MANY:
            raise ValueError(f"expected at most {MANY} files")
        if len(name) > NAME:
            yield Member(f"{name[:NAME]}…", problem=f"expected a name of at most {NAME} characters")
        elif read is None:
            yield Member(name, problem=NOT_PLAIN)
        elif bytes_wanted := wanted(name):
            try:
                found = Member(name, read(bytes_wanted))
            except Exception as error:  # as above, of one file
                found = Member(name, problem=str(error)[:300] or type(error).__name__)
            left -= len(found.content or b"")
            if left < 0:
                raise ValueError(f"expected at most {most} bytes")
            yield found
        else:
            yield Member(name)


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
