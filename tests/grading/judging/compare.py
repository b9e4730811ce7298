"""Compare the arrays of a student's function with the reference's, and describe the faults.

This runs outside the sandbox. All outputs have the same weight, so a step with wrong losses still
earns the points for its factors.
"""

import itertools
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from grading.execution.inputs import Observed, as_array, calls
from grading.judging.verdict import Verdict
from grading.rubric import OUTPUTS, RUBRIC, function_of

EXACT = 1e-8  # relative error that another order of summation can cause
FLOAT32 = 2e-5  # the same for computing in float32
TRAINED = 1e-3  # the same for a short fit
MISSING = "nothing was returned"
NUMBERS = "biuf"  # kinds of dtype: bool, int, unsigned, float


class Fault(StrEnum):
    """Recognisable faults of an in-place update."""

    SIGN = "the step has the opposite direction: check the sign"
    PENALTY = "the difference is proportional to it: check the penalty"
    RATE = "each row moves in the right direction, but some by a wrong length: check the rate"
    DUPLICATES = "keeps only one update per repeated row; use index_add_ or a sparse product"
    REPEATED = "rows that occur once in the batch are right, repeated ones wrong: sum their updates"


class Step(NamedTuple):
    """An array updated in place: the student's result, the array before, the reference's result."""

    received: np.ndarray
    before: np.ndarray
    expected: np.ndarray


def judge(
    key: str, received: Mapping[str, np.ndarray], expected: Mapping[str, Observed], where: str = ""
) -> Verdict:
    """Compare all outputs of a function.

    Parameters
    ----------
    key : str
        The function, such as "svd/svd_step".
    received, expected : mapping
        The student's arrays and the reference's outputs, by "seed/call/output".
    where : str
        The student's line where the function begins.
    """
    verdict, outputs = Verdict(key, where=where), OUTPUTS[key]
    worst = 0.0
    for n, name in enumerate(outputs.names):
        places = [place for place in expected if place.endswith(f"/{n}")]
        for place in places:
            array, reference = received.get(place), expected[place]
            why = MISSING if array is None else describe(array, reference, outputs.choices)
            if why is not None:
                hint = hint_for(key, name, received, expected)
                verdict.wrong[name] = f"in {name} {why}{hint}"
                verdict.failing[name] = [int(part) for part in place.split("/")[:2]]
                break
            if array is not None and not outputs.choices:
                worst = max(worst, relative_error(array, reference.after))
    if worst > EXACT and not verdict.wrong:
        verdict.remark = f"too imprecise for float64 ({worst:.0e}): float32?"
    return verdict


def describe(array: np.ndarray, reference: Observed, choices: tuple[str, ...]) -> str | None:
    """Return a message that continues "in P …", or None if the array is correct."""
    expected, before = reference.after, reference.before
    if choices:
        answer = str(array).strip().lower()
        wanted = f"expected one of {', '.join(choices)}"
        return None if answer in choices else f"{wanted}, got {answer!r:.60}"
    if array.dtype.kind not in NUMBERS:
        content = f"{str(array)!r:.60}" if array.dtype.kind == "U" else array.dtype
        return f"expected numbers, got {content}"
    if array.size == expected.size == 1:
        array, expected = array.reshape(()), expected.reshape(())
    if array.shape != expected.shape:
        return f"expected the shape {expected.shape}, got {array.shape}"
    unchanged = before is not None and np.array_equal(array, before)
    if unchanged and relative_error(array, expected) > 0:
        return "nothing changed: it must be updated in place"
    if not np.isfinite(array).all():
        place = _first(~np.isfinite(array))
        cause = ": is 0 divided by 0 there?" if np.isnan(array[place]) else ""
        return f"expected {expected[place]:.6g} at {place}, got {array[place]}{cause}"
    differs = _differs(array, expected)
    if not differs.any():
        return None
    if _is_half(array) and not _is_half(expected):
        error = relative_error(array, expected)
        return f"the numbers are too imprecise ({error:.0e}): half precision?"
    place = _first(differs)
    right, wrong = distinguishable(expected[place], array[place])
    at = f" at {place}" if place else ""
    many = f"; {differs.mean():.0%} of the numbers differ" if differs.size > 1 else ""
    return f"expected {right}{at}, got {wrong}{many}"


