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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from grading.intake.archives import MANY, NOT_PLAIN, PART, TOO_MANY, Member, bounded, unpacked

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
LONGEST = 160  # bytes of a name, to which the grader adds some
METHOD = r"(?:^|[^a-z])(svd|als|bpr|warp)(?:[^a-z]|$)"
GENERIC = re.compile(r"(submission|assignment|abgabe|homework|hw\d*|archiv\w*)\b.*", re.IGNORECASE)


class File(NamedTuple):
    read: Callable[[], bytes]
    time: float  # when it was last changed, or its archive


Files = dict[str, File]
# An archive, its name, whose a file in it is, what may be spent -> what is in it.
Opener = Callable[[Path | bytes, str, Callable[[str], str], "Budget"], Iterable[Member]]


class Note(NamedTuple):
    """What is to be said, and of which place in a package or a class."""

    place: str
    text: str


@dataclass
class Budget:
    """What one student's files may still cost."""

    bytes: int = PART  # taken out of archives
    seconds: float = 40.0  # of the processor, to open them
    archives: int = 20
    files: int = field(default_factory=lambda: MANY)
    notes: int = 50


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
    kept = kept[:most].encode()[:LONGEST].decode("utf-8", "ignore")
    return kept.strip(" .-'@") or "unnamed"


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


def directly(
    source: Path | bytes, name: str, share: Callable[[str], str], budget: Budget
) -> Iterable[Member]:
    """What is in an archive, opened in this process."""
    return unpacked(source, name, wanted, share, budget.bytes)


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
    name = path.name if path.is_dir() else _stem(path.name)
    return Package(name, files, [note.text for note in notes])


def _packages_in(path: Path, opener: Opener) -> list[Package]:
    files, notes = contents(path, opener)
    places = [*files, *(note.place for note in notes if note.place)]
    student = _layout(places) or (_plainly if _is_class(path, places) else None)
    if student is None:
        whole = Package(path.name if path.is_dir() else _stem(path.name), files)
        whole.notes = [note.text for note in notes]
        top = next(iter(files), "").partition("/")[0]
        if path.is_dir() and top.lower().endswith(ARCHIVES) and not GENERIC.fullmatch(top):
            whole.name = _stem(top)  # a class of one
        return [whole] if places or path.is_file() else []
    found: dict[tuple[str, str], Package] = {}

    def package_of(name: str) -> tuple[Package | None, str]:
        if (place := student(name)) is None:
            return None, name
        new = Package(place.owner, number=place.number)
        package = found.setdefault((place.owner, place.number), new)
        late = "Canvas says that it is late"
        if place.late and late not in package.notes[:1]:
            package.notes.insert(0, late)
        return package, place.file

    strays = []
    for name, file in files.items():
        package, own = package_of(name)
        if package is None:
            strays.append(safe_name(name))
        else:
            package.files[own] = file
    for note in notes:
        package = package_of(note.place)[0] if note.place else None
        if package is None:
            print(plain(f"{path.name}: {note.text}"))
        else:
            package.notes.append(note.text)
    if strays:
        print(plain(f"{path.name}: not taken for submissions: {', '.join(strays[:5])}"))
    names = Counter(package.name for package in found.values())
    for package in found.values():
        if package.number and (names[package.name] > 1 or package.name in HIDDEN):
            package.name += f" {package.number}"
    return list(found.values())


def _is_class(path: Path, names: list[str]) -> bool:
    """Whether each folder or archive in ``path`` is a submission, without a platform's names."""
    tops: dict[str, set[str | None]] = {}
    for name in names:
        if _deep(name):
            tops.setdefault(name.partition("/")[0], set()).add(expected(name))
    flat = any(expected(name) for name in names if "/" not in name)
    if flat or {"mflib", "notebooks"} & {top.lower() for top in tops} or len(tops) < 2:
        return False
    twice = sum(map(len, tops.values())) > len(set().union(*tops.values()))
    return twice or path.is_dir()


def _deep(name: str) -> bool:
    return "/" in name or name.lower().endswith(ARCHIVES + CLOSED)


def _plainly(name: str) -> Place | None:
    """Whose file it is, where each folder or archive is a submission."""
    top, _, rest = name.partition("/")
    return Place(_stem(top), "", rest or name) if _deep(name) else None


def _layout(names: list[str]) -> Callable[[str], Place | None] | None:
    """How nbgrader, Canvas or Moodle lay out a class, if it is one of theirs: whose a file is.

    One student's files cannot make it seem to be one: most of what lies beside each other, and in
    every folder of that level, has to be called so.
    """
    for level in range(3):
        parts = [name.split("/") for name in names if level == 0 or _deep(name)]
        for student, enough in ((_of_nbgrader, 0.0), (_of_platform, 0.5)):
            beside: dict[tuple, dict[str, bool]] = {tuple(p[:level]): {} for p in parts}
            for whole in (p for p in parts if len(p) > level):
                folder, own = beside[tuple(whole[:level])], whole[level]
                folder[own] = folder.get(own, False) or student(level, whole) is not None
            fit = (sum(folder.values()) > enough * len(folder) for folder in beside.values())
            if beside and all(fit):
                return lambda name, level=level, student=student: student(level, name.split("/"))
    return None


def _of_nbgrader(level: int, whole: list[str]) -> Place | None:
    parts = whole[level:]  # whatever else lies beside "submitted"
    if parts[:1] == ["submitted"] and len(parts) > 3:
        return Place(parts[1], "", "/".join(parts[3:]))
    return None


