"""Mark submissions: zips or folders, or a class of them as a learning platform packs it.

    python tests/grading/grade.py SUBMISSION [SUBMISSION …] [--dataset ml-100k]
        [--soft DATE] [--hard DATE] [--jobs 2] [--secret N] [--again NAME …] [--trust]

Students' functions are called in the sandbox with inputs that nobody has seen; what comes out,
arrays and notebooks, is judged here. Marks by task, in points: see POINTS in page.py. Into
build/grades/: a page and a JSON for each submission, class.csv, report.json. What has been graded
already, and has not changed, is not graded again.

A submission was handed in when its files were last changed. After the soft deadline it has at most
80 of 100 points, after the hard one none; the remarks are the same.
"""

import argparse
import hashlib
import os
import secrets
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
from cases import OUTPUTS, RUBRIC
from edition import empty_suite
from judge import NOT_ATTEMPTED, Verdict
from lists import LISTS, hidden, judge_lists, reference_figures
from package import Package, packages, plain
from page import POINTS, Report, load, write
from reference import expected, imports
from reproduced import changes, dataset_of, notebook_to_run, stored_reference
from sandbox import Limits, UnprotectedError, protections, ready, run
from submission import HandedOut, Submission, handed_out, read
from tqdm import tqdm
from trial import Unit, attempt, came_out, prepare, units_of, verdicts

from mflib.data import data_dir

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CASES = 4  # for each function
# By the clock: to start, for each unit, for a notebook.
SECONDS = {"start": 60, "unit": 100, "notebook": 900}


@dataclass(frozen=True)
class Options:
    """Of one run of the grader."""

    dataset: str
    secret: int  # the seed of all hidden inputs
    suite: Path  # the package with empty kernels, see ``empty_suite``
    trust: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.secret + n for n in range(CASES))

    def launch(self, command: list[str], folder: Path, seconds: float) -> str:
        """Run a command in the sandbox -> why it ended badly, or nothing."""
        finished = run(command, folder, [], Limits(seconds=seconds), self.trust)
        if finished.code is None:
            return f"ended after {finished.seconds:.0f} s {finished.ended}"
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
    return max(names, key=lambda name: found[f"{task}/{name}"].share)


def list_unit(task: str, kernel: str) -> Unit:
    options = RUBRIC[task]["lists"][kernel]
    file = f"submitted/{RUBRIC[task]['module']}.py"
    return Unit(f"{task}/lists", file=file, options=tuple(options.items()))


def mark_lists(
    given: Submission, found: dict[str, Verdict], folder: Path, options: Options, report: Report
) -> None:
    """Recommendations and similar movies, in proportion to the kernel's right outputs."""
    kernels = {task: kernel_of_lists(task, found) for task in RUBRIC}
    shares = {task: found[f"{task}/{kernel}"].share for task, kernel in kernels.items()}
    for task in (task for task, share in shares.items() if share):
        place = folder / task
        prepare(place, options.suite)
        units_of(given, place, imports())
        arrays = dict(hidden(options.dataset, options.secret)[0])
        if task != "svd":  # where lists are judged, what is wanted stays outside
            del arrays["users"], arrays["items"]
        np.savez(place / "train.npz", **arrays)
        unit = list_unit(task, kernels[task])
        seconds = SECONDS["start"] + 3 * SECONDS["unit"]
        (result,) = attempt(place, [unit], [], lambda c, f, s=seconds: options.launch(c, f, s))
        try:
            if result.error:
                raise ValueError(f"{result.error} {f'({result.where})' if result.where else ''}")
            reached, why = judge_lists(task, options.dataset, options.secret, result.arrays)
        except Exception as error:  # what came out may be anything
            report.reasons[task].append(f"recommendations: {error}")
            continue
        for part in LISTS:
            report.marks[task][part] = POINTS[part] * reached[part] * shares[task]
        if shares[task] < 1:
            why.append(
                f"recommendations and similar movies count {shares[task]:.0%}, "
                f"as of {kernels[task]} that part of the outputs is right"
            )
        report.reasons[task] += why


