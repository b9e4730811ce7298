"""Collect the files of submissions from folders, archives and exports of whole classes.

An archive is treated as a folder whose name ends in its suffix, so a class of folders and a class
of archives have the same layout. The caller chooses how to open an archive: in this process
(student's check) or in a resource-limited subprocess (grader).
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
    AS_MANY,
    STUDENT_BYTES,
    STUDENT_FILES,
    LeftOut,
    Member,
    level_of_students,
    read_at_most,
    unpacked,
)
from grading.intake.layouts import (
    GRADESCOPE_PEOPLE,
    HIDDEN,
    Layout,
    Owner,
    Platform,
    blackboard_person,
    gradescope_people,
    is_about,
    layout_of,
)
from grading.intake.names import (
    ARCHIVES,
    LITTER,
    UNSUPPORTED_ARCHIVES,
    WORK,
    expected_file,
    is_container,
    owner_of,
    parts_of,
    plain,
    safe_name,
    safe_path,
    without_suffix,
)

FILE_SIZE = 2 * 2**20
ARCHIVE_SIZE = 100 * 2**20  # bytes of an archive in an archive
PEOPLE_SIZE = 32 * 2**20  # bytes of Gradescope's list, which has the results of all submissions
LATEST = 250_000_000_000  # seconds: in the year 9892, within the range of datetime
DEPTH = 4  # nested archives: around a class, of a class, of a submission, in a submission
MAX_FOLDERS = 9  # above the submissions of a class
MAX_SKIPPED = 6  # names in the note on skipped files
PAGES = ("index", "similarity")  # pages of the class, which no submission's page may replace
GENERIC = re.compile(r"(submission|assignment|abgabe|homework|hw\d*|archiv\w*)\b.*", re.IGNORECASE)
LATE_NOTE = "marked as late by Canvas"


class File(NamedTuple):
    read: Callable[[], bytes]
    time: float  # of the last change of the file or its archive
    dates: tuple[float, ...] = ()  # its dates in archives, the outermost first

    @property
    def changed(self) -> float:
        """The date of the last change, according to the file's name and its archives."""
        return self.dates[-1] if self.dates else self.time


Files = dict[str, File]


class Note(NamedTuple):
    """A note and the path that it concerns."""

    place: str
    text: str


@dataclass
class Budget:
    """The remaining limits for one student's files."""

    bytes: int = STUDENT_BYTES  # extracted from archives
    seconds: float = 40.0  # CPU time to open them
    archives: int = 20
    files: int = field(default_factory=lambda: STUDENT_FILES)
    notes: int = 50


# Arguments: an archive, its name, the number of folders above the students' (see ``unpacked``), and
# the remaining budget.
Opener = Callable[[Path | bytes, str, int | None, Budget], Iterable[Member]]


@dataclass
class Package:
    """The files of one submission by their names in it, and notes about reading them."""

    name: str
    files: Files = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)  # several for a group
    time: datetime | None = None  # according to the platform, possibly without a time zone
    platform: Platform = Platform.FOLDERS

    def __post_init__(self) -> None:
        self.owners = self.owners or [Owner(self.name)]

    @property
    def number(self) -> str:
        return self.owners[0].number

    @property
    def handed_in(self) -> datetime:
        """The date of the newest file."""
        newest = max((f.time for f in self.files.values()), default=0)
        return datetime.fromtimestamp(min(max(newest, 0), LATEST))  # a file may have any date


def wanted(name: str) -> int:
    """Return how many bytes of a file in an archive to read."""
    parts = parts_of(name)
    if any(map(LITTER.fullmatch, parts)):
        return 0
    if name.lower().endswith(ARCHIVES):
        return ARCHIVE_SIZE
    if parts[-1:] == [GRADESCOPE_PEOPLE]:
        return PEOPLE_SIZE
    return FILE_SIZE if expected_file("/".join(parts)) or is_about(name) else 0


def directly(
    source: Path | bytes, name: str, level: int | None, budget: Budget
) -> Iterable[Member]:
    """Open an archive in this process."""
    return unpacked(source, name, wanted, level, budget.bytes)


