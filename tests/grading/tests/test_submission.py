"""Reading notebooks of any form: cells are recognised and answers include their dependencies."""

import ast
import json
from functools import partial
from types import SimpleNamespace

import nbformat
import pytest

from grading.intake import declarations
from grading.intake.cells import handed_out, without_magics
from grading.intake.collect import File, Package
from grading.intake.declarations import declaration_in
from grading.intake.submission import damage, is_newer, read
from grading.paths import ROOT
from grading.pipeline import Options, grade

KNOWN = handed_out(ROOT / "notebooks")
EXERCISES = ["loop", "exercise-1", "exercise-2", "exercise-3"]


def notebook(name="01_svd"):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))


def cell(book, name):
    return next(c for c in book["cells"] if c["id"] == name)


def code(source):
    cell = {"cell_type": "code", "id": "new", "metadata": {}, "source": source}
    return cell | {"outputs": [], "execution_count": None}


def given(book, name="notebooks/01_svd.ipynb", **more):
    content = book if isinstance(book, bytes) else json.dumps(book).encode()
    files = {name: content, "mflib/svd.py": b"x = 1"} | more
    return read({n: File(lambda c=c: c, 0.0) for n, c in files.items()}, KNOWN)


def run(answer):
    space = {}
    exec("import numpy as np", space)
    for _, source in answer:
        exec(source, space)
    return space


def without_ids(book):
    book["nbformat_minor"] = 4
    for c in book["cells"]:
        del c["id"]


def colab(book):
    book["nbformat_minor"] = 0
    for c in book["cells"]:
        c["metadata"]["id"] = c.pop("id")


def new_ids(book):
    for n, c in enumerate(book["cells"]):
        c["id"] = f"fresh-{n}"


def lists_of_lines(book):
    for c in book["cells"]:
        source = c["source"] if isinstance(c["source"], str) else "".join(c["source"])
        c["source"] = source.splitlines(keepends=True)


@pytest.mark.parametrize("form", [without_ids, colab, new_ids, lists_of_lines])
def test_every_form_of_a_notebook_gives_the_same_answers(form):
    book, plain = notebook(), given(notebook())
    form(book)
    found = given(book)
    assert found.problems["svd"] == plain.problems["svd"] == []
    assert {k: [s for _, s in a] for k, a in found.answers.items()} == {
        k: [s for _, s in a] for k, a in plain.answers.items()
    }
    assert sorted(plain.answers) == [
        "svd/check_step",
        "svd/new_user",
        "svd/prediction",
        "svd/textbook",
    ]
    assert set(EXERCISES) <= set(found.stored["svd"])
    assert len(found.stored["svd"]) == len(plain.stored["svd"]), "other cells, too, by their source"


def test_a_script_with_cell_marks_is_read():
    cells = [c for c in notebook()["cells"] if c["cell_type"] == "code"]
    script = "\n".join("# %%\n" + "".join(c["source"]) + "\n" for c in cells)
    found = given(script.encode(), "notebooks/01_svd.py")
    assert len(found.answers) == 4
    assert "is a script and has no outputs" in str(found.problems["svd"][0])


def test_answers_include_helpers_constants_and_imports():
    book = notebook()
    cell(book, "exercise-3")["source"] = "def check_step(x):\n    return half(np.clip(x, LOW, 5))"
    book["cells"].insert(3, code("import math\nLOW: float = 1\nprint(undefined)\n"))
    book["cells"].append(code("def half(x):\n    return x / math.sqrt(4)"))
    book["cells"].append(code("x = estimates = print('not needed')"))
    answer = given(book).answers["svd/check_step"]
    assert run(answer)["check_step"](8.0) == 2.5
    assert "not needed" not in str(answer), "x is a local variable of the function"
    assert "undefined" not in "".join(source for _, source in answer)


