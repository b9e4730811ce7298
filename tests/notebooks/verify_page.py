"""Report on a verification: build/verify.html and annotations for CI.

The page is one file without scripts that loads nothing. For each cell that differs it shows the
texts as a unified diff, tables with the changed cells marked, and figures as stored, as executed
and their difference.
"""

import base64
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import zip_longest
from pathlib import Path

import nbformat
import numpy as np
from bs4 import BeautifulSoup
from differences import Change, alike, pixels
from fresh_kernel import Failure
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.image import imsave
from nbconvert.filters import strip_ansi

SITE = Path(__file__).resolve().parent / "site"
ADVICE = {
    "error": "A cell raised an exception; the cells after it were not executed.",
    "dead kernel": "The process of the kernel ended while it executed this cell. Typical reasons "
    "are too little memory and a crash in compiled code. The cells after it were not executed.",
    "time-out": "The cell took longer than its limit. The cells after it were not executed.",
    "missing figure": "These cells ran to their end, but did not show the figure they describe.",
}
CONTEXT = 3  # unchanged lines around a change in a diff


@dataclass
class Verified:
    """The execution of one stored notebook and the differences from its stored outputs."""

    file: Path
    notebook: nbformat.NotebookNode  # as executed
    failure: Failure | None
    seconds: dict[str, float]  # by cell
    changes: dict[str, Change] = field(default_factory=dict)  # by cell

    @property
    def not_executed(self) -> list[str]:
        """The cells that were not executed because of a failure."""
        if self.failure is None:
            return []
        skipped = {c.id for c in self.notebook.cells if not c.get("execution_count")}
        return [cell for cell in self.changes if cell in skipped and cell not in self.failure.cells]

    @property
    def different(self) -> dict[str, Change]:
        """The changes of the cells that were executed and differ."""
        skipped = self.not_executed
        return {cell: c for cell, c in self.changes.items() if c and cell not in skipped}

    @property
    def reproduced(self) -> int:
        """The number of cells that were executed with the stored outputs."""
        failed = self.failure.cells if self.failure else []
        wrong = {*self.different, *self.not_executed, *failed}
        return len(self.changes.keys() - wrong)

    def errors(self) -> list[str]:
        """Return a message for the failure, and one for each cell that differs."""
        stem = self.file.stem
        found = [str(self.failure)] if self.failure else []
        if self.not_executed:
            found.append(f"{stem}: {len(self.not_executed)} cells were not executed")
        found += [f"{stem}, cell {cell}:\n{c.brief}" for cell, c in self.different.items()]
        return found


