"""What an instructor gives besides the submissions, and what that does to the reports.

Times and deadlines, decisions, an earlier run, pseudonyms, platforms' files. All of it is read, and
what is wrong in it is said, before anything is graded. None of it is a reason to grade again.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path

from grading.course.deadlines import FILES, Deadlines, deadline, read_times, timezone
from grading.course.lms import Mark, Person, Sheet, read_sheet, squeezed
from grading.course.overrides import Override, by_name, read_overrides
from grading.course.pseudonyms import pseudonyms
from grading.intake.collect import Package, plain
from grading.reporting.csv_tables import read_table, write_table
from grading.result import Report, load

Owners = dict[str, tuple[str, str]]  # by submission: whose it is, and the platform's number


@dataclass
class Course:
    """What holds for one class."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    times: dict[str, datetime] = field(default_factory=dict)  # by submission
    times_from: str = ""  # the file
    overrides: dict[str, list[Override]] = field(default_factory=dict)  # by submission
    earlier: dict[str, Report] = field(default_factory=dict)  # by submission
    exports: list[tuple[Path, Sheet, str | None]] = field(default_factory=list)
    owners: Owners = field(default_factory=dict)

    def decide(self, report: Report, handed_in: datetime) -> None:
        """Put the deadlines, the decisions and the earlier mark into a report.

        ``handed_in``: the date of the files, for a submission of which nothing else is known.
        """
        time = self.times.get(report.name, handed_in.astimezone())
        report.time_from = self.times_from if report.name in self.times else FILES
        report.handed_in, report.late = self.deadlines.shown(time), self.deadlines.missed(time)
        limit = getattr(self.deadlines, report.late or "soft")
        report.limit = self.deadlines.shown(limit) if limit else ""
        report.most = self.deadlines.most(report.late)
        self.decide_otherwise(report)
        if before := self.earlier.get(report.name):
            report.earlier = {"total": before.total, "handed_in": before.handed_in}
        else:
            report.earlier = {}

    def decide_otherwise(self, report: Report) -> None:
        mine = self.overrides.get(report.name, [])
        kept = ("task", "part", "points", "comment")
        report.overrides = [{name: asdict(one)[name] for name in kept} for one in mine]

    def only_earlier(self, names: Iterable[str]) -> list[Report]:
        """The reports of the earlier run on those who have handed in nothing since."""
        found = [report for name, report in self.earlier.items() if name not in set(names)]
        for report in found:
            self.decide_otherwise(report)
        return found

    def export(self, reports: Sequence[Report]) -> list[str]:
        """Fill in the platforms' files; what to say of them."""
        said = []
        for target, sheet, column in self.exports:
            marks: dict[int, Mark] = {}
            claimed: dict[int, list[str]] = {}
            for report in reports:
                person, why = self._person(sheet, report.name)
                if person is None:
                    said.append(why)
                    continue
                names = claimed.setdefault(person.row.line, [])
                names.append(report.name)
                marks[person.row.line] = Mark(report.total, feedback(report))
                if len(names) == 2:
                    both = f"{' and '.join(names)} would be of one person: fill it in by hand"
                    said.append(f"{sheet.table.at(person.row)}: {both}")
            for line in (line for line, names in claimed.items() if len(names) > 1):
                del marks[line]  # whose it is cannot be known
            write_table(target, sheet.filled(marks, column))
            said.append(f"{target.name}: {len(marks)} of {len(sheet.people)} rows are filled in")
        return said

    def _person(self, sheet: Sheet, name: str) -> tuple[Person | None, str]:
        owner, number = self.owners.get(name, (name, ""))
        try:
            person = sheet.find(owner, number)
        except ValueError as error:
            return None, str(error)
        return person, f"{sheet.table.name}: there is nobody for the submission {owner!r}"