def _of_platform(level: int, whole: list[str]) -> Place | None:
    part, *rest = whole[level:] or [""]
    # what Moodle calls a file has no two numbers; what a student calls one, on Canvas, may be
    match = CANVAS_HIDDEN.fullmatch(part) or CANVAS.fullmatch(part) or MOODLE.fullmatch(part)
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


def contents(path: Path, opener: Opener = directly) -> tuple[Files, list[Note]]:
    """The files of a folder or an archive by name, and what is to be said."""
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
        if name.lower().endswith(CLOSED):
            notes.append(
                Note(name, f"{safe_name(name)} cannot be opened here: pack a .zip instead")
            )
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
    """How many parts of a path all students share: folders, or an archive, that are alone."""
    level = 0
    while True:
        with os.scandir(folder) as entries:
            some = islice((e for e in entries if not LEFT.fullmatch(e.name)), MANY)
            deep = [e for e in some if _deep(e.name) or e.is_dir(follow_symlinks=False)][:2]
        if len(deep) != 1 or level > 9:
            return level
        level += 1
        if not deep[0].is_dir(follow_symlinks=False):
            return level
        folder = Path(deep[0].path)


class _Reading:
    """A folder or an archive, perhaps of a class, of which nobody may cost more than a budget."""

    def __init__(self, opener: Opener):
        self.opener = opener
        self.level = 0  # the part of a path that says whose it is
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
        if len(self.skipped) < 6:
            self.skipped.add(name[:80])

    def read_folder(self, folder: Path) -> None:
        """All in it, each folder's own files before those beneath."""
        todo = [folder]
        while todo:
            parent = todo.pop()
            place = parent.relative_to(folder).as_posix()
            inside = f"{place}/" if parent != folder else ""
            budget = self.budget(inside)
            if budget.files < 0:
                continue
            try:
                with os.scandir(parent) as entries:
                    found = sorted(islice(entries, MANY + 1), key=lambda entry: entry.name)
            except OSError as error:  # no right to look, or nested too deeply for a path
                self.note(inside, f"{safe_name(place)} cannot be opened: {error.strerror}")
                continue
            for entry in found:
                if LEFT.fullmatch(entry.name):
                    self.skip(entry.name)
            found = [entry for entry in found if not LEFT.fullmatch(entry.name)]
            budget.files -= len(found)
            if budget.files < 0:
                owner = safe_name(self.owner(inside) or folder.name)
                self.note(inside, f"{owner}: expected at most {MANY} files")
            folders = [e for e in found if e.is_dir(follow_symlinks=False)]
            todo += [Path(e.path) for e in reversed(folders)]
            for entry in found:
                if entry not in folders:
                    self.add_leaf(f"{inside}{entry.name}", Path(entry.path))

    def add_leaf(self, name: str, leaf: Path) -> None:
        found = leaf.lstat()
        if stat.S_ISREG(found.st_mode):
            self.add(name, leaf, found.st_mtime)
        else:
            self.note(name, f"{safe_name(name)} {NOT_PLAIN}")

    def add(self, name: str, source: Path | bytes, time: float, depth: int = DEPTH) -> None:
        """A file under its name, or what is in it if it is an archive."""
        if not name.lower().endswith(ARCHIVES) or depth == 0:
            whole = isinstance(source, bytes)
            read = (
                partial(bytes, source) if whole else lambda: bounded(source.open("rb"), FILE_SIZE)
            )
            self.files[name] = File(read, time)
            return
        before = len(self.files)
        try:
            for member in self.opened(name, source):
                inside = "/".join([name, *_parts(member.name)])
                left = [part for part in _parts(member.name) if LEFT.fullmatch(part)]
                budget = self.budget(inside)
                budget.files -= 1
                if left:
                    self.skip(left[0])
                elif budget.files < 0 or member.problem == TOO_MANY:
                    if budget.files >= -1:  # said once
                        self.note(inside, f"{safe_name(inside)} {TOO_MANY}")
                    budget.files = min(budget.files, -1)
                elif member.problem == NOT_PLAIN:
                    self.note(inside, f"{safe_name(inside)} {NOT_PLAIN}")
                elif inside == name:
                    continue
                elif inside.lower().endswith(ARCHIVES) and member.content is not None:
                    self.add(inside, member.content, time, depth - 1)
                else:
                    self.files[inside] = File(member.read, time)
        except Exception as error:  # the readers of archives raise many kinds on a corrupt one
            why = f"cannot be opened: {plain(str(error))[:200]}"
            self.note(name, f"{safe_name(name)} {why}")
            if len(self.files) == before:  # whose it is, is to be seen all the same
                self.files[name] = File(Member(name, problem=why).read, time)

    def opened(self, name: str, source: Path | bytes) -> list[Member]:
        """What is in an archive, as long as its owner has something left for it."""
        budget, of_class = self.budget(name), name.count("/") < self.level
        budget.archives -= 1
        if budget.archives < 0 or budget.seconds <= 0 or budget.bytes <= 0:
            allowed = Budget()
            most = f"{allowed.archives} archives, {allowed.seconds:.0f} s to open them"
            raise ValueError(f"expected at most {most}, {allowed.bytes} bytes in them")
        share = _top if of_class else _nobody
        found = list(self.opener(source, name, share, budget))
        tops = {_top(member.name) for member in found if not LEFT.fullmatch(_top(member.name))}
        if of_class and len(tops) == 1 and not _deep(tops.pop()):
            self.level += 1
        return found


def _top(name: str) -> str:
    return next(iter(_parts(name)), "")


def _nobody(name: str) -> str:
    return ""


def _parts(name: str) -> list[str]:
    return [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
