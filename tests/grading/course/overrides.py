"""What an instructor decides otherwise: points of a part, of the whole, or only a comment.

They stand in a file of their own, so they survive when a class is graded again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from grading.reporting.csv_tables import Row, Table, read_table
from grading.rubric import POINTS, RUBRIC

COLUMNS = ("name", "task", "part", "points", "comment")
TOTAL = "total"


@dataclass(frozen=True)
class Override:
    """Of one part of a task; of the total if there is no task."""

    line: int
    name: str
    task: str
    part: str
    points: float | None  # None: only the comment
    comment: str


def read_overrides(file: Path) -> list[Override]:
    """ValueError, in a sentence that names the line, where something in the file is wrong."""
    table = read_table(file, COLUMNS)
    found = [_override(table, row) for row in table.rows]
    seen: dict[tuple[str, str, str], int] = {}
    for one in found:
        key = (one.name, one.task, one.part)
        if one.points is not None and (before := seen.setdefault(key, one.line)) != one.line:
            part = " ".join(filter(None, (one.task, one.part)))
            raise ValueError(
                f"{table.name}, line {one.line}: the points of {one.name}, {part}, stand in line "
                f"{before} already"
            )
    return found


def _override(table: Table, row: Row) -> Override:
    name, task, part, points, comment = (row.cells[column] for column in COLUMNS)
    if not name:
        raise ValueError(f"{table.at(row)}: expected the name of a submission, got none")
    if task == "" and part in ("", TOTAL):
        most, part = 100, TOTAL
    elif task not in RUBRIC:
        expected = f"one of the tasks {', '.join(RUBRIC)} (or none, and the part {TOTAL})"
        raise ValueError(f"{table.at(row)}: expected {expected}, got {task!r}")
    elif part in POINTS:
        most = POINTS[part]
    else:
        raise ValueError(f"{table.at(row)}: expected a part of {', '.join(POINTS)}, got {part!r}")
    if not points and not comment:
        raise ValueError(f"{table.at(row)}: expected points or a comment, got neither")
    try:
        value = float(points.replace(",", ".")) if points else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value <= most:
        raise ValueError(f"{table.at(row)}: expected 0 to {most} points, got {points!r}")
    return Override(row.line, name, task, part, value, comment)


def by_name(file: str, overrides: Iterable[Override], names: Iterable[str]) -> dict[str, list]:
    """The overrides of each submission in ``names``; ValueError for a name that is not there."""
    known = sorted(names)
    found: dict[str, list[Override]] = {name: [] for name in known}
    for one in overrides:
        if one.name not in found:
            there = ", ".join(known[:5]) + (", …" if len(known) > 5 else "")
            raise ValueError(
                f"{file}, line {one.line}: there is no submission {one.name!r}; there are {there}"
            )
        found[one.name].append(one)
    return found
