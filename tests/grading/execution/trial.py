"""Students' functions are tried: a job for worker.py, what comes out of it, and the verdicts.

How a command is run is the caller's: in the sandbox (grader) or as it is (check).
"""

import json
import os
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grading.checks.compare import NOT_ATTEMPTED, Verdict, judge
from grading.execution.inputs import OUTPUTS, Came
from grading.intake.cells import Cells
from grading.intake.submission import Submission
from grading.paths import copy_modules
from grading.rubric import RUBRIC

# The modules that run inside the sandbox.
HARNESS = (
    *("rubric.py", "rubric.toml"),
    *("execution/harness.py", "execution/inputs.py", "execution/exercises.py"),
)
ARRAYS = 2**22  # bytes that may come out of one unit
LINES = 2**20  # bytes that may be said of all units
Launch = Callable[[list[str], Path], str]  # command, folder -> why it ended badly, or nothing
Expected = Callable[[str], Mapping[str, Came]]  # key -> what the reference makes of the inputs


@dataclass(frozen=True)
class Unit:
    """A function to be called: in a file of the folder, or in cells."""

    key: str
    file: str = ""
    cells: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, object], ...] = ()

    def as_json(self) -> dict:
        source = {"file": self.file} if self.file else {"cells": self.cells}
        return {"key": self.key, "options": dict(self.options), **source}


@dataclass
class Result:
    """The arrays of a unit, or why there are none, and the student's line."""

    arrays: dict[str, np.ndarray]
    error: str = ""
    where: str = ""


def units_of(given: Submission, folder: Path, imports: Mapping[str, str]) -> list[Unit]:
    """What is to be tried of a submission, whose modules are written into ``folder``.

    ``imports``: the first cell of each notebook, which runs before the student's.
    """
    found = []
    place = folder / "submitted"
    place.mkdir(parents=True, exist_ok=True)
    for task, content in given.modules.items():
        file = place / f"{RUBRIC[task]['module']}.py"
        file.write_bytes(content)
        for name in RUBRIC[task]["functions"]:
            found.append(Unit(f"{task}/{name}", file=f"submitted/{file.name}"))
    for key, cells in given.answers.items():
        found.append(exercise(key, cells, imports))
    return found


def exercise(key: str, cells: Cells, imports: Mapping[str, str]) -> Unit:
    first = ("imports", imports[key.partition("/")[0]])
    return Unit(key, cells=(first, *((label, source) for label, source in cells)))


def prepare(folder: Path, suite: Path) -> None:
    """What worker.py needs: itself and the package with empty kernels."""
    shutil.copytree(suite / "mflib", folder / "mflib", ignore=shutil.ignore_patterns("__pycache__"))
    copy_modules(HARNESS, folder)


def attempt(folder: Path, units: list[Unit], seeds: list[int], launch: Launch) -> list[Result]:
    """The results of units in a prepared folder.

    If the run as a whole breaks off, it goes on behind the unit that broke it.
    """
    job = {"seeds": seeds, "units": [unit.as_json() for unit in units]}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    done: dict[int, dict] = {}
    while left := [n for n in range(len(units)) if n not in done]:
        # what is done is said here: in the folder strangers may have put anything
        module = ["-m", "grading.execution.harness"]
        command = [sys.executable, *module, "job.json", *map(str, sorted(done))]
        ended = launch(command, folder)
        noted = noted_in(folder / "results.jsonl", len(units))
        done = noted | done
        if ended or len(done) == len(units) - len(left):
            broken = next((n for n in left if n not in done), left[0])
            why = ended or "its process ended before anything came out"
            done.setdefault(broken, {"error": why})
    return [_result(folder / f"{n}.npz", done[n]) for n in range(len(units))]


def noted_in(file: Path, how_many: int) -> dict[int, dict]:
    """The lines of the results by unit; strangers' code may have left anything there."""
    found: dict[int, dict] = {}
    try:
        for line in came_out(file, LINES).read_text(encoding="utf-8", errors="replace").split("\n"):
            entry = json.loads(line) if line else None
            if isinstance(entry, dict) and entry.get("unit") in range(how_many):
                found.setdefault(int(entry["unit"]), entry)
    except (OSError, ValueError, RecursionError):
        pass
    return found


def _result(file: Path, line: dict) -> Result:
    error, where = (str(line.get(name, ""))[:2000] for name in ("error", "where"))
    if error:
        return Result({}, error, where)
    try:
        return Result(arrays_of(file), where=where)
    except FileNotFoundError:
        return Result({}, "its process ended before anything came out")
    except Exception as failure:  # as above
        return Result({}, f"the results cannot be read: {failure}"[:2000])


def came_out(file: Path, most: int = 2**28) -> Path:
    """``file``, which strangers had in their hands; ValueError if it is not plain or too large.

    A link would show the grader's own files to the grader, and the reading of a pipe would never
    end. ``most``: bytes.
    """
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > most:
        expected = f"expected {file.name} to be a file of at most {most} bytes"
        raise ValueError(f"{expected}, got something else")
    return file


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that comes out of the sandbox; pickles and bombs are refused."""
    with zipfile.ZipFile(came_out(file, ARRAYS)) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > ARRAYS:
            raise ValueError(f"expected at most {ARRAYS} bytes of arrays, got {size}")
    with np.load(file, allow_pickle=False) as stored:
        found = {key: stored[key] for key in stored.files}
    if other := [key for key, array in found.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"expected arrays, got other bytes called {other[0]}")
    return found


def verdicts(
    units: list[Unit], results: list[Result], expected: Expected, trouble: Mapping[str, list[str]]
) -> dict[str, Verdict]:
    """On every function that is to be written, tried or not."""
    found = {}
    for unit, result in zip(units, results, strict=True):
        if result.error:
            found[unit.key] = Verdict(unit.key, error=result.error, where=result.where)
        else:
            found[unit.key] = judge(unit.key, result.arrays, expected(unit.key), result.where)
    for key in OUTPUTS:
        if key not in found:
            task, _, name = key.partition("/")
            reasons = trouble.get(task, [])
            mine = [r for r in reasons if r.startswith(f"{name}:")] or [
                r for r in reasons if r.startswith(_file_of(task, name))
            ]
            why = mine[0].removeprefix(f"{name}: ") if mine else NOT_ATTEMPTED
            found[key] = Verdict(key, error=why)
    return found


def _file_of(task: str, name: str) -> str:
    entry = RUBRIC[task]
    return f"{entry['module']}.py" if name in entry["functions"] else entry["notebook"]


def plainly(command: list[str], folder: Path) -> str:
    """Run without a sandbox, as a student's own machine does."""
    import subprocess

    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "MFLIB_PROGRESS": "0"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
    )
    return f"exit code {done.returncode}: {done.stderr[-300:]}" if done.returncode else ""
