"""Read a submission: which file is which, and what each contains."""

import ast
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from grading.intake.cells import Cells, HandedOut, answer_of, binds, cells_of, recognise
from grading.intake.collect import Files
from grading.intake.declarations import declaration_in
from grading.intake.names import expected_file, safe_name
from grading.rubric import RUBRIC

OTHERS = 50  # Python files besides the expected ones


class FileKind(StrEnum):
    """The two files of a task, by their suffixes."""

    MODULE = "py"
    NOTEBOOK = "ipynb"


@dataclass(frozen=True)
class Problem:
    """Why something cannot be read, and which functions are concerned."""

    message: str
    file: FileKind
    function: str = ""  # if it concerns one function, not the whole file

    def __str__(self) -> str:
        return f"{self.function}: {self.message}" if self.function else self.message


@dataclass
class Submission:
    """What a student has written, by task."""

    modules: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Cells] = field(default_factory=dict)  # by key, as "svd/new_user"
    # by task and by the cell's id in the hand-out: cells as stored
    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    declarations: dict[str, str] = field(default_factory=dict)  # by task, what was used
    # other Python files, by the name that imports find: "mflib/helpers.py", "plots.py"
    others: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # how it was read
    problems: dict[str, list[Problem]] = field(default_factory=dict)  # by task


def read(files: Files, known: dict[str, list[HandedOut]]) -> Submission:
    """Find the work of a student among files of any names.

    Parameters
    ----------
    files : Files
        The files of a submission by name.
    known : dict
        The cells of the notebooks that were handed out, by task.
    """
    submission = Submission()
    chosen = choose_files(files, submission.notes)
    if not chosen:
        names = ", ".join(map(safe_name, sorted(files)[:5])) or "nothing"
        submission.notes.append(
            "none of the expected files (mflib/svd.py, notebooks/01_svd.ipynb, …) was handed in; "
            f"there is: {names}"
        )
    submission.others = other_modules(files, set(chosen.values()))
    for task, entry in RUBRIC.items():
        problems = submission.problems[task] = []
        contents: dict[FileKind, bytes] = {}
        for kind in FileKind:
            name = chosen.get(f"{task}.{kind}")
            try:
                if name is None:
                    raise ValueError("was not handed in")
                contents[kind] = files[name].read()
            except Exception as error:  # a corrupt archive, a file that is too large
                stem = entry["module" if kind is FileKind.MODULE else "notebook"]
                problems.append(Problem(f"{stem}.{kind}: {error}", kind))
        if FileKind.MODULE in contents:
            submission.modules[task] = contents[FileKind.MODULE]
        if FileKind.NOTEBOOK in contents:
            content, name = contents[FileKind.NOTEBOOK], chosen[f"{task}.{FileKind.NOTEBOOK}"]
            _read_notebook(submission, task, content, name, known[task])
            submission.declarations[task] = declaration_in(content)
    return submission


def _read_notebook(
    submission: Submission, task: str, content: bytes, name: str, known: list[HandedOut]
) -> None:
    """Add the answers and the stored cells of a notebook to ``submission``."""
    problems = submission.problems[task]
    cells, messages = cells_of(content, name)
    problems += [Problem(message, FileKind.NOTEBOOK) for message in messages]
    recognise(cells, known)
    submission.stored[task] = {c.known_as: c.raw for c in cells if c.known_as and c.raw}
    imported = binds(ast.parse(known[0].source))  # by the first cell
    for cell in known:
        for function in cell.functions:
            if answer := answer_of(cells, function, cell.id, imported, known):
                submission.answers[f"{task}/{function}"] = answer
            else:
                missing = f"the cell {cell.id} is missing"
                problems.append(Problem(missing, FileKind.NOTEBOOK, function))


def other_modules(files: Files, chosen: Set[str]) -> dict[str, bytes]:
    """Return Python files that the expected ones may import, by the name under which they do.

    A file in mflib/ is a module of the package; others are found as if next to the notebook. The
    package's own modules and libraries come first, so files of their names change nothing.
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
            with suppress(OSError, ValueError):  # an archive that cannot be read, a large file
                found.setdefault("/".join((*folders, path.name)), files[name].read())
    return found


def choose_files(files: Files, notes: list[str]) -> dict[str, str]:
    """Return the name of the file that is meant by each expected file, as "svd.py".

    A note is added where the choice is not obvious.
    """
    candidates: dict[str, list[str]] = {}
    for name in files:
        if which := expected_file(name):
            candidates.setdefault(which, []).append(name)
    chosen = {}
    for which, names in candidates.items():
        task, _, kind = which.partition(".")
        entry = RUBRIC[task]
        exact = f"mflib/{entry['module']}.py"
        if kind == FileKind.NOTEBOOK:
            exact = f"notebooks/{entry['notebook']}.ipynb"
        own = [name for name in names if "checks/suite/" not in f"/{name}"]  # the checks' copy
        if not own:
            continue

        def order(name: str, exact: str = exact, kind: str = kind) -> tuple[bool, bool, bool, str]:
            whole, base = f"/{name}".endswith(f"/{exact}"), name.rpartition("/")[2]
            return (not whole, base != exact.rpartition("/")[2], not name.endswith(kind), name)

        chosen[which] = min(own, key=order)
        base = chosen[which].rpartition("/")[2]
        if base != exact.rpartition("/")[2]:
            notes.append(f"{safe_name(base)} was taken for {exact}")
        if len(own) > 1:
            taken, *others = map(safe_name, [chosen[which], *sorted(set(own) - {chosen[which]})])
            notes.append(f"of several files for {exact}, {taken} was taken, not {others[:3]}")
    return chosen
