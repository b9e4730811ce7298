"""Grade one submission: read it, run its code in the sandbox, and score the results.

``grade_in_child`` does so in its own process, the only one that reads untrusted files. It sends the
score after each step, so a step that ends the process costs only the later ones.

Each step runs students' code in its own folder, so files that one step leaves cannot reach another.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from grading import schema
from grading.execution.empty import blank
from grading.execution.harness import Purpose
from grading.execution.inputs import Observed
from grading.execution.reference import expected, imports
from grading.execution.trial import (
    Unit,
    UnitResult,
    check_units,
    module_path,
    plain_file,
    prepare,
    run_checks,
    run_units,
    try_submission,
    write_modules,
    write_others,
)
from grading.intake.cells import HandedOut, handed_out
from grading.intake.collect import Package
from grading.intake.submission import Submission, read
from grading.isolation.bounded_process import Send
from grading.isolation.monitor import Limits
from grading.isolation.sandbox import run
from grading.judging.functions import verdicts
from grading.judging.recommendations import QualityRange, hidden_split, quality_range
from grading.judging.reproducibility import (
    Comparison,
    compare_cells,
    dataset_of,
    notebook_to_run,
    reference_cells,
)
from grading.judging.verdict import Verdict
from grading.kernels.hidden import batches
from grading.outcomes import Failure, FailureKind
from grading.paths import NOTEBOOK_TOOLS, ROOT, copy_modules
from grading.plagiarism import public_answers
from grading.plagiarism.normal_form import normal_forms
from grading.result import SOURCE, SOURCES, Score
from grading.rubric import OUTPUTS, RUBRIC, function_of
from grading.scoring import (
    Verdicts,
    award_right_lists,
    empty_score,
    is_determined,
    kernel_fraction,
    kernels_to_fit,
    score_functions,
    score_lists,
    score_reproducibility,
)
from grading.talk.outputs import recommended
from grading.talk.quotes import quotes_of
from mflib.data import data_dir

N_SEEDS = 4  # for each function
# CPU seconds of a run: for its start, each unit, each version of a kernel on which a check runs (in
# another process), each fitted model, each notebook.
SECONDS = {"start": 30, "unit": 25, "version": 40, "lists": 180, "notebook": 900}
NOTEBOOK = 2**22  # bytes of an executed notebook
WALL_FACTOR, WALL_FACTOR_ALONE = 6, 2  # wall-time limit / CPU-time limit
WALL_SECONDS, WALL_SECONDS_ALONE = 2400.0, 1200.0  # of all runs of a submission together
# Seconds of waiting that all runs together may use; after that, LAST for each further run.
WAITING, LAST = 180.0, 5.0
# The steps of grading and the fraction of the work in each.
STEPS = {"functions": 0.2, "lists": 0.4, **dict.fromkeys(RUBRIC, 0.4 / len(RUBRIC))}


@dataclass(frozen=True)
class Options:
    """Options of one run of the grader."""

    dataset: str
    secret: int  # the seed of all hidden inputs
    suite: Path  # the package with empty kernels, see ``empty_suite``
    trust: bool = False  # run without the sandbox
    container: bool = False  # the machine is the sandbox
    alone: bool = False  # no other submission is graded at the same time
    # for functions' inputs; the lists of all submissions use the same split
    submission_seed: int = 0
    quality: dict[str, QualityRange] = field(default_factory=dict)  # by task, from ``warm_up``

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the inputs of functions.

        Students' code can read them. They do not reveal the secret, which also determines the order
        of the kernels on which checks are tried, and the split of the ratings.
        """
        text = f"{self.secret}/{self.submission_seed}"
        first = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
        return tuple(first + n for n in range(N_SEEDS))


@dataclass
class Runs:
    """The runs of one submission in the sandbox; waiting and wall time are limited in total."""

    options: Options
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    waited: float = 0.0

    def launch(self, command: list[str], folder: Path, seconds: int) -> Failure | None:
        """Run a command with a limit of CPU time; return the reason if it failed."""
        factor = WALL_FACTOR_ALONE if self.options.alone else WALL_FACTOR
        total = WALL_SECONDS_ALONE if self.options.alone else WALL_SECONDS
        if (left := total - self.wall_seconds) <= 0:
            text = f"ended by the wall-time limit: all runs together took more than {total:.0f} s"
            return Failure(FailureKind.WALL_TIME, text)
        waiting = max(LAST, WAITING - self.waited)
        limits = Limits(cpu_seconds=seconds, seconds=min(left, seconds * factor), waiting=waiting)
        start = time.monotonic()
        finished = run(command, folder, [], limits, self.options.trust, self.options.container)
        self.wall_seconds += time.monotonic() - start
        self.cpu_seconds += finished.cpu_seconds
        self.waited += finished.waited
        failure = finished.failure
        if failure and failure.kind is FailureKind.WALL_TIME and not self.options.alone:
            self.wall_seconds += total  # graded again alone: skip the other runs
        return failure


