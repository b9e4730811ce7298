"""Grading right and harmful submissions in the sandbox.

Takes 20 minutes, so `make test` leaves it to `make submissions`. What was given and why, and what
it took, is written to build/submissions.md. Elsewhere: how right and wrong answers are told apart
(accuracy.py, step_checks.py), and what the sandbox, the harness and the readers of archives do by
themselves (test_sandbox.py, test_trial.py, test_scheduler.py).
"""

import json
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from grading import cli, gradebook, pipeline, schema, scoring
from grading.evaluation.attacks import (
    ATTACKS,
    FORGED,
    HONEST,
    Attack,
    files,
    in_step,
    module,
    with_sources,
    without_check,
    write,
)
from grading.evaluation.cheats import (
    hard_coded,
    losses_alone,
    of_table,
    replaced,
    right_biases_and_losses,
    svds_for_bpr,
    switched_off,
)
from grading.evaluation.mutations import archive, as_json, mutated, mutated_tree
from grading.evaluation.resources import Peaks, measured
from grading.execution.empty import blank, empty_suite
from grading.execution.inputs import SEEDS
from grading.intake.collect import File
from grading.intake.submission import read
from grading.isolation.bounded_process import ProcessLimits, call
from grading.isolation.sandbox import remove
from grading.paths import ROOT
from grading.result import Report, Score, load, read_score
from grading.rubric import OUTPUTS, POINTS, RUBRIC
from grading.tests.test_sandbox import needs_sandbox

pytestmark = [pytest.mark.slow, needs_sandbox]
TABLE = ROOT / "build" / "submissions.md"
HEAD = "| what | account | points of 100 | reason | grader, MiB | sandboxes, MiB "
HEAD += "| CPU time outside, s | wall time, s |\n|" + " --- |" * 8 + "\n"
OF_HONEST = round(HONEST / len(RUBRIC), 1)  # points of 100
OUTSIDE, CPU_OUTSIDE = 2**30, 60  # bytes resident in a process of the grader; seconds
SIXTEEN = int(os.environ.get("SIXTEEN", "16"))  # submissions
SPOILT = int(os.environ.get("SPOILT", "12"))
INSIDE = 7 * 2**30  # bytes: the bound of one, and somebody honest
# The first statements of bpr_step, and the expected reasons.
HARM = {
    "an endless loop": ("while True: pass", "20 s of CPU time"),
    "memory": ("hog = [torch.ones(2**27) for _ in range(1000)]", "RuntimeError|MemoryError"),
    "a process left behind": (
        "import subprocess; subprocess.Popen(['sleep', '999']); raise SystemExit",
        "ends the program",
    ),
    "a fork bomb": (
        "import os\n    while True: os.fork()",
        "many processes|wall-time|ended|raises",
    ),
    "the worker killed": ("import os; os.kill(os.getppid(), 9); raise SystemExit", "ended|ends"),
    "gigabytes of files": (
        "import os\n    while True: open(str(os.urandom(8).hex()), 'wb').write(bytes(2**26))",
        "it filled the disk",
    ),
    "the reference imported": (
        "from mflib.bpr import bpr_step as theirs; return theirs(P, Q, b, likes, negatives, "
        "learning_rate, user_regularization, item_regularization)",
        "needs bpr_step, which is not attempted|not attempted",
    ),
    "a metric replaced": (
        "import mflib.metrics; mflib.metrics.ranking_metrics = None; return None",
        "nothing changed",
    ),
    "a link in place of results": (
        FORGED.format("here.symlink_to('job.json')"),
        "expected 0.npz to be a file",
    ),
    "a pipe in place of results": (FORGED.format("os.mkfifo(here)"), "expected 0.npz to be a file"),
    "the grader detected": (
        "import sys\n    if hasattr(sys.modules['__main__'], 'run_unit'): return negatives",
        "bpr_step",
    ),
}
# A cell of 03_bpr, its replacement, and the expected reasons.
CELLS = {
    "a check made to pass": (
        "exercise-2",
        "np.allclose = lambda *a, **k: True\ndef chosen(*a): return 0.5",
        "chosen.*in the probability expected",
    ),
    "a builtin replaced": (
        "exercise-2",
        "float = lambda x: 0\ndef chosen(place, n, draws): return 0.0",
        "chosen.*expected",
    ),
    "a fake that equals everything": (
        "exercise-2",
        "class Yes:\n    def __eq__(self, other): return True\ndef chosen(*a): return Yes()",
        "chosen.*expected numbers",
    ),
    "a cell that never ends": ("exercise-2", "while True: pass", "chosen.*20 s of CPU time"),
    "a loop that calls the kernel": (
        "loop",
        "def textbook(P, Q, b, *batch):\n    return bpr.bpr_step(P, Q, b, *batch)",
        "textbook.*calls bpr_step of mflib",
    ),
    "a loop that loads the student's own kernel": (
        "loop",
        "import importlib.util, pathlib\ndef textbook(P, Q, b, *batch):\n"
        "    (file,) = [f for f in pathlib.Path().rglob('bpr.py') if 'keep_u' in f.read_text()]\n"
        "    spec = importlib.util.spec_from_file_location('own', file)",
        "textbook.*not enough values to unpack",
    ),
    "a cell that kills its process": (
        "loop",
        "import os\nos.kill(os.getpid(), 9)\ndef textbook(*a): pass",
        "textbook.*killed by signal 9",
    ),
}


