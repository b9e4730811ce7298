"""Run students' functions on hidden inputs, inside the sandbox, and store the arrays they return.

    python -m grading.execution.harness job.json [finished units …]

The current folder holds mflib (the grader's, with empty kernels), the modules of this package that
are needed here, the student's modules, and the job: units, each with one function to call. Each
unit runs in its own process (where fork exists), so that a crash, or a change of a library's
settings, affects nothing else. After each unit, n.npz and a line of results.jsonl are written.
"""

import __future__

import ast
import dis
import functools
import gc
import importlib
import importlib.util
import inspect
import json
import os
import random
import signal
import sys
import time
import traceback
import types
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from grading.execution.inputs import outputs, short_fit
from grading.execution.remote import KernelError, as_step, ask, direct, serve
from grading.outcomes import NOT_ATTEMPTED, FailureKind, UnitLine
from grading.rubric import OUTPUTS, RUBRIC

FOLDER = Path(__file__).resolve().parents[2]  # of the job, independent of the current folder
CPU_SECONDS, WALL_SECONDS = 20, 200  # limits of one function
LISTS_CPU_SECONDS, LISTS_WALL_SECONDS = 120, 1200
FORKS = sys.platform == "linux"
FIT = {  # at most as long as with the defaults, on a small data set
    "svd": {"iterations": 30},
    "als": {"iterations": 10},
    "bpr": {"iterations": 40},
    "warp": {"iterations": 15},
}
SLOW = "an endless loop, or far too slow"
CHECK_IS_OVER = 3  # an exit code: skip the other versions of the kernel
connections: dict[int, Connection] = {}  # by unit: the connection to the version of a kernel


class Purpose(StrEnum):
    """The purpose of a unit."""

    FUNCTION = "function"  # outputs for generated inputs
    SHORT_FIT = "short fit"  # a few iterations on generated ratings
    LISTS = "lists"  # recommendations of the whole model


class TooSlowError(BaseException):
    """A function has used too much CPU time.

    It is not an Exception, so that a student's ``except Exception`` does not catch it.
    """


class UncalledError(Exception):
    """A function has called a kernel that it must not use."""


@dataclass
class Loaded:
    """The names that a student's file or cells define, and the exceptions of failed statements."""

    names: dict[str, Any]
    failures: list[BaseException] = field(default_factory=list)

    def run(self, source: str | bytes, file: str) -> None:
        """Execute a file or a cell statement by statement.

        A statement that fails does not stop the others: it may need data, a terminal, a screen or
        arguments that are not here, and the functions need not need it.
        """
        tree, flags = ast.parse(source, file), 0
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                for alias in statement.names:
                    flags |= getattr(__future__, alias.name).compiler_flag
            try:
                module = ast.Module([statement], [])
                exec(compile(module, file, "exec", flags, dont_inherit=True), self.names)
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                self.failures.append(error)

    def function(self, name: str) -> Callable:
        """Return a function; if it is missing, raise the first failure or AttributeError."""
        found = self.names.get(name)
        if found is None and self.failures:
            raise self.failures[0]
        if not callable(found):
            raise AttributeError(f"expected a function {name}, found none")
        return found


def load(file: str) -> Loaded:
    """Execute a student's module, a file of ``FOLDER``, as part of the grader's package.

    Its relative imports find the package; the package does not import it.
    """
    path = FOLDER / file
    name = f"mflib.submitted_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # needed by dataclasses and pickles
    loaded = Loaded(vars(module))
    loaded.run(path.read_bytes(), str(path))
    return loaded


def run_cells(cells: list[list[str]]) -> Loaded:
    """Execute cells of a notebook, pairs of label and source."""
    loaded = Loaded({"__name__": "__main__", "get_ipython": NoShell})
    for label, source in cells:
        loaded.run(source, f"<{label}>")
    return loaded


def find_other_files() -> None:
    """Let imports find the student's other files, after the package and all libraries."""
    package, others = importlib.import_module("mflib"), FOLDER / "others"
    for places, place in ((package.__path__, others / "mflib"), (sys.path, others)):
        if str(place) not in places:
            places.append(str(place))


class NoShell:
    """Replaces IPython's shell; commands and magics do nothing."""

    def __getattr__(self, name: str) -> Callable:
        return lambda *_, **__: []


def adopt(module: dict, task: str) -> None:
    """Replace the empty kernels of a module with the student's, if their file can be parsed.

    The grader's modules call this in their last line when a whole notebook is run.
    """
    find_other_files()
    with suppress(Exception):
        own = load(f"submitted/{RUBRIC[task].module}.py").names
        module |= {name: own[name] for name in RUBRIC[task].kernels if name in own}