@pytest.mark.parametrize(
    "cells",
    [
        ["GAINS = {}", "for place in (1, 2):\n    GAINS[place] = 1 / place"],
        ["GAINS = [0]", "GAINS.append(1)", "GAINS += [0.5]"],
        ["GAINS = [0.5, 1]\nGAINS.sort()", "GAINS.insert(0, 0); print(GAINS)"],
        ["GAINS = {1: 7}", "GAINS.update({1: 1, 2: 0.5})"],
        ["BASE = 1", "BASE += 1", "GAINS = [0, 1, 1 / BASE]"],
        ["from contextlib import nullcontext", "with nullcontext([0, 1, 0.5]) as GAINS:\n    pass"],
        ["GAINS = np.zeros(3)", "GAINS[1:] = 1, 0.5"],
        ["GAINS = [7, 0, 1]", "def turn(x):\n    x.append(0.5)", "turn(GAINS)", "del GAINS[0]"],
        ["GAINS = 3", "GAINS = [undefined]", "GAINS = [0, 1, 0.5]"],
        [
            "class Gains:\n    pass\nGAINS = Gains()",
            "Gains.__getitem__ = lambda _, n: [0, 1, 0.5][n]",
        ],
        ["if True:\n    GAINS = [0, 1]\nwhile len(GAINS) < 3:\n    GAINS.append(0.5)"],
    ],
)
def test_answers_include_changes_of_names_by_other_cells(cells):
    for before in (True, False):
        book = notebook()
        cell(book, "exercise-3")["source"] = "def check_step(x):\n    return GAINS[1] + GAINS[2]"
        place = 3 if before else len(book["cells"])
        book["cells"][place:place] = [code(source) for source in cells]
        assert run(given(book).answers["svd/check_step"])["check_step"](0) == 1.5


def test_later_cells_fill_an_object_of_the_answers_cell():
    book = notebook()
    source = "GAINS = {}\n\ndef check_step(x):\n    return GAINS[x]"
    cell(book, "exercise-3")["source"] = source
    book["cells"].append(code("GAINS[1] = 0.5\nx = undefined"))
    answer = given(book).answers["svd/check_step"]
    assert run(answer)["check_step"](1) == 0.5
    assert "undefined" not in str(answer)


def test_answers_include_constants_added_to_given_cells():
    book = notebook()
    cell(book, "exercise-3")["source"] = "def check_step(x):\n    return BASE + TOP"
    handed_out = cell(book, "exercise-2-check")
    handed_out["source"] = ["BASE = 2\n", "TOP = BASE * 2\n", *handed_out["source"]]
    answer = given(book).answers["svd/check_step"]
    assert run(answer)["check_step"](0) == 6
    assert "rng" not in str(answer), "computing statements of given cells are left out"


def test_split_merged_and_repeated_cells_are_read():
    book = notebook()
    first, second = cell(book, "exercise-3"), cell(book, "exercise-2")
    second["source"] = ["def check_step(x):\n    return 7\n\n\n", *second["source"]]
    book["cells"].remove(first)
    found = given(book)
    assert run(found.answers["svd/check_step"])["check_step"](0) == 7
    assert "svd/new_user" in found.answers
    book = notebook()
    empty = "def check_step(x):\n    raise NotImplementedError('yours')"
    cell(book, "exercise-3")["source"] = empty
    book["cells"].append(code("def check_step(x):\n    return 8"))
    assert run(given(book).answers["svd/check_step"])["check_step"](0) == 8, "not the empty one"
    cell(book, "exercise-3")["source"] = "def check_step(x:\n"
    del book["cells"][-1]
    assert given(book).answers["svd/check_step"] == [("exercise-3", "def check_step(x:\n")]


def test_lambdas_wrapped_functions_and_imports_define_an_answer():
    for source in (
        "check_step = lambda x: 9",
        "def _c(x):\n    return 9\ncheck_step = _c",
        "check_step = abs",
    ):
        book = notebook()
        cell(book, "exercise-3")["source"] = source
        assert "svd/check_step" in given(book).answers


def test_without_magics_removes_magics_and_shell_lines():
    source = "%%time\n!pip install numpy\n%matplotlib inline\nif x:\n    %time f(x)\n    !ls\ng?"
    clean = without_magics(source)
    assert clean.split("\n") == ["", "", "", "if x:", "    f(x)", "    pass", ""]
    assert without_magics("%%bash\nls") == ""
    assigned = without_magics("names = !ls \\\n    -l\nspeed = %timeit -o f()\nx = 1")
    lines = assigned.split("\n")
    assert len(lines) == 4, "lines keep their numbers"
    assert lines[0] == "names = get_ipython().getoutput('ls      -l')"
    assert lines[2] == "speed = get_ipython().run_line_magic('timeit', '-o f()')"
    assert without_magics("!ls \\\n  -l\n%time y = f(1)\n??f\nx = 1") == "\n\ny = f(1)\n\nx = 1"
    assert without_magics("\n%%time\nx = 1") == "\n\nx = 1"
    untouched = "x = (5\n% 3)\nprint('!a')"
    assert without_magics(untouched) == untouched