def mark_notebook(
    task: str,
    given: Submission,
    found: dict[str, Verdict],
    folder: Path,
    options: Options,
    report: Report,
) -> None:
    """How many cells give here what was handed in; nothing else is earned here."""
    stored = given.stored.get(task, {})
    ours = [found[f"{task}/{name}"].share for name in RUBRIC[task]["functions"]]
    outputs = [raw for raw in stored.values() if raw.get("execution_count")]
    if not any(ours) or not outputs:  # nothing of one's own to reproduce
        if any(ours) and stored:
            report.reasons[task].append("reproducibility: the notebook has no outputs")
        return
    ran_on = dataset_of(task, stored, options.dataset)
    if ran_on != options.dataset:
        executed = stored_reference(task, ran_on)
        stored = {name: raw for name, raw in stored.items() if name in executed}
        what = f"the notebook was run on {ran_on}; it is compared with the outputs there"
        report.reasons[task].append(what)
    else:
        prepare_notebook(task, given, found, folder, options)
        command = [sys.executable, "worker.py", "notebook", options.dataset]
        if ended := options.launch(command, folder, SECONDS["notebook"]):
            report.reasons[task].append(f"the notebook: {ended}")
        executed = executed_cells(folder, report.reasons[task])
    gap = any(verdict.share < 1 for key, verdict in found.items() if not key.startswith(f"{task}/"))
    only = set(executed) if ran_on != options.dataset else None
    differ, counted = changes(task, stored, executed, gap, only)
    same = counted - len(differ)
    report.changes[task] = differ
    report.marks[task]["reproducibility"] = POINTS["reproducibility"] * same / max(counted, 1)
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
            module.write(f"\n\nfrom worker import adopt\n\nadopt(globals(), {other!r})\n")
    (folder / "tests").mkdir()
    shutil.copy(HERE.parent / "notebooks" / "execute.py", folder / "tests")
    nbformat.write(notebook_to_run(task, given.answers, known()[task]), folder / "notebook.ipynb")
    shutil.copytree(data_dir() / options.dataset, folder / "data" / options.dataset)


def executed_cells(folder: Path, reasons: list[str]) -> dict[str, nbformat.NotebookNode]:
    """The code cells that came out, by id."""
    try:
        executed = nbformat.read(came_out(folder / "executed.ipynb", 2**25), as_version=4)
        nbformat.validate(executed)
    except Exception as error:  # no file, or what strangers' code has left there
        reasons.append(f"the executed notebook did not come out: {type(error).__name__}")
        return {}
    return {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}


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


def grade(
    package: Package, options: Options, done: Callable[[float], object] = lambda _: None
) -> Report:
    """The marks of a submission. ``done`` is called with the share of the work, step by step."""
    report = Report(package.name, dataset=options.dataset, secret=options.secret)
    report.marks = {task: dict.fromkeys(POINTS, 0.0) for task in RUBRIC}
    report.reasons = {task: [] for task in RUBRIC}
    report.content = fingerprint(package, options)
    try:
        given = read(package.files, known())
        report.notes = [*package.notes, *given.notes]
        with tempfile.TemporaryDirectory(prefix="grading-") as temporary:
            places = {name: Path(temporary) / name for name in ("functions", "lists", *RUBRIC)}
            found = tried(given, places["functions"], options)
            mark_functions(given, found, report)
            done(0.2)
            mark_lists(given, found, places["lists"], options, report)
            done(0.2)
            for task in RUBRIC:
                mark_notebook(task, given, found, places[task], options, report)
                done(0.15)
    except Exception:
        # one submission must not cost the class its marks; the instructor looks at this one
        why = traceback.format_exc()
        report.notes.append(f"the grader failed, mark the rest of this by hand:\n{why}")
    return report


