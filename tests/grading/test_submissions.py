"""Whole submissions of one task each, graded: right ones, wrong ones, and those that mean harm.

Takes up to an hour, so `make test` leaves it to `make submissions`. What was given and why is
written to build/submissions.md.
"""

import re
from pathlib import Path

import grade
import nbformat
import pytest
import rules
from cases import RUBRIC
from edition import ROOT, blank
from sandbox import protections
from test_edition import MISTAKES

MISSING = [tool for tool, there in protections().items() if not there]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs bubblewrap and util-linux; missing: {MISSING}"
    ),
]
TABLE = ROOT / "build" / "submissions.md"

# Mistakes beside those that the student's checks are tried with: task, right, wrong, what the
# reasons must say.
WRONG = {what: (*mistake, f"{function}: ") for what, (*mistake, function) in MISTAKES.items()} | {
    "seed ignored": (
        "svd",
        "    p, q =",
        "    P += 1e-3 * torch.randn(P.shape).to(P)\n    p, q =",
        "svd_step: ",
    ),
    "the negative item stays": (
        "bpr",
        "    Q.index_add_(0, negatives, torch.add(step_p, qj, alpha=shrink_q).neg_())\n",
        "",
        "bpr_st",
    ),
    "the user's penalty on the items": (
        "bpr",
        "shrink_q = learning_rate * item_regularization",
        "shrink_q = learning_rate * user_regularization",
        "bpr_step: ",
    ),
    "empty cells forgotten": ("als", "A = Y.T @ Y + penalty", "A = penalty", "cholesky: "),
    "right, but a loop over the batch": (
        "svd",
        "    p, q =",
        "    for n in range(20 * len(users)):\n"
        "        float(P[users[n % len(users)]].sum())\n"
        "    p, q =",
        "by the clock",
    ),
}
# What stands first in bpr_step and is refused unread, and what the reasons must say.
REFUSED = {
    "os._exit": ("import os; os._exit(0)", "imports"),
    "reading for the reference": ("P += float(open('cases.py').read()[0] == 'x')", "uses open"),
    "reading for the test items": ("import numpy; numpy.load('train.npz')", "attribute 'load'"),
    "a metric replaced": (
        "import mflib.metrics; mflib.metrics.ranking_metrics = None",
        "by its attribute",
    ),
    "network": ("import urllib.request", "imports"),
    "a process left behind": ("import subprocess; subprocess.Popen(['sleep', '999'])", "imports"),
    "the system, through a module": ("import mflib.data; mflib.data.os._exit(0)", "attribute 'os'"),
}
AT_EXIT = "import atexit, pathlib, numpy, os; here = pathlib.Path('bpr_step.npz'); atexit.register"
# The same with the refusal out of the way: what the sandbox, or the reading of what comes out of
# it, makes of them.
HARM = {
    "os._exit": ("import os; os._exit(0)", "no results came out"),
    "sys.exit(0)": ("raise SystemExit(0)", "no results came out"),
    "an endless loop": ("while True: pass", "by the clock"),
    "memory": ("hog = [torch.ones(2**27) for _ in range(1000)]", "RuntimeError|MemoryError"),
    "network": ("import socket; socket.create_connection(('1.1.1.1', 53), 3)", "raises OSError"),
    "a process left behind": (
        "import subprocess; subprocess.Popen(['sleep', '999']); raise SystemExit",
        "no results came out",
    ),
    "a fork bomb": (
        "import os\n    while True: os.fork()",
        "many processes|by the clock|ended with|raises",
    ),
    "killed": ("import os; os.kill(os.getpid(), 9)", "exit code|no results"),
    "gigabytes of output": ("while True: print('x' * 2**20)", "exit code|by the clock|raises"),
    "gigabytes of files": (
        "import os\n    while True: open(str(os.urandom(8).hex()), 'wb').write(bytes(2**26))",
        "for filling the disk",
    ),
    "writing outside": ("open('/usr/stolen', 'w')", "Read-only"),
    "reading outside": (f"open('{ROOT}/tests/grading/grade.py')", "No such file"),
    "a pickle": (
        AT_EXIT + "(numpy.savez, 'bpr_step.npz', **{'1101/0': numpy.array([print])})",
        "Object arrays cannot be loaded",
    ),
    "a link in place of results": (
        AT_EXIT + "(lambda: [here.unlink(), here.symlink_to('train.npz')])",
        "expected bpr_step.npz to be a file",
    ),
    "a pipe in place of results": (
        AT_EXIT + "(lambda: [here.unlink(), os.mkfifo(here)])",
        "expected bpr_step.npz to be a file",
    ),
    "links where the notebook comes": (
        "import os; os.symlink('/tmp', 'tests'); os.symlink('/tmp', 'data')",
        "raises FileExistsError",
    ),
    "the grader detected": (
        "import sys\n    if 'worker.py' in sys.argv[0]: return users",
        "bpr_step: ",
    ),
}


def submitted(task: str) -> dict[str, str]:
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in grade.NAMES}
    name = f"notebooks/{RUBRIC[task]['notebook']}.ipynb"
    # what the student has seen on this data set
    stored = ROOT / "tests" / "notebooks" / "ml-100k" / Path(name).name
    return texts | {name: stored.read_text(encoding="utf-8")}


def graded(what: str, task: str, texts: dict[str, str]) -> tuple[float, str, dict[str, float]]:
    report = grade.Report(what)
    grade.grade_task(task, texts, "ml-100k", False, report)
    total, reasons = sum(report.marks[task].values()), " ; ".join(report.reasons[task])
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("a", encoding="utf-8") as file:
        line = f"| {what} | {task} | {total:.1f} | {reasons[:160].replace('|', '/')} |"
        file.write(line.replace("\n", " ") + "\n")
    return total, reasons, report.marks[task]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    seconds = {"functions": 60, "notebook": 120, "notebook of an endless loop": 40}
    monkeypatch.setattr(grade, "SECONDS", seconds)


