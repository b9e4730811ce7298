"""Store the reports of a class in a folder and reuse them while they are valid."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

from grading import schema
from grading.course.course import Course
from grading.csv_tables import remove_leftovers, temporary_name, write_whole
from grading.execution.reference import expected, imports
from grading.intake.collect import Package
from grading.intake.submission import choose_files
from grading.judging.recommendations import QualityRange, hidden_split, quality_range
from grading.paths import GRADING, NOTEBOOK_TOOLS, ROOT
from grading.pipeline import Options, known, new_score, versions
from grading.plagiarism import public_answers
from grading.reporting.render import write_class_page, write_class_tables, write_report
from grading.reporting.retention import restore
from grading.result import Report, Score, load
from grading.rubric import CALLED, RUBRIC
from grading.scheduler import Graded
from mflib.data import data_dir

TABLE_INTERVAL = 10  # seconds between two updates of the tables while grading
MAX_SECRET = 2**62  # torch's and numpy's generators accept this seed and the next ones


@cache
def _grader_digest(dataset: str) -> bytes:
    """Return a hash of everything but the submission that scores depend on."""
    digest = hashlib.sha256(versions().encode())
    data = data_dir() / dataset
    for folder in (GRADING, ROOT / "mflib", ROOT / "notebooks", NOTEBOOK_TOOLS, data):
        for file in sorted(folder.rglob("*.*")):
            left_out = "__pycache__" in file.parts or GRADING / "tests" in file.parents
            if file.is_file() and not left_out and file.suffix != ".md":
                name = file.relative_to(folder).as_posix()
                digest.update(name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def fingerprint(package: Package, options: Options) -> str:
    """Return a hash of a submission and of everything else that its score depends on."""
    digest = hashlib.sha256(_grader_digest(options.dataset) + options.dataset.encode())
    digest.update(f"{options.secret} {options.trust} {package.notes}".encode("utf-8", "replace"))
    looked_at = set(choose_files(package.files, []).values())
    looked_at |= {name for name in package.files if name.endswith(".py")}  # may be imported
    for name in sorted(package.files):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        if name in looked_at:
            try:
                digest.update(hashlib.sha256(package.files[name].read()).digest())
            except (OSError, ValueError) as error:  # unreadable files are part of the submission
                digest.update(str(error).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def parse_secret(text: str) -> int:
    """Return the seed in a text; raise ValueError if the text is not a valid seed."""
    if not (text.isdecimal() and int(text) < MAX_SECRET):
        raise ValueError(f"expected a whole number from 0 to 2**62 - 1, got {text[:80]!r}")
    return int(text)


def secret_of(target: Path, given: int | None) -> int:
    """Return the seed of a class's hidden inputs: the given one, the stored one, or a new one."""
    file = target / "secret"
    if given is not None:
        write_whole(file, f"{given}\n")
    elif not file.exists():
        new = temporary_name(file)
        new.write_text(f"{1000 + secrets.randbelow(MAX_SECRET - 1000)}\n", encoding="utf-8")
        with suppress(FileExistsError):  # another grader has just written one: use that
            os.link(new, file)
        new.unlink()
    try:
        return parse_secret(file.read_text(encoding="utf-8").strip())
    except ValueError as error:
        raise ValueError(f"{file}: {error}; give the --secret of the earlier marks") from error


@dataclass(frozen=True)
class StoredQuality:
    """The file reference.json."""

    content: str  # a hash of everything that the ranges depend on
    quality: dict[str, QualityRange]  # by task