@dataclass
class Grading:
    """One submission while it is graded."""

    given: Submission
    options: Options
    folder: Path  # each step runs students' code in a subfolder
    score: Score  # so far
    verdicts: dict[str, Verdict] = field(default_factory=dict)  # by function
    runs: Runs = field(init=False)

    def __post_init__(self) -> None:
        self.runs = Runs(self.options)


@dataclass(frozen=True)
class Progress:
    """The message of a grading process after each step."""

    step: str
    score: Score
    cpu_seconds: float  # of the step, including the sandbox

    @property
    def work(self) -> float:
        """The fraction of the whole work in this step."""
        return STEPS[self.step]


@cache
def known() -> dict[str, list[HandedOut]]:
    """Return the cells of the student edition's notebooks."""
    return handed_out(ROOT / "notebooks")


@cache
def versions() -> str:
    """Return the versions of everything that numerical results depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy"))
    return f"Python {platform.python_version()}, {packages}"


def new_score(options: Options) -> Score:
    """Return the score of a submission that has not been graded."""
    score = empty_score()
    score.dataset, score.secret, score.versions = options.dataset, options.secret, versions()
    return score


def grade(
    package: Package,
    options: Options,
    folder: Path,
    report_step: Callable[[str, Score, float], object] = lambda *_: None,
) -> Score:
    """Return the score of a submission.

    Parameters
    ----------
    package : Package
        The submitted files.
    options : Options
        Options of the run.
    folder : Path
        Students' code runs here, each step in a separate subfolder.
    report_step : callable
        Called after each step with its name, and the score and CPU seconds of the sandbox so far.
    """
    score = new_score(options)
    given = read(package.files, known())
    options = replace(options, submission_seed=seed_of(given))
    score.seeds = list(options.seeds)
    # for an empty submission, reading the class has already added a note
    said = package.notes if package.notes and not package.files else [*package.notes, *given.notes]
    score.notes = [*said, *given.review]
    score.review = given.review
    score.declarations = {task: text for task, text in given.declarations.items() if text}
    score.answers = sources(given)
    score.quotes = quotes_of(given)
    score.recommended = recommended_movies(given, options.dataset)
    for key, source in score.answers.items():
        score.normal_forms[key] = normal_forms(source)
        score.published[key] = public_answers.published(key, source)
    grading = Grading(given, options, folder, score)
    runs = grading.runs
    try_functions(grading)
    report_step("functions", score, runs.cpu_seconds)
    score_models(grading)
    report_step("lists", score, runs.cpu_seconds)
    for task in RUBRIC:
        reproduce(task, grading)
        report_step(task, score, runs.cpu_seconds)
    return score


def grade_in_child(send: Send, package: Package, options: Options, folder: Path) -> None:
    """Run ``grade`` and send its progress as JSON."""
    before = 0.0

    def report_step(step: str, score: Score, in_sandbox: float) -> None:
        nonlocal before
        now = sum(os.times()[:4]) + in_sandbox
        send(schema.encode(Progress(step, score.bounded(), now - before)))
        before = now

    grade(package, options, folder, report_step)


def seed_of(given: Submission) -> int:
    """Return a number that depends on the student's code.

    The hidden inputs change with it, so a student who has seen inputs cannot submit a table of
    their outputs.
    """
    parts = (given.modules, given.answers, given.others)
    code = repr([sorted(part.items()) for part in parts])
    return int.from_bytes(hashlib.sha256(code.encode("utf-8", "replace")).digest()[:5], "big")


def sources(given: Submission) -> dict[str, str]:
    """Return the student's code by key: "svd/svd.py" for a module, "svd/new_user" for cells.

    Statements of a module that the student edition contains are left out.
    """
    texts = {
        f"{task}/{RUBRIC[task].module}.py": content.decode("utf-8", "replace")
        for task, content in given.modules.items()
    }
    for key, cells in given.answers.items():
        texts[key] = "\n\n".join(source for _, source in cells)
    kept, left = {}, SOURCES
    for key, source in texts.items():
        kept[key] = public_answers.without_handout(key, source)[: min(SOURCE, left)]
        left -= len(kept[key])
    return kept


def recommended_movies(given: Submission, dataset: str) -> dict[str, list[int]]:
    """Return the movies that the notebooks show as recommendations, by task."""
    return {
        task: ids
        for task, stored in given.stored.items()
        if dataset_of(task, stored, dataset) == dataset and (ids := recommended(stored, dataset))
    }


def try_functions(grading: Grading) -> None:
    """Call all functions of a submission, and score the verdicts."""
    given, options, folder = grading.given, grading.options, grading.folder / "functions"
    seeds, seconds = list(options.seeds), SECONDS["start"] + SECONDS["unit"] * len(OUTPUTS)

    def launch(command: list[str], place: Path) -> Failure | None:
        return grading.runs.launch(command, place, seconds)

    def expect(key: str) -> Mapping[str, Observed]:
        return expected(key, options.seeds)

    pairs = try_submission(given, folder, options.suite, seeds, imports(), launch)
    pairs += try_checks(given, grading.folder / "checks", grading.runs)
    found = verdicts(pairs, expect, given.problems)
    if again := units_to_try_again(given, found):
        place = folder / "again"
        prepare(place, options.suite)
        write_others(given, place, with_package=True)
        write_modules(given, place)
        write_helpers(again, place)
        results = run_units(place, again, seeds, launch)
        better = verdicts(zip(again, results, strict=True), expect, {})
        for key in {unit.key for unit in again}:
            found[key] = max(found[key], better[key], key=lambda verdict: verdict.fraction)
    grading.verdicts = found
    score_functions(found, given.problems, grading.score)


def units_to_try_again(given: Submission, found: Verdicts) -> list[Unit]:
    """Return units for wrong kernels that call another wrong function.

    The reference replaces that function. Its source is readable in the folder of this run, so only
    these units run there.
    """
    units = []
    for task in given.modules:
        for caller, called in RUBRIC[task].helpers.items():
            verdict = found[f"{task}/{caller}"]
            wrong = [name for name in called if not found[f"{task}/{name}"].is_right]
            if wrong and not verdict.is_right and verdict.is_attempted:
                helpers = tuple((name, f"helpers/{name}.py") for name in wrong)
                unit = Unit(verdict.key, file=module_path(task), helpers=helpers)
                units += [unit, replace(unit, purpose=Purpose.SHORT_FIT)]
    return units


def try_checks(given: Submission, folder: Path, runs: Runs) -> list[tuple[Unit, UnitResult]]:
    """Run the step checks of a submission on the hidden kernels; return the results.

    The order of the kernels depends on the secret, which these sandboxes do not contain.
    """
    units = check_units(given, imports(), lambda key: batches(key, runs.options.secret))
    seconds = SECONDS["start"] + SECONDS["version"] * max(map(len, units), default=0)

    def launch(command: list[str], place: Path) -> Failure | None:
        return runs.launch(command, place, seconds)

    return run_checks(given, folder, units, runs.options.suite, launch)


def write_helpers(units: list[Unit], folder: Path) -> None:
    """For each helper of the units, write the package's module with only this function."""
    for unit in units:
        task, _ = function_of(unit.key)
        module = ROOT / "mflib" / f"{RUBRIC[task].module}.py"
        for name, file in unit.helpers:
            others = {n: hint for n, hint in RUBRIC[task].kernels.items() if n != name}
            (folder / file).parent.mkdir(exist_ok=True)
            source = blank(module.read_text(encoding="utf-8"), others)
            (folder / file).write_text(source, encoding="utf-8")