def called_like(function: Callable, empty: Callable, key: str) -> Callable:
    """Return ``function`` in the form in which the package calls a kernel.

    Arguments are passed by position, in the order of ``empty``. The function may use autograd;
    gradients that it leaves on tensors are removed. Zeros stand in for what it returns: losses do
    not stay in a model, so neither their form nor a fault in them may change its lists.
    """
    signature, zeros = inspect.signature(empty), torch.zeros(1, dtype=torch.float64)
    returned = [zeros for _ in OUTPUTS[key].returned]

    @functools.wraps(empty)
    def call(*args: object, **named: object) -> object:
        arguments = list(signature.bind(*args, **named).arguments.values())
        with torch.enable_grad():  # off during training
            function(*arguments)
        for tensor in arguments:
            if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
                tensor.requires_grad_(False).grad = None
        return returned[0] if len(returned) == 1 else returned

    return call


def use_kernels(task: str, unit: dict) -> Loaded:
    """Replace the package's empty kernels with the student's."""
    module = importlib.import_module(f"mflib.{RUBRIC[task].module}")
    own = load_with_helpers(unit)
    for name in RUBRIC[task].kernels:
        key = f"{task}/{name}"
        if callable(own.names.get(name)) and OUTPUTS[key].changed:
            setattr(module, name, called_like(own.names[name], getattr(module, name), key))
        elif callable(own.names.get(name)):
            setattr(module, name, own.names[name])
    return own


def load_with_helpers(unit: dict) -> Loaded:
    """Load a student's module; the unit may name files with helpers that replace its functions."""
    own = load(unit["file"])
    for name, file in unit.get("helpers", {}).items():
        own.names[name] = load(file).names[name]
    return own


def fit_model(unit: dict) -> dict[str, np.ndarray]:
    """Fit the grader's class with the student's kernels; return its recommendations."""
    import mflib

    task, _, kernel = unit["key"].partition("/")
    with np.load(FOLDER / "train.npz", allow_pickle=False) as stored:
        entries = (stored["data"], stored["indices"], stored["indptr"])
        train = sp.csr_matrix(entries, tuple(stored["shape"]))
        pairs = (stored["users"], stored["items"]) if task == "svd" else ([], [])
    use_kernels(task, unit)
    train = train if task == "svd" else sp.csr_matrix(train >= 4, dtype=np.float64)
    options = FIT[task] | RUBRIC[task].lists[kernel]
    model = getattr(mflib, task.upper())(dtype=torch.float64, **options)
    model.fit(train, show_progress=False)
    ids, _ = model.recommend(np.arange(train.shape[0]), train, 10)
    similar, _ = model.similar_items(np.arange(train.shape[1]), 11)
    return {"ids": ids, "similar": similar, "estimates": model.predict(*pairs)}


def run_unit(n: int, unit: dict, seeds: list[int]) -> tuple[dict[str, np.ndarray], UnitLine]:
    """Run a unit; return its arrays and its line of results."""
    loaded = Loaded({})
    try:
        task, _, name = unit["key"].partition("/")
        if unit["purpose"] == Purpose.LISTS:
            return fit_model(unit), UnitLine(n)
        if unit["purpose"] == Purpose.SHORT_FIT:
            use_kernels(task, unit)
            return short_fit(unit["key"], seeds[0]), UnitLine(n)
        step = step_of(n, unit) if "kernel" in unit else None
        if "cells" in unit:
            empty_kernels(task)
        loaded = load_with_helpers(unit) if "file" in unit else run_cells(unit["cells"])
        function = loaded.function(name)
        if step is not None:
            same_random_numbers()
            function(step)
            return {}, UnitLine(n, where=definition_of(function, unit))
        arrays: dict[str, np.ndarray] = {}
        for seed in seeds:
            observed = outputs(function, unit["key"], seed)
            arrays |= {place: storable(output.after) for place, output in observed.items()}
        remark = failed_statement(loaded, unit)
        return arrays, UnitLine(n, where=definition_of(function, unit), remark=remark)
    except BaseException as error:  # any exception of students' code is a result
        line = failure_line(n, error, unit)
        first = failed_statement(loaded, unit)
        if line.kind is FailureKind.RAISED and first and error is not loaded.failures[0]:
            line = replace(line, message=f"{line.message}; before that, {first}"[:2000])
        return {}, line


def failed_statement(loaded: Loaded, unit: dict) -> str:
    """Return the place and message of the first failed statement, or an empty text.

    In cells, statements that need the data fail always, so it is reported for files only.
    """
    if not loaded.failures or "file" not in unit:
        return ""
    line = failure_line(0, loaded.failures[0], unit)
    return f"{line.where} {line.message}"[:2000]