def all_tables(folder: Path) -> None:
    for task in RUBRIC:
        for name, text in of_table(task).items():
            write(folder / name, text)


# Marks without work: a table gets the point of a prediction, because any valid answer counts.
CHEATS = {
    "tables for the public seeds, scipy's svds, later cells switched off": Attack(
        all_tables, "svd_step.*the losses", 15.0
    ),
    "scipy's svds in BPR's place, the losses right": Attack(
        lambda f: files(bpr=svds_for_bpr())(f),
        "need right factors .P, Q., which bpr_step changes",
        10.0,
    ),
    "scipy's svds in place of the factors, the rest right": Attack(
        lambda f: files(bpr=right_biases_and_losses())(f), "need right factors .P, Q.", 20.0
    ),
    "later cells replaced, the losses alone right": Attack(
        lambda f: files(bpr=losses_alone(), notebook=replaced())(f), "counts 25%", 25.0, (0.0, 2.5)
    ),
    "later cells switched off": Attack(
        lambda f: files(bpr=module("bpr"), notebook=switched_off())(f),
        "cells have the outputs",
        90.0,
        (0.0, 2.0),
    ),
    "hard-coded answers": Attack(lambda f: files(notebook=hard_coded())(f), "chosen", 3.75),
}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    suite = tmp_path_factory.mktemp("suite")
    empty_suite(suite)
    return pipeline.Options("ml-100k", 7, suite)


def submitted(task: str) -> dict[str, str]:
    """Return the reference's modules and the executed notebook of a task."""
    modules = [entry.module for entry in RUBRIC.values()]
    texts = {
        f"mflib/{name}.py": (ROOT / "mflib" / f"{name}.py").read_text(encoding="utf-8")
        for name in modules
    }
    return texts | {notebook_name(task): with_sources(task)}


def notebook_name(task: str) -> str:
    return f"notebooks/{RUBRIC[task].notebook}.ipynb"


def graded(what: str, task: str, texts: dict[str, str], options, whole: bool = False) -> Score:
    """Return the score of one task; without ``whole``, of its functions only."""
    with measured() as peaks:
        raw = call(_score, task, texts, options, whole, bounds=ProcessLimits())
    score = read_score(raw)
    note(what, sum(score.marks[task].values()) / len(RUBRIC), score, peaks)
    return score


def _score(task: str, texts: dict[str, str], options, whole: bool) -> dict:
    files = {name: File(text.encode, 0.0) for name, text in texts.items()}
    given, score = read(files, pipeline.known()), scoring.empty_score()
    with tempfile.TemporaryDirectory(prefix="grading-") as temporary:
        folder = Path(temporary)
        grading = pipeline.Grading(given, options, folder, score)
        pipeline.try_functions(grading)
        if whole:
            pipeline.score_models(grading)
            pipeline.reproduce(task, grading)
    return schema.encode(score.bounded())


