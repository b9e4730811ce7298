"""The package and the notebooks without the answers."""

import ast
import json
import shutil
from pathlib import Path

import nbformat

from grading.paths import ROOT
from grading.rubric import RUBRIC


def blank(source: str, hints: dict[str, str]) -> str:
    """Replace the bodies of the functions in ``hints`` with stubs that keep the docstrings.

    Raise ValueError if a function is missing.
    """
    lines, found = source.splitlines(), {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in hints:
            found[node.name] = node
    if missing := set(hints) - set(found):
        raise ValueError(f"expected the functions {sorted(hints)}, found no {sorted(missing)}")
    for name, node in sorted(found.items(), key=lambda pair: -pair[1].lineno):
        first = node.body[0]
        has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        start = first.end_lineno if has_docstring else first.lineno - 1
        indent = " " * first.col_offset
        stub = f"{indent}raise NotImplementedError({json.dumps(hints[name])})"
        lines[start : node.end_lineno] = [stub]
    return "\n".join(lines) + "\n"


def blank_cell(source: str) -> str:
    """Return the source of a cell tagged "solution" with empty functions."""
    names = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    hints = {name: f"{name} is yours to write" for name in names}
    return blank(source, hints).rstrip("\n")


def blank_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove answers and outputs from a notebook, in place; return it."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "solution" in cell.metadata.get("tags", []):
                cell.source = blank_cell(cell.source)
                hide = cell.metadata.get("jupyter", {})
                hide.pop("source_hidden", None)  # keep only answers folded
                if not hide:
                    cell.metadata.pop("jupyter", None)
    return notebook


def empty_suite(target: Path) -> None:
    """Write the package with empty kernels and the notebooks with empty answers to ``target``."""
    shutil.copytree(ROOT / "mflib", target / "mflib", ignore=shutil.ignore_patterns("__pycache__"))
    (target / "notebooks").mkdir()
    for entry in RUBRIC.values():
        module = target / "mflib" / f"{entry.module}.py"
        source = module.read_text(encoding="utf-8")
        module.write_text(blank(source, entry.kernels), encoding="utf-8")
        name = f"{entry.notebook}.ipynb"
        notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
        nbformat.write(blank_notebook(notebook), target / "notebooks" / name)