def packages(
    paths: list[Path], opener: Opener = directly, level: int | None = None
) -> list[Package]:
    """Return all submissions in ``paths``: archives, folders, or classes in any layout.

    Each has a unique, safe name. Raise ValueError if there are none, if a path does not exist, or
    if the layout is ambiguous. ``level``: see ``layout_of``.
    """
    found: list[Package] = []
    for path in paths:
        if not os.path.lexists(path):
            expected = "a submission or a folder of submissions"
            raise ValueError(f"expected {expected}, got nothing at {path}")
        found += _packages_in(path, opener, level)
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
    """Number all submissions whose names differ only in capitals.

    None of them keeps the name, because it is not known whose it is.
    """
    groups: dict[str, list[Package]] = {}
    for package in found:
        groups.setdefault(package.name.casefold(), []).append(package)
    taken = set(groups)
    for group in (group for group in groups.values() if len(group) > 1):
        name, number = group[0].name, 0
        for package in group:
            while package.name.casefold() in taken:
                number += 1
                package.name = f"{name} ({number})"
            taken.add(package.name.casefold())
        names = ", ".join(f"{p.name} was {plain(p.owners[0].name)!r}" for p in group[:5])
        for package in group:
            package.notes.append(f"{len(group)} submissions have the same name: {names}")


def read_package(path: Path, opener: Opener = directly) -> Package:
    """Return one submission with any names of folders."""
    files, notes, _ = contents(path, opener)
    name = path.name if path.is_dir() else without_suffix(path.name)
    return Package(name, files, [note.text for note in notes])


def _packages_in(path: Path, opener: Opener, level: int | None) -> list[Package]:
    files, notes, empty = contents(path, opener, level)
    places = [*files, *(note.place for note in notes if note.place)]
    try:
        layout = layout_of(places, path.is_dir(), level)
        if layout is not None:
            at_level = [name for name in empty if name.count("/") == layout.level + 1]
            notes += [
                Note(name, f"{safe_name(name.rpartition('/')[0])} has no files")
                for name in at_level
            ]
            found = _split(path, layout, files, notes)
            print(plain(f"{path.name}: {len(found)} submissions, {layout.platform}"))
            return found
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    package = Package(path.name if path.is_dir() else without_suffix(path.name), files)
    package.notes = [note.text for note in notes]
    top = next(iter(files), "").partition("/")[0]
    if path.is_dir() and top.lower().endswith(ARCHIVES) and not GENERIC.fullmatch(top):
        package.name = without_suffix(top)  # a class of one
        package.owners = [Owner(package.name)]
    return [package] if places or path.is_file() else []


class _Class:
    """The submissions of a class while its files are being assigned."""

    def __init__(self, layout: Layout):
        self.layout = layout
        # by owner, number and, without a number, the folders above; by attempt
        self.attempts: dict[tuple[str, ...], dict[int, Package]] = {}
        self.late: set[tuple[str, ...]] = set()
        self.about: dict[int, File] = {}  # by id() of a package

    def package_of(self, name: str, file: File | None = None) -> tuple[Package | None, str]:
        """Return the submission of a file, and the file's path in it."""
        if (place := self.layout(name)) is None:
            return None, name
        # without a number, people of one name in two groups are different people
        above = [] if place.number else name.split("/")[: self.layout.level]
        key = (place.owner, place.number, *above)
        owner = Owner(place.owner, place.number, platform=self.layout.platform)
        new = Package(place.owner, owners=[owner], time=place.time, platform=self.layout.platform)
        package = self.attempts.setdefault(key, {}).setdefault(place.attempt, new)
        if place.late:
            self.late.add(key)
        if place.about:
            if file is not None:
                self.about[id(package)] = file
            return package, ""
        return package, place.file

    def newest(self) -> list[Package]:
        """Return the newest attempt of each student."""
        found = []
        for key, attempts in self.attempts.items():
            package = attempts[max(attempts)]
            if key in self.late:
                package.notes.insert(0, LATE_NOTE)
            if len(attempts) > 1:
                package.notes.append(f"{len(attempts)} attempts: the newest counts")
            found.append(package)
        return found


def _split(path: Path, layout: Layout, files: Files, notes: list[Note]) -> list[Package]:
    """Return the submissions of a class."""
    members, strays = _Class(layout), []
    for place, file in files.items():
        above = place.split("/")[: layout.level]
        n_archives = sum(part.lower().endswith(ARCHIVES) for part in above) + path.is_file()
        time = (file.time, *file.dates)[min(n_archives, len(file.dates))]
        package, inside = members.package_of(place, file)
        if package is None:
            if place.split("/")[layout.level :] != [GRADESCOPE_PEOPLE]:
                strays.append(safe_path(place))
        elif inside:
            package.files[inside] = file._replace(time=time)
    for note in notes:
        package = members.package_of(note.place)[0] if note.place else None
        if package is None:
            print(plain(f"{path.name}: {note.text}"))
        else:
            package.notes.append(note.text)
    if strays:
        print(plain(f"{path.name}: not treated as submissions: {_first(strays)}"))
    found = members.newest()
    if layout.platform is Platform.BLACKBOARD:
        for package in found:
            if about := members.about.get(id(package)):
                _name_by_blackboard(package, about.read())
    if layout.platform is Platform.GRADESCOPE:
        lists = [n for n in files if n.split("/")[layout.level :] == [GRADESCOPE_PEOPLE]]
        for name in lists:
            found = _named_by_gradescope(found, files[name].read())
    names = Counter(package.name for package in found)
    for package in found:
        if package.number and (names[package.name] > 1 or package.name in HIDDEN):
            package.name += f" {package.number}"
    return found


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _name_by_blackboard(package: Package, content: bytes) -> None:
    """Take name and login from the file that Blackboard adds."""
    name, login = blackboard_person(content, package.owners[0].number)
    if name:
        package.name = name
        package.owners = [Owner(name, login, (login,), Platform.BLACKBOARD)]
    if not package.files:
        package.notes.append("the attempt contains only a text, no files")