def same_random_numbers() -> None:
    """Seed the global generators, so that the order of versions does not matter."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (students may use it)
    random.seed(0)


def step_of(n: int, unit: dict) -> Callable:
    """Return the version of a kernel for a step check.

    Where processes can be forked, the kernel is in another one, and this one has only the
    connection to it.
    """
    task, kernel = unit["key"].partition("/")[0], OUTPUTS[unit["key"]].kernel
    empty = getattr(importlib.import_module(f"mflib.{RUBRIC[task].module}"), kernel)
    if n in connections:
        return as_step(functools.partial(ask, connections[n]), empty)
    return as_step(functools.partial(direct, load(unit["kernel"]).function(kernel)), empty)


def start_kernels(units: dict[int, dict]) -> None:
    """Connect the units of checks with versions of kernels, in one process for each check."""
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    for n, unit in units.items():
        if "kernel" in unit:
            files[unit["key"]][n] = FOLDER / unit["kernel"]
    for key, of_check in files.items():

        def kernel(file: Path, name: str = OUTPUTS[key].kernel) -> Callable:
            return load(str(file)).function(name)

        connections.update(serve(of_check, kernel, CPU_SECONDS * len(of_check)))


def definition_of(function: Callable, unit: dict) -> str:
    """Return the student's lines that contain a function, if it is written in Python."""
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    if not isinstance(code, types.CodeType) or Path(code.co_filename).name not in file_names(unit):
        return ""
    first, last = code.co_firstlineno, last_line(code)
    place = place_of(Path(code.co_filename).name, first)
    return place if first == last else f"{place.replace(', line ', ', lines ')}-{last}"


def last_line(code: types.CodeType) -> int:
    """Return the last line of a function, with those of the functions in it."""
    lines = [line for *_, line in code.co_lines() if line]
    inner = [
        last_line(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)
    ]
    return max([code.co_firstlineno, *lines, *inner])


def file_names(unit: dict) -> set[str]:
    """Return the file name of a student's file or cells in tracebacks."""
    return {Path(unit["file"]).name} if "file" in unit else {f"<{c[0]}>" for c in unit["cells"]}


def place_of(label: str, line: int | None) -> str:
    place = label.strip("<>") if label.endswith(".py") else f"cell {label.strip('<>')}"
    return f"{place}, line {line}"


def storable(array: np.ndarray) -> np.ndarray:
    """Return an array, or a short description of an array of objects."""
    return array if array.dtype.kind in "biufcU" else np.asarray(f"{array.dtype} {array}"[:60])


def empty_kernels(task: str) -> None:
    """Make the kernels of a task raise an error, because loops and exercises must not use them."""
    module = importlib.import_module(f"mflib.{RUBRIC[task].module}")
    for name in RUBRIC[task].kernels:

        def refuse(*_: object, name: str = name, **__: object) -> None:
            raise UncalledError(f"calls {name} of mflib, which is empty here: write it out")

        setattr(module, name, refuse)


def failure_line(n: int, error: BaseException, unit: dict) -> UnitLine:
    """Describe an exception, with the student's line."""
    name = unit["key"].partition("/")[2]
    own = file_names(unit)
    trace = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in trace if Path(frame.filename).name in own]
    where = place_of(Path(frames[-1].filename).name, frames[-1].lineno) if frames else ""
    kind, message = FailureKind.RAISED, f"raises {type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and Path(error.filename or "").name in own:
        where, message = place_of(Path(str(error.filename)).name, error.lineno), error.msg
    elif isinstance(error, NotImplementedError) and is_raised_by_statement(error):
        inside = trace[-1].name
        if inside in (name, "<module>"):
            kind, message = NOT_ATTEMPTED.kind, NOT_ATTEMPTED.message
        else:
            message = f"needs {inside}, which is not attempted"
    elif isinstance(error, UncalledError):
        message = str(error)
    elif "kernel" in unit and isinstance(error, AssertionError):
        kind, message = FailureKind.REFUSED, str(error) or "AssertionError without a message"
    elif "kernel" in unit and isinstance(error, KernelError):
        kind, message = FailureKind.KERNEL_RAISED, str(error)
    elif isinstance(error, TooSlowError):
        kind, message = FailureKind.CPU_TIME, too_slow(unit)
    elif isinstance(error, AttributeError) and not frames:
        message = str(error)
    elif isinstance(error, SystemExit):
        message = "ends the program"
    return UnitLine(n, kind, message[:2000], where)


