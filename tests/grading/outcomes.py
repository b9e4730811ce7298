"""How running a student's function, or a whole notebook, can fail: values, not sentences.

Code decides by ``FailureKind``. Messages are for people: they quote what students wrote, so nothing
may be concluded from their text.
"""

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """Why there is no result."""

    NOT_ATTEMPTED = "not attempted"
    NOT_SUBMITTED = "not submitted"  # its file or cell is missing or unreadable
    UNTRIED = "untried"  # a check whose kernel is not right yet
    RAISED = "raised"  # an exception, a syntax error, no function of this name
    REFUSED = "refused"  # by a check: it has refused a version of a kernel
    CPU_TIME = "CPU time"  # more than its limit
    WALL_TIME = "wall time"  # a limit that load on the machine may cause, too
    WAITED = "waited"  # hardly used the CPU although it could have: load is not the cause
    SPACE = "space"  # too much memory, too many bytes or files on disk
    CRASHED = "crashed"  # its process ended before there was a result
    UNREADABLE = "unreadable"  # what it left in place of results

    @property
    def ends_process(self) -> bool:
        """Whether a process that runs the same code again would end, too, or never end."""
        return self in (self.CPU_TIME, self.WALL_TIME, self.WAITED, self.SPACE, self.CRASHED)

    @property
    def ends_check(self) -> bool:
        """Whether a check that ends like this on any version of a kernel earns nothing."""
        return self not in (self.REFUSED, self.RAISED)


@dataclass(frozen=True)
class Failure:
    """A kind of failure and the message for the student."""

    kind: FailureKind
    message: str

    def __str__(self) -> str:
        return self.message


NOT_ATTEMPTED = Failure(FailureKind.NOT_ATTEMPTED, "not attempted")


@dataclass(frozen=True)
class UnitLine:
    """One line of results.jsonl, which the harness writes inside the sandbox.

    Students' code can write such lines, too. They are decoded with their types and bounds.
    """

    unit: int
    kind: FailureKind | None = None
    message: str = ""
    where: str = ""  # the student's line, as "svd.py, line 26"
    remark: str = ""  # what failed without preventing a result
