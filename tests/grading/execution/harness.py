"""What runs inside the sandbox: students' functions on hidden inputs; arrays come out.

    python -m grading.execution.harness job.json [units that are done …]

In the folder: mflib (the grader's, whose kernels are empty), this file and those that it imports,
what students wrote, and the job: units, each with a function to be called. Each unit runs in a
process of its own (where there is fork), so that a crash, or a library that is set up anew, costs
nothing else. Written after each: n.npz and a line of results.jsonl.
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
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from grading.execution.inputs import ChangedError, outputs
from grading.rubric import RUBRIC

PROCESSOR_SECONDS, CLOCK_SECONDS = 20, 200  # of one function
LISTS_SECONDS = 120
FORKS = sys.platform == "linux"
FIT = {  # not longer than the defaults, on a small data set
    "svd": {"iterations": 30},
    "als": {"iterations": 10},
    "bpr": {"iterations": 40},
    "warp": {"iterations": 15},
}
SLOW = "an endless loop, or far too slow"


class TooSlowError(BaseException):
    """Not an Exception: a student's ``except Exception`` is to let it pass."""


class UncalledError(Exception):
    """A function that is to be compared with the kernel has called the kernel."""


def load(file: Path) -> types.ModuleType:
    """The module that a student has written, whole, as a part of the grader's package.

    So its relative imports find the package, and the package does not find it.
    """
    name = f"mflib.submitted_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles ask for it
    spec.loader.exec_module(module)
    return module


def function_of(unit: dict) -> Callable:
    """The student's function, or AttributeError."""
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
    """The names that cells of a notebook define, (label, source) each.

    A statement that fails (it may need the data) ends nothing: what counts is what is defined.
    If a function is missing in the end, the first failure says why.
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
    """Put the student's kernels, if their file can be imported, in place of the empty ones.

    Called at the end of the grader's module where a whole notebook is run.
    """
    file = Path(__file__).parents[2] / "submitted" / f"{RUBRIC[task]['module']}.py"
    with suppress(Exception):
        own = load(file)
        module |= {n: getattr(own, n) for n in RUBRIC[task]["functions"] if hasattr(own, n)}


def called_like(function: Callable, empty: Callable) -> Callable:
    """``function``, called by place with what the class passes by the names of ``empty``.

    What autograd leaves on the tensors is taken off.
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


def lists(unit: dict) -> dict[str, np.ndarray]:
    """Recommendations and similar movies of the grader's class around the student's kernels."""
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


