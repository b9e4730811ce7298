"""The reference: its kernels, the answers in its notebooks, and their outputs."""

import ast
import importlib
from collections.abc import Callable
from functools import cache

import nbformat

from grading.execution.harness import Purpose
from grading.execution.inputs import Observed, outputs, short_fit
from grading.paths import ROOT
from grading.rubric import RUBRIC, function_of, is_kernel


def notebook_of(task: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{RUBRIC[task].notebook}.ipynb", as_version=4)


@cache
def imports() -> dict[str, str]:
    """Return the first code cell of each notebook."""
    found = {}
    for task in RUBRIC:
        cells = notebook_of(task).cells
        found[task] = next(cell.source for cell in cells if cell.id == "imports")
    return found


@cache
def answers() -> dict[str, str]:
    """Return the source of the cell that contains each function of a notebook, by key."""
    found = {}
    for task in RUBRIC:
        for cell in notebook_of(task).cells:
            if "solution" in cell.metadata.get("tags", []):
                for node in ast.parse(cell.source).body:
                    if isinstance(node, ast.FunctionDef):
                        found[f"{task}/{node.name}"] = cell.source
    return found


@cache
def module_of(task: str) -> str:
    """Return the source of the reference's module."""
    return (ROOT / "mflib" / f"{RUBRIC[task].module}.py").read_text(encoding="utf-8")


def segment(source: str, name: str) -> tuple[int, int]:
    """Return the first line of a function and the line after its last, counted from 0."""
    node = next(n for n in ast.parse(source).body if getattr(n, "name", "") == name)
    return node.lineno - 1, node.end_lineno or node.lineno


def with_function(key: str, code: str) -> str:
    """Return the module, or the cell, with ``code`` in place of a function."""
    task, name = function_of(key)
    if not is_kernel(key):
        return code.strip("\n")
    lines = module_of(task).split("\n")
    first, last = segment(module_of(task), name)
    return "\n".join([*lines[:first], *code.strip("\n").split("\n"), *lines[last:]])


def edited(key: str, right: str, wrong: str) -> str:
    """Return the module, or the cell, with a piece of a function replaced once."""
    task, name = function_of(key)
    source = module_of(task) if is_kernel(key) else answers()[key]
    lines = source.split("\n")
    first, last = segment(source, name)
    text = "\n".join(lines[first:last])
    if right not in text:
        raise ValueError(f"expected {right!r} in {key}, which has changed: bring it up to date")
    return "\n".join([*lines[:first], text.replace(right, wrong, 1), *lines[last:]])


@cache
def function(key: str) -> Callable:
    task, _, name = key.partition("/")
    if name in RUBRIC[task].kernels:
        return getattr(importlib.import_module(f"mflib.{RUBRIC[task].module}"), name)
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
