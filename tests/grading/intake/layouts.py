"""Recognise the layout of a class: the export of a learning platform, or folders.

A layout is recognised by paths alone. The part of a path that names the student comes before the
names that students choose, so nobody can put files into another submission.
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
# The number identifies the person, in Moodle for this assignment only. If names are hidden, there
# is only a number.
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
HIDDEN = ("Participant", "anon")  # placeholders for hidden names
MAX_LEVEL = 4  # folders above the submissions


class Platform(StrEnum):
    """The source of the files of a class."""

    FOLDERS = "a folder or archive for each student"
    NBGRADER = "nbgrader"
    MOODLE = "Moodle"
    CANVAS = "Canvas"
    BLACKBOARD = "Blackboard"
    BRIGHTSPACE = "Brightspace"
    TEAMS = "Teams"
    GRADESCOPE = "Gradescope"


class Owner(NamedTuple):
    """A student: name, the platform's number, and other identifiers such as login and email."""

    name: str
    number: str = ""
    ids: tuple[str, ...] = ()
    platform: Platform | None = None  # the platform that assigned the number


class Place(NamedTuple):
    """The owner of a file (name and platform's number), and its path in the submission."""

    owner: str
    number: str
    file: str
    late: bool = False
    attempt: int = 0  # the attempt with the largest number counts
    time: datetime | None = None  # of the attempt, without a zone
    about: bool = False  # a file of the platform, not of the student


@dataclass(frozen=True)
class Layout:
    """The layout of the submissions of a class."""

    platform: Platform
    level: int  # folders above those of the students
    place_of: Callable[[list[str]], Place | None]  # parts of a path below them; None: no student's

    def __call__(self, name: str) -> Place | None:
        return self.place_of(name.split("/")[self.level :] or [""])


def layout_of(names: list[str], is_folder: bool, level: int | None = None) -> Layout | None:
    """Return the layout of a class, or None if the files are one submission.

    Parameters
    ----------
    names : list of str
        Paths of all files; archives count as folders whose names end in their suffixes.
    is_folder : bool
        Whether they are in a folder, not in an archive.
    level : int, optional
        The number of folders or archives above the students', given by the instructor; 0 for one
        submission.

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
    """Return the layout in which each folder or archive at one level is a submission."""
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
            f"there are several copies of {min(which)} in each of {_listed(sections)}",
            {
                level + 1: f"these are {len(tops)} students with several copies each",
                level + 2: "these are groups that contain the students' folders",
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
    """Return whether the subfolders of a folder may be submissions."""
    tops = _by_top(paths)
    flat = any(len(path) == 1 and expected_file(path[0]) for path in paths)
    return (
        not flat and not WORK & {top.lower() for top in tops} and bool(_in_several(tops.values()))
    )


def _in_several(groups: Iterable[list[list[str]]]) -> set[str]:
    """Return the expected files that occur in several groups of paths."""
    counts: Counter[str] = Counter()
    for paths in groups:
        counts.update({which for path in paths if path and (which := expected_file(path[-1]))})
    return {which for which, count in counts.items() if count > 1}


def _refuse_copies(paths: list[list[str]], level: int) -> None:
    """Raise ValueError if a submission has copies and none of them is the obvious choice."""
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
                f"there are {len(copies[key])} copies of {which}: {_listed(copies[key])}",
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
    """Return the learning platform's layout, or None if the names fit none.

    Most names in every folder of a level must have the platform's form, so that one student's files
    cannot make a class look like another platform's.
    """
    for level in range(MAX_LEVEL):
        paths = [name.split("/") for name in names if level == 0 or is_container(name)]
        paths = [path for path in paths if len(path) > level]
        for platform, place_of, enough in _forms([path[level:] for path in paths]):
            # by folder at this level and by entry in it: whether the entry has the platform's form
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
    """Yield platforms and the fraction of a folder's entries that must have their form."""
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
    """Raise ValueError if it is unclear which assignment or attempt counts."""
    if platform is Platform.TEAMS:
        below = [path[1:] if path[0] in SUBMITTED else path for path in paths if len(path) > 3]
        if len(titles := sorted({path[1] for path in below if _of_teams(path)})) > 1:
            raise ValueError(
                f"expected one assignment in Teams' folders, got {_listed(titles)}; "
                "keep the folders of only one"
            )
    if platform is Platform.BRIGHTSPACE:
        tops = sorted({path[0] for path in paths})
        places = [(top, place) for top in tops if (place := _of_brightspace([top, ""]))]
        several = Counter((place.owner, place.number) for _, place in places)
        for top, place in places:
            if place.time is None and several[place.owner, place.number] > 1:
                raise ValueError(
                    f"expected a time such as 'Jan 31, 2026 600 PM' in the name of {top!r}, since "
                    f"{place.owner} has several attempts; keep one of them"
                )


