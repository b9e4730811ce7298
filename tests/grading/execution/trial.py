"""Run a submission's functions: write a job for the harness, run it, read the results.

The caller provides a function that runs a command: in the sandbox (grader) or directly (check).
"""

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grading import schema
from grading.execution.harness import WALL_SECONDS, Purpose
from grading.intake.cells import Cells
from grading.intake.submission import Submission
from grading.outcomes import Failure, FailureKind, UnitLine
from grading.paths import copy_modules
from grading.rubric import OUTPUTS, RUBRIC, function_of

# The modules that run inside the sandbox.
HARNESS = (
    *("rubric.py", "rubric.toml", "outcomes.py", "kernels/variants.py"),
    *(f"execution/{name}.py" for name in ("harness", "inputs", "exercises", "remote")),
)
ARRAYS = 2**22  # bytes of the arrays of one unit
LINES = 2**20  # bytes of the result lines of all units
NO_RESULT = Failure(FailureKind.CRASHED, "its process ended before there was a result")
Launch = Callable[[list[str], Path], Failure | None]  # command, folder


@dataclass(frozen=True)
class Version:
    """A module that defines a version of a kernel."""

    name: str  # the difference or the mistake
    is_right: bool
    source: str


@dataclass(frozen=True)
class Unit:
    """A function to call, in a file of the folder or in cells."""

    key: str
    file: str = ""
    cells: tuple[tuple[str, str], ...] = ()
    purpose: Purpose = Purpose.FUNCTION
    helpers: tuple[tuple[str, str], ...] = ()  # names and files to take them from
    version: Version | None = None  # the version of a kernel for a step check

    def as_json(self) -> dict[str, Any]:
        source = {"file": self.file} if self.file else {"cells": self.cells}
        return {"key": self.key, "purpose": self.purpose, "helpers": dict(self.helpers), **source}


@dataclass(frozen=True)
class UnitResult:
    """The arrays of a unit or its failure, and the student's line."""

    arrays: dict[str, np.ndarray]
    failure: Failure | None = None
    where: str = ""
    remark: str = ""


class Try(NamedTuple):
    """The result of a check on a version of the kernel; no failure means that it accepts it."""

    version: Version
    failure: Failure | None
    where: str  # the student's line

    @property
    def decides(self) -> bool:
        """Whether this result decides the verdict: rejecting a correct kernel earns no marks.

        On a wrong kernel, only a failure that ends the check's process decides.
        """
        if self.failure is None or self.version.is_right:
            return self.failure is not None
        return self.failure.kind.ends_check


def write_modules(given: Submission, folder: Path) -> None:
    """Write the modules of a submission to ``folder``/submitted."""
    place = folder / "submitted"
    place.mkdir(parents=True, exist_ok=True)
    for task, content in given.modules.items():
        (folder / module_path(task)).write_bytes(content)


def module_path(task: str) -> str:
    """Return the path at which ``write_modules`` writes the module of a task."""
    return f"submitted/{RUBRIC[task].module}.py"


def units_of_modules(given: Submission) -> list[Unit]:
    """Return a unit for each kernel of a submission, and one for a short fit with it."""
    units = []
    for task in given.modules:
        for name in RUBRIC[task].kernels:
            units.append(Unit(f"{task}/{name}", file=module_path(task)))
            if name in RUBRIC[task].lists:
                units.append(replace(units[-1], purpose=Purpose.SHORT_FIT))
    return units


def units_of_cells(given: Submission, imports: Mapping[str, str]) -> list[Unit]:
    """Return a unit for each answer in a notebook.

    ``imports``: the first cell of each task's notebook, which runs before the student's cells.
    """
    answers = [(key, cells) for key, cells in given.answers.items() if not OUTPUTS[key].kernel]
    return [exercise(key, cells, imports) for key, cells in answers]


