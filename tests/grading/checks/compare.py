"""Compare the arrays of a student's function with those of the reference, and describe the faults.

This happens outside the sandbox. Each output counts alike, so a step with wrong losses still earns
the points of its factors.
"""

from collections.abc import Mapping

import numpy as np

from grading.checks.verdict import Verdict
from grading.execution.inputs import OUTPUTS, Observed
from grading.rubric import RUBRIC

EXACT = 1e-8  # relative: what another order of summation may change
FLOAT32 = 2e-5  # what computing in float32 may change
MISSING = "nothing came; expected it to be returned"


def judge(
    key: str, got: Mapping[str, np.ndarray], expected: Mapping[str, Observed], where: str = ""
) -> Verdict:
    """Compare all outputs of a function; both mappings are by "seed/call/output"."""
    verdict, wanted = Verdict(key, where=where), OUTPUTS[key]
    worst = 0.0
    for n, name in enumerate(wanted.names):
        places = [place for place in expected if place.endswith(f"/{n}")]
        for place in places:
            mine, right = got.get(place), expected[place]
            why = MISSING if mine is None else _wrong(mine, right, wanted.choices)
            if why:
                verdict.wrong[name] = f"in {name} {why}" + _hint(key, name, got, expected, places)
                break
            if mine is not None and not wanted.choices:
                worst = max(worst, _error(mine, right.after))
    if worst > EXACT and not verdict.wrong:
        verdict.remark = f"too imprecise for float64 ({worst:.0e}): float32?"
    return verdict


def _wrong(mine: np.ndarray, reference: Observed, choices: tuple[str, ...]) -> str:
    """Return what is wrong with one array, in words that follow "in P"; empty if it is right."""
    right, before = reference.after, reference.before
    if choices:
        said = str(mine).strip().lower()
        expected = f"expected one of {', '.join(choices)}"
        return "" if said in choices else f"{expected}, got {said!r:.60}"
    if mine.dtype.kind not in "biuf":
        got = f"{str(mine)!r:.60}" if mine.dtype.kind == "U" else mine.dtype
        return f"expected numbers, got {got}"
    if mine.size == right.size == 1:
        mine, right = mine.reshape(()), right.reshape(())
    if mine.shape != right.shape:
        return f"expected the shape {right.shape}, got {mine.shape}"
    if before is not None and np.array_equal(mine, before) and _error(mine, right) > 0:
        return "nothing changed: it is to be updated in place"
    if not np.isfinite(mine).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(mine))[0])
        return f"expected {right[place]:.6g} at {place}, got {mine[place]}"
    off = _off(mine, right)
    if not off.any():
        return ""
    if _is_half(mine) and not _is_half(right):
        return f"the numbers are too imprecise ({_error(mine, right):.0e}): half precision?"
    place = tuple(int(i) for i in np.argwhere(off)[0])
    wanted, got = apart(right[place], mine[place])
    at = f" at {place}" if place else ""
    many = f"; {off.mean():.0%} of the numbers differ" if off.size > 1 else ""
    return f"expected {wanted}{at}, got {got}{many}"


def _is_half(numbers: np.ndarray) -> bool:
    """Return whether all numbers are representable in float16 or bfloat16, and not all whole."""
    if numbers.dtype.kind != "f" or numbers.size < 8 or (numbers == numbers.round()).all():
        return False
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(numbers, np.float32)
        half = bool((single.astype(np.float16) == numbers).all())
    brain = bool((single == numbers).all() and not (single.view(np.uint32) & 0xFFFF).any())
    return half or brain


def _off(mine: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return where two arrays of finite numbers differ by more than float32 explains."""
    if right.dtype.kind in "biu":
        return mine != right
    scale = np.abs(right).max(initial=0)
    return np.abs(mine - right) > FLOAT32 * (np.abs(right) + scale)


def _error(mine: np.ndarray, right: np.ndarray) -> float:
    """Return the largest difference, relative to the largest number."""
    if right.dtype.kind in "biu" or not right.size:
        return 0.0
    mine = mine.reshape(right.shape) if mine.size == right.size == 1 else mine
    scale = max(float(np.abs(right).max()), np.finfo(float).tiny)
    return float(np.abs(mine - right).max()) / scale


def apart(a: float, b: float) -> tuple[str, str]:
    """Return two numbers with as many digits as are needed to see their difference."""
    for digits in range(4, 18):
        one, other = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if one != other:
            break
    return one, other


def _hint(
    key: str,
    name: str,
    got: Mapping[str, np.ndarray],
    expected: Mapping[str, Observed],
    places: list,
) -> str:
    """Return what the fault looks like, if it can be recognised, and the hint for this output."""
    pairs = [(got[place], expected[place]) for place in places if place in got]
    pairs = [
        (mine, came)
        for mine, came in pairs
        if mine.shape == came.after.shape and mine.dtype.kind in "biuf"
    ]
    moved = [  # mine, before, after
        (mine, came.before, came.after)
        for mine, came in pairs
        if came.before is not None and np.isfinite(mine).all()
    ]
    seen = ""
    still = all(np.array_equal(mine, before) for mine, before, _ in moved)
    if moved and len(moved) == len(places) and not still:
        steps = [(mine - before, after - before) for mine, before, after in moved]
        if all(np.allclose(mine, -right) for mine, right in steps):
            return " (the step goes the opposite way: a sign)"
        missing = [(mine - after, before) for mine, before, after in moved]
        if all(map(_proportional, *zip(*missing, strict=True))):
            return " (what differs is proportional to it: the penalty)"
        scaled = [(mine - right, right) for mine, right in steps]
        if all(map(_proportional, *zip(*scaled, strict=True))):
            seen = " (each row moves in the right direction, but some by a wrong length: the rate)"
    task, _, function = key.partition("/")
    hint = RUBRIC[task].get("hints", {}).get(function, {}).get(name)
    hint = hint or RUBRIC[task]["functions"].get(function, "")
    return seen + (f" (hint: {hint})" if hint else "")


def _proportional(difference: np.ndarray, factors: np.ndarray) -> bool:
    """Return whether each row differs by a multiple of itself."""
    difference, factors = (np.atleast_2d(W.T).T for W in (difference, factors))
    if difference.shape[1] == 1:  # of biases one multiple says nothing
        return False
    size = (factors**2).sum(1, keepdims=True)
    along = (difference * factors).sum(1, keepdims=True) / np.maximum(size, 1e-300) * factors
    return bool(np.allclose(difference, along, rtol=1e-6, atol=1e-9))
