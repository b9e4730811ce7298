"""The student edition contains no answers, and its checks detect mistakes."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pytest
import suite
import yaml

from grading.execution.empty import blank, blank_cell, blank_notebook
from grading.execution.inputs import SEEDS
from grading.execution.reference import expected
from grading.execution.trial import HARNESS, Unit, prepare, run_directly, run_units
from grading.intake import declarations
from grading.intake.cells import handed_out
from grading.intake.collect import File
from grading.intake.submission import read
from grading.judging.compare import judge
from grading.judging.verdict import Verdict
from grading.paths import GRADING, ROOT
from grading.pipeline import Grading, Options, compare_with_known, reproduce
from grading.rubric import OUTPUTS, RUBRIC, is_kernel
from grading.scoring import empty_score
from grading.student.check import main as check_command
from grading.student.edition import (
    CHECKS,
    MARK,
    MARK_LATER,
    OPTIONAL,
    OUTPUTS_OF_REFERENCE,
    build,
    fold_hints,
    without_playground,
)

# Plausible mistakes: module, right text, wrong text, the function that must be reported.
MISTAKES = {
    "the sign of a step": (
        "svd",
        "error = ratings - estimates",
        "error = estimates - ratings",
        "svd_step",
    ),
    "no penalty on the user": (
        "svd",
        "P.mul_(keep_u[:, None]).",
        "P.",
        "svd_step",
    ),
    "item bias forgotten": (
        "svd",
        "    b_i.mul_(keep_i).add_(entries.column_sums(step_i))\n",
        "",
        "svd_step",
    ),
    "duplicates lost": (
        "bpr",
        "b.mul_(keep_i).add_(likes.column_sums(step_i)).sub_(",
        "b.mul_(keep_i)\n    b[i.long()] += step_i\n    b.sub_(",
        "bpr_step",
    ),
    "the rate not bounded": (
        "svd",
        "row_rates(learning_rate, n_u, BOUND)",
        "torch.full_like(b_u, learning_rate)",
        "svd_step",
    ),
    "sigma(x) for sigma(-x)": ("bpr", "torch.sigmoid(-x)", "torch.sigmoid(x)", "bpr_step"),
    "penalty forgotten": ("als", "X @ gram - penalty * X", "X @ gram", "conjugate_gradient"),
    "confidence forgotten": (
        "als",
        "weighted: weighted)",
        "weighted: weighted.clamp(max=1))",
        "cholesky",
    ),
    "liked items violate": (
        "warp",
        "scorer(p_block, Q, known)\n",
        "scorer(p_block, Q, known[:1])\n",
        "warp_step",
    ),
    "rank off by one": (
        "warp",
        "(len(Q) - 1) // needed_draws)",
        "len(Q) // needed_draws - 1)",
        "warp_step",
    ),
    "draws counted from 0": ("warp", "start + 1 + first", "start + first", "first_violations"),
}


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    target = tmp_path_factory.mktemp("build") / "assignment"
    build(target)
    return target


def paths(edition: Path) -> str:
    """Return the PYTHONPATH that suite.py sets in the edition."""
    return os.pathsep.join(map(str, (edition / "checks", edition / "checks" / "suite")))


def check(edition: Path, *tasks: str) -> tuple[int, str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": paths(edition)}
    command = [sys.executable, "-P", "-m", "grading.student.check", *tasks]
    run = subprocess.run(command, cwd=edition, env=environment, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def answers() -> set[str]:
    """Return the unindented lines that occur only in blanked bodies.

    Short lines are left out, because they may occur anywhere.
    """
    inside, everywhere = Counter(), Counter()
    for entry in RUBRIC.values():
        source = (ROOT / "mflib" / f"{entry.module}.py").read_text(encoding="utf-8")
        notebook = nbformat.read(ROOT / "notebooks" / f"{entry.notebook}.ipynb", as_version=4)
        cells = [c.source for c in notebook.cells if "solution" in c.metadata.get("tags", [])]
        for text, names in [(source, set(entry.kernels)), *((cell, None) for cell in cells)]:
            everywhere.update(line.strip() for line in text.splitlines())
            for node in ast.parse(text).body:
                if isinstance(node, ast.FunctionDef) and (names is None or node.name in names):
                    first = node.body[1 if ast.get_docstring(node) else 0]
                    inside.update(
                        line.strip()
                        for line in text.splitlines()[first.lineno - 1 : node.end_lineno]
                    )
    return {line for line, times in inside.items() if len(line) > 24 and times == everywhere[line]}


def test_the_edition_contains_no_answers(edition):
    lines = answers()
    assert len(lines) > 100
    for file in edition.rglob("*"):
        if file.is_file() and file.suffix != ".npz":
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".ipynb":
                cells = nbformat.read(file, as_version=4).cells
                shown = [output for cell in cells for output in cell.get("outputs", [])]
                text = "\n".join([*(cell.source for cell in cells), *map(shown_text, shown)])
            assert not [line for line in lines if line in text], file.name
    names = {path.relative_to(edition).parts[0] for path in edition.rglob("*")}
    expected = {"mflib", "notebooks", "checks", "data", "README.md", "Makefile", "LICENSE"}
    expected |= {"AGENTS.md", ".github", "suite.py"}
    assert names == expected | {"requirements.txt", "pyproject.toml", ".gitignore"}
    assert not [path for path in edition.rglob("*") if path.suffix in (".pyc", ".html")]
    kernels = {path.name for path in (edition / "checks" / "grading" / "kernels").iterdir()}
    assert kernels == {"__init__.py", "public.py", "variants.py"}, (
        "variants of the student's own kernels alone"
    )
    with zipfile.ZipFile(edition.with_suffix(".zip")) as archive:
        packed = {name.partition("/")[2] for name in archive.namelist() if not name.endswith("/")}
    assert packed == {
        str(path.relative_to(edition)) for path in edition.rglob("*") if path.is_file()
    }


def shown_text(output: nbformat.NotebookNode) -> str:
    """Return all text of an output."""
    return "\n".join([output.get("text", ""), *map(str, output.get("data", {}).values())])


def test_notebooks_are_complete_and_without_answers(edition):
    for file in sorted((edition / "notebooks").glob("*.ipynb")):
        mine, whole = (
            nbformat.read(path, as_version=4) for path in (file, ROOT / "notebooks" / file.name)
        )
        nbformat.validate(mine)
        ids = [cell.id for cell in mine.cells]
        if file.name != OPTIONAL:
            assert ids[-2] == declarations.ID, "the declaration comes before the references"
            ids.remove(declarations.ID)
        assert ids == [cell.id for cell in whole.cells]
        solutions = [cell for cell in mine.cells if "solution" in cell.metadata.get("tags", [])]
        assert "source_hidden" not in str([cell.metadata for cell in solutions])
        stubs = [cell for cell in mine.cells if "NotImplementedError" in cell.source]
        assert stubs == solutions
        written = ["loop", "exercise-1", "exercise-2", "exercise-3"]
        assert [cell.id for cell in stubs] == (written if file.name != OPTIONAL else [])


def test_notebooks_show_marked_outputs_of_the_reference(edition):
    """Outputs with answers are left out, and no cell counts as executed."""
    for file in sorted((edition / "notebooks").glob("*.ipynb")):
        mine = nbformat.read(file, as_version=4)
        stored = nbformat.read(OUTPUTS_OF_REFERENCE / file.name, as_version=4)
        n_shown, later = 0, set()
        for cell in (cell for cell in mine.cells if cell.cell_type == "code"):
            (reference,) = (one for one in stored.cells if one.id == cell.id)
            hidden = cell.id == "kernel" or "check" in cell.metadata.get("tags", [])
            assert cell.execution_count is None
            if hidden or not reference.outputs:
                assert not cell.outputs, cell.id
                continue
            mark, *others = cell.outputs
            assert mark.data["text/plain"] in (MARK, MARK_LATER)
            later |= {cell.id} if mark.data["text/plain"] == MARK_LATER else set()
            assert list(map(shown_text, others)) == list(map(shown_text, reference.outputs))
            n_shown += 1
        assert n_shown >= 11, file.name
        assert later & {"idea", "by-hand", "baseline"} == set()
        assert later >= {"judged", "recommendations"} or file.name == OPTIONAL
        before = [cell.id for cell in mine.cells if "raises-exception" in str(cell.metadata)]
        opening = ["data", "call-recommend"] if file.name == "02_als.ipynb" else []
        assert before == ([] if file.name == OPTIONAL else opening)


def test_outputs_of_the_reference_earn_nothing(edition, tmp_path):
    """They earn nothing, even if execution counts have been added."""
    files, right = {}, {key: Verdict(key) for key in OUTPUTS}
    for file in (edition / "notebooks").glob("0[1-4]*.ipynb"):
        files[f"notebooks/{file.name}"] = File(file.read_bytes, 0.0)
    given = read(files, handed_out(ROOT / "notebooks"))
    for task in RUBRIC:
        score, stored = empty_score(), given.stored[task]
        options = Options("ml-100k", 7, tmp_path)
        reproduce(task, Grading(given, options, tmp_path, score, right))
        assert score.marks[task]["reproducibility"] == 0
        assert "the notebook was not executed" in score.reasons[task][-1]
        for n, cell in enumerate(stored.values(), 1):
            cell["execution_count"] = n
        shown = {name for name, cell in stored.items() if cell["outputs"]}
        assert len(shown) >= 11
        assert set(compare_with_known(task, stored, "ml-100k").differences) >= shown


def test_derivations_are_folded(edition):
    """The update is shown in a fold after the objective; other text is unchanged."""
    for entry in RUBRIC.values():
        name = f"{entry.notebook}.ipynb"
        mine, whole = (
            nbformat.read(folder / "notebooks" / name, as_version=4) for folder in (edition, ROOT)
        )
        n_folds = sum(cell.source.count("<summary>Hint: ") for cell in mine.cells)
        assert n_folds == sum(cell.source.count("<!-- hint: ") for cell in whole.cells) > 0
        assert not any("<!--" in cell.source for cell in mine.cells)
    folded = fold_hints("a\n\n<!-- hint: b -->\n\nc\n\n<!-- end of hint -->\n\nd")
    assert folded == "a\n\n<details><summary>Hint: b</summary>\n\nc\n\n</details>\n\nd"
    for broken in ("<!-- hint: b -->\nc", "c\n<!-- end of hint -->"):
        with pytest.raises(ValueError, match="expected pairs of hint and end of hint"):
            fold_hints(broken)


def test_the_edition_is_checked_at_each_push(edition):
    text = (edition / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["python suite.py check --strict"]
    assert "check" in suite.EDITION


@pytest.mark.parametrize("names", [HARNESS, CHECKS])
def test_copied_modules_import_only_copied_modules(names):
    for name in (name for name in names if name.endswith(".py")):
        for node in ast.walk(ast.parse((GRADING / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "grading":
                _, *path = node.module.split(".")
                modules = ["/".join(path)] if path else [alias.name for alias in node.names]
                assert {f"{module}.py" for module in modules} <= set(names), name


def test_the_checks_use_their_own_copy_of_the_suite(edition):
    name, own = "mflib/svd.py", edition / "checks" / "suite"
    assert (own / name).read_bytes() == (edition / name).read_bytes()
    known, given = (handed_out(folder / "notebooks") for folder in (own, edition))
    assert known == given


def test_check_reports_the_untouched_edition_as_not_attempted(edition):
    code, text = check(edition)
    assert code == 0, "unfinished work is no error of make"
    lines = len(OUTPUTS) + len(RUBRIC)  # with a line for the lists of each task
    assert f"0 of {lines} done, {lines} not attempted" in text


def with_answers(edition: Path, folder: Path) -> Path:
    """Copy the edition with the reference's answers to ``folder``."""
    shutil.copytree(edition, folder)
    for entry in RUBRIC.values():
        shutil.copy(ROOT / "mflib" / f"{entry.module}.py", folder / "mflib")
        shutil.copy(ROOT / "notebooks" / f"{entry.notebook}.ipynb", folder / "notebooks")
    return folder


