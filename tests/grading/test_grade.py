"""What is taken of a submission, how it is put in place, and what the results are worth."""

import ast
import json
import os
import re
import zipfile
from base64 import b64encode
from datetime import datetime

import grade
import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from cases import RUBRIC, outputs
from grade import (
    NAMES,
    ROOT,
    SEEDS,
    Report,
    errors_of,
    judge_function,
    judge_notebook,
    ndcg,
    share,
    take,
)
from rules import answered, refused, refused_source, taken, transplant

from mflib.bpr import bpr_step

REFERENCE = "import os\n\n\ndef f(a, b):\n    return a + b\n\n\ndef g():\n    return f(1, 2)\n"


def packed(tmp_path, files):
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_only_the_expected_files_are_taken(tmp_path):
    files = dict.fromkeys(NAMES, "1") | {
        "../../evil": "x",
        "/etc/passwd": "x",
        "mflib/metrics.py": "x",
        "conftest.py": "x",
    }
    texts, trouble = take(packed(tmp_path, files))
    assert sorted(texts) == sorted(NAMES)
    assert trouble == []


def test_a_zip_may_hold_its_folder_and_a_mark_of_the_encoding(tmp_path):
    files = {f"assignment/{name}": "\ufeff1" for name in NAMES} | {
        f"__MACOSX/{name.replace('/', '/._')}": "x" for name in NAMES
    }
    texts, trouble = take(packed(tmp_path, files))
    assert texts == dict.fromkeys(NAMES, "1")
    assert trouble == []


@pytest.mark.parametrize(
    "damage", ["bomb", "link", "many", "corrupt", "deflate", "missing", "binary"]
)
def test_a_bad_zip_gives_a_reason(tmp_path, damage):
    files = dict.fromkeys(NAMES, "1")
    if damage == "bomb":
        files[NAMES[0]] = "0" * (21 * 2**20)
    elif damage == "many":
        files |= {str(n): "" for n in range(1001)}
    elif damage == "missing":
        del files[NAMES[0]]
    elif damage == "binary":
        files[NAMES[0]] = b"\xff\xfe\x00"
    path = packed(tmp_path, files)
    if damage == "deflate":
        content = bytearray(path.read_bytes())
        content[30 + len(NAMES[0])] = 255  # the first byte after the name
        path.write_bytes(content)
    if damage == "corrupt":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "link":
        with zipfile.ZipFile(path, "w") as archive:
            entry = zipfile.ZipInfo(NAMES[0])
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    texts, trouble = take(path)
    assert NAMES[0] not in texts
    assert any(reason.startswith(NAMES[0]) for reason in trouble)


def test_links_in_a_folder_are_not_followed(tmp_path):
    (tmp_path / "mflib").mkdir()
    (tmp_path / "mflib" / "svd.py").symlink_to("/etc/passwd")
    texts, trouble = take(tmp_path)
    assert texts == {}
    assert len(trouble) == len(NAMES)


def test_only_the_listed_functions_are_transplanted():
    submitted = "import evil\n\n\ndef f(a, b):\n    return a - b\n\n\ndef g():\n    return 'mine'\n"
    code, trouble = transplant(REFERENCE, submitted, ["f"])
    assert trouble == ["line 1 imports ['evil'], of which an answer has no use"]
    assert code == REFERENCE.replace("a + b", "a - b")


def test_what_cannot_be_transplanted_is_said():
    code, trouble = transplant(REFERENCE, "def f(a):\n    return a", ["f"])
    assert trouble == ["f: the arguments have been changed"]
    code, trouble = transplant(REFERENCE, "def f(a, b) return", ["f"])
    assert "cannot be parsed" in trouble[0]
    assert "NotImplementedError" in code
    assert compile(code, "code", "exec")


