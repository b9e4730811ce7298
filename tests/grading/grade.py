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
import sys
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from cases import OUTPUTS, RUBRIC
from edition import empty_suite
from lists import reference_figures
from marks import Options, known, mark_functions, mark_lists, mark_notebook, tried
from package import Package, packages, plain
from page import POINTS, Report, load, write
from reference import ROOT, expected
from sandbox import UnprotectedError, protections, ready
from submission import read
from tqdm import tqdm

HERE = Path(__file__).resolve().parent


def grade(
    package: Package, options: Options, done: Callable[[float], object] = lambda _: None
) -> Report:
    """The marks of a submission. ``done`` is called with the share of the work, step by step."""
    report = Report(package.name, dataset=options.dataset, secret=options.secret)
    report.marks = {task: dict.fromkeys(POINTS, 0.0) for task in RUBRIC}
    report.reasons = {task: [] for task in RUBRIC}
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
        report.content = fingerprint(package, options)  # so what fails is graded again
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
