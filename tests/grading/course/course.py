"""Apply an instructor's files: times, deadlines, overrides, pseudonyms, platforms' tables.

All files are read and validated before grading starts. None of them changes a score, so changing
them does not cause submissions to be graded again.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from itertools import chain
from pathlib import Path

from grading.course.deadlines import (
    FILES,
    Deadlines,
    HandedIn,
    deadline,
    local,
    read_times,
    timezone,
)
from grading.course.lms import Mark, Sheet, read_sheet
from grading.course.overrides import by_name, read_overrides
from grading.course.pseudonyms import pseudonyms
from grading.csv_tables import read_table, write_table
from grading.intake.collect import Package
from grading.intake.layouts import Owner
from grading.intake.names import plain, squeezed
from grading.result import TALK_POINTS, Decision, Earlier, Missed, Override, Report, cut, load

REASON, REASONS = 200, 2  # characters of a reason in platforms' feedback; number of reasons
Owners = dict[str, list[Owner]]  # by submission: its students


@dataclass
class Course:
    """An instructor's files and options for one class."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    times: dict[str, HandedIn] = field(default_factory=dict)  # by submission
    overrides: dict[str, list[Override]] = field(default_factory=dict)  # by submission
    earlier: dict[str, Report] = field(default_factory=dict)  # by submission
    exports: list[tuple[Path, Sheet, str | None]] = field(default_factory=list)
    owners: Owners = field(default_factory=dict)

    def decide(self, name: str, changed: datetime | None) -> Decision:
        """Return the decision on a submission.

        ``changed``: the date of its files, used if no better time is known; None without files.
        """
        known = self.times.get(name)
        if known is None and changed is not None:
            known = HandedIn(changed.astimezone(), FILES)
        missed = self.deadlines.missed(known.time) if known else None
        limit = self.deadlines.hard if missed is Missed.HARD else self.deadlines.soft
        before = self.earlier.get(name)
        return Decision(
            handed_in=self.deadlines.shown(known.time) if known else "",
            time_from=known.source if known else "",
            missed=missed,
            limit=self.deadlines.shown(limit) if limit else "",
            most=self.deadlines.most(missed),
            earlier=Earlier(before.total, before.decision.handed_in) if before else None,
            overrides=self.overrides.get(name, []),
        )

    def only_earlier(self, names: Iterable[str]) -> list[Report]:
        """Return the earlier reports of students without a new submission."""
        reports = [report for name, report in self.earlier.items() if name not in set(names)]
        for report in reports:
            report.decision.overrides = self.overrides.get(report.name, [])
        return reports

    def export(self, reports: Sequence[Report]) -> list[str]:
        """Write the platforms' files with the marks; return messages about them."""
        messages = []
        for target, sheet, column in self.exports:
            by_name = {report.name: report for report in reports}
            known = {name: self.owners.get(name) or [Owner(name)] for name in by_name}
            matched, problems = sheet.match(known)
            messages += problems
            marks: dict[int, Mark] = {}
            for name, people in matched.items():
                report = by_name[name]
                if people and report.undecided:
                    why = "; ".join(report.undecided)
                    messages.append(f"{name}: not filled in until its total is decided: {why}")
                else:
                    mark = Mark(report.total, feedback(report))
                    marks |= {person.row.line: mark for person in people}
            write_table(target, sheet.filled(marks, column))
            counts = f"{len(marks)} of {len(sheet.people)} rows are filled in"
            messages.append(f"{target.name}: {counts}")
            messages += filter(None, [sheet.without(matched)])
        return messages


