"""The functions that students write, what they return, and the points for each part of a task.

Every exercise must be in ``OUTPUTS`` to be marked; a test checks this.
"""

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


@dataclass(frozen=True)
class Outputs:
    """The outputs of a function: arguments changed in place, by position, and results.

    ``choices``: the only admitted values of a prediction, of which none is wrong. ``kernel``: the
    function is a check of this kernel; it is called with versions of it and has no outputs.
    """

    changed: dict[str, int] = field(default_factory=dict)
    returned: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    kernel: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.changed, *self.returned)


RUBRIC = {
    name: Task(**table)
    for name, table in tomllib.loads(
        Path(__file__).with_name("rubric.toml").read_text(encoding="utf-8")
    ).items()
}
# By task and function.
OUTPUTS = {
    "svd/svd_step": Outputs({"P": 0, "Q": 1, "b_u": 2, "b_i": 3}, ("the losses",)),
    "svd/textbook": Outputs({"P": 0, "Q": 1, "b_u": 2, "b_i": 3}),
    "als/over_entries": Outputs({}, ("the sum",)),
    "als/conjugate_gradient": Outputs({"X": 0}),
    "als/cholesky": Outputs({"X": 0}),
    "als/textbook": Outputs({"X": 0}),
    "bpr/bpr_step": Outputs({"P": 0, "Q": 1, "b": 2}, ("the losses",)),
    "bpr/textbook": Outputs({"P": 0, "Q": 1, "b": 2}),
    "warp/first_violations": Outputs({}, ("the draws needed",)),
    "warp/warp_step": Outputs({"P": 0, "Q": 1}, ("the losses", "the draws needed")),
    "warp/textbook": Outputs({"P": 0, "Q": 1}),
    "svd/prediction": Outputs({}, ("the choice",), choices=("a", "b", "c")),
    "svd/new_user": Outputs({}, ("the bias", "the vector")),
    "svd/check_step": Outputs(kernel="svd_step"),
    "als/prediction": Outputs({}, ("the choice",), choices=("a", "b", "c", "d")),
    "als/smallest_penalty": Outputs({}, ("the penalty",)),
    "als/check_step": Outputs(kernel="cholesky"),
    "bpr/prediction": Outputs({}, ("the choice",), choices=("a", "b", "c")),
    "bpr/chosen": Outputs({}, ("the probability",)),
    "bpr/check_step": Outputs(kernel="bpr_step"),
    "warp/prediction": Outputs({}, ("the choice",), choices=("a", "b", "c")),
    "warp/check_step": Outputs(kernel="warp_step"),
    "warp/average_weight": Outputs({}, ("the average",)),
}
# All but the checks of kernels, which are called with kernels, not with generated inputs.
CALLED = tuple(key for key, outputs in OUTPUTS.items() if not outputs.kernel)
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
