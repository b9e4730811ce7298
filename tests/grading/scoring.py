"""The marks of a submission, part by part: functions, lists, reproducibility.

Students' code runs in the sandbox, in folders that are complete before it starts: what it may leave
in one cannot reach another.
"""

import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
import numpy as np

from grading.checks.compare import NOT_ATTEMPTED, Verdict
from grading.checks.recommendations import LISTS, hidden, judge_lists, reference_figures
from grading.checks.reproducibility import changes, dataset_of, notebook_to_run, stored_reference
from grading.execution.reference import expected, imports
from grading.execution.trial import Result, Unit, attempt, came_out, prepare, units_of, verdicts
from grading.intake.cells import HandedOut, handed_out
from grading.intake.submission import Submission
from grading.isolation.sandbox import Limits, run
from grading.paths import NOTEBOOK_TOOLS, ROOT, copy_modules
from grading.result import Report
from grading.rubric import POINTS, RUBRIC
from mflib.data import data_dir

CASES = 4  # for each function
BY_CLOCK = "ended by the clock"  # what says so is graded again alone
# Of the processor: to start, for each unit, for lists, for a notebook.
SECONDS = {"start": 30, "unit": 25, "lists": 180, "notebook": 900}
NOTEBOOK = 2**22  # bytes of an executed one
WAIT, WAIT_ALONE = 6, 2  # the clock's bound is so many times as long


@dataclass(frozen=True)
class Options:
    """Of one run of the grader."""

    dataset: str
    secret: int  # the seed of all hidden inputs, with what belongs to a submission
    suite: Path  # the package with empty kernels, see ``empty_suite``
    trust: bool = False
    own: int = 0  # see graded.number_of; lists of all submissions are of one split
    container: bool = False  # it is the sandbox
    alone: bool = False  # nothing else is graded meanwhile
    figures: dict[str, tuple] = field(default_factory=dict)  # see lists.reference_figures, by task
    spent: list[float] = field(default_factory=list)  # seconds of the processor of each run

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.secret + self.own + n for n in range(CASES))

    def launch(self, command: list[str], folder: Path, seconds: int) -> str:
        """Run a command in the sandbox -> why it ended badly, or nothing."""
        wait = seconds * (WAIT_ALONE if self.alone else WAIT)
        limits = Limits(cpu_seconds=seconds, seconds=wait)
        finished = run(command, folder, [], limits, self.trust, self.container)
        self.spent.append(finished.seconds)
        if finished.code is None:
            return f"ended {finished.ended}"
        said = finished.output.strip()[-300:]
        return f"ended with exit code {finished.code}: {said}" if finished.code else ""


@cache
def known() -> dict[str, list[HandedOut]]:
    return handed_out(ROOT / "notebooks")


def tried(given: Submission, folder: Path, options: Options) -> dict[str, Verdict]:
    """Verdicts on all functions of a submission, which is tried in ``folder``."""
    prepare(folder, options.suite)
    units = units_of(given, folder, imports())
    seconds = SECONDS["start"] + SECONDS["unit"] * len(units)
    results = attempt(
        folder, units, list(options.seeds), lambda c, f: options.launch(c, f, seconds)
    )
    return verdicts(units, results, lambda key: expected(key, options.seeds), given.trouble)


def kernel_of_lists(task: str, found: dict[str, Verdict]) -> str:
    """The function around which the lists are made: of those that would do, the best."""
    names = RUBRIC[task]["lists"]
    return max(names, key=lambda name: found[f"{task}/{name}"].share_of_model)


def list_unit(task: str, kernel: str) -> Unit:
    options = RUBRIC[task]["lists"][kernel]
    file = f"submitted/{RUBRIC[task]['module']}.py"
    return Unit(f"{task}/lists", file=file, options=tuple(options.items()))