def _named_by_gradescope(found: list[Package], content: bytes) -> list[Package]:
    """Take names and times from Gradescope's list; it may name submissions without files."""
    by_folder = {f"submission_{package.number}": package for package in found}
    for folder, (owners, time) in gradescope_people(content).items():
        if (package := by_folder.get(folder)) is None:
            package = by_folder[folder] = Package(folder, platform=Platform.GRADESCOPE)
            package.notes.append("nothing was submitted")
        number = folder.rpartition("_")[2]
        if named := [owner._replace(number=number) for owner in owners if owner.name]:
            package.owners = named
            package.name = " and ".join(owner.name for owner in named)
        package.time = time
    return list(by_folder.values())


class Contents(NamedTuple):
    """The content of a folder or an archive, and notes about reading it."""

    files: Files
    notes: list[Note]
    empty: list[str]  # folders, as "ann/"


def contents(path: Path, opener: Opener = directly, level: int | None = None) -> Contents:
    """Read a folder or an archive.

    ``level``: the number of folders or archives above the students', if known.
    """
    if path.is_symlink():
        return Contents({}, [Note("", "the submission is a link; submit the files themselves")], [])
    reading = _Reading(opener, is_level_known=level is not None)
    if path.is_dir():
        reading.level = _level(path) if level is None else max(level - 1, 0)
        reading.read_folder(path)
    else:
        reading.level = level or 1  # the archive itself counts as a folder
        reading.add(path.name, path, path.stat().st_mtime)
    files, notes, empty = reading.files, reading.notes, reading.empty_folders()
    for name in files:
        if name.lower().endswith(UNSUPPORTED_ARCHIVES):
            what = f"{reading.shown(name)} cannot be opened here: pack a .zip instead"
            notes.append(Note(name, what))
    if not path.is_dir():
        prefix = f"{path.name}/"
        files = {name.removeprefix(prefix): file for name, file in files.items()}
        places = ["" if n.place == path.name else n.place.removeprefix(prefix) for n in notes]
        notes = [Note(place, n.text) for place, n in zip(places, notes, strict=True)]
        empty = [folder.removeprefix(prefix) for folder in empty]
    if reading.skipped:
        names = ", ".join(sorted(map(plain, reading.skipped)))
        notes.append(Note("", f"skipped files of operating systems and editors: {names}"))
    return Contents(files, notes, empty)


def _level(folder: Path) -> int:
    """Return the number of folders above the students'; the last one may be an archive."""
    level = 0
    while level < MAX_FOLDERS:
        with os.scandir(folder) as entries:
            some = islice((e for e in entries if not LITTER.fullmatch(e.name)), STUDENT_FILES)
            inner = [e for e in some if is_container(e.name) or e.is_dir(follow_symlinks=False)][:2]
        if len(inner) != 1 or inner[0].name.lower() in WORK:
            break
        level += 1
        if not inner[0].is_dir(follow_symlinks=False):
            break
        folder = Path(inner[0].path)
    return level


