"""Grade submissions: zips, folders, or the export of a whole class from a learning platform.

    python -m grading SUBMISSION [SUBMISSION …] [--dataset ml-100k]
        [--jobs N] [--secret N] [--again [NAME …]] [--trust] [--into FOLDER] [--level N]
        [--shard I/N | --merge] [--soft TIME] [--hard TIME] … (--help lists all)

Students' functions are called in the sandbox with hidden inputs. The resulting arrays and notebooks
are checked outside the sandbox. rubric.toml and rubric.py define the points.
Written to build/grades/: a page and a JSON file for each submission, class.csv, report.json,
seconds.csv and index.html; in talks/, for the instructor only, a sheet of questions for each.
A submission that has been graded and has not changed is not graded again.

Several graders can share a class: --shard 2/5 grades the second of five shards, --merge writes the
tables of all. The seed of the hidden inputs is drawn once for the folder and stored in its file
"secret"; if the shards write to different folders, pass the same --secret to all.

Deadlines, times, overrides, pseudonyms and files of learning platforms: see course/course.py.
"""

import argparse
import hashlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from side_by_side import free_gigabytes
from tqdm import tqdm

from grading.course.course import add_options, read_course
from grading.execution.empty import empty_suite
from grading.gradebook import Gradebook, parse_secret, secret_of, warm_up
from grading.intake.collect import Package, packages
from grading.intake.names import plain
from grading.intake.spool import spooled
from grading.isolation.monitor import Limits
from grading.isolation.sandbox import (
    UnprotectedError,
    missing_protections,
    require_protection,
    strength,
)
from grading.isolation.workspace import workspace
from grading.paths import ROOT
from grading.pipeline import Options
from grading.reporting.render import TALKS, write_similarity, write_talk_sheets
from grading.reporting.retention import GONE, retire
from grading.scheduler import Graded, grade_all
from mflib.data import SOURCES
from mflib.training import available_processors


def shard(text: str) -> tuple[int, int]:
    """Return number and count of a shard written as "2/5"."""
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"expected a shard as 2/5, got {text}")
    return int(number), int(of)


def in_shard(name: str, part: tuple[int, int]) -> bool:
    """Return whether a submission belongs to a shard; this depends on its name alone."""
    number, of = part
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % of == number - 1


def positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text}")
    return int(text)


def default_jobs() -> int:
    """Return the number of available cores, or fewer if memory is too small for that many."""
    by_memory = int(free_gigabytes() * 1e9 / Limits().memory)
    return max(1, min(available_processors(), by_memory))


def secret(text: str) -> int:
    try:
        return parse_secret(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="grading", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", nargs="+", type=Path)
    parser.add_argument("--dataset", default="ml-100k", choices=sorted(SOURCES))
    jobs = "submissions graded in parallel (default: one per available core, if memory allows)"
    parser.add_argument("--jobs", type=positive, default=default_jobs(), help=jobs)
    seed = "the seed of the hidden inputs (default: drawn in the folder's first run)"
    parser.add_argument("--secret", type=secret, help=seed)
    again = "grade these submissions (default: all) again even if they have not changed"
    parser.add_argument("--again", nargs="*", metavar="NAME", help=again)
    trust = "run without the sandbox: only for code that you trust"
    parser.add_argument("--trust", action="store_true", help=trust)
    into = "the folder that the marks are written to (default: build/grades)"
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "grades", help=into)
    level = "number of folders or archives around the students' own, if the grader cannot tell; "
    level += "0: each SUBMISSION is one student's"
    parser.add_argument("--level", type=int, choices=range(10), metavar="N", help=level)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--shard", type=shard, metavar="I/N", help="grade one of N shards")
    merge = "do not grade: merge the results of the shards"
    part.add_argument("--merge", action="store_true", help=merge)
    add_options(parser)
    given = parser.parse_args(arguments)
    if given.merge and given.again is not None:
        parser.error("--merge grades nothing: give --again to the shards")
    return given


def to_grade(given: argparse.Namespace, gradebook: Gradebook) -> list[Package]:
    """Return the submissions without a valid report."""
    again = given.again is not None
    return [
        package
        for name, package in gradebook.packages.items()
        if (again and (not given.again or name in given.again))
        or not gradebook.reuse(name, incomplete=given.merge)
    ]


def summary(graded: list[Graded], seconds: float) -> str:
    if not graded:
        return "There was nothing to grade."
    steps = dict.fromkeys(step for one in graded for step in one.cpu_seconds)
    totals = {step: sum(one.cpu_seconds.get(step, 0.0) for one in graded) for step in steps}
    each = ", ".join(f"{step} {total / len(graded):.1f}" for step, total in totals.items())
    rate = f"{seconds / len(graded):.1f} s each"
    used = f"{sum(totals.values()) / len(graded):.1f} s of CPU time"
    return f"{len(graded)} graded in {seconds:.0f} s, {rate}, {used} ({each})."