def results_of_lists(
    given: Submission, kernels: dict[str, str], folder: Path, options: Options
) -> dict[str, Result]:
    """What comes of each task's class, fitted around the student's kernel.

    SVD apart from the others: its folder holds which pairs are held out, whose ratings it
    estimates.
    """
    found: dict[str, Result] = {}
    for place, apart in ((folder / "svd", True), (folder / "others", False)):
        tasks = [task for task in kernels if (task == "svd") == apart]
        if not tasks:
            continue
        prepare(place, options.suite)
        units_of(given, place, imports())
        arrays = dict(hidden(options.dataset, options.secret)[0])
        if not apart:  # where lists are judged, what is wanted stays outside
            del arrays["users"], arrays["items"]
        np.savez(place / "train.npz", **arrays)
        units = [list_unit(task, kernels[task]) for task in tasks]
        seconds = SECONDS["start"] + SECONDS["lists"] * len(units)
        results = attempt(place, units, [], lambda c, f, s=seconds: options.launch(c, f, s))
        found |= dict(zip(tasks, results, strict=True))
    return found


def mark_lists(
    given: Submission, found: dict[str, Verdict], folder: Path, options: Options, report: Report
) -> None:
    """Recommendations and similar movies, as far as what the kernel makes of a model is right.

    Otherwise lists that something else has made would count for a kernel whose losses are right.
    """
    kernels = {task: kernel_of_lists(task, found) for task in RUBRIC}
    shares = {task: found[f"{task}/{kernel}"].share_of_model for task, kernel in kernels.items()}
    for task, kernel in kernels.items():
        if found[f"{task}/{kernel}"].share > shares[task] == 0:
            what = f"recommendations and similar movies need one thing right that {kernel} changes"
            report.reasons[task].append(what)
    tried = {task: kernel for task, kernel in kernels.items() if shares[task]}
    for task, result in results_of_lists(given, tried, folder, options).items():
        try:
            if result.error:
                raise ValueError(f"{result.error} {f'({result.where})' if result.where else ''}")
            of_run = (options.dataset, options.secret)
            between = options.figures.get(task) or reference_figures(task, *of_run)
            reached, why = judge_lists(task, *of_run, result.arrays, between)
        except Exception as error:  # what came out may be anything
            report.reasons[task].append(f"recommendations: {error or type(error).__name__}")
            continue
        for part in LISTS:
            report.marks[task][part] = POINTS[part] * reached[part] * shares[task]
        if shares[task] < 1:
            why.append(
                f"recommendations and similar movies count {shares[task]:.0%}, "
                f"as that part of what {kernels[task]} changes is right"
            )
        report.reasons[task] += why


def needed_by(task: str) -> set[str]:
    """The tasks whose models a notebook uses."""
    return {o for o in RUBRIC if o == task or re.search(rf"\b{o.upper()}\b", imports()[task])}


def nothing_else_can_come(task: str, found: dict[str, Verdict], report: Report) -> bool:
    """Whether all that a notebook needs is right: its answers, the kernels and models it uses."""
    needed = [v for key, v in found.items() if key.startswith(f"{task}/")]
    for other in needed_by(task):
        needed += [found[f"{other}/{name}"] for name in RUBRIC[other]["functions"]]
        if any(report.marks[other][part] < POINTS[part] for part in LISTS):
            return False
    return all(verdict.share == 1 for verdict in needed)


def against_known(task: str, stored: dict[str, dict], dataset: str) -> tuple[dict[str, str], int]:
    """``changes`` against the repository's outputs on a data set."""
    known_ones = stored_reference(task, dataset)
    shown = {name: raw for name, raw in stored.items() if name in known_ones}
    return changes(task, shown, known_ones, set(), set(known_ones))


