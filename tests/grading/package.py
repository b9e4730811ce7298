"""What was handed in, as files by name: folders, archives, and whole classes of them.

Nothing is unpacked to the disk. An archive is a folder whose name ends in .zip; so the layouts of a
class, folder by folder or zip by zip, are one. Names come in any bytes; ``safe_name`` makes them
fit for the file system, tables, terminals and pages, once.
"""

import io
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

FILE_SIZE = 20 * 2**20
ARCHIVE_SIZE = 100 * 2**20  # of an archive in an archive
MANY = 20_000  # files
DEPTH = 3  # archives in archives: a class, a submission, what it was packed with
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
CLOSED = (".rar", ".7z")
# What operating systems, editors and tools leave behind.
LEFT = re.compile(
    r"__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini|\.ipynb_checkpoints|__pycache__|\._.*|\.git"
    r"|\.venv.*|venv|site-packages|node_modules|\.idea|\.vscode|\.pytest_cache|\.ruff_cache"
    r"|.*\.egg-info|\.Trash.*|~\$.*",
    re.IGNORECASE,
)
# How learning platforms name a student's folder (Moodle) or file (Canvas) of a class.
MOODLE = re.compile(r"(?P<name>.+?)_\d+_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)")
CANVAS = re.compile(r"(?P<name>[^_/]+?)(?:_LATE)?_\d+_\d+_(?P<file>.+)", re.IGNORECASE)
METHOD = r"(?:^|[^a-z])(svd|als|bpr|warp)(?:[^a-z]|$)"
GENERIC = re.compile(r"(submission|assignment|abgabe|homework|hw\d*|archiv\w*)\b.*", re.IGNORECASE)


class File(NamedTuple):
    read: Callable[[], bytes]
    time: float  # when it was last changed, or its archive


Files = dict[str, File]


@dataclass
class Package:
    """The files of one submission by their names in it, and what is to be said of them."""

    name: str
    files: Files = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def handed_in(self) -> datetime:
        return datetime.fromtimestamp(max((f.time for f in self.files.values()), default=0))


def safe_name(text: str, most: int = 80) -> str:
    """A name that a file system, a CSV table, a terminal and a page can bear."""
    text = os.fsencode(text).decode("utf-8", "replace")
    text = unicodedata.normalize("NFC", text)
    kept = "".join(c if c.isalnum() or c in " ._-()'@" else "_" for c in text)
    return kept[:most].strip(" .-'@") or "unnamed"


def plain(text: str) -> str:
    """Text for a terminal: what controls it, or has no encoding, is replaced."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def expected(name: str) -> str | None:
    """Which file of the eight a name means, as "svd.py" or "svd.ipynb"; None for others.

    Capitals, copies ("01_svd (1).ipynb"), a student's name before or behind, and what browsers add
    (".ipynb.txt") do not matter; "01_svd.py" is the notebook as a script.
    """
    base = re.sub(r"\.(txt|json)$", "", name.rpartition("/")[2].lower())
    stem, _, suffix = base.rpartition(".")
    match = re.search(METHOD, stem)
    if not match or suffix not in ("py", "ipynb") or re.match(r"test|check", stem):
        return None
    script = suffix == "py" and re.match(r"\d\d?_", stem)
    return f"{match[1]}.ipynb" if script else f"{match[1]}.{suffix}"


def packages(paths: list[Path]) -> list[Package]:
    """Every submission in ``paths``: packages, folders, or a class in the layout of a platform.

    ValueError if there is none, or nothing at a path.
    """
    found: list[Package] = []
    for path in paths:
        if not os.path.lexists(path):
            wanted = "a submission or a folder of submissions"
            raise ValueError(f"expected {wanted}, got nothing at {path}")
        found += _packages_in(path)
    if not found:
        places = ", ".join(map(str, paths))
        raise ValueError(f"expected submissions, zips or folders, got none in {places}")
    names: dict[str, int] = {}
    for package in found:
        package.name = safe_name(package.name)
        same = names[package.name.lower()] = names.get(package.name.lower(), 0) + 1
        if same > 1:
            package.name += f" ({same})"
            package.notes.append("another submission has the same name; this one has a number")
    return found


def read_package(path: Path) -> Package:
    """One submission, whatever its folders are called."""
    files, notes = contents(path)
    closed = [safe_name(name) for name in files if name.lower().endswith(CLOSED)]
    notes += [f"{name} cannot be opened here: pack a .zip instead" for name in closed]
    return Package(path.name if path.is_dir() else _stem(path.name), files, notes)


def _packages_in(path: Path) -> list[Package]:
    whole = read_package(path)
    students = {name: _student(name) for name in whole.files}
    if not any(students.values()):
        if not _is_class(path, whole.files):
            top = next(iter(whole.files), "").partition("/")[0]
            if path.is_dir() and top.lower().endswith(ARCHIVES) and not GENERIC.fullmatch(top):
                whole.name = _stem(top)  # a class of one
            return [whole] if whole.files or path.is_file() else []
        students = {n: n.split("/", 1) if _deep(n) else None for n in whole.files}
    found: dict[str, Package] = {}
    for name, student in students.items():
        if student is not None:
            package = found.setdefault(_stem(student[0]), Package(_stem(student[0])))
            package.files[student[-1]] = whole.files[name]
    for package in found.values():
        package.notes = [note for note in whole.notes if safe_name(package.name) in note]
    of_all = [note for note in whole.notes if not any(note in p.notes for p in found.values())]
    strays = [safe_name(name) for name, student in students.items() if student is None]
    of_all += [f"not taken for submissions: {', '.join(strays[:5])}"] if strays else []
    for note in of_all:
        print(plain(f"{path.name}: {note}"))
    return list(found.values())


def _is_class(path: Path, files: Files) -> bool:
    """Whether each folder or archive in ``path`` is a submission, without a platform's names."""
    tops: dict[str, set[str | None]] = {}
    for name in files:
        if _deep(name):
            tops.setdefault(name.partition("/")[0], set()).add(expected(name))
    flat = any(expected(name) for name in files if "/" not in name)
    if flat or {"mflib", "notebooks"} & {top.lower() for top in tops} or len(tops) < 2:
        return False
    twice = sum(map(len, tops.values())) > len(set().union(*tops.values()))
    return twice or path.is_dir()


