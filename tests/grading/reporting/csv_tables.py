"""Tables that come in and go out: CSV as spreadsheets and learning platforms write and read it.

A cell that a spreadsheet would take for a formula is not one any more: names and file names are
written by strangers.
"""

import csv
import io
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# With these a formula begins, in East Asian forms, too; a tab or a return before one is dropped.
FORMULA = tuple("=+-@＝＋－＠\t\r")
OLD = 60  # seconds: a younger file may be about to be moved into its place


class Row(NamedTuple):
    line: int  # of the file, where the row begins
    cells: dict[str, str]  # by column, stripped


class Table(NamedTuple):
    name: str  # of the file, for messages
    columns: list[str]
    rows: list[Row]

    def at(self, row: Row) -> str:
        """Where something is wrong, to begin a sentence with."""
        return f"{self.name}, line {row.line}"


def read_table(file: Path, needed: Iterable[str] = ()) -> Table:
    """A table with a header, separated by commas, semicolons or tabs, in UTF-8 or UTF-16.

    ValueError, in a sentence that names the line, where it is not one or lacks a needed column.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a table at {file}: {error.strerror}") from None
    utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        what = "expected UTF-8, got other bytes; save it as CSV UTF-8"
        raise ValueError(f"{file.name}, line {line}: {what}") from None
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    columns: list[str] = []
    rows, line = [], 1
    try:
        for cells in reader:
            begun, line = line, reader.line_num + 1
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = cells
                _check_columns(file.name, begun, columns, needed)
            elif len(cells) > len(columns):
                got = f"got {len(cells)}; put quotes around a cell with a comma"
                raise ValueError(f"{file.name}, line {begun}: expected {len(columns)} cells, {got}")
            else:
                cells += [""] * (len(columns) - len(cells))
                rows.append(Row(begun, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise ValueError(f"{file.name}, line {line}: {error}") from None
    if not columns:
        raise ValueError(f"{file.name}: expected a table with a header, got an empty file")
    return Table(file.name, columns, rows)


def _check_columns(name: str, line: int, columns: list[str], needed: Iterable[str]) -> None:
    missing = [column for column in needed if column not in columns]
    if missing:
        expected = f"expected the columns {', '.join(needed)}"
        raise ValueError(f"{name}, line {line}: {expected}; {', '.join(missing)} is missing")
    if twice := {column for column in columns if column and columns.count(column) > 1}:
        raise ValueError(f"{name}, line {line}: the column {min(twice)} is there twice")


def write_table(file: Path, rows: Iterable[Iterable[object]]) -> None:
    """UTF-8 with the mark by which Excel knows it; no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    write_whole(file, f"\ufeff{text.getvalue()}")


def harmless(cell: object) -> object:
    """A cell as it is, with an apostrophe before it if a spreadsheet would calculate it."""
    if not isinstance(cell, str) or cell.strip() in ("", "-") or _is_number(cell):
        return cell
    return f"'{cell}" if cell.startswith(FORMULA) or cell.strip().startswith(FORMULA) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_whole(file: Path, text: str) -> None:
    """Whole or not at all, at every moment, whoever else writes it."""
    new = beside(file)
    new.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    new.replace(file)


def beside(file: Path) -> Path:
    """A name for what will take the place of ``file``; no other process has the same."""
    return file.with_name(f".{secrets.token_hex(8)}.new")


def sweep(folder: Path) -> None:
    """Remove what a killed process has not moved into its place."""
    for new in folder.glob(".*.new"):
        with suppress(FileNotFoundError):
            if time.time() > new.stat().st_mtime + OLD:
                new.unlink()
