"""Report, for each task, what is done and what is wrong; on generated data, in a minute.

    python suite.py check [TASK …]

The grader runs the same code on other numbers.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from grading.checks.verdict import Verdict
from grading.execution.inputs import SEEDS, Observed
from grading.execution.trial import (
    prepare,
    run_directly,
    run_units,
    units_of,
    verdicts,
    write_modules,
)
from grading.intake.cells import handed_out
from grading.intake.collect import read_package
from grading.intake.names import plain
from grading.intake.submission import Submission, read
from grading.rubric import RUBRIC

CHECKS = Path(__file__).resolve().parents[2]
ROOT = CHECKS.parent  # of the edition
SUITE = CHECKS / "suite"  # the package and the notebooks of the checks, whatever becomes of yours


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


def check(folder: Path, tasks: Iterable[str] = RUBRIC) -> tuple[dict[str, Verdict], Submission]:
    """Return verdicts on the functions of some tasks in an edition or a submission."""
    package = read_package(folder)
    # an earlier submission.zip is not what the student works on
    files = {n: f for n, f in package.files.items() if not n.startswith("submission.zip/")}
    given = read(files, handed_out(SUITE / "notebooks"))
    given.notes[:0] = package.notes
    with tempfile.TemporaryDirectory(prefix="check-") as temporary:
        place = Path(temporary) / "check"
        prepare(place, SUITE)
        write_modules(given, place)
        units = [u for u in units_of(given, imports()) if u.key.partition("/")[0] in tasks]
        results = run_units(place, units, list(SEEDS), run_directly)
        found = verdicts(units, results, expected, given.problems)
        return {key: v for key, v in found.items() if key.partition("/")[0] in tasks}, given


def show(found: dict[str, Verdict], given: Submission) -> bool:
    """Print a line for each function; returns whether all are done."""
    for task, entry in RUBRIC.items():
        mine = [verdict for key, verdict in found.items() if key.startswith(f"{task}/")]
        if not mine:  # not asked for
            continue
        print(f"{task} ({entry['notebook']})")
        for verdict in mine:
            print(plain(f"    {_status(verdict):14} {verdict.sentence}"))
        explained = {verdict.failure.message for verdict in mine if verdict.failure}
        for problem in given.problems[task]:
            if problem.message not in explained:
                print(plain(f"    {'':14} {problem}"))
    done = sum(verdict.is_right for verdict in found.values())
    missing = sum(not verdict.is_attempted for verdict in found.values())
    print(f"\n{done} of {len(found)} done, {missing} not attempted")
    for note in given.notes:
        print(plain(f"    {note}"))
    return done == len(found)


def _status(verdict: Verdict) -> str:
    if verdict.is_right:
        return "done"
    if not verdict.is_attempted:
        return "not attempted"
    return "wrong" if verdict.fraction == 0 else f"{verdict.fraction:.0%} right"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    tasks = f"of {', '.join(RUBRIC)}; all if there are none"
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=tasks)
    chosen = parser.parse_args().tasks or list(RUBRIC)
    if wrong := set(chosen) - set(RUBRIC):
        parser.error(f"expected one of the tasks {', '.join(RUBRIC)}, got {', '.join(wrong)}")
    sys.exit(not show(*check(ROOT, chosen)))
