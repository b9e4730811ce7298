"""Whether the outputs that were handed in are those that come out here.

Both sides are read alike: what depends on the machine and the minute (paths of temporary files,
addresses, measured times, progress bars) does not count.
"""

import ast
import base64
import re
import struct
from collections.abc import Mapping, Set
from functools import cache

import nbformat
from differences import differences, texts
from execute import STORED
from fresh_kernel import tags

from grading.execution.reference import notebook_of
from grading.intake.cells import Cells, HandedOut, binds
from grading.rubric import RUBRIC

PASSING = (
    (re.compile(r"0x[0-9a-fA-F]{6,}"), "0x…"),
    (re.compile(r"(?m)^.*(?:CPU times|Wall time|CPU time|per loop).*\n?"), ""),
    (re.compile(r"(?m)^.*\d{1,3}%\|.*\|.*\n?"), ""),
    (re.compile(r"(?:[A-Za-z]:)?[\\/][\w.@\\/\-+]{0,300}[\\/]([\w.\-]+)"), r"\1"),
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"ipykernel_\d+"), "ipykernel"),
)
WIDGET = "application/vnd.jupyter.widget-view+json"
# Of a cell: outputs, kinds of one, figures; pixels of a figure.
OUTPUTS, KINDS, FIGURES, PIXELS = 200, 20, 8, 2**21
PNG = b"\x89PNG\r\n\x1a\n"
SHOWS_SOURCE = "kernel"  # the cell that displays the student's own code


def as_cell(raw: Mapping) -> nbformat.NotebookNode:
    """A stored cell with outputs in one form; ValueError and the like if it has none."""
    count, stored = raw.get("execution_count"), raw.get("outputs") or []
    if not isinstance(count, int | None):  # nbformat's own complaint quotes it, however deep it is
        raise ValueError(f"expected a number of the execution, got {type(count).__name__}")
    cell = nbformat.v4.new_code_cell("", id="x", execution_count=count)
    if len(stored) > OUTPUTS:
        raise ValueError(f"expected at most {OUTPUTS}, got {len(stored)}")
    for output in stored:
        output = nbformat.from_dict(output)
        if len(output.get("data", {})) > KINDS:
            raise ValueError(f"expected at most {KINDS} kinds of one output")
        if WIDGET in output.get("data", {}):
            continue
        if "text" in output:
            output.text = passing_removed(_joined(output.text))
            if not output.text.strip():
                continue
        data = output.get("data", {})
        if not _joined(data.get("text/plain", "<")).startswith("<"):
            data.pop("text/html", None)  # the same table, which Colab dresses in its own way
        for kind, content in data.items():
            if kind.startswith("text/"):
                output.data[kind] = passing_removed(_joined(content))
            elif isinstance(content, list):
                output.data[kind] = _joined(content)
        if output.output_type == "error":
            output.evalue = passing_removed(_joined(output.get("evalue", "")))
        cell.outputs.append(output)
    return cell


def _joined(text: object) -> str:
    return "".join(text) if isinstance(text, list) else str(text)


def passing_removed(text: str) -> str:
    text = text.rpartition("\r")[2] if "\r" in text and "\n" not in text else text
    for pattern, instead in PASSING:
        text = pattern.sub(instead, text)
    return text


def _failed(cell: nbformat.NotebookNode) -> bool:
    outputs = cell.get("outputs")
    outputs = outputs if isinstance(outputs, list) else []
    return any(isinstance(o, dict) and o.get("output_type") == "error" for o in outputs)


def dataset_of(task: str, stored: Mapping[str, Mapping], graded_on: str) -> str:
    """The data set that a notebook was run on, as its outputs show."""
    scores = {}
    for name in STORED:
        pairs = stored_texts(task, name).items()
        scores[name] = sum(_has(stored.get(cell), texts) for cell, texts in pairs)
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > scores.get(graded_on, 0) + 1 else graded_on


@cache
def stored_texts(task: str, dataset: str) -> dict[str, list[tuple[str, str]]]:
    """The texts that the repository's notebook has put out, by cell."""
    cells = nbformat.read(STORED[dataset] / f"{RUBRIC[task]['notebook']}.ipynb", as_version=4).cells
    return {c.id: texts(as_cell(c)) for c in cells if c.cell_type == "code" and c.outputs}


def _has(raw: Mapping | None, expected: list[tuple[str, str]]) -> bool:
    try:
        return raw is not None and texts(as_cell(raw)) == expected
    except Exception:  # what is stored may be anything
        return False


@cache
def stored_reference(task: str, dataset: str) -> dict[str, nbformat.NotebookNode]:
    """The repository's outputs on a data set, but for the cells that show what a student wrote."""
    file = STORED[dataset] / f"{RUBRIC[task]['notebook']}.ipynb"
    cells = nbformat.read(file, as_version=4).cells
    shown = [c for c in cells if c.cell_type == "code" and "solution" not in tags(c)]
    return {cell.id: cell for cell in shown if cell.id != SHOWS_SOURCE}