def page(dataset: str, verified: list[Verified], conditions: dict[str, str] | None = None) -> str:
    """Return build/verify.html; ``conditions`` are the variables that the kernels got."""
    environment = Environment(
        loader=FileSystemLoader(SITE),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("verify.html.j2").render(
        dataset=dataset,
        conditions=conditions or {},
        notebooks=[Shown(each) for each in verified],
        style=(SITE / "verify.css").read_text(encoding="utf-8"),
    )


class Shown:
    """The template's values for a notebook."""

    def __init__(self, verified: Verified) -> None:
        self.verified = verified
        self.stem = verified.file.stem
        self.failure = verified.failure
        self.advice = ADVICE[verified.failure.kind] if verified.failure else ""
        self.total = sum(verified.seconds.values())

    @cached_property
    def cells(self) -> list[dict]:
        """The cells with differences or failures, in order."""
        failed = self.failure.cells if self.failure else []
        return [
            {
                "id": cell.id,
                "source": cell.source,
                "seconds": self.verified.seconds.get(cell.id),
                "failure": self.failure.kind if cell.id in failed else "",
                "traceback": traceback(cell),
                "parts": [
                    part
                    for part in parts(self.verified.changes.get(cell.id, Change()))
                    if part.get("kind") != "error" or part["what"] != "is new"  # see the traceback
                ],
            }
            for cell in self.verified.notebook.cells
            if cell.id in self.verified.different or cell.id in failed
        ]

    @property
    def slowest(self) -> float:
        return max(self.verified.seconds.values(), default=0) or 1


def traceback(cell: nbformat.NotebookNode) -> str:
    """Return the traceback of an exception that the executed cell raised, or ""."""
    lines = [line for o in cell.get("outputs", []) for line in o.get("traceback", [])]
    return strip_ansi("\n".join(lines))


def parts(change: Change) -> Iterator[dict]:
    """Yield the different texts, tables and figures of a cell."""
    tables = [text for text in change.texts if is_table(*text)]
    for kind, stored, new in change.texts:
        if kind == "text/html" and (kind, stored, new) in tables:
            yield {"type": "table", "rows": table_rows(stored or "", new or "")}
        elif kind != "text/plain" or not tables:  # of a table, the plain text repeats the HTML
            yield {
                "type": "text",
                "kind": kind,
                "what": presence(stored, new),
                "lines": diff(stored or "", new or ""),
            }
    if change.reordered:
        yield {"type": "order"}
    for stored, new in change.figures:
        both = stored is not None and new is not None
        yield {
            "type": "figure",
            "what": presence(stored, new),
            "stored": stored,
            "new": new,
            "note": sizes(stored, new) if both else "",
            "difference": difference_image(stored, new) if both else None,
        }


def presence(stored: str | None, new: str | None) -> str:
    return "is missing" if new is None else "is new" if stored is None else ""


def diff(stored: str, new: str) -> list[tuple[str, str]]:
    """Return the unified diff as (class, line)."""
    kinds = {"+": "new", "-": "stored", "@": "place"}
    lines = difflib.unified_diff(
        stored.splitlines(), new.splitlines(), "stored", "executed", lineterm="", n=CONTEXT
    )
    return [(kinds.get(line[:1], "same"), line) for line in lines][2:]  # without the two heads


def is_table(kind: str, stored: str | None, new: str | None) -> bool:
    return kind == "text/html" and "<table" in (stored or "") + (new or "")


def grid(html: str) -> list[list[str]]:
    """Return the texts of the cells of all tables, row by row."""
    rows = BeautifulSoup(html, "html.parser").find_all("tr")
    return [[cell.get_text(" ", strip=True) for cell in row.find_all(["th", "td"])] for row in rows]


def table_rows(stored: str, new: str) -> list[tuple[str, list[tuple[str | None, str | None]]]]:
    """Return the rows of both tables: ("same", "stored" or "new", or "changed"; pairs of cells)."""
    old, now = grid(stored), grid(new)
    matcher = difflib.SequenceMatcher(
        None, [tuple(r) for r in old], [tuple(r) for r in now], autojunk=False
    )
    rows: list[tuple[str, list]] = []
    for _, a, b, c, d in matcher.get_opcodes():
        for was, came in zip_longest(old[a:b], now[c:d]):
            kind = "same" if was == came else "changed"
            kind = "stored" if came is None else "new" if was is None else kind
            rows.append((kind, list(zip_longest(was or [], came or []))))
    return rows


def sizes(stored: str, new: str) -> str:
    """Return how much two figures differ."""
    a, b = pixels(stored), pixels(new)
    if a.shape != b.shape:
        (h, w), (height, width) = a.shape[:2], b.shape[:2]
        return f"stored with {w} × {h} pixels, executed with {width} × {height}"
    rms = 255 * float(np.sqrt(((a - b) ** 2).mean()))
    share = float((np.abs(a - b).max(axis=2) > 1 / 255).mean())
    return f"{share:.1%} of the pixels differ; root mean square difference {rms:.1f} of 255"


def difference_image(stored: str, new: str) -> str | None:
    """Return the difference of two figures of one size: red where they differ, the stored in grey.

    The result is a PNG in base64, or None if the sizes differ or the figures look alike.
    """
    a, b = pixels(stored), pixels(new)
    if a.shape != b.shape or alike(stored, new):
        return None
    delta = np.abs(a - b).max(axis=2)
    strength = np.clip(delta / max(delta.max(), 1e-9), 0, 1)[..., None]
    faint = 0.85 + 0.15 * a[..., :3].mean(axis=2, keepdims=True)
    red = np.array([0.85, 0.1, 0.1])
    image = np.repeat(faint, 3, axis=2) * (1 - strength) + red * strength
    file = BytesIO()
    imsave(file, np.ascontiguousarray(image), format="png")
    return base64.b64encode(file.getvalue()).decode()


def annotations(verified: Verified, root: Path) -> Iterator[str]:
    """Yield a line for each error in GitHub's format, which points at the line of the cell."""
    text = verified.file.read_text(encoding="utf-8").splitlines()
    place = verified.file.relative_to(root) if verified.file.is_relative_to(root) else verified.file
    failed = verified.failure.cells if verified.failure else []

    def line(cell: str) -> int:
        wanted = f'"id": {json.dumps(cell)}'
        return next((n for n, line in enumerate(text, 1) if wanted in line), 1)

    def annotation(cell: str, title: str, message: str) -> str:
        where = f"file={escaped(place.as_posix(), ':,')},line={line(cell)}"
        return f"::error {where},title={escaped(title, ':,')}::{escaped(message)}"

    if verified.failure:
        for cell in failed or [""]:
            name = f"{verified.file.stem} cell {cell}" if cell else verified.file.stem
            title = f"{name}: {verified.failure.kind}"
            yield annotation(cell, title, strip_ansi(str(verified.failure)))
    for cell, change in verified.different.items():
        yield annotation(cell, f"{verified.file.stem} cell {cell} differs", change.brief)


def escaped(text: str, more: str = "") -> str:
    """Return a text for an annotation; ``more`` are characters that separate properties."""
    for letter in "%\r\n" + more:
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text