def test_the_graders_cells_stay_and_the_answers_come():
    path = ROOT / "notebooks" / "01_svd.ipynb"
    theirs = nbformat.read(path, as_version=4)
    for cell in theirs.cells:
        cell.source = "assert True" if cell.id.endswith("-check") else cell.source
        if cell.id == "exercise-1":
            cell.source = "def clip(x):\n    return x"
    notebook, _, trouble = answered(nbformat.read(path, as_version=4), nbformat.writes(theirs))
    cells = {cell.id: cell.source for cell in notebook.cells}
    assert trouble == []
    assert cells["exercise-1"] == "def clip(x):\n    return x"
    assert cells["exercise-1-check"] != "assert True"
    _, _, trouble = answered(nbformat.read(path, as_version=4), "{not json")
    assert "cannot be read" in trouble[0]
    assert len(trouble) == 5


def test_ndcg_and_shares_by_hand():
    wanted = sp.csr_matrix(np.array([[0, 1, 1, 0], [0, 0, 0, 0]]))
    ids = np.array([[1, 0, 2], [0, 1, 2]])
    assert ndcg(ids, wanted) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    repeated = np.array([[1, 1, 1], [0, 1, 2]])
    once = pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert ndcg(repeated, wanted) == once, "no item counts twice"
    assert [share(value, 0.1, 0.3) for value in (0.05, 0.1, 0.3, 0.4)] == [0, 0, 1, 1]
    assert 0 < share(1.0, 1.04, 0.92) < 1, "smaller may be better"


def right_arrays() -> dict[str, np.ndarray]:
    """What the sandbox would bring out for the reference's bpr_step."""
    made = {seed: outputs(bpr_step, "bpr_step", seed) for seed in SEEDS}
    return {f"{seed}/{n}": a for seed, arrays in made.items() for n, a in enumerate(arrays)}


def test_results_are_compared_with_the_reference_and_pickles_refused(tmp_path):
    file = tmp_path / "bpr_step.npz"
    assert judge_function("bpr", "bpr_step", file) == "no results came out"
    arrays = right_arrays()
    np.savez(file, **arrays)
    assert judge_function("bpr", "bpr_step", file) is None
    np.savez(file, **{key: a[:3] for key, a in arrays.items()})
    assert "expected the shape" in judge_function("bpr", "bpr_step", file)
    np.savez(file, **{key: np.array([print], dtype=object) for key in arrays})
    assert "cannot be read" in judge_function("bpr", "bpr_step", file)
    file.write_bytes(b"nothing")
    assert "cannot be read" in judge_function("bpr", "bpr_step", file)


def test_lists_are_judged_where_no_estimates_come(monkeypatch):
    movies = pd.DataFrame({"genres": ["A", "A|B", "B", "C"]})
    test, arrays = sp.csr_matrix([[0, 5.0, 0, 0], [4.0, 0, 0, 1]]), {"shape": np.array([2, 4])}
    count = np.array([20, 20, 20, 20])
    monkeypatch.setattr(grade, "hidden", lambda dataset: (arrays, test, movies, count))
    ids, similar = np.tile(np.arange(10) % 4, (2, 1)), np.tile(np.arange(11) % 4, (4, 1))
    found = grade.figures("bpr", "any", ids, similar, np.empty(0))
    assert found["recommendations"] == pytest.approx((1 / np.log2(3) + 1) / 2)
    assert 0 < found["similar movies"] < 1
    estimates = test.tocoo().data + 1
    found = grade.figures("svd", "any", ids, similar, estimates)
    assert found["recommendations"] == pytest.approx(1)
    with pytest.raises(ValueError, match="expected lists"):
        grade.figures("bpr", "any", ids[:1], similar, np.empty(0))


def test_late_submissions(tmp_path, monkeypatch):
    def full(task, texts, dataset, trust, report):
        report.marks[task], report.reasons[task] = {"correctness": 100.0}, []

    monkeypatch.setattr(grade, "grade_task", full)
    path = packed(tmp_path, {})
    deadlines = {"soft": grade.deadline("2026-01-31"), "hard": grade.deadline("2026-02-14")}
    totals = {}
    for day in ("2026-01-31T23:00", "2026-02-01T01:00", "2026-02-14T23:00", "2026-02-15T01:00"):
        os.utime(path, (0, datetime.fromisoformat(day).timestamp()))
        report = grade.grade(path, "ml-100k", False, deadlines)
        totals[day] = report.total
        assert bool(report.late) == any(
            "deadline" in reason for reason in report.reasons["submission"]
        )
    assert list(totals.values()) == [100, 80, 80, 0]