def is_close(array: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether a short fit has learned the same array as with the reference."""
    if array.dtype.kind not in NUMBERS or array.shape != expected.shape:
        return False
    scale = np.abs(expected).max(initial=0)
    return bool(np.isfinite(array).all()) and np.allclose(
        array, expected, rtol=0, atol=TRAINED * scale + 1e-12
    )


def _first(condition: np.ndarray) -> tuple[int, ...]:
    """Return the first index at which a condition holds."""
    return tuple(int(i) for i in np.argwhere(condition)[0])


def _is_half(numbers: np.ndarray) -> bool:
    """Return whether all numbers fit float16 or bfloat16 and some are not integers."""
    if numbers.dtype.kind != "f" or numbers.size < 8 or (numbers == numbers.round()).all():
        return False
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(numbers, np.float32)
        is_float16 = bool((single.astype(np.float16) == numbers).all())
    is_bfloat16 = (single == numbers).all() and not (single.view(np.uint32) & 0xFFFF).any()
    return is_float16 or bool(is_bfloat16)


def _differs(array: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return where two arrays of finite numbers differ by more than float32 rounding."""
    if expected.dtype.kind in "biu":
        return array != expected
    scale = np.abs(expected).max(initial=0)
    return np.abs(array - expected) > FLOAT32 * (np.abs(expected) + scale)


def relative_error(array: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest number."""
    if expected.dtype.kind in "biu" or not expected.size:
        return 0.0
    array = array.reshape(expected.shape) if array.size == expected.size == 1 else array
    scale = max(float(np.abs(expected).max()), np.finfo(float).tiny)
    return float(np.abs(array - expected).max()) / scale


def distinguishable(a: float, b: float) -> tuple[str, str]:
    """Format two numbers with enough digits to tell them apart."""
    for digits in range(4, 18):
        one, other = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if one != other:
            break
    return one, other


def hint_for(
    key: str, name: str, received: Mapping[str, np.ndarray], expected: Mapping[str, Observed]
) -> str:
    """Return the recognised fault of an output and the hint for it, or an empty text.

    Parameters
    ----------
    key, name : str
        The function and the output.
    received, expected : mapping
        See ``judge``.
    """
    fault = _fault(key, name, received, expected)
    if fault is Fault.DUPLICATES:
        return f" ({fault.replace('row', 'user' if name == 'P' else 'item')})"
    if fault in (Fault.SIGN, Fault.PENALTY):
        return f" ({fault})"
    task, function = function_of(key)
    hint = RUBRIC[task].hints.get(function, {}).get(name)
    hint = hint or RUBRIC[task].kernels.get(function, "")
    return (f" ({fault})" if fault else "") + (f" (hint: {hint})" if hint else "")


def _fault(
    key: str, name: str, received: Mapping[str, np.ndarray], expected: Mapping[str, Observed]
) -> Fault | None:
    """Return the fault that explains the arrays of all calls, if there is one."""
    ending = f"/{OUTPUTS[key].names.index(name)}"
    places = [place for place in expected if place.endswith(ending)]
    steps = [
        Step(received[place], before, expected[place].after)
        for place in places
        if (before := expected[place].before) is not None
        and place in received
        and _is_comparable(received[place], expected[place])
    ]
    unchanged = all(np.array_equal(step.received, step.before) for step in steps)
    if not steps or len(steps) < len(places) or unchanged:
        return None
    moves = [(step.received - step.before, step.expected - step.before) for step in steps]
    if all(np.allclose(move, -expected) for move, expected in moves):
        return Fault.SIGN
    if all(_rows_proportional(step.received - step.expected, step.before) for step in steps):
        return Fault.PENALTY
    batches = [updates_of(key, place, expected).get(name, []) for place in places]
    for lost in ((0,), (1,), (0, 1)):  # updates of liked items, other items, or both; users: 0
        if all(len(batch) > lost[-1] for batch in batches):
            single = [_single_updates(*pair, lost) for pair in zip(steps, batches, strict=True)]
            if all(map(all, single)) and any(single):
                return Fault.DUPLICATES
    if all(_rows_proportional(move - expected, expected) for move, expected in moves):
        return Fault.RATE
    repeated = map(_are_repeated_rows, places, steps, batches)
    return Fault.REPEATED if all(repeated) else None


class Updates(NamedTuple):
    """Updates of a batch: for each, the row and, for factors, the vector added to it."""

    rows: np.ndarray
    vectors: np.ndarray | None = None


def updates_of(key: str, place: str, expected: Mapping[str, Observed]) -> dict[str, list[Updates]]:
    """Return the updates of a batch by output; an empty dict for functions without a batch.

    Updates of items as the liked item and as the other item are separate.
    """
    seed, call, _ = place.split("/")
    arguments = calls(key, int(seed))[int(call)]
    P, Q = (as_array(W) for W in arguments[:2])
    if key == "svd/svd_step":
        users, i = (as_array(ids) for ids in (arguments[5].rows, arguments[5].columns))
        biases = {"b_u": [Updates(users)], "b_i": [Updates(i)]}
        return biases | {"P": [Updates(users, Q[i])], "Q": [Updates(i, P[users])]}
    if key == "bpr/bpr_step":
        ids = (arguments[3].rows, arguments[3].columns, arguments[4])
        users, i, j = (as_array(each) for each in ids)
    elif key == "warp/warp_step":
        block, rows, positives, draws = (as_array(arguments[n]) for n in (2, 4, 5, 6))
        needed = expected[f"{seed}/{call}/{OUTPUTS[key].names.index('the draws needed')}"].after
        found = np.flatnonzero(needed)
        users, i, j = block[rows[found]], positives[found], draws[needed[found] - 1, found]
    else:
        return {}
    items = [Updates(i, P[users]), Updates(j, P[users])]
    biases = {"b": [Updates(i), Updates(j)]}
    return biases | {"P": [Updates(users, Q[i] - Q[j])], "Q": items}


def _are_repeated_rows(place: str, step: Step, updates: list[Updates]) -> bool:
    """Return whether all wrong rows are repeated in the batch and, in the first call, vice versa.

    In a second call, updates may be 0.
    """
    count = sum(_counts(step, each) for each in updates)
    wrong, several = _wrong_rows(step), np.flatnonzero(count > 1)
    is_first = place.split("/")[1] == "0"
    return (
        bool(updates)
        and set(wrong) <= set(several)
        and (not is_first or len(wrong) == len(several))
    )


def _counts(step: Step, updates: Updates) -> np.ndarray:
    return np.bincount(updates.rows, minlength=len(step.before))


def _wrong_rows(step: Step) -> np.ndarray:
    differs = _differs(step.received, step.expected)
    return np.flatnonzero(differs.reshape(len(differs), -1).any(1))


def _single_updates(step: Step, updates: list[Updates], lost: tuple[int, ...]) -> list[bool]:
    """Return, for each wrong row, whether its move is explained by a single update of each kind.

    The penalty also moves a row along itself. Rows that are too short to tell, or that have several
    updates of a kind that is not in ``lost``, are left out.

    Parameters
    ----------
    step : Step
    updates : list of Updates
        The kinds of updates.
    lost : tuple of int
        The kinds whose repeated updates may be lost.
    """
    found = []
    counts = [_counts(step, each) for each in updates]
    for row in _wrong_rows(step):
        if max(counts[kind][row] for kind in lost) < 2:
            return [False]
        several = [kind for kind, count in enumerate(counts) if count[row] > 1]
        vectors = [u.vectors[u.rows == row] for u in updates if u.vectors is not None]
        vectors = [each for each in vectors if len(each)]
        if set(several) <= set(lost) and vectors and step.before.shape[1] > len(vectors) + 1:
            move, own = step.received[row] - step.before[row], step.before[row]
            chosen = (np.column_stack([own, *each]) for each in itertools.product(*vectors))
            found.append(any(_is_spanned(move, basis) for basis in chosen))
    return found


def _is_spanned(vector: np.ndarray, basis: np.ndarray) -> bool:
    rest = vector - basis @ np.linalg.lstsq(basis, vector, rcond=None)[0]
    return float(np.abs(rest).max()) <= 1e-6 * float(np.abs(vector).max())


def _is_comparable(array: np.ndarray, reference: Observed) -> bool:
    same = array.shape == reference.after.shape and array.dtype.kind in NUMBERS
    return same and bool(np.isfinite(array).all())


def _rows_proportional(difference: np.ndarray, factors: np.ndarray) -> bool:
    """Return whether each row of a difference is a multiple of the same row of ``factors``."""
    difference, factors = (np.atleast_2d(W.T).T for W in (difference, factors))
    if difference.shape[1] == 1:  # a single number is a multiple of any other
        return False
    size = (factors**2).sum(1, keepdims=True)
    along = (difference * factors).sum(1, keepdims=True) / np.maximum(size, 1e-300) * factors
    return bool(np.allclose(difference, along, rtol=1e-6, atol=1e-9))
