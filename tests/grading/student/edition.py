"""Build the student edition: the suite without the answers, in build/assignment/ and as a zip.

The functions in rubric.toml and the cells tagged "solution" lose their bodies. Signatures,
docstrings and everything else stay. The notebooks show the reference's outputs below a line that
marks them, except outputs that contain answers. Running a cell replaces both. A cell with such
outputs has no execution count, so the grader knows that it was not executed. Derivations become
folded hints, and each notebook ends with a declaration.

checks/grading contains the modules of this package that students need, with the same imports in
both places. The checks compare with arrays that the reference computes during the build.
"""

import copy
import re
import shutil
import tempfile
from collections.abc import Iterable, Set
from pathlib import Path

import nbformat
import numpy as np

from grading.execution.empty import blank_notebook, empty_suite
from grading.execution.harness import Purpose
from grading.execution.inputs import SEEDS
from grading.execution.reference import expected
from grading.execution.trial import HARNESS
from grading.intake import declarations
from grading.judging.reproducibility import cells_with_model
from grading.paths import GRADING, NOTEBOOK_TOOLS, ROOT, copy_modules
from grading.rubric import CALLED, RUBRIC

STUDENT = GRADING / "student"  # files that are copied unchanged
TARGET = ROOT / "build" / "assignment"
SUITE = ROOT / "tests" / "suite.py"
COPIED = ("requirements.txt", "pyproject.toml", "LICENSE", ".gitignore", "data/README.md")
OPTIONAL = "05_experiments.ipynb"  # not graded; needs the kernels
OUTPUTS_OF_REFERENCE = NOTEBOOK_TOOLS / "ml-100k"  # the edition's default data set
MARK = "Output of the reference; your run replaces it."
MARK_LATER = "Output of the reference; yours replaces it when you run this cell with your kernels."
# Text that only the student edition folds.
# A sentence with a link to the playground: it follows another one, or begins a paragraph or line.
PLAYGROUND = re.compile(
    r"(^|[.:)]\s(?!\n)|\n\n)(?:(?![.]\s|\n\n).)*?/playground\.html.*?(?:\.(?=\s|$)|$) ?", re.DOTALL
)
HINT = re.compile(r"<!-- hint: (.+?) -->\n\n?(.*?)\n\n?<!-- end of hint -->", re.DOTALL)
INTAKE = ("archives", "cells", "collect", "declarations", "layouts", "names", "submission")
# The modules of this package that are copied to checks/grading.
CHECKS = (
    *(*HARNESS, "paths.py", "schema.py", "execution/trial.py", "kernels/public.py"),
    *(f"judging/{name}.py" for name in ("compare", "functions", "verdict")),
    *(f"intake/{name}.py" for name in INTAKE),
    *(f"student/{name}.py" for name in ("check", "obtain", "submit")),
)


def student_notebook(name: str) -> nbformat.NotebookNode:
    """Return a notebook of the student edition."""
    stored = nbformat.read(OUTPUTS_OF_REFERENCE / name, as_version=4)
    outputs = {cell.id: shown_outputs(cell) for cell in stored.cells if cell.cell_type == "code"}
    later = cells_that_need_kernels(name, outputs)
    notebook, is_before_loop = blank_notebook(stored), name != OPTIONAL
    for cell in notebook.cells:
        is_before_loop &= cell.id != "loop"
        if cell.cell_type != "code":
            cell.source = fold_hints(without_playground(cell.source))
        elif outputs[cell.id]:
            cell.outputs = [mark(MARK_LATER if cell.id in later else MARK), *outputs[cell.id]]
            if cell.id in later and is_before_loop:  # "Run All" must reach the student's cells
                cell.metadata.setdefault("tags", []).append("raises-exception")
    if name != OPTIONAL:
        place = next(n for n, cell in enumerate(notebook.cells) if cell.id == "references")
        declaration = nbformat.v4.new_markdown_cell(declarations.TEXT, id=declarations.ID)
        notebook.cells.insert(place, declaration)
    return notebook


def cells_that_need_kernels(name: str, cells: Iterable[str]) -> Set[str]:
    """Return the cells of a notebook that fail while the kernels are empty."""
    if name == OPTIONAL:
        return set(cells)
    (task,) = (task for task, entry in RUBRIC.items() if name == f"{entry.notebook}.ipynb")
    return cells_with_model(task)


def shown_outputs(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return a copy of a cell's outputs, or nothing if they contain an answer.

    The cell "kernel" displays the source of the kernel, and the check of a prediction explains
    which answer is correct.
    """
    if cell.id == "kernel" or "check" in cell.metadata.get("tags", []):
        return []
    outputs = copy.deepcopy(cell.outputs)
    for output in outputs:
        if "execution_count" in output:
            output.execution_count = None
    return outputs


def mark(text: str) -> nbformat.NotebookNode:
    """Return an output that states the origin of the outputs below it."""
    data = {"text/markdown": f"*{text}*", "text/plain": text}
    return nbformat.v4.new_output("display_data", data=data)


def without_playground(source: str) -> str:
    """Return markdown without the sentences that link the playground, which the edition lacks."""
    return PLAYGROUND.sub(r"\1", source)


def fold_hints(source: str) -> str:
    """Return markdown whose marked passages are folded below a line "Hint: …"."""
    folded = HINT.sub(r"<details><summary>Hint: \1</summary>\n\n\2\n\n</details>", source)
    if re.search("<!-- (end of )?hint", folded):
        raise ValueError(f"expected pairs of hint and end of hint, got {source!r}")
    return folded


def cases() -> dict[str, np.ndarray]:
    """Return the reference's outputs, by "task/function/seed/call/output", and their inputs."""
    arrays = {}
    fits = [f"{Purpose.SHORT_FIT}/{t}/{name}" for t in RUBRIC for name in RUBRIC[t].lists]
    for key in (*CALLED, *fits):
        for place, came in expected(key, SEEDS).items():
            arrays[f"{key}/{place}"] = came.after
            if came.before is not None:
                arrays[f"{key}/{place}/before"] = came.before
    return arrays


def build(target: Path) -> None:
    """Write the edition to ``target``, which is replaced atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".assignment-") as temporary:
        new = Path(temporary) / "assignment"
        empty_suite(new)
        for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
            nbformat.write(student_notebook(file.name), new / "notebooks" / file.name)
        for name in COPIED:
            (new / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, new / name)
        for file in (STUDENT / "README.md", STUDENT / "Makefile", SUITE):
            shutil.copy(file, new / file.name)
        (new / "checks").mkdir()
        empty_suite(new / "checks" / "suite")  # a copy that stays unchanged
        copy_modules(CHECKS, new / "checks")
        shutil.copy(NOTEBOOK_TOOLS / "fresh_kernel.py", new / "checks")
        np.savez_compressed(new / "checks" / "cases.npz", **cases())  # type: ignore[arg-type]
        shutil.copy(STUDENT / "AGENTS.md", new)  # for coding assistants
        (new / ".github" / "workflows").mkdir(parents=True)
        shutil.copy(STUDENT / "check.yml", new / ".github" / "workflows")
        shutil.make_archive(str(Path(temporary) / "packed"), "zip", temporary, "assignment")
        if target.exists():
            target.rename(Path(temporary) / "old")
        new.rename(target)
        (Path(temporary) / "packed.zip").replace(target.with_suffix(".zip"))


if __name__ == "__main__":
    build(TARGET)
    place = TARGET.relative_to(ROOT)
    print(f"The student edition is in {place} and {place}.zip")
