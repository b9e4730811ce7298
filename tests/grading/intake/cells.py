"""Read the cells of a notebook saved by any program, and find the answers in them.

Cells are recognised by their id, the id that Colab keeps, the functions they define, or their
source. An answer includes the helpers, constants and imports that it needs from other cells.
"""

import ast
import builtins
import json
import re
import symtable
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from grading.intake.names import safe_name
from grading.rubric import OUTPUTS, RUBRIC

SPLIT = re.compile(r"^# (?:%%|In\s?\[).*$", re.MULTILINE)
UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)
# Characters of a cell, and of a notebook; a syntax tree takes hundreds of times as many bytes.
CELL, CODE = 50_000, 150_000
MANY = 500  # code cells
TRANSFORMS = 100  # of IPython syntax in a cell; each one parses the whole cell again
Statements = dict[str, list[ast.stmt]]  # by the name that they define or change
DEFINES = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Try, ast.If)
SHOWS = ("print", "display", "help", "len")  # calls without side effects on variables
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
Cells = list[tuple[str, str]]  # label and source, in order


@dataclass
class Cell:
    """A code cell of a student."""

    label: str
    source: str
    raw: dict = field(default_factory=dict)  # as stored, with its outputs
    ids: tuple[str, ...] = ()  # the cell's id and the one that Colab keeps
    known_as: str = ""  # the id of this cell in the student edition
    tree: ast.Module | None = None
    # by name: the statements that define or change it; those that only define it
    changing: Statements = field(default_factory=dict)
    defining: Statements = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.tree = ast.parse(self.source)
        except UNPARSED:
            return
        for statement in self.tree.body:
            for name in changes(statement):
                self.changing.setdefault(name, []).append(statement)
                if isinstance(statement, DEFINES) or _is_constant(statement):
                    self.defining.setdefault(name, []).append(statement)

    def statements(self, name: str, handed_out: Set[str]) -> list[ast.stmt]:
        """Return the statements of this cell that define or change a name for an answer.

        From a cell of the student edition, these are the definitions and the student's additions.
        ``handed_out`` contains the original statements, see ``_dumped``.
        """
        if not self.known_as:
            return self.changing.get(name, [])
        added = [s for s in self.changing.get(name, []) if ast.dump(s) not in handed_out]
        return list(dict.fromkeys([*self.defining.get(name, []), *added]))


@dataclass
class HandedOut:
    """A code cell of the student edition."""

    id: str
    source: str
    functions: tuple[str, ...]  # the functions that the student writes in this cell