def edited(task: str, right: str, wrong: str) -> dict[str, str]:
    texts, name = submitted(task), f"mflib/{RUBRIC[task]['module']}.py"
    assert right in texts[name], "bring the mistake up to date"
    return texts | {name: texts[name].replace(right, wrong, 1)}


@pytest.mark.parametrize("task", RUBRIC)
def test_the_reference_has_full_marks(task):
    total, reasons, _ = graded("the reference", task, submitted(task))
    assert total == 100, reasons


@pytest.mark.parametrize("task", RUBRIC)
def test_what_was_handed_out_has_none(task):
    texts = submitted(task)
    name = f"mflib/{RUBRIC[task]['module']}.py"
    texts[name] = blank(texts[name], RUBRIC[task]["functions"])
    notebook = nbformat.reads(texts[f"notebooks/{RUBRIC[task]['notebook']}.ipynb"], as_version=4)
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.source = "raise NotImplementedError"
    texts[f"notebooks/{RUBRIC[task]['notebook']}.ipynb"] = nbformat.writes(notebook)
    total, reasons, _ = graded("nothing done, stored outputs copied", task, texts)
    assert total == 0
    assert reasons.count("not attempted") >= len(RUBRIC[task]["functions"])


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_costs_and_is_named(what):
    task, right, wrong, says = WRONG[what]
    total, reasons, marks = graded(what, task, edited(task, right, wrong))
    assert total < 100
    assert says in reasons
    if "clock" not in says:
        assert marks["correctness"] < grade.POINTS["correctness"]


def harmful(code: str) -> dict[str, str]:
    return edited("bpr", "    p = P.index", f"    {code}\n    p = P.index")


@pytest.mark.parametrize("what", REFUSED)
def test_what_reaches_for_more_is_refused(what):
    code, says = REFUSED[what]
    total, reasons, marks = graded(f"{what}, refused", "bpr", harmful(code))
    assert marks["correctness"] == 0
    assert total <= 15, "the exercises"
    assert says in reasons


@pytest.mark.parametrize("what", HARM)
def test_harm_gives_a_mark_and_a_reason(what, monkeypatch):
    monkeypatch.setattr(rules, "refused", lambda *_: None)
    code, says = HARM[what]
    total, reasons, marks = graded(what, "bpr", harmful(code))
    assert marks["correctness"] == 0
    assert total <= 50, "what the exercises and, if they came out, the lists are worth"
    assert re.search(says, reasons), reasons


def changed_cells(change) -> dict[str, str]:
    texts = submitted("bpr")
    notebook = nbformat.reads(texts["notebooks/03_bpr.ipynb"], as_version=4)
    change(notebook)
    return texts | {"notebooks/03_bpr.ipynb": nbformat.writes(notebook)}


def answer(cell_id: str, source: str):
    def change(notebook):
        next(cell for cell in notebook.cells if cell.id == cell_id).source = source

    return change


def reorder(notebook):
    notebook.cells.reverse()


def without_cells(notebook):
    del notebook.cells[10:]


NOTEBOOKS = {
    "a check made to pass": (
        answer(
            "exercise-1",
            "import numpy as np\nnp.allclose = lambda *a, **k: True\ndef auc(*a): return 0.5",
        ),
        "exercise-1 changes an object by its attribute",
    ),
    "a builtin replaced": (
        answer("exercise-3", "int = lambda x: 0\ndef unliked(liked, r): return 0"),
        "binds \\['int'\\]",
    ),
    "a fake that equals everything": (
        answer(
            "exercise-1",
            "class Yes:\n    def __eq__(self, other): return True\ndef auc(*a): return Yes()",
        ),
        "uses ClassDef",
    ),
    "a check replaced through a dictionary": (
        answer(
            "exercise-1",
            "getattr(np, '__dict__').update(allclose=lambda *a: True)\ndef auc(*a): return 0.5",
        ),
        "uses getattr",
    ),
    "a cell that never ends": (
        answer("exercise-2", "while True: pass"),
        "by the clock|not executed",
    ),
    "cells removed": (without_cells, "is missing"),
    "cells in another order": (reorder, "another order"),
}


@pytest.mark.parametrize("what", NOTEBOOKS)
def test_a_changed_notebook_gives_a_mark_and_a_reason(what):
    change, says = NOTEBOOKS[what]
    total, reasons, _ = graded(what, "bpr", changed_cells(change))
    assert re.search(says, reasons), reasons
    assert total == 100 if what == "cells in another order" else 40 <= total < 100


def test_a_cell_that_kills_its_kernel_costs_what_comes_after(monkeypatch):
    monkeypatch.setattr(rules, "refused", lambda *_: None)
    killed = answer("loop", "import os\nos.kill(os.getpid(), 9)\ndef textbook(*a): pass")
    total, reasons, marks = graded("the cell that kills its kernel", "bpr", changed_cells(killed))
    assert "equality: not executed" in reasons
    assert marks["correctness"] == 40
    assert 75 <= total < 95


@pytest.mark.parametrize(
    ("what", "content"), [("no notebook, or renamed", None), ("a corrupt notebook", "{cells:")]
)
def test_without_a_notebook_the_kernel_still_counts(what, content):
    texts = submitted("bpr")
    del texts["notebooks/03_bpr.ipynb"]
    texts |= {} if content is None else {"notebooks/03_bpr.ipynb": content}
    total, reasons, marks = graded(what, "bpr", texts)
    assert "is missing" in reasons
    assert marks["correctness"] == 40
    assert total < 100
