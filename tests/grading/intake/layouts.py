"""Recognise how the submissions of a class are laid out: by a learning platform, or in folders.

A layout is recognised by names alone. Names that are students' own begin after the part that names
the student, so nobody can change whose a file is.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import takewhile
from typing import NamedTuple

from grading.intake.names import (
    METHOD,
    SUBMITTED,
    WORK,
    common_folders,
    expected_file,
    is_container,
    without_suffix,
)

# How learning platforms name a student's folder (Moodle, Brightspace) or file (Canvas, Blackboard).
# The number is the person's, in Moodle for this assignment; if names are hidden, there is nothing
# else.
MOODLE = re.compile(
    r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)"
)
CANVAS = re.compile(
    r"(?P<name>[^_/]+?)(?P<late>_LATE)?_(?P<number>\d+)_\d+_(?P<file>.+)", re.IGNORECASE
)
CANVAS_HIDDEN = re.compile(
    r"(?P<late>LATE_)?(?P<name>anon)_(?P<number>[A-Za-z0-9]+)_\d+_(?P<file>.+)"
)
BLACKBOARD = re.compile(
    r"(?P<head>.+?)_attempt_(?P<time>\d{4}(?:-\d\d){5})(?:_(?P<file>.+)|(?P<about>\.txt))"
)
BRIGHTSPACE = re.compile(
    r"(?P<number>\d+)-\d+ - (?P<name>.+?) - "
    r"(?P<day>[^ ]+ \d{1,2}, \d{4}|\d{1,2} [^ ]+,? \d{4}) (?P<hour>\d{3,4})(?: (?P<half>[AP]M))?"
)
GRADESCOPE = re.compile(r"submission_(?P<number>\d+)")
GRADESCOPE_PEOPLE = "submission_metadata.yml"
TEAMS_VERSION = re.compile(r"versi[oó]n (?P<version>\d+)", re.IGNORECASE)
HIDDEN = ("Participant", "anon")  # instead of names
MAX_LEVEL = 4  # folders above the submissions


class Platform(StrEnum):
    """Where the files of a class come from."""

    FOLDERS = "a folder or archive for each student"
    NBGRADER = "nbgrader"
    MOODLE = "Moodle"
    CANVAS = "Canvas"
    BLACKBOARD = "Blackboard"
    BRIGHTSPACE = "Brightspace"
    TEAMS = "Teams"
    GRADESCOPE = "Gradescope"


class Owner(NamedTuple):
    """A student: the name, the platform's number, and other identifiers, as a login or an email."""

    name: str
    number: str = ""
    ids: tuple[str, ...] = ()
    platform: Platform | None = None  # whose number it is


class Place(NamedTuple):
    """Whose file it is, by name and by the platform's number, and its name there."""

    owner: str
    number: str
    file: str
    late: bool = False
    attempt: int = 0  # the largest one counts
    time: datetime | None = None  # of the attempt, without a zone
    about: bool = False  # a file of the platform about the attempt, not the student's


@dataclass(frozen=True)
class Layout:
    """How the submissions of a class are laid out."""

    platform: Platform
    level: int  # folders above those of the students
    place_of: Callable[[list[str]], Place | None]  # parts of a path below them; None: nobody's

    def __call__(self, name: str) -> Place | None:
        return self.place_of(name.split("/")[self.level :] or [""])


def layout_of(names: list[str], is_folder: bool, level: int | None = None) -> Layout | None:
    """Return the layout of a class, or None if the files are one submission.

    Parameters
    ----------
    names : list of str
        Paths of all files; an archive is a folder whose name ends in its suffix.
    is_folder : bool
        Whether they are in a folder, not in an archive.
    level : int, optional
        How many folders or archives contain those of the students, as the instructor says; 0 for
        one submission.

    Raises
    ------
    ValueError
        If the names fit several layouts.
    """
    if level is not None:
        by_folder = Layout(Platform.FOLDERS, level - 1, _of_folder)
        return (_platform_of(names) or by_folder) if level else None
    return _platform_of(names) or _folders_of(names, is_folder)


