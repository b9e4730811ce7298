"""Read the bank of questions from bank.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Finder(StrEnum):
    """The criteria for finding a line of a function."""

    USES = "uses"  # reads a parameter
    CHANGES = "changes"  # changes a parameter in place
    SQUARES = "squares"  # multiplies a parameter with itself
    CALLS = "calls"  # calls a function with one of these names
    DIVIDES = "divides"  # uses integer division
    LOOPS = "loops"  # loops over the entries
    REPEATS = "repeats"  # adds to indexed rows, so repeated indices keep only one addition


@dataclass(frozen=True)
class LineQuestion:
    """A question about a line of a function."""

    find: Finder
    # by function, such as "svd/svd_step": the reference's parameter names, or names of functions
    functions: Mapping[str, list[str]]
    question: str
    answer: str
    look: str
    mistake: bool = False  # the line is a mistake, so this question comes first


@dataclass(frozen=True)
class OutputQuestion:
    """A question about a recommended movie; ``{movie}`` and ``{reasons}`` are filled in."""

    question: str
    answer: str
    look: str


@dataclass(frozen=True)
class Variation:
    """A question about another setting of a task."""

    task: str
    question: str
    answer: str
    look: str


@dataclass(frozen=True)
class Bank:
    """All questions."""

    lines: Mapping[str, LineQuestion]  # by the name that reports store
    on_paper: str  # the question if no line was found; TASK-penalty has the answer
    outputs: Mapping[str, OutputQuestion]  # by task, and "none" for no recommendations
    variations: list[Variation]


def _read(raw: dict[str, Any]) -> Bank:
    lines = {
        name: LineQuestion(**{**entry, "find": Finder(entry["find"])})
        for name, entry in raw["line"].items()
    }
    outputs = {task: OutputQuestion(**entry) for task, entry in raw["output"].items()}
    return Bank(lines, raw["on_paper"], outputs, [Variation(**entry) for entry in raw["variation"]])


BANK = _read(tomllib.loads(Path(__file__).with_name("bank.toml").read_text(encoding="utf-8")))