def unit_of_lists(kernel: Verdict) -> Unit:
    """Return the unit that fits a model with a kernel."""
    task, _ = function_of(kernel.key)
    helpers = tuple((name, f"helpers/{name}.py") for name in kernel.helpers)
    return Unit(kernel.key, file=module_path(task), purpose=Purpose.LISTS, helpers=helpers)


def fit_models(grading: Grading, kernels: dict[str, Verdict]) -> dict[str, UnitResult]:
    """Fit each task's model with the student's kernel; return the lists.

    SVD runs in a separate folder: it predicts held-out ratings, so its folder contains the held-out
    pairs, which the other tasks must not see.
    """
    results: dict[str, UnitResult] = {}
    options, folder = grading.options, grading.folder / "lists"
    for place, is_svd in ((folder / "svd", True), (folder / "others", False)):
        tasks = [task for task in kernels if (task == "svd") == is_svd]
        if not tasks:
            continue
        prepare(place, options.suite)
        write_others(grading.given, place, with_package=True)
        write_modules(grading.given, place)
        arrays = dict(hidden_split(options.dataset, options.secret).arrays)
        if not is_svd:
            del arrays["users"], arrays["items"]
        np.savez(place / "train.npz", **arrays)  # type: ignore[arg-type]
        units = [unit_of_lists(kernels[task]) for task in tasks]
        write_helpers(units, place)
        seconds = SECONDS["start"] + SECONDS["lists"] * len(units)

        def launch(command: list[str], place: Path, seconds: int = seconds) -> Failure | None:
            return grading.runs.launch(command, place, seconds)

        results |= dict(zip(tasks, run_units(place, units, [], launch), strict=True))
    return results