def test_a_failure_of_the_grader_costs_nobody_else_the_mark(tmp_path, monkeypatch):
    def fail(task, texts, dataset, trust, report):
        report.marks[task], report.reasons[task] = {"correctness": 25.0}, []
        if task == "bpr":
            raise KeyError("unforeseen")

    monkeypatch.setattr(grade, "grade_task", fail)
    report = grade.grade(packed(tmp_path, {}), "ml-100k", False, {})
    assert report.total == 25
    assert "unforeseen" in report.reasons["bpr"][0]
    assert report.reasons["warp"] == []


def test_a_class_is_found_and_each_has_its_own_name(tmp_path):
    for name in ("a.zip", "b.v1", "b.v2"):
        (tmp_path / name).write_text("") if name == "a.zip" else (tmp_path / name).mkdir()
    assert [path.name for path in grade.submissions([tmp_path])] == ["a.zip", "b.v1", "b.v2"]
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=r"several called \['a'\]"):
        grade.submissions([tmp_path])
    with pytest.raises(ValueError, match="got none"):
        grade.submissions([tmp_path / "b.v1"])


@pytest.mark.parametrize("kind", ["link", "pipe", "large", "folder"])
def test_only_plain_files_come_out(tmp_path, kind):
    file, other = tmp_path / "bpr_step.npz", tmp_path / "elsewhere.npz"
    np.savez(other, **right_arrays())
    assert judge_function("bpr", "bpr_step", other) is None
    if kind == "link":
        file.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        with file.open("wb") as stream:
            stream.truncate(2**29)
    assert "expected bpr_step.npz to be a file" in judge_function("bpr", "bpr_step", file)
    file.rename(tmp_path / "errors.json")
    reasons = []
    assert errors_of(tmp_path / "errors.json", reasons) == {}
    assert "cannot be read" in reasons[0]


def test_arrays_of_other_kinds_and_bombs_are_wrong_results(tmp_path):
    file = tmp_path / "bpr_step.npz"
    right = right_arrays()
    np.savez(file, **{key: a.astype(str) for key, a in right.items()})
    assert "expected numbers" in judge_function("bpr", "bpr_step", file)
    np.savez(file, **{key: a + np.nan for key, a in right.items()})
    assert "got nan" in judge_function("bpr", "bpr_step", file)
    np.savez_compressed(file, bomb=np.zeros(2**27))
    assert "expected at most" in judge_function("bpr", "bpr_step", file)
    assert share(np.nan, 0.1, 0.3) == 0


def test_what_is_checked_is_what_runs():
    """A form feed ends a line for str.splitlines, not for Python.

    A slice of its lines would bring along the import.
    """
    hidden = "QQQ\x0c\x0c\x0c\x0c\x0cimport pickle\nQQQ\n\n\ndef f(a, b):\n    return a - b\n"
    hidden = hidden.replace("QQQ", '"' * 3)
    code, trouble = transplant(REFERENCE, hidden, ["f"])
    assert trouble == []
    assert code == REFERENCE.replace("a + b", "a - b")
    assert transplant(REFERENCE, hidden.replace("\n", "\r\n"), ["f"])[0] == code


@pytest.mark.parametrize("damage", ["cells", "source", "list"])
def test_a_notebook_that_is_none_is_a_reason(damage):
    reference = nbformat.read(ROOT / "notebooks" / "01_svd.ipynb", as_version=4)
    theirs = json.loads(nbformat.writes(reference))
    if damage == "cells":
        del theirs["cells"]
    elif damage == "list":
        theirs = [theirs]
    else:
        theirs["cells"] = [dict(cell, cell_type="code", source=5) for cell in theirs["cells"]]
    _, left, trouble = answered(reference, json.dumps(theirs))
    assert len(trouble) >= 4
    assert left == {}


