"""Compare the outputs stored in a submitted notebook with those that its code produces here.

Text that differs between machines and runs (temporary paths, addresses, times, progress bars) is
removed from both before the comparison.
"""

import ast
import base64
import re
import struct
from collections.abc import Mapping, Set
from functools import cache
from typing import NamedTuple

import nbformat
from differences import differences, texts
from execute import STORED
from fresh_kernel import tags

from grading.execution.reference import notebook_of
from grading.intake.cells import Cells, HandedOut, binds
from grading.rubric import RUBRIC

VOLATILE = (
    (re.compile(r"0x[0-9a-fA-F]{6,}"), "0x…"),
    (re.compile(r"(?m)^.*(?:CPU times|Wall time|CPU time|per loop).*\n?"), ""),
    (re.compile(r"(?m)^.*\d{1,3}%\|.*\|.*\n?"), ""),
    # mflib.notebook.export_projector with a read-only data folder
    (re.compile(r"(?m)^.* cannot be written to \(.*\); the files are in .*\n?"), ""),
    (re.compile(r"(?:[A-Za-z]:)?[\\/][\w.@\\/\-+]{0,300}[\\/]([\w.\-]+)"), r"\1"),
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"ipykernel_\d+"), "ipykernel"),
)
WIDGET = "application/vnd.jupyter.widget-view+json"
OUTPUTS, KINDS, FIGURES = 200, 20, 8  # limits of a cell: outputs, MIME types of one output, figures
PIXELS = 2**21  # of a figure
PNG = b"\x89PNG\r\n\x1a\n"
SHOWS_SOURCE = "kernel"  # the cell that displays the student's code


def as_cell(raw: Mapping) -> nbformat.NotebookNode:
    """Return a stored cell with normalised outputs; any exception if the cell is malformed."""
    count, stored = raw.get("execution_count"), raw.get("outputs") or []
    if not isinstance(count, int | None):  # nbformat's message would quote the whole object
        raise ValueError(f"expected an execution count, got {type(count).__name__}")
    cell = nbformat.v4.new_code_cell("", id="x", execution_count=count)
    if len(stored) > OUTPUTS:
        raise ValueError(f"expected at most {OUTPUTS} outputs, got {len(stored)}")
    for output in stored:
        output = nbformat.from_dict(output)
        if len(output.get("data", {})) > KINDS:
            raise ValueError(f"expected at most {KINDS} MIME types for one output")
        if WIDGET in output.get("data", {}):
            continue
        if "text" in output:
            output.text = without_volatile(_joined(output.text))
            if not output.text.strip():
                continue
        data = output.get("data", {})
        if not _joined(data.get("text/plain", "<")).startswith("<"):
            data.pop("text/html", None)  # a copy of the table; Colab adds other elements
        for kind, content in data.items():
            if kind.startswith("text/"):
                output.data[kind] = without_volatile(_joined(content))
            elif isinstance(content, list):
                output.data[kind] = _joined(content)
        if output.output_type == "error":
            output.evalue = without_volatile(_joined(output.get("evalue", "")))
        cell.outputs.append(output)
    return cell


def _joined(text: object) -> str:
    return "".join(text) if isinstance(text, list) else str(text)


def without_volatile(text: str) -> str:
    text = text.rpartition("\r")[2] if "\r" in text and "\n" not in text else text
    for pattern, instead in VOLATILE:
        text = pattern.sub(instead, text)
    return text


def dataset_of(task: str, stored: Mapping[str, Mapping], graded_on: str) -> str:
    """Return the data set on which a notebook was executed, inferred from its outputs."""
    scores = {}
    for name in STORED:
        pairs = stored_texts(task, name).items()
        scores[name] = sum(_has(stored.get(cell), texts) for cell, texts in pairs)
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > scores.get(graded_on, 0) + 1 else graded_on


@cache
def stored_texts(task: str, dataset: str) -> dict[str, list[tuple[str, str]]]:
    """Return the text outputs of the repository's notebook, by cell."""
    cells = nbformat.read(STORED[dataset] / f"{RUBRIC[task].notebook}.ipynb", as_version=4).cells
    return {c.id: texts(as_cell(c)) for c in cells if c.cell_type == "code" and c.outputs}


def _has(raw: Mapping | None, expected: list[tuple[str, str]]) -> bool:
    try:
        return raw is not None and texts(as_cell(raw)) == expected
    except Exception:  # stored outputs may be malformed
        return False


@cache
def reference_cells(task: str, dataset: str) -> dict[str, nbformat.NotebookNode]:
    """Return the repository's code cells, except answers and the cell that shows the kernel."""
    file = STORED[dataset] / f"{RUBRIC[task].notebook}.ipynb"
    cells = nbformat.read(file, as_version=4).cells
    shown = [c for c in cells if c.cell_type == "code" and "solution" not in tags(c)]
    return {cell.id: cell for cell in shown if cell.id != SHOWS_SOURCE}


