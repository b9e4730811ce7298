"""Report which functions of each task are correct, on generated data, in a minute.

    python suite.py check [TASK …]
    python suite.py check --show FUNCTION
    python suite.py check --strict     exit code 1 unless all is done

The grader runs the same code with other numbers.
"""

import argparse
import ast
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from grading.execution.harness import Purpose
from grading.execution.inputs import SEEDS, Observed, as_array, calls
from grading.execution.trial import (
    Unit,
    Version,
    check_units,
    run_checks,
    run_directly,
    try_submission,
)
from grading.intake.cells import handed_out
from grading.intake.collect import read_package
from grading.intake.names import plain
from grading.intake.submission import Submission, read
from grading.judging.compare import describe
from grading.judging.functions import verdicts
from grading.judging.verdict import ModelFit, Verdict
from grading.kernels.public import public_versions
from grading.outcomes import Failure, FailureKind
from grading.rubric import OUTPUTS, RUBRIC, function_of, is_kernel

CHECKS = Path(__file__).resolve().parents[2]
ROOT = CHECKS.parent  # of the edition
SUITE = CHECKS / "suite"  # separate copies of package and notebooks


def expected(key: str) -> dict[str, Observed]:
    """Return the reference's outputs of a function."""
    found = {}
    with np.load(CHECKS / "cases.npz", allow_pickle=False) as stored:
        for name in (n for n in stored if n.startswith(f"{key}/") and not n.endswith("/before")):
            before = f"{name}/before"
            came = Observed(stored[before] if before in stored.files else None, stored[name])
            found[name.removeprefix(f"{key}/")] = came
    return found


def imports() -> dict[str, str]:
    known = handed_out(SUITE / "notebooks")
    return {
        task: next(c.source for c in cells if c.id == "imports") for task, cells in known.items()
    }


@dataclass
class Checked:
    """The results of checking an edition or a submission."""

    verdicts: dict[str, Verdict]
    given: Submission
    arrays: dict[str, dict[str, np.ndarray]]  # by function: its results


def check(folder: Path, keys: Iterable[str] = OUTPUTS) -> Checked:
    """Check some functions of an edition or a submission."""
    package, keys = read_package(folder), set(keys)
    # ignore an earlier submission.zip
    files = {n: f for n, f in package.files.items() if not n.startswith("submission.zip/")}
    given = read(files, handed_out(SUITE / "notebooks"))
    given.notes[:0] = package.notes
    with tempfile.TemporaryDirectory(prefix="check-") as temporary:
        place = Path(temporary) / "check"
        needed = {f"{function_of(key)[0]}/{OUTPUTS[key].kernel}" for key in keys}  # by step checks
        tried, seeds = keys | needed, list(SEEDS)
        pairs = try_submission(given, place, SUITE, seeds, imports(), run_directly, only=tried)
        units = versions_of(given, keys)
        pairs += run_checks(given, Path(temporary) / "checks", units, SUITE, run_directly)
    found = verdicts(pairs, expected, given.problems)
    wait_for_kernels(found)
    arrays = {unit.key: result.arrays for unit, result in pairs if unit.purpose is Purpose.FUNCTION}
    return Checked({key: v for key, v in found.items() if key in keys}, given, arrays)


def versions_of(given: Submission, keys: Collection[str]) -> list[list[Unit]]:
    """Return units that run some step checks on variants of the student's kernels."""
    modules = {task: (SUITE / f"mflib/{RUBRIC[task].module}.py").read_bytes() for task in RUBRIC}
    modules |= given.modules

    def versions(key: str) -> list[list[Version]]:
        source = modules[function_of(key)[0]].decode("utf-8-sig", "replace")
        return [public_versions(key, source)] if key in keys else []

    return check_units(given, imports(), versions)


def wait_for_kernels(found: dict[str, Verdict]) -> None:
    """Replace the verdicts on step checks whose kernel is not correct yet."""
    for key, verdict in found.items():
        task, kernel = key.partition("/")[0], OUTPUTS[key].kernel
        if not kernel or not verdict.is_attempted:
            continue
        if not found[f"{task}/{kernel}"].is_right:
            why = f"will be tried on variants of your {kernel} as soon as that is right"
            found[key] = Verdict(key, failure=Failure(FailureKind.UNTRIED, why))
        elif verdict.is_right:
            verdict.remark += "; the grader has others"


