"""Convert functions to a normal form without names, comments and layout.

Two functions have the same normal form if one is a copy of the other with different names.
plagiarism/identical.py exports the answers for tools that find rewritten copies. This module parses
untrusted source: call it only where memory and time are limited.
"""

import ast
import builtins
import hashlib
from dataclasses import dataclass
from typing import Annotated, TypeVar

from grading.schema import Bounds

MOST_SOURCE = 20_000  # characters of an answer; the rest is ignored
MOST_FORMS = 100  # of an answer
FEWEST_NODES = 50  # of a tree; smaller functions may be equal by chance
Definition = TypeVar("Definition", ast.FunctionDef, ast.ClassDef)
UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class NormalForm:
    """The hash of a function's normal form, and the function's place."""

    name: Annotated[str, Bounds(200)]
    digest: Annotated[str, Bounds(64)]
    first: int  # line in the answer
    last: int


def own_part(source: str, handed_out: str) -> str:
    """Return the top-level statements that are not in the student edition."""
    try:
        known = {ast.dump(node) for node in ast.parse(handed_out).body}
        own = [node for node in ast.parse(source).body if ast.dump(node) not in known]
    except UNPARSED:
        return source[:MOST_SOURCE]
    lines = source.splitlines()
    keep: dict[int, bool] = {}  # by line: whether a gap precedes it
    for node in own:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        for line in range(first, (node.end_lineno or first) + 1):
            keep.setdefault(line, line == first)  # a line may have several statements
    parts = (f"\n{lines[n - 1]}" if gap else lines[n - 1] for n, gap in sorted(keep.items()))
    return "\n".join(parts).removeprefix("\n")[:MOST_SOURCE]


def normal_forms(source: str) -> list[NormalForm]:
    """Return the normal forms of all functions and classes above a minimum size."""
    try:
        body = ast.parse(source[: 10 * MOST_SOURCE]).body
    except UNPARSED:
        return []
    forms = []
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or len(node.name) > 200:
            continue
        if sum(1 for _ in ast.walk(node)) < FEWEST_NODES:
            continue
        name, first, last = node.name, node.lineno, node.end_lineno or node.lineno
        try:
            tree = ast.dump(_Renamed().visit(node))  # modifies the node
        except RecursionError:
            continue
        digest = hashlib.sha256(tree.encode("utf-8", "surrogatepass")).hexdigest()
        forms.append(NormalForm(name, digest, first, last))
    return forms[:MOST_FORMS]


class _Renamed(ast.NodeTransformer):
    """Replaces names with numbers, except builtins, attributes and keywords of calls.

    Docstrings, annotations and decorators are removed.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, str] = {}

    def number(self, name: str) -> str:
        if hasattr(builtins, name):
            return name
        return self.numbers.setdefault(name, f"v{len(self.numbers)}")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.number(node.arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = node.type_comment = None
        return self._definition(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        return self._definition(node)

    def _definition(self, node: Definition) -> Definition:
        node.name, node.decorator_list = self.number(node.name), []
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return self.visit(ast.Assign([node.target], node.value))
