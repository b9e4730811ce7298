"""Read a submission: recognise its files and the answers in them."""

import ast
import codeop
import json
import re
import sys
from collections import Counter
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from grading.intake.cells import UNPARSED, Cells, HandedOut, answer_of, binds, cells_of, recognise
from grading.intake.collect import Files
from grading.intake.declarations import declaration_in
from grading.intake.names import WORK, expected_file, safe_name, safe_path
from grading.rubric import RUBRIC

OTHERS = 50  # Python files other than the expected ones
# Characters of a module or a script: reading an f-string takes the square of its length.
SCRIPT = 200_000

# Beginnings of files that are neither modules nor notebooks.
BEGINNINGS = {
    b"version https://git-lfs.github.com/spec/": (
        "a pointer of Git LFS, not the file; run `git lfs pull` and submit the file"
    ),
    b"<!doctype html": "a web page about the file; download the file itself (on GitHub: Raw)",
    b"<html": "a web page about the file; download the file itself (on GitHub: Raw)",
    b"%pdf": "a PDF; submit the file that it was made from",
    b"pk\x03\x04": "a zip or an office document under another name",
}
CONFLICT = re.compile(r"^<{7}(?: .*)?$[^\0]*?^={7}$[^\0]*?^>{7}(?: .*)?$", re.MULTILINE)
# Lines with syntax of newer Python versions: type aliases, generics and nested quotes in f-strings
# (3.12), t-strings and except without parentheses (3.14).
NEWER = re.compile(
    r"^\s*(?:type\s+\w+\s*(?:\[.*\]\s*)?=|(?:async\s+def|def|class)\s+\w+\s*\[)"
    r"|^\s*except\s+\w+\s*,|\b(?:[ftFT][rR]?|[rR][ftFT])['\"]"
)
PythonVersion = tuple[int, ...]  # of Python, such as (3, 12)


class FileKind(StrEnum):
    """The two files of a task, by their suffixes."""

    MODULE = "py"
    NOTEBOOK = "ipynb"


@dataclass(frozen=True)
class Problem:
    """A reason why a file or cell cannot be read, and the functions that it affects."""

    message: str
    file: FileKind
    function: str = ""  # if it affects one function, not the whole file

    def __str__(self) -> str:
        return f"{self.function}: {self.message}" if self.function else self.message


@dataclass
class Submission:
    """The student's work, by task."""

    modules: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Cells] = field(default_factory=dict)  # by key, such as "svd/new_user"
    # by task and by the cell's id in the student edition: cells as stored
    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    declarations: dict[str, str] = field(default_factory=dict)  # by task
    # other Python files, by the path that imports use: "mflib/helpers.py", "plots.py"
    others: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # about reading the files
    problems: dict[str, list[Problem]] = field(default_factory=dict)  # by task
    # why an instructor must decide: the grader cannot run code that may be correct
    review: list[str] = field(default_factory=list)


def read(files: Files, known: dict[str, list[HandedOut]]) -> Submission:
    """Find a student's work among files with any names.

    Parameters
    ----------
    files : Files
        The files of a submission by name.
    known : dict
        The cells of the student edition, by task.
    """
    submission = Submission()
    chosen = choose_files(files, submission.notes)
    if not chosen:
        names = ", ".join(map(safe_name, sorted(files)[:5])) or "nothing"
        submission.notes.append(
            "none of the expected files (mflib/svd.py, notebooks/01_svd.ipynb, …) was submitted; "
            f"there is: {names}"
        )
    submission.others = other_modules(files, set(chosen.values()))
    contents: dict[str, bytes] = {}  # by expected file, such as "svd.py"
    for task, entry in RUBRIC.items():
        problems = submission.problems[task] = []
        for kind in FileKind:
            which = f"{task}.{kind}"
            stem = entry.module if kind is FileKind.MODULE else entry.notebook
            try:
                if which not in chosen:
                    raise ValueError("was not submitted")
                content = files[chosen[which]].read()
                if what := damage(content, chosen[which]):
                    submission.notes.append(f"{stem}.{kind}: {what}")
                    raise ValueError(what)
                contents[which] = content
            except Exception as error:  # a corrupt archive, or a file that is too large
                problems.append(Problem(f"{stem}.{kind}: {error}", kind))
    written_with = max(map(python_of, contents.values()), default=())
    for task in RUBRIC:
        if (module := contents.get(f"{task}.{FileKind.MODULE}")) is not None:
            _add_module(submission, task, module, written_with)
        if (notebook := contents.get(f"{task}.{FileKind.NOTEBOOK}")) is not None:
            name = chosen[f"{task}.{FileKind.NOTEBOOK}"]
            _read_notebook(submission, task, notebook, name, known[task])
            submission.declarations[task] = declaration_in(notebook)
            _check_answers(submission, task, written_with)
    return submission