def attempt(unit: dict, seeds: list[int]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a unit; and what went wrong and where, or where the function stands."""
    try:
        if unit["key"].endswith("/lists"):
            return lists(unit), {}
        if "cells" in unit:
            forbid(unit["key"].partition("/")[0])
        function, found = function_of(unit), {}
        for seed in seeds:
            came = outputs(function, unit["key"], seed)
            found |= {k: storable(p.after) for k, p in came.items() if p.after is not None}
        return found, standing(function, unit)
    except BaseException as error:  # whatever a student's code raises is a result
        return {}, described(error, unit)


def standing(function: Callable, unit: dict) -> dict[str, str]:
    """The line of a student in which a function begins, if it is one with lines."""
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    if not isinstance(code, types.CodeType) or Path(code.co_filename).name not in own_files(unit):
        return {}
    return {"where": place_of(Path(code.co_filename).name, code.co_firstlineno)}


def own_files(unit: dict) -> set[str]:
    """What a student's file or cells are called in a traceback."""
    return {Path(unit["file"]).name} if "file" in unit else {f"<{c[0]}>" for c in unit["cells"]}


def place_of(label: str, line: int) -> str:
    place = label.strip("<>") if label.endswith(".py") else f"cell {label.strip('<>')}"
    return f"{place}, line {line}"


def storable(array: np.ndarray) -> np.ndarray:
    """The array, or in place of one that holds objects, what they are called."""
    return array if array.dtype.kind in "biufcU" else np.asarray(f"{array.dtype} {array}"[:60])


def forbid(task: str) -> None:
    """Let the kernels of a task say that a loop, or an exercise, must do without them."""
    module = importlib.import_module(f"mflib.{RUBRIC[task]['module']}")
    for name in RUBRIC[task]["functions"]:

        def refuse(*_: object, name: str = name, **__: object) -> None:
            raise UncalledError(f"calls {name} of mflib, which is empty here: write it out")

        setattr(module, name, refuse)


def described(error: BaseException, unit: dict) -> dict[str, str]:
    """An error as a sentence with the student's own line."""
    name = unit["key"].partition("/")[2]
    own = own_files(unit)
    frames = traceback.extract_tb(error.__traceback__)
    frames = [f for f in frames if Path(f.filename).name in own]
    label = Path(frames[-1].filename).name if frames else ""
    line = frames[-1].lineno if frames else 0
    what = f"raises {type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and Path(error.filename or "").name in own:
        label, line, what = Path(error.filename).name, error.lineno, f"{error.msg}"
    elif isinstance(error, NotImplementedError):
        inside = frames[-1].name if frames else name
        helper = f"needs {inside}, which is not attempted"
        what = helper if inside not in (name, "<module>") else "not attempted"
    elif isinstance(error, UncalledError | ChangedError):
        what = str(error)
    elif isinstance(error, TooSlowError):
        what = f"ended after {PROCESSOR_SECONDS} s of the processor: {SLOW}"
    elif isinstance(error, AttributeError) and not frames:
        what = str(error)
    elif isinstance(error, SystemExit):
        what = "ends the program"
    return {"error": what[:2000], "where": place_of(label, line) if label else ""}


def in_time(unit: dict, seeds: list[int]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """``attempt``, ended after some processor time, and where the system knows no such clock, not.

    The student's line in which it was spent comes along.
    """
    if not hasattr(signal, "SIGPROF"):
        return attempt(unit, seeds)

    def stop(*_: object) -> None:
        raise TooSlowError

    signal.signal(signal.SIGPROF, stop)
    long = unit["key"].endswith("/lists")
    signal.setitimer(signal.ITIMER_PROF, LISTS_SECONDS if long else PROCESSOR_SECONDS)
    try:
        return attempt(unit, seeds)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def finish(n: int, unit: dict, seeds: list[int]) -> None:
    arrays, trouble = in_time(unit, seeds)
    try:
        np.savez(f"{n}.npz", **arrays)
    except Exception as error:  # a student's object that only looks like an array
        what = f"returns what is no array: {type(error).__name__}"
        trouble = {"error": trouble.get("error", what), "where": trouble.get("where", "")}
    note(n, trouble)


def note(n: int, trouble: dict[str, str]) -> None:
    with open("results.jsonl", "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(json.dumps({"unit": n} | trouble) + "\n")


def goes_on(child: int) -> bool:
    """Whether a process is computing, or would if others let it; then only its processor counts."""
    return (
        Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "R"
    )


def in_child(n: int, unit: dict, seeds: list[int]) -> None:
    """``finish`` in a process of its own; its end, however it comes, is noted."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            finish(n, unit, seeds)
            os._exit(0)
        os._exit(1)
    deadline = time.monotonic() + (6 if unit["key"].endswith("/lists") else 1) * CLOCK_SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline and not goes_on(child):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            note(n, {"error": f"ended by the clock: {SLOW}"})
            return
        time.sleep(0.002)
    if status:
        code = os.waitstatus_to_exitcode(status)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        note(n, {"error": f"its process ended ({how})"})


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    done = set(map(int, sys.argv[2:]))
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)  # which also makes a fork safe
    ahead = ["mflib"]  # once, for all children
    if any("cells" in unit for unit in job["units"]):  # what the notebooks' first cells import
        ahead += ["matplotlib.pyplot", "pandas", "mflib.notebook"]
    for name in ahead:
        importlib.import_module(name)
    for n, unit in enumerate(job["units"]):
        if n not in done:
            (in_child if FORKS else finish)(n, unit, job["seeds"])


if __name__ == "__main__":
    main()