def test_without_ids_answers_are_known_by_their_functions():
    reference = nbformat.read(ROOT / "notebooks" / "01_svd.ipynb", as_version=4)
    theirs = json.loads(nbformat.writes(reference)) | {"nbformat_minor": 4}
    for cell in theirs["cells"]:
        del cell["id"]
    _, left, trouble = answered(reference, json.dumps(theirs))
    assert trouble == []
    assert sorted(left) == ["exercise-1", "exercise-2", "exercise-3", "loop"]


def executed(reference):
    cells = {
        cell.id: nbformat.v4.new_code_cell(cell.source, id=cell.id) for cell in reference.cells
    }
    for cell in cells.values():
        cell.execution_count = 1
    return cells


def test_a_notebook_that_does_not_come_out_earns_nothing():
    reference = nbformat.read(ROOT / "notebooks" / "01_svd.ipynb", as_version=4)
    cells = executed(reference)
    marks = dict.fromkeys(grade.POINTS, 0.0) | {"correctness": 40.0}
    reasons = []
    for out, notebook, reproducibility in ((cells, 15, 10), ({}, 0, 0)):
        found = dict(marks)
        judge_notebook(reference, cells, out, found, reasons)
        assert (found["notebook"], found["reproducibility"]) == (notebook, reproducibility)
    found = marks | {"correctness": 20.0}
    judge_notebook(reference, cells, cells, found, reasons)
    assert found["notebook"] == 15 * 3 / 4, "a loop that equals a wrong function earns nothing"


def test_stored_outputs_are_compared_cell_by_cell():
    def cell(text, count=1, kind="text/plain"):
        output = nbformat.v4.new_output("execute_result", {kind: text}, execution_count=1)
        return nbformat.v4.new_code_cell("x", id="x", outputs=[output], execution_count=count)

    assert grade._change(cell("0.5"), cell("0.5")) == ""
    assert grade._change(cell("0.4"), cell("0.5")) == "- 0.4\n+ 0.5"
    assert "no outputs" in grade._change(cell("0.5", count=None), cell("0.5"))
    assert "no outputs" in grade._change(None, cell("0.5"))
    assert "not executed" in grade._change(cell("0.5"), None)
    large = b64encode(b"0" * 16 + (10**5).to_bytes(4, "big") * 2).decode()
    assert "too large" in grade._change(cell(large, kind="image/png"), cell("0.5"))
    assert "cannot be read" in grade._change(
        cell("no base64!", kind="image/png"), cell("neither", kind="image/png")
    )


def test_the_page_shows_reasons_and_changes_and_runs_nothing(tmp_path):
    marks = {task: dict.fromkeys(grade.POINTS, 5.0) for task in RUBRIC}
    reasons = {"svd": ["svd_step: expected 1 & got <2>", "the second"]}
    html = grade.page(Report("<b>", marks, reasons, {"svd": {"loop": "- <script>\n+ 2"}}))
    assert (
        "<p class=first>svd_step: expected 1 &amp; got &lt;2&gt;</p><ul><li>the second</li></ul>"
        in html
    )
    assert "<dt>loop</dt><dd><pre>- &lt;script&gt;\n+ 2</pre></dd>" in html
    assert "<script" not in html
    grade.write([Report("a", marks, {"svd": ["no encoding has \ud800"]})], tmp_path)
    assert "\\ud800" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<b>" not in html


