"""Collect submissions: files by name, from folders, archives, and whole classes of them.

An archive is treated as a folder whose name ends in its suffix, so a class of folders and a class
of archives have the same layout. The caller chooses how an archive is opened: directly (check), or
in a process with limits (grader).
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from grading.intake.archives import (
    NOT_PLAIN,
    STUDENT_BYTES,
    STUDENT_FILES,
    TOO_MANY,
    Member,
    read_at_most,
    unpacked,
)
from grading.intake.layouts import HIDDEN, Layout, layout_of
from grading.intake.names import (
    ARCHIVES,
    LITTER,
    UNSUPPORTED_ARCHIVES,
    expected_file,
    is_container,
    parts_of,
    plain,
    safe_name,
    top_of,
    without_suffix,
)

FILE_SIZE = 2 * 2**20
ARCHIVE_SIZE = 100 * 2**20  # of an archive in an archive
LATEST = 250_000_000_000  # seconds: in the year 9892, within the range of datetime
DEPTH = 3  # archives in archives: a class, a submission, the student's own
MAX_FOLDERS = 9  # above the submissions of a class
MAX_SKIPPED = 6  # names in the note on skipped files
PAGES = ("index", "similarity")  # of the class, which no submission's page may replace
GENERIC = re.compile(r"(submission|assignment|abgabe|homework|hw\d*|archiv\w*)\b.*", re.IGNORECASE)
LATE_NOTE = "Canvas says that it is late"


class File(NamedTuple):
    read: Callable[[], bytes]
    time: float  # of the last change, of it or of its archive


Files = dict[str, File]


class Note(NamedTuple):
    """A note, and the place in a submission or a class that it is about."""

    place: str
    text: str


@dataclass
class Budget:
    """What one student's files may still cost."""

    bytes: int = STUDENT_BYTES  # taken out of archives
    seconds: float = 40.0  # CPU time to open them
    archives: int = 20
    files: int = field(default_factory=lambda: STUDENT_FILES)
    notes: int = 50


# An archive, its name, a function that returns whose a file in it is, what may be spent.
Opener = Callable[[Path | bytes, str, Callable[[str], str], Budget], Iterable[Member]]


@dataclass
class Package:
    """The files of one submission by their names in it, and notes about reading them."""

    name: str
    files: Files = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    number: str = ""  # by which a learning platform identifies the student

    @property
    def handed_in(self) -> datetime:
        newest = max((f.time for f in self.files.values()), default=0)
        return datetime.fromtimestamp(min(max(newest, 0), LATEST))  # a file may have any date


def wanted(name: str) -> int:
    """Return how many bytes of a file in an archive are to be read."""
    parts = parts_of(name)
    if any(map(LITTER.fullmatch, parts)):
        return 0
    if name.lower().endswith(ARCHIVES):
        return ARCHIVE_SIZE
    return FILE_SIZE if expected_file("/".join(parts)) else 0


def directly(
    source: Path | bytes, name: str, owner_of: Callable[[str], str], budget: Budget
) -> Iterable[Member]:
    """Open an archive in this process."""
    return unpacked(source, name, wanted, owner_of, budget.bytes)


def packages(paths: list[Path], opener: Opener = directly) -> list[Package]:
    """Return all submissions in ``paths``: archives, folders, or classes in any layout.

    Each has a unique, safe name. ValueError if there is none, or nothing at a path.
    """
    found: list[Package] = []
    for path in paths:
        if not os.path.lexists(path):
            expected = "a submission or a folder of submissions"
            raise ValueError(f"expected {expected}, got nothing at {path}")
        found += _packages_in(path, opener)
    if not found:
        places = ", ".join(map(str, paths))
        raise ValueError(f"expected submissions, zips or folders, got none in {places}")
    for package in found:
        package.name = safe_name(package.name)
        if package.name.lower() in PAGES:
            package.name += " (student)"
    _make_unique(found)
    return found


def _make_unique(found: list[Package]) -> None:
    """Number submissions of the same name."""
    given = {package.name.lower() for package in found}
    taken: set[str] = set()
    for package in found:
        name, number = package.name, 1
        while package.name.lower() in (taken if number == 1 else taken | given):
            number += 1
            package.name = f"{name} ({number})"
        taken.add(package.name.lower())
        if number > 1:
            package.notes.append("another submission has the same name; this one has a number")


def read_package(path: Path, opener: Opener = directly) -> Package:
    """Return one submission, whatever its folders are called."""
    files, notes = contents(path, opener)
    name = path.name if path.is_dir() else without_suffix(path.name)
    return Package(name, files, [note.text for note in notes])


