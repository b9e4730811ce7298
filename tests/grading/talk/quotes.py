"""Find the lines of a student's functions for the questions of the bank.

These functions parse students' code: call them only where memory and time are limited.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache

from grading.execution.reference import function as reference_function
from grading.intake.cells import UNPARSED, Cells
from grading.intake.submission import Submission
from grading.result import MOST_CHARACTERS, Quote
from grading.rubric import RUBRIC, function_of, is_kernel
from grading.talk.bank import BANK, Finder

MOST_LINES = 8  # of a quoted statement
MOST_NODES = 3_000  # of a function's tree, because the search starts at each node
ROUNDS_DOWN = frozenset({"floor", "floor_divide"})
PRODUCTS = frozenset({"mm", "matmul", "einsum"})


def quotes_of(given: Submission) -> dict[str, dict[str, Quote]]:
    """Return the quoted lines by function and by the name of the bank's question."""
    keys = sorted({key for entry in BANK.lines.values() for key in entry.functions})
    return {key: found for key in keys if (found := quotes(key, _source(given, key)))}


def _source(given: Submission, key: str) -> Cells:
    """Return the module or the cells that contain a function, with their labels."""
    task, _ = function_of(key)
    if not is_kernel(key):
        return given.answers.get(key, [])
    if task not in given.modules:
        return []
    return [(f"{RUBRIC[task].module}.py", given.modules[task].decode("utf-8", "replace"))]


def quotes(key: str, source: Cells) -> dict[str, Quote]:
    """Return the quoted lines of one function by question name; empty if unreadable."""
    _, name = function_of(key)
    found: dict[str, Quote] = {}
    for label, text in source:
        try:
            body = ast.parse(text).body
            functions = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == name]
            if functions and sum(1 for _ in ast.walk(functions[-1])) <= MOST_NODES:
                found = _quotes_in(key, functions[-1], label, text.splitlines())
        except UNPARSED:
            continue
    return found


def _quotes_in(
    key: str, function: ast.FunctionDef, label: str, lines: list[str]
) -> dict[str, Quote]:
    own = _own_names(key, function)
    found = {}
    for name, entry in BANK.lines.items():
        if key not in entry.functions:
            continue
        wanted = [own.get(one, one) for one in entry.functions[key]]
        if node := next(_matching(entry.find, function, wanted), None):
            found[name] = _quote(node, label, lines)
    return found


