"""Submissions of one task each, graded in the sandbox: right ones, and those that mean harm.

Takes minutes, so `make test` leaves it to `make submissions`. What was given and why is written to
build/submissions.md. How right and wrong answers are told apart is measured by accuracy.py.
"""

import re
import tempfile
from pathlib import Path

import marks
import nbformat
import pytest
from cases import OUTPUTS, RUBRIC
from edition import ROOT, blank, empty_suite
from package import File
from report import POINTS, Report
from sandbox import protections
from submission import read

MISSING = [tool for tool, there in protections().items() if not there]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs bubblewrap and util-linux; missing: {MISSING}"
    ),
]
TABLE = ROOT / "build" / "submissions.md"
STEP = "    p = P.index_select(0, users)  # B x F\n"
# A student's own results: the file of unit 0, and the word that it is done.
FORGED = "import numpy, os, pathlib; here = pathlib.Path('0.npz'); {}"
FORGED += "; open('results.jsonl', 'a').write('{{\"unit\": 0}}\\n'); os._exit(0)"
# What stands first in bpr_step, and what the reasons must say.
HARM = {
    "os._exit": ("import os; os._exit(0)", "before anything came out"),
    "sys.exit(0)": ("raise SystemExit(0)", "ends the program"),
    "an endless loop": ("while True: pass", "20 s of the processor"),
    "memory": ("hog = [torch.ones(2**27) for _ in range(1000)]", "RuntimeError|MemoryError"),
    "network": ("import socket; socket.create_connection(('1.1.1.1', 53), 3)", "raises OSError"),
    "a process left behind": (
        "import subprocess; subprocess.Popen(['sleep', '999']); raise SystemExit",
        "ends the program",
    ),
    "a fork bomb": (
        "import os\n    while True: os.fork()",
        "many processes|by the clock|ended|raises",
    ),
    "killed": ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    "the worker killed": ("import os; os.kill(os.getppid(), 9); raise SystemExit", "ended|ends"),
    "gigabytes of output": ("while True: print('x' * 2**20)", "exit code|clock|raises|ended"),
    "gigabytes of files": (
        "import os\n    while True: open(str(os.urandom(8).hex()), 'wb').write(bytes(2**26))",
        "for filling the disk",
    ),
    "writing outside": ("open('/usr/stolen', 'w')", "Read-only"),
    "reading outside": (f"open('{ROOT}/tests/grading/marks.py')", "No such file"),
    "the reference imported": (
        "from mflib.bpr import bpr_step as theirs; return theirs(P, Q, b, users, positives, "
        "negatives, learning_rate, user_regularization, item_regularization)",
        "needs bpr_step, which is not attempted|not attempted",
    ),
    "a metric replaced": (
        "import mflib.metrics; mflib.metrics.ranking_metrics = None; return None",
        "nothing changed",
    ),
    "a pickle": (
        FORGED.format("numpy.savez(here, **{'7/0/0': numpy.array([print])})"),
        "Object arrays cannot be loaded",
    ),
    "a link in place of results": (
        FORGED.format("here.symlink_to('job.json')"),
        "expected 0.npz to be a file",
    ),
    "a pipe in place of results": (FORGED.format("os.mkfifo(here)"), "expected 0.npz to be a file"),
    "the grader detected": (
        "import sys\n    if 'worker.py' in sys.argv[0]: return users",
        "bpr_step",
    ),
}
# A cell of 03_bpr and what stands in it instead; what the reasons must say.
CELLS = {
    "a check made to pass": (
        "exercise-2",
        "np.allclose = lambda *a, **k: True\ndef chosen(*a): return 0.5",
        "chosen.*in the probability expected",
    ),
    "a builtin replaced": (
        "exercise-3",
        "int = lambda x: 0\ndef unliked(liked, r): return 0",
        "unliked.*expected",
    ),
    "a fake that equals everything": (
        "exercise-2",
        "class Yes:\n    def __eq__(self, other): return True\ndef chosen(*a): return Yes()",
        "chosen.*expected numbers",
    ),
    "a cell that never ends": ("exercise-2", "while True: pass", "chosen.*20 s of the proc"),
    "a loop that calls the kernel": (
        "loop",
        "def textbook(P, Q, b, *batch):\n    return bpr_step(P, Q, b, *batch)",
        "textbook.*calls bpr_step of mflib",
    ),
    "a cell that kills its process": (
        "loop",
        "import os\nos.kill(os.getpid(), 9)\ndef textbook(*a): pass",
        "textbook.*killed by signal 9",
    ),
}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    suite = tmp_path_factory.mktemp("suite")
    empty_suite(suite)
    return marks.Options("ml-100k", 7, suite)


def submitted(task: str) -> dict[str, str]:
    """The reference's modules, and of a task the notebook that a student has seen."""
    entry = RUBRIC[task]
    stored = ROOT / "tests" / "notebooks" / "ml-100k" / f"{entry['notebook']}.ipynb"
    modules = [entry["module"] for entry in RUBRIC.values()]  # a notebook uses several models
    files = {f"mflib/{name}.py": ROOT / "mflib" / f"{name}.py" for name in modules}
    files[f"notebooks/{stored.name}"] = stored
    return {name: file.read_text(encoding="utf-8") for name, file in files.items()}