def _packages_in(path: Path, opener: Opener) -> list[Package]:
    files, notes = contents(path, opener)
    places = [*files, *(note.place for note in notes if note.place)]
    layout = layout_of(places, path.is_dir())
    if layout is not None:
        return _split(path.name, layout, files, notes)
    package = Package(path.name if path.is_dir() else without_suffix(path.name), files)
    package.notes = [note.text for note in notes]
    top = next(iter(files), "").partition("/")[0]
    if path.is_dir() and top.lower().endswith(ARCHIVES) and not GENERIC.fullmatch(top):
        package.name = without_suffix(top)  # a class of one
    return [package] if places or path.is_file() else []


def _split(name: str, layout: Layout, files: Files, notes: list[Note]) -> list[Package]:
    """Return the submissions of a class; ``name`` is what it is called in messages."""
    found: dict[tuple[str, str], Package] = {}

    def package_of(place: str) -> tuple[Package | None, str]:
        """Return whose a file is, and its name there."""
        if (owned := layout(place)) is None:
            return None, place
        new = Package(owned.owner, number=owned.number)
        package = found.setdefault((owned.owner, owned.number), new)
        if owned.late and LATE_NOTE not in package.notes[:1]:
            package.notes.insert(0, LATE_NOTE)
        return package, owned.file

    strays = []
    for place, file in files.items():
        package, inside = package_of(place)
        if package is None:
            strays.append(safe_name(place))
        else:
            package.files[inside] = file
    for note in notes:
        package = package_of(note.place)[0] if note.place else None
        if package is None:
            print(plain(f"{name}: {note.text}"))
        else:
            package.notes.append(note.text)
    if strays:
        print(plain(f"{name}: not taken for submissions: {', '.join(strays[:5])}"))
    names = Counter(package.name for package in found.values())
    for package in found.values():
        if package.number and (names[package.name] > 1 or package.name in HIDDEN):
            package.name += f" {package.number}"
    return list(found.values())


def contents(path: Path, opener: Opener = directly) -> tuple[Files, list[Note]]:
    """Return the files of a folder or an archive by name, and notes about reading them."""
    if path.is_symlink():
        return {}, [Note("", "a link was handed in; hand in the files")]
    reading = _Reading(opener)
    if path.is_dir():
        reading.level = _level(path)
        reading.read_folder(path)
    else:
        reading.level = 1
        reading.add(path.name, path, path.stat().st_mtime)
    files, notes = reading.files, reading.notes
    for name in files:
        if name.lower().endswith(UNSUPPORTED_ARCHIVES):
            what = f"{safe_name(name)} cannot be opened here: pack a .zip instead"
            notes.append(Note(name, what))
    if not path.is_dir():
        prefix = f"{path.name}/"
        files = {name.removeprefix(prefix): file for name, file in files.items()}
        places = ["" if n.place == path.name else n.place.removeprefix(prefix) for n in notes]
        notes = [Note(place, n.text) for place, n in zip(places, notes, strict=True)]
    if reading.skipped:
        names = ", ".join(sorted(map(plain, reading.skipped)))
        notes.append(Note("", f"skipped, as operating systems and editors leave it: {names}"))
    return files, notes


def _level(folder: Path) -> int:
    """Return how many folders (the last may be an archive) are above the submissions."""
    level = 0
    while True:
        with os.scandir(folder) as entries:
            some = islice((e for e in entries if not LITTER.fullmatch(e.name)), STUDENT_FILES)
            inner = [e for e in some if is_container(e.name) or e.is_dir(follow_symlinks=False)][:2]
        if len(inner) != 1 or level > MAX_FOLDERS:
            return level
        level += 1
        if not inner[0].is_dir(follow_symlinks=False):
            return level
        folder = Path(inner[0].path)


