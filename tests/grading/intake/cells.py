"""Read the cells of a notebook saved by any program, and find the answers in them.

Cells are recognised by their id, the id that Colab keeps, the functions they define, or their
source. An answer brings along what it needs of other cells: helpers, constants and imports.
"""

import ast
import builtins
import json
import re
import symtable
from dataclasses import dataclass, field
from pathlib import Path

from grading.execution.inputs import OUTPUTS
from grading.intake.names import safe_name
from grading.rubric import RUBRIC

SPLIT = re.compile(r"^# (?:%%|In\s?\[).*$", re.MULTILINE)
UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)
# Characters of a cell, and of a notebook; a syntax tree takes hundreds of times as many bytes.
CELL, CODE = 50_000, 150_000
MANY = 500  # code cells
Statements = dict[str, ast.stmt]  # by the name that they define
DEFINES = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Try, ast.If)
Cells = list[tuple[str, str]]  # label and source, in order


@dataclass
class Cell:
    """A code cell of a student."""

    label: str
    source: str
    raw: dict = field(default_factory=dict)  # as stored, with its outputs
    ids: tuple[str, ...] = ()  # its own and the one that Colab keeps
    known_as: str = ""  # the id that the cell had when it was handed out
    tree: ast.Module | None = None
    # by name, the last statement that assigns or defines it; the last that computes nothing
    assigned: Statements = field(default_factory=dict)
    defined: Statements = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.tree = ast.parse(self.source)
        except UNPARSED:
            return
        for statement in self.tree.body:
            names = dict.fromkeys(binds(statement), statement)
            if isinstance(statement, DEFINES):
                self.defined |= names
            if isinstance(statement, (*DEFINES, ast.Assign, ast.AnnAssign)):
                self.assigned |= names


@dataclass
class HandedOut:
    """A cell of a notebook that was handed out."""

    id: str
    source: str
    functions: tuple[str, ...]  # that the student writes here


def handed_out(folder: Path) -> dict[str, list[HandedOut]]:
    """Return the code cells of the notebooks in ``folder`` by task."""
    found: dict[str, list[HandedOut]] = {}
    for task, entry in RUBRIC.items():
        text = (folder / f"{entry['notebook']}.ipynb").read_text(encoding="utf-8")
        found[task] = []
        for cell in json.loads(text)["cells"]:
            if cell["cell_type"] == "code":
                source, tags = _joined(cell["source"]), cell["metadata"].get("tags", [])
                tree = ast.parse(source) if "solution" in tags else ast.Module([], [])
                names = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
                names = [name for name in names if f"{task}/{name}" in OUTPUTS]
                found[task].append(HandedOut(cell["id"], source, tuple(names)))
    return found