class _Reading:
    """Reads a folder or an archive, possibly of a class; each student has a budget."""

    def __init__(self, opener: Opener, is_level_known: bool = False):
        self.opener = opener
        self.level = 0  # the index of the student's folder in a path
        self.is_level_known = is_level_known
        self.files: Files = {}
        self.notes: list[Note] = []
        self.folders: dict[str, None] = {}  # possible submissions
        self.skipped: set[str] = set()
        self.budgets: dict[str, Budget] = {}

    def owner(self, name: str) -> str:
        return owner_of(name, self.level)

    def shown(self, name: str) -> str:
        """Return the name of a file in its submission, if there is such a part."""
        parts = name.split("/")
        return safe_path("/".join(parts[self.level + 1 :] or parts[-1:]))

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
            self.add_folder(prefix)
            budget = self.budget(prefix)
            if budget.files < 0:
                continue
            try:
                with os.scandir(parent) as listing:
                    all_entries = sorted(islice(listing, STUDENT_FILES + 1), key=lambda e: e.name)
            except OSError as error:  # no permission, or a path that is too long
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

    def add_folder(self, name: str) -> None:
        if name.count("/") <= MAX_FOLDERS and len(self.folders) < STUDENT_FILES:
            self.folders.setdefault(name)

    def empty_folders(self) -> list[str]:
        used = set()
        for name in (*self.files, *(note.place for note in self.notes)):
            parts = name.split("/")[: MAX_FOLDERS + 1]
            used |= {"/".join(parts[: n + 1]) for n in range(len(parts))}
        return [folder for folder in self.folders if folder.rstrip("/") not in used]

    def add_file(self, name: str, file: Path) -> None:
        status = file.lstat()
        if stat.S_ISREG(status.st_mode):
            self.add(name, file, status.st_mtime)
        else:
            self.note(name, f"{self.shown(name)} {LeftOut.NOT_PLAIN}")

    def add(
        self,
        name: str,
        source: Path | bytes,
        time: float,
        dates: tuple[float, ...] = (),
    ) -> None:
        """Add a file under its name, or the files in it if it is an archive."""
        if not name.lower().endswith(ARCHIVES) or len(dates) == DEPTH:
            self.files[name] = File(_reader(source, wanted(name) or FILE_SIZE), time, dates)
            return
        before = len(self.files), len(self.notes)
        try:
            for member in self.opened(name, source):
                self.add_member(name, member, time, dates)
        except Exception as error:  # corrupt archives raise many kinds of exceptions
            why = f"cannot be opened: {plain(str(error))[:200]}"
            self.note(name, f"{self.shown(name)} {why}")
            if len(self.files) == before[0]:  # its owner still needs a submission
                self.files[name] = File(Member(name, problem=why).read, time, dates)
        if (len(self.files), len(self.notes)) == before:
            self.note(name, f"{self.shown(name)} has no files")

    def add_member(
        self, archive: str, member: Member, time: float, dates: tuple[float, ...]
    ) -> None:
        """Add a file of an archive."""
        parts = parts_of(member.name)
        name = "/".join([archive, *parts])
        if member.name.endswith("/") and not (member.problem or member.left_out):
            if parts and not any(map(LITTER.fullmatch, parts)):
                self.add_folder(f"{name}/")
            return
        outer = dates[-1] if dates else time
        date = member.date if member.date and 0 < member.date < LATEST else outer
        dates = (*dates, date)
        litter = [part for part in parts if LITTER.fullmatch(part)]
        budget = self.budget(name)
        budget.files -= 1
        if litter:
            self.skip(litter[0])
            above = [archive, *parts[: parts.index(litter[0])]]
            for n in range(2, len(above) + 1):  # folders may be missing in the archive's list
                self.add_folder("/".join(above[:n]) + "/")
        elif budget.files < 0 or member.left_out is LeftOut.TOO_MANY:
            if budget.files >= -1:  # only once
                self.note(name, f"{self.shown(name)} {LeftOut.TOO_MANY}")
            budget.files = min(budget.files, -1)
        elif member.left_out:
            self.note(name, f"{self.shown(name)} {member.left_out}")
        elif parts and name.lower().endswith(ARCHIVES) and member.content is not None:
            self.add(name, member.content, time, dates)
        elif parts:
            self.files[name] = File(member.read, time, dates)

    def opened(self, name: str, source: Path | bytes) -> list[Member]:
        """Return the files in an archive; raise ValueError if its owner's budget is used up."""
        budget, is_class = self.budget(name), name.count("/") < self.level
        budget.archives -= 1
        if budget.archives < 0 or budget.seconds <= 0 or budget.bytes <= 0:
            full = Budget()
            most = f"{full.archives} archives, {full.seconds:.0f} s to open them"
            raise ValueError(f"expected at most {most}, {full.bytes} bytes in them")
        below = name.count("/") + 1
        if not is_class:
            return list(self.opener(source, name, None, budget))
        if self.is_level_known:
            return list(self.opener(source, name, self.level - below, budget))
        members = list(self.opener(source, name, AS_MANY, budget))
        self.level = below + level_of_students(member.name for member in members)
        return members


def _reader(source: Path | bytes, most: int) -> Callable[[], bytes]:
    if isinstance(source, bytes):
        return partial(bytes, source)
    return lambda: read_at_most(source.open("rb"), most)