def feedback(report: Report) -> str:
    """One line for a platform: points of the tasks, the deadline, the comments."""
    tasks = [f"{task} {sum(parts.values()):.1f}" for task, parts in report.counted.items()]
    parts = [f"{', '.join(tasks)} of 100 each"]
    if report.late:
        parts.append(f"after the {report.late} deadline: at most {report.most:g} points")
    if report.earlier_counts:
        parts.append("the earlier submission counts")
    return "; ".join([*parts, *(o["comment"] for o in report.overrides if o["comment"])])


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what an instructor gives").add_argument
    when = "as 2026-01-31 (its end), 2026-01-31T18:00 or 2026-01-31T18:00+01:00"
    add("--soft", metavar="TIME", help=f"{when}: mark and remarks")
    add("--hard", metavar="TIME", help="likewise: the end of corrections")
    add("--cap", type=float, default=80.0, help="points after the soft deadline (default: 80)")
    zone = "of deadlines and times without one, as Europe/Berlin (default: this machine's)"
    add("--timezone", metavar="ZONE", help=zone)
    times = "a table with the columns name and time, or Moodle's grading worksheet"
    add("--times", type=Path, metavar="FILE", help=times)
    earlier = "where an earlier run has written its marks (its --into): the better counts"
    add("--earlier", type=Path, metavar="FOLDER", help=earlier)
    overrides = "a table with the columns name, task, part, points, comment"
    add("--overrides", type=Path, metavar="FILE", help=overrides)
    key = "names that say nothing; whose they are is in FILE, which is made or added to"
    add("--anonymous", type=Path, metavar="FILE", help=key)
    add("--moodle", type=Path, metavar="FILE", help="a grading worksheet to fill in")
    add("--canvas", type=Path, metavar="FILE", help="an export of the gradebook to fill in")
    add("--canvas-column", metavar="TITLE", help="the assignment, if there are several")


def course_of(given: argparse.Namespace, found: list[Package], target: Path) -> Course:
    """Read what was given; ``found`` gets pseudonyms if these are wanted.

    ValueError, in a sentence, for what is wrong in it.
    """
    zone = timezone(given.timezone) if given.timezone else None
    limits = [deadline(text, zone) if text else None for text in (given.soft, given.hard)]
    course = Course(Deadlines(*limits, cap=given.cap, zone=zone))
    exports = target
    if given.anonymous:
        if given.anonymous.resolve().is_relative_to(target.resolve()):
            raise ValueError(f"expected the key file outside of {target}, which may be given away")
        others = pseudonyms((p.name for p in found), given.anonymous, new=not given.shard)
        exports = given.anonymous.parent  # they have the names
        course.owners = {pseudonym: (name, "") for name, pseudonym in others.items()}
    for package in found:
        owner = (package.name, package.number)
        package.name = others[package.name] if given.anonymous else package.name
        course.owners[package.name] = owner
    names = [package.name for package in found]
    if given.times:
        course.times_from = given.times.name
        course.times = _times(given.times, {name: course.owners[name] for name in names}, zone)
    if given.earlier:
        course.earlier = _earlier(given.earlier)
    if given.overrides:
        names += course.earlier
        known = {owner: name for name, (owner, _) in course.owners.items()}
        read = [_under(known, one) for one in read_overrides(given.overrides)]
        course.overrides = by_name(given.overrides.name, read, names)
    for file, name in ((given.moodle, "moodle.csv"), (given.canvas, "canvas.csv")):
        if file:
            sheet, column = read_sheet(file), given.canvas_column
            sheet.filled({}, column)  # what is wrong is said now
            course.exports.append((exports / name, sheet, column))
    return course


def _under(known: dict[str, str], one: Override) -> Override:
    """An override under the submission's name here, which may be a pseudonym."""
    return Override(**asdict(one) | {"name": known.get(one.name, one.name)})


def _times(file: Path, owners: Owners, zone: tzinfo | None) -> dict[str, datetime]:
    """By submission; who is not in the file is said."""
    if "time" in read_table(file).columns:
        named = {squeezed(name): time for name, time in read_times(file, zone).items()}
        keys = {name: (squeezed(name), *map(squeezed, o)) for name, o in owners.items()}
        found = {n: named[k] for n, several in keys.items() for k in several if k in named}
    else:
        sheet, found = read_sheet(file), {}
        at = sheet.times(zone)
        for name, owner in owners.items():
            person = sheet.find(*owner)
            if person and person.row.line in at:
                found[name] = at[person.row.line]
    if missing := [name for name in owners if name not in found]:
        names = ", ".join(missing[:10])
        print(plain(f"{file.name}: no time for {len(missing)} submissions ({names}): {FILES}"))
    return found


def _earlier(folder: Path) -> dict[str, Report]:
    files = sorted((folder / "submissions").glob("*.json"))
    reports = [load(file) for file in files]
    if not reports or None in reports:
        what = f"{files[reports.index(None)].name} cannot be read" if reports else "there are none"
        raise ValueError(f"expected the reports of an earlier run in {folder}; {what}")
    return {report.name: report for report in reports}