@cache
def _grader() -> bytes:
    """What marks depend on besides the submission: the grader's files, package and notebooks."""
    whole = hashlib.sha256()
    folders = (HERE, ROOT / "mflib", ROOT / "notebooks")
    for file in sorted(file for folder in folders for file in folder.glob("*.*")):
        whole.update(file.read_bytes() if file.is_file() else b"")
    return whole.digest()


def fingerprint(package: Package, options: Options) -> str:
    """What was graded, and with what: while it stays the same, marks are not made anew."""
    whole = hashlib.sha256(_grader() + options.dataset.encode())
    for name in sorted(package.files):
        whole.update(name.encode("utf-8", "surrogateescape") + b"\0")
        try:
            whole.update(hashlib.sha256(package.files[name].read()).digest())
        except Exception as error:  # a file that cannot be read is part of what was handed in
            whole.update(str(error).encode("utf-8", "backslashreplace"))
    return whole.hexdigest()


def deadline(text: str) -> datetime:
    """A time, or the end of a day."""
    return datetime.fromisoformat(text) + timedelta(days=len(text) == len("2026-01-31"))


def judge_time(report: Report, handed_in: datetime, deadlines: dict[str, datetime]) -> None:
    report.handed_in = f"{handed_in:%Y-%m-%d %H:%M}"
    missed = (name for name in ("hard", "soft") if handed_in > deadlines.get(name, datetime.max))
    report.late = next(missed, "")


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", nargs="+", type=Path)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--soft", type=deadline, help="as 2026-01-31 (its end) or 2026-01-31T18:00")
    parser.add_argument("--hard", type=deadline, help="likewise")
    jobs = "submissions at once (default: a core each)"
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help=jobs)
    secret = "the seed of the hidden inputs, from report.json, to repeat a run"
    parser.add_argument("--secret", type=int, help=secret)
    again = "grade these again, or all, though they have not changed"
    parser.add_argument("--again", nargs="*", metavar="NAME", help=again)
    trust = "run without the sandbox: only for code that you know"
    parser.add_argument("--trust", action="store_true", help=trust)
    return parser.parse_args()


def main() -> None:
    given = arguments_of()
    deadlines = {name: time for name in ("soft", "hard") if (time := getattr(given, name))}
    there = (f"{name} {'yes' if has else 'NO'}" for name, has in protections().items())
    print("protections:", ", ".join(there))
    target, reports = ROOT / "build" / "grades", []
    target.mkdir(parents=True, exist_ok=True)
    try:
        ready(given.trust)
        found = packages(given.submissions)
    except (UnprotectedError, ValueError) as error:
        sys.exit(plain(f"error: {error}"))
    secret = given.secret if given.secret is not None else 1000 + secrets.randbelow(10**9)
    with tempfile.TemporaryDirectory(prefix="suite-") as suite:
        empty_suite(Path(suite))
        options = Options(given.dataset, secret, Path(suite), given.trust)

        def one(package: Package) -> Report:
            before = load(target / "submissions" / f"{package.name}.json")
            again = given.again is not None and (not given.again or package.name in given.again)
            again = again or given.secret is not None
            if before and not again and before.content == fingerprint(package, options):
                bar.update(1)
                return before
            return grade(package, options, bar.update)

        for task in RUBRIC:  # once, before the threads ask for them
            reference_figures(task, options.dataset, secret)
        for key in OUTPUTS:
            expected(key, options.seeds)
        with (
            tqdm(total=len(found), unit="submission", bar_format="{l_bar}{bar}| {elapsed}") as bar,
            ThreadPoolExecutor(given.jobs) as pool,
        ):
            for package, report in zip(found, pool.map(one, found), strict=True):
                judge_time(report, package.handed_in, deadlines)
                reports.append(report)
                write(reports, target)
    print((target / "class.csv").read_text(encoding="utf-8"))
    what = "class.csv, report.json, a page and a JSON for each submission"
    print(f"Marks are in {target.relative_to(ROOT)}: {what}.")


if __name__ == "__main__":
    main()