def test_missing_files_and_cells_are_reported():
    book = notebook()
    book["cells"].remove(cell(book, "exercise-2"))
    found = given(book)
    assert "new_user: the cell exercise-2 is missing" in map(str, found.problems["svd"])
    missing = ["als.py: was not submitted", "02_als.ipynb: was not submitted"]
    assert [str(problem) for problem in found.problems["als"]] == missing
    nothing = read({"essay.docx": File(lambda: b"", 0.0)}, KNOWN)
    assert "none of the expected files" in nothing.notes[0]
    assert "essay.docx" in nothing.notes[0]


def test_why_there_are_no_files_is_said_once(tmp_path):
    options = Options("ml-100k", 7, tmp_path / "suite")
    empty = Package("ann", {}, ["work.zip has no files"])
    assert grade(empty, options, tmp_path).notes == ["work.zip has no files"]
    essay = Package("bo", {"essay.docx": File(lambda: b"", 0.0)}, ["late"])
    late, unknown = grade(essay, options, tmp_path).notes
    assert late == "late"
    assert "there is: essay.docx" in unknown


@pytest.mark.parametrize(
    "content",
    [b"{not json", b"[1]", b"\xff\xfe\x00", b'{"cells": 5}', b"[" * 100_000, b'{"cells": [1, {}]}'],
)
def test_malformed_notebooks_are_reported(content):
    found = given(content)
    assert found.answers == {}
    assert found.problems["svd"]


CONFLICT = "<<<<<<< HEAD\nx = 1\n=======\nx = 2\n>>>>>>> main\n"
BOOK = json.dumps(notebook(), indent=1).encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("svd.py", b"", "is empty"),
        ("svd.py", b" \n", "is empty"),
        ("svd.py", b"version https://git-lfs.github.com/spec/v1\noid 1", "is a pointer of Git LFS"),
        ("svd.py", b"<!DOCTYPE html><html>", "is a web page"),
        ("svd.py", BOOK, "is a notebook under the name of a module"),
        ("svd.py", f"y = 0\n{CONFLICT}".encode(), "has merge-conflict markers from line 2 on"),
        ("svd.py", b"def f(x):\n    return (x +\n", "is cut off"),
        ("01_svd.ipynb", b"", "is empty"),
        ("01_svd.ipynb", BOOK[: len(BOOK) // 2], "is cut off: its end is missing"),
        ("01_svd.ipynb", b"PK\x03\x04 and more", "is a zip"),
        ("01_svd.ipynb", CONFLICT.encode() + BOOK, "has merge-conflict markers from line 1 on"),
    ],
)
def test_damaged_files_are_described(name, content, said):
    found = read({name: File(lambda: content, 0.0)}, KNOWN)
    assert [str(p) for p in found.problems["svd"] if p.message.startswith(f"{name}: {said}")]
    assert [note for note in found.notes if note.startswith(f"{name}: {said}")]
    assert "svd" not in found.modules or name != "svd.py"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("svd.py", b"def f(:\n    pass\n"),  # wrong, not cut off
        ("svd.py", b'"""\n=======\nTitle\n=======\n"""\n'),
        ("01_svd.ipynb", BOOK),
        ("01_svd.ipynb", b"# %%\nx = 1\n"),  # a script under this name
    ],
)
def test_undamaged_files_are_not_reported(name, content):
    assert damage(content, name) == ""


def test_a_module_that_takes_a_minute_to_read_is_not_read():
    """Reading an f-string with so many parts takes 17 s, four times."""
    found = read({"mflib/svd.py": File(lambda: f"f'{'{a}' * 170_000}'".encode(), 0.0)}, KNOWN)
    problem, *_ = found.problems["svd"]
    most = "expected at most 200,000 characters, got 510,003"
    assert str(problem) == f"svd.py: is too long and was not read: {most}"
    assert not found.modules
    assert damage(b"#" * 200_000, "svd.py") == ""