def quality_of_reference(
    options: Options, file: Path, report: Callable[[str], object]
) -> dict[str, QualityRange]:
    """Return the quality range of each task, computed once for all graders of a class."""
    digest = _grader_digest(options.dataset) + f"{options.secret}".encode()
    content = hashlib.sha256(digest).hexdigest()
    try:
        stored = schema.decode(StoredQuality, json.loads(file.read_text(encoding="utf-8")))
        if stored.content == content and set(stored.quality) == set(RUBRIC):
            return stored.quality
    except (OSError, ValueError):
        pass  # missing, or written by an earlier version
    quality = {}
    for task in RUBRIC:
        report(f"the reference's lists: {task}")
        quality[task] = quality_range(task, options.dataset, options.secret)
    write_whole(file, json.dumps(asdict(StoredQuality(content, quality))))
    return quality


def warm_up(
    options: Options, target: Path, report: Callable[[str], object] = lambda what: None
) -> Options:
    """Compute what all grading processes share, before they are forked from this process.

    ``report`` is called with what is about to be computed.
    """
    report("the reference")
    torch.set_num_threads(1)  # so that forking is safe
    known(), imports(), public_answers.warm_up()
    hidden_split(options.dataset, options.secret)
    for key in CALLED:
        expected(key, options.seeds)
    quality = quality_of_reference(options, target / "reference.json", report)
    return replace(options, quality=quality)


class Gradebook:
    """The reports of a class by name; each is written to ``target`` as soon as it is complete."""

    def __init__(self, packages: list[Package], options: Options, course: Course, target: Path):
        for folder in (target, target / "submissions"):
            remove_leftovers(folder)
        self.options, self.course, self.target = options, course, target
        self.packages = {package.name: package for package in packages}
        self.fingerprints = {name: fingerprint(p, options) for name, p in self.packages.items()}
        self.reports: dict[str, Report] = {}
        self.tables_written = 0.0

    def reuse(self, name: str, incomplete: bool = False) -> bool:
        """Load the stored report of a submission if it is valid; return whether it is.

        ``incomplete``: accept the score of a submission whose grading was interrupted.
        """
        restore(self.target, name)
        report = load(self.target / "submissions" / f"{name}.json")
        if report is None or report.score.content != self.fingerprints[name]:
            return False
        if not (report.score.complete or incomplete):
            return False
        before = report.decision
        self._decide(report)
        if report.decision != before:
            write_report(report, self.target)
        return True

    def add(self, graded: Graded) -> None:
        """Add the score of a submission that has just been graded."""
        name, score = graded.package.name, graded.score
        if fingerprint(graded.package, self.options) == self.fingerprints[name]:
            score.content = self.fingerprints[name]
        else:
            note = "the files changed or became unreadable during grading: grade again"
            score.notes.append(note)
        report = Report(name, score)
        self._decide(report)
        write_report(report, self.target)
        line = [name, f"{graded.wall_seconds:.1f}"]
        line += [f"{seconds:.1f}" for seconds in graded.cpu_seconds.values()]
        with (self.target / "seconds.csv").open("a", encoding="utf-8") as file:
            file.write(",".join(line) + "\n")

    def add_missing(self, name: str) -> None:
        """Add an empty report for a submission that no shard has graded."""
        score: Score = new_score(self.options)
        score.notes = ["not graded yet, or changed since it was graded"]
        self._decide(Report(name, score))

    def add_earlier(self) -> None:
        """Add the earlier reports of students without a new submission."""
        for report in self.course.only_earlier(self.packages):
            self.reports[report.name] = report
            write_report(report, self.target)

    def _decide(self, report: Report) -> None:
        package = self.packages[report.name]
        changed = package.handed_in if package.files else None
        report.decision = self.course.decide(report.name, changed)
        self.reports[report.name] = report

    def write_tables(self, now: bool = True) -> None:
        """Write the tables and the class page; if not ``now``, at most every few seconds."""
        if now or time.monotonic() > self.tables_written + TABLE_INTERVAL:
            write_class_tables(self.in_order(), self.target)
            write_class_page(self.in_order(), self.target)
            self.tables_written = time.monotonic()

    def in_order(self) -> list[Report]:
        return [self.reports[name] for name in sorted(self.reports)]
