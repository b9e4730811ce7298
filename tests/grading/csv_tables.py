"""Read and write CSV tables of spreadsheets and learning platforms.

Values that look like formulas are escaped, because students choose names and file names.
"""

import csv
import io
import re
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# A formula begins with these, also in East Asian forms; a tab or return before one is ignored.
FORMULA = tuple("=+-@＝＋－＠\t\r")
# A comma or point before three digits, as in 1,000, may separate thousands or decimals.
EITHER = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")
DECIMAL = re.compile(r"\d+(?:[.,]\d+)?")
THOUSANDS = re.compile(
    r"\d{1,3}(?:(?:,\d{3})+\.\d+|(?:\.\d{3})+,\d+|(?:,\d{3}){2,}|(?:\.\d{3}){2,})"
)
OLD = 60  # seconds: another process may still move a younger file to its final name


class Row(NamedTuple):
    line: int  # the line of the file where the row begins
    cells: dict[str, str]  # by column, stripped


class Table(NamedTuple):
    name: str  # of the file, for messages
    columns: list[str]
    rows: list[Row]

    def at(self, row: Row) -> str:
        """Return file and line as the beginning of a message."""
        return f"{self.name}, line {row.line}"


def read_table(file: Path, needed: Iterable[str] = ()) -> Table:
    """Read a table with a header, separated by commas, semicolons or tabs, in UTF-8 or UTF-16.

    ``needed``: required columns. Raise ValueError with the line if the table is malformed.
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
        raise ValueError(f"{name}, line {line}: the column {min(twice)} occurs twice")


def write_table(file: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a table without formulas, in UTF-8 with the byte order mark that Excel expects."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    write_whole(file, f"\ufeff{text.getvalue()}")


def harmless(cell: object) -> object:
    """Return a value, with an apostrophe in front if a spreadsheet would evaluate it."""
    if not isinstance(cell, str) or cell.strip() in ("", "-") or _is_number(cell):
        return cell
    return f"'{cell}" if cell.startswith(FORMULA) or cell.strip().startswith(FORMULA) else cell


def number(text: str) -> float:
    """Parse a number with a decimal point or comma; raise ValueError if it is ambiguous."""
    if EITHER.fullmatch(text):
        whole, front = re.sub("[.,]", "", text), re.split("[.,]", text)[0]
        raise ValueError(f"expected {whole} or {front}, got {text!r}, which may be either")
    if THOUSANDS.fullmatch(text):
        last = max(text.rfind(","), text.rfind("."))
        if text.count(text[last]) == 1:
            return float(re.sub("[.,]", "", text[:last]) + "." + text[last + 1 :])
        return float(re.sub("[.,]", "", text))
    if not DECIMAL.fullmatch(text):
        raise ValueError(f"expected a number, got {text!r}")
    return float(text.replace(",", "."))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically, even if other processes write the same file."""
    new = temporary_name(file)
    new.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    new.replace(file)


def temporary_name(file: Path) -> Path:
    """Return a unique path next to ``file`` for its replacement."""
    return file.with_name(f".{secrets.token_hex(8)}.new")


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed."""
    for new in folder.glob(".*.new"):
        with suppress(FileNotFoundError):
            if time.time() > new.stat().st_mtime + OLD:
                new.unlink()
