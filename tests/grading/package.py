"""What was handed in, as files by name: folders, archives, and whole classes of them.

An archive is a folder whose name ends in .zip; so the layouts of a class, folder by folder or zip
by zip, are one. How an archive is opened is the caller's: as it is (check), or in a process with
bounds (grader). Names come in any bytes; ``safe_name`` makes them
fit for the file system, tables, terminals and pages, once.
"""

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from archives import MANY, NOT_PLAIN, Member, bounded, unpacked

FILE_SIZE = 2 * 2**20
ARCHIVE_SIZE = 100 * 2**20  # of an archive in an archive
LATEST = 250_000_000_000  # seconds: in the year 9892, of which every calendar knows
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
# How learning platforms name a student's folder (Moodle) or file (Canvas) of a class. The number
# is the person's, of Moodle in this assignment; where names are hidden there is nothing else.
MOODLE = re.compile(
    r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)"
)
CANVAS = re.compile(
    r"(?P<name>[^_/]+?)(?P<late>_LATE)?_(?P<number>\d+)_\d+_(?P<file>.+)", re.IGNORECASE
)
CANVAS_HIDDEN = re.compile(
    r"(?P<late>LATE_)?(?P<name>anon)_(?P<number>[A-Za-z0-9]+)_\d+_(?P<file>.+)"
)
PAGES = ("index", "similarity")  # of the class, which nobody's page may replace
HIDDEN = ("Participant", "anon")  # instead of names
METHOD = r"(?:^|[^a-z])(svd|als|bpr|warp)(?:[^a-z]|$)"
GENERIC = re.compile(r"(submission|assignment|abgabe|homework|hw\d*|archiv\w*)\b.*", re.IGNORECASE)


class File(NamedTuple):
    read: Callable[[], bytes]
    time: float  # when it was last changed, or its archive


Files = dict[str, File]
Opener = Callable[[Path | bytes, str], Iterable[Member]]  # an archive, its name -> what is in it


class Place(NamedTuple):
    """Whose file it is, by name and by the platform's number, and its name there."""

    owner: str
    number: str
    file: str
    late: bool = False


@dataclass
class Package:
    """The files of one submission by their names in it, and what is to be said of them."""

    name: str
    files: Files = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    number: str = ""  # by which a learning platform knows whose it is

    @property
    def handed_in(self) -> datetime:
        newest = max((f.time for f in self.files.values()), default=0)
        return datetime.fromtimestamp(min(max(newest, 0), LATEST))  # a file may have any date


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


def wanted(name: str) -> int:
    """How many bytes of a file in an archive are to be read."""
    parts = _parts(name)
    if any(map(LEFT.fullmatch, parts)):
        return 0
    meant = expected("/".join(parts)) is not None
    return ARCHIVE_SIZE if name.lower().endswith(ARCHIVES) else FILE_SIZE * meant


def directly(source: Path | bytes, name: str) -> Iterable[Member]:
    """What is in an archive, opened in this process."""
    return unpacked(source, name, wanted)


def packages(paths: list[Path], opener: Opener = directly) -> list[Package]:
    """Every submission in ``paths``: packages, folders, or a class in the layout of a platform.

    ValueError if there is none, or nothing at a path.
    """
    found: list[Package] = []
    for path in paths:
        if not os.path.lexists(path):
            wanted = "a submission or a folder of submissions"
            raise ValueError(f"expected {wanted}, got nothing at {path}")
        found += _packages_in(path, opener)
    if not found:
        places = ", ".join(map(str, paths))
        raise ValueError(f"expected submissions, zips or folders, got none in {places}")
    for package in found:
        package.name = safe_name(package.name)
        if package.name.lower() in PAGES:
            package.name += " (student)"
    given, taken = {package.name.lower() for package in found}, set()
    for package in found:
        name, number = package.name, 1
        while package.name.lower() in (taken if number == 1 else taken | given):
            number += 1
            package.name = f"{name} ({number})"
        taken.add(package.name.lower())
        if number > 1:
            package.notes.append("another submission has the same name; this one has a number")
    return found


def read_package(path: Path, opener: Opener = directly) -> Package:
    """One submission, whatever its folders are called."""
    files, notes = contents(path, opener)
    closed = [safe_name(name) for name in files if name.lower().endswith(CLOSED)]
    notes += [f"{name} cannot be opened here: pack a .zip instead" for name in closed]
    return Package(path.name if path.is_dir() else _stem(path.name), files, notes)


def _packages_in(path: Path, opener: Opener) -> list[Package]:
    whole = read_package(path, opener)
    students = {name: _student(name) for name in whole.files}
    if not any(students.values()):
        if not _is_class(path, whole.files):
            top = next(iter(whole.files), "").partition("/")[0]
            if path.is_dir() and top.lower().endswith(ARCHIVES) and not GENERIC.fullmatch(top):
                whole.name = _stem(top)  # a class of one
            return [whole] if whole.files or path.is_file() else []
        places = {n: n.partition("/") for n in whole.files if _deep(n)}
        students = dict.fromkeys(whole.files)
        students |= {n: Place(_stem(p[0]), "", p[2] or n) for n, p in places.items()}
    found: dict[tuple[str, str], Package] = {}
    for name, student in students.items():
        if student is not None:
            new = Package(student.owner, number=student.number)
            package = found.setdefault((student.owner, student.number), new)
            package.files[student.file] = whole.files[name]
            late = "Canvas says that it is late"
            if student.late and late not in package.notes:
                package.notes.append(late)
    names = Counter(package.name for package in found.values())
    for package in found.values():
        # its name, not a part of another word or name
        own = re.compile(rf"(?<![^\W_]){re.escape(safe_name(package.name))}(?![^\W_])")
        mine = [note for note in whole.notes if own.search(note) and package.number in note]
        package.notes += mine
        if package.number and (names[package.name] > 1 or package.name in HIDDEN):
            package.name += f" {package.number}"
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
    return "/" in name or name.lower().endswith(ARCHIVES + CLOSED)