def test_check_reports_the_reference_as_done(edition, tmp_path):
    code, text = check(with_answers(edition, tmp_path / "reference"), "--strict")
    assert code == 0, text
    lines = len(OUTPUTS) + len(RUBRIC)
    assert f"{lines} of {lines} done" in text


def test_one_task_can_be_checked_alone(edition, tmp_path):
    folder = with_answers(edition, tmp_path / "mine")
    shutil.copy(edition / "mflib" / "bpr.py", folder / "mflib")
    code, text = check(folder, "svd")
    assert (code, "6 of 6 done" in text, "bpr" in text) == (0, True, False), text


def test_check_shows_each_output_lists_and_the_smallest_case(edition, tmp_path):
    """The kernel has right losses but loses duplicates of users, so its model differs."""
    folder = with_answers(edition, tmp_path / "mine")
    file = folder / "mflib" / "bpr.py"
    source = file.read_text(encoding="utf-8")
    users = """P.mul_(keep_u[:, None]).addmm_(likes.matrix(step_u), Q)
    P.addmm_(others.matrix(step_u), Q, alpha=-1)"""
    lost = """P.mul_(keep_u[:, None])
    P[users.long()] += step_u[:, None] * (Q[i.long()] - Q[j.long()])"""
    assert users in source
    file.write_text(
        source.replace(users, lost).replace("b.mul_(keep_i)", "b.mul_(2 - keep_i)"), "utf-8"
    )
    code, text = check(folder, "bpr", "--strict")
    lines = [line.strip() for line in text.splitlines()]
    (of_P,) = [line for line in lines if "in P expected" in line]
    (of_b,) = [line for line in lines if "in b expected" in line]
    assert "keeps only one update per repeated user; use index_add_ or a sparse product" in of_P
    assert "the penalty" in of_b
    assert "bpr_step: right: Q, the losses" in lines
    assert "a case: check --show bpr_step" in lines
    (lists,) = [line for line in lines if "recommendations and similar movies" in line]
    assert lists.startswith("wrong"), "not done: points of lists are lost"
    assert "a model trained with bpr_step differs from the reference's" in lists
    assert code == 1
    code, text = check(folder, "--show", "bpr_step", "--strict")
    assert code == 1
    sections = text.split("\n\n")
    assert len(sections) >= 3, text
    for name in ("P =", "likes =", "negatives =", "user_regularization ="):
        assert name in sections[0]
    assert len(text.splitlines()) < 60, "the smallest case, not one of 50 triples"
    assert sections[1].startswith("P:\n    expected =")
    assert "\n    got =" in sections[1]