def damage(content: bytes, name: str) -> str:
    """Return what is wrong with a file, or an empty text if nothing is recognised."""
    if not content.strip():
        return "is empty"
    start = content[:200].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in BEGINNINGS.items():
        if start.startswith(beginning):
            return f"is {what}"
    text = _decoded(content)
    if match := CONFLICT.search(text):
        line = text.count("\n", 0, match.start()) + 1
        return f"has merge-conflict markers from line {line} on; resolve the conflict"
    is_notebook = text.lstrip("\ufeff \r\n\t").startswith("{")
    if name.lower().endswith(".py"):
        if is_notebook:
            return "is a notebook under the name of a module"
        if len(text) > SCRIPT:
            most = f"expected at most {SCRIPT:,} characters, got {len(text):,}"
            return f"is too long and was not read: {most}"
        return _damage_of(text)
    if is_notebook and not text.rstrip("\0 \r\n\t").endswith("}"):
        return "is cut off: its end is missing; save and submit it again"
    return ""


def _decoded(content: bytes) -> str:
    return content.decode(json.detect_encoding(content), "replace").replace("\r\n", "\n")


def _damage_of(source: str) -> str:
    """Return a message if a module is cut off, otherwise an empty text."""
    try:
        ast.parse(source)
    except UNPARSED:
        with suppress(*UNPARSED):
            if codeop.compile_command(source, "", "exec") is None:
                return "is cut off: it ends within a statement; save and submit it again"
    return ""


def python_of(content: bytes) -> PythonVersion:
    """Return the version of Python with which a notebook was saved; empty for other files."""
    try:
        text = json.loads(_decoded(content))["metadata"]["language_info"]["version"]
        return tuple(int(part) for part in text.split(".")[:2])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def is_newer(source: str, written_with: PythonVersion) -> str:
    """Return a message if source may need a newer Python version than the grader's, or "".

    Parameters
    ----------
    source : str
        Source that this version may not be able to parse.
    written_with : tuple of int
        The version with which the student's notebooks were saved, if known.
    """
    ours = sys.version_info[:2]
    if written_with and written_with <= ours:
        return ""
    try:
        ast.parse(source)
    except SyntaxError as error:
        lines, number = source.split("\n"), error.lineno or 0
        if 0 < number <= len(lines) and NEWER.search(lines[number - 1]):
            what = f"line {number} may be newer than the grader's Python"
            return f"{what} ({'.'.join(map(str, ours))}): an instructor will look at it"
    except UNPARSED:
        pass
    return ""


def _add_module(
    submission: Submission, task: str, content: bytes, written_with: PythonVersion
) -> None:
    if what := is_newer(_decoded(content), written_with):
        message = f"{RUBRIC[task].module}.py: {what}"
        submission.problems[task].append(Problem(message, FileKind.MODULE))
        submission.review.append(message)
    else:
        submission.modules[task] = content


def _check_answers(submission: Submission, task: str, written_with: PythonVersion) -> None:
    """Replace answers that cannot be read for a known reason with problems."""
    for key in [key for key in submission.answers if key.startswith(f"{task}/")]:
        function = key.partition("/")[2]
        for label, source in submission.answers[key]:
            what = is_newer(source, written_with)
            if what:
                submission.review.append(f"{key}: cell {label}: {what}")
            if CONFLICT.search(source):
                what = "has merge-conflict markers; resolve the conflict"
            if what:
                problem = Problem(f"cell {label}: {what}", FileKind.NOTEBOOK, function)
                submission.problems[task].append(problem)
                del submission.answers[key]
                break


