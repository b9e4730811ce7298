"""The verdict on one function: its correct outputs, or the reason for having none."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from grading.outcomes import Failure, FailureKind
from grading.rubric import OUTPUTS
from grading.schema import Bounds

Seed = Annotated[int, Bounds(2**63)]  # a valid seed of torch's generators
FACTORS = ("P", "Q", "X")


class ModelFit(StrEnum):
    """Whether a short fit with a kernel gives the same model as with the reference's kernel."""

    NOT_TRIED = "not tried"
    AGREES = "agrees"
    DIFFERS = "differs"
    FAILED = "failed"


@dataclass
class Verdict:
    """The result for one function."""

    key: str
    # by wrong output: the message
    wrong: Annotated[dict[str, Annotated[str, Bounds(2_000)]], Bounds(100)] = field(
        default_factory=dict
    )
    # by wrong output: seed and number of the first failing call
    failing: Annotated[dict[str, Annotated[list[Seed], Bounds(2)]], Bounds(100)] = field(
        default_factory=dict
    )
    failure: Failure | None = None  # why there are no outputs
    remark: str = ""  # a comment that costs no points
    where: str = ""  # "svd.py, line 26" or "cell exercise-1, line 2"
    model: ModelFit = ModelFit.NOT_TRIED
    model_message: str = ""  # the reason for having no model
    # the reference's functions that replaced wrong ones of the student
    helpers: Annotated[list[Annotated[str, Bounds(100)]], Bounds(10)] = field(default_factory=list)
    n_wrong_kernels: Annotated[int, Bounds(100)] = 0  # the wrong kernels on which a step check ran

    @property
    def name(self) -> str:
        return self.key.partition("/")[2]

    @property
    def is_right(self) -> bool:
        return self.failure is None and not self.wrong

    @property
    def is_attempted(self) -> bool:
        return self.failure is None or self.failure.kind is not FailureKind.NOT_ATTEMPTED

    @property
    def fraction(self) -> float:
        """The fraction of correct outputs."""
        outputs = self.n_wrong_kernels or len(OUTPUTS[self.key].names) or 1
        return 0.0 if self.failure else 1 - len(self.wrong) / outputs

    @property
    def factors_fraction(self) -> float:
        """The fraction of correct factors (P, Q or X), from which lists are computed."""
        factors = [name for name in OUTPUTS[self.key].changed if name in FACTORS]
        right = [name for name in factors if name not in self.wrong]
        return 0.0 if self.failure else len(right) / len(factors)

    @property
    def makes_right_lists(self) -> bool:
        """Whether this kernel leads to the reference's lists.

        That is so if every output that stays in the model is correct on hidden inputs and a fit on
        generated ratings agrees with the reference's.
        """
        in_model = self.wrong.keys().isdisjoint(OUTPUTS[self.key].changed)
        return self.failure is None and in_model and self.model is ModelFit.AGREES

    @property
    def sentences(self) -> list[str]:
        """Messages for the student, one for each wrong output."""
        place = f" ({self.where})" if self.where else ""
        with_helpers = f" with the reference's {', '.join(self.helpers)}" if self.helpers else ""
        if not self.is_attempted:
            return [f"{self.name}: {self.failure}"]
        if self.failure:
            return [f"{self.name}{place}: {self.failure}{with_helpers}"]
        if not self.wrong:
            return ["; ".join(filter(None, (f"{self.name}: done{with_helpers}", self.remark)))]
        if n := self.n_wrong_kernels:
            accepted = "; ".join(self.wrong.values())
            return [
                f"{self.name}{place}: accepts {len(self.wrong)} of {n} wrong kernels: {accepted}"
            ]
        lines = [f"{self.name}{place}: {why}{with_helpers}" for why in self.wrong.values()]
        right = [name for name in OUTPUTS[self.key].names if name not in self.wrong]
        return lines + ([f"{self.name}: right: {', '.join(right)}"] if right else [])

    @property
    def sentence(self) -> str:
        """``sentences`` in one line."""
        return "; ".join(self.sentences)