def try_submission(
    given: Submission,
    folder: Path,
    suite: Path,
    seeds: list[int],
    imports: Mapping[str, str],
    launch: Launch,
    only: Set[str] = frozenset(OUTPUTS),
) -> list[tuple[Unit, UnitResult]]:
    """Run the functions of a submission; return each unit with its result.

    Cells run in another folder than modules, so that a loop cannot load the student's kernel.
    """
    pairs: list[tuple[Unit, UnitResult]] = []
    for name, units in (
        ("cells", units_of_cells(given, imports)),
        ("modules", units_of_modules(given)),
    ):
        units = [unit for unit in units if unit.key in only]
        if units:
            place = folder / name
            prepare(place, suite)
            write_others(given, place, with_package=name == "modules")
            if name == "modules":
                write_modules(given, place)
            pairs += zip(units, run_units(place, units, seeds, launch), strict=True)
    return pairs


def write_others(given: Submission, folder: Path, with_package: bool) -> None:
    """Write the student's other files to ``folder``/others; only modules import those in mflib."""
    for name, content in given.others.items():
        if with_package or not name.startswith("mflib/"):
            place = folder / "others" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


def check_units(
    given: Submission, imports: Mapping[str, str], versions: Callable[[str], list[list[Version]]]
) -> list[list[Unit]]:
    """Return batches of units, one for each check of a submission and each version of its kernel.

    ``versions``: the batches of versions for a check.
    """
    batches: list[list[Unit]] = []
    for key, cells in given.answers.items():
        for n, batch in enumerate(versions(key) if OUTPUTS[key].kernel else []):
            unit = exercise(key, cells, imports)
            batches += [[]] if n == len(batches) else []
            batches[n] += [replace(unit, version=version) for version in batch]
    return batches


def exercise(key: str, cells: Cells, imports: Mapping[str, str]) -> Unit:
    """Return the unit of a function in notebook cells."""
    names = frozenset(name for _, source in cells for name in re.findall(r"\w+", source))
    first = ("imports", imports_of(imports[function_of(key)[0]], names))
    return Unit(key, cells=(first, *((label, source) for label, source in cells)))


@cache
def imports_of(source: str, names: frozenset[str]) -> str:
    """Return a cell without imports that define none of ``names``: they take half a second."""
    kept, left_out = list[ast.stmt](), set[str]()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            by_name = {a.asname or a.name.partition(".")[0]: a for a in statement.names}
            statement.names = [alias for name, alias in by_name.items() if name in names]
            left_out |= set(by_name) - names
            kept += [statement] if statement.names else []
        elif not left_out & {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}:
            kept.append(statement)
    return "\n".join(map(ast.unparse, kept))


def prepare(folder: Path, suite: Path) -> None:
    """Create a folder with the harness and the package with empty kernels."""
    shutil.copytree(suite / "mflib", folder / "mflib", ignore=shutil.ignore_patterns("__pycache__"))
    copy_modules(HARNESS, folder)


def run_units(
    folder: Path, units: list[Unit], seeds: list[int], launch: Launch
) -> list[UnitResult]:
    """Return the results of units in a prepared folder.

    If the run stops as a whole, another one continues after the unit that stopped it.
    """
    write_job(folder, units, seeds)
    finished: dict[int, UnitLine] = {}
    while len(finished) < len(units):
        finished = run_once(folder, len(units), finished, launch)
    return [_result(folder / f"{n}.npz", finished[n]) for n in range(len(units))]


def run_checks(
    given: Submission,
    folder: Path,
    batches: Iterable[list[Unit]],
    suite: Path,
    launch: Launch,
) -> list[tuple[Unit, UnitResult]]:
    """Return the results of checks, until one decides about its check.

    Each batch is run in a new folder. If a whole run stops, the rest of its batch also runs in a
    new folder: no kernel is written where students' code may have changed the harness.
    """
    found: list[tuple[Unit, UnitResult]] = []
    over: set[str] = set()
    waiting, places = deque(batches), count()
    while waiting:
        units = [unit for unit in waiting.popleft() if unit.key not in over]
        if not units:
            continue
        place = folder / str(next(places))
        prepare(place, suite)
        write_others(given, place, with_package=False)
        write_job(place, units, [])
        lines = run_once(place, len(units), {}, launch)
        for n, line in sorted(lines.items()):
            result = _result(place / f"{n}.npz", line)
            found.append((units[n], result))
            over |= {units[n].key} if try_of(units[n], result).decides else set()
        waiting.appendleft([unit for n, unit in enumerate(units) if n not in lines])
    return found


