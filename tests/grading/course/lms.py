"""Read the files of learning platforms, match submissions with people, and fill in marks.

The module supports Moodle's grading worksheet (with Moodle set to English, because it translates
column names) and Canvas' export of the gradebook. A submission is matched with a person by the
platform's number in file names, or by email, id number, login or name.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import NamedTuple

from grading.course.deadlines import moment
from grading.csv_tables import Row, Table, number, read_table
from grading.intake.layouts import Owner, Platform
from grading.intake.names import squeezed

MOODLE = ("Identifier", "Status", "Grade")
MOODLE_NAMES = ("Full name", "Email address", "ID number", "Username")
STATUS, HAS = "Status", "Submitted"
HANDED_IN = "Last modified (submission)"
FEEDBACK = "Feedback comments"
CANVAS = ("ID", "Section")
CANVAS_NAMES = ("Student", "SIS User ID", "SIS Login ID", "Integration ID")
CANVAS_STAY = ("Student", "LastName", "FirstName", *CANVAS, *CANVAS_NAMES[1:], "Root Account")
POSSIBLE = "Points Possible"
MOST = 10**6


@dataclass(frozen=True)
class Person:
    """A row of a platform's file, and the possible names of its submission."""

    row: Row
    number: str
    names: frozenset[str]


class Mark(NamedTuple):
    points: float  # of 100
    feedback: str = ""


@dataclass
class Sheet:
    """A platform's file."""

    table: Table
    platform: Platform
    people: list[Person] = field(default_factory=list)

    def find(self, name: str, number: str = "", ids: Sequence[str] = ()) -> Person | None:
        """Return the person of a submission; raise ValueError if several people match.

        The platform's number has precedence, then other identifiers, then the name.
        """
        found = [p for p in self.people if number and p.number == number]
        for text in (*ids, name):
            found = found or [p for p in self.people if squeezed(text) in p.names]
        if len(found) > 1:
            lines = " and ".join(str(person.row.line) for person in found)
            raise ValueError(
                f"{self.table.name}: the submission {name!r} may belong to the lines {lines}; "
                "name its folder after an email address or an id number"
            )
        return found[0] if found else None

    def match(
        self, owners: Mapping[str, Sequence[Owner]]
    ) -> tuple[dict[str, list[Person]], list[str]]:
        """Return the people of all submissions, and messages about submissions without a match.

        If two submissions match a person, neither is assigned, unless one has the platform's
        number.

        Parameters
        ----------
        owners : mapping
            Students by submission.
        """
        by_number: dict[int, list[str]] = {}
        by_name: dict[int, list[str]] = {}
        messages = []
        for name, several in owners.items():
            for owner in several:
                own = owner.number if owner.platform in (None, self.platform) else ""
                try:
                    person = self.find(owner.name, own, owner.ids)
                except ValueError as error:
                    messages.append(str(error))
                    continue
                if person is None:
                    what = f"no row matches the submission {owner.name!r}"
                    messages.append(f"{self.table.name}: {what}")
                else:
                    has_number = bool(own) and person.number == own
                    claims = by_number if has_number else by_name
                    claims.setdefault(person.row.line, []).append(name)
        found: dict[str, list[Person]] = {name: [] for name in owners}
        for person in self.people:
            line = person.row.line
            names = by_number.get(line) or by_name.get(line, [])
            if len(names) == 1:
                found[names[0]].append(person)
            elif names:
                both = f"{' and '.join(names)} match the same person: fill it in by hand"
                messages.append(f"{self.table.at(person.row)}: {both}")
            if line in by_number and (others := by_name.get(line, [])):
                what = f"has the name of {names[0]} but another number"
                messages += [f"{self.table.at(person.row)}: {other} {what}" for other in others]
        return found, messages

    def without(self, matched: Mapping[str, Collection[Person]]) -> str:
        """Return a message about the people without a submission, or an empty text."""
        have = {person.row.line for people in matched.values() for person in people}
        missing = [person for person in self.people if person.row.line not in have]
        if not missing:
            return ""
        # people with a submission according to the platform come first
        missing.sort(key=lambda person: not person.row.cells.get(STATUS, "").startswith(HAS))
        shown = ", ".join(map(_shown, missing[:20])) + (", …" if len(missing) > 20 else "")
        return f"{self.table.name}: {len(missing)} rows without a submission: {shown}"

    def times(self, zone: tzinfo | None) -> dict[int, datetime]:
        """Return the submission times by line; Canvas has none."""
        found = {}
        for person in self.people:
            text = person.row.cells.get(HANDED_IN, "-")
            if text not in ("", "-"):
                try:
                    found[person.row.line] = moment(text, zone)
                except ValueError as error:
                    raise ValueError(f"{self.table.at(person.row)}: {error}") from None
        return found

    def filled(self, marks: Mapping[int, Mark], column: str | None = None) -> list[list[object]]:
        """Return the rows for the platform, with ``marks`` filled in by line.

        ``column``: the assignment to fill in on Canvas, if there are several. The other assignments
        are left out, so the upload to Canvas changes nothing else.
        """
        return (
            self._filled_moodle(marks)
            if self.platform is Platform.MOODLE
            else self._filled_canvas(marks, column)
        )

    def _filled_moodle(self, marks: Mapping[int, Mark]) -> list[list[object]]:
        rows: list[list[object]] = [list(self.table.columns)]
        for row in self.table.rows:
            cells = dict(row.cells)
            largest = next((v for k, v in cells.items() if k.lower() == "maximum grade"), "100")
            factor = _scale(largest, self.table.at(row))
            if mark := marks.get(row.line):
                cells["Grade"] = f"{mark.points * factor:.2f}"
                if FEEDBACK in cells and mark.feedback:
                    cells[FEEDBACK] = mark.feedback
            rows.append(list(cells.values()))
        return rows

    def _filled_canvas(self, marks: Mapping[int, Mark], column: str | None) -> list[list[object]]:
        column = self._assignment(column)
        kept = [c for c in self.table.columns if c in CANVAS_STAY] + [column]
        possible = next((r for r in self.table.rows if _is_possible(r)), None)
        largest = possible.cells[column] if possible else "100"
        factor = _scale(largest, self.table.at(possible) if possible else self.table.name)
        rows: list[list[object]] = [list(kept)]
        for row in self.table.rows:
            cells = dict(row.cells)
            if mark := marks.get(row.line):
                cells[column] = f"{mark.points * factor:.2f}"
            rows.append([cells[name] for name in kept])
        return rows

    def _assignment(self, column: str | None) -> str:
        """Return the title of the assignment; Canvas appends its number."""
        there = [name for name in self.table.columns if re.search(r"\(\d+\)$", name)]
        chosen = [c for c in there if column is None or c == column or c.startswith(f"{column} (")]
        if len(chosen) != 1:
            wanted = "one assignment" if column is None else f"the assignment {column!r}"
            found = ", ".join(there) or "none"
            raise ValueError(
                f"{self.table.name}, line 1: expected {wanted}, found {found}; "
                "choose one with --canvas-column"
            )
        return chosen[0]