def feedback(report: Report) -> str:
    """Return one line for a platform: points of the tasks, the missed deadline, comments.

    If the mark is 0, the line includes a reason.
    """
    tasks = [f"{task} {sum(parts.values()):.1f}" for task, parts in report.counted.items()]
    parts = [f"{', '.join(tasks)} of 100 each"]
    decision = report.decision
    if report.talk is not None:
        parts.append(f"the talk {report.talk:g} of {TALK_POINTS}")
    if decision.missed:
        parts.append(f"after the {decision.missed} deadline: at most {decision.most:g} points")
    if report.earlier_counts:
        parts.append("the earlier submission counts")
    if not report.points:
        notes = report.score.notes
        reasons = chain(*report.score.reasons.values())  # may repeat a note
        new = [reason for reason in dict.fromkeys(reasons) if not reason.endswith(tuple(notes))]
        parts += [cut(reason, REASON) for reason in [*notes, *new][:REASONS]]
    return "; ".join([*parts, *(o.comment for o in decision.overrides if o.comment)])


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("for instructors").add_argument
    when = "such as 2026-01-31 (end of the day), 2026-01-31T18:00 or 2026-01-31T18:00+01:00"
    add("--soft", metavar="TIME", help=f"{when}: mark and remarks")
    add("--hard", metavar="TIME", help="likewise: the end of corrections")
    add("--cap", type=float, default=80.0, help="most points after the soft deadline (default: 80)")
    zone = "time zone of times without one, such as Europe/Berlin (default: this machine's)"
    add("--timezone", metavar="ZONE", help=zone)
    times = "a table with the columns name and time, or Moodle's grading worksheet"
    add("--times", type=Path, metavar="FILE", help=times)
    earlier = "the folder (--into) of an earlier run: the better mark counts"
    add("--earlier", type=Path, metavar="FOLDER", help=earlier)
    overrides = "a table with the columns name, task, part, points, comment and, optionally, talk"
    add("--overrides", type=Path, metavar="FILE", help=overrides)
    key = "use pseudonyms; FILE maps them to names and is created or extended"
    add("--anonymous", type=Path, metavar="FILE", help=key)
    add("--moodle", type=Path, metavar="FILE", help="a grading worksheet to fill in")
    add("--canvas", type=Path, metavar="FILE", help="an export of the gradebook to fill in")
    add("--canvas-column", metavar="TITLE", help="the assignment, if there are several")


def read_course(given: argparse.Namespace, found: list[Package], target: Path) -> Course:
    """Read the instructor's files; rename packages to pseudonyms if requested.

    Raise ValueError with a message for the instructor if a file is invalid.
    """
    zone = timezone(given.timezone) if given.timezone else None
    limits = [deadline(text, zone) if text else None for text in (given.soft, given.hard)]
    course = Course(Deadlines(limits[0], limits[1], cap=given.cap, zone=zone))
    exports = target
    if given.anonymous:
        if given.anonymous.resolve().is_relative_to(target.resolve()):
            raise ValueError(f"expected the key file outside of {target}, which may be given away")
        others = pseudonyms((p.name for p in found), given.anonymous, new=not given.shard)
        exports = given.anonymous.parent  # exports contain the names
        course.owners = {pseudonym: [Owner(name)] for name, pseudonym in others.items()}
    known = others if given.anonymous else {p.name: p.name for p in found}  # shown by real name
    for package in found:
        package.name = known[package.name]
        course.owners[package.name] = package.owners
        if package.time is not None:
            time = package.time if package.time.tzinfo else local(package.time, zone)
            course.times[package.name] = HandedIn(time, package.platform)
    names = [package.name for package in found]
    if given.times:
        in_class = {name: shown for name, shown in known.items() if shown in names}
        course.times |= _times(given.times, in_class, course.owners, zone)
    if missing := [name for name in names if name not in course.times]:
        _report_missing(missing, given, course)
    if given.earlier:
        course.earlier = _earlier(given.earlier)
        _report_similar(given.earlier, course, names)
    if given.overrides:
        names += course.earlier
        rows = read_overrides(given.overrides)
        rows = [replace(row, name=known.get(row.name, row.name)) for row in rows]
        course.overrides = by_name(given.overrides.name, rows, names)
    for file, name in ((given.moodle, "moodle.csv"), (given.canvas, "canvas.csv")):
        if file:
            sheet, column = read_sheet(file), given.canvas_column
            sheet.filled({}, column)  # reports errors before grading
            course.exports.append((exports / name, sheet, column))
    return course


