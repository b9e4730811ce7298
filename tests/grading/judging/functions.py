"""Judge all functions of a submission: kernels, loops, exercises, short fits, step checks."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from grading.execution.harness import Purpose
from grading.execution.inputs import Observed
from grading.execution.trial import Try, Unit, UnitResult, try_of
from grading.intake.submission import FileKind, Problem
from grading.judging.compare import is_close, judge
from grading.judging.verdict import ModelFit, Verdict
from grading.outcomes import NOT_ATTEMPTED, Failure, FailureKind
from grading.rubric import OUTPUTS, function_of, is_kernel

Expected = Callable[[str], Mapping[str, Observed]]  # key -> the outputs of the reference


def verdicts(
    pairs: Iterable[tuple[Unit, UnitResult]],
    expected: Expected,
    problems: Mapping[str, list[Problem]],
) -> dict[str, Verdict]:
    """Return the verdict on each function of the rubric, with or without a result.

    Parameters
    ----------
    pairs : iterable
        Units with their results, for each kernel its function before its short fit.
    expected : callable
        Returns the outputs of the reference for a key, and for f"{Purpose.SHORT_FIT}/{key}".
    problems : mapping
        By task: what could not be read.
    """
    found: dict[str, Verdict] = {}
    tries: dict[str, list[Try]] = defaultdict(list)
    for unit, result in pairs:
        if unit.version is not None:
            tries[unit.key].append(try_of(unit, result))
            continue
        if unit.purpose is Purpose.SHORT_FIT:
            verdict = found[unit.key]
            verdict.model = judge_fit(result, expected(f"{unit.purpose}/{unit.key}"))
            verdict.model_message = str(result.failure or "")
        elif result.failure:
            found[unit.key] = Verdict(unit.key, failure=result.failure, where=result.where)
        else:
            found[unit.key] = judge(unit.key, result.arrays, expected(unit.key), result.where)
            remarks = (found[unit.key].remark, result.remark)
            found[unit.key].remark = "; ".join(filter(None, remarks))
        found[unit.key].helpers = [name for name, _ in unit.helpers]
    found |= {key: judge_check(key, results) for key, results in tries.items()}
    for key in OUTPUTS:
        if key not in found:
            found[key] = Verdict(key, failure=_why_not_tried(key, problems))
    return found


def judge_fit(result: UnitResult, expected: Mapping[str, Observed]) -> ModelFit:
    """Return whether a short fit agrees with a fit with the reference's kernel."""
    if result.failure or set(result.arrays) != set(expected):
        return ModelFit.FAILED
    same = all(is_close(result.arrays[name], right.after) for name, right in expected.items())
    return ModelFit.AGREES if same else ModelFit.DIFFERS


def _why_not_tried(key: str, problems: Mapping[str, list[Problem]]) -> Failure:
    """Return the problem with the function's cell, or otherwise with its file."""
    task, name = function_of(key)
    kind = FileKind.MODULE if is_kernel(key) else FileKind.NOTEBOOK
    of_task = problems.get(task, [])
    mine = [problem for problem in of_task if problem.function == name]
    mine += [problem for problem in of_task if problem.file is kind and not problem.function]
    return Failure(FailureKind.NOT_SUBMITTED, mine[0].message) if mine else NOT_ATTEMPTED


def judge_check(key: str, tries: list[Try]) -> Verdict:
    """Return the verdict on a check, in proportion to the wrong kernels that it rejects."""
    tries = sorted(tries, key=lambda t: (not t.version.is_right, t.version.name))
    where = next((t.where for t in tries if t.where), "")
    for one in tries:
        if one.decides:
            return Verdict(key, failure=_failure(one), where=one.where or where)
    wrong = [t for t in tries if not t.version.is_right]
    missed = {t.version.name: text for t in wrong if (text := _missed(t)) is not None}
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
    if kind is FailureKind.KERNEL_RAISED:
        what = f"calls a right kernel ({one.version.name}) in a way that makes it raise {message}"
        return Failure(kind, f"{what}; are the arguments as in the docstring?")
    right = "right" if one.version.is_right else "wrong"
    return Failure(kind, f"on a {right} kernel ({one.version.name}): {message}")


def _missed(one: Try) -> str | None:
    """Return the name of a wrong kernel that was not rejected, otherwise None."""
    if one.failure is None:
        return one.version.name
    if one.failure.kind in (FailureKind.REFUSED, FailureKind.KERNEL_RAISED):
        return None
    return f"{one.version.name} (no AssertionError; the check {one.failure.message:.100})"