def mark_notebook(
    task: str,
    given: Submission,
    found: dict[str, Verdict],
    folder: Path,
    options: Options,
    report: Report,
) -> None:
    """How many cells give here what was handed in; nothing else is earned here.

    Where all that a notebook needs is right, and its outputs are the known ones, it is not run.
    """
    stored = given.stored.get(task, {})
    ours = [found[f"{task}/{name}"].share for name in RUBRIC[task]["functions"]]
    outputs = [raw for raw in stored.values() if raw.get("execution_count")]
    if not any(ours) or not outputs:  # nothing of one's own to reproduce
        if any(ours) and stored:
            report.reasons[task].append("reproducibility: the notebook has no outputs")
        return
    ran_on = dataset_of(task, stored, options.dataset)
    differ, counted = against_known(task, stored, ran_on)
    if ran_on != options.dataset:
        what = f"the notebook was run on {ran_on}; it is compared with the outputs there"
        report.reasons[task].append(what)
    elif differ or not nothing_else_can_come(task, found, report):
        prepare_notebook(task, given, found, folder, options)
        command = [sys.executable, "-m", "grading.execution.run_notebook", options.dataset]
        if ended := options.launch(command, folder, SECONDS["notebook"]):
            report.reasons[task].append(f"the notebook: {ended}")
        executed = executed_cells(folder, report.reasons[task])
        gaps = {verdict.key.partition("/")[0] for verdict in found.values() if verdict.share < 1}
        differ, counted = changes(task, stored, executed, gaps - {task})
    same = counted - len(differ)
    report.changes[task] = differ
    # outputs that are compared with public ones say only as much as the kernels can have made
    most = sum(ours) / len(ours) if ran_on != options.dataset else 1.0
    same_share = same / max(counted, 1)
    report.marks[task]["reproducibility"] = POINTS["reproducibility"] * most * same_share
    if most < 1:
        what = f"reproducibility counts {most:.0%}, as that part of the kernels' outputs is right"
        report.reasons[task].append(what)
    if differ:
        what = f"{same} of {counted} cells have the outputs that came out here"
        report.reasons[task].append(f"reproducibility: {what}")


def prepare_notebook(
    task: str, given: Submission, found: dict[str, Verdict], folder: Path, options: Options
) -> None:
    """A folder with the notebook, the data, and the student's kernels of all tasks.

    A notebook uses several models. A kernel of another task that never came to an end stays empty.
    """
    prepare(folder, options.suite)
    units_of(given, folder, imports())
    for other, entry in RUBRIC.items():
        endless = any("ended" in found[f"{other}/{name}"].error for name in entry["functions"])
        file = folder / "submitted" / f"{entry['module']}.py"
        if endless and other != task:
            file.unlink(missing_ok=True)
        with (folder / "mflib" / f"{entry['module']}.py").open("a", encoding="utf-8") as module:
            module.write(
                f"\n\nfrom grading.execution.harness import adopt\n\nadopt(globals(), {other!r})\n"
            )
    copy_modules(["execution/run_notebook.py"], folder)
    shutil.copy(NOTEBOOK_TOOLS / "fresh_kernel.py", folder)
    nbformat.write(notebook_to_run(task, given.answers, known()[task]), folder / "notebook.ipynb")
    shutil.copytree(data_dir() / options.dataset, folder / "data" / options.dataset)


def executed_cells(folder: Path, reasons: list[str]) -> dict[str, nbformat.NotebookNode]:
    """The code cells that came out, by id."""
    try:
        file = came_out(folder / "executed.ipynb", NOTEBOOK)
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        code = [nbformat.from_dict(cell) for cell in cells if cell["cell_type"] == "code"]
        return {str(cell["id"]): cell for cell in code}
    except Exception as error:  # no file, or what strangers' code has left there
        reasons.append(f"the executed notebook did not come out: {type(error).__name__}")
        return {}


def mark_functions(given: Submission, found: dict[str, Verdict], report: Report) -> None:
    """The points of kernels, loops and exercises; each output of each counts alike."""
    for task, entry in RUBRIC.items():
        report.marks[task] = dict.fromkeys(POINTS, 0.0)
        mine = [verdict for key, verdict in found.items() if key.startswith(f"{task}/")]
        for part, kernels in (("correctness", True), ("loop and exercises", False)):
            these = [v for v in mine if (v.name in entry["functions"]) == kernels]
            earned = sum(v.share for v in these) / len(these)
            report.marks[task][part] = POINTS[part] * earned
        # what is wrong comes before what is not there
        said = sorted((v for v in mine if v.error or v.wrong), key=lambda v: v.share == 0)
        said.sort(key=lambda v: v.error == NOT_ATTEMPTED)
        reasons = [verdict.sentence for verdict in said]
        reasons += [verdict.sentence for verdict in mine if verdict.remark]
        trouble = [t for t in given.trouble.get(task, []) if not any(t in r for r in reasons)]
        report.reasons[task] = trouble + reasons
    report.functions = {key: verdict.as_json() for key, verdict in found.items()}