def change(raw: Mapping | None, came: nbformat.NotebookNode | None) -> str:
    """How what came out here differs from what was handed in; "" if it does not."""
    if raw is None or not raw.get("execution_count"):
        return "no outputs were handed in"
    if came is None or not came.get("execution_count"):
        return "not executed here"
    try:
        stored, executed = as_cell(raw), as_cell(came)
        for cell in (stored, executed):
            look_at_figures(cell)
        # not as notebooks: to validate what is not valid takes gigabytes
        pair = (nbformat.from_dict({"cells": [cell]}) for cell in (stored, executed))
        return differences(*pair)["x"]
    except Exception as error:  # what is stored may be anything
        return f"the outputs handed in cannot be read: {error or type(error).__name__}"


def look_at_figures(cell: nbformat.NotebookNode) -> None:
    """ValueError if figures of a cell are too many or too large to compare, or no figures."""
    figures = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    if len(figures) > FIGURES:
        raise ValueError(f"expected at most {FIGURES} figures, got {len(figures)}")
    for figure in figures:
        width, height = size_of(base64.b64decode(figure))
        if width * height > PIXELS:
            raise ValueError(f"a figure of {width} x {height} pixels is too large to compare")


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG in pixels; ValueError if it says so more than once, or never.

    A reader takes the last of several headers, and reserves what it says before it looks further.
    """
    sizes, place = [], len(PNG)
    if not png.startswith(PNG):
        raise ValueError("expected a PNG")
    while place + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        if kind == b"IHDR":
            sizes.append(struct.unpack_from(">II", png, place + 8))
        place += 12 + length
    if len(sizes) != 1:
        raise ValueError(f"expected a PNG with one header, got {len(sizes)}")
    return sizes[0]


@cache
def needs(task: str) -> dict[str, set[str]]:
    """By cell of a notebook, whose models it may need: itself, or what it takes from others."""
    made_of: dict[str, set[str]] = {model.upper(): {model} for model in RUBRIC}
    found = {}
    cells = [c for c in notebook_of(task).cells if c.cell_type == "code"]
    first = binds(ast.parse(cells[0].source))
    for cell in cells:
        tree = ast.parse(cell.source)
        nodes = list(ast.walk(tree))
        uses = {node.id for node in nodes if isinstance(node, ast.Name)}
        found[cell.id] = set().union(*(made_of.get(name, set()) for name in uses))
        # what it defines, what it stores something in, what it calls methods of
        parts = [n for n in nodes if isinstance(n, ast.Subscript | ast.Attribute)]
        called = [id(n.func) for n in nodes if isinstance(n, ast.Call)]
        parts = [n for n in parts if isinstance(n.ctx, ast.Store) or id(n) in called]
        owners = {n.value.id for n in parts if isinstance(n.value, ast.Name)}
        for name in (binds(tree) | owners) - first:
            made_of[name] = made_of.get(name, set()) | found[cell.id]
    return found


def changes(
    task: str,
    stored: Mapping[str, Mapping],
    executed: Mapping[str, nbformat.NotebookNode],
    gaps: Set[str],
    only: set[str] | None = None,
) -> tuple[dict[str, str], int]:
    """By cell, what was not reproduced; and of how many cells that count.

    Cells that need other tasks, which have ``gaps``, do not count if they fail here, and have no
    outputs or the same failure in what was handed in. That a cell shows nothing, which shows
    something in the repository, is not reproduced. ``only``: the cells to be compared, if not all.
    """
    reference = stored_reference(task, "ml-100k")  # on the other data set the same cells do
    shows = {name for name, cell in reference.items() if cell.outputs}
    cells = [c for c in notebook_of(task).cells if c.cell_type == "code"]
    ids = [c.id for c in cells if "skip-execution" not in tags(c)]
    ids = ids if only is None else [name for name in ids if name in only]
    found, counted = {}, 0
    for name in ids:
        came, raw = executed.get(name), stored.get(name)
        difference, nothing = change(raw, came), not (raw or {}).get("execution_count")
        fails = came is not None and _failed(came)
        excused = not gaps.isdisjoint(needs(task)[name])
        if excused and fails and (nothing or not difference):
            continue
        counted += 1
        if not difference and name in shows and not came.get("outputs"):
            difference = "shows nothing, here and in what was handed in"
        if difference:
            found[name] = difference
    return found, counted


def notebook_to_run(
    task: str, answers: Mapping[str, Cells], known: list[HandedOut]
) -> nbformat.NotebookNode:
    """The grader's notebook with the student's answers."""
    notebook = notebook_of(task)
    own = {cell.id: cell.functions for cell in known}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if own[cell.id]:
                keys = [f"{task}/{name}" for name in own[cell.id]]
                parts = dict.fromkeys(part for key in keys for part in answers.get(key, []))
                missing = 'raise NotImplementedError("missing")'
                cell.source = "\n\n".join(source for _, source in parts) or missing
    return notebook