def _times(
    file: Path, known: dict[str, str], owners: Owners, zone: tzinfo | None
) -> dict[str, HandedIn]:
    """Return the times by submission; for a group, the earliest time of a member.

    Parameters
    ----------
    file : Path
        A table of times, or a worksheet.
    known : dict
        Shown names by submission name.
    owners : dict
        Students by shown name.
    zone : tzinfo or None
        The time zone of times without one.
    """
    if "time" in read_table(file).columns:
        found = _table_times(file, known, owners, zone)
    else:
        sheet, found = read_sheet(file), {}
        matched, messages = sheet.match({name: owners[name] for name in known.values()})
        messages += filter(None, [sheet.without(matched)])
        at = sheet.times(zone)
        for name, people in matched.items():
            found[name] = [at[p.row.line] for p in people if p.row.line in at]
        print(plain("\n".join(messages)))
    return {name: HandedIn(min(times), file.name) for name, times in found.items() if times}


def _table_times(
    file: Path, known: dict[str, str], owners: Owners, zone: tzinfo | None
) -> dict[str, list[datetime]]:
    """Return the times of a table with names, by shown name.

    A row belongs to the submission with exactly this name, or otherwise to the only one whose name,
    login or number is the same except for capitals and punctuation.
    """
    keys: dict[str, set[str]] = {}  # submissions by squeezed text
    for name, shown in known.items():
        for text in (name, shown, *(t for o in owners[shown] for t in (o.name, o.number, *o.ids))):
            keys.setdefault(squeezed(text), set()).add(shown)
    found: dict[str, dict[str, datetime]] = {}
    unknown = []
    for at, name, time in read_times(file, zone):
        exact = {known[name]} if name in known else {name} & set(known.values())
        mine = exact or keys.get(squeezed(name), set())
        if len(mine) > 1:
            several = " or ".join(sorted(mine))
            raise ValueError(f"{at}: {name!r} may be {several}; write one of these names")
        for shown in mine:
            # a row with the submission's name is valid for all members of a group
            person = "" if exact else squeezed(name)
            found.setdefault(shown, {})[person] = time
        unknown += [] if mine else [name]
    if unknown:
        names = ", ".join(unknown[:10]) + (", …" if len(unknown) > 10 else "")
        print(plain(f"{file.name}: no submission for {len(unknown)} rows: {names}"))
    return {
        shown: [times[""]] if "" in times else list(times.values())
        for shown, times in found.items()
    }


def _report_missing(missing: list[str], given: argparse.Namespace, course: Course) -> None:
    """Print the submissions that only have the dates of their files, if times matter."""
    names = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
    if given.times:
        what = f"no time for {len(missing)} submissions ({names})"
        print(plain(f"{given.times.name}: {what}: {FILES}"))
    elif course.deadlines.soft or course.deadlines.hard:
        print(
            plain(
                f"expected --times, got none: for {len(missing)} submissions ({names}) {FILES}, "
                "count; they may be those of the download or of the clone"
            )
        )


def _report_similar(folder: Path, course: Course, names: Iterable[str]) -> None:
    """Print earlier reports that may belong to a submission that now has another name."""
    for name in sorted(set(course.earlier) - set(names)):
        similar = [
            n for n in names if squeezed(name) in {squeezed(o.name) for o in course.owners[n]}
        ]
        if similar:
            what = f"{name!r} may be {' or '.join(similar)}; it has a separate row"
            print(plain(f"{folder}: {what}"))


def _earlier(folder: Path) -> dict[str, Report]:
    reports: dict[str, Report] = {}
    what = "it has none"
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