def _read_notebook(
    submission: Submission, task: str, content: bytes, name: str, known: list[HandedOut]
) -> None:
    """Add the answers and the stored cells of a notebook to ``submission``."""
    problems = submission.problems[task]
    cells, messages = cells_of(content, name)
    problems += [Problem(message, FileKind.NOTEBOOK) for message in messages]
    recognise(cells, known)
    submission.stored[task] = {c.known_as: c.raw for c in cells if c.known_as and c.raw}
    imported = binds(ast.parse(known[0].source))  # imported by the first cell
    for cell in known:
        for function in cell.functions:
            if answer := answer_of(cells, function, cell.id, imported, known):
                submission.answers[f"{task}/{function}"] = answer
            else:
                missing = f"the cell {cell.id} is missing"
                problems.append(Problem(missing, FileKind.NOTEBOOK, function))


def other_modules(files: Files, chosen: Set[str]) -> dict[str, bytes]:
    """Return other Python files that the expected ones may import, by import path.

    A file in mflib/ is a module of the package; other files are imported as if next to the
    notebook. The suite's modules and libraries come first on the path, so a file cannot replace
    one by using its name.
    """
    found: dict[str, bytes] = {}
    for name in sorted(files):
        path = PurePosixPath(name.replace("\\", "/"))
        used = path.suffix == ".py" and name not in chosen and path.stem.isidentifier()
        if not used or "checks" in path.parts or len(found) == OTHERS:
            continue
        folders = path.parts[:-1]
        if "mflib" in folders:
            folders = folders[len(folders) - 1 - folders[::-1].index("mflib") :]
        else:
            folders = ()
        if all(folder.isidentifier() for folder in folders):
            with suppress(OSError, ValueError):  # a corrupt archive, or a file that is too large
                found.setdefault("/".join((*folders, path.name)), files[name].read())
    return found


@dataclass(frozen=True)
class Copies:
    """The copies of one expected file: the one that is used, and the others."""

    taken: str
    others: list[str]


def choose_files(files: Files, notes: list[str]) -> dict[str, str]:
    """Return the name of the file to use for each expected file, such as "svd.py".

    Among copies, the criteria are in this order: the fewest folders, the expected name, the newest
    date, the folder with the most expected files. A note reports a choice that is not obvious.
    """
    candidates: dict[str, list[str]] = {}
    for name in files:
        which = expected_file(name)
        if which and "checks/suite/" not in f"/{name}":  # the checks' own copy
            candidates.setdefault(which, []).append(name)
    complete = Counter(_folder(name) for names in candidates.values() for name in names)
    chosen, copies = {}, []
    for which, names in candidates.items():
        task, _, kind = which.partition(".")
        entry = RUBRIC[task]
        exact = f"mflib/{entry.module}.py"
        if kind == FileKind.NOTEBOOK:
            exact = f"notebooks/{entry.notebook}.ipynb"

        def order(name: str, exact: str = exact, kind: str = kind) -> tuple:
            in_place = f"/{name.lower()}".endswith(f"/{exact}")
            base, folder = name.rpartition("/")[2].lower(), _folder(name)
            named = base != exact.rpartition("/")[2], not base.endswith(kind)
            depth = folder.count("/") + bool(folder)
            return depth, not in_place, *named, -files[name].changed, -complete[folder], name

        chosen[which] = min(names, key=order)
        base = chosen[which].rpartition("/")[2]
        if base != exact.rpartition("/")[2]:
            notes.append(f"{safe_name(base)} was used as {exact}")
        if len(names) > 1:
            copies.append(Copies(chosen[which], sorted(set(names) - {chosen[which]})))
    if copies:
        notes.append(_note_on(copies))
    return chosen


def _folder(name: str) -> str:
    """Return the folder of a file in a submission, without "mflib" or "notebooks"."""
    folder = name.rpartition("/")[0]
    above, _, last = folder.rpartition("/")
    return above if last.lower() in WORK else folder


def _note_on(copies: list[Copies]) -> str:
    """Return one note on all files with copies."""
    shown = [
        f"{safe_path(c.taken)}, not {', '.join(map(safe_path, c.others[:3]))}" for c in copies[:3]
    ]
    more = f"; and {len(copies) - 3} more" if len(copies) > 3 else ""
    return f"there are several copies; used: {'; '.join(shown)}{more}"