@pytest.mark.parametrize("content", [None, "", "[1]", '{"a": '])
def test_a_broken_list_of_errors_is_a_reason(tmp_path, content):
    file, reasons = tmp_path / "errors.json", []
    if content is not None:
        file.write_text(content)
    assert errors_of(file, reasons) == {}
    assert "cannot be read" in reasons[0]
    file.write_text('{"bpr_step": "not attempted"}')
    assert errors_of(file, []) == {"bpr_step": "not attempted"}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("import os", "imports"),
        ("from subprocess import run", "imports"),
        ("from mflib.data import os", "imports"),
        ("import mflib.data; mflib.data.os._exit(0)", "attribute 'os'"),
        ("np.load('train.npz')", "attribute 'load'"),
        ("np.allclose = print", "changes an object by its attribute 'allclose'"),
        ("(1).__class__", "attribute '__class__'"),
        ("getattr(np, 'x')", "uses getattr"),
        ("type('Y', (np.ndarray,), {})", "uses type"),
        ("open('x')", "uses open"),
        ("class A: pass", "ClassDef"),
        ("list = float", "binds \\['list'\\]"),
        ("if True:\n    def list(x): return 1", "binds"),
        ("match 1:\n    case list: pass", "binds"),
        ("import math as np", "binds"),
        ("from mflib.bpr import bpr_step as np", "binds"),
    ],
)
def test_answers_that_reach_for_more_are_refused(answer, says):
    assert re.search(says, refused(ast.parse(answer), {"list": "builtins", "np": "numpy"}))


@pytest.mark.parametrize(
    "answer",
    [
        "import numpy\ndef f(x):\n    list = 1\n    return numpy.exp(x)",
        "import numpy as np",
        "import bisect, heapq, random, time",
        "P.data += 1; P.grad = None; x = np.random.default_rng(0)",
        "y = P.trace() + np.array([1]).copy()",
        "for id in range(3): pass",
        "def f(input):\n    count = 0\n"
        "    def g():\n        nonlocal count\n        count += input\n    return g",
    ],
)
def test_honest_answers_are_not(answer):
    assert refused(ast.parse(answer), {"list": "builtins", "np": "numpy"}) is None


@pytest.mark.parametrize(
    "answer",
    [
        "def textbook(P, Q, users):\n    return bpr_step(P, Q, users)",
        "textbook = bpr_step",
        "from mflib.bpr import bpr_step as mine\ntextbook = mine",
        "def textbook(*batch):\n    from mflib import bpr\n    return bpr.bpr_step(*batch)",
        "import mflib.bpr\ntextbook = mflib.bpr.bpr_step",
        "def textbook(likes):\n    return BPR().fit(likes)",
    ],
)
def test_a_loop_that_calls_the_kernel_is_refused(answer):
    origins = {"BPR": "mflib.BPR", "bpr_step": "mflib.bpr.bpr_step", "rmse": "mflib.metrics.rmse"}
    assert "with which it is compared" in refused_source(answer, origins)
    assert refused_source("def textbook(x):\n    bpr = x\n    return rmse(bpr, x)", origins) is None


def test_an_answer_too_deep_to_be_read_is_refused():
    assert "cannot be parsed" in refused_source("x = 1" + " + 1" * 1200, {})


@pytest.mark.parametrize("entry", RUBRIC.values(), ids=RUBRIC)
def test_the_reference_is_not_refused(entry):
    notebook = nbformat.read(ROOT / "notebooks" / f"{entry['notebook']}.ipynb", as_version=4)
    assert {"np": "numpy"}.items() <= taken(notebook).items()
    text = (ROOT / "mflib" / f"{entry['module']}.py").read_text(encoding="utf-8")
    assert transplant(text, text, list(entry["functions"])) == (text, [])
    assert answered(notebook, nbformat.writes(notebook))[2] == []


def test_helpers_of_a_student_come_along():
    submitted = "import os\nimport math\nimport pickle\n\nTINY = 1e-9\ng = 5\n\n\n"
    submitted += "def half(x):\n    return x / 2\n\n\n"
    submitted += "def f(a, b):\n    return half(a) + math.sqrt(b)\n\n\n"
    submitted += "class A: pass\n\n\ndef g():\n    return 0\n"
    code, trouble = transplant(REFERENCE, "\ufeff".strip("\ufeff") + submitted, ["f"])
    space = {}
    exec(code, space)
    assert space["g"]() == 0.5 + 2**0.5, (
        "the function is the student's, with its helper; the rest is ours"
    )
    assert "A" not in space
    assert trouble == ["line 3 imports ['pickle'], of which an answer has no use"]
