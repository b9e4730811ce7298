"""Measure how often the grader errs on right answers, wrong answers and forms of packing.

    python -m grading.evaluation.accuracy

Right answers in different styles (kernels/right.py), saved by four programs (forms.py), must have
full marks. Wrong ones (kernels/wrong.py) must not, and the reason must name the wrong outputs. The
student's check and the grader must agree. A confusion matrix is printed, and everything is written
to build/grader-accuracy.md; the exit code is 1 if anything was misjudged.
"""

import ast
import itertools
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import test_exercises  # right and wrong answers
from tqdm import tqdm

from grading.evaluation.forms import FORMS, PROGRAMS, SAID
from grading.execution.empty import empty_suite
from grading.execution.harness import Purpose
from grading.execution.inputs import SEEDS
from grading.execution.reference import (
    answers,
    edited,
    expected,
    imports,
    module_of,
    notebook_of,
    with_function,
)
from grading.execution.trial import (
    Launch,
    Unit,
    UnitResult,
    exercise,
    prepare,
    run_directly,
    run_units,
)
from grading.intake.cells import binds
from grading.intake.collect import packages
from grading.intake.submission import Submission, read
from grading.isolation.sandbox import Limits, missing_protections, run
from grading.judging.functions import verdicts
from grading.judging.verdict import Verdict
from grading.kernels.right import RIGHT
from grading.kernels.wrong import WRONG
from grading.outcomes import NOT_ATTEMPTED, Failure
from grading.paths import ROOT
from grading.pipeline import N_SEEDS, known
from grading.rubric import CALLED, OUTPUTS, RUBRIC
from mflib.training import available_processors

TARGET = ROOT / "build" / "grader-accuracy.md"


def no_verdict() -> Verdict:
    """Return the initial verdict of a case."""
    return Verdict("svd/svd_step", failure=NOT_ATTEMPTED)


@dataclass
class Case:
    """One version of a function, and the verdicts on it."""

    key: str
    name: str
    right: bool
    code: str  # the module's text, or the cell's
    programs: list[str] = field(default_factory=list)  # whose files are read exactly
    graded: Verdict = field(default_factory=no_verdict)
    checked: Verdict = field(default_factory=no_verdict)
    wrong_outputs: set[str] = field(default_factory=set)  # by an independent comparison

    @property
    def is_kernel(self) -> bool:
        task, _, name = self.key.partition("/")
        return name in RUBRIC[task].kernels

    @property
    def makes_lists(self) -> bool:
        """Whether this function can train the package's class."""
        task, _, name = self.key.partition("/")
        return name in RUBRIC[task].lists

    @property
    def misjudged(self) -> str:
        """A message if the verdicts are wrong, otherwise an empty text."""
        graded, checked = self.graded, self.checked
        if self.right and not graded.is_right:
            return f"a right answer: {graded.sentence}"
        if self.right:
            lists = graded.makes_right_lists or not self.makes_lists
            return "" if lists else f"lists of a right answer: its model {graded.model}"
        if graded.is_right:
            return "a wrong answer has full marks"
        if graded.failure or checked.failure:
            return ""
        if set(graded.wrong) != self.wrong_outputs:
            return f"wrong are {sorted(self.wrong_outputs)}, named {sorted(graded.wrong)}"
        named = all(f"in {output} " in graded.sentence for output in graded.wrong)
        return "" if named else f"the reason does not name the output: {graded.sentence}"

    @property
    def disagreement(self) -> str:
        done = [(v.is_right, v.makes_right_lists) for v in (self.graded, self.checked)]
        return f"check: {self.checked.sentence}; grade: {self.graded.sentence}" * (
            done[0] != done[1]
        )


def exercise_cases() -> Iterable[Case]:
    """Yield the right and wrong answers from the tests of the notebooks' checks."""
    tasks = {entry.notebook: task for task, entry in RUBRIC.items()}
    for table, right in ((test_exercises.RIGHT, True), (test_exercises.WRONG, False)):
        for (notebook, number), sources in table.items():
            for n, source in enumerate(sources, 1):
                keys = {f"{tasks[notebook]}/{name}" for name in binds(ast.parse(source))}
                (key,) = keys & set(OUTPUTS)
                yield Case(key, f"exercise {number}, no. {n}", right, source)


def all_cases() -> list[Case]:
    found = [Case(key, name, True, with_function(key, code)) for (key, name), code in RIGHT.items()]
    for key in CALLED:  # the reference itself
        task, _, name = key.partition("/")
        kernel = name in RUBRIC[task].kernels
        found.append(
            Case(key, "the reference", True, module_of(task) if kernel else answers()[key])
        )
    found += [Case(key, name, False, edited(key, a, b)) for key, name, a, b in WRONG]
    return [*found, *(case for case in exercise_cases() if case.key in CALLED)]


