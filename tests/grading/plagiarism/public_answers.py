"""Compare answers with the student edition and the published reference.

These functions parse students' code: call them only where memory and time are limited.
"""

from functools import cache
from pathlib import Path

from grading.execution.empty import blank, blank_cell
from grading.execution.reference import answers
from grading.paths import ROOT
from grading.plagiarism.normal_form import normal_forms, own_part
from grading.rubric import RUBRIC


@cache
def public(key: str) -> tuple[dict[str, str], str]:
    """Return the published functions of "svd/svd.py" or "svd/new_user", and the student edition.

    The functions are hashes of normal forms, by name.
    """
    task, _, name = key.partition("/")
    if name.endswith(".py"):
        reference = (ROOT / "mflib" / Path(name).name).read_text(encoding="utf-8")
        handed_out = blank(reference, RUBRIC[task].kernels)
    else:
        reference = answers()[key]
        handed_out = blank_cell(reference)
    return {form.name: form.digest for form in normal_forms(reference)}, handed_out


def without_handout(key: str, source: str) -> str:
    """Return the source without a module's statements from the student edition."""
    return own_part(source, public(key)[1]) if key.endswith(".py") else source


def published(key: str, source: str) -> list[str]:
    """Return the functions of an answer that equal the reference's except for names and layout."""
    task, _, name = key.partition("/")
    names = RUBRIC[task].kernels if name.endswith(".py") else [name]
    mine, theirs = {form.name: form.digest for form in normal_forms(source)}, public(key)[0]
    return [one for one in names if one in mine and mine[one] == theirs.get(one)]


@cache
def warm_up() -> None:
    """Fill the caches before processes are forked."""
    for task, entry in RUBRIC.items():
        public(f"{task}/{entry.module}.py")
    for key in answers():
        public(key)
