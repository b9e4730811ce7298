"""The functions that students write, by task, and the points for each part of a task."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """A table of rubric.toml."""

    notebook: str
    module: str
    kernels: dict[str, str]  # the functions of the module, with hints
    lists: dict[str, dict[str, Any]]  # kernels that can fit the model, with its options
    helpers: dict[str, list[str]] = field(default_factory=dict)  # functions that one calls
    hints: dict[str, dict[str, str]] = field(default_factory=dict)  # by function and output


RUBRIC = {
    name: Task(**table)
    for name, table in tomllib.loads(
        Path(__file__).with_name("rubric.toml").read_text(encoding="utf-8")
    ).items()
}
POINTS = {
    "correctness": 40,
    "loop and exercises": 15,
    "recommendations": 20,
    "similar movies": 15,
    "reproducibility": 10,
}


def function_of(key: str) -> tuple[str, str]:
    """Return task and function of a key such as "svd/svd_step"."""
    task, _, name = key.partition("/")
    return task, name


def is_kernel(key: str) -> bool:
    """Return whether a function belongs to a module; the others are written in notebook cells."""
    task, name = function_of(key)
    return name in RUBRIC[task].kernels