def reasons_of(score: Score) -> str:
    texts = [*score.notes, *(reason for texts in score.reasons.values() for reason in texts)]
    return " ; ".join(reason for reason in texts if "was not submitted" not in reason)


def note(what: str, points: float, score: Score, peaks: Peaks) -> None:
    """Write a line of the table; check the bounds of resources."""
    account = "root" if os.geteuid() == 0 else "other"
    reason = re.sub(r"[|\s]+", " ", reasons_of(score))[:160]
    numbers = f"{peaks.outside / 2**20:.0f} | {peaks.inside / 2**20:.0f} | "
    numbers += f"{peaks.cpu_outside:.0f} | {peaks.seconds:.0f}"
    TABLE.parent.mkdir(exist_ok=True)
    new = not TABLE.exists()
    with TABLE.open("a", encoding="utf-8") as file:
        if new:
            file.write(HEAD)
        file.write(f"| {what} | {account} | {points:.1f} | {reason} | {numbers} |\n")
    assert peaks.outside < OUTSIDE, "memory outside of the sandbox"
    assert peaks.cpu_outside < CPU_OUTSIDE, "processor outside of the sandbox"
    assert peaks.inside < INSIDE, "memory in the sandbox"


def changed(task: str, **sources: str) -> dict[str, str]:
    return submitted(task) | {notebook_name(task): without_check(task, **sources)}


@pytest.fixture
def grade_class(tmp_path, monkeypatch):
    """Return a function that grades a folder and returns reports, target folder and resources."""

    def grade_class(folder: Path, *more: str) -> tuple[dict[str, Report], Path, Peaks]:
        target = tmp_path / "grades"
        whole = ["grading", str(folder), "--into", str(target), "--secret", "7", "--jobs", "2"]
        monkeypatch.setattr(sys, "argv", [*whole, *more])
        with measured() as peaks:
            cli.main()
        found = map(load, sorted((target / "submissions").glob("*.json")))
        return {report.name: report for report in found}, target, peaks

    gradebook.warm_up(
        pipeline.Options("ml-100k", 7, tmp_path), tmp_path
    )  # once, outside the measurement
    return grade_class