def _folders_of(names: list[str], is_folder: bool) -> Layout | None:
    """Return the layout in which each folder or archive of one level is a submission."""
    level = common_folders(names)
    inside = [path for name in names if (path := name.split("/")[level:])]
    tops = _by_top(inside)
    flat = any(len(path) == 1 and expected_file(path[0]) for path in inside)
    if flat or WORK & {top.lower() for top in tops} or len(tops) < 2:
        _refuse_copies(inside, level)
        return None
    if not _in_several(tops.values()):
        tasks = sum(bool(re.match(rf"(?:\d\d?_)?{METHOD}", top.lower())) for top in tops)
        if not (is_folder and level == 0 and tasks < len(tops)):
            _refuse_copies(inside, level)
            return None
    # Sections: most folders hold several others with the same files.
    sections = [top for top, paths in tops.items() if _is_class(paths)]
    if 2 * len(sections) > len(tops):
        which = _in_several(_by_top(tops[sections[0]]).values())
        raise _ambiguous(
            f"{min(which)} is several times in each of {_listed(sections)}",
            {
                level + 1: f"these are {len(tops)} students with several copies each",
                level + 2: "these are groups, whose folders are the students'",
            },
        )
    return Layout(Platform.FOLDERS, level, _of_folder)


def _by_top(paths: Iterable[list[str]]) -> dict[str, list[list[str]]]:
    tops: dict[str, list[list[str]]] = {}
    for path in paths:
        if path and is_container("/".join(path)):
            tops.setdefault(path[0], []).append(path[1:])
    return tops


def _is_class(paths: list[list[str]]) -> bool:
    """Return whether the folders in a folder may be students'."""
    tops = _by_top(paths)
    flat = any(len(path) == 1 and expected_file(path[0]) for path in paths)
    return (
        not flat and not WORK & {top.lower() for top in tops} and bool(_in_several(tops.values()))
    )


def _in_several(groups: Iterable[list[list[str]]]) -> set[str]:
    """Return the expected files that are in several groups of paths."""
    counts: Counter[str] = Counter()
    for paths in groups:
        counts.update({which for path in paths if path and (which := expected_file(path[-1]))})
    return {which for which, count in counts.items() if count > 1}


def _refuse_copies(paths: list[list[str]], level: int) -> None:
    """Raise ValueError if one submission has copies of which none is the obvious one."""
    copies: dict[tuple[str, int, bool], list[str]] = {}
    for path in paths:
        if which := expected_file(path[-1]):
            folders = path[:-1]
            in_place = bool(folders) and folders[-1].lower() in WORK
            key = (which, len(folders) - in_place, in_place)
            copies.setdefault(key, []).append("/".join(path))
    best: dict[str, tuple[str, int, bool]] = {}
    for key in sorted(copies, key=lambda k: (k[1], not k[2])):
        best.setdefault(key[0], key)
    for which, key in best.items():
        exact = [name for name in copies[key] if name.rpartition("/")[2].lower() == which]
        if len(copies[key]) > 1 and len(exact) != 1:
            several = len({name.rpartition("/")[0] for name in copies[key]}) > 1
            raise _ambiguous(
                f"{which} is there {len(copies[key])} times: {_listed(copies[key])}",
                {0: "this is one submission with copies, of which the newest counts"}
                | ({level + 1: "each folder is a student's"} if several else {}),
            )