def read_sheet(file: Path) -> Sheet:
    """Read Moodle's grading worksheet or Canvas' export; raise ValueError for other files."""
    table = read_table(file)
    if all(column in table.columns for column in MOODLE):
        sheet = Sheet(table, Platform.MOODLE)
        for row in table.rows:
            digits = re.search(r"\d+$", row.cells["Identifier"])
            names = {row.cells.get(name, "") for name in MOODLE_NAMES}
            names |= {row.cells.get("Email address", "").partition("@")[0], row.cells["Identifier"]}
            sheet.people.append(_person(row, digits[0] if digits else "", names))
        return sheet
    if all(column in table.columns for column in CANVAS):
        sheet = Sheet(table, Platform.CANVAS)
        for row in table.rows:
            if row.cells["ID"] and not _is_possible(row):
                names = {row.cells.get(name, "") for name in CANVAS_NAMES}
                names.add(f"{row.cells.get('LastName', '')}, {row.cells.get('FirstName', '')}")
                sheet.people.append(_person(row, row.cells["ID"], names))
        return sheet
    raise ValueError(
        f"{table.name}, line 1: expected Moodle's grading worksheet ({', '.join(MOODLE)}, …; in "
        f"English) or Canvas' export ({', '.join(CANVAS)}, …), found {', '.join(table.columns)}"
    )


def _person(row: Row, number: str, names: set[str]) -> Person:
    """Return a person with all forms of the name: "Doe, Jane", "Jane Doe", with the number."""
    turned = {" ".join(reversed(name.split(", "))) for name in names if name.count(", ") == 1}
    found = {squeezed(name) for name in names | turned} - {""}
    return Person(row, number, frozenset(found | {f"{name}{squeezed(number)}" for name in found}))


def _is_possible(row: Row) -> bool:
    return POSSIBLE in next(iter(row.cells.values()), "")


def _shown(person: Person) -> str:
    cells = person.row.cells
    name = next((cells[c] for c in (*MOODLE_NAMES, *CANVAS_NAMES) if cells.get(c)), person.number)
    return f"{name} ({cells[STATUS]})" if cells.get(STATUS) else name


def _scale(largest: str, at: str) -> float:
    """Return the platform's points for one point of 100; ``largest``: its maximum mark."""
    try:
        most = number(largest)
    except ValueError as error:
        raise ValueError(f"{at}: the maximum mark: {error}") from None
    if not 0 < most < MOST:
        raise ValueError(f"{at}: expected a maximum mark above 0, got {largest!r}")
    return most / 100