def score_models(grading: Grading) -> None:
    """Fit models with the student's kernels, and score their lists."""
    options, score = grading.options, grading.score
    award_right_lists(grading.verdicts, score)
    kernels = kernels_to_fit(grading.verdicts)
    for task, result in fit_models(grading, kernels).items():
        split_of = (options.dataset, options.secret)
        between = options.quality.get(task) or quality_range(task, *split_of)
        score_lists(kernels[task], result, *split_of, between, score)


def reproduce(task: str, grading: Grading) -> None:
    """Compare the stored outputs of a notebook with its outputs here, and score the comparison.

    The notebook is not executed if all functions that it needs are correct and its outputs are the
    known ones.
    """
    score, found = grading.score, grading.verdicts
    stored = grading.given.stored.get(task, {})
    if not kernel_fraction(task, found):  # the student has no results to reproduce
        return
    if not any(cell.get("execution_count") for cell in stored.values()):
        if stored:
            what = "the notebook was not executed: the outputs of the student edition do not count"
            score.reasons[task].append(f"reproducibility: {what}")
        return
    graded_on = grading.options.dataset
    dataset = dataset_of(task, stored, graded_on)
    comparison = compare_with_known(task, stored, dataset)
    if dataset != graded_on:
        what = f"the notebook was executed on {dataset} and is compared with the outputs on it"
        score.reasons[task].append(what)
        score_reproducibility(task, comparison, found, score)
        return
    if comparison.differences or not is_determined(task, found, score):
        executed = execute_notebook(task, grading)
        comparison = compare_cells(task, stored, executed)
    score_reproducibility(task, comparison, found, score)


def compare_with_known(task: str, stored: dict[str, dict[str, Any]], dataset: str) -> Comparison:
    """Compare stored outputs with the repository's."""
    reference = reference_cells(task, dataset)
    shown = {name: raw for name, raw in stored.items() if name in reference}
    return compare_cells(task, shown, reference, only=set(reference))


def execute_notebook(task: str, grading: Grading) -> dict[str, nbformat.NotebookNode]:
    """Execute the notebook with the student's answers and kernels; return its code cells."""
    folder, options, score = grading.folder / task, grading.options, grading.score
    prepare_notebook(task, grading)
    command = [sys.executable, "-m", "grading.execution.run_notebook", options.dataset]
    if failure := grading.runs.launch(command, folder, SECONDS["notebook"]):
        score.wall_time |= failure.kind is FailureKind.WALL_TIME
        score.reasons[task].append(f"the notebook: {failure}")
    try:
        return executed_cells(folder)
    except Exception as error:  # untrusted code may have deleted or replaced the file
        what = f"the executed notebook is not available: {type(error).__name__}"
        score.reasons[task].append(what)
        return {}


def prepare_notebook(task: str, grading: Grading) -> None:
    """Write a folder with the notebook, the data, and the student's kernels of all tasks.

    mflib imports all kernels. Those of other tasks that crash are left empty.
    """
    folder, options, given = grading.folder / task, grading.options, grading.given
    prepare(folder, options.suite)
    write_others(given, folder, with_package=True)
    write_modules(given, folder)
    for other, entry in RUBRIC.items():
        failures = [grading.verdicts[f"{other}/{name}"].failure for name in entry.kernels]
        if other != task and any(f is not None and f.kind.ends_process for f in failures):
            (folder / module_path(other)).unlink(missing_ok=True)
        with (folder / "mflib" / f"{entry.module}.py").open("a", encoding="utf-8") as module:
            module.write("\n\nfrom grading.execution.harness import adopt\n")
            module.write(f"\nadopt(globals(), {other!r})\n")
    copy_modules(["execution/run_notebook.py"], folder)
    shutil.copy(NOTEBOOK_TOOLS / "fresh_kernel.py", folder)
    nbformat.write(notebook_to_run(task, given.answers, known()[task]), folder / "notebook.ipynb")
    shutil.copytree(data_dir() / options.dataset, folder / "data" / options.dataset)


def executed_cells(folder: Path) -> dict[str, nbformat.NotebookNode]:
    """Return the code cells of the executed notebook by id; fail if it is malformed."""
    file = plain_file(folder / "executed.ipynb", NOTEBOOK)
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    code = [nbformat.from_dict(cell) for cell in cells if cell["cell_type"] == "code"]
    return {str(cell["id"]): cell for cell in code}
