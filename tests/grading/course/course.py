"""A course: times and deadlines, overrides, an earlier run, pseudonyms, files of platforms.

All files are read and checked before anything is graded. None of them changes a score, so nothing
is graded again when they change.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from pathlib import Path

from grading.course.deadlines import FILES, Deadlines, deadline, read_times, timezone
from grading.course.lms import Mark, Person, Sheet, read_sheet, squeezed
from grading.course.overrides import by_name, read_overrides
from grading.course.pseudonyms import pseudonyms
from grading.intake.collect import Package
from grading.intake.names import plain
from grading.reporting.csv_tables import read_table, write_table
from grading.result import TALK_POINTS, Decision, Earlier, Missed, Override, Report, load

Owners = dict[str, tuple[str, str]]  # by submission: the student's name and number


@dataclass
class Course:
    """What an instructor has given for one class."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    times: dict[str, datetime] = field(default_factory=dict)  # by submission
    times_from: str = ""  # the file
    overrides: dict[str, list[Override]] = field(default_factory=dict)  # by submission
    earlier: dict[str, Report] = field(default_factory=dict)  # by submission
    exports: list[tuple[Path, Sheet, str | None]] = field(default_factory=list)
    owners: Owners = field(default_factory=dict)

    def decide(self, name: str, handed_in: datetime) -> Decision:
        """Return the decision on a submission.

        ``handed_in``: the date of its files, which counts if no better time is known.
        """
        time = self.times.get(name, handed_in.astimezone())
        missed = self.deadlines.missed(time)
        limit = self.deadlines.hard if missed is Missed.HARD else self.deadlines.soft
        before = self.earlier.get(name)
        return Decision(
            handed_in=self.deadlines.shown(time),
            time_from=self.times_from if name in self.times else FILES,
            missed=missed,
            limit=self.deadlines.shown(limit) if limit else "",
            most=self.deadlines.most(missed),
            earlier=Earlier(before.total, before.decision.handed_in) if before else None,
            overrides=self.overrides.get(name, []),
        )

    def only_earlier(self, names: Iterable[str]) -> list[Report]:
        """Return the earlier reports of students who have not handed in anything since."""
        reports = [report for name, report in self.earlier.items() if name not in set(names)]
        for report in reports:
            report.decision.overrides = self.overrides.get(report.name, [])
        return reports

    def export(self, reports: Sequence[Report]) -> list[str]:
        """Write the platforms' files with the marks; return messages about them."""
        messages = []
        for target, sheet, column in self.exports:
            marks: dict[int, Mark] = {}
            claimed: dict[int, list[str]] = {}
            for report in reports:
                person, why = self._person(sheet, report.name)
                if person is None:
                    messages.append(why)
                    continue
                names = claimed.setdefault(person.row.line, [])
                names.append(report.name)
                marks[person.row.line] = Mark(report.total, feedback(report))
                if len(names) == 2:
                    both = f"{' and '.join(names)} would be of one person: fill it in by hand"
                    messages.append(f"{sheet.table.at(person.row)}: {both}")
            for line in (line for line, names in claimed.items() if len(names) > 1):
                del marks[line]  # it is not known whose it is
            write_table(target, sheet.filled(marks, column))
            counts = f"{len(marks)} of {len(sheet.people)} rows are filled in"
            messages.append(f"{target.name}: {counts}")
        return messages

    def _person(self, sheet: Sheet, name: str) -> tuple[Person | None, str]:
        owner, number = self.owners.get(name, (name, ""))
        try:
            person = sheet.find(owner, number)
        except ValueError as error:
            return None, str(error)
        return person, f"{sheet.table.name}: there is nobody for the submission {owner!r}"


def feedback(report: Report) -> str:
    """Return one line for a platform: points of the tasks, the deadline, comments."""
    tasks = [f"{task} {sum(parts.values()):.1f}" for task, parts in report.counted.items()]
    parts = [f"{', '.join(tasks)} of 100 each"]
    decision = report.decision
    if report.talk is not None:
        parts.append(f"the talk {report.talk:g} of {TALK_POINTS}")
    if decision.missed:
        parts.append(f"after the {decision.missed} deadline: at most {decision.most:g} points")
    if report.earlier_counts:
        parts.append("the earlier submission counts")
    return "; ".join([*parts, *(o.comment for o in decision.overrides if o.comment)])


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
    earlier = "folder of an earlier run (its --into): the better mark counts"
    add("--earlier", type=Path, metavar="FOLDER", help=earlier)
    overrides = "a table with the columns name, task, part, points, comment and, if wanted, talk"
    add("--overrides", type=Path, metavar="FILE", help=overrides)
    key = "use pseudonyms; FILE lists whose they are, and is created or extended"
    add("--anonymous", type=Path, metavar="FILE", help=key)
    add("--moodle", type=Path, metavar="FILE", help="a grading worksheet to fill in")
    add("--canvas", type=Path, metavar="FILE", help="an export of the gradebook to fill in")
    add("--canvas-column", metavar="TITLE", help="the assignment, if there are several")


def read_course(given: argparse.Namespace, found: list[Package], target: Path) -> Course:
    """Read the files that were given; packages get pseudonyms if these are wanted.

    ValueError, with a message for the instructor, if something in them is wrong.
    """
    zone = timezone(given.timezone) if given.timezone else None
    limits = [deadline(text, zone) if text else None for text in (given.soft, given.hard)]
    course = Course(Deadlines(limits[0], limits[1], cap=given.cap, zone=zone))
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
        rows = read_overrides(given.overrides)
        rows = [replace(row, name=known.get(row.name, row.name)) for row in rows]
        course.overrides = by_name(given.overrides.name, rows, names)
    for file, name in ((given.moodle, "moodle.csv"), (given.canvas, "canvas.csv")):
        if file:
            sheet, column = read_sheet(file), given.canvas_column
            sheet.filled({}, column)  # what is wrong is said now
            course.exports.append((exports / name, sheet, column))
    return course


def _times(file: Path, owners: Owners, zone: tzinfo | None) -> dict[str, datetime]:
    """Return the times by submission; those without one are printed."""
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
    reports: dict[str, Report] = {}
    what = "there are none"
    for file in sorted((folder / "submissions").glob("*.json")):
        report = load(file)
        if report is None:
            what = f"{file.name} cannot be read"
            break
        reports[report.name] = report
    else:
        if reports:
            return reports
    raise ValueError(f"expected the reports of an earlier run in {folder}; {what}")
