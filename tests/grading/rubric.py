"""The functions that students write, by task, and the points for each part of a task."""

import tomllib
from pathlib import Path
from typing import Any

RUBRIC: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("rubric.toml").read_text(encoding="utf-8")
)
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
    return name in RUBRIC[task]["functions"]