def _own_names(key: str, function: ast.FunctionDef) -> Mapping[str, str]:
    """Return the student's parameter names by the reference's names."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return dict(zip(_parameters(key), (one.arg for one in arguments), strict=False))


@cache
def _parameters(key: str) -> tuple[str, ...]:
    return tuple(inspect.signature(reference_function(key)).parameters)


def _matching(find: Finder, function: ast.FunctionDef, wanted: list[str]) -> Iterator[ast.stmt]:
    """Yield the statements for a question, the best candidate first."""
    if find is Finder.LOOPS:
        yield from _loops(function)
        return
    names = set(wanted)
    statements = _statements(function)
    if find in (Finder.USES, Finder.SQUARES):
        for node in statements:
            names |= {new for new, old in _copies(node) if old in names}
    matches = {
        Finder.USES: lambda node: names & _reads(_head(node)),
        Finder.CHANGES: lambda node: _changed(node) in names,
        Finder.SQUARES: lambda node: _squares(_head(node), names),
        Finder.CALLS: lambda node: names & set(_calls(_head(node))),
        Finder.DIVIDES: lambda node: _divides(_head(node)),
        Finder.REPEATS: lambda node: _repeats(node, names, function),
    }[find]
    found = [node for node in statements if matches(node)]
    calculates = [node for node in found if _calculates(_head(node))]
    yield from calculates or found


def _statements(function: ast.FunctionDef) -> list[ast.stmt]:
    """Return conditions and simple statements in order, without the docstring."""
    simple = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return, ast.If)
    nodes = [node for node in ast.walk(function) if isinstance(node, simple)]
    nodes = [n for n in nodes if not isinstance(getattr(n, "value", None), ast.Constant)]
    return sorted(nodes, key=lambda node: node.lineno)


def _head(node: ast.stmt) -> ast.AST:
    """Return a statement without its body."""
    return node.test if isinstance(node, ast.If | ast.While) else node


def _loops(function: ast.FunctionDef) -> list[ast.stmt]:
    nodes = [node for node in ast.walk(function) if isinstance(node, ast.For | ast.While)]
    return sorted(nodes, key=lambda node: node.lineno)


def _copies(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield the new and the old name of each renamed value, as in ``l = reg``."""
    if not isinstance(node, ast.Assign):
        return
    target, value = node.targets[0], node.value
    pairs = [(target, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = list(zip(target.elts, value.elts, strict=False))
    for new, old in pairs:
        if isinstance(new, ast.Name) and isinstance(old, ast.Name):
            yield new.id, old.id


def _reads(node: ast.AST) -> set[str]:
    names = (n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return {name.id for name in names}


def _root(node: ast.AST) -> str:
    """Return the variable at the start of an expression: "P" for ``P[users].mul_(2)``."""
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _changed(node: ast.stmt) -> str:
    """Return the variable that a statement changes in place, or ""."""
    if isinstance(node, ast.AugAssign):
        return _root(node.target)
    if isinstance(node, ast.Assign):
        parts = [t for t in node.targets if isinstance(t, ast.Subscript | ast.Attribute)]
        return _root(parts[0]) if parts else ""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        call = node.value
        if isinstance(call.func, ast.Attribute) and call.func.attr.endswith("_"):
            return _root(call)
        outs = [keyword.value for keyword in call.keywords if keyword.arg == "out"]
        outs += call.args[:1] if "at" in _calls(node) else []  # np.add.at(P, …)
        return _root(outs[0]) if outs else ""
    return ""


def _calculates(node: ast.AST) -> bool:
    return any(isinstance(part, ast.BinOp) for part in ast.walk(node))


def _squares(node: ast.AST, names: set[str]) -> bool:
    """Return whether a variable is multiplied with itself, as in ``Y.T @ Y`` or ``Y.T.mm(Y)``."""
    for part in ast.walk(node):
        is_product = isinstance(part, ast.BinOp) and isinstance(part.op, ast.MatMult)
        if is_product or (isinstance(part, ast.Call) and PRODUCTS & set(_calls(part))):
            loads = [n.id for n in ast.walk(part) if isinstance(n, ast.Name)]
            own = [name for name in loads if name in names]
            if len(own) >= 2 and set(loads) <= names | {"torch", "np"}:
                return True
    return False


def _calls(node: ast.AST) -> Iterator[str]:
    """Yield the names of called functions and methods."""
    for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
        if isinstance(call.func, ast.Attribute):
            yield call.func.attr
        elif isinstance(call.func, ast.Name):
            yield call.func.id


def _divides(node: ast.AST) -> bool:
    operators = [n.op for n in ast.walk(node) if isinstance(n, ast.BinOp)]
    floors = any(isinstance(operator, ast.FloorDiv) for operator in operators)
    return floors or bool(ROUNDS_DOWN & set(_calls(node)))


def _repeats(node: ast.stmt, names: set[str], function: ast.FunctionDef) -> bool:
    """Return whether a statement is like ``P[users] += …`` with an index of many rows.

    A loop variable as an index selects one row at a time, so it does not count.
    """
    if not isinstance(node, ast.AugAssign) or not isinstance(node.target, ast.Subscript):
        return False
    loops = [part for part in ast.walk(function) if isinstance(part, ast.For)]
    names_in_loops = [n for loop in loops for n in ast.walk(loop) if isinstance(n, ast.Name)]
    counters = {name.id for name in names_in_loops if isinstance(name.ctx, ast.Store)}
    index = _reads(node.target.slice)
    return _root(node.target) in names and bool(index) and not index & counters


def _quote(node: ast.stmt, label: str, lines: list[str]) -> Quote:
    has_body = isinstance(node, ast.For | ast.While | ast.If)
    end = node.lineno if has_body else node.end_lineno or node.lineno
    shown = lines[node.lineno - 1 : min(end, node.lineno - 1 + MOST_LINES)]
    text = textwrap.dedent("\n".join(shown))[:MOST_CHARACTERS]
    place = label if label.endswith(".py") else f"cell {label}"
    return Quote(f"{place}, line {node.lineno}", text)
