"""Mark submissions: zips or folders, or a class of them as a learning platform packs it.

    python -m grading SUBMISSION [SUBMISSION …] [--dataset ml-100k]
        [--jobs 2] [--secret N] [--again [NAME …]] [--trust] [--into FOLDER]
        [--shard I/N | --merge] [--soft TIME] [--hard TIME] … (--help says all)

Students' functions are called in the sandbox with inputs that nobody has seen; what comes out,
arrays and notebooks, is judged outside of it. Marks by task, in points: see POINTS in report.py.
Into build/grades/: a page and a JSON for each submission, class.csv, report.json, seconds.csv, and
index.html.
What has been graded already, and has not changed, is not graded again.

Several graders share a class: --shard 2/5 grades the second of five shares, --merge makes the table
of all. The seed of the hidden inputs is drawn once for the folder, into the file "secret"; where
shares have folders of their own, give all of them the same --secret.

Deadlines, times, decisions, pseudonyms and the files of learning platforms: see course.py.
"""

import argparse
import hashlib
import json
import os
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from tqdm import tqdm

from grading.checks.recommendations import hidden, reference_figures
from grading.course.course import Course, add_options, course_of
from grading.execution.inputs import OUTPUTS
from grading.execution.reference import expected, imports
from grading.intake.collect import Package, packages, plain
from grading.intake.spool import spooled
from grading.intake.submission import chosen
from grading.isolation.sandbox import UnprotectedError, protections, ready, strength
from grading.isolation.workspace import workplace
from grading.paths import GRADING, NOTEBOOK_TOOLS, ROOT
from grading.pipeline import blank
from grading.plagiarism import public_answers
from grading.plagiarism.pairs import write_similar
from grading.reporting.class_page import write_class_page
from grading.reporting.csv_tables import beside, sweep, write_whole
from grading.reporting.render import write, write_class
from grading.reporting.retention import GONE, bring_back, put_away
from grading.result import Report, load
from grading.rubric import RUBRIC
from grading.scheduler import Graded, grade_all
from grading.scoring import Options, known
from grading.student.edition import empty_suite
from mflib.data import SOURCES, data_dir

STEP = 10  # seconds between two writings of the table
IN_PART = " in part"  # behind the fingerprint of what was not graded to its end


@cache
def _grader(dataset: str) -> bytes:
    """What marks depend on besides the submission: the grader, package, notebooks, data, pins."""
    found = hashlib.sha256()
    folders = (GRADING, ROOT / "mflib", ROOT / "notebooks", NOTEBOOK_TOOLS)
    files = [file for folder in folders for file in folder.rglob("*.*")]
    files += [ROOT / "requirements.txt", *(data_dir() / dataset).rglob("*.*")]
    for file in sorted(files):
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".md":
            found.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.digest()


def fingerprint(package: Package, options: Options) -> str:
    """What was graded, and with what: while it stays the same, marks are not made anew."""
    found = hashlib.sha256(_grader(options.dataset) + options.dataset.encode())
    found.update(f"{options.secret} {options.trust} {package.notes}".encode("utf-8", "replace"))
    taken = set(chosen(package.files, []).values())
    for name in sorted(package.files):
        found.update(name.encode("utf-8", "surrogateescape") + b"\0")
        if name in taken:
            try:
                found.update(hashlib.sha256(package.files[name].read()).digest())
            except (OSError, ValueError) as error:  # is part of what was handed in
                found.update(str(error).encode("utf-8", "backslashreplace"))
    return found.hexdigest()


def share(text: str) -> tuple[int, int]:
    """ "2/5" -> (2, 5)"""
    mine, _, of = text.partition("/")
    if not (mine.isdigit() and of.isdigit() and 1 <= int(mine) <= int(of)):
        raise argparse.ArgumentTypeError(f"expected a share as 2/5, got {text}")
    return int(mine), int(of)


def is_mine(name: str, shard: tuple[int, int]) -> bool:
    """Whether a submission is in a share: by its name alone, the same everywhere."""
    mine, of = shard
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % of == mine - 1


def secret_of(target: Path, given: int | None) -> int:
    """The seed of a class's hidden inputs: given, or as it was, or drawn now and kept."""
    file = target / "secret"
    if given is not None:
        write_whole(file, f"{given}\n")
    elif not file.exists():
        new = beside(file)
        new.write_text(f"{1000 + secrets.randbelow(10**9)}\n", encoding="utf-8")
        with suppress(FileExistsError):  # other graders may do the same just now: the first counts
            os.link(new, file)
        new.unlink()
    try:
        return seed(file.read_text(encoding="utf-8").strip())
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{file}: {error}; give the --secret of the earlier marks") from error