def eight_files(case: Case | None = None) -> dict[str, bytes]:
    """Return the files of the reference, or those of a case's task with its function."""
    found = {}
    for task, entry in RUBRIC.items():
        if case is not None and not case.key.startswith(f"{task}/"):
            continue
        text = case.code if case is not None and case.is_kernel else module_of(task)
        found[f"mflib/{entry.module}.py"] = text.encode()
        file = ROOT / "notebooks" / f"{entry.notebook}.ipynb"
        if case is not None and not case.is_kernel:
            notebook = notebook_of(task)
            for cell in notebook.cells:
                if cell.source == answers()[case.key] and "solution" in cell.metadata.get(
                    "tags", []
                ):
                    cell.source = case.code
            found[f"notebooks/{file.name}"] = json.dumps(notebook).encode()
        else:
            found[f"notebooks/{file.name}"] = file.read_bytes()
    return found


def saved_by_programs(case: Case) -> list[str]:
    """Return the programs from whose files the case is read without changes."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for program, form in PROGRAMS.items():
            path = form(eight_files(case), Path(folder) / program.replace(" ", ""))
            given = read(packages([path])[0].files, known())
            if case.is_kernel:
                same = given.modules[case.key.partition("/")[0]] == case.code.encode()
            else:
                own = given.answers.get(case.key, [])
                same = "".join(case.code.split()) == "".join("".join(s for _, s in own).split())
            found += [program] if same else []
    return found


def evaluate(
    cases: list[Case], folder: Path, suite: Path, seeds: tuple[int, ...], launch: Launch
) -> tuple[list[UnitResult], list[Verdict]]:
    """Return results and verdicts of the cases, which are units of one job."""
    prepare(folder, suite)
    units: list[list[Unit]] = []
    for n, case in enumerate(cases):
        if case.is_kernel:
            place = folder / "cases" / str(n)
            place.mkdir(parents=True)
            file = place / f"{RUBRIC[case.key.partition('/')[0]].module}.py"
            file.write_text(case.code, encoding="utf-8")
            unit = Unit(case.key, file=file.relative_to(folder).as_posix())
            units.append([unit])
            if case.makes_lists:
                units[-1].append(replace(unit, purpose=Purpose.SHORT_FIT))
        else:
            units.append([exercise(case.key, [("answer", case.code)], imports())])
    results = iter(run_units(folder, list(itertools.chain(*units)), list(seeds), launch))
    pairs = [[(unit, next(results)) for unit in of_case] for of_case in units]
    expect = lambda key: expected(key, seeds)  # noqa: E731
    found = [verdicts(each, expect, {})[each[0][0].key] for each in pairs]
    return [each[0][1] for each in pairs], found


def wrong_outputs_of(case: Case, result: UnitResult, seeds: tuple[int, ...]) -> set[str]:
    """Return the outputs that differ from the reference's by numpy's own comparison."""
    found = set()
    if choices := OUTPUTS[case.key].choices:
        said = [str(array).strip().lower() for array in result.arrays.values()]
        return set() if said and set(said) <= set(choices) else set(OUTPUTS[case.key].names)
    for n, output in enumerate(OUTPUTS[case.key].names):
        for place, came in expected(case.key, seeds).items():
            if place.endswith(f"/{n}"):
                mine = result.arrays.get(place, np.empty(0))
                alike = mine.dtype.kind in "biuf" and mine.size == came.after.size
                shaped = alike and (mine.shape == came.after.shape or mine.size == 1)
                close = shaped and np.allclose(
                    mine.reshape(came.after.shape), came.after, rtol=1e-4, atol=1e-5
                )
                found |= set() if close else {output}
    return found


def sandboxed(command: list[str], folder: Path) -> Failure | None:
    return run(command, folder, [], Limits(cpu_seconds=1800)).failure


def judge_all(cases: list[Case]) -> str:
    """Grade and check all cases, one job for each core; return the seed and the sandbox."""
    safe = not missing_protections()
    secret = 1000 + secrets.randbelow(10**9)
    hidden = tuple(secret + n for n in range(N_SEEDS))
    fits = [f"{Purpose.SHORT_FIT}/{t}/{name}" for t in RUBRIC for name in RUBRIC[t].lists]
    for key in (*CALLED, *fits):  # fills the caches before the threads start
        expected(key, hidden), expected(key, SEEDS)
    jobs = [
        ("graded", hidden, sandboxed if safe else run_directly),
        ("checked", SEEDS, run_directly),
    ]
    parts = [cases[n::16] for n in range(16)]
    with tempfile.TemporaryDirectory(prefix="accuracy-") as temporary:
        suite = Path(temporary) / "suite"
        suite.mkdir()
        empty_suite(suite)

        def one(task: tuple[int, list[Case], str, tuple[int, ...], Launch]) -> None:
            n, part, what, seeds, launch = task
            folder = Path(temporary) / f"{what}-{n}"
            results, found = evaluate(part, folder, suite, seeds, launch)
            for case, result, verdict in zip(part, results, found, strict=True):
                setattr(case, what, verdict)
                if what == "graded":
                    case.wrong_outputs = wrong_outputs_of(case, result, seeds)

        tasks = [(n, part, *job) for n, part in enumerate(parts) for job in jobs]
        with ThreadPoolExecutor(available_processors()) as pool:
            list(tqdm(pool.map(one, tasks), total=len(tasks), unit="job"))
    return f"secret {secret}, {'in the sandbox' if safe else 'without a sandbox'}"


def try_forms() -> list[tuple[str, str, str, bool]]:
    """Return for each form: name, answers found, messages, and whether both are right."""
    whole = eight_files()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for n, (name, form) in enumerate({**FORMS, **{k: f for k, (f, _) in SAID.items()}}.items()):
            path = form(whole, Path(temporary) / str(n))
            found = packages([path])
            package = next((p for p in found if p.name == "Jane Doe"), found[0])
            given = read(package.files, known())
            problems = [str(p) for of_task in given.problems.values() for p in of_task]
            said = [*package.notes, *given.notes, *problems]
            right = sum(_as_reference(given, key) for key in OUTPUTS)
            good = any(SAID[name][1] in s for s in said) if name in SAID else right == len(OUTPUTS)
            rows.append((name, f"{right} of {len(OUTPUTS)}", "; ".join(said)[:160], good))
    return rows


def _as_reference(given: Submission, key: str) -> bool:
    task, _, name = key.partition("/")
    if name in RUBRIC[task].kernels:
        mine = given.modules.get(task, b"").replace(b"\r\n", b"\n").removeprefix(b"\xef\xbb\xbf")
        return mine == module_of(task).encode()
    own = "".join(source for _, source in given.answers.get(key, []))
    return "".join(answers()[key].split()) in "".join(own.split())


def report(cases: list[Case], forms: list, how: str, seconds: float) -> tuple[str, str, bool]:
    """Return the page, the summary line, and whether all verdicts are right."""
    right, wrong = ([c for c in cases if c.right is side] for side in (True, False))
    full = [sum(c.graded.is_right for c in side) for side in (right, wrong)]
    misjudged = [c for c in cases if c.misjudged]
    disagreements = [c for c in cases if c.disagreement]
    unread = [c for c in right if len(c.programs) < len(PROGRAMS)]
    bad_forms = [row for row in forms if not row[3]]
    kernels = [c for c in right if c.makes_lists]
    lists = sum(c.graded.makes_right_lists for c in kernels)
    summary = (
        f"{full[0]} of {len(right)} right answers, each saved by {len(PROGRAMS)} programs, have "
        f"full marks, and {lists} of {len(kernels)} right kernels the points of lists; "
        f"{len(wrong) - full[1]} of {len(wrong)} wrong ones have not full marks; "
        f"{len(forms) - len(bad_forms)} of {len(forms)} forms of packing and saving are read or "
        f"said; check and grade disagree on {len(disagreements)}"
    )
    lines = ["# How often the grader errs", "", f"{summary} ({seconds:.0f} s, {how}).", ""]
    lines += ["| | full marks | not |", "| --- | --- | --- |"]
    for what, side, n in (("right", right, full[0]), ("wrong", wrong, full[1])):
        lines.append(f"| {what} answers | {n} | {len(side) - n} |")
    lines += ["", "## By function", "", "| function | right | full marks | wrong | full marks |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for key in CALLED:
        sides = [[c for c in side if c.key == key] for side in (right, wrong)]
        counts = (f"{len(s)} | {sum(c.graded.is_right for c in s)}" for s in sides)
        lines.append(f"| {key} | {' | '.join(counts)} |")
    tables = {
        "Misjudged": [(c.key, c.name, c.misjudged) for c in misjudged],
        "Check and grade disagree": [(c.key, c.name, c.disagreement) for c in disagreements],
        "Right answers not read alike from all programs": [
            (c.key, c.name, str(c.programs)) for c in unread
        ],
    }
    for title, rows in tables.items():
        lines += ["", f"## {title}", ""]
        lines += [" | ".join(("", *map(_cell, row), "")).strip() for row in rows] or ["None."]
    lines += ["", "## Forms of packing and saving", "", "| form | answers found | messages |"]
    lines += ["| --- | --- | --- |", *(f"| {a} | {b} | {_cell(c)} |" for a, b, c, _ in forms)]
    for title, side in (("Right answers", right), ("Wrong answers", wrong)):
        lines += ["", f"## {title}", "", "| function | written | verdict |", "| --- | --- | --- |"]
        lines += [f"| {c.key} | {_cell(c.name)} | {_cell(c.graded.sentence)} |" for c in side]
    good = not (misjudged or disagreements or unread or bad_forms)
    return "\n".join(lines) + "\n", summary, good


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:300]


def main() -> None:
    start = time.monotonic()
    cases = all_cases()
    for case in tqdm([c for c in cases if c.right], unit="right answer"):
        case.programs = saved_by_programs(case)
    forms = try_forms()
    how = judge_all(cases)
    page, summary, good = report(cases, forms, how, time.monotonic() - start)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page, encoding="utf-8")
    print(page.partition("## Forms")[0])
    print(f"{summary}.\nAll of it is in {TARGET.relative_to(ROOT)}.")
    sys.exit(not good)


if __name__ == "__main__":
    main()