def honest(folder: Path) -> None:
    """Write a submission with the loop and the exercises of one notebook."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / notebook_name("warp")).write_text(without_check("warp"), encoding="utf-8")


@pytest.mark.parametrize("task", RUBRIC)
def test_the_reference_gets_full_marks(task, options):
    score = graded("the reference", task, submitted(task), options, whole=True)
    assert score.marks[task] == POINTS, score.reasons[task]


@pytest.mark.parametrize("task", RUBRIC)
def test_the_untouched_edition_gets_no_marks(task, options):
    empty = dict.fromkeys(("loop", "exercise_1", "exercise_2", "exercise_3"), "raise SystemExit")
    texts = changed(task, **empty)
    for entry in RUBRIC.values():
        name = f"mflib/{entry.module}.py"
        texts[name] = blank(texts[name], entry.kernels)
    score = graded("nothing done, stored outputs copied", task, texts, options, whole=True)
    assert sum(score.marks[task].values()) == 0
    assert str(score.reasons).count("not attempted") >= len(RUBRIC[task].kernels)


@pytest.mark.parametrize("what", HARM)
def test_harmful_code_gets_a_mark_and_a_reason(what, options):
    code, says = HARM[what]
    texts = {"mflib/bpr.py": in_step(code), notebook_name("bpr"): without_check("bpr")}  # unit 0
    score = graded(what, "bpr", texts, options)
    assert score.marks["bpr"]["correctness"] == 0
    reasons = " ; ".join(score.reasons["bpr"])
    assert re.search(says, reasons), reasons
    others = score.marks["bpr"]["loop and exercises"]
    assert others == 15 * 3 / 4 or "ended" in reasons, "what is not touched keeps its points"


@pytest.mark.parametrize("what", ATTACKS | CHEATS)
def test_an_attack_affects_only_its_marks(what, tmp_path, grade_class, monkeypatch):
    attack = (ATTACKS | CHEATS)[what]
    monkeypatch.setitem(pipeline.SECONDS, "unit", 3)  # endless loops are stopped earlier
    attack.make(tmp_path / "class" / "mallory")
    honest(tmp_path / "class" / "zoe")
    try:
        reports, target, peaks = grade_class(tmp_path / "class")
    finally:
        remove(tmp_path / "class")
    mallory = reports["mallory"]
    note(what, mallory.total, mallory.score, peaks)
    assert re.search(attack.says, reasons_of(mallory.score)), reasons_of(mallory.score)
    marks = mallory.score.marks
    reproducibility = sum(parts["reproducibility"] for parts in marks.values())
    points = sum(sum(parts.values()) for parts in marks.values()) - reproducibility
    assert points == pytest.approx(attack.points)
    assert attack.reproducibility[0] <= reproducibility <= attack.reproducibility[1]
    assert reports["zoe"].total == OF_HONEST, "the class goes on"
    for file in target.rglob("*.*"):
        assert file.stat().st_size < 2**20, file.name
    assert len((target / "class.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_a_table_gets_full_marks_only_for_public_seeds(options, monkeypatch):
    for name, seeds, points in (("public", SEEDS[:3], 40 + HONEST), ("hidden", (7, 8, 9), 15 / 4)):
        monkeypatch.setattr(pipeline.Options, "seeds", seeds)
        score = graded(f"a table of answers, {name} seeds", "bpr", of_table("bpr"), options)
        parts = score.marks["bpr"]
        assert parts["correctness"] + parts["loop and exercises"] == points, score.reasons["bpr"]


NAMES = ("M\udcfcller", "n" * 251, "=HYPERLINK(1)", "\x1b[2J\x1b[31mred", "\u202egpj.exe", "-rf")


def test_hostile_names_are_harmless_in_tables_and_terminal(tmp_path, grade_class, capsys):
    for name in NAMES:
        honest(tmp_path / "class" / name)
    reports, target, peaks = grade_class(tmp_path / "class")
    shown = "".join(capsys.readouterr())
    note(
        "names in Latin-1, of 251 characters, formulas, …",
        OF_HONEST,
        next(iter(reports.values())).score,
        peaks,
    )
    assert [report.total for report in reports.values()] == [OF_HONEST] * len(NAMES)
    for text in (shown, (target / "class.csv").read_text(encoding="utf-8-sig")):
        lines = [line for line in text.splitlines() if line.endswith(",")]
        assert all(re.match(r"[\w(]", line) for line in lines)
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\u202e]", text.replace("\x1b[A", ""))


def test_forged_dates_are_marked_and_times_from_data_count(tmp_path, grade_class):
    for name in ("ann", "mallory"):
        honest(tmp_path / "class" / name)
        os.utime(tmp_path / "class" / name / notebook_name("warp"), (0, 1.6e9))
    times = tmp_path / "times.csv"
    times.write_text("name,time\nmallory,2026-02-01T10:00Z\n", encoding="utf-8")
    limits = ("--soft", "2026-01-31", "--timezone", "UTC", "--times", str(times))
    reports, target, peaks = grade_class(tmp_path / "class", *limits)
    note("dates of files forged", reports["mallory"].total, reports["mallory"].score, peaks)
    assert [reports[name].decision.missed for name in ("ann", "mallory")] == [None, "soft"]
    assert "dates of files, which can be forged" in (target / "ann.html").read_text(
        encoding="utf-8"
    )


def test_other_processes_of_the_account_are_not_counted(tmp_path, grade_class):
    honest(tmp_path / "class" / "ann")
    honest(tmp_path / "class" / "bo")
    sleeping = [subprocess.Popen(["sleep", "3600"]) for _ in range(250)]
    try:
        reports, _, peaks = grade_class(tmp_path / "class")
    finally:
        for process in sleeping:
            process.kill()
            process.wait()
    note("250 other processes of the account", OF_HONEST, reports["ann"].score, peaks)
    assert [report.total for report in reports.values()] == [OF_HONEST] * 2


def test_sixteen_parallel_submissions_get_the_same_marks(tmp_path, grade_class):
    for n in range(SIXTEEN):
        honest(tmp_path / "class" / f"s{n}")
    reports, _, peaks = grade_class(tmp_path / "class", "--jobs", "16")
    note(f"{SIXTEEN} right ones, 16 at once", OF_HONEST, reports["s0"].score, peaks)
    assert [report.total for report in reports.values()] == [OF_HONEST] * SIXTEEN


def spoilt(number: int) -> bytes:
    """Return a right zip of one task with random damage in module, notebook or bytes."""
    rng = random.Random(number)
    task = rng.choice(sorted(RUBRIC))
    files = {name: text.encode() for name, text in submitted(task).items()}
    name, others = notebook_name(task), list(files.values())
    own = f"mflib/{RUBRIC[task].module}.py"
    kind = rng.choice(("module", "notebook", "tree", "archive"))
    if kind == "tree":
        files[name] = as_json(mutated_tree(json.loads(files[name]), number))
    elif kind != "archive":
        place = own if kind == "module" else name
        files[place] = mutated(files[place], others, number)
    packed = archive(files, "zip")
    return mutated(packed, others, number) if kind == "archive" else packed


def test_corrupted_submissions_are_graded_completely(tmp_path, grade_class):
    (tmp_path / "class").mkdir()
    number = secrets.randbelow(10**6)
    for n in range(SPOILT):
        (tmp_path / "class" / f"s{n}.zip").write_bytes(spoilt(number + n))
    honest(tmp_path / "class" / "ann")
    reports, _, peaks = grade_class(tmp_path / "class")
    each = replace(peaks, cpu_outside=peaks.cpu_outside / SPOILT)
    note(f"{SPOILT} spoilt at random, from {number} on", OF_HONEST, reports["ann"].score, each)
    assert reports["ann"].total == OF_HONEST
    assert len(reports) == SPOILT + 1
    assert "the grader's process" not in str([report.score.notes for report in reports.values()])


@pytest.mark.parametrize("what", CELLS)
def test_a_harmful_cell_affects_only_itself(what, options):
    name, source, says = CELLS[what]
    texts = changed("bpr", **{name.replace("-", "_"): source})
    score = graded(what, "bpr", texts, options)
    reasons = " ; ".join(score.reasons["bpr"])
    assert re.search(says, reasons), reasons
    assert score.marks["bpr"]["correctness"] == 40
    assert score.marks["bpr"]["loop and exercises"] == 15 * 2 / 4


def test_a_cell_that_kills_its_kernel_affects_later_cells(options):
    texts = changed("bpr", loop="import os\nos.kill(os.getpid(), 9)\ndef textbook(*a): pass")
    score = graded("the cell that kills its kernel", "bpr", texts, options, whole=True)
    assert "not executed here" in score.changes["bpr"].values()
    assert score.marks["bpr"]["recommendations"] == 20
    assert score.marks["bpr"]["reproducibility"] < 5


@pytest.mark.parametrize(
    ("what", "content"), [("no notebook, or renamed", None), ("a corrupt notebook", "{cells:")]
)
def test_without_a_notebook_the_kernel_still_counts(what, content, options):
    texts = submitted("bpr")
    del texts["notebooks/03_bpr.ipynb"]
    texts |= {} if content is None else {"notebooks/03_bpr.ipynb": content}
    score = graded(what, "bpr", texts, options)
    assert re.search("was not submitted|is cut off", str(score.reasons["bpr"]))
    assert score.marks["bpr"]["correctness"] == 40
    assert score.marks["bpr"]["loop and exercises"] == 0


def test_one_bad_file_affects_only_its_task(options):
    texts = submitted("bpr") | submitted("svd")
    texts["mflib/svd.py"] = (
        "import torch\ntorch.set_default_dtype(torch.float16)\ntorch.abs = None\n)\n"
    )
    score = graded("a file that cannot be parsed", "svd", texts, options)
    assert score.marks["bpr"]["correctness"] == 40
    assert score.marks["svd"]["loop and exercises"] == 15
    assert "svd.py, line 4): unmatched ')'" in score.reasons["svd"][0]
    assert len(score.functions) == len(OUTPUTS)
