"""Evaluate students' step checks by the versions of a kernel that they reject."""

from typing import NamedTuple

from grading.checks.verdict import Verdict
from grading.kernels.versions import Version
from grading.outcomes import NOT_ATTEMPTED, Failure, FailureKind


class Try(NamedTuple):
    """The result of a check on a version of the kernel; no failure means that it accepts it."""

    version: Version
    failure: Failure | None
    where: str  # the student's line

    @property
    def decides(self) -> bool:
        """Whether this result decides the verdict: rejecting a correct kernel earns no marks.

        On a wrong kernel, only a failure that ends the check's process decides.
        """
        if self.failure is None or self.version.is_right:
            return self.failure is not None
        return self.failure.kind.ends_check


def judge_check(key: str, tries: list[Try]) -> Verdict:
    """Return the verdict on a check, in proportion to the wrong kernels that it rejects."""
    tries = sorted(tries, key=lambda t: (not t.version.is_right, t.version.name))
    where = next((t.where for t in tries if t.where), "")
    for one in tries:
        if one.decides:
            return Verdict(key, failure=_failure(one), where=one.where or where)
    wrong = [t for t in tries if not t.version.is_right]
    missed = {t.version.name: text for t in wrong if (text := _missed(t))}
    verdict = Verdict(key, missed, where=where, n_wrong_kernels=len(wrong))
    verdict.remark = "" if missed else f"refuses all {len(wrong)} wrong kernels"
    return verdict


def _failure(one: Try) -> Failure:
    assert one.failure is not None, one
    kind, message = one.failure.kind, one.failure.message
    if kind is FailureKind.NOT_ATTEMPTED:
        return NOT_ATTEMPTED
    if kind is FailureKind.REFUSED:
        return Failure(kind, f"refuses a right kernel ({one.version.name}): {message}")
    right = "right" if one.version.is_right else "wrong"
    return Failure(kind, f"on a {right} kernel ({one.version.name}): {message}")


def _missed(one: Try) -> str:
    """Return the name of a wrong kernel that was not rejected, otherwise an empty text."""
    if one.failure is None:
        return one.version.name
    if one.failure.kind is FailureKind.REFUSED:
        return ""
    return f"{one.version.name} (no AssertionError; the check {one.failure.message:.100})"