def main(arguments: list[str] | None = None) -> None:
    given = parse_arguments(arguments)
    handle = signal.default_int_handler  # same as Ctrl-C: clean up, then exit
    earlier = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        grade(given)
    except KeyboardInterrupt:
        sys.exit("stopped: finished submissions are kept; run the same command to continue")
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def grade(given: argparse.Namespace) -> None:
    missing = ", ".join(missing_protections())
    print("protections:", f"missing {missing}" if missing else str(strength()))
    memory = Limits().memory // 2**30
    print(f"in parallel: {given.jobs} (each may use 1 core and {memory} GiB of memory; --jobs)")
    tqdm.monitor_interval = 0  # no monitor thread: this process is forked
    target = given.into
    try:
        target.mkdir(parents=True, exist_ok=True)
        with workspace() as folder:
            run(given, open_gradebook(given, folder), folder)
    except OSError as error:  # no space, no permission, no folder
        sys.exit(plain(f"error: {error}"))
    shown = target.relative_to(ROOT) if target.is_relative_to(ROOT) else target
    print(f"Marks are in {shown}.")


def open_gradebook(given: argparse.Namespace, folder: Path) -> Gradebook:
    """Read the submissions and the instructor's files; exit with a message if that fails."""
    try:
        require_protection(given.trust)
        found = packages(given.submissions, spooled(folder / "spool"), given.level)
        by_name = {package.name: package for package in found}
        if unknown := sorted(set(given.again or ()) - set(by_name)):
            expected = "expected names of submissions after --again"
            raise ValueError(f"{expected}, got {', '.join(unknown)}")
        course = read_course(given, found, given.into)
        if given.again:  # packages may have pseudonyms now
            given.again = [by_name[name].name for name in given.again]
        seed = secret_of(given.into, given.secret)
    except (UnprotectedError, ValueError) as error:
        sys.exit(plain(f"error: {error}"))
    empty_suite(folder / "suite")
    options = Options(given.dataset, seed, folder / "suite", given.trust)
    if given.shard:
        found = [package for package in found if in_shard(package.name, given.shard)]
    return Gradebook(found, options, course, given.into)


def run(given: argparse.Namespace, gradebook: Gradebook, folder: Path) -> None:
    """Grade the submissions without a valid report, and write the tables."""
    todo, graded, start = to_grade(given, gradebook), list[Graded](), time.monotonic()
    if given.merge:
        for package in todo:
            gradebook.add_missing(package.name)
    elif todo:
        for one in graded_with_progress(todo, gradebook, folder, given.jobs):
            graded.append(one)
            gradebook.add(one)
            if not given.shard:
                gradebook.write_tables(now=False)
    if given.shard:
        print(summary(graded, time.monotonic() - start))
        return
    finish(gradebook)
    if given.merge and todo:
        names = ", ".join(plain(package.name) for package in todo[:10])
        sys.exit(f"error: {len(todo)} submissions are not graded or have changed: {names}")
    print(summary(graded, time.monotonic() - start))


def graded_with_progress(
    todo: list[Package], gradebook: Gradebook, folder: Path, n_jobs: int
) -> Iterator[Graded]:
    """``grade_all`` with a progress bar that shows the current steps."""
    bar_format = "{l_bar}{bar:20}| {elapsed}{postfix}"
    with tqdm(total=len(todo), bar_format=bar_format, dynamic_ncols=True) as bar:

        def report(work: float, state: str) -> None:
            bar.set_postfix_str(state, refresh=False)
            bar.update(min(work, bar.total - bar.n))  # rounding may exceed the total
            if sys.stderr.isatty():
                bar.refresh()  # updates the elapsed time between two results

        options = warm_up(gradebook.options, gradebook.target, lambda what: report(0.0, what))
        lock = gradebook.target / "lock"
        yield from grade_all(todo, options, n_jobs, folder / "work", lock, report)


def finish(gradebook: Gradebook) -> None:
    """Write the tables and pages of the whole class."""
    gradebook.add_earlier()
    reports = gradebook.in_order()
    write_similarity(reports, gradebook.target)
    gradebook.write_tables()
    write_talk_sheets(reports, gradebook.target)
    for name in retire(gradebook.target, gradebook.reports):
        (gradebook.target / TALKS / f"{name}.html").unlink(missing_ok=True)
        print(plain(f"{name} is no longer in the class: its page was moved to {GONE}/"))
    print(plain((gradebook.target / "class.csv").read_text(encoding="utf-8-sig")))
    print("\n".join(map(plain, gradebook.course.export(reports))))
