"""Fuzz the grader with random submissions and results: no input may crash it or take long.

    python -m grading.evaluation.fuzz [--minutes M] [--seed N] [--only NAME …]

Random bytes, cut, spliced and repeated notebooks, archives, modules, arrays, results and names are
passed to the functions that read them, in processes with the grader's limits. Each call must end in
time, with a result or a reason, never with an exception; inputs that fail are written to
build/fuzz/. Minutes are of CPU time, divided among TARGETS.
"""

import argparse
import json
import os
import pickle
import resource
import secrets
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from grading.evaluation.mutations import (
    NAMES,
    NUMBERS,
    archive,
    as_json,
    keys,
    mutated,
    mutated_tree,
    results,
    stored,
)
from grading.execution.reference import expected
from grading.execution.trial import Unit, _result, read_lines
from grading.intake.collect import File, packages
from grading.intake.names import safe_name
from grading.intake.spool import spooled
from grading.intake.submission import Submission, read
from grading.isolation.bounded_process import BoundedProcess, ProcessLimits, Send
from grading.isolation.sandbox import remove
from grading.judging.functions import verdicts
from grading.judging.recommendations import hidden_split, measure
from grading.judging.reproducibility import compare_cells, dataset_of, notebook_to_run
from grading.outcomes import UnitLine
from grading.paths import ROOT
from grading.pipeline import executed_cells, known, sources
from grading.plagiarism import public_answers
from grading.plagiarism.normal_form import normal_forms
from grading.reporting.render import report_page
from grading.result import Report, Score, read_report
from grading.rubric import CALLED, RUBRIC
from grading.scoring import empty_score, score_functions

TARGET = ROOT / "build" / "fuzz"
STORED = ROOT / "tests" / "notebooks" / "ml-100k"
DATASET, SECRET = "ml-100k", 7
CALL_SECONDS = 60  # of CPU time
BATCH = 50  # calls between two checks of the time
TASKS = st.sampled_from(sorted(RUBRIC))


@cache
def notebook(task: str) -> bytes:
    return (STORED / f"{RUBRIC[task].notebook}.ipynb").read_bytes()


@cache
def tree(task: str) -> dict:
    return json.loads(notebook(task))


@cache
def module(task: str) -> bytes:
    return (ROOT / "mflib" / f"{RUBRIC[task].module}.py").read_bytes()


def read_one(task: str, name: str, content: bytes) -> Submission:
    """Read a file and use everything in it."""
    given = read({name: File(lambda: content, 0.0)}, known())
    texts = sources(given)
    for key, text in texts.items():
        normal_forms(text)
        public_answers.published(key, text)
    notebook_to_run(task, given.answers, known()[task])
    dataset_of(task, given.stored.get(task, {}), DATASET)
    return given


def a_notebook(task: str, number: int, as_bytes: bool) -> None:
    others = [notebook(other) for other in RUBRIC]
    spoilt = mutated(notebook(task), others, number) if as_bytes else None
    content = as_json(mutated_tree(tree(task), number)) if spoilt is None else spoilt
    read_one(task, f"notebooks/{RUBRIC[task].notebook}.ipynb", content)


def a_module(task: str, number: int) -> None:
    others = [module(other) for other in RUBRIC]
    content = mutated(module(task), others, number)
    read_one(task, f"mflib/{RUBRIC[task].module}.py", content)
    read_one(task, f"{RUBRIC[task].notebook}.py", content)  # a notebook as a script


def outputs(task: str, number: int, other: int) -> None:
    """Compare stored and executed outputs, both mutated."""
    name = f"{RUBRIC[task].notebook}.ipynb"
    cells = read_one(task, name, as_json(mutated_tree(tree(task), number))).stored.get(task, {})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "executed.ipynb").write_bytes(as_json(mutated_tree(tree(task), other)))
        executed: dict[str, nbformat.NotebookNode] = {}
        with suppress(Exception):  # the pipeline reports exceptions as reasons
            executed = executed_cells(Path(folder))
    score = empty_score()
    score.changes[task] = compare_cells(task, cells, executed).differences
    show(Report("x", score))


def packing(task: str, number: int, kind: str, names: list[str]) -> None:
    """Open a mutated archive, as the grader does."""
    files = {f"mflib/{task}.py": module(task), f"notebooks/{task}.ipynb": notebook(task)}
    files |= {name: archive(files, "zip") if n else b"1" for n, name in enumerate(names)}
    content = archive(files, kind)
    content = mutated(content, [content, module(task)], number) if number % 3 else content
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"work.{kind}").write_bytes(content)
        with suppress(ValueError):  # empty archives
            for package in packages([Path(folder) / f"work.{kind}"], spooled(Path(folder) / "s")):
                read(package.files, known())
                show(Report(package.name, Score(notes=package.notes)))


def names_of(several: list[str]) -> None:
    """Read a class whose folders and files have any names."""
    folder = Path(tempfile.mkdtemp())
    try:
        for name in several:
            place = os.fsencode(folder) + b"/" + name.encode("utf-8", "surrogateescape")[:4000]
            with suppress(OSError, ValueError):  # invalid file names
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with open(place, "wb") as file:
                    file.write(b"x = 1")
        with suppress(ValueError):
            for package in packages([folder], spooled(folder.with_suffix(".s"))):
                if package.name != safe_name(package.name, 200):
                    raise AssertionError(f"{package.name!r} is no safe name")
                read(package.files, known())
                package.handed_in.astimezone()
                show(Report(package.name, Score(notes=package.notes)))
    finally:
        remove(folder)


