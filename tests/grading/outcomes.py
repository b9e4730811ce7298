"""The ways in which running a student's function or notebook can fail.

Code decides by ``FailureKind``, never by the text of a message: messages are for people, and they
quote students' code.
"""

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """The reasons for a missing result."""

    NOT_ATTEMPTED = "not attempted"
    NOT_SUBMITTED = "not submitted"  # its file or cell is missing or unreadable
    UNTRIED = "untried"  # a step check whose kernel is not correct yet
    RAISED = "raised"  # an exception, a syntax error, no function of this name
    REFUSED = "refused"  # a step check has rejected a version of a kernel by an AssertionError
    KERNEL_RAISED = "kernel raised"  # the kernel has raised an exception in a step check
    CPU_TIME = "CPU time"  # more than its limit
    WALL_TIME = "wall time"  # over the limit, possibly because of load on the machine
    WAITED = "waited"  # idle although a CPU was available: load is not the cause
    SPACE = "space"  # too much memory, too many bytes or files on disk
    CRASHED = "crashed"  # its process ended before there was a result
    UNREADABLE = "unreadable"  # invalid results

    @property
    def ends_process(self) -> bool:
        """Whether running the same code again would end the process, or hang it, again."""
        return self in (self.CPU_TIME, self.WALL_TIME, self.WAITED, self.SPACE, self.CRASHED)

    @property
    def ends_check(self) -> bool:
        """Whether a check that ends like this on any version of a kernel earns nothing."""
        return self not in (self.REFUSED, self.KERNEL_RAISED, self.RAISED)


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

    Students' code can write to this file, too, so decoding checks types and bounds.
    """

    unit: int
    kind: FailureKind | None = None
    message: str = ""
    where: str = ""  # the student's line, such as "svd.py, line 26"
    remark: str = ""  # a problem that did not prevent a result