def show(checked: Checked) -> bool:
    """Print a line for each function and each wrong output; return whether all are done."""
    found, given = checked.verdicts, checked.given
    for task, entry in RUBRIC.items():
        mine = [verdict for key, verdict in found.items() if key.startswith(f"{task}/")]
        if not mine:  # not selected
            continue
        print(f"{task} ({entry.notebook})")
        for verdict in mine:
            first, *others = [*verdict.sentences, *advice(verdict, found)]
            status = _status(verdict)
            first = first.removesuffix(f": {status}")  # no need to say it twice
            print(plain(f"    {status:14} {first}"))
            for line in others:
                print(plain(f"    {'':14} {line}"))
        print(plain(f"    {'{:14} {}'.format(*_lists(task, found))}"))
        explained = {verdict.failure.message for verdict in mine if verdict.failure}
        for problem in given.problems[task]:
            if problem.message not in explained:
                print(plain(f"    {'':14} {problem}"))
    tasks = {function_of(key)[0] for key in found}
    states = [_status(verdict) for verdict in found.values()]
    states += [_lists(task, found)[0] for task in tasks]
    done, missing = (states.count(state) for state in ("done", "not attempted"))
    print(f"\n{done} of {len(states)} done, {missing} not attempted")
    for note in given.notes:
        print(plain(f"    {note}"))
    return done == len(states)


def _status(verdict: Verdict) -> str:
    if verdict.is_right:
        return "done"
    if not verdict.is_attempted:
        return "not attempted"
    if verdict.failure and verdict.failure.kind is FailureKind.UNTRIED:
        return "not tried yet"
    return "wrong" if verdict.fraction == 0 else f"{verdict.fraction:.0%} right"


def advice(verdict: Verdict, found: Mapping[str, Verdict]) -> list[str]:
    """Return advice on the first thing to do, and on how to print a wrong case."""
    if verdict.is_right or not verdict.is_attempted:
        return []
    task, name = function_of(verdict.key)
    called = RUBRIC[task].helpers.get(name, [])
    wrong = [other for other in called if not found[f"{task}/{other}"].is_right]
    lines = [f"{name} may be right: {', '.join(wrong)} is not; correct that first"] if wrong else []
    has_case = not verdict.failure and not OUTPUTS[verdict.key].kernel
    return lines + ([f"a case: check --show {name}"] if has_case else [])


def _lists(task: str, found: Mapping[str, Verdict]) -> tuple[str, str]:
    """Return the status of a task's recommendations and similar movies, and a sentence."""
    kernels = [v for n in RUBRIC[task].lists if (v := found.get(f"{task}/{n}"))]
    what = "recommendations and similar movies"
    if not any(verdict.is_attempted for verdict in kernels):
        return "not attempted", what
    if right := [verdict for verdict in kernels if verdict.makes_right_lists]:
        return "done", f"{what}, with {right[0].name}"
    best = max(kernels, key=lambda verdict: verdict.factors_fraction)
    if not best.factors_fraction:
        return "wrong", f"{what}: they need correct factors of {best.name}"
    why = {
        ModelFit.AGREES: f"their quality is measured with the correct factors of {best.name}",
        ModelFit.DIFFERS: f"a model trained with {best.name} differs from the reference's",
        ModelFit.FAILED: f"a model cannot be trained with {best.name}: {best.model_message}",
        ModelFit.NOT_TRIED: f"no model was trained with {best.name}",
    }
    return "wrong", f"{what}: {why[best.model]}"