def _of_nbgrader(path: list[str]) -> Place | None:
    # other entries next to "submitted" are not students' files
    if path[:1] == ["submitted"] and len(path) > 3:
        return Place(path[1], "", "/".join(path[3:]))
    return None


def _of_submitted_files(path: list[str]) -> Place | None:
    """Ignore Teams' drafts, which lie next to the submitted files."""
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
    """Return the common prefix of Blackboard's names: the title of the assignment."""
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
    """Return whether a file may be Blackboard's description of an attempt."""
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
    """The students and the time of a submission on Gradescope."""

    owners: tuple[Owner, ...]
    time: datetime | None


def gradescope_people(content: bytes) -> dict[str, Submitters]:
    """Return the submitters by folder name, from submission_metadata.yml.

    The file is parsed line by line: Gradescope uses only a few forms of YAML in it, and a hostile
    file of a few kilobytes can keep a YAML parser busy for hours.
    """
    owners: dict[str, list[Owner]] = {}
    times: dict[str, datetime] = {}
    folder, in_submitters = "", False
    for line in content.decode("utf-8", "replace").splitlines():
        if not line.startswith((" ", "-", "#")):
            folder = line.rstrip(":").strip("'\" ")
            if GRADESCOPE.fullmatch(folder):
                owners[folder] = []
            in_submitters = False
            continue
        match = re.fullmatch(r"(?P<indent> {2,4}(?P<new>- )?):(?P<key>\w+): ?(?P<value>.*)", line)
        if match is None or folder not in owners:
            continue
        people = owners[folder]
        key, value = match["key"], _scalar(match["value"])
        if match["indent"] == "  ":
            in_submitters = key == "submitters"
            if key == "created_at":
                with suppress(ValueError):
                    times[folder] = datetime.fromisoformat(value.replace(" Z", "+00:00"))
        elif in_submitters and (match["new"] or people):
            if match["new"]:
                people.append(Owner("", platform=Platform.GRADESCOPE))
            last = people[-1]
            if key == "name":
                people[-1] = last._replace(name=value)
            elif key in ("sid", "email") and value and len(last.ids) < 2:
                people[-1] = last._replace(ids=(*last.ids, value))
    return {name: Submitters(tuple(people), times.get(name)) for name, people in owners.items()}


def _scalar(text: str) -> str:
    """Return the text of a YAML scalar on one line."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        with suppress(ValueError):
            return str(json.loads(text))
        return text[1:-1]
    return text


def blackboard_person(content: bytes, login: str) -> tuple[str, str]:
    """Return name and login from the file that Blackboard adds to an attempt, or empty texts.

    Only its first line counts, because later lines quote the student.

    Parameters
    ----------
    content : bytes
        The file.
    login : str
        The login in the file's name, or the end of the login.
    """
    first = content.decode("utf-8-sig", "replace").lstrip().partition("\n")[0]
    match = re.fullmatch(r"[^:]+: *(?P<name>.+?) *\((?P<login>[^()]*)\)\s*", first)
    if match and f"_{match['login']}".endswith(f"_{login}"):
        return match["name"], match["login"]
    return "", ""