def _deep(name: str) -> bool:
    return "/" in name or name.lower().endswith(CLOSED)


def _student(name: str) -> tuple[str, str] | None:
    """Whose file it is, in the layouts of Moodle, nbgrader and Canvas, and its name there."""
    parts = name.split("/")
    for n, part in enumerate(parts):
        rest = parts[n + 1 :]
        if part == "submitted" and len(rest) > 2:
            return rest[0], "/".join(rest[2:])
        match = MOODLE.fullmatch(part) or (CANVAS.fullmatch(part) if n < 2 else None)
        if match and (match["file"] or rest):
            return match["name"], "/".join(filter(None, [match["file"], *rest]))
    return None


def _stem(name: str) -> str:
    for suffix in ARCHIVES + CLOSED:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def contents(path: Path) -> tuple[Files, list[str]]:
    """The files of a folder or an archive by name, and what is to be said."""
    if path.is_symlink():
        return {}, ["a link was handed in; hand in the files"]
    files: Files = {}
    skipped: set[str] = set()
    notes: list[str] = []
    if path.is_dir():
        for place, leaf in _walk(path, skipped):
            if stat.S_ISREG(leaf.lstat().st_mode):
                _add(files, place, leaf, leaf.stat().st_mtime, skipped, notes)
            else:
                notes.append(f"{safe_name(place)} is a link, or no file; hand in the file")
    else:
        _add(files, path.name, path, path.stat().st_mtime, skipped, notes)
        prefix = f"{path.name}/"
        files = {name.removeprefix(prefix): file for name, file in files.items()}
    if skipped:
        names = ", ".join(sorted(map(plain, skipped))[:6])
        notes.append(f"skipped, as operating systems and editors leave it: {names}")
    return files, notes


def _walk(folder: Path, skipped: set[str]) -> Iterator[tuple[str, Path]]:
    seen = 0
    for parent, names, leaves in os.walk(folder):
        skipped |= {name for name in [*names, *leaves] if LEFT.fullmatch(name)}
        links = [name for name in names if (Path(parent) / name).is_symlink()]
        names[:] = sorted(n for n in names if not LEFT.fullmatch(n) and n not in links)
        for leaf in sorted([*leaves, *links]):
            if not LEFT.fullmatch(leaf) and (seen := seen + 1) <= MANY:
                path = Path(parent) / leaf
                yield path.relative_to(folder).as_posix(), path


def _add(
    files: Files,
    name: str,
    source: Path | bytes,
    time: float,
    skipped: set[str],
    notes: list[str],
    depth: int = DEPTH,
) -> None:
    """A file under its name, or what is in it if it is an archive."""
    if not name.lower().endswith(ARCHIVES) or depth == 0:
        whole = isinstance(source, bytes)
        read = partial(bytes, source) if whole else lambda: _bounded(source.open("rb"), FILE_SIZE)
        files[name] = File(read, time)
        return
    try:
        members = _zip if name.lower().endswith(".zip") else _tar
        for member, read in members(source):
            parts = [p for p in member.replace("\\", "/").split("/") if p not in ("", ".", "..")]
            left = [part for part in parts if LEFT.fullmatch(part)]
            inside = "/".join([name, *parts])
            if left or not parts:
                skipped |= set(left[:1])
            elif read is None:
                notes.append(f"{safe_name(inside)} is a link, or no file; hand in the file")
            elif inside.lower().endswith(ARCHIVES):
                _add(files, inside, read(ARCHIVE_SIZE), time, skipped, notes, depth - 1)
            else:
                files[inside] = File(partial(read, FILE_SIZE), time)
            if len(files) > MANY:
                raise ValueError(f"expected at most {MANY} files")
    except Exception as error:  # the readers of archives raise many kinds on a corrupt one
        notes.append(f"{safe_name(name)} cannot be opened: {plain(str(error))[:200]}")


def _zip(source: Path | bytes) -> Iterator[tuple[str, Callable[[int], bytes] | None]]:
    archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    for entry in archive.infolist():
        if not entry.is_dir() and not entry.filename.endswith("\\"):
            link = stat.S_ISLNK(entry.external_attr >> 16)
            yield entry.filename, None if link else partial(_extracted, archive, entry)


def _tar(source: Path | bytes) -> Iterator[tuple[str, Callable[[int], bytes] | None]]:
    archive = tarfile.open(  # noqa: SIM115  # its files are read later
        **{"fileobj": io.BytesIO(source)} if isinstance(source, bytes) else {"name": source}
    )
    for entry in archive:
        if archive.offset > 2**30:
            raise ValueError("expected at most a GiB")
        if not entry.isdir():
            yield entry.name, partial(_extracted, archive, entry) if entry.isreg() else None


def _extracted(
    archive: zipfile.ZipFile | tarfile.TarFile, entry: zipfile.ZipInfo | tarfile.TarInfo, most: int
) -> bytes:
    opens = archive.open if isinstance(archive, zipfile.ZipFile) else archive.extractfile
    return _bounded(opens(entry), most)


def _bounded(stream: io.BufferedIOBase, most: int) -> bytes:
    with stream:  # the size in a header may lie
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"expected at most {most} bytes")
    return content
