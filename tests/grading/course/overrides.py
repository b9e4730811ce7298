"""Read an instructor's overrides: points of a part, the total or a talk, or only a comment.

They are in a separate file, so they stay valid when a class is graded again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from grading.csv_tables import Row, Table, number, read_table
from grading.result import TALK, TALK_POINTS, TOTAL, Override
from grading.rubric import POINTS, RUBRIC

COLUMNS = ("name", "task", "part", "points", "comment")  # the column TALK is optional


@dataclass(frozen=True)
class OverrideRow:
    """An override, its submission, and its line in the file."""

    line: int
    name: str
    override: Override


def read_overrides(file: Path) -> list[OverrideRow]:
    """Read a table of overrides; raise ValueError with the line if it is malformed."""
    table = read_table(file, COLUMNS)
    rows = [override for row in table.rows for override in _override_rows(table, row)]
    seen: dict[tuple[str, str, str], int] = {}
    for row in rows:
        one = row.override
        key = (row.name, one.task, one.part)
        if one.points is not None and (before := seen.setdefault(key, row.line)) != row.line:
            part = " ".join(filter(None, (one.task, one.part)))
            raise ValueError(
                f"{table.name}, line {row.line}: the points of {row.name}, {part}, are in line "
                f"{before} already"
            )
    return rows


def _override_rows(table: Table, row: Row) -> list[OverrideRow]:
    """Return the overrides in a row: of a part or the total, of a talk, or both."""
    name, task, part, points, comment = (row.cells[column] for column in COLUMNS)
    if not name:
        raise ValueError(f"{table.at(row)}: expected the name of a submission, got none")
    talk = row.cells.get(TALK, "")
    if not talk:
        return [OverrideRow(row.line, name, _of_part(table, row))]
    own = Override("", TALK, _points(table, row, talk, TALK_POINTS), "" if points else comment)
    found = [OverrideRow(row.line, name, own)]
    if points:
        found.append(OverrideRow(row.line, name, _of_part(table, row)))
    elif task or part:
        got = " ".join(filter(None, (task, part)))
        raise ValueError(f"{table.at(row)}: expected points of {got!r}, got only points of a talk")
    return found


def _of_part(table: Table, row: Row) -> Override:
    """Return the override of a part or of the total, or a comment on it."""
    _, task, part, points, comment = (row.cells[column] for column in COLUMNS)
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
    return Override(task, part, _points(table, row, points, most) if points else None, comment)


def _points(table: Table, row: Row, text: str, most: int) -> float:
    try:
        value = number(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise ValueError(f"{table.at(row)}: expected 0 to {most} points, got {text!r}")
    return value


def by_name(
    file: str, rows: Iterable[OverrideRow], names: Iterable[str]
) -> dict[str, list[Override]]:
    """Return the overrides of each submission; raise ValueError for unknown names."""
    known = sorted(names)
    overrides: dict[str, list[Override]] = {name: [] for name in known}
    for row in rows:
        if row.name not in overrides:
            there = ", ".join(known[:5]) + (", …" if len(known) > 5 else "")
            raise ValueError(
                f"{file}, line {row.line}: there is no submission {row.name!r}; there are {there}"
            )
        overrides[row.name].append(row.override)
    return overrides
