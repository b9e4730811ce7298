"""Collect a student's code and the inputs on which it failed, to answer complaints.

The inputs are hidden, so only the instructor's page shows them. They are not stored, but computed
again from the seed of a failing case.
"""

import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from grading.execution.inputs import as_array, calls
from grading.execution.reference import function
from grading.judging.verdict import Verdict
from grading.result import Score
from grading.rubric import OUTPUTS, RUBRIC, function_of, is_kernel
from mflib.sparse import Entries

MOST = 3_000  # characters of one argument


@dataclass(frozen=True)
class Case:
    """A call that failed."""

    what: str  # the wrong outputs
    seed: int
    call: int
    arguments: dict[str, str]  # by name


@dataclass(frozen=True)
class Complaint:
    """A function with wrong or missing outputs."""

    verdict: Verdict
    code: str  # the answer with the function; empty if an earlier complaint shows it
    cases: list[Case]


def complaints(score: Score) -> list[Complaint]:
    """Return the attempted functions that are not correct."""
    found, shown = [], set[str]()
    for verdict in score.functions.values():
        if verdict.is_attempted and not verdict.is_right:
            answer = answer_key(verdict.key)
            code = "" if answer in shown else score.answers.get(answer, "")
            found.append(Complaint(verdict, code, cases(verdict, score)))
            shown.add(answer)
    return found


def answer_key(key: str) -> str:
    """Return the key of the answer that contains a function: a module or cells."""
    task, _ = function_of(key)
    return f"{task}/{RUBRIC[task].module}.py" if is_kernel(key) else key


def cases(verdict: Verdict, score: Score) -> list[Case]:
    """Return the first failing call of each wrong output, or the first call if no output exists.

    Outputs that fail in the same call share a case.
    """
    outputs: dict[tuple[int, int], list[str]] = {}
    for name, (seed, call) in verdict.failing.items():
        outputs.setdefault((seed, call), []).append(name)
    if verdict.failure and score.seeds and not OUTPUTS[verdict.key].kernel:
        outputs[score.seeds[0], 0] = ["no output"]
    found = []
    for (seed, call), names in outputs.items():
        made = calls(verdict.key, seed)
        if call < len(made):
            arguments = dict(_arguments(verdict.key, made[call]))
            found.append(Case(", ".join(names), seed, call, arguments))
    return found


def _arguments(key: str, values: list) -> Iterator[tuple[str, str]]:
    for name, value in zip(inspect.signature(function(key)).parameters, values, strict=False):
        text = as_text(value)
        yield name, text if len(text) <= MOST else f"{text[:MOST]} …"


def as_text(value: object) -> str:
    """Return an argument with all digits, so that an instructor can repeat the call."""
    if isinstance(value, Entries):
        return f"rows {as_text(value.rows)}\ncolumns {as_text(value.columns)}"
    if isinstance(value, torch.Tensor | np.ndarray) or sp.issparse(value):
        with np.printoptions(threshold=10_000, floatmode="unique", precision=17, linewidth=100):
            return str(as_array(value))  # dense
    if isinstance(value, functools.partial):
        return f"a function that has {as_text(value.args)}"
    if isinstance(value, list | tuple):
        return "\n".join(as_text(part) for part in value)
    return "a function" if callable(value) else str(value)
