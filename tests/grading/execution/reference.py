"""The reference: its kernels, the answers in its notebooks, and their outputs."""

import ast
import importlib
from collections.abc import Callable
from functools import cache

import nbformat

from grading.execution.harness import Purpose
from grading.execution.inputs import Observed, outputs, short_fit
from grading.intake.cells import binds
from grading.paths import ROOT
from grading.rubric import RUBRIC


def notebook_of(task: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{RUBRIC[task]['notebook']}.ipynb", as_version=4)


@cache
def imports() -> dict[str, str]:
    """Return the first code cell of each notebook."""
    found = {}
    for task in RUBRIC:
        cells = notebook_of(task).cells
        found[task] = next(cell.source for cell in cells if cell.id == "imports")
    return found


@cache
def models_imported(task: str) -> frozenset[str]:
    """Return the tasks whose models the first cell of a notebook imports."""
    names = binds(ast.parse(imports()[task]))
    return frozenset(other for other in RUBRIC if other.upper() in names)


@cache
def answers() -> dict[str, str]:
    """Return the source of the cell in which each function of a notebook is written, by key."""
    found = {}
    for task in RUBRIC:
        for cell in notebook_of(task).cells:
            if "solution" in cell.metadata.get("tags", []):
                for node in ast.parse(cell.source).body:
                    if isinstance(node, ast.FunctionDef):
                        found[f"{task}/{node.name}"] = cell.source
    return found


@cache
def function(key: str) -> Callable:
    task, _, name = key.partition("/")
    if name in RUBRIC[task]["functions"]:
        return getattr(importlib.import_module(f"mflib.{RUBRIC[task]['module']}"), name)
    space: dict = {}
    exec(imports()[task], space)
    exec(answers()[key], space)
    return space[name]


@cache
def expected(key: str, seeds: tuple[int, ...]) -> dict[str, Observed]:
    """Return all outputs of a function, by "seed/call/output".

    For "short fit/als/cholesky", return what a short fit has learned, by the model's attribute.
    """
    purpose, _, kernel = key.partition("/")
    if purpose == Purpose.SHORT_FIT:
        return {name: Observed(None, array) for name, array in short_fit(kernel, seeds[0]).items()}
    found: dict[str, Observed] = {}
    for seed in seeds:
        found |= outputs(function(key), key, seed)
    return found