def graded(what: str, task: str, texts: dict[str, str], options, whole: bool = False) -> Report:
    """The report on one task; without ``whole``, of its functions only."""
    files = {name: File(text.encode, 0.0) for name, text in texts.items()}
    given, report = read(files, marks.known()), Report(what)
    with tempfile.TemporaryDirectory(prefix="grading-") as temporary:
        places = [Path(temporary) / name for name in ("functions", "lists", "notebook")]
        found = marks.tried(given, places[0], options)
        marks.mark_functions(given, found, report)
        if whole:
            marks.mark_lists(given, found, places[1], options, report)
            marks.mark_notebook(task, given, found, places[2], options, report)
    reasons = " ; ".join(report.reasons[task])
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("a", encoding="utf-8") as file:
        total = sum(report.marks[task].values())
        line = f"| {what} | {task} | {total:.1f} | {reasons[:160].replace('|', '/')} |"
        file.write(line.replace("\n", " ") + "\n")
    return report


def changed(task: str, **sources: str) -> dict[str, str]:
    texts = submitted(task)
    (name,) = (name for name in texts if name.endswith(".ipynb"))
    notebook = nbformat.reads(texts[name], as_version=4)
    for cell in notebook.cells:
        cell.source = sources.get(cell.id.replace("-", "_"), cell.source)
    return texts | {name: nbformat.writes(notebook)}


@pytest.mark.parametrize("task", RUBRIC)
def test_the_reference_has_full_marks(task, options):
    report = graded("the reference", task, submitted(task), options, whole=True)
    assert report.marks[task] == POINTS, report.reasons[task]


@pytest.mark.parametrize("task", RUBRIC)
def test_what_was_handed_out_has_none(task, options):
    empty = dict.fromkeys(("loop", "exercise_1", "exercise_2", "exercise_3"), "raise SystemExit")
    texts = changed(task, **empty)
    for entry in RUBRIC.values():
        name = f"mflib/{entry['module']}.py"
        texts[name] = blank(texts[name], entry["functions"])
    report = graded("nothing done, stored outputs copied", task, texts, options, whole=True)
    assert sum(report.marks[task].values()) == 0
    assert str(report.reasons).count("not attempted") >= len(RUBRIC[task]["functions"])


@pytest.mark.parametrize("what", HARM)
def test_harm_gives_a_mark_and_a_reason(what, options):
    code, says = HARM[what]
    texts = {name: text for name, text in submitted("bpr").items() if "bpr" in name}  # unit 0
    source = texts["mflib/bpr.py"]
    assert STEP in source
    texts["mflib/bpr.py"] = source.replace(STEP, f"    {code}\n{STEP}")
    report = graded(what, "bpr", texts, options)
    assert report.marks["bpr"]["correctness"] == 0
    reasons = " ; ".join(report.reasons["bpr"])
    assert re.search(says, reasons), reasons
    others = report.marks["bpr"]["loop and exercises"]
    assert others == 15 or "ended" in reasons, "what is not touched keeps its points"


@pytest.mark.parametrize("what", CELLS)
def test_a_cell_that_means_harm_costs_itself_alone(what, options):
    name, source, says = CELLS[what]
    texts = changed("bpr", **{name.replace("-", "_"): source})
    report = graded(what, "bpr", texts, options)
    reasons = " ; ".join(report.reasons["bpr"])
    assert re.search(says, reasons), reasons
    assert report.marks["bpr"]["correctness"] == 40
    assert report.marks["bpr"]["loop and exercises"] == 15 * 3 / 4


def test_a_cell_that_kills_its_kernel_costs_what_comes_after(options):
    texts = changed("bpr", loop="import os\nos.kill(os.getpid(), 9)\ndef textbook(*a): pass")
    report = graded("the cell that kills its kernel", "bpr", texts, options, whole=True)
    assert "not executed here" in report.changes["bpr"].values()
    assert report.marks["bpr"]["recommendations"] == 20
    assert report.marks["bpr"]["reproducibility"] < 5


@pytest.mark.parametrize(
    ("what", "content"), [("no notebook, or renamed", None), ("a corrupt notebook", "{cells:")]
)
def test_without_a_notebook_the_kernel_still_counts(what, content, options):
    texts = submitted("bpr")
    del texts["notebooks/03_bpr.ipynb"]
    texts |= {} if content is None else {"notebooks/03_bpr.ipynb": content}
    report = graded(what, "bpr", texts, options)
    assert re.search("was not handed in|cannot be read", str(report.reasons["bpr"]))
    assert report.marks["bpr"]["correctness"] == 40
    assert report.marks["bpr"]["loop and exercises"] == 0


def test_one_bad_file_costs_its_own_task_alone(options):
    texts = submitted("bpr") | submitted("svd")
    texts["mflib/svd.py"] = (
        "import torch\ntorch.set_default_dtype(torch.float16)\ntorch.abs = None\n("
    )
    report = graded("a file that cannot be parsed", "svd", texts, options)
    assert report.marks["bpr"]["correctness"] == 40
    assert report.marks["svd"]["loop and exercises"] == 15
    assert "svd.py, line 4): '(' was never closed" in report.reasons["svd"][0]
    assert len(report.functions) == len(OUTPUTS)
