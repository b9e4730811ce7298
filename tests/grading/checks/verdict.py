"""The verdict on one function: which outputs are right, or why there are none."""

from dataclasses import dataclass, field
from typing import Annotated

from grading.execution.inputs import OUTPUTS
from grading.outcomes import Failure, FailureKind
from grading.schema import Bounds


@dataclass
class Verdict:
    """What was found about one function."""

    key: str
    # by output: what is wrong with it
    wrong: Annotated[dict[str, Annotated[str, Bounds(2_000)]], Bounds(100)] = field(
        default_factory=dict
    )
    failure: Failure | None = None  # why there are no outputs
    remark: str = ""  # a comment that costs no points
    where: str = ""  # "svd.py, line 26" or "cell exercise-1, line 2"

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
        """The fraction of the outputs that are right."""
        return 0.0 if self.failure else 1 - len(self.wrong) / len(OUTPUTS[self.key].names)

    @property
    def fraction_in_model(self) -> float:
        """The same, of the outputs that stay in a model: the arguments changed in place."""
        changed = OUTPUTS[self.key].changed
        right = [name for name in changed if name not in self.wrong]
        return 0.0 if self.failure else len(right) / len(changed)

    @property
    def sentence(self) -> str:
        """What to tell the student."""
        place = f" ({self.where})" if self.where else ""
        if not self.is_attempted:
            return f"{self.name}: {self.failure}"
        if self.failure:
            return f"{self.name}{place}: {self.failure}"
        if not self.wrong:
            return f"{self.name}: done" + (f"; {self.remark}" if self.remark else "")
        right = [name for name in OUTPUTS[self.key].names if name not in self.wrong]
        remainder = f" Right: {', '.join(right)}." if right else ""
        return f"{self.name}{place}: {'; '.join(self.wrong.values())}.{remainder}"
