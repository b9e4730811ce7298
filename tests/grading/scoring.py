"""Turn verdicts, lists and executed notebooks into points and reasons.

This module executes no untrusted code; pipeline.py does.
"""

from collections.abc import Mapping

from grading.execution.trial import UnitResult
from grading.intake.submission import Problem
from grading.judging.recommendations import (
    LIST_PARTS,
    QualityRange,
    hidden_split,
    judge_lists,
)
from grading.judging.reproducibility import Comparison
from grading.judging.verdict import FACTORS, Verdict
from grading.outcomes import FailureKind
from grading.result import Score
from grading.rubric import OUTPUTS, POINTS, RUBRIC, is_kernel

Verdicts = Mapping[str, Verdict]


def empty_score() -> Score:
    """Return a score of 0 points for each part of each task."""
    return Score(
        marks={task: dict.fromkeys(POINTS, 0.0) for task in RUBRIC},
        reasons={task: [] for task in RUBRIC},
    )


def score_functions(
    verdicts: Verdicts, problems: Mapping[str, list[Problem]], score: Score
) -> None:
    """Give points for kernels, loops and exercises; all outputs have the same weight."""
    for task in RUBRIC:
        of_task = [verdict for key, verdict in verdicts.items() if key.startswith(f"{task}/")]
        for part, kernels in (("correctness", True), ("loop and exercises", False)):
            in_part = [v for v in of_task if is_kernel(v.key) == kernels]
            fraction = sum(verdict.fraction for verdict in in_part) / len(in_part)
            score.marks[task][part] = POINTS[part] * fraction
        # wrong outputs, then failures, then functions that were not attempted
        failing = [verdict for verdict in of_task if not verdict.is_right]
        failing.sort(key=lambda verdict: (not verdict.is_attempted, verdict.fraction == 0))
        remarks = [v for v in of_task if v.is_right and (v.remark or v.helpers)]
        explained = {verdict.failure.message for verdict in failing if verdict.failure}
        score.reasons[task] = [
            *(str(p) for p in problems.get(task, []) if p.message not in explained),
            *(line for verdict in [*failing, *remarks] for line in verdict.sentences),
        ]
    score.functions = dict(verdicts)
    score.wall_time = any(
        verdict.failure is not None and verdict.failure.kind is FailureKind.WALL_TIME
        for verdict in verdicts.values()
    )


def best_kernel(task: str, verdicts: Verdicts) -> Verdict:
    """Return the verdict on the best of the functions that can fit the model."""
    mine = [verdicts[f"{task}/{name}"] for name in RUBRIC[task].lists]
    return max(mine, key=lambda verdict: (verdict.makes_right_lists, verdict.factors_fraction))


def award_right_lists(verdicts: Verdicts, score: Score) -> None:
    """Give the points of lists that need no measurement, or the reason why there are none.

    A kernel that ``makes_right_lists`` has the reference's lists: it gets all points without
    fitting a model. Nothing is lost by this: the kernel is correct on hidden inputs, and a fault
    that appears only in a whole model, such as a tensor that is too small, appears in the short
    fit. A kernel without correct factors (P, Q or X) gets no points: they would only reward losses
    or biases.
    """
    for task in RUBRIC:
        verdict = best_kernel(task, verdicts)
        if verdict.makes_right_lists:
            score.marks[task] |= {part: float(POINTS[part]) for part in LIST_PARTS}
        elif verdict.fraction and not verdict.factors_fraction:
            what = f"recommendations and similar movies need right factors ({factors_of(verdict)})"
            score.reasons[task].append(f"{what}, which {verdict.name} changes")


def kernels_to_fit(verdicts: Verdicts) -> dict[str, Verdict]:
    """Return, by task, the kernel whose lists are to be measured; see ``award_right_lists``."""
    best = {task: best_kernel(task, verdicts) for task in RUBRIC}
    return {
        task: verdict
        for task, verdict in best.items()
        if verdict.factors_fraction and not verdict.makes_right_lists
    }


def factors_of(verdict: Verdict) -> str:
    return ", ".join(name for name in OUTPUTS[verdict.key].changed if name in FACTORS)


def score_lists(
    verdict: Verdict,
    result: UnitResult,
    dataset: str,
    secret: int,
    between: QualityRange,
    score: Score,
) -> None:
    """Give points for recommendations and similar movies, in proportion to the correct factors.

    Parameters
    ----------
    verdict : Verdict
        The verdict on the kernel that fitted the model.
    result : UnitResult
        The lists.
    dataset, secret : str, int
        They determine the held-out data.
    between : QualityRange
        The quality for no points and the quality for all points.
    score : Score
        Points and reasons are added to it.
    """
    task = verdict.key.partition("/")[0]
    if result.failure:
        score.wall_time |= result.failure.kind is FailureKind.WALL_TIME
        place = f" ({result.where})" if result.where else ""
        score.reasons[task].append(f"recommendations: {result.failure}{place}")
        return
    try:
        qualities, reasons = judge_lists(
            task, hidden_split(dataset, secret), result.arrays, between
        )
    except Exception as error:  # untrusted code may have returned any arrays
        score.reasons[task].append(f"recommendations: {error or type(error).__name__}")
        return
    fraction = verdict.factors_fraction
    for part in LIST_PARTS:
        score.marks[task][part] = POINTS[part] * qualities[part] * fraction
    score.reasons[task] += reasons
    if fraction < 1:
        score.reasons[task].append(
            f"recommendations and similar movies count {fraction:.0%}, "
            f"the correct fraction of the factors ({factors_of(verdict)})"
        )


def is_determined(task: str, verdicts: Verdicts, score: Score) -> bool:
    """Return whether a notebook must have the known outputs.

    That is the case if its answers, kernels and lists are correct.
    """
    own = [verdict for key, verdict in verdicts.items() if key.startswith(f"{task}/")]
    lists = all(score.marks[task][part] == POINTS[part] for part in LIST_PARTS)
    return lists and all(verdict.is_right for verdict in own)


def kernel_fraction(task: str, verdicts: Verdicts) -> float:
    """Return the mean fraction of correct outputs of a task's kernels."""
    names = RUBRIC[task].kernels
    return sum(verdicts[f"{task}/{name}"].fraction for name in names) / len(names)


def score_reproducibility(
    task: str, comparison: Comparison, verdicts: Verdicts, score: Score
) -> None:
    """Give points for reproduced cells, limited by the correct fraction of the kernels' outputs.

    An answer can manipulate later cells, in the submission and here alike. The limit keeps such
    cells from earning more than the kernels do.
    """
    same, n_cells = comparison.n_reproduced, comparison.n_cells
    part, most = "reproducibility", kernel_fraction(task, verdicts)
    score.changes[task] = comparison.differences
    score.marks[task][part] = POINTS[part] * most * same / max(n_cells, 1)
    if most < 1:
        what = f"counts {most:.0%}, the correct fraction of the kernels' outputs"
        score.reasons[task].append(f"{part} {what}")
    if comparison.differences:
        what = f"{same} of {n_cells} cells have the outputs produced here"
        score.reasons[task].append(f"{part}: {what}")