def _student(name: str) -> Place | None:
    """Whose file it is, in the layouts of Moodle, nbgrader and Canvas, and its name there."""
    parts = name.split("/")
    for n, part in enumerate(parts):
        rest = parts[n + 1 :]
        if part == "submitted" and len(rest) > 2:
            return Place(rest[0], "", "/".join(rest[2:]))
        match = MOODLE.fullmatch(part)
        if not match and n < 2:
            match = CANVAS_HIDDEN.fullmatch(part) or CANVAS.fullmatch(part)
        if match and (match["file"] or rest):
            file = "/".join(filter(None, [match["file"], *rest]))
            late = bool(match.groupdict().get("late"))
            return Place(_stem(match["name"]), match["number"], file, late)
    return None


def _stem(name: str) -> str:
    for suffix in ARCHIVES + CLOSED:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def contents(path: Path, opener: Opener = directly) -> tuple[Files, list[str]]:
    """The files of a folder or an archive by name, and what is to be said."""
    if path.is_symlink():
        return {}, ["a link was handed in; hand in the files"]
    files: Files = {}
    skipped: set[str] = set()
    notes: list[str] = []
    if path.is_dir():
        for place, leaf in _walk(path, skipped, notes):
            found = leaf.lstat()
            if stat.S_ISREG(found.st_mode):
                _add(files, place, leaf, found.st_mtime, skipped, notes, opener)
            else:
                notes.append(f"{safe_name(place)} {NOT_PLAIN}")
    else:
        _add(files, path.name, path, path.stat().st_mtime, skipped, notes, opener)
        prefix = f"{path.name}/"
        files = {name.removeprefix(prefix): file for name, file in files.items()}
    if skipped:
        names = ", ".join(sorted(map(plain, skipped))[:6])
        notes.append(f"skipped, as operating systems and editors leave it: {names}")
    return files, notes


def _walk(folder: Path, skipped: set[str], notes: list[str]) -> Iterator[tuple[str, Path]]:
    """The files in a folder by their place in it, each folder's own before those beneath.

    Where it is a class, nobody's files can keep the others' from being found.
    """
    todo, seen = [folder], Counter()
    while todo:
        parent = todo.pop()
        owner = _owner(parent.relative_to(folder))
        if seen[owner] > MANY:
            continue
        try:
            with os.scandir(parent) as entries:
                found = sorted(islice(entries, MANY + 1), key=lambda entry: entry.name)
        except OSError as error:  # no right to look, or nested too deeply for a path
            name = safe_name(f"{owner} {parent.name}")
            notes.append(f"{name} cannot be opened: {error.strerror}")
            continue
        skipped |= {entry.name for entry in found if LEFT.fullmatch(entry.name)}
        found = [entry for entry in found if not LEFT.fullmatch(entry.name)]
        inside = [Path(e.path) for e in found if e.is_dir(follow_symlinks=False)]
        seen[owner] += len(found)
        if seen[owner] > MANY:
            notes.append(f"{safe_name(owner or folder.name)}: expected at most {MANY} files")
        todo += reversed(inside)
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                path = Path(entry.path)
                yield path.relative_to(folder).as_posix(), path


def _owner(place: Path) -> str:
    """Whose a folder is, if it is in a class: see ``_student``."""
    parts = place.parts
    return "/".join(parts[: 2 if parts[:1] == ("submitted",) else 1])


def _add(
    files: Files,
    name: str,
    source: Path | bytes,
    time: float,
    skipped: set[str],
    notes: list[str],
    opener: Opener,
    depth: int = DEPTH,
) -> None:
    """A file under its name, or what is in it if it is an archive."""
    if not name.lower().endswith(ARCHIVES) or depth == 0:
        whole = isinstance(source, bytes)
        read = partial(bytes, source) if whole else lambda: bounded(source.open("rb"), FILE_SIZE)
        files[name] = File(read, time)
        return
    before = len(files)
    try:
        for member in opener(source, name):
            parts = _parts(member.name)
            left = [part for part in parts if LEFT.fullmatch(part)]
            inside = "/".join([name, *parts])
            if left or not parts:
                skipped |= set(left[:1])
            elif member.problem == NOT_PLAIN:
                notes.append(f"{safe_name(inside)} {NOT_PLAIN}")
            elif inside.lower().endswith(ARCHIVES) and member.content is not None:
                _add(files, inside, member.content, time, skipped, notes, opener, depth - 1)
            else:
                files[inside] = File(member.read, time)
            if len(files) > MANY:
                raise ValueError(f"expected at most {MANY} files")
    except Exception as error:  # the readers of archives raise many kinds on a corrupt one
        why = f"cannot be opened: {plain(str(error))[:200]}"
        notes.append(f"{safe_name(name)} {why}")
        if len(files) == before:  # whose it is, is to be seen all the same
            files[name] = File(Member(name, problem=why).read, time)


def _parts(name: str) -> list[str]:
    return [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