@pytest.mark.parametrize("arguments", [["--show", "step"], ["recommend"]])
def test_check_refuses_unknown_names(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check", *arguments])
    with pytest.raises(SystemExit, match="2"):
        check_command()
    assert f"got {arguments[-1]}\n" in capsys.readouterr().err


def test_check_names_the_mistakes(edition, tmp_path):
    """All mistakes run in one process, compared with the checks' expected outputs."""
    folder, units, stored = tmp_path / "work", [], np.load(edition / "checks" / "cases.npz")
    prepare(folder, edition / "checks" / "suite")
    for n, (module, right, wrong, function) in enumerate(MISTAKES.values()):
        source = (ROOT / "mflib" / f"{module}.py").read_text(encoding="utf-8")
        assert right in source, f"{right}: bring it up to date"
        (folder / str(n)).mkdir()
        (folder / str(n) / f"{module}.py").write_text(source.replace(right, wrong, 1), "utf-8")
        units.append(Unit(f"{module}/{function}", file=f"{n}/{module}.py"))
    results = run_units(folder, units, list(SEEDS), run_directly)
    for what, unit, result in zip(MISTAKES, units, results, strict=True):
        verdict = judge(unit.key, result.arrays, expected(unit.key, SEEDS))
        assert verdict.fraction < 1, f"{what} was not found"
        assert re.search("hint:|the penalty|a sign", verdict.sentence)
        for place, came in expected(unit.key, SEEDS).items():
            assert np.array_equal(stored[f"{unit.key}/{place}"], came.after)


def test_check_never_ends_in_a_traceback(edition, tmp_path):
    """Cases: a file with a syntax error, a malformed notebook, a missing file."""
    folder = with_answers(edition, tmp_path / "mine")
    file = folder / "mflib" / "svd.py"
    source = file.read_text(encoding="utf-8")
    line = 1 + source[: source.index("def svd_step(")].count("\n")
    file.write_text(source.replace("def svd_step(", "def svd_step(("), encoding="utf-8")
    (folder / "mflib" / "bpr.py").unlink()
    (folder / "notebooks" / "04_warp.ipynb").write_text("{no", encoding="utf-8")
    code, text = check(folder, "--strict")
    assert code == 1
    assert "Traceback" not in text
    assert f"svd_step (svd.py, line {line}): '(' was never closed" in text
    assert "bpr_step: bpr.py: was not submitted" in text
    assert "04_warp.ipynb: is cut off" in text
    gone = {"svd/svd_step", "bpr/bpr_step", "svd/check_step", "bpr/check_step"}
    gone |= {key for key in OUTPUTS if key.startswith("warp/") and not is_kernel(key)}
    lines = len(OUTPUTS) + len(RUBRIC)  # without the lists of svd and bpr
    assert f"{lines - len(gone) - 2} of {lines} done" in text


def test_obtain_works_with_a_broken_package(edition, tmp_path):
    """Otherwise a syntax error would prevent JupyterLab from starting."""
    broken = shutil.copytree(edition, tmp_path / "broken")
    (broken / "mflib" / "svd.py").write_text("def svd_step(", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "grading.student.obtain", "no-such"]
    environment = os.environ | {"PYTHONPATH": paths(broken)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=broken)
    assert "invalid choice: 'no-such'" in done.stderr  # mflib.data has been imported


def test_blank_keeps_signature_and_docstring():
    head, tail = 'def f(a: int) -> int:\n    """Doc."""\n', "\n\ndef g():\n    return 1\n"
    blanked = blank(f"{head}    b = a\n    return b\n{tail}", {"f": "think"})
    assert blanked == f'{head}    raise NotImplementedError("think")\n{tail}'
    with pytest.raises(ValueError, match="found no"):
        blank(head + tail, {"h": "?"})
    assert (
        blank_cell("def f(x):\n    return x")
        == 'def f(x):\n    raise NotImplementedError("f is yours to write")'
    )


def test_blank_notebook_unfolds_cells_of_answers():
    cell = nbformat.v4.new_code_cell("def f(x):\n    return x")
    cell.metadata = nbformat.from_dict({"tags": ["solution"], "jupyter": {"source_hidden": True}})
    other = nbformat.v4.new_code_cell("1", metadata={"jupyter": {"source_hidden": True}})
    seen = nbformat.v4.new_code_cell("def g():\n    return 1")
    both = {"source_hidden": True, "outputs_hidden": True}
    seen.metadata = nbformat.from_dict({"tags": ["solution"], "jupyter": both})
    blanked = blank_notebook(nbformat.v4.new_notebook(cells=[cell, other, seen])).cells
    assert blanked[0].metadata == {"tags": ["solution"]}
    assert blanked[1].metadata == {"jupyter": {"source_hidden": True}}
    assert blanked[2].metadata == {"tags": ["solution"], "jupyter": {"outputs_hidden": True}}


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("One. Two [x](../build/ml-100k/playground.html#a) more. Three.", "One. Three."),
        ("One.\n\n[X](a/playground.html#find).", "One.\n\n"),
        (
            "On `a.b` see\nthe [x](a/playground.html#a) (as built).\n\n## Next",
            "\n\n## Next",
        ),
        ("No link to a playground.", "No link to a playground."),
    ],
)
def test_edition_has_no_sentence_that_links_the_playground(source, kept):
    assert without_playground(source) == kept
