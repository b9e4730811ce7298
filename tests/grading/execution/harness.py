"""Run students' functions on hidden inputs, inside the sandbox, and store the arrays they return.

    python -m grading.execution.harness job.json [finished units …]

The current folder holds mflib (the grader's, with empty kernels), the modules of this package that
are needed here, the student's modules, and the job: units, each with one function to call. Each
unit runs in its own process (where fork exists), so that a crash, or a change of a library's
settings, affects nothing else. After each unit, n.npz and a line of results.jsonl are written.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import os
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from grading.execution.inputs import ChangedError, outputs
from grading.outcomes import NOT_ATTEMPTED, FailureKind, UnitLine
from grading.rubric import RUBRIC

CPU_SECONDS, WALL_SECONDS = 20, 200  # limits of one function
LISTS_CPU_SECONDS, LISTS_WALL_SECONDS = 120, 1200
FORKS = sys.platform == "linux"
FIT = {  # not longer than the defaults, on a small data set
    "svd": {"iterations": 30},
    "als": {"iterations": 10},
    "bpr": {"iterations": 40},
    "warp": {"iterations": 15},
}
SLOW = "an endless loop, or far too slow"


class TooSlowError(BaseException):
    """A function has used too much CPU time.

    It is not an Exception, so that a student's ``except Exception`` does not catch it.
    """


class UncalledError(Exception):
    """A function has called a kernel that it must do without."""


def load(file: Path) -> types.ModuleType:
    """Import a student's module as part of the grader's package.

    Its relative imports find the package; the package does not import it.
    """
    name = f"mflib.submitted_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles ask for it
    spec.loader.exec_module(module)
    return module


def function_of(unit: dict) -> Callable:
    """Return the student's function; AttributeError if there is none."""
    name = unit["key"].partition("/")[2]
    if "file" in unit:
        found = getattr(load(Path(unit["file"])), name, None)
    else:
        space = run_cells(unit["cells"])
        found = space.get(name)
        if found is None and "first failure" in space:
            raise space["first failure"]
    if not callable(found):
        raise AttributeError(f"expected a function {name}, found none")
    return found


def run_cells(cells: list[list[str]]) -> dict:
    """Return the names that cells of a notebook, pairs of label and source, define.

    A statement that fails (it may need the data) does not stop the others. If the function is not
    defined in the end, the first failure is the reason.
    """
    space: dict = {"__name__": "__main__"}
    for label, source in cells:
        tree = ast.parse(source, f"<{label}>")
        for statement in tree.body:
            try:
                code = compile(ast.Module([statement], []), f"<{label}>", "exec")
                exec(code, space)
            except Exception as error:
                space.setdefault("first failure", error)
    return space


def adopt(module: dict, task: str) -> None:
    """Replace the empty kernels of a module by the student's, if their file can be imported.

    The grader's modules call this in their last line when a whole notebook is run.
    """
    file = Path(__file__).parents[2] / "submitted" / f"{RUBRIC[task]['module']}.py"
    with suppress(Exception):
        own = load(file)
        module |= {n: getattr(own, n) for n in RUBRIC[task]["functions"] if hasattr(own, n)}


def called_like(function: Callable, empty: Callable) -> Callable:
    """Return ``function`` with its arguments passed by position, in the order of ``empty``.

    Gradients that the function leaves on tensors are removed.
    """
    signature = inspect.signature(empty)

    @functools.wraps(function)
    def call(*args: object, **named: object) -> object:
        arguments = list(signature.bind(*args, **named).arguments.values())
        returned = function(*arguments)
        for tensor in arguments:
            if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
                tensor.requires_grad_(False).grad = None
        parts = returned if isinstance(returned, tuple) else (returned,)
        parts = tuple(p.detach() if isinstance(p, torch.Tensor) else p for p in parts)
        return parts if isinstance(returned, tuple) else parts[0]

    return call


def fit_model(unit: dict) -> dict[str, np.ndarray]:
    """Fit the grader's class with the student's kernels; return its recommendations."""
    import mflib

    task = unit["key"].partition("/")[0]
    module = importlib.import_module(f"mflib.{RUBRIC[task]['module']}")
    own = load(Path(unit["file"]))
    for name in RUBRIC[task]["functions"]:
        if callable(getattr(own, name, None)):
            setattr(module, name, called_like(getattr(own, name), getattr(module, name)))
    with np.load("train.npz", allow_pickle=False) as stored:
        cells = (stored["data"], stored["indices"], stored["indptr"])
        train = sp.csr_matrix(cells, tuple(stored["shape"]))
        pairs = (stored["users"], stored["items"]) if task == "svd" else ([], [])
    train = train if task == "svd" else sp.csr_matrix(train >= 4, dtype=np.float64)
    model = getattr(mflib, task.upper())(dtype=torch.float64, **FIT[task] | unit["options"])
    model.fit(train, show_progress=False)
    ids, _ = model.recommend(np.arange(train.shape[0]), train, 10)
    similar, _ = model.similar_items(np.arange(train.shape[1]), 11)
    return {"ids": ids, "similar": similar, "estimates": model.predict(*pairs)}


def run_unit(n: int, unit: dict, seeds: list[int]) -> tuple[dict[str, np.ndarray], UnitLine]:
    """Return the arrays of a unit, and its line of results."""
    try:
        if unit["key"].endswith("/lists"):
            return fit_model(unit), UnitLine(n)
        if "cells" in unit:
            empty_kernels(unit["key"].partition("/")[0])
        function = function_of(unit)
        arrays: dict[str, np.ndarray] = {}
        for seed in seeds:
            observed = outputs(function, unit["key"], seed)
            arrays |= {place: storable(output.after) for place, output in observed.items()}
        return arrays, UnitLine(n, where=definition_of(function, unit))
    except BaseException as error:  # whatever a student's code raises is a result
        return {}, failure_line(n, error, unit)