def _ambiguous(what: str, layouts: Mapping[int, str]) -> ValueError:
    choices = "; ".join(f"--level {level} if {meaning}" for level, meaning in layouts.items())
    return ValueError(f"{what}; pass {choices}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _of_folder(path: list[str]) -> Place | None:
    top, *rest = path
    if not is_container("/".join(path)):
        return None
    return Place(without_suffix(top), "", "/".join(rest) or top)


def _platform_of(names: list[str]) -> Layout | None:
    """Return the layout of a learning platform, if it is one of theirs.

    Most names in every folder of a level must have the platform's form, so that one student's files
    cannot make a class look like another platform's.
    """
    for level in range(MAX_LEVEL):
        paths = [name.split("/") for name in names if level == 0 or is_container(name)]
        paths = [path for path in paths if len(path) > level]
        for platform, place_of, enough in _forms([path[level:] for path in paths]):
            # by folder of this level, and by entry in it: whether that has the platform's form
            folders: dict[tuple[str, ...], dict[str, bool]] = {tuple(p[:level]): {} for p in paths}
            for path in paths:
                folder, entry = folders[tuple(path[:level])], path[level]
                folder[entry] = folder.get(entry, False) or place_of(path[level:]) is not None
            fits = (sum(folder.values()) > enough * len(folder) for folder in folders.values())
            if folders and all(fits):
                _check(platform, [path[level:] for path in paths])
                return Layout(platform, level, place_of)
    return None


def _forms(
    paths: list[list[str]],
) -> Iterable[tuple[Platform, Callable[[list[str]], Place | None], float]]:
    """Yield platforms, and which part of the entries of a folder must have their form."""
    yield Platform.NBGRADER, _of_nbgrader, 0.0
    yield Platform.TEAMS, _of_submitted_files, 0.0
    yield Platform.TEAMS, _of_teams, 0.5
    if any(path == [GRADESCOPE_PEOPLE] for path in paths):
        yield Platform.GRADESCOPE, _of_gradescope, 0.0
    yield Platform.BRIGHTSPACE, _of_brightspace, 0.5
    heads = [match["head"] for path in paths if (match := BLACKBOARD.fullmatch(path[0]))]
    if heads:
        yield Platform.BLACKBOARD, partial(_of_blackboard, _assignment_of(heads)), 0.5
    # Moodle's own names never match Canvas' pattern; a student's file name on Canvas may match
    # Moodle's, so that is tried last
    yield Platform.CANVAS, partial(_of_pattern, (CANVAS_HIDDEN, CANVAS)), 0.5
    yield Platform.MOODLE, partial(_of_pattern, (MOODLE,)), 0.5


def _check(platform: Platform, paths: list[list[str]]) -> None:
    """Raise ValueError if it cannot be known what counts."""
    if platform is Platform.TEAMS:
        below = [path[1:] if path[0] in SUBMITTED else path for path in paths if len(path) > 3]
        if len(titles := sorted({path[1] for path in below if _of_teams(path)})) > 1:
            raise ValueError(
                f"expected one assignment in Teams' folders, got {_listed(titles)}; "
                "keep the folders of one"
            )
    if platform is Platform.BRIGHTSPACE:
        tops = sorted({path[0] for path in paths})
        places = [(top, place) for top in tops if (place := _of_brightspace([top, ""]))]
        several = Counter((place.owner, place.number) for _, place in places)
        for top, place in places:
            if place.time is None and several[place.owner, place.number] > 1:
                raise ValueError(
                    f"expected a time as 'Jan 31, 2026 600 PM' in the name of {top!r}, since "
                    f"{place.owner} has several attempts; keep one of them"
                )


def _of_nbgrader(path: list[str]) -> Place | None:
    # other entries next to "submitted" are nobody's
    if path[:1] == ["submitted"] and len(path) > 3:
        return Place(path[1], "", "/".join(path[3:]))
    return None


def _of_submitted_files(path: list[str]) -> Place | None:
    """Teams' library: next to what was submitted are drafts, which are nobody's."""
    return _of_teams(path[1:]) if path[0] == "Submitted files" else None


def _of_teams(path: list[str]) -> Place | None:
    if len(path) > 3 and (match := TEAMS_VERSION.fullmatch(path[2])):
        return Place(path[0], "", "/".join(path[3:]), attempt=int(match["version"]))
    return None


def _of_gradescope(path: list[str]) -> Place | None:
    match = GRADESCOPE.fullmatch(path[0])
    if match and len(path) > 1:
        return Place(path[0], match["number"], "/".join(path[1:]))
    return None


def _of_brightspace(path: list[str]) -> Place | None:
    match = BRIGHTSPACE.fullmatch(path[0])
    if not match or len(path) < 2:
        return None
    # the hour has no separator: 600 is 6:00
    text = f"{match['day'].replace(',', '')} {match['hour'][:-2]}:{match['hour'][-2:]}"
    text += f" {match['half'] or ''}"
    time = None
    for day in ("%b %d %Y", "%B %d %Y", "%d %b %Y", "%d %B %Y"):
        for hour in ("%I:%M %p", "%H:%M "):
            with suppress(ValueError):
                time = time or datetime.strptime(text, f"{day} {hour}")
    place = Place(match["name"], match["number"], "/".join(path[1:]))
    return place._replace(time=time, attempt=_sortable(time) if time else 0)


def _assignment_of(heads: list[str]) -> str:
    """Return the beginning that Blackboard's names share: the title of the assignment."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(min(heads), max(heads), strict=False))
    front, mark, _ = "".join(one for one, _ in same).rpartition("_")
    return front + mark


def _of_blackboard(assignment: str, path: list[str]) -> Place | None:
    match = BLACKBOARD.fullmatch(path[0])
    if not match or not match["head"].startswith(assignment):
        return None
    try:
        time = datetime.strptime(match["time"], "%Y-%m-%d-%H-%M-%S")
    except ValueError:
        return None
    login = match["head"].removeprefix(assignment)
    file = "/".join(filter(None, [match["file"], *path[1:]]))
    about = bool(match["about"])
    return Place(login, login, file, attempt=_sortable(time), time=time, about=about)


def is_about(name: str) -> bool:
    """Return whether a file may be Blackboard's about an attempt."""
    match = BLACKBOARD.fullmatch(name.rpartition("/")[2])
    return match is not None and match["about"] is not None


def _sortable(time: datetime) -> int:
    return int(time.strftime("%Y%m%d%H%M%S"))


def _of_pattern(patterns: tuple[re.Pattern[str], ...], path: list[str]) -> Place | None:
    part, *rest = path
    match = next((m for pattern in patterns if (m := pattern.fullmatch(part))), None)
    if match and (match["file"] or rest):
        file = "/".join(filter(None, [match["file"], *rest]))
        late = bool(match.groupdict().get("late"))
        return Place(without_suffix(match["name"]), match["number"], file, late)
    return None


class Submitters(NamedTuple):
    """Who has handed in a submission on Gradescope, and when."""

    owners: tuple[Owner, ...]
    time: datetime | None


def gradescope_people(content: bytes) -> dict[str, Submitters]:
    """Return the submitters by the folder's name, from submission_metadata.yml.

    The file is read line by line: of YAML, Gradescope uses few forms there, and a file of a few
    kilobytes can take a YAML reader hours.
    """
    found: dict[str, Submitters] = {}
    folder, in_submitters = "", False
    for line in content.decode("utf-8", "replace").splitlines():
        if not line.startswith((" ", "-", "#")):
            folder = line.rstrip(":").strip("'\" ")
            found |= {folder: Submitters((), None)} if GRADESCOPE.fullmatch(folder) else {}
            in_submitters = False
            continue
        match = re.fullmatch(r"(?P<indent> {2,4}(?P<new>- )?):(?P<key>\w+): ?(?P<value>.*)", line)
        if match is None or folder not in found:
            continue
        owners, time = found[folder]
        key, value = match["key"], _scalar(match["value"])
        if match["indent"] == "  ":
            in_submitters = key == "submitters"
            if key == "created_at":
                with suppress(ValueError):
                    time = datetime.fromisoformat(value.replace(" Z", "+00:00"))
        elif in_submitters and (match["new"] or owners):
            last = Owner("", platform=Platform.GRADESCOPE) if match["new"] else owners[-1]
            owners = owners if match["new"] else owners[:-1]
            if key == "name":
                last = last._replace(name=value)
            elif key in ("sid", "email") and value:
                last = last._replace(ids=(*last.ids, value))
            owners = (*owners, last)
        found[folder] = Submitters(owners, time)
    return found


def _scalar(text: str) -> str:
    """Return a text that YAML has written in one line."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        with suppress(ValueError):
            return str(json.loads(text))
        return text[1:-1]
    return text


def blackboard_person(content: bytes, login: str) -> tuple[str, str]:
    """Return name and login in the file that Blackboard adds to an attempt, or empty texts.

    Only its first line counts, as what follows quotes the student.

    Parameters
    ----------
    content : bytes
        The file.
    login : str
        The login in the file's name, or its end.
    """
    first = content.decode("utf-8-sig", "replace").lstrip().partition("\n")[0]
    match = re.fullmatch(r"[^:]+: *(?P<name>.+?) *\((?P<login>[^()]*)\)\s*", first)
    if match and f"_{match['login']}".endswith(f"_{login}"):
        return match["name"], match["login"]
    return "", ""