def is_raised_by_statement(error: BaseException) -> bool:
    """Return whether a ``raise`` of a student's file or of the package raised an exception.

    An empty function does so. torch also raises NotImplementedError: in a call, or in its own file.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    by_raise = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    inside = code.co_filename.startswith("<") or Path(code.co_filename).is_relative_to(FOLDER)
    return by_raise and inside


def cpu_limit(unit: dict) -> float:
    """Return the limit of CPU time of a unit, in seconds."""
    return LISTS_CPU_SECONDS if unit["purpose"] == Purpose.LISTS else CPU_SECONDS


def too_slow(unit: dict) -> str:
    """Return the message for a stopped function."""
    text = f"ended after {cpu_limit(unit):g} s of CPU time, the limit"
    if unit["purpose"] == Purpose.LISTS:
        return f"{text} of fitting a whole model: use tensors in place of a loop over the batch"
    if unit["purpose"] == Purpose.SHORT_FIT:
        return f"{text} of a fit to 1,500 ratings: {SLOW}"
    return f"{text} of a function: {SLOW}"


def run_in_time(n: int, unit: dict, seeds: list[int]) -> tuple[dict[str, np.ndarray], UnitLine]:
    """``run_unit``, stopped at its limit of CPU time, on systems that can measure it.

    The student's line at which it was stopped is reported.
    """
    if not hasattr(signal, "SIGPROF"):
        return run_unit(n, unit, seeds)

    def stop(*_: object) -> None:
        raise TooSlowError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, cpu_limit(unit))
    try:
        return run_unit(n, unit, seeds)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def run_and_store(n: int, unit: dict, seeds: list[int]) -> UnitLine:
    arrays, line = run_in_time(n, unit, seeds)
    try:
        np.savez(FOLDER / f"{n}.npz", **arrays)  # type: ignore[arg-type]
    except Exception as error:  # a student's object that only looks like an array
        message = f"returns a value that is not an array: {type(error).__name__}"
        line = line if line.kind else replace(line, kind=FailureKind.RAISED, message=message)
    store(line)
    return line


def store(line: UnitLine) -> None:
    with open(FOLDER / "results.jsonl", "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(json.dumps(asdict(line)) + "\n")


def is_running(child: int) -> bool:
    """Return whether a process is computing, or is runnable on a busy machine."""
    fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return fields[0] == "R"


def run_in_child(n: int, unit: dict, seeds: list[int]) -> bool:
    """``run_and_store`` in a forked process; however that ends, a line is stored.

    Returns
    -------
    bool
        Whether the end of the process decides the verdict on a check.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            for other in set(connections) - {n}:  # connections that this child must not use
                connections[other].close()
            line = run_and_store(n, unit, seeds)
            os._exit(CHECK_IS_OVER if "kernel" in unit and ends_check(line) else 0)
        os._exit(1)
    long = unit["purpose"] == Purpose.LISTS
    deadline = time.monotonic() + (LISTS_WALL_SECONDS if long else WALL_SECONDS)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline and not is_running(child):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            store(UnitLine(n, FailureKind.WALL_TIME, f"ended by the wall-time limit: {SLOW}"))
            return True
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    if code:  # the first line of a unit counts
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        store(UnitLine(n, FailureKind.CRASHED, f"its process ended ({how})"))
    return code != 0


def ends_check(line: UnitLine) -> bool:
    return line.kind is not None and line.kind.ends_check


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    finished = set(map(int, sys.argv[2:]))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # so that input() fails instead of waiting
    sys.argv = [str(FOLDER / "notebook.py")]  # a student's file may parse its arguments
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)  # also makes forking safe
    remaining = {n: unit for n, unit in enumerate(job["units"]) if n not in finished}
    import_shared(remaining)
    find_other_files()
    gc.collect()
    gc.freeze()  # otherwise garbage collection in each child would copy the memory of all objects
    if not FORKS:
        for n, unit in remaining.items():
            run_and_store(n, unit, job["seeds"])
        return
    start_kernels(remaining)
    over: set[str] = set()
    for n, unit in remaining.items():
        if unit["key"] not in over and run_in_child(n, unit, job["seeds"]) and "kernel" in unit:
            over.add(unit["key"])


def import_shared(units: dict[int, dict]) -> None:
    """Run the grader's first cell once, so that all children inherit the imports."""
    importlib.import_module("mflib")
    cells = [cell for unit in units.values() for cell in unit.get("cells", [])]
    if any("matplotlib" in source for _, source in cells):
        importlib.import_module("matplotlib.pyplot")
    for first in dict.fromkeys(unit["cells"][0][1] for unit in units.values() if "cells" in unit):
        run_cells([["imports", first]])


if __name__ == "__main__":
    main()