def test_conflict_markers_in_a_cell_affect_only_its_answer():
    book = notebook()
    source = cell(book, "exercise-2")["source"]
    cell(book, "exercise-2")["source"] = f"{CONFLICT}{source}"
    found = given(book)
    assert "svd/new_user" not in found.answers
    assert len(found.answers) == 3
    (problem,) = [p for p in found.problems["svd"] if p.function == "new_user"]
    assert "has merge-conflict markers" in problem.message


def saved_with(version, source):
    book = notebook()
    book["metadata"]["language_info"] = {"name": "python", "version": version}
    cell(book, "exercise-2")["source"] = source
    return book


NEWER = "def new_user[T](x: T) -> T:\n    return x\n"


def test_syntax_of_a_newer_python_is_reviewed(monkeypatch):
    """The tests use the grammar of Python 3.11, on any version."""
    monkeypatch.setattr("grading.intake.submission.sys", SimpleNamespace(version_info=(3, 11)))
    old = partial(ast.parse, feature_version=(3, 11))
    monkeypatch.setattr("grading.intake.submission.ast.parse", old)
    newer = (3, 13)
    assert "line 1 may be newer than the grader's Python (3.11)" in is_newer(NEWER, newer)
    assert is_newer(NEWER, ()), "the version may not be known"
    assert is_newer("type Pair = tuple[int, int]\n", newer)
    assert is_newer(NEWER, (3, 11)) == "", "then it is a mistake"
    assert is_newer("def f(:\n    pass\n", newer) == ""
    assert is_newer("x = 1\n", newer) == ""


def test_code_for_a_newer_python_needs_a_review(monkeypatch):
    monkeypatch.setattr(
        "grading.intake.submission.is_newer",
        lambda source, version: "newer" if "[T]" in source and version == (3, 99) else "",
    )
    found = given(saved_with("3.99.1", NEWER), **{"mflib/svd.py": NEWER.encode()})
    assert "svd" not in found.modules
    assert "svd/new_user" not in found.answers
    assert len(found.review) == 2
    assert len(found.answers) == 3
    assert given(saved_with("3.11.2", "x = 1")).review == []


def test_malformed_cells_do_not_stop_reading():
    book = notebook()
    book["cells"] += [{"cell_type": "code", "source": 5, "metadata": [], "id": 7}, {}, "text"]
    book["cells"].append(code("x = 1" + " + 1" * 3000))
    assert len(given(book).answers) == 4


def test_a_copy_of_the_edition_is_not_mistaken_for_the_work():
    found = given(notebook(), **{"checks/suite/mflib/svd.py": b"empty", "mflib/svd.py": b"mine"})
    assert found.modules["svd"] == b"mine"
    assert found.notes == []


def declared(text=declarations.TEXT, **fields):
    return {"cell_type": "markdown", "id": declarations.ID, "metadata": {}, "source": text} | fields


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (declared(), ""),
        (
            declared(declarations.TEXT + "\n\nAn assistant,\nfor a sign."),
            "An assistant,\nfor a sign.",
        ),
        (declared("Nobody."), "Nobody."),
        (declared(["a\n", "b"], id="new", metadata={"id": declarations.ID}), "a\nb"),
        (declared("## Declaration\nNobody.", id="new"), "Nobody."),
        (declared("Nobody.", id="new"), ""),
        (declared("Nobody.", cell_type="code"), ""),
        (declared("x" * 2_000), "x" * 1_500 + "…"),
        (declared(7), ""),
    ],
)
def test_a_declaration_is_the_text_that_a_student_has_added(cell, expected):
    book = notebook()
    book["cells"] += ["no cell", cell]
    assert declaration_in(json.dumps(book).encode()) == expected
    assert declaration_in(b"{no") == declaration_in(b"[]") == declaration_in(b"") == ""


def test_a_declaration_changes_nothing_else():
    book = notebook()
    before = given(book)
    book["cells"].append(declared("def textbook(*_): an assistant wrote it"))
    after = given(book)
    assert after.declarations == {"svd": "def textbook(*_): an assistant wrote it"}
    assert (after.answers, after.notes, after.problems) == (
        before.answers,
        before.notes,
        before.problems,
    )


def test_notebooks_of_version_3_and_nbformat_agree():
    book = nbformat.read(ROOT / "notebooks" / "01_svd.ipynb", as_version=4)
    old = json.loads(nbformat.writes(nbformat.convert(book, 3), version=3))
    assert len(given(old).answers) == 4