def cell_difference(raw: Mapping | None, executed: nbformat.NotebookNode | None) -> str:
    """Return the difference of a cell's outputs, or an empty text if they are equal.

    Parameters
    ----------
    raw : mapping or None
        The cell as submitted.
    executed : NotebookNode or None
        The same cell after it was executed here.
    """
    if raw is None or not raw.get("execution_count"):
        return "the cell was not executed before the submission"
    if executed is None or not executed.get("execution_count"):
        return "not executed here"
    try:
        cells = as_cell(raw), as_cell(executed)
        for cell in cells:
            check_figures(cell)
        # not nbformat's notebooks: validating an invalid one takes gigabytes
        pair = (nbformat.from_dict({"cells": [cell]}) for cell in cells)
        return differences(*pair)["x"]
    except Exception as error:  # stored outputs may be malformed
        return f"the stored outputs cannot be read: {error or type(error).__name__}"


def check_figures(cell: nbformat.NotebookNode) -> None:
    """Raise ValueError if a cell has too many figures, or one that is too large or not a PNG."""
    figures = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    if len(figures) > FIGURES:
        raise ValueError(f"expected at most {FIGURES} figures, got {len(figures)}")
    for figure in figures:
        width, height = size_of(base64.b64decode(figure))
        if width * height > PIXELS:
            raise ValueError(f"a figure of {width} x {height} pixels is too large to compare")


def size_of(png: bytes) -> tuple[int, int]:
    """Return width and height of a PNG in pixels; raise ValueError unless it has one header.

    matplotlib trusts the last of several headers and allocates memory for its size.
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
def cells_with_model(task: str) -> frozenset[str]:
    """Return the cells of a notebook that use its model or objects made with the model."""
    cells = [c for c in notebook_of(task).cells if c.cell_type == "code"]
    imported, made, found = binds(ast.parse(cells[0].source)), {task.upper()}, set()
    for cell in cells:
        tree = ast.parse(cell.source)
        nodes = list(ast.walk(tree))
        if made.isdisjoint(node.id for node in nodes if isinstance(node, ast.Name)):
            continue
        found.add(cell.id)
        # the objects that the cell defines, changes or calls methods of
        parts = [n for n in nodes if isinstance(n, ast.Subscript | ast.Attribute)]
        called = [id(n.func) for n in nodes if isinstance(n, ast.Call)]
        parts = [n for n in parts if isinstance(n.ctx, ast.Store) or id(n) in called]
        owners = {n.value.id for n in parts if isinstance(n.value, ast.Name)}
        made |= (binds(tree) | owners) - imported
    return frozenset(found)


class Comparison(NamedTuple):
    """The result of comparing the cells of a notebook."""

    differences: dict[str, str]  # by cell; only cells that are not reproduced
    n_cells: int  # the number of cells that count

    @property
    def n_reproduced(self) -> int:
        return self.n_cells - len(self.differences)


def compare_cells(
    task: str,
    stored: Mapping[str, Mapping],
    executed: Mapping[str, nbformat.NotebookNode],
    only: Set[str] | None = None,
) -> Comparison:
    """Compare stored with executed cells.

    A cell without outputs on both sides is not reproduced if the repository's cell has outputs;
    otherwise it does not count, because nothing shows whether it was executed.

    Parameters
    ----------
    task : str
        The task of the notebook.
    stored, executed : mapping
        Cells by their ids in the student edition.
    only : set of str, optional
        The cells to compare; all by default.
    """
    reference = reference_cells(task, "ml-100k")  # the same cells have outputs on both data sets
    shows = {name for name, cell in reference.items() if cell.outputs}
    cells = [c for c in notebook_of(task).cells if c.cell_type == "code"]
    ids = [c.id for c in cells if "skip-execution" not in tags(c)]
    differences, n_cells = {}, 0
    for name in (name for name in ids if only is None or name in only):
        here, raw = executed.get(name), stored.get(name)
        if name not in shows and not any(cell and cell.get("outputs") for cell in (here, raw)):
            continue
        difference = cell_difference(raw, here)
        n_cells += 1
        if not difference and name in shows and here is not None and not here.get("outputs"):
            difference = "has no outputs, neither here nor in the submission"
        if difference:
            differences[name] = difference
    return Comparison(differences, n_cells)


def notebook_to_run(
    task: str, answers: Mapping[str, Cells], known: list[HandedOut]
) -> nbformat.NotebookNode:
    """Return the grader's notebook with the student's answers and without outputs."""
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
