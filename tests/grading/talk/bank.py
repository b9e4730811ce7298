"""The bank of questions, bank.toml, as values."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Finder(StrEnum):
    """How a line of a function is found."""

    USES = "uses"  # reads a parameter
    CHANGES = "changes"  # changes a parameter in place
    SQUARES = "squares"  # multiplies a parameter by itself
    CALLS = "calls"  # calls a function of one of these names
    DIVIDES = "divides"  # divides and rounds down
    LOOPS = "loops"  # a loop over the entries
    REPEATS = "repeats"  # adds to indexed rows, where repeated indices lose all but one addition


@dataclass(frozen=True)
class LineQuestion:
    """A question about a line of a function."""

    find: Finder
    # by function, as "svd/svd_step": parameters as the reference calls them, or names of functions
    functions: Mapping[str, list[str]]
    question: str
    answer: str
    look: str
    mistake: bool = False  # the line is one, so this question comes first


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

    lines: Mapping[str, LineQuestion]  # by a name that reports keep
    on_paper: str  # the question where no line was found; the answer is that of TASK-penalty
    outputs: Mapping[str, OutputQuestion]  # by task, and where no recommendations are shown
    variations: list[Variation]


def _read(raw: dict[str, Any]) -> Bank:
    lines = {
        name: LineQuestion(**{**entry, "find": Finder(entry["find"])})
        for name, entry in raw["line"].items()
    }
    outputs = {task: OutputQuestion(**entry) for task, entry in raw["output"].items()}
    return Bank(lines, raw["on_paper"], outputs, [Variation(**entry) for entry in raw["variation"]])


BANK = _read(tomllib.loads(Path(__file__).with_name("bank.toml").read_text(encoding="utf-8")))