def smallest_case(key: str, checked: Checked) -> str:
    """Return inputs, expected and received outputs of the smallest wrong call."""
    verdict, right = checked.verdicts[key], expected(key)
    if verdict.failure or not verdict.wrong or OUTPUTS[key].kernel:
        return verdict.sentence
    names = OUTPUTS[key].names
    cases = {place.rpartition("/")[0] for place in right}
    wrong = {}
    for case in cases:
        differing = [n for n, _ in enumerate(names) if _is_wrong(key, f"{case}/{n}", checked)]
        if differing:
            seed, call = map(int, case.split("/"))
            arguments = calls(key, seed)[call]
            size = sum(len(_text(argument)) for argument in arguments)
            wrong[size] = (case, arguments, differing)
    case, arguments, differing = wrong[min(wrong)]
    lines = [f"{verdict.name} is called with"]
    for name, argument in zip(argument_names(key, len(arguments)), arguments, strict=True):
        lines.append(_entry(name, _text(argument)))
    for n in differing:
        place = f"{case}/{n}"
        got = checked.arrays[key].get(place)
        lines += ["", f"{names[n]}:", _entry("expected", _text(right[place].after))]
        lines.append(_entry("got", "nothing" if got is None else _text(got)))
    return "\n".join(lines)


def _is_wrong(key: str, place: str, checked: Checked) -> bool:
    array, reference = checked.arrays[key].get(place), expected(key)[place]
    return array is None or describe(array, reference, OUTPUTS[key].choices) is not None


def argument_names(key: str, count: int) -> list[str]:
    """Return the names of a function's arguments in the student edition."""
    task, name = function_of(key)
    if is_kernel(key):
        sources = [(SUITE / "mflib" / f"{RUBRIC[task].module}.py").read_text(encoding="utf-8")]
    else:
        cells = handed_out(SUITE / "notebooks")[task]
        sources = [cell.source for cell in cells if name in cell.functions]
    nodes = (node for source in sources for node in ast.parse(source).body)
    found = next(n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == name)
    return [argument.arg for argument in found.args.args][:count]


def _entry(name: str, text: str) -> str:
    indented = text.replace("\n", "\n" + " " * 8)
    return f"    {name} = {indented}" if "\n" not in text else f"    {name} =\n        {indented}"


def _text(value: object) -> str:
    """Return an argument or an output as readable text."""
    from mflib.sparse import Entries

    if isinstance(value, Entries):
        return f"rows {value.rows.tolist()}\ncolumns {value.columns.tolist()}"
    if isinstance(value, torch.Tensor | np.ndarray) or sp.issparse(value):
        return np.array2string(as_array(value), precision=4, suppress_small=True, threshold=500)
    if isinstance(value, list | tuple) and value and isinstance(value[0], tuple):  # blocks
        return "\n".join(", ".join(_text(part) for part in block) for block in value)
    return "a function" if callable(value) else str(value)


def chosen_keys(tasks: list[str], function: str) -> list[str]:
    """Return the functions of some tasks or with a name; raise ValueError if there are none."""
    if function:
        keys = [key for key in OUTPUTS if function in (key, function_of(key)[1])]
        if not keys:
            raise ValueError(f"expected a function such as svd_step or bpr/chosen, got {function}")
        return keys
    if wrong := set(tasks) - set(RUBRIC):
        names = ", ".join(RUBRIC)
        raise ValueError(f"expected one of the tasks {names}, got {', '.join(sorted(wrong))}")
    return [key for key in OUTPUTS if function_of(key)[0] in (tasks or RUBRIC)]


def main() -> int:
    parser = argparse.ArgumentParser()
    tasks = f"any of {', '.join(RUBRIC)} (default: all)"
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=tasks)
    parser.add_argument("--show", metavar="FUNCTION", help="print the smallest wrong case")
    parser.add_argument("--strict", action="store_true", help="exit code 1 unless all is done")
    options = parser.parse_args()
    try:
        keys = chosen_keys(options.tasks, options.show or "")
    except ValueError as error:
        parser.error(str(error))
    checked = check(ROOT, keys)
    if not options.show:
        return int(not show(checked) and options.strict)
    for key in keys:
        print(plain(f"{key}\n{smallest_case(key, checked)}\n"))
    done = all(verdict.is_right for verdict in checked.verdicts.values())
    return int(not done and options.strict)


if __name__ == "__main__":
    sys.exit(main())