def definition_of(function: Callable, unit: dict) -> str:
    """Return the student's line in which a function begins, if it is written in Python."""
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    if not isinstance(code, types.CodeType) or Path(code.co_filename).name not in file_names(unit):
        return ""
    return place_of(Path(code.co_filename).name, code.co_firstlineno)


def file_names(unit: dict) -> set[str]:
    """Return what a student's file or cells are called in a traceback."""
    return {Path(unit["file"]).name} if "file" in unit else {f"<{c[0]}>" for c in unit["cells"]}


def place_of(label: str, line: int | None) -> str:
    place = label.strip("<>") if label.endswith(".py") else f"cell {label.strip('<>')}"
    return f"{place}, line {line}"


def storable(array: np.ndarray) -> np.ndarray:
    """Return the array; for an array of objects, a short description."""
    return array if array.dtype.kind in "biufcU" else np.asarray(f"{array.dtype} {array}"[:60])


def empty_kernels(task: str) -> None:
    """Make the kernels of a task raise an error that loops and exercises must do without them."""
    module = importlib.import_module(f"mflib.{RUBRIC[task]['module']}")
    for name in RUBRIC[task]["functions"]:

        def refuse(*_: object, name: str = name, **__: object) -> None:
            raise UncalledError(f"calls {name} of mflib, which is empty here: write it out")

        setattr(module, name, refuse)


def failure_line(n: int, error: BaseException, unit: dict) -> UnitLine:
    """Describe an exception, with the student's own line."""
    name = unit["key"].partition("/")[2]
    own = file_names(unit)
    trace = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in trace if Path(frame.filename).name in own]
    where = place_of(Path(frames[-1].filename).name, frames[-1].lineno) if frames else ""
    kind, message = FailureKind.RAISED, f"raises {type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and Path(error.filename or "").name in own:
        where, message = place_of(Path(str(error.filename)).name, error.lineno), error.msg
    elif isinstance(error, NotImplementedError):
        inside = frames[-1].name if frames else name
        if inside in (name, "<module>"):
            kind, message = NOT_ATTEMPTED.kind, NOT_ATTEMPTED.message
        else:
            message = f"needs {inside}, which is not attempted"
    elif isinstance(error, UncalledError | ChangedError):
        message = str(error)
    elif isinstance(error, TooSlowError):
        seconds = LISTS_CPU_SECONDS if unit["key"].endswith("/lists") else CPU_SECONDS
        kind, message = FailureKind.CPU_TIME, f"ended after {seconds} s of CPU time: {SLOW}"
    elif isinstance(error, AttributeError) and not frames:
        message = str(error)
    elif isinstance(error, SystemExit):
        message = "ends the program"
    return UnitLine(n, kind, message[:2000], where)


def run_in_time(n: int, unit: dict, seeds: list[int]) -> tuple[dict[str, np.ndarray], UnitLine]:
    """``run_unit``, stopped at its limit of CPU time, on systems that can measure it.

    The student's line at which it was stopped is reported.
    """
    if not hasattr(signal, "SIGPROF"):
        return run_unit(n, unit, seeds)

    def stop(*_: object) -> None:
        raise TooSlowError

    signal.signal(signal.SIGPROF, stop)
    long = unit["key"].endswith("/lists")
    signal.setitimer(signal.ITIMER_PROF, LISTS_CPU_SECONDS if long else CPU_SECONDS)
    try:
        return run_unit(n, unit, seeds)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def run_and_store(n: int, unit: dict, seeds: list[int]) -> None:
    arrays, line = run_in_time(n, unit, seeds)
    try:
        np.savez(f"{n}.npz", **arrays)  # type: ignore[arg-type]
    except Exception as error:  # a student's object that only looks like an array
        message = f"returns what is no array: {type(error).__name__}"
        line = line if line.kind else replace(line, kind=FailureKind.RAISED, message=message)
    store(line)


def store(line: UnitLine) -> None:
    with open("results.jsonl", "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(json.dumps(asdict(line)) + "\n")


def is_running(child: int) -> bool:
    """Return whether a process is computing, or would if the machine were not busy."""
    fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return fields[0] == "R"


def run_in_child(n: int, unit: dict, seeds: list[int]) -> None:
    """``run_and_store`` in a forked process; however that ends, a line is stored."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            run_and_store(n, unit, seeds)
            os._exit(0)
        os._exit(1)
    long = unit["key"].endswith("/lists")
    deadline = time.monotonic() + (LISTS_WALL_SECONDS if long else WALL_SECONDS)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline and not is_running(child):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            store(UnitLine(n, FailureKind.WALL_TIME, f"ended by the wall-time limit: {SLOW}"))
            return
        time.sleep(0.002)
    if status:
        code = os.waitstatus_to_exitcode(status)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        store(UnitLine(n, FailureKind.CRASHED, f"its process ended ({how})"))


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    finished = set(map(int, sys.argv[2:]))
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)  # which also makes a fork safe
    shared = ["mflib"]  # imported once, for all children
    if any("cells" in unit for unit in job["units"]):  # what the notebooks' first cells import
        shared += ["matplotlib.pyplot", "pandas", "mflib.notebook"]
    for name in shared:
        importlib.import_module(name)
    for n, unit in enumerate(job["units"]):
        if n not in finished:
            (run_in_child if FORKS else run_and_store)(n, unit, job["seeds"])


if __name__ == "__main__":
    main()