def results_of_run(key: str, line: int, array: int, got: dict[str, np.ndarray]) -> None:
    """Read mutated lines and arrays of a run in the sandbox."""
    good = b'{"unit": 0}\n{"unit": 1, "kind": "raised", "message": "no", "where": "x"}\n'
    text = mutated(good, [b"[]"], line)
    content = stored(got)
    content = mutated(content, [content], array) if array % 2 else content
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "results.jsonl").write_bytes(text)
        (Path(folder) / "0.npz").write_bytes(content)
        lines = read_lines(Path(folder) / "results.jsonl", 2, 0.0)
        result = _result(Path(folder) / "0.npz", lines.get(0, UnitLine(0)))
    score = empty_score()
    score_functions(verdicts([(Unit(key), result)], right_of, {}), {}, score)
    show(Report("x", score))


def lists(task: str, got: dict[str, np.ndarray]) -> None:
    with suppress(Exception):  # scoring reports exceptions as reasons
        split = hidden_split(DATASET, SECRET)
        measure(task, split, got["ids"], got["similar"], got["estimates"])


def show(report: Report) -> None:
    """Send, read and render a report, as the grader does."""
    text = json.dumps(report.as_json())
    report_page(read_report(json.loads(text))).encode("utf-8", "replace")


@cache
def right_of(key: str) -> dict:
    return expected(key, (SECRET,))


@st.composite
def of_a_function(draw: st.DrawFn) -> tuple:
    key = draw(keys())
    right = {place: came.after for place, came in right_of(key).items()}
    return key, draw(NUMBERS), draw(NUMBERS), draw(results(right))


@st.composite
def of_lists(draw: st.DrawFn) -> tuple:
    right = {"ids": np.zeros((943, 10), int), "similar": np.zeros((1682, 11), int)}
    return draw(TASKS), draw(results(right | {"estimates": np.zeros(15_000)}))


KINDS = st.sampled_from(("zip", "tar", "tar.gz"))
TARGETS: dict[str, tuple[Callable, st.SearchStrategy]] = {
    "notebooks": (a_notebook, st.tuples(TASKS, NUMBERS, st.booleans())),
    "modules": (a_module, st.tuples(TASKS, NUMBERS)),
    "outputs": (outputs, st.tuples(TASKS, NUMBERS, NUMBERS)),
    "packages": (packing, st.tuples(TASKS, NUMBERS, KINDS, st.lists(NAMES, max_size=3))),
    "names": (names_of, st.tuples(st.lists(NAMES, max_size=6))),
    "results": (results_of_run, of_a_function()),
    "lists": (lists, of_lists()),
}


@dataclass
class Found:
    """The results of one target."""

    calls: int = 0
    seconds: float = 0.0
    slowest: float = 0.0  # seconds of CPU time of one call
    memory: int = 0  # bytes resident
    failures: tuple[str, ...] = ()  # a traceback of each kind


class SlowError(BaseException):
    """Raised when a call takes too long; not an Exception, so that no reader catches it."""


def fuzz(send: Send, name: str, seconds: float, number: int) -> None:
    """Call one target for a number of seconds; send the results after each batch."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # messages about a class
    function, strategy = TARGETS[name]
    found, kinds, begun = Found(), {}, _cpu()
    last = TARGET / f"{name}.last"

    def stop(*_: object) -> None:
        raise SlowError

    signal.signal(signal.SIGPROF, stop)

    def once(arguments: tuple) -> None:
        last.write_bytes(pickle.dumps(arguments))  # in case the process dies
        start = _cpu()
        signal.setitimer(signal.ITIMER_PROF, CALL_SECONDS)
        try:
            function(*arguments)
        except (Exception, SlowError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} {Path(place.filename).name}:{place.lineno}"
            if kind not in kinds:
                kinds[kind] = f"{kind}\n{traceback.format_exc()[-1500:]}"
                last.rename(TARGET / f"{name}.{len(kinds)}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        found.calls += 1
        found.slowest = max(found.slowest, _cpu() - start)

    options = settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    while _cpu() < begun + seconds:
        number += 1
        seed(number)(options(given(strategy)(once)))()
        found.seconds, found.failures = _cpu() - begun, tuple(kinds.values())
        used = [resource.getrusage(who).ru_maxrss for who in (0, resource.RUSAGE_CHILDREN)]
        found.memory = 1024 * max(used)
        send(vars(found))


def _cpu() -> float:
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="of CPU time, in all")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    asked = parser.parse_args()
    TARGET.mkdir(parents=True, exist_ok=True)
    public_answers.warm_up()
    hidden_split(DATASET, SECRET)
    for key in CALLED:
        right_of(key)
    bounds = replace(ProcessLimits(), cpu_seconds=100_000, seconds=100_000.0)
    failed = False
    print(f"seed {asked.seed}\n| what | calls | CPU time, s | slowest, s | MiB | failures |")
    for name in asked.only:
        seconds = 60 * asked.minutes / len(asked.only)
        child, found = BoundedProcess(fuzz, name, seconds, asked.seed, bounds=bounds), Found()
        while message := child.message():
            found = Found(**message)
        why = [*found.failures, *([] if child.ended is None else [child.ended])]
        failed = failed or bool(why)
        numbers = f"{found.calls} | {found.seconds:.0f} | {found.slowest:.1f}"
        print(f"| {name} | {numbers} | {found.memory / 2**20:.0f} | {len(why)} |", flush=True)
        print(*why, sep="\n", end="\n" if why else "", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