class _Reading:
    """Reads a folder or an archive, perhaps of a class; each student has a budget."""

    def __init__(self, opener: Opener):
        self.opener = opener
        self.level = 0  # the index of the part of a path that names the student
        self.files: Files = {}
        self.notes: list[Note] = []
        self.skipped: set[str] = set()
        self.budgets: dict[str, Budget] = {}

    def owner(self, name: str) -> str:
        parts = name.split("/")
        level = self.level + (parts[self.level : self.level + 1] == ["submitted"])
        return "/".join(parts[: level + 1])

    def budget(self, name: str) -> Budget:
        return self.budgets.setdefault(self.owner(name), Budget())

    def note(self, name: str, text: str) -> None:
        budget = self.budget(name)
        budget.notes -= 1
        if budget.notes >= 0:
            self.notes.append(Note(name, text))

    def skip(self, name: str) -> None:
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.add(name[:80])

    def read_folder(self, folder: Path) -> None:
        """Read a folder, with the files of each folder before its subfolders."""
        todo = [folder]
        while todo:
            parent = todo.pop()
            place = parent.relative_to(folder).as_posix()
            prefix = f"{place}/" if parent != folder else ""
            budget = self.budget(prefix)
            if budget.files < 0:
                continue
            try:
                with os.scandir(parent) as listing:
                    all_entries = sorted(islice(listing, STUDENT_FILES + 1), key=lambda e: e.name)
            except OSError as error:  # no permission, or nested too deeply for a path
                self.note(prefix, f"{safe_name(place)} cannot be opened: {error.strerror}")
                continue
            entries = []
            for entry in all_entries:
                if LITTER.fullmatch(entry.name):
                    self.skip(entry.name)
                else:
                    entries.append(entry)
            budget.files -= len(entries)
            if budget.files < 0:
                owner = safe_name(self.owner(prefix) or folder.name)
                self.note(prefix, f"{owner}: expected at most {STUDENT_FILES} files")
            folders = [e for e in entries if e.is_dir(follow_symlinks=False)]
            todo += [Path(e.path) for e in reversed(folders)]
            for entry in entries:
                if entry not in folders:
                    self.add_file(f"{prefix}{entry.name}", Path(entry.path))

    def add_file(self, name: str, file: Path) -> None:
        status = file.lstat()
        if stat.S_ISREG(status.st_mode):
            self.add(name, file, status.st_mtime)
        else:
            self.note(name, f"{safe_name(name)} {NOT_PLAIN}")

    def add(self, name: str, source: Path | bytes, time: float, depth: int = DEPTH) -> None:
        """Add a file under its name, or the files in it if it is an archive."""
        if not name.lower().endswith(ARCHIVES) or depth == 0:
            self.files[name] = File(_reader(source), time)
            return
        before = len(self.files)
        try:
            for member in self.opened(name, source):
                self.add_member(name, member, time, depth)
        except Exception as error:  # the readers of archives raise many kinds on a corrupt one
            why = f"cannot be opened: {plain(str(error))[:200]}"
            self.note(name, f"{safe_name(name)} {why}")
            if len(self.files) == before:  # its owner must have a submission nevertheless
                self.files[name] = File(Member(name, problem=why).read, time)

    def add_member(self, archive: str, member: Member, time: float, depth: int) -> None:
        """Add a file of an archive."""
        parts = parts_of(member.name)
        name = "/".join([archive, *parts])
        litter = [part for part in parts if LITTER.fullmatch(part)]
        budget = self.budget(name)
        budget.files -= 1
        if litter:
            self.skip(litter[0])
        elif budget.files < 0 or member.problem == TOO_MANY:
            if budget.files >= -1:  # only once
                self.note(name, f"{safe_name(name)} {TOO_MANY}")
            budget.files = min(budget.files, -1)
        elif member.problem == NOT_PLAIN:
            self.note(name, f"{safe_name(name)} {NOT_PLAIN}")
        elif parts and name.lower().endswith(ARCHIVES) and member.content is not None:
            self.add(name, member.content, time, depth - 1)
        elif parts:
            self.files[name] = File(member.read, time)

    def opened(self, name: str, source: Path | bytes) -> list[Member]:
        """Return what is in an archive; ValueError if its owner's budget is used up."""
        budget, is_class = self.budget(name), name.count("/") < self.level
        budget.archives -= 1
        if budget.archives < 0 or budget.seconds <= 0 or budget.bytes <= 0:
            full = Budget()
            most = f"{full.archives} archives, {full.seconds:.0f} s to open them"
            raise ValueError(f"expected at most {most}, {full.bytes} bytes in them")
        owner_of = top_of if is_class else _same_owner
        members = list(self.opener(source, name, owner_of, budget))
        tops = {top_of(member.name) for member in members}
        tops = {top for top in tops if not LITTER.fullmatch(top)}
        if is_class and len(tops) == 1 and not is_container(tops.pop()):
            self.level += 1
        return members


def _reader(source: Path | bytes) -> Callable[[], bytes]:
    if isinstance(source, bytes):
        return partial(bytes, source)
    return lambda: read_at_most(source.open("rb"), FILE_SIZE)


def _same_owner(name: str) -> str:
    return ""