def try_of(unit: Unit, result: UnitResult) -> Try:
    assert unit.version is not None, unit
    return Try(unit.version, result.failure, result.where)


def write_job(folder: Path, units: list[Unit], seeds: list[int]) -> None:
    """Write the harness's input: the job and versions of kernels."""
    job: dict[str, Any] = {"seeds": seeds, "units": [unit.as_json() for unit in units]}
    for n, unit in enumerate(units):
        if unit.version is not None:
            file = folder / "kernels" / f"{n}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(unit.version.source, encoding="utf-8")
            job["units"][n]["kernel"] = f"kernels/{n}.py"
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def run_once(
    folder: Path, n_units: int, finished: Mapping[int, UnitLine], launch: Launch
) -> dict[int, UnitLine]:
    """Run the remaining units once; return the lines of all finished ones, at least one more."""
    # finished units are an argument, because students' code may have changed the folder
    module = ["-m", "grading.execution.harness"]
    command = [sys.executable, *module, "job.json", *map(str, sorted(finished))]
    start = time.monotonic()
    failure = launch(command, folder)
    lines = read_lines(folder / "results.jsonl", n_units, time.monotonic() - start)
    lines |= finished
    if failure or len(lines) == len(finished):
        broken = next((n for n in range(n_units) if n not in lines), None)
        failure = failure or NO_RESULT
        if broken is not None:
            lines[broken] = UnitLine(broken, failure.kind, failure.message)
    return lines


def read_lines(file: Path, n_units: int, seconds: float) -> dict[int, UnitLine]:
    """Return the first valid line of each unit from a file that students' code may have changed.

    Parameters
    ----------
    file : Path
        results.jsonl.
    n_units : int
        The number of units.
    seconds : float
        How long the run has lasted. A line that claims that the harness has reached a wall-time
        limit in less is not believed: such units are run again alone.
    """
    lines: dict[int, UnitLine] = {}
    try:
        texts = plain_file(file, LINES).read_text(encoding="utf-8", errors="replace").split("\n")
    except (OSError, ValueError):
        return lines
    for text in filter(None, texts):
        try:
            line = schema.decode(UnitLine, json.loads(text))
        except (ValueError, RecursionError):
            continue
        forged = line.kind is FailureKind.WALL_TIME and seconds < WALL_SECONDS
        if line.unit in range(n_units) and not forged:
            lines.setdefault(line.unit, line)
    return lines


def _result(file: Path, line: UnitLine) -> UnitResult:
    where = line.where[:2000]
    if line.kind:
        return UnitResult({}, Failure(line.kind, line.message[:2000]), where)
    try:
        return UnitResult(read_arrays(file), None, where, line.remark[:2000])
    except FileNotFoundError:
        return UnitResult({}, NO_RESULT)
    except Exception as error:  # students' code may have changed the file
        message = f"the results cannot be read: {error}"[:2000]
        return UnitResult({}, Failure(FailureKind.UNREADABLE, message))


def plain_file(file: Path, most: int = 2**28) -> Path:
    """Return a file of untrusted code; raise ValueError if it is not a regular file.

    A link would show the grader's own files to the grader, and reading a pipe would never end.

    Parameters
    ----------
    file : Path
        The file.
    most : int
        The largest size in bytes.
    """
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        expected = f"expected {file.name} to be a file with at most {most} bytes"
        raise ValueError(f"{expected}, got something else")
    return file


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays in a file from the sandbox; refuse pickles and zip bombs."""
    with zipfile.ZipFile(plain_file(file, ARRAYS)) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > ARRAYS:
            raise ValueError(f"expected at most {ARRAYS} bytes of arrays, got {size}")
    with np.load(file, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    if other := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"expected arrays, got other bytes called {other[0]}")
    return arrays


def run_directly(command: list[str], folder: Path) -> Failure | None:
    """Run a command without a sandbox, on a student's machine."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "MFLIB_PROGRESS": "0"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
    )
    if not done.returncode:
        return None
    return Failure(FailureKind.CRASHED, f"exit code {done.returncode}: {done.stderr[-300:]}")