def seed(text: str) -> int:
    """A number that torch's and numpy's generators take, and those that follow, too."""
    if not (text.isdecimal() and int(text) < 2**62):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2**62, got {text[:80]!r}")
    return int(text)


def warm_up(options: Options, target: Path) -> Options:
    """What all processes share, once: they are forked from this one."""
    torch.set_num_threads(1)  # which makes a fork safe
    known(), imports(), public_answers.warm_up()
    hidden(options.dataset, options.secret)
    for key in OUTPUTS:
        expected(key, options.seeds)
    return replace(options, figures=figures_of(options, target / "reference.json"))


def figures_of(options: Options, file: Path) -> dict[str, tuple]:
    """What the reference reaches by task, computed once for all graders of a class."""
    content = hashlib.sha256(_grader(options.dataset) + f"{options.secret}".encode()).hexdigest()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["content"] == content:
            return {task: tuple(found["figures"][task]) for task in RUBRIC}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or not whole
    figures = {t: reference_figures(t, options.dataset, options.secret) for t in RUBRIC}
    write_whole(file, json.dumps({"content": content, "figures": figures}))
    return figures


class Class:
    """The reports on a class by name, in the order of names; kept in ``target`` as they come."""

    def __init__(self, found: list[Package], options: Options, course: Course, target: Path):
        for folder in (target, target / "submissions"):
            sweep(folder)
        self.options, self.course, self.target = options, course, target
        self.packages = {package.name: package for package in found}
        self.prints = {name: fingerprint(p, options) for name, p in self.packages.items()}
        self.reports: dict[str, Report] = {}
        self.written = 0.0

    def take_old(self, name: str, in_part: bool = False) -> bool:
        """Whether there is a report that still holds, or a part of one does; it is taken."""
        bring_back(self.target, name)
        report = load(self.target / "submissions" / f"{name}.json")
        if report is None:
            return False
        content = report.content.removesuffix(IN_PART) if in_part else report.content
        if content != self.prints[name]:
            return False
        before = report.decided
        self._take(report)
        if report.decided != before:
            write(report, self.target)
        return True

    def take_new(self, graded: Graded) -> None:
        report, begun = graded.report, self.prints[graded.package.name]
        if fingerprint(graded.package, self.options) != begun:
            report.notes.append("changed, or could not be read, while it was graded: grade again")
        else:  # what fails is graded again
            report.content = begun if graded.whole else begun + IN_PART
        self._take(report)
        write(report, self.target)
        line = [graded.package.name, f"{graded.clock:.1f}"]
        line += [f"{seconds:.1f}" for seconds in graded.steps.values()]
        with (self.target / "seconds.csv").open("a", encoding="utf-8") as file:
            file.write(",".join(line) + "\n")

    def take_missing(self, name: str) -> None:
        report = blank(self.packages[name], self.options)
        report.notes.append("not graded yet, or changed since")
        self._take(report)

    def _take(self, report: Report) -> None:
        self.course.decide(report, self.packages[report.name].handed_in)
        self.reports[report.name] = report

    def take_earlier(self) -> None:
        """Those who have handed in nothing since the earlier run keep what they had."""
        for report in self.course.only_earlier(self.packages):
            self.reports[report.name] = report
            write(report, self.target)

    def write_table(self, at_once: bool = True) -> None:
        if at_once or time.monotonic() > self.written + STEP:
            write_class(self.in_order(), self.target)
            write_class_page(self.in_order(), self.target)
            self.written = time.monotonic()

    def in_order(self) -> list[Report]:
        return [self.reports[name] for name in sorted(self.reports)]


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", nargs="+", type=Path)
    parser.add_argument("--dataset", default="ml-100k", choices=sorted(SOURCES))
    jobs = "submissions at once (default: a core each)"
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help=jobs)
    secret = "the seed of the hidden inputs (default: that of the folder, once drawn)"
    parser.add_argument("--secret", type=seed, help=secret)
    again = "grade these again, or all, though they have not changed"
    parser.add_argument("--again", nargs="*", metavar="NAME", help=again)
    trust = "run without the sandbox: only for code that you know"
    parser.add_argument("--trust", action="store_true", help=trust)
    into = "where marks are written (default: build/grades)"
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "grades", help=into)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--shard", type=share, metavar="I/N", help="grade one of N shares")
    merge = "grade nothing: join what the shares have found"
    part.add_argument("--merge", action="store_true", help=merge)
    add_options(parser)
    return parser.parse_args()


