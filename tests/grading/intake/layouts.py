"""Recognise how the submissions of a class are laid out: by a learning platform, or in folders."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from grading.intake.names import expected_file, is_container, without_suffix

# How learning platforms name a student's folder (Moodle) or file (Canvas). The number is the
# person's, in Moodle for this assignment; if names are hidden, there is nothing else.
MOODLE = re.compile(
    r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)"
)
CANVAS = re.compile(
    r"(?P<name>[^_/]+?)(?P<late>_LATE)?_(?P<number>\d+)_\d+_(?P<file>.+)", re.IGNORECASE
)
CANVAS_HIDDEN = re.compile(
    r"(?P<late>LATE_)?(?P<name>anon)_(?P<number>[A-Za-z0-9]+)_\d+_(?P<file>.+)"
)
HIDDEN = ("Participant", "anon")  # instead of names
MAX_LEVEL = 3  # folders above the submissions


class Place(NamedTuple):
    """Whose file it is, by name and by the platform's number, and its name there."""

    owner: str
    number: str
    file: str
    late: bool = False


Layout = Callable[[str], Place | None]  # path of a file; None if it is nobody's


def layout_of(names: list[str], is_folder: bool) -> Layout | None:
    """Return the layout of a class, or None if the files are one submission.

    Parameters
    ----------
    names : list of str
        Paths of all files; an archive is a folder whose name ends in its suffix.
    is_folder : bool
        Whether they are in a folder, not in an archive.
    """
    return _platform_of(names) or (_by_top_folder if _is_class(names, is_folder) else None)


def _is_class(names: Iterable[str], is_folder: bool) -> bool:
    """Return whether each top folder or archive is a submission."""
    names = list(names)
    tops: dict[str, set[str | None]] = {}
    for name in names:
        if is_container(name):
            tops.setdefault(name.partition("/")[0], set()).add(expected_file(name))
    flat = any(expected_file(name) for name in names if "/" not in name)
    if flat or {"mflib", "notebooks"} & {top.lower() for top in tops} or len(tops) < 2:
        return False
    repeated = sum(map(len, tops.values())) > len(set().union(*tops.values()))
    return repeated or is_folder


def _by_top_folder(name: str) -> Place | None:
    top, _, rest = name.partition("/")
    return Place(without_suffix(top), "", rest or name) if is_container(name) else None


def _platform_of(names: list[str]) -> Layout | None:
    """Return the layout of nbgrader, Canvas or Moodle, if it is one of theirs.

    Most names in every folder of a level must have the platform's form, so that one student's files
    cannot make a class look like another platform's.
    """
    for level in range(MAX_LEVEL):
        paths = [name.split("/") for name in names if level == 0 or is_container(name)]
        for place_of, enough in ((_of_nbgrader, 0.0), (_of_platform, 0.5)):
            # by folder of this level, and by entry in it: whether that has the platform's form
            folders: dict[tuple[str, ...], dict[str, bool]] = {tuple(p[:level]): {} for p in paths}
            for path in (p for p in paths if len(p) > level):
                folder, entry = folders[tuple(path[:level])], path[level]
                folder[entry] = folder.get(entry, False) or place_of(level, path) is not None
            fits = (sum(folder.values()) > enough * len(folder) for folder in folders.values())
            if folders and all(fits):
                return _layout(place_of, level)
    return None


def _layout(place_of: Callable[[int, list[str]], Place | None], level: int) -> Layout:
    return lambda name: place_of(level, name.split("/"))


def _of_nbgrader(level: int, path: list[str]) -> Place | None:
    parts = path[level:]  # other entries next to "submitted" are nobody's
    if parts[:1] == ["submitted"] and len(parts) > 3:
        return Place(parts[1], "", "/".join(parts[3:]))
    return None


def _of_platform(level: int, path: list[str]) -> Place | None:
    part, *rest = path[level:] or [""]
    # Moodle's own names never match Canvas' pattern; a student's file name on Canvas may match
    # Moodle's, so that is tried last
    match = CANVAS_HIDDEN.fullmatch(part) or CANVAS.fullmatch(part) or MOODLE.fullmatch(part)
    if match and (match["file"] or rest):
        file = "/".join(filter(None, [match["file"], *rest]))
        late = bool(match.groupdict().get("late"))
        return Place(without_suffix(match["name"]), match["number"], file, late)
    return None