def handed_out(folder: Path) -> dict[str, list[HandedOut]]:
    """Return the code cells of the notebooks in ``folder`` by task."""
    found: dict[str, list[HandedOut]] = {}
    for task, entry in RUBRIC.items():
        text = (folder / f"{entry.notebook}.ipynb").read_text(encoding="utf-8")
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
    """Return the code cells of a notebook of any version, or of a script with cell markers.

    The second result has messages on everything that could not be read.
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
        pages = notebook.get("worksheets") or [notebook]  # the form before version 4
        raw = [cell for page in pages for cell in page["cells"] if isinstance(cell, dict)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else "it has no list of cells"
        return [], [f"{base} cannot be read as a notebook: {why}"]
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
    """Return source without IPython syntax, with unchanged line numbers.

    Magics and commands are removed, or become calls if their result is assigned. A cell in another
    language (%%bash, %%html) becomes empty.
    """
    source = source.replace("\r\n", "\n")
    try:
        ast.parse(source)
        return source
    except UNPARSED:
        pass
    from IPython.core.inputtransformer2 import TransformerManager  # slow to import

    first = re.match(r"\s*%%(\w+).*", source)
    if first and first[1] not in ("time", "timeit", "capture", "prun", "python", "python3"):
        return ""
    source = source[first.end() :] if first else source
    above = first[0].count("\n") if first else 0
    lines, manager = [f"{line}\n" for line in source.split("\n")], TransformerManager()
    for _ in range(TRANSFORMS):
        try:
            changed, new = manager.do_one_token_transform(lines)
        except (*UNPARSED, IndexError):  # keep what IPython cannot parse
            break
        if not changed:
            break
        place = next(n for n, line in enumerate(new) if line != lines[n])
        new[place] = _without_call(new[place])
        new[place + 1 : place + 1] = ["\n"] * (len(lines) - len(new))
        lines = new
    return "\n" * above + "".join(lines)[:-1]


def _without_call(line: str) -> str:
    """Return a line of IPython's transformed code without the calls of magics.

    The statement that %time, %timeit or %prun runs stays.
    """
    text = line.lstrip()
    indent = line.removesuffix(text)
    if not text.startswith("get_ipython()"):
        return line
    if run := re.match(r"get_ipython\(\)\.run_line_magic\('(?:time|timeit|prun)', (.+)\)\n", text):
        statement = ast.literal_eval(run[1])
        if not statement.startswith("-"):
            return f"{indent}{statement}\n"
    return f"{indent}pass\n" if indent else "\n"


def recognise(cells: list[Cell], known: list[HandedOut]) -> None:
    """Set ``known_as`` of each cell that corresponds to a cell of the student edition."""
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


def answer_of(
    cells: list[Cell],
    function: str,
    handed_out_as: str,
    have: set[str],
    known: Iterable[HandedOut] = (),
) -> Cells:
    """Return the student's answer: the cells that define a function.

    These are the last cell that defines it and is not empty, and the statements of other cells that
    it needs. The list is empty if there is no such cell.

    Parameters
    ----------
    cells : list of Cell
        The student's notebook.
    function : str
        The name of the function.
    handed_out_as : str
        The id of the cell intended for it.
    have : set of str
        Names that are already defined.
    known : iterable of HandedOut
        The cells of the student edition's notebook.
    """
    defining = [cell for cell in cells if function in binds(cell.tree)]
    written = [cell for cell in defining if not _is_empty(cell.tree, function)]
    own = [cell for cell in cells if cell.known_as == handed_out_as]
    main = (written or [c for c in own if c.tree is None] or defining or own)[-1:]
    if not main:
        return []
    taken: dict[int, set[ast.stmt]] = {}
    filled = binds(main[0].tree) & _uses(main[0].tree, in_functions=True)
    have, open_names = have | binds(main[0].tree), _uses(main[0].tree)
    handed_out = _dumped(tuple(cell.source for cell in known))
    for name in filled:  # by later cells
        for n, statement in _needed(cells, name, main[0], handed_out):
            if n > cells.index(main[0]) and not _is_definition(statement, name):
                taken.setdefault(n, set()).add(statement)
                open_names |= _uses(statement)
    while open_names:
        name = open_names.pop()
        if name in have or hasattr(builtins, name):
            continue
        have.add(name)
        for n, statement in _needed(cells, name, main[0], handed_out):
            taken.setdefault(n, set()).add(statement)
            open_names |= _uses(statement)
    found = []
    for n, cell in enumerate(cells):
        if cell is main[0]:
            found.append((cell.label, cell.source))
        elif n in taken:
            found.append((cell.label, _only(cell.source, taken[n])))
    return found


@cache
def _dumped(sources: tuple[str, ...]) -> frozenset[str]:
    """Return the statements of cells in a comparable form."""
    trees = (ast.parse(without_magics(source)) for source in sources)
    return frozenset(ast.dump(statement) for tree in trees for statement in tree.body)


def _needed(
    cells: list[Cell], name: str, main: Cell, handed_out: Set[str]
) -> list[tuple[int, ast.stmt]]:
    """Return the statements of other cells that define or change ``name``, with their cells.

    Statements before its last definition, such as older versions of a helper, are left out.
    """
    found: list[tuple[int, ast.stmt]] = []
    for n, cell in enumerate(cells):
        if cell is main or cell.tree is None:
            continue
        own = cell.statements(name, handed_out)
        for statement in own:
            if _is_definition(statement, name):
                found.clear()
            found.append((n, statement))
    return found


def _is_definition(statement: ast.stmt, name: str) -> bool:
    """Return whether a statement gives a name a new value that does not depend on the old one."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return not getattr(statement, "decorator_list", [])
    return isinstance(statement, ast.Assign | ast.AnnAssign) and name not in _uses(statement)


def _is_constant(statement: ast.stmt) -> bool:
    """Return whether a statement assigns a literal."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    try:
        ast.literal_eval(statement.value)
    except UNPARSED:
        return False
    return True


def changes(tree: ast.AST) -> set[str]:
    """Return the names that a statement defines, or whose objects it may change.

    An object may be changed by an assignment to a part of it (``x[0] = 1``), by a method whose
    result is not used (``x.append(1)``), and by a function that receives it (``shuffle(x)``).
    """
    found = binds(tree)
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, FUNCTIONS):
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            found |= _owner(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            if isinstance(call.func, ast.Attribute):
                found |= _owner(call.func)
            if not (isinstance(call.func, ast.Name) and call.func.id in SHOWS):
                found |= {part.id for part in call.args if isinstance(part, ast.Name)}
    return found


def _owner(node: ast.AST) -> set[str]:
    """Return the variable to which a subscript or an attribute belongs, if there is one."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _only(source: str, statements: set[ast.stmt]) -> str:
    """Return the source of some statements with unchanged line numbers."""
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


def _uses(tree: ast.AST | None, in_functions: bool = False) -> set[str]:
    """Return the names that code uses, except local variables of its functions.

    ``in_functions``: only names that its functions use.
    """
    found: set[str] = set()
    try:
        todo = [symtable.symtable(ast.unparse(tree), "", "exec")] if tree else []
    except UNPARSED:
        return found
    while todo:
        table = todo.pop()
        outside = table.get_type() == "module" and not in_functions
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
