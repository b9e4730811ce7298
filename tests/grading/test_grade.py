"""What is taken from a submission, how it is put in place, and what an array that comes out is worth."""

import ast
import zipfile

import nbformat
import numpy as np
import pytest
import scipy.sparse as sp
from cases import RUBRIC, outputs
from grade import (
    NAMES,
    ROOT,
    SEEDS,
    Report,
    errors_of,
    graded_notebook,
    judge_function,
    ndcg,
    refused,
    share,
    take,
    transplant,
)

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


@pytest.mark.parametrize("damage", ["bomb", "link", "many", "corrupt", "missing", "binary"])
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
    assert trouble == []
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
    notebook, _, trouble = graded_notebook(nbformat.read(path, as_version=4), nbformat.writes(theirs))
    cells = {cell.id: cell.source for cell in notebook.cells}
    assert trouble == []
    assert cells["exercise-1"] == "def clip(x):\n    return x"
    assert cells["exercise-1-check"] != "assert True"
    _, _, trouble = graded_notebook(nbformat.read(path, as_version=4), "{not json")
    assert "cannot be read" in trouble[0]
    assert len(trouble) == 5


def test_ndcg_and_shares_by_hand():
    wanted = sp.csr_matrix(np.array([[0, 1, 1, 0], [0, 0, 0, 0]]))
    ids = np.array([[1, 0, 2], [0, 1, 2]])
    assert ndcg(ids, wanted) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    assert ndcg(np.array([[1, 1, 1], [0, 1, 2]]), wanted) == pytest.approx(1 / (1 + 1 / np.log2(3))), (
        "no item counts twice"
    )
    assert [share(value, 0.1, 0.3) for value in (0.05, 0.1, 0.3, 0.4)] == [0, 0, 1, 1]
    assert 0 < share(1.0, 1.04, 0.92) < 1, "smaller may be better"


def test_results_are_compared_with_the_reference_and_pickles_refused(tmp_path):
    file = tmp_path / "bpr_step.npz"
    assert judge_function("bpr", "bpr_step", file) == "no results came out"
    arrays = {f"{seed}/{n}": a for seed in SEEDS for n, a in enumerate(outputs(bpr_step, "bpr_step", seed))}
    np.savez(file, **arrays)
    assert judge_function("bpr", "bpr_step", file) is None
    np.savez(file, **{key: a[:3] for key, a in arrays.items()})
    assert "expected the shape" in judge_function("bpr", "bpr_step", file)
    np.savez(file, **{key: np.array([print], dtype=object) for key in arrays})
    assert "cannot be read" in judge_function("bpr", "bpr_step", file)
    file.write_bytes(b"nothing")
    assert "cannot be read" in judge_function("bpr", "bpr_step", file)


def test_late_submissions():
    report = Report("name", marks={task: {"correctness": 100.0} for task in RUBRIC})
    assert [Report("n", report.marks, {}, late).total for late in (0, 1, 14, 15)] == [100, 80, 80, 0]


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
        ("np.allclose = print", "attribute 'allclose'"),
        ("(1).__class__", "attribute '__class__'"),
        ("open('x')", "uses open"),
        ("class A: pass", "ClassDef"),
        ("int = float", "binds"),
        ("import numpy\ndef f(x):\n    float = 1\n    return numpy.exp(x)", None),
    ],
)
def test_answers_that_reach_for_more_are_refused(answer, says):
    why = refused(ast.parse(answer), {"int", "float"})
    assert why is None if says is None else says in why