def cells_of(content: bytes, name: str) -> tuple[list[Cell], list[str]]:
    """Return the code cells of a notebook in any version, or of a script with cell marks.

    The messages name what could not be read.
    """
    messages: list[str] = []
    base = safe_name(name.rpartition("/")[2])
    if base.lower().endswith(".py"):
        parts = SPLIT.split(content.decode("utf-8-sig", "replace"))
        messages.append(f"{base} is a script and has no outputs: nothing can be reproduced")
        parts = [part if len(part) <= CELL else "" for part in parts[:MANY]]
        parts = parts if sum(map(len, parts)) <= CODE else []
        cells = [Cell(f"part {n}", without_magics(part)) for n, part in enumerate(parts)]
        return cells, messages
    try:
        notebook = json.loads(content.decode(json.detect_encoding(content)))
        pages = notebook.get("worksheets") or [notebook]  # as it was before version 4
        raw = [cell for page in pages for cell in page["cells"] if isinstance(cell, dict)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        return [], [f"{base}: the notebook cannot be read: {why}"]
    found: list[Cell] = []
    left = CODE
    for n, cell in enumerate(raw, 1):
        if cell.get("cell_type") == "code" and len(found) < MANY:
            source = _joined(cell.get("source", cell.get("input", "")))
            left -= len(source)
            if len(source) > CELL or left < 0:
                messages.append(f"{base}: cell number {n} is too long and was not read")
                left += len(source)
                continue
            metadata = cell.get("metadata")
            metadata = metadata if isinstance(metadata, dict) else {}
            ids = [i for i in (cell.get("id"), metadata.get("id")) if isinstance(i, str)]
            found.append(Cell(f"number {n}", without_magics(source), cell, tuple(ids)))
    return found, messages


def _joined(source: object) -> str:
    if isinstance(source, list):
        return "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""


def without_magics(source: str) -> str:
    """Return source without IPython's own syntax; lines keep their numbers.

    A cell in another language (%%bash, %%html) is empty.
    """
    source = source.replace("\r\n", "\n")
    try:
        ast.parse(source)
        return source
    except UNPARSED:
        pass
    first = re.match(r"\s*%%(\w+)", source)
    if first and first[1] not in ("time", "timeit", "capture", "prun", "python", "python3"):
        return ""
    lines = source.split("\n")
    for n, line in enumerate(lines):
        text = line.lstrip()
        indent = line.removesuffix(text)
        if match := re.match(r"%(?:time|timeit|prun)\s+(?!-)(.*)", text):
            lines[n] = indent + match[1]
        elif re.match(r"[%!?]|[\w.]+\?{1,2}$", text):
            lines[n] = f"{indent}pass" if indent else ""
    return "\n".join(lines)


def recognise(cells: list[Cell], known: list[HandedOut]) -> None:
    """Set ``known_as`` of each cell that corresponds to one that was handed out."""
    left = {cell.id: cell for cell in known}

    def settle(cell: Cell, name: str) -> None:
        cell.known_as = name
        del left[name]

    for cell in cells:
        if name := next((i for i in cell.ids if i in left), None):
            settle(cell, name)
    for cell in (c for c in cells if not c.known_as):
        same = [i for i, k in left.items() if k.functions and set(k.functions) <= binds(cell.tree)]
        same = same or [i for i, k in left.items() if _squeezed(k.source) == _squeezed(cell.source)]
        if same:
            settle(cell, same[0])
    for cell in cells:
        cell.label = cell.known_as or cell.label


def _squeezed(source: str) -> str:
    return "".join(source.split())


def answer_of(cells: list[Cell], function: str, handed_out_as: str, have: set[str]) -> Cells:
    """Return the cells that define a function as the student's notebook does.

    These are the last cell that defines it and is not the empty one, and the statements of other
    cells that it needs. The list is empty if there is no such cell.

    Parameters
    ----------
    cells : list of Cell
        The student's notebook.
    function : str
        The name of the function.
    handed_out_as : str
        The id of the cell in which it was to be written.
    have : set of str
        Names that are defined already.
    """
    defining = [cell for cell in cells if function in binds(cell.tree)]
    written = [cell for cell in defining if not _is_empty(cell.tree, function)]
    own = [cell for cell in cells if cell.known_as == handed_out_as]
    main = (written or [c for c in own if c.tree is None] or defining or own)[-1:]
    if not main:
        return []
    taken: dict[int, set[ast.stmt]] = {}
    have, open_names = have | binds(main[0].tree), _uses(main[0].tree)
    while open_names:
        name = open_names.pop()
        if name in have or hasattr(builtins, name):
            continue
        have.add(name)
        for n, statement in _definition(cells, name, main[0]):
            taken.setdefault(n, set()).add(statement)
            open_names |= _uses(statement)
    found = []
    for n, cell in enumerate(cells):
        if cell is main[0]:
            found.append((cell.label, cell.source))
        elif n in taken:
            found.append((cell.label, _only(cell.source, taken[n])))
    return found


def _definition(cells: list[Cell], name: str, main: Cell) -> list[tuple[int, ast.stmt]]:
    """Return the last statement of another cell that defines ``name``, or an empty list."""
    for n, cell in reversed(list(enumerate(cells))):
        if cell is main or cell.tree is None:
            continue
        handed_out = cell.known_as != "" and cell.known_as != main.known_as
        if statement := (cell.defined if handed_out else cell.assigned).get(name):
            return [(n, statement)]
    return []


def _only(source: str, statements: set[ast.stmt]) -> str:
    """Return the source of some statements; lines keep their numbers."""
    keep: set[int] = set()
    for node in statements:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        keep |= set(range(first, (node.end_lineno or first) + 1))
    lines = source.split("\n")
    return "\n".join(line if n in keep else "" for n, line in enumerate(lines, 1))


def binds(tree: ast.AST | None) -> set[str]:
    """Return the names that code defines outside its functions and classes."""
    found: set[str] = set()
    todo: list[ast.AST] = [tree] if tree else []
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {a.asname or a.name.partition(".")[0] for a in node.names}
        elif not isinstance(node, ast.Lambda):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            todo += ast.iter_child_nodes(node)
    return found


def _uses(tree: ast.AST | None) -> set[str]:
    """Return the names that code uses without defining them in a function of its own."""
    found: set[str] = set()
    try:
        todo = [symtable.symtable(ast.unparse(tree), "", "exec")] if tree else []
    except UNPARSED:
        return found
    while todo:
        table = todo.pop()
        outside = table.get_type() == "module"
        symbols = (s for s in table.get_symbols() if s.is_referenced())
        found |= {s.get_name() for s in symbols if outside or s.is_global()}
        todo += table.get_children()
    return found


def _is_empty(tree: ast.Module | None, function: str) -> bool:
    """Return whether the function is still empty."""
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            body = node.body[1 if ast.get_docstring(node) is not None else 0 :]
            raised = body[0].exc if len(body) == 1 and isinstance(body[0], ast.Raise) else None
            return "NotImplementedError" in ast.dump(raised) if raised else False
    return False