def todo_of(given: argparse.Namespace, all_of_it: Class) -> list[Package]:
    """What is to be graded; what need not be is taken as it is."""
    again = given.again is not None
    todo = []
    for name, package in all_of_it.packages.items():
        forced = again and (not given.again or name in given.again)
        if forced or not all_of_it.take_old(name, in_part=given.merge):
            todo.append(package)
    return todo


def summary(graded: list[Graded], seconds: float) -> str:
    if not graded:
        return "Nothing was to be graded."
    steps = {step: sum(g.steps.get(step, 0.0) for g in graded) for g in graded for step in g.steps}
    each = ", ".join(f"{step} {total / len(graded):.1f}" for step, total in steps.items())
    rate = f"{seconds / len(graded):.1f} s each"
    used = f"{sum(steps.values()) / len(graded):.1f} s of the processor"
    return f"{len(graded)} graded in {seconds:.0f} s, {rate}, {used} ({each})."


def main() -> None:
    given = arguments_of()
    there = [f"{name} {'yes' if has else 'NO'}" for name, has in protections().items()]
    there += [] if given.trust else [str(strength())]
    print("protections:", ", ".join(there))
    tqdm.monitor_interval = 0  # no thread: this process is forked
    target = given.into
    try:
        target.mkdir(parents=True, exist_ok=True)
        with workplace() as place:
            run(given, class_of(given, place), place)
    except OSError as error:  # no room, no right, no folder
        sys.exit(plain(f"error: {error}"))
    shown = target.relative_to(ROOT) if target.is_relative_to(ROOT) else target
    print(f"Marks are in {shown}.")


def class_of(given: argparse.Namespace, place: Path) -> Class:
    """What is to be graded, or the end with a sentence."""
    try:
        ready(given.trust)
        found = packages(given.submissions, spooled(place / "spool"))
        names = {package.name for package in found}
        if unknown := sorted(set(given.again or ()) - names):
            raise ValueError(f"expected --again with names of the class, got {', '.join(unknown)}")
        course = course_of(given, found, given.into)
        secret = secret_of(given.into, given.secret)
    except (UnprotectedError, ValueError) as error:
        sys.exit(plain(f"error: {error}"))
    empty_suite(place / "suite")
    options = Options(given.dataset, secret, place / "suite", given.trust)
    if given.shard:
        found = [package for package in found if is_mine(package.name, given.shard)]
    return Class(found, options, course, given.into)


def run(given: argparse.Namespace, all_of_it: Class, place: Path) -> None:
    """Grade what is to be graded, and write the table."""
    todo, graded, start = todo_of(given, all_of_it), [], time.monotonic()
    if given.merge:
        for package in todo:
            all_of_it.take_missing(package.name)
    elif todo:
        options = warm_up(all_of_it.options, all_of_it.target)
        form = "{l_bar}{bar}| {elapsed}"
        with tqdm(total=len(todo), unit="submission", bar_format=form) as bar:
            places = (place / "work", all_of_it.target / "lock")

            def progress(share: float) -> None:
                bar.update(min(share, bar.total - bar.n))  # a sum of shares may exceed it a little

            for one in grade_all(todo, options, given.jobs, *places, progress):
                graded.append(one)
                all_of_it.take_new(one)
                if not given.shard:
                    all_of_it.write_table(at_once=False)
    if given.shard:
        print(summary(graded, time.monotonic() - start))
        return
    all_of_it.take_earlier()
    reports = all_of_it.in_order()
    write_similar(reports, all_of_it.target)
    all_of_it.write_table()
    for name in put_away(all_of_it.target, all_of_it.reports):
        print(plain(f"{name} is not in the class any more: its page is in {GONE}/"))
    print(plain((all_of_it.target / "class.csv").read_text(encoding="utf-8-sig")))
    print("\n".join(map(plain, all_of_it.course.export(reports))))
    if given.merge and todo:
        names = ", ".join(plain(package.name) for package in todo[:10])
        sys.exit(f"error: {len(todo)} are not graded yet, or changed since: {names}")
    print(summary(graded, time.monotonic() - start))
